//! Scripts for Node.js, in folders of their own beside the tests, and the browser that some of them drive.
//!
//! `npm ci` in such a folder brings its packages; `scripts/test` does that where npm is.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's.
const CHROMIUM: &str = "/usr/bin/chromium";

/// A folder of scripts whose packages are there. None: they are not, and the test has nothing to say.
///
/// # Panics
/// If they are not, and VIDAR_TEST_BROWSER is set.
pub fn folder(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    wanted(folder.join("node_modules").is_dir(), &format!("Node.js packages of {name}")).then_some(folder)
}

/// Where Chromium is; none and panics as [`folder`].
pub fn chromium() -> Option<&'static str> {
    wanted(Path::new(CHROMIUM).is_file(), CHROMIUM).then_some(CHROMIUM)
}

/// Whether something is there. Where a browser is wanted it is an error if not: a run that was to see it is not to pass without.
pub fn wanted(is_there: bool, what: &str) -> bool {
    assert!(is_there || std::env::var_os("VIDAR_TEST_BROWSER").is_none(), "no {what}");
    is_there
}

/// Runs a script of a folder to its end, with more in its environment; its output.
pub fn run(folder: &Path, script: &str, args: &[&str], environment: &[(&str, &str)]) -> Vec<u8> {
    let mut command = Command::new("node");
    command.arg(folder.join(script)).args(args).envs(environment.iter().copied());
    let output = command.output().expect("node runs");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
