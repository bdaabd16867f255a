//! Frames that nodes hand on to each other come to an end after N + 1 hops, whatever became of
//! their source MAC on the way and whatever the nodes' tables say; and where source MACs are
//! rewritten and stay so, the nodes learn them, and every connection is found.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use vip_node::alarm::Kind;

use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test};
use crate::topology::{Mangle, PORT, VIP};
use crate::traffic::Load;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "hop_bound",
    promise: "hop_bound_holds_whatever_macs_and_tables_say",
    tests: &[Test::netns(Plan::default)],
    run,
};

/// Frames of connections that nobody has.
const STRAYS: u16 = 2000;

/// Requests while source MACs are rewritten.
const REQUESTS: usize = 150;

/// An alarm is raised within a second or so.
const ALARMED: Duration = Duration::from_secs(60);

/// Nodes whose frames are changed, or whose API servers are down.
const CHANGED: [usize; 2] = [0, 1];

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("hop_bound");
    different_tables(cluster, timeline, &mut outcome)?;
    for node in CHANGED {
        cluster.kill_server(node);
    }
    unsettled(cluster, timeline, &mut outcome)?;
    learned(cluster, timeline, &mut outcome)?;
    for node in CHANGED {
        cluster.host(node).mangle(Mangle::Nothing)?;
        cluster.start_server(node)?;
    }
    cluster.wait_until_settled()?;
    Ok(outcome)
}

/// Source MACs that are others with each frame: nobody can learn them.
fn unsettled(cluster: &mut Cluster, timeline: &mut Timeline, outcome: &mut Outcome) -> Result<()> {
    for node in CHANGED {
        let first = [0x02, 0xee, 0, node as u8];
        cluster.host(node).mangle(Mangle::AnySource(first))?;
    }
    stray(cluster, timeline, outcome, "any source MAC on two nodes")?;
    let (judge, name) = (2, cluster.name(2));
    let alarms = until("the alarms are raised", ALARMED, || {
        let status = cluster.status(judge)?;
        let alarm = |node: usize| {
            let text = status.alarm(Kind::SourceMacs, &cluster.host(node).address().to_string())?;
            Some(text.to_owned())
        };
        Ok(CHANGED
            .into_iter()
            .map(alarm)
            .collect::<Option<Vec<String>>>())
    });
    let alarms = alarms.with_context(|| {
        format!("{name} has no alarm about nodes whose source MACs do not settle")
    })?;
    timeline.event(format!("{name}: {}", alarms.join("; ")));
    for (node, alarm) in CHANGED.into_iter().zip(alarms) {
        outcome.promise(alarm.contains("02:ee:00:"), || {
            format!(
                "the alarm about {} names no MAC: {alarm}",
                cluster.name(node)
            )
        });
    }
    let events = cluster.vip(judge, &["events", "--json"])?;
    outcome.promise(
        events.contains("source_macs") || events.contains("may miss their connections"),
        || format!("{name} has no event about the source MACs: {events}"),
    );
    Ok(())
}

/// Other source MACs, but the same with each frame: the nodes learn them.
fn learned(cluster: &mut Cluster, timeline: &mut Timeline, outcome: &mut Outcome) -> Result<()> {
    for node in CHANGED {
        let mac = [0x02, 0xff, 0, 0, 0, node as u8];
        cluster.host(node).mangle(Mangle::Source(mac))?;
    }
    let nodes = cluster.nodes();
    cluster.wait_for_status("source MACs are learned", &nodes, |own, asked, status| {
        CHANGED.iter().all(|node| {
            let known = status
                .node(own.host(*node))
                .and_then(|entry| entry.source_mac.clone());
            asked == *node || known.is_some_and(|mac| mac.starts_with("02:ff:"))
        })
    })?;
    let before = exceeded(cluster)?;
    stray(cluster, timeline, outcome, "other source MACs on two nodes")?;
    let exceeded = exceeded(cluster)? - before;
    outcome.promise(exceeded == 0, || {
        format!("{exceeded} frames went round although the source MACs were learned")
    });
    let client = cluster.topology.client.as_ref();
    let mut load = Load::start(cluster, client, &crate::traffic::vip())?;
    load.go_on(REQUESTS)?;
    let requests = load.stop()?;
    let summary = outcome.take_requests(&requests, None);
    timeline.event(format!(
        "with other source MACs {} of {} requests failed",
        outcome.failed, outcome.requests
    ));
    outcome.promise_nothing_lost(&summary);
    Ok(())
}

