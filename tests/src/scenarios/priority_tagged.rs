//! A client whose frames all have the tag of VLAN 0, in band, as hosts and switches send that
//! mark priorities (IEEE 802.1Q): they are steered like untagged ones, and only the owner answers
//! ARP in them.

use std::collections::BTreeSet;

use anyhow::Result;

use super::links;
use super::steps::promise_one_answer;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::topology::{Link, Mangle};
use crate::traffic::{ArpMonitor, Traffic, vip};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "priority_tagged",
    promise: "priority_tagged_frames_are_read_as_untagged",
    tests: &[Test::netns(Plan::default)],
    run,
};

pub(super) const BY_TC: Scenario = Scenario {
    name: "priority_tagged_tc",
    promise: "priority_tagged_frames_are_read_as_untagged_by_tc",
    tests: &[Test::netns(|| links::nodes_with(Link::Occupied))],
    run,
};

/// Enough for all servers to be reached.
const CONNECTIONS: usize = 40;

/// Between two questions of the monitor.
const INTERVAL_MS: u64 = 20;

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("priority_tagged");
    cluster.topology.client.mangle(Mangle::PriorityTag)?;
    let mut monitor = ArpMonitor::start(cluster, INTERVAL_MS)?;
    let client = cluster.topology.client.as_ref();
    let (mut servers, mut failed) = (BTreeSet::new(), 0);
    for _ in 0..CONNECTIONS {
        match cluster.get(client, "/whoami", &vip()) {
            Ok(server) => drop(servers.insert(server.trim().to_owned())),
            Err(_) => failed += 1,
        }
    }
    timeline.event(format!(
        "{failed} of {CONNECTIONS} requests in tagged frames failed; they reached {servers:?}"
    ));
    outcome.promise(failed == 0, || {
        format!("{failed} of {CONNECTIONS} requests in tagged frames failed")
    });
    let nodes = cluster.nodes().len();
    outcome.promise(servers.len() == nodes, || {
        format!("connections in tagged frames reached {servers:?} only, of {nodes} servers")
    });
    let seen = monitor.wait("questions are asked", |seen| seen.questions >= 20)?;
    promise_one_answer(&mut outcome, &seen);
    let answered = seen.answerers.len();
    outcome.promise(answered > 0, || {
        "no ARP request in a tagged frame was answered".to_owned()
    });

    // Connections stay where they are when the VIP moves.
    let traffic = Traffic::start(cluster, timeline)?;
    let owner = cluster.owner()?;
    cluster.vip(owner, &["handover"])?;
    cluster.owner()?;
    traffic.finish(&mut outcome, None)?;
    cluster.topology.client.mangle(Mangle::Nothing)?;
    Ok(outcome)
}
