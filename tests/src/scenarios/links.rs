//! Nodes whose NICs are not the plain end of a cable: the agent finds out by itself how to run
//! its program there, says so, and all else is as on any other NIC.

use anyhow::Result;

use crate::cluster::Cluster;
use crate::outcome::{Outcome, Report};
use crate::traffic::{get, vip};

/// Bytes of a request: several of the largest segments.
const LARGE: usize = 24 << 10;

/// Enough for all servers to be reached.
const CONNECTIONS: usize = 30;

/// A bridge has no driver that could run XDP.
pub(super) fn bridge(cluster: &mut Cluster, report: &mut Report) -> Result<Outcome> {
    run(cluster, report, "generic")
}

/// Frames in several pieces.
pub(super) fn jumbo(cluster: &mut Cluster, report: &mut Report) -> Result<Outcome> {
    run(cluster, report, "native")
}

/// The place of XDP is taken.
pub(super) fn occupied(cluster: &mut Cluster, report: &mut Report) -> Result<Outcome> {
    run(cluster, report, "tc")
}

/// Frames that nodes sent on to others, and their bytes.
fn forwarded(cluster: &Cluster) -> Result<(u64, u64)> {
    cluster.nodes().into_iter().try_fold((0, 0), |sum, node| {
        let sent = cluster.status(node)?.forwarded();
        Ok((sum.0 + sent.0, sum.1 + sent.1))
    })
}

fn run(cluster: &mut Cluster, report: &mut Report, mode: &str) -> Result<Outcome> {
    let mut violations = Vec::new();
    for node in cluster.nodes() {
        let found = cluster.status(node)?.xdp.mode;
        if found != mode {
            let name = cluster.name(node);
            violations.push(format!("{name} uses {found} and not {mode}"));
        }
    }
    let before = forwarded(cluster)?;
    report.event(format!("all nodes use {mode}"));

    let path = format!("/whoami?{}", "x".repeat(LARGE));
    let client = cluster.topology.client.as_ref();
    let mut failed = 0;
    for _ in 0..CONNECTIONS {
        failed += usize::from(get(cluster, client, &path, &vip()).is_err());
    }
    let after = forwarded(cluster)?;
    let (packets, bytes) = (after.0 - before.0, after.1 - before.1);
    report.event(format!(
        "{failed} of {CONNECTIONS} large requests failed; {packets} frames with {bytes} bytes were steered"
    ));
    if failed > 0 {
        violations.push(format!("{failed} of {CONNECTIONS} large requests failed"));
    }
    // Otherwise they were not steered, and nothing was proved.
    if bytes < (CONNECTIONS * LARGE / 4) as u64 {
        violations.push(format!("only {bytes} bytes were steered"));
    }

    let mut outcome = super::owner_killed::run(cluster, report)?;
    outcome.requests += CONNECTIONS;
    outcome.failed += failed;
    outcome.violations.splice(0..0, violations);
    Ok(outcome)
}