/// A node whose list lacks another one, and then one with another key.
fn different_tables(
    cluster: &mut Cluster,
    timeline: &mut Timeline,
    outcome: &mut Outcome,
) -> Result<()> {
    let config = cluster.config()?;
    let lacked = format!(", \"{}\"", cluster.host(2).address());
    let stale = config.replace(&lacked, "");
    let other_key =
        format!("{config}\n[datapath]\nhash_key = \"000102030405060708090a0b0c0d0e0f\"\n");
    let odd = 1;
    for (what, config, count) in [
        ("a node with a stale list", stale, 2),
        ("a node with another hash_key", other_key, 3),
    ] {
        cluster.stop_agent(odd)?;
        cluster.start_agent_with(odd, &config)?;
        cluster.wait_for_status("it sees its nodes", &[odd], |_, _, status| {
            status.nodes.len() == count && status.nodes.iter().all(|node| node.alive)
        })?;
        stray(cluster, timeline, outcome, what)?;
    }
    cluster.stop_agent(odd)?;
    cluster.start_agent(odd)?;
    cluster.wait_until_settled()
}

/// Frames that nodes handed on.
fn hops(cluster: &Cluster) -> Result<u64> {
    let nodes = cluster.nodes().into_iter();
    nodes
        .map(|node| Ok(cluster.status(node)?.forwarded().0))
        .sum()
}

/// Frames that had made all the hops that they may.
fn exceeded(cluster: &Cluster) -> Result<u64> {
    let nodes = cluster.nodes().into_iter();
    nodes
        .map(|node| Ok(cluster.status(node)?.count("ttl_exceeded")))
        .sum()
}

/// Sends acknowledgements that belong to nothing to one node, and counts the hops they make.
fn stray(
    cluster: &Cluster,
    timeline: &mut Timeline,
    outcome: &mut Outcome,
    what: &str,
) -> Result<()> {
    let (entry, client) = (cluster.host(0), cluster.topology.client.as_ref());
    let mac = cluster
        .status(0)?
        .node(entry)
        .and_then(|entry| entry.mac.clone())
        .context("a node does not know its own Ethernet address")?;
    let allowed = u64::from(STRAYS) * (cluster.nodes().len() as u64 + 1);
    let before = hops(cluster)?;
    let testbed = cluster.programs().testbed.as_os_str();
    let begin = Instant::now();
    output(
        client
            .command(testbed)
            .args(["stray", "--vip", &VIP.to_string()])
            .args(["--port", &PORT.to_string(), "--mac", &mac])
            .args(["--own", &client.address().to_string()])
            .args(["--acks", &STRAYS.to_string()]),
    )?;
    let mut last = 0;
    let made = until("frames come to an end", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(200));
        let now = hops(cluster)? - before;
        let still = now == last;
        last = now;
        Ok((still || now > 4 * allowed).then_some(now))
    })?;
    timeline.event(format!(
        "{what}: {STRAYS} frames made {made} hops, within {} ms",
        begin.elapsed().as_millis()
    ));
    outcome.promise(made <= allowed, || {
        format!("{what}: {STRAYS} frames made {made} hops, and {allowed} at most are allowed")
    });
    outcome.promise(made > u64::from(STRAYS) / 2, || {
        format!("{what}: only {made} hops were made: nothing was proved")
    });
    Ok(())
}
