//! The `vip` binary.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

fn main() -> ExitCode {
    vip_userspace::cli::main()
}
