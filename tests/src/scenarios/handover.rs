//! The operator moves the VIP: `vip handover`, and SIGTERM of the owner's agent. The next owner
//! announces itself before the last one stops answering. Before that, signals that ask for nothing
//! that an agent does: the VIP stays where it is.

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::traffic::{ArpMonitor, Traffic};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "handover",
    promise: "handover_and_sigterm_fail_no_request_and_cut_no_watch",
    tests: &[Test::netns(Plan::default)],
    run,
};

/// Sends a node's agent the signals that have no meaning to it.
fn ignored(cluster: &mut Cluster, outcome: &mut Outcome, node: usize) -> Result<()> {
    let before = cluster.status(node)?.takeovers;
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        cluster.signal_agent(node, signal);
    }
    cluster.wait_for_status(
        "the owner says that it ignores two signals",
        &[node],
        |_, _, status| status.event_count("signal_ignored") == 2,
    )?;
    let after = cluster.status(node)?;
    outcome.promise(after.is_active() && after.takeovers == before, || {
        format!("the owner lost the VIP by a signal: {after:?}")
    });
    Ok(())
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("handover");
    let first = cluster.owner()?;
    let nodes = cluster.nodes();
    let Some(&to) = nodes.iter().rev().find(|node| **node != first) else {
        anyhow::bail!("a cluster of one node has nobody to hand over to");
    };
    let mut traffic = Traffic::start(cluster, timeline)?;
    let mut arp = ArpMonitor::start(cluster, 5)?;
    arp.wait("the owner answers for the VIP", |seen| {
        !seen.answerers.is_empty()
    })?;

    ignored(cluster, &mut outcome, first)?;
    timeline.event("SIGUSR1 and SIGUSR2 change nothing");
    traffic.load.go_on(100)?;

    let name = cluster.name(to);
    // By its address: the configuration gives no names.
    let address = cluster.host(to).address().to_string();
    let refused = cluster.vip(to, &["handover"]);
    outcome.promise(refused.is_err(), || {
        "a node that does not own the VIP hands it over".to_owned()
    });
    cluster.vip(first, &["handover", "--to", &address])?;
    // The command returns when it is done, so everybody must know within an advertisement.
    let owner = cluster.owner()?;
    outcome.promise(owner == to, || {
        format!(
            "{} owns the VIP after a handover to {name}",
            cluster.name(owner)
        )
    });
    timeline.event(format!("vip handover --to {name}: {name} owns the VIP"));
    let seen = arp.wait("the next owner answers", |seen| seen.turns().len() > 1)?;
    outcome.promise(seen.turns().len() == 2, || {
        format!("the VIP went back and forth: {:?}", seen.turns())
    });
    traffic.load.go_on(200)?;

    cluster.stop_agent(to)?;
    let successor = cluster.owner()?;
    timeline.event(format!(
        "SIGTERM of the agent on {name}: {} owns the VIP",
        cluster.name(successor)
    ));
    traffic.load.go_on(200)?;
    let ready = cluster.nodes_with_agent();
    cluster.wait_for_status(
        "a node without an agent still takes connections",
        &ready,
        |own, _, status| {
            let entry = status.node(own.host(to));
            entry.is_some_and(|entry| entry.alive && entry.ready)
        },
    )?;
    cluster.start_agent(to)?;
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    traffic.finish(&mut outcome, None)?;
    timeline.event(format!(
        "{} of {} requests failed, {} watches cut, longest gap {} ms",
        outcome.failed, outcome.requests, outcome.watches_cut_living, outcome.gap_ms
    ));
    Ok(outcome)
}
