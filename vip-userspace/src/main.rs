//! The `vip` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    vip_userspace::cli::main()
}
