//! `vip leave`.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::open::{self, LOOK};
use super::output::tell;
use crate::observe::socket::{Drained, Request, Target, ask};
use crate::observe::status::Status;
use crate::run_dir::RunDir;

/// In this time all nodes have been told which of them drain.
const TOLD: Duration = Duration::from_secs(2);

/// Longest time for the VIP to become another node's, and for the programs to be removed.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn run(run_dir: &RunDir, timeout: Duration, force: bool) -> anyhow::Result<ExitCode> {
    let () = ask(run_dir, &Request::MayLeave { force })?;
    let draining = true;
    let drained: Drained = ask(run_dir, &Request::Drain { draining, force })?;
    let node = drained.node;
    tell(format_args!("{node} takes no new connections"));
    let begun = Instant::now();
    let here = Target::here(run_dir);
    if open::wait(here, timeout)? != 0 {
        open::cut(here)?;
    }
    // Others may leave at the same time: by then they have told.
    sleep(TOLD.saturating_sub(begun.elapsed()));
    let _node: String = ask(run_dir, &Request::Leave { force })?;
    // The agent answers so once all is removed.
    let end = Instant::now() + PATIENCE;
    while ask::<Status>(run_dir, &Request::Status).is_ok() {
        anyhow::ensure!(
            Instant::now() < end,
            "the agent has not ended its work within {PATIENCE:?}: see its log"
        );
        sleep(LOOK);
    }
    tell(format_args!(
        "{node} has left the cluster; remove the static pod or disable the unit, and run `vip \
         cleanup` for the agent's files: an agent that starts here joins again"
    ));
    Ok(ExitCode::SUCCESS)
}
