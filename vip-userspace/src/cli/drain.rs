//! `vip drain` and `vip undrain`.

use std::process::ExitCode;

use super::output::{complain, tell};
use crate::observe::socket::{Drained, Request, ask};
use crate::run_dir::RunDir;

pub(super) fn run(run_dir: &RunDir, draining: bool, force: bool) -> anyhow::Result<ExitCode> {
    let request = Request::Drain { draining, force };
    let Drained {
        node,
        instead,
        not_noted,
    } = ask(run_dir, &request)?;
    let forgets = if draining {
        tell(format_args!(
            "{node} takes no new connections; `vip undrain` ends that"
        ));
        if let Some(instead) = instead {
            complain(instead);
        }
        "it takes them again after the next boot"
    } else {
        tell(format_args!("{node} takes new connections"));
        "it takes none again after the next start of its agent"
    };
    if let Some(why) = not_noted {
        complain(format_args!(
            "{forgets}, because this cannot be saved: {why}; repair the disk and run this again"
        ));
    }
    Ok(ExitCode::SUCCESS)
}
