//! The demo: the faults one after the other on one cluster, told as they happen, a table and a
//! verdict. On request, the same faults on a cluster with keepalived and HAProxy.

mod row;
mod table;
mod verdict;
mod versus;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use serde::Serialize;

use crate::agent::Programs;
use crate::cluster::{Cluster, Flavour, Plan};
use crate::kube::{Binaries, Layout};
use crate::outcome::Timeline;
use crate::scenarios::DEMO;
use row::Row;
use verdict::{Broken, Verdict};
use versus::Versus;

/// The real API server if there is one.
#[must_use]
pub fn best_flavour() -> Flavour {
    Binaries::find().map_or(Flavour::StandIn, |binaries| {
        Flavour::Kubernetes(binaries, Layout::Apart)
    })
}

/// All that was found; the form of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Verdict,
    scenarios: Vec<Row>,
    /// The same faults with keepalived and HAProxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    versus: Option<Versus>,
}

/// Runs the demo, and also with keepalived and HAProxy if `is_compared`. Its status says whether the
/// product has kept its promises.
///
/// # Errors
/// The cluster does not come up, or the report cannot be written.
pub fn run(json: Option<&Path>, is_compared: bool) -> Result<ExitCode> {
    let programs = Programs::find()?;
    let mut timeline = Timeline::new(true);
    let (scenarios, broken) = run_scenarios(&programs, &mut timeline)?;
    let versus = is_compared.then(|| versus::run(&programs, best_flavour(), &mut timeline));
    let report = Report {
        verdict: Verdict::of(&scenarios, DEMO.len(), broken),
        scenarios,
        versus,
    };
    print!("{}", table::of(&report.scenarios));
    if let Some(versus) = &report.versus {
        print!("{}", table::beside(&report.scenarios, versus));
    }
    println!("\n{}", report.verdict);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report).context("write the report as JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if report.verdict.kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs all scenarios on one cluster, until one cannot be carried out.
fn run_scenarios(programs: &Programs, timeline: &mut Timeline) -> Result<(Vec<Row>, Vec<Broken>)> {
    // One node, to which others come.
    let plan = Plan {
        flavour: best_flavour(),
        ..Plan::found_by(1, 4, "")
    };
    let mut cluster = Cluster::start(programs, plan, timeline)?;
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    for scenario in DEMO {
        println!();
        timeline.event(format!("== {} ==", scenario.name));
        let begin = Instant::now();
        let outcome = (scenario.run)(&mut cluster, timeline);
        let violations = match &outcome {
            Ok(outcome) => outcome.violations.clone(),
            Err(error) => vec![format!("not carried out: {}", error.root_cause())],
        };
        if !violations.is_empty() {
            let logs = cluster.save_logs(scenario.name)?;
            if let Err(error) = &outcome {
                // With all that the agents said last.
                std::fs::write(logs.join("error.txt"), format!("{error:?}\n"))
                    .context("write error.txt")?;
            }
            broken.push(Broken {
                scenario: scenario.name.to_owned(),
                violations,
                logs,
            });
        }
        // The cluster may be in any state after an error.
        let Ok(outcome) = outcome else { break };
        rows.push(Row {
            seconds: begin.elapsed().as_secs_f64(),
            outcome,
        });
    }
    Ok((rows, broken))
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
