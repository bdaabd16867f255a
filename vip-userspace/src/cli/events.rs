//! `vip events`.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::output::print_line;
use crate::agent::state;
use crate::observe::journal;
use crate::run_dir::{EVENTS, RunDir};

/// Between looks at the file with `--follow`.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) fn run(
    run_directory: &RunDir,
    state_directory: Option<&Path>,
    follow: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut next = 0;
    loop {
        // Whoever follows may do so over the next start of an agent, which says where it is.
        let directory = state::directory(state_directory, run_directory);
        // Whoever follows may do so before the first agent starts.
        let records = match directory.map(|directory| directory.join(EVENTS)) {
            Some(path) => match journal::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && follow => Vec::new(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => anyhow::bail!(
                    "no events at {}: has `vip run` run on this node?",
                    path.display()
                ),
                other => other.with_context(|| format!("cannot read {}", path.display()))?,
            },
            None if follow => Vec::new(),
            None => anyhow::bail!(
                "no agent has noted in {} where its events are: give its --state-dir",
                run_directory.path().display()
            ),
        };
        // After `vip cleanup` they are counted from the beginning.
        if records.last().is_some_and(|last| last.sequence + 1 < next) {
            next = 0;
        }
        for record in records.iter().filter(|record| record.sequence >= next) {
            if json {
                print_line(serde_json::to_string(record)?)?;
            } else {
                print_line(record)?;
            }
        }
        next = records.last().map_or(next, |last| last.sequence + 1);
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(PAUSE);
    }
}
