//! `vip drain` and `vip undrain`.

use std::path::Path;
use std::process::ExitCode;

use crate::observe::socket::{Request, ask};

pub(super) fn run(run_directory: &Path, draining: bool) -> anyhow::Result<ExitCode> {
    let node: String = ask(run_directory, &Request::Drain { draining })?;
    if draining {
        println!("{node} takes no new connections; `vip undrain` ends that");
    } else {
        println!("{node} takes new connections");
    }
    Ok(ExitCode::SUCCESS)
}
