//! Timers and the list of nodes change while the agents run: `vip reload` on one node after the other,
//! in one order and in another. No request fails, no session between nodes goes down, and the owner
//! stays.

use anyhow::{Context as _, Result};

use super::steps::promise_one_answer;
use crate::clock::boot_now;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::traffic::{ArpMonitor, Traffic};

pub(super) const TIMERS: Scenario = Scenario {
    name: "reload_timers",
    promise: "timers_change_node_by_node_and_no_session_ends",
    tests: &[
        Test::netns(Plan::default),
        Test::netns(keyed).cluster("keyed"),
    ],
    run: change_timers,
};

pub(super) const NODES: Scenario = Scenario {
    name: "reload_nodes",
    promise: "list_of_nodes_grows_and_shrinks_while_agents_run",
    tests: &[Test::netns(listed)],
    run: change_nodes,
};

fn keyed() -> Plan {
    Plan {
        keyed: true,
        ..Plan::default()
    }
}

/// The list at first.
const THREE: &str = "nodes = [\"10.0.0.11\", \"10.0.0.12\", \"10.0.0.13\"]";

/// With one node more, in another order.
const FOUR: &str = "nodes = [\"10.0.0.14\", \"10.0.0.12\", \"10.0.0.11\", \"10.0.0.13\"]";

/// Three nodes in a list, and a fourth one that is not there.
fn listed() -> Plan {
    Plan::found_by(3, 4, THREE)
}

/// How often these events have happened on these nodes.
fn counts(cluster: &Cluster, nodes: &[usize], events: &[&str]) -> Result<Vec<u64>> {
    let mut counts = vec![];
    for node in nodes {
        let status = cluster.status(*node)?;
        counts.extend(events.iter().map(|event| status.event_count(event)));
    }
    Ok(counts)
}

/// The owner's events.
const OWNER: [&str; 2] = ["became_owner", "became_backup"];

/// These must not happen because of timers.
const ENDS: [&str; 4] = ["bfd_down", "node_gone", OWNER[0], OWNER[1]];

/// Says `vip reload` on a node. It must name what changed.
fn reload(cluster: &Cluster, node: usize, said: &str, outcome: &mut Outcome) -> Result<()> {
    let text = cluster.vip(node, &["reload"])?;
    outcome.promise(text.contains(said), || {
        format!("{}: no {said:?}: {text}", cluster.name(node))
    });
    Ok(())
}

/// Advertisements, BFD's interval and multiplier, and `reset_after`, each longer and shorter.
const STEPS: [(&str, &str, u8, &str); 5] = [
    ("100ms", "20ms", 3, "1s"),
    ("2s", "200ms", 3, "4s"),
    ("150ms", "35ms", 10, "2s"),
    ("1s", "100ms", 2, "3s"),
    ("250ms", "35ms", 3, "2s"),
];

fn change_timers(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(TIMERS.name);
    let owner = cluster.owner()?;
    let mut traffic = Traffic::start(cluster, timeline)?;
    let mut arp = ArpMonitor::start(cluster, 5)?;
    let mut nodes = cluster.nodes();
    let before = counts(cluster, &nodes, &ENDS)?;
    let config = cluster.config()?;
    let (top, _) = config
        .split_once("[vrrp]")
        .context("the configuration has a table about VRRP")?;
    for (adverts, bfd, multiplier, reset_after) in STEPS {
        cluster.set_config(&format!(
            "{top}[vrrp]\ninterval = \"{adverts}\"\n[bfd]\ninterval = \"{bfd}\"\nmultiplier = \
             {multiplier}\n[datapath]\nreset_after = \"{reset_after}\"\n"
        ))?;
        for &node in &nodes {
            reload(cluster, node, "`interval` in [vrrp]: ", &mut outcome)?;
            traffic.load.go_on(150)?;
        }
        let interval: f64 = bfd.trim_end_matches("ms").parse()?;
        let wanted = interval * f64::from(multiplier);
        cluster.wait_for_status("BFD has these timers", &nodes, |_, _, status| {
            let others = status.nodes.iter();
            let mut sessions = others.filter_map(|node| node.bfd.as_ref());
            sessions.all(|bfd| (bfd.detection_ms - wanted).abs() < 0.5)
        })?;
        traffic.load.go_on(150)?;
        timeline.event(format!(
            "advertisements every {adverts}, BFD {multiplier} times {bfd}, gone after {reset_after}"
        ));
        nodes.rotate_left(1);
    }
    nodes.sort_unstable();
    let after = counts(cluster, &nodes, &ENDS)?;
    outcome.promise(before == after, || {
        format!("{ENDS:?} on each node: {before:?} before, {after:?} after")
    });
    let still = cluster.owner()?;
    outcome.promise(still == owner, || "the VIP moved".to_owned());
    promise_one_answer(&mut outcome, &arp.report()?);
    traffic.finish(&mut outcome, None)?;
    Ok(outcome)
}

