//! `vip drain` and `vip undrain`.

use std::path::Path;
use std::process::ExitCode;

use super::output::{complain, tell};
use crate::observe::socket::{Drained, Request, ask};

pub(super) fn run(run_directory: &Path, draining: bool, force: bool) -> anyhow::Result<ExitCode> {
    let request = Request::Drain { draining, force };
    let Drained { node, instead } = ask(run_directory, &request)?;
    if draining {
        tell(format_args!(
            "{node} takes no new connections; `vip undrain` ends that"
        ));
        if let Some(instead) = instead {
            complain(instead);
        }
    } else {
        tell(format_args!("{node} takes new connections"));
    }
    Ok(ExitCode::SUCCESS)
}
