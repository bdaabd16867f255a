//! `vip drain` and `vip undrain`.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;

use super::open;
use super::output::{complain, tell};
use crate::config;
use crate::observe::socket::{Drained, Request, Target};
use crate::run_dir::RunDir;

/// What `vip drain` is asked for.
#[derive(Args)]
pub(super) struct Options {
    #[command(flatten)]
    node: Named,
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

/// Which node a command is about.
#[derive(Args)]
pub(super) struct Named {
    /// Name or address of the node; the agents must share a key to ask each other [default: this one]
    #[arg(value_name = "NODE")]
    node: Option<String>,
}

impl Named {
    const fn at<'a>(&'a self, run_dir: &'a RunDir) -> Target<'a> {
        Target {
            run_dir,
            node: match &self.node {
                Some(node) => Some(node.as_str()),
                None => None,
            },
        }
    }
}

/// In this time the other nodes have heard that this one drains: clients that are reset do not come
/// back.
const HEARD: Duration = Duration::from_secs(1);

pub(super) fn drain(run_dir: &RunDir, options: &Options) -> anyhow::Result<ExitCode> {
    let node = options.node.at(run_dir);
    set(node, true, options.force)?;
    if options.cut {
        let begun = Instant::now();
        open::wait(node, options.after)?;
        sleep(HEARD.saturating_sub(begun.elapsed()));
        open::cut(node)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn undrain(run_dir: &RunDir, node: &Named) -> anyhow::Result<ExitCode> {
    set(node.at(run_dir), false, false)?;
    Ok(ExitCode::SUCCESS)
}

fn set(at: Target<'_>, draining: bool, force: bool) -> anyhow::Result<()> {
    let Drained {
        node,
        instead,
        not_noted,
    } = at.ask(Request::Drain { draining, force })?;
    let forgets = if draining {
        let of = at.node.map(|_| format!(" {node}")).unwrap_or_default();
        tell(format_args!(
            "{node} takes no new connections; `vip undrain{of}` ends that"
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
