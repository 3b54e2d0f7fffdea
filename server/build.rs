//! Takes in the console that `scripts/web` left in `web/dist`: a table of its files for `console/mod.rs`.
//!
//! Without them the table is empty, so that building needs no Node.js.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn files_of(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files_of(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    // The folder is in the repository: one that is missing would make cargo build this crate each time.
    let dist = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../web/dist");
    println!("cargo:rerun-if-changed={}", dist.display());
    println!("cargo:rerun-if-changed=build.rs");
    let mut files = Vec::new();
    if dist.join("index.html").is_file() {
        files_of(&dist, &mut files)?;
    }
    files.sort();
    let mut table = String::from("&[\n");
    for path in files {
        let name = path.strip_prefix(&dist).expect("below it").to_str().expect("a UTF-8 name");
        if !name.starts_with('.') {
            let path = path.canonicalize()?;
            writeln!(table, "    ({name:?}, include_bytes!({path:?})),").expect("a string takes it");
        }
    }
    table.push(']');
    fs::write(Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("console_files.rs"), table)
}
