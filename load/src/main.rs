//! The binary `vidar-load`.

#![allow(clippy::print_stderr)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match vidar_load::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vidar-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}
