//! The cluster, and what its agents take.

use anyhow::{Context, Result};
use aya::programs::loaded_programs;
use vip_tests::agent::Programs;
use vip_tests::clock::until;
use vip_tests::cluster::{Cluster, PATIENCE, Plan};
use vip_tests::outcome::Timeline;

/// The thread of an agent that keeps rosters.
pub(super) const THREAD: &str = "vip-roster";

/// Three nodes with an agent's usual timers, or with these.
pub(super) fn cluster(programs: &Programs, more: &str) -> Result<Cluster> {
    let plan = Plan {
        interval: "100ms".to_owned(),
        more: more.to_owned(),
        ..Plan::default()
    };
    Cluster::start(programs, plan, &mut Timeline::new(false))
}

/// For how long all threads of a node's agent have run, in nanoseconds.
pub(super) fn agent_time(cluster: &Cluster, node: usize) -> Result<u64> {
    let pid = cluster.agent_pid(node).context("no agent was started")?;
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).context("list its threads")?;
    let time = |thread: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
        // A thread may have ended meanwhile.
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    Ok(threads.filter_map(time).sum())
}

/// For how long the programs have run that tell agents of connections, in nanoseconds. It is counted
/// only while somebody holds [`aya::sys::enable_stats`].
pub(super) fn program_time() -> Result<u64> {
    /// `vip_roster_changes`, as long as the kernel lets it be.
    const NAME: &str = "vip_roster_chan";
    let mut time = 0;
    for program in loaded_programs() {
        let program = program.context("list BPF programs")?;
        if program.name_as_str() == Some(NAME) {
            time += program.run_time().as_nanos() as u64;
        }
    }
    Ok(time)
}

/// Resident memory of a node's agent in MiB.
pub(super) fn resident(cluster: &Cluster, node: usize) -> Result<f64> {
    let pid = cluster.agent_pid(node).context("no agent was started")?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("its memory")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let pages = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = pages.context("VmRSS is not there")?.parse()?;
    Ok(kib / 1024.0)
}

/// Waits until the peers know so many connections of a node.
pub(super) fn wait_until_known(
    cluster: &Cluster,
    node: usize,
    peers: &[usize],
    count: usize,
) -> Result<()> {
    until("the peers know all connections", PATIENCE, || {
        for &peer in peers {
            let status = cluster.status(peer)?;
            let entry = status.node(cluster.host(node));
            if entry.is_none_or(|entry| entry.roster < count as u64) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}
