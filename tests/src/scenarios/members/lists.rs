//! Lists that are not the same on all nodes, under load: in another order, which means nothing, and
//! without a member, which is said.

use anyhow::Result;

use vip_node::alarm::Kind;

use super::super::steps::others_than;
use super::promise_members;
use crate::clock::boot_now;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::traffic::Traffic;

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "lists_differ",
    promise: "lists_in_another_order_or_without_a_member_fail_no_request",
    tests: &[Test::netns(Plan::default)],
    run,
};

/// The agents' configuration with these nodes in the list.
fn configure(cluster: &Cluster, nodes: &[usize]) -> Result<String> {
    let address = |node: &usize| format!("\"{}\"", cluster.host(*node).address());
    let list: Vec<String> = nodes.iter().map(address).collect();
    let list = format!("nodes = [{}]", list.join(", "));
    let text = cluster.config()?;
    let lines = text.lines().map(|line| {
        let is_list = line.starts_with("nodes = ");
        if is_list { list.as_str() } else { line }
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(SCENARIO.name);
    let owner = cluster.owner()?;
    let others = others_than(cluster, owner);
    let (stale, missing) = (others[0], others[1]);
    let mut traffic = Traffic::start(cluster, timeline)?;
    let other_order = configure(cluster, &[missing, stale, owner])?;
    restart(cluster, stale, &other_order)?;
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    timeline.event("a list in another order");

    let fewer = configure(cluster, &[owner, stale])?;
    restart(cluster, stale, &fewer)?;
    let about = cluster.host(missing).address().to_string();
    cluster.wait_for_status("it names whom it lacks", &[stale], |_, _, status| {
        let text = status.alarm(Kind::Stranger, &about);
        text.is_some_and(|text| text.contains("not in `nodes`"))
    })?;
    let about = cluster.host(stale).address().to_string();
    cluster.wait_for_status("that one names it", &[missing], |_, _, status| {
        status.alarm(Kind::Unheard, &about).is_some()
    })?;
    cluster.wait_for_status("it gets no new connection", &[owner], |own, _, status| {
        let entry = status.node(own.host(missing));
        entry.is_some_and(|entry| entry.alive && !entry.confirmed && !entry.usable)
    })?;
    let known = boot_now();
    traffic.load.go_on(200)?;
    let (name, lacks) = (cluster.name(stale), cluster.name(missing));
    timeline.event(format!("the list of {name} lacks {lacks}"));
    let right = cluster.config()?;
    restart(cluster, stale, &right)?;
    let mended = boot_now();
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    timeline.event("one list again");
    let requests = traffic.finish(&mut outcome, None)?;
    let stray = requests.iter().filter(|request| {
        let during = request.start > known && request.start < mended;
        during && !request.kept && request.server.as_ref() == Some(&lacks)
    });
    let stray = stray.count();
    outcome.promise(stray == 0, || {
        format!("{lacks} got {stray} connections while a list lacked it")
    });
    promise_members(&mut outcome, cluster, 3)?;
    Ok(outcome)
}

fn restart(cluster: &mut Cluster, node: usize, config: &str) -> Result<()> {
    cluster.stop_agent(node)?;
    cluster.start_agent_with(node, config)
}
