//! The binary `vidar`.

use std::process::ExitCode;

fn main() -> ExitCode {
    vidar_server::cli::main()
}
