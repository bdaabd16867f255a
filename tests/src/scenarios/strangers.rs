//! Anybody may send to BFD's port, VRRP's protocol and ICMP. What is from beyond a router or from
//! strangers wakes no agent, and what a neighbour forges without a discriminator ends no session.

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test};
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "strangers",
    promise: "strangers_packets_wake_no_agent_and_end_no_bfd_session",
    tests: &[Test::netns(Plan::default)],
    run,
};

/// Packets of each kind.
const COUNT: u32 = 20_000;

/// The thread of an agent that keeps time.
const TIMEKEEPER: &str = "vip-node";

/// The kind that a filter lets through.
const FORGED: &str = "bfd_forged";

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("strangers");
    let mut traffic = Traffic::start(cluster, timeline)?;
    let owner = cluster.owner()?;
    let member = super::steps::another_than(cluster, owner);
    for kind in [
        "bfd_routed",
        "bfd_stranger",
        "vrrp_routed",
        "vrrp_stranger",
        "vrrp_group",
        "echo",
        "arp",
        FORGED,
    ] {
        let (before, time) = (
            cluster.status(owner)?,
            cluster.agent_thread_time(owner, TIMEKEEPER)?,
        );
        send(cluster, owner, member, kind)?;
        let after = cluster.status(owner)?;
        let read = |status: &crate::agent::Status| status.received.values().sum::<u64>();
        let read = read(&after) - read(&before);
        let time = cluster.agent_thread_time(owner, TIMEKEEPER)? - time;
        timeline.event(format!(
            "{kind}: of {COUNT} packets, and its peers' beside them, the agent read {read}; its \
             thread that keeps time ran for {:.1} ms",
            time as f64 / 1e6
        ));
        outcome.promise(kind == FORGED || read < u64::from(COUNT / 4), || {
            format!("{kind}: the agent read {read} packets")
        });
        let downs = |status: &crate::agent::Status| status.event_count("bfd_down");
        outcome.promise(downs(&before) == downs(&after), || {
            format!("{kind}: a BFD session went down")
        });
    }
    traffic.load.go_on(300)?;
    traffic.finish(&mut outcome, None)?;
    let last = cluster.owner()?;
    outcome.promise(last == owner, || "the VIP has moved".to_owned());
    cluster.wait_until_settled()?;
    Ok(outcome)
}

/// Has the client send packets of a kind to a node, in the name of another one.
fn send(cluster: &Cluster, node: usize, member: usize, kind: &str) -> Result<()> {
    let status = cluster.status(node)?;
    let entry = status.node(cluster.host(node));
    let mac = entry
        .and_then(|entry| entry.mac.clone())
        .context("the node does not know its own Ethernet address")?;
    let client = cluster.topology.client.as_ref();
    let testbed = cluster.programs().testbed.as_os_str();
    output(
        client
            .command(testbed)
            .args(["flood", "--only", kind, "--count", &COUNT.to_string()])
            .args(["--node", &cluster.host(node).address().to_string()])
            .args(["--member", &cluster.host(member).address().to_string()])
            .args(["--own", &client.address().to_string(), "--mac", &mac]),
    )
    .map(drop)
}
