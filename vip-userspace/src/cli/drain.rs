//! `vip drain` and `vip undrain`.

use std::path::Path;
use std::process::ExitCode;

use crate::observe::socket::{Drained, Request, ask};

pub(super) fn run(run_directory: &Path, draining: bool, force: bool) -> anyhow::Result<ExitCode> {
    let request = Request::Drain { draining, force };
    let Drained { node, instead } = ask(run_directory, &request)?;
    if draining {
        println!("{node} takes no new connections; `vip undrain` ends that");
        if let Some(instead) = instead {
            eprintln!("vip: {instead}");
        }
    } else {
        println!("{node} takes new connections");
    }
    Ok(ExitCode::SUCCESS)
}
