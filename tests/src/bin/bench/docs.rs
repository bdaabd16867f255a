//! `cargo xtask bench docs`: runs the benchmarks of the packet path and writes what they found
//! to `docs/benchmarks-packet-path.md`. Draws `docs/benchmarks.svg` anew.

use std::path::Path;

use anyhow::{Context, Result};
use vip_tests::picture;

use crate::connections::{self, Balancer};
use crate::report::Report;
use crate::{live, steer};

/// How long each benchmark runs.
pub(super) struct Effort {
    pub(super) rounds: usize,
    pub(super) packets: u32,
    pub(super) connections: u32,
}

pub(super) fn run(effort: &Effort) -> Result<()> {
    let rounds = effort.rounds;
    let steered = steer::measure(rounds, effort.packets)?;
    let live = live::measure(rounds, effort.packets)?;
    let connections = connections::measure(rounds, effort.connections, Balancer::USUAL)?;
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
    let path = folder.join("benchmarks-packet-path.md");
    std::fs::write(&path, page(rounds, &steered, &live, &connections)?)
        .with_context(|| format!("write {}", path.display()))?;
    println!("wrote {}", path.display());
    println!("wrote {}", picture::write(folder)?.display());
    Ok(())
}

/// Another product in the same accounting.
const KATRAN: &str = "\
    Cold: the caches are evicted before each slice of 20,000 packets, for the floor too. A real \
    control plane gets few packets, so its tables are rarely in the caches.\n\n\
    For comparison, Katran's ratios in the same accounting: an established flow 5.8, a SYN with its \
    write to the LRU table 12.5, a million flows 21. We measured them earlier on the same kind of \
    machine. They are not from this run.\n\n";

fn page(rounds: usize, steer: &Report, live: &Report, connections: &Report) -> Result<String> {
    let mut page = format!(
        "# Benchmarks of the packet path\n\n\
         Made by `cargo xtask bench docs` on {}. Each number is the median over {rounds} rounds in \
         which everything takes its turn. Machines are noisy: look at the ratios. \
         [A picture](benchmarks.svg) shows what a connection costs, beside other balancers.\n\n",
        steer.origin()
    );
    page += "## What a packet costs the programs\n\n\
             Thread CPU time by `BPF_PROG_TEST_RUN` (`cargo xtask bench steer`). The ratio is to a \
             program that parses, swaps addresses and sends the packet back.\n\n";
    page += KATRAN;
    page += &steer.markdown()?;
    page += "\n## Real frames\n\n\
             Frames a second of one core's time, from one end of a veth to the other, which drops \
             them on the same core (`cargo xtask bench live`).\n\n";
    page += &live.markdown()?;
    page += "\n## Connections\n\n\
             CPU time of the whole machine, with client and servers, and what of it is more than \
             when the client goes to the servers itself (`cargo xtask bench connections`).\n\n";
    page += &connections.markdown()?;
    Ok(page)
}
