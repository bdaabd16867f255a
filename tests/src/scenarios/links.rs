//! Nodes whose NICs are not the plain end of a cable: the agent finds out by itself how to run
//! its program there, says so, and all else is as on any other NIC.

use anyhow::Result;

use crate::cluster::Cluster;
use crate::outcome::{Outcome, Report};
use crate::process::output;
use crate::traffic::vip;

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

fn run(cluster: &mut Cluster, report: &mut Report, mode: &str) -> Result<Outcome> {
    let mut violations = Vec::new();
    let mut before = (0, 0);
    for node in cluster.nodes() {
        let status = cluster.status(node)?;
        if status.xdp.mode != mode {
            let name = cluster.name(node);
            violations.push(format!("{name} uses {} and not {mode}", status.xdp.mode));
        }
        let sent = status.forwarded();
        before = (before.0 + sent.0, before.1 + sent.1);
    }
    report.event(format!("all nodes use {mode}"));

    let path = format!("/whoami?{}", "x".repeat(LARGE));
    let client = cluster.topology.client.as_ref();
    let mut failed = 0;
    for _ in 0..CONNECTIONS {
        let mut get = client.command(cluster.programs().testbed.as_os_str());
        get.args(["get", "--path", &path, "--target", &vip(), "--pki"])
            .arg(cluster.pki().directory());
        failed += usize::from(output(&mut get).is_err());
    }
    let (mut packets, mut bytes) = (0, 0);
    for node in cluster.nodes() {
        let sent = cluster.status(node)?.forwarded();
        packets += sent.0;
        bytes += sent.1;
    }
    let (packets, bytes) = (packets - before.0, bytes - before.1);
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
