//! Scripts in Python, which have the clients of the reference service.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What runs a script of this folder: a Python that has boto3 and the command line of the service.
pub fn script(name: &str) -> [String; 3] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let python = root.join("target/tools/bin/python");
    let ready = Command::new(&python).args(["-c", "import boto3, awscli"]).stderr(Stdio::null()).status();
    if !ready.is_ok_and(|status| status.success()) {
        super::run(root.join("scripts/tools").to_str().expect("UTF-8"), &["boto3", "awscli"]);
    }
    let text = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
    [text(python), "-B".to_owned(), text(root.join("server/tests").join(name))]
}

/// Runs a script to its end; its output.
pub fn run(name: &str, args: &[&str]) -> Vec<u8> {
    let [python, flag, script] = script(name);
    super::run(&python, &[&[flag.as_str(), &script], args].concat())
}
