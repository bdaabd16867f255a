//! Commands for another node: `vip drain NODE`, `vip undrain NODE` and `vip handover` work on any node
//! if the agents share a key. What somebody has recorded of that does nothing when it is sent again.

use anyhow::{Context as _, Result};

use super::clients_told::keyed;
use super::steps::{another_than, others_than, record, replay};
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "any_node",
    promise: "any_node_drains_and_hands_over_for_another_with_a_key_and_what_is_replayed_does_nothing",
    tests: &[Test::netns(keyed)],
    run,
};

pub(super) const UNKEYED: Scenario = Scenario {
    name: "any_node_without_a_key",
    promise: "no_node_commands_another_without_a_key",
    tests: &[Test::netns(Plan::default)],
    run: without_a_key,
};

/// What a command says that fails.
fn refusal(cluster: &Cluster, node: usize, arguments: &[&str]) -> String {
    let done = cluster.vip(node, arguments);
    done.map_or_else(|error| format!("{error:#}"), |said| format!("done: {said}"))
}

fn wait(cluster: &mut Cluster, node: usize, draining: bool) -> Result<()> {
    let nodes = cluster.nodes_with_agent();
    let what = format!("whether {} drains", cluster.name(node));
    cluster.wait_for_status(&what, &nodes, |own, _, status| {
        let entry = status.node(own.host(node));
        entry.is_some_and(|entry| entry.draining == draining)
    })
}

fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(SCENARIO.name);
    let owner = cluster.owner()?;
    let other = another_than(cluster, owner);
    let third = others_than(cluster, owner);
    let third = third.into_iter().find(|node| *node != other);
    let third = third.context("there are three nodes")?;
    let address = cluster.host(other).address().to_string();
    let (mut recorder, recorded) = record(cluster, other, "recorded")?;
    let mut traffic = Traffic::start(cluster, timeline)?;

    let said = cluster.vip(third, &["drain", &address])?;
    wait(cluster, other, true)?;
    timeline.event(format!("on {}: {}", cluster.name(third), said.trim()));
    let here = cluster.vip(other, &["undrain", &address])?;
    wait(cluster, other, false)?;
    timeline.event(format!("on {}: {}", cluster.name(other), here.trim()));
    cluster.vip(owner, &["drain", &address])?;
    wait(cluster, other, true)?;
    // What it refuses is refused in the same words as on the node itself.
    let refused = refusal(cluster, third, &["handover", "--to", &address]);
    outcome.promise(refused.contains(&format!("{address} drains")), || {
        format!("a handover to a node that drains, by a third node: {refused}")
    });
    cluster.vip(owner, &["undrain", &address])?;
    wait(cluster, other, false)?;
    cluster.vip(third, &["handover", "--to", &address])?;
    let next = cluster.owner()?;
    outcome.promise(next == other, || {
        format!("{} owns the VIP after a handover", cluster.name(next))
    });
    timeline.event("handed over by a node that does not own the VIP");
    let events = cluster.vip(other, &["events", "--json"])?;
    let asked = |events: &str| events.matches("\"event\":\"asked\"").count();
    let before = asked(&events);
    outcome.promise(before == 3, || {
        format!("{before} commands of other nodes are in the events, and not 3")
    });

    // All that was recorded, also while the ticket of the last request is good.
    recorder.kill_and_reap();
    let sent = replay(cluster, other, &recorded)?;
    timeline.event(format!("sent again, in vain: {sent}"));
    traffic.load.go_on(200)?;
    let after = asked(&cluster.vip(other, &["events", "--json"])?);
    let drains = cluster.status(other)?;
    let drains = drains
        .node(cluster.host(other))
        .is_some_and(|own| own.draining);
    outcome.promise(after == before && !drains, || {
        format!("what was recorded was carried out: {after} commands, drains: {drains}")
    });
    traffic.finish(&mut outcome, None)?;

    cluster.freeze_agent(other);
    let refused = refusal(cluster, third, &["drain", &address]);
    cluster.thaw_agent(other);
    outcome.promise(
        refused.contains(&format!("the agent of {address} does not answer")),
        || format!("drained a node whose agent does not run: {refused}"),
    );
    let refused = refusal(cluster, third, &["drain", "nosuch"]);
    outcome.promise(refused.contains("no node nosuch; there are"), || {
        format!("drained a node that is not there: {refused}")
    });
    cluster.wait_until_settled()?;
    Ok(outcome)
}

fn without_a_key(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(UNKEYED.name);
    let owner = cluster.owner()?;
    let other = another_than(cluster, owner);
    let address = cluster.host(other).address().to_string();
    for (node, arguments) in [
        (owner, ["drain", &address[..]]),
        (owner, ["undrain", &address]),
        (other, ["handover", "--to"]),
    ] {
        let mut arguments = arguments.to_vec();
        if arguments[1] == "--to" {
            arguments.push(&address);
        }
        let refused = refusal(cluster, node, &arguments);
        timeline.event(format!("vip {}: {}", arguments.join(" "), refused.trim()));
        outcome.promise(refused.contains("key"), || {
            format!("vip {} without a key: {refused}", arguments.join(" "))
        });
    }
    let still = cluster.owner()?;
    outcome.promise(still == owner, || "the VIP has moved".to_owned());
    wait(cluster, other, false)?;
    Ok(outcome)
}
