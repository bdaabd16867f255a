//! `vip drain` on a node: no new connection reaches it from any node, those that are open stay,
//! neither a restart of its agent nor a reboot changes that, and `vip events` still tells of it. The
//! VIP is not handed over to it either: it would not keep it.

use anyhow::Result;

use crate::clock::boot_now;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::topology::{VIP, sh};
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "node_drained",
    promise: "node_drained_gets_no_new_connection_and_keeps_the_open_ones",
    tests: &[Test::netns(Plan::default)],
    run,
};

fn wait(cluster: &mut Cluster, node: usize, draining: bool) -> Result<()> {
    let nodes = cluster.nodes_with_agent();
    let what = format!("all agents see whether {} drains", cluster.name(node));
    cluster.wait_for_status(&what, &nodes, |own, _, status| {
        status
            .node(own.host(node))
            .is_some_and(|entry| entry.draining == draining && entry.usable != draining)
    })
}

/// `vip handover` to a node that drains is refused, and without `--to` takes another one.
fn not_handed_over(cluster: &mut Cluster, outcome: &mut Outcome, owner: usize, node: usize) {
    let address = cluster.host(node).address().to_string();
    let refused = cluster.vip(owner, &["handover", "--to", &address]);
    let text = refused.unwrap_or_else(|error| format!("{error:#}"));
    outcome.promise(text.contains(&format!("{address} drains")), || {
        format!("a handover to a node that drains: {text}")
    });
    let said = cluster.vip(owner, &["handover"]);
    let text = said.unwrap_or_else(|error| format!("{error:#}"));
    let next = cluster.owner();
    let third = super::steps::others_than(cluster, node);
    let kept = next.is_ok_and(|next| next != owner && third.contains(&next));
    outcome.promise(text.contains("owns the VIP now") && kept, || {
        format!("a handover while one node drains: {text}")
    });
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("node_drained");
    let owner = cluster.owner()?;
    let node = super::steps::another_than(cluster, owner);
    let name = cluster.name(node);
    let mut traffic = Traffic::start(cluster, timeline)?;
    cluster.vip(node, &["drain"])?;
    wait(cluster, node, true)?;
    let drained = boot_now();
    traffic.load.go_on(200)?;
    timeline.event(format!("{name} drains"));
    not_handed_over(cluster, &mut outcome, owner, node);
    traffic.load.go_on(200)?;
    cluster.kill_agent(node);
    // As an agent of an older version left it.
    sh(cluster.host(node), "mv /var/lib/vip/* /run/vip")?;
    cluster.start_agent(node)?;
    cluster.wait_for_status("the agent is back", &[node], |_, _, _| true)?;
    wait(cluster, node, true)?;
    traffic.load.go_on(200)?;
    timeline.event("and after a restart of its agent, still");
    let end = boot_now();
    cluster.vip(node, &["undrain"])?;
    wait(cluster, node, false)?;
    let back = boot_now();
    traffic.load.go_on(200)?;

    let requests = traffic.finish(&mut outcome, None)?;
    let there = |from: u64, to: u64| {
        let fresh = requests.iter().filter(|request| !request.kept);
        fresh
            .filter(|request| (from..to).contains(&request.start))
            .filter(|request| request.server.as_ref() == Some(&name))
            .count()
    };
    let (stray, again) = (there(drained, end), there(back, u64::MAX));
    outcome.promise(stray == 0, || {
        format!("{stray} new connections went to {name}, which drained")
    });
    outcome.promise(again > 0, || format!("none went to {name} again"));

    cluster.vip(node, &["drain"])?;
    wait(cluster, node, true)?;
    cluster.kill_agent(node);
    // What a reboot takes away.
    sh(
        cluster.host(node),
        &format!("rm -r /run/vip /sys/fs/bpf/vip; ip address flush dev lo to {VIP}"),
    )?;
    cluster.start_agent(node)?;
    cluster.wait_for_status("the agent is back", &[node], |_, _, status| {
        !status.xdp.adopted
    })?;
    wait(cluster, node, true)?;
    let events = cluster.vip(node, &["events", "--json"])?;
    let names: Vec<&str> = events
        .lines()
        .filter_map(|line| line.split_once("\"event\":\"")?.1.split('"').next())
        .filter(|name| matches!(*name, "started" | "drained" | "undrained"))
        .collect();
    // The agent says itself that it is drained: when told, and when it is started.
    let told = [
        "started",
        "drained",
        "started",
        "drained",
        "undrained",
        "drained",
        "started",
        "drained",
    ];
    outcome.promise(names == told, || {
        format!("the events on {name} do not tell what led to the reboot: {names:?}")
    });
    timeline.event("and after a reboot, still");
    cluster.vip(node, &["undrain"])?;
    wait(cluster, node, false)?;
    cluster.wait_until_settled()?;
    Ok(outcome)
}
