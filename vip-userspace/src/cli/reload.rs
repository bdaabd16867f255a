//! `vip reload`. What waits for the next start is no failure: the file is good, and `systemctl reload`
//! must not say that it is not.

use std::process::ExitCode;

use super::error::BadInput;
use super::output::{complain, tell};
use crate::observe::socket::{Reloaded, Request, ask};
use crate::run_dir::RunDir;

pub(super) fn run(run_dir: &RunDir) -> anyhow::Result<ExitCode> {
    let changes = match ask(run_dir, &Request::Reload)? {
        Reloaded::Done(changes) => changes,
        Reloaded::Refused(why) => return Err(BadInput(why).into()),
    };
    for change in &changes.applied {
        tell(change);
    }
    for line in &changes.kept {
        complain(format_args!("reload: {line}"));
    }
    if changes.applied.is_empty() && changes.kept.is_empty() {
        tell("nothing has changed");
    }
    Ok(ExitCode::SUCCESS)
}
