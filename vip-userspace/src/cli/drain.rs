//! `vip drain` and `vip undrain`.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;

use super::open;
use super::output::{complain, tell};
use crate::config;
use crate::observe::socket::{Drained, Request, ask};
use crate::run_dir::RunDir;

/// What `vip drain` is asked for.
#[derive(Args)]
pub(super) struct Options {
    /// Also if no other node can take new connections as well
    #[arg(long)]
    force: bool,
    /// Then reset all open connections of other hosts and of pods to the services' ports, by a VIP or
    /// by this node's own address; clients of a VIP connect to other nodes
    #[arg(long)]
    cut: bool,
    /// Longest wait for open connections to end before they are reset; at least 1s, in which other
    /// nodes are told
    #[arg(long, value_name = "DURATION", default_value = "1s", requires = "cut",
          allow_hyphen_values = true, value_parser = config::duration)]
    after: Duration,
}

/// In this time the other nodes have heard that this one drains: clients that are reset do not come
/// back.
const HEARD: Duration = Duration::from_secs(1);

pub(super) fn drain(run_dir: &RunDir, options: &Options) -> anyhow::Result<ExitCode> {
    set(run_dir, true, options.force)?;
    if options.cut {
        let begun = Instant::now();
        open::wait(run_dir, options.after)?;
        sleep(HEARD.saturating_sub(begun.elapsed()));
        open::cut(run_dir)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn undrain(run_dir: &RunDir) -> anyhow::Result<ExitCode> {
    set(run_dir, false, false)?;
    Ok(ExitCode::SUCCESS)
}

fn set(run_dir: &RunDir, draining: bool, force: bool) -> anyhow::Result<()> {
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
    Ok(())
}
