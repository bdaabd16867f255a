//! `cargo xtask bench roster`: what it costs to know who is connected to which node, and how soon the
//! clients of a dead node are told.
//!
//! Clients and servers speak plain TCP, and nothing is sent on most connections. Each host has a table
//! of sockets of its own, as large as the machine's: a scan reads all of it.
//!
//! - `rest`: idle connections on one node. `known` is the time from the last one opened until all other
//!   nodes know all of them. The other figures are of some seconds of rest after that: what a scan
//!   takes, the thread `vip-roster` on that node and on another one, the whole agent on that node, in
//!   per mille of a core, and the agents' resident memory.
//! - `churn`: short connections come and go on all nodes, and then also SYNs from addresses that do not
//!   answer. CPU time is that of all three agents, more than at rest. `programs` is the time in the
//!   kernel, where connections are told: here each of the three programs runs for the connections of all
//!   three nodes, which have one kernel. `wait` is the mean time for which the thread that keeps time
//!   waits for a processor.
//! - `told`: the owner's power is cut; from there until the first and the last of its clients got
//!   their reset.

mod agents;
mod churn;
mod clients;
mod rest;
mod told;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use vip_tests::agent::Programs;

use crate::report;

/// What to run.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    part: Vec<Part>,
    /// Idle connections on one node, in steps
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1000, 10_000, 100_000])]
    idle: Vec<usize>,
    /// Seconds for which each step and each kind of churn is measured
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Power cuts of each profile
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Clients of the node whose power is cut
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// Idle connections
    Rest,
    /// Short connections
    Churn,
    /// A power cut
    Told,
}

pub(super) fn run(options: &Options) -> Result<()> {
    ensure!(
        options.seconds > 0 && options.runs > 0,
        "nothing to be measured"
    );
    own_socket_tables()?;
    let programs = Programs::find()?;
    let parts = if options.part.is_empty() {
        Part::value_variants()
    } else {
        &options.part
    };
    let mut reports = Vec::new();
    for part in parts {
        reports.push(match part {
            Part::Rest => rest::measure(&programs, &options.idle, options.seconds)?,
            Part::Churn => churn::measure(&programs, options.seconds)?,
            Part::Told => told::measure(&programs, options.runs, options.clients)?,
        });
    }
    report::write_all(&reports, options.json.clone())
}

/// Gives each network namespace that is made from here on its own table of sockets. Otherwise all
/// nodes would look at the sockets of all hosts.
fn own_socket_tables() -> Result<()> {
    const OWN: &str = "/proc/sys/net/ipv4/tcp_ehash_entries";
    const CHILDREN: &str = "/proc/sys/net/ipv4/tcp_child_ehash_entries";
    let size = std::fs::read_to_string(OWN).context("size of the table of sockets")?;
    // Negative where it is another namespace's.
    let size = size.trim().trim_start_matches('-');
    std::fs::write(CHILDREN, size).context("a table of sockets for each host (Linux 6.1)")
}
