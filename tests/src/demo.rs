//! The demo: the faults one after the other on one cluster, told as they happen, and a table.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::agent::Programs;
use crate::cluster::{Cluster, Flavour, Plan};
use crate::kube::{Binaries, Layout};
use crate::outcome::{Outcome, Timeline};
use crate::scenarios::DEMO;

/// The real API server if there is one.
#[must_use]
pub fn best_flavour() -> Flavour {
    Binaries::find().map_or(Flavour::StandIn, |binaries| {
        Flavour::Kubernetes(binaries, Layout::Apart)
    })
}

/// Runs the demo. Fails if a promise was not kept.
///
/// # Errors
/// The cluster does not come up, or the table cannot be written.
pub fn run(json: Option<&Path>) -> Result<ExitCode> {
    let programs = Programs::find()?;
    let mut timeline = Timeline::new(true);
    // One node, to which others come.
    let plan = Plan {
        flavour: best_flavour(),
        ..Plan::found_by(1, 4, "")
    };
    let mut cluster = Cluster::start(&programs, plan, &mut timeline)?;
    let mut outcomes = Vec::new();
    for scenario in DEMO {
        println!();
        timeline.event(format!("== {} ==", scenario.name));
        let outcome = (scenario.run)(&mut cluster, &mut timeline);
        let kept = outcome.as_ref().is_ok_and(|o| o.violations.is_empty());
        if !kept {
            let logs = cluster.save_logs(scenario.name)?;
            println!("logs are in {}", logs.display());
        }
        outcomes.push(outcome.with_context(|| format!("scenario {}", scenario.name))?);
    }
    drop(cluster);
    print!("{}", table(&outcomes));
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&outcomes).context("write the table as JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    let mut code = ExitCode::SUCCESS;
    for outcome in &outcomes {
        for violation in &outcome.violations {
            println!("{}: {violation}", outcome.name);
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Lays out the network with API servers and no agents, says how to get in, and waits for
/// SIGINT or SIGTERM.
///
/// # Errors
/// Something does not start.
pub fn up() -> Result<()> {
    let mut timeline = Timeline::new(true);
    let plan = Plan {
        bare: true,
        flavour: best_flavour(),
        ..Plan::default()
    };
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("block signals")?;
    let cluster = Cluster::start(&Programs::find()?, plan, &mut timeline)?;
    for host in cluster.topology.hosts() {
        println!("{:8} {:12} {}", host.name(), host.address(), host.way_in());
    }
    println!(
        "certificates are in {}",
        cluster.pki().directory().display()
    );
    signals.wait().context("wait for a signal")?;
    Ok(())
}

/// The table for people.
fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "\n{:18} {:>8} {:>6} {:>6} {:>7} {:>7} {:>6} {:>6} {:>8}\n",
        "scenario", "requests", "failed", "lost", "gap ms", "watches", "cut", "reset", "told ms"
    );
    for o in outcomes {
        text += &format!(
            "{:18} {:>8} {:>6} {:>6} {:>7} {:>7} {:>6} {:>6} {:>8}\n",
            o.name,
            o.requests,
            o.failed,
            o.lost_with_server,
            o.gap_ms,
            o.watches,
            o.watches_cut_living,
            o.watches_reset_dead,
            o.told_ms
                .map_or_else(|| "-".to_owned(), |ms| ms.to_string())
        );
    }
    text += "\nfailed: requests that failed, without those lost.\n\
             lost:   requests whose connection was open to the server that went down.\n\
             gap:    longest time between two answers.\n\
             cut:    watches that ended although their server lives.\n\
             reset:  watches whose server went down and whose client was told so.\n\
             told:   from the moment at which it went down to the last of these.\n";
    text
}