/// Writes another list, which the agents of these nodes read one after the other.
fn list(
    cluster: &Cluster,
    (from, to): (&str, &str),
    nodes: &[usize],
    traffic: &mut Traffic,
    outcome: &mut Outcome,
) -> Result<()> {
    cluster.set_config(&cluster.config()?.replacen(from, to, 1))?;
    for &node in nodes {
        reload(cluster, node, "`nodes`: ", outcome)?;
        // Long enough for tables, hellos and watches to meet the lists that differ.
        traffic.load.go_on(300)?;
    }
    Ok(())
}

fn change_nodes(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    const NEW: usize = 3;
    let mut outcome = Outcome::new(NODES.name);
    let owner = cluster.owner()?;
    let old = cluster.nodes();
    let all = [&old[..], &[NEW]].concat();
    let mut traffic = Traffic::start(cluster, timeline)?;
    let mut arp = ArpMonitor::start(cluster, 5)?;
    let before = counts(cluster, &old, &OWNER)?;
    for (round, order) in [[0, 1, 2], [2, 1, 0], [1, 2, 0]].into_iter().enumerate() {
        // The new node comes before, between or after the others' reloads.
        let mut order = order.to_vec();
        cluster.start_server(NEW)?;
        cluster.wait_for_server(NEW)?;
        let later = order.split_off(round);
        list(cluster, (THREE, FOUR), &order, &mut traffic, &mut outcome)?;
        cluster.join(NEW)?;
        traffic.load.go_on(300)?;
        list(cluster, (THREE, FOUR), &later, &mut traffic, &mut outcome)?;
        let what = "the new node gets connections";
        cluster.wait_for_status(what, &all, |_, _, status| {
            let serves = |node: &crate::agent::NodeStatus| node.alive && node.usable;
            status.nodes.len() == 4 && status.nodes.iter().all(serves)
        })?;
        let known = boot_now();
        traffic.load.go_on(300)?;
        let name = cluster.name(NEW);
        let requests = traffic.load.requests()?;
        let served = |request: &&crate::load::Request| {
            request.start > known && request.server.as_deref() == Some(&name[..])
        };
        let served = requests.iter().filter(served).count();
        outcome.promise(served > 0, || format!("{name} got no connection"));
        timeline.event(format!(
            "{name} is in all lists, and has served {served} requests"
        ));

        cluster.set_config(&cluster.config()?.replacen(FOUR, THREE, 1))?;
        cluster.vip(old[0], &["reload"])?;
        let events = cluster.vip(old[0], &["events"])?;
        let kept = "`nodes` stays as it was: 10.0.0.14 is not gone";
        outcome.promise(events.contains(kept), || format!("no {kept:?}: {events}"));
        cluster.vip(NEW, &["drain"])?;
        cluster.wait_for_status("the others know that it drains", &old, |_, _, status| {
            status.nodes.iter().filter(|node| node.usable).count() == 3
        })?;
        traffic.load.go_on(300)?;
        list(cluster, (FOUR, THREE), &order, &mut traffic, &mut outcome)?;
        list(cluster, (FOUR, THREE), &later, &mut traffic, &mut outcome)?;
        let what = "the node is gone from the lists";
        cluster.wait_for_status(what, &old, |_, _, status| status.nodes.len() == 3)?;
        // It still runs for a while, and claims nothing.
        traffic.load.go_on(300)?;
        cluster.vip(NEW, &["undrain"])?;
        cluster.stop_agent(NEW)?;
        cluster.vip(NEW, &["cleanup"])?;
        cluster.depart(NEW);
        traffic.load.go_on(200)?;
        timeline.event(format!("{name} is in no list any more"));
    }
    let after = counts(cluster, &old, &OWNER)?;
    outcome.promise(before == after, || {
        format!("{OWNER:?} on each node: {before:?} before, {after:?} after")
    });
    let still = cluster.owner()?;
    outcome.promise(still == owner, || "the VIP moved".to_owned());
    promise_one_answer(&mut outcome, &arp.report()?);
    traffic.finish(&mut outcome, None)?;
    Ok(outcome)
}
