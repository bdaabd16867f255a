//! The VIP is changed from one address to another, node by node: at once, and back by way of both.
//! There is one answer to each question for either of them at any time, and none for the old one
//! once no node has it.

use anyhow::{Context, Result};

use super::other_nics::run_on;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test};
use crate::topology::{NEXT_VIP as NEW, PORT, VIP};
use crate::traffic::{ArpMonitor, vip};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "vip_changed",
    promise: "vip_changed_host_by_host_has_one_answer_to_each_question",
    tests: &[Test::netns(Plan::default)],
    run,
};

/// Requests after each step.
const REQUESTS: usize = 15;

/// Makes requests that must all succeed.
fn request(
    cluster: &Cluster,
    target: &str,
    outcome: &mut Outcome,
    timeline: &mut Timeline,
) -> Result<()> {
    let client = cluster.topology.client.as_ref();
    let failed = (0..REQUESTS)
        .filter(|_| cluster.get(client, "/whoami", target).is_err())
        .count();
    outcome.requests += REQUESTS;
    outcome.failed += failed;
    timeline.event(format!(
        "{failed} of {REQUESTS} requests to {target} failed"
    ));
    outcome.promise(failed == 0, || {
        format!("{failed} of {REQUESTS} requests to {target} failed")
    });
    Ok(())
}

/// What a node has on `lo`.
fn on_lo(cluster: &Cluster, node: usize) -> Result<String> {
    let mut ip = cluster.host(node).command("ip".as_ref());
    output(ip.args(["-oneline", "address", "show", "dev", "lo"]))
}

/// Restarts the agents one after the other with another configuration. After each step `then` is
/// told which nodes have it.
fn roll(
    cluster: &mut Cluster,
    changes: &[(&str, &str)],
    mut then: impl FnMut(&mut Cluster, &[usize], &[usize]) -> Result<()>,
) -> Result<()> {
    let config = cluster.work().join("vip.toml");
    let mut text = std::fs::read_to_string(&config).context("read vip.toml")?;
    for (from, to) in changes {
        text = text.replace(from, to);
    }
    std::fs::write(&config, text).context("write vip.toml")?;
    let nodes = cluster.nodes();
    for step in 1..=nodes.len() {
        cluster.stop_agent(nodes[step - 1])?;
        cluster.start_agent(nodes[step - 1])?;
        let (changed, others) = nodes.split_at(step);
        then(cluster, changed, others)?;
    }
    Ok(())
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("vip_changed");
    for node in cluster.nodes() {
        // As on the nodes of a cluster.
        run_on(cluster, node, "echo 1 > /proc/sys/net/ipv4/ip_forward")?;
    }
    // The operator's own, before it is a VIP and after.
    run_on(
        cluster,
        0,
        &format!("ip address add {NEW}/32 dev lo scope host"),
    )?;
    let mut old = ArpMonitor::start(cluster, 5)?;
    let mut new = ArpMonitor::start_for(cluster, NEW, 5)?;
    let (old_target, new_target) = (vip(), format!("{NEW}:{PORT}"));
    let alone = |vip: &str| format!("vip = \"{vip}\"");

    let to_new = [(&*alone(&old_target), &*alone(&new_target))];
    roll(cluster, &to_new, |cluster, changed, others| {
        cluster.owner_among(changed)?;
        if !others.is_empty() {
            cluster.owner_among(others)?;
            request(cluster, &old_target, &mut outcome, timeline)?;
        }
        for &node in changed {
            let there = on_lo(cluster, node)?;
            outcome.promise(!there.contains(&format!("{VIP}/")), || {
                format!("{VIP} is still on lo of {}", cluster.name(node))
            });
        }
        Ok(())
    })?;
    request(cluster, &new_target, &mut outcome, timeline)?;
    silent(&mut old, VIP, &mut outcome)?;

    let both = format!("vip = [\"{new_target}\", \"{old_target}\"]");
    roll(cluster, &[(&alone(&new_target), &both)], |cluster, _, _| {
        cluster.owner()?;
        request(cluster, &new_target, &mut outcome, timeline)
    })?;
    request(cluster, &old_target, &mut outcome, timeline)?;
    let back = [
        (&*both, &*alone(&old_target)),
        ("[vrrp]", "[vrrp]\nrouter_id = 20"),
    ];
    roll(cluster, &back, |cluster, _, _| {
        cluster.owner()?;
        request(cluster, &old_target, &mut outcome, timeline)
    })?;
    silent(&mut new, NEW, &mut outcome)?;

    let events = cluster.vip(0, &["events"])?;
    for expected in [
        format!("{VIP} is no longer a VIP: removed from lo"),
        format!("{NEW} was on lo already"),
    ] {
        outcome.promise(events.contains(&expected), || {
            format!("no {expected:?} in the events: {events}")
        });
    }
    for node in cluster.nodes() {
        let has = on_lo(cluster, node)?.contains(&format!("{NEW}/"));
        outcome.promise(has == (node == 0), || {
            format!("{NEW} is on lo of {}: {has}", cluster.name(node))
        });
    }
    for (address, seen) in [(VIP, old.report()?), (NEW, new.report()?)] {
        timeline.event(format!(
            "{address}: {} questions, {} with two answers, {} with none",
            seen.questions,
            seen.contradictions.len(),
            seen.silences
        ));
        super::steps::promise_one_answer(&mut outcome, &seen);
    }
    Ok(outcome)
}

/// Nobody answers for an address any more.
fn silent(
    monitor: &mut ArpMonitor,
    address: std::net::Ipv4Addr,
    outcome: &mut Outcome,
) -> Result<()> {
    let before = monitor.report()?;
    let asked = before.questions;
    let later = monitor.wait("more questions", |seen| seen.questions > asked + 200)?;
    let last = |seen: &crate::arp::ArpReport| seen.answerers.last().map(|answerer| answerer.to);
    outcome.promise(last(&before) == last(&later), || {
        format!(
            "somebody still answers for {address}: {:?}",
            later.answerers.last()
        )
    });
    Ok(())
}
