//! The owner's agent hangs (SIGSTOP). The lease in the kernel ends its claim with nobody's
//! help, and before another node begins to answer: at no time do two nodes answer.

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::traffic::{ArpMonitor, Traffic};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "agent_frozen",
    promise: "agent_frozen_stops_answering_before_another_node_starts",
    tests: &[Test::netns(Plan::default)],
    run,
};

/// Time between two questions for the VIP's Ethernet address, in ms.
const ASK_MS: u64 = 5;

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("agent_frozen");
    let owner = cluster.owner()?;
    let name = cluster.name(owner);
    let traffic = Traffic::start(cluster, timeline)?;
    let mut arp = ArpMonitor::start(cluster, ASK_MS)?;
    let first = arp.wait("the owner answers for the VIP", |seen| {
        !seen.answerers.is_empty()
    })?;
    let owner_mac = first.answerers[0].mac.clone();

    cluster.freeze_agent(owner);
    timeline.event(format!("SIGSTOP of the agent on {name}, the owner"));
    let others: Vec<usize> = cluster
        .nodes()
        .into_iter()
        .filter(|node| *node != owner)
        .collect();
    let successor = cluster.owner_among(&others)?;
    let seen = arp.wait("another node answers for the VIP", |seen| {
        seen.turns().last() != Some(&owner_mac.as_str())
    })?;
    let turns = seen.answerers.len();
    outcome.promise(turns == 2, || {
        format!("two nodes answered by turns, {turns} times, and not one after the other")
    });
    if let [before, after] = seen.answerers.as_slice() {
        timeline.event(format!(
            "{name} has fallen silent by itself; {} answers, {} ms later",
            cluster.name(successor),
            (after.from - before.to) / 1_000_000
        ));
    }

    cluster.thaw_agent(owner);
    cluster.wait_until_settled()?;
    let last = cluster.owner()?;
    timeline.event(format!(
        "SIGCONT of the agent on {name}; {} owns the VIP",
        cluster.name(last)
    ));
    let questions = arp.report()?.questions;
    let seen = arp.wait("some more answers come", |seen| {
        seen.questions > questions + 100
    })?;
    outcome.promise(seen.contradictions.is_empty(), || {
        format!(
            "one question had several answers: {:?}",
            seen.contradictions
        )
    });
    outcome.promise(seen.leaks.is_empty(), || {
        format!("frames named the VIP as their sender: {:?}", seen.leaks)
    });
    traffic.finish(&mut outcome, None)?;
    timeline.event(format!(
        "{} questions for the VIP, {} with two answers",
        seen.questions,
        seen.contradictions.len()
    ));
    Ok(outcome)
}
