//! `cargo xtask bench failover`: what clients notice when a node, an agent or an API server fails,
//! beside keepalived and HAProxy.
//!
//! Each run has a cluster of its own, in network namespaces, with TLS servers that stand in for
//! API servers. The profiles take turns. Two clients, one of them behind a router, each start a
//! request on a new connection every 5 ms, whatever became of those before; a request has failed
//! after 50 ms. 200 watches are open. The gap is the longest time between two answers to the same
//! client. Late requests began after all agents had noticed by BFD that the node is silent.
//!
//! - `default`, `fast`: our agent as it is, and with 10 ms advertisements, 3 × 10 ms BFD and a
//!   `reset_after` of 500 ms.
//! - `guide`: keepalived and HAProxy as in the kubeadm guide to high availability. Its check
//!   script connects to the local HAProxy instead of calling curl.
//! - `tuned`: the same with VRRPv3 advertisements every 10 ms and a check every 200 ms.

pub(crate) mod kinds;
pub(crate) mod setup;
mod table;
mod trial;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use vip_tests::agent::Programs;

use crate::report::Report;
use kinds::{Profile, Scenario, name};
use table::Found;
use trial::Sample;

/// What to run.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Runs of each profile in each scenario
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Only these scenarios
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Only these profiles
    #[arg(long, value_delimiter = ',')]
    profile: Vec<Profile>,
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> Result<()> {
    ensure!(options.runs > 0, "--runs must be at least 1");
    let programs = Programs::find()?;
    let chosen =
        |scenario: &Scenario| options.scenario.is_empty() || options.scenario.contains(scenario);
    let scenarios = Scenario::value_variants().iter().copied().filter(chosen);
    let profiles: Vec<Profile> = Profile::value_variants()
        .iter()
        .copied()
        .filter(|profile| options.profile.is_empty() || options.profile.contains(profile))
        .collect();
    let title =
        "what clients notice: medians and worst over the runs, sums of requests and watches";
    let mut report = Report::new(title.to_owned(), table::LABELS, table::columns());
    report.print_head();
    for scenario in scenarios {
        let mut samples: BTreeMap<Profile, Vec<Sample>> = BTreeMap::new();
        for _ in 0..options.runs {
            for &profile in &profiles {
                if scenario == Scenario::ProxyKilled && profile.is_ours() {
                    continue;
                }
                let sample = trial::run(&programs, profile, scenario)
                    .with_context(|| format!("{} {}", name(&scenario), name(&profile)));
                match sample {
                    Ok(sample) => samples.entry(profile).or_default().push(sample),
                    Err(error) if profile.is_ours() => return Err(error),
                    // Two owners of keepalived may fight for so long that nothing gets through.
                    Err(error) => eprintln!("a run that came to nothing is left out: {error:#}"),
                }
            }
        }
        for (profile, samples) in &samples {
            let row = Found(samples).row(scenario, *profile);
            report.print_row(&row);
            report.add(row);
        }
    }
    report.write_json(options.json.clone())
}
