//! `vip drain` and `vip undrain`.

use std::path::Path;
use std::process::ExitCode;

use super::output::{complain, tell};
use crate::observe::socket::{Drained, Request, ask};

pub(super) fn run(run_directory: &Path, draining: bool, force: bool) -> anyhow::Result<ExitCode> {
    let request = Request::Drain { draining, force };
    let Drained {
        node,
        instead,
        until_reboot,
    } = ask(run_directory, &request)?;
    if draining {
        tell(format_args!(
            "{node} takes no new connections; `vip undrain` ends that"
        ));
        if let Some(instead) = instead {
            complain(instead);
        }
        if let Some(why) = until_reboot {
            complain(format_args!(
                "it takes them again after the next boot, since that cannot be noted in {why}"
            ));
        }
    } else {
        tell(format_args!("{node} takes new connections"));
    }
    Ok(ExitCode::SUCCESS)
}
