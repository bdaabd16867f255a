//! The first agent of a node, as at each of its boots: until then the node and its pods reach the
//! VIP by the network, and the node's own API server is still starting. Pods are never connected
//! to that one, and whoever had a connection by the network is told at once that it has ended.

use std::net::IpAddr;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::agent::{NodeStatus, Status};
use crate::clock::boot_now;
use crate::cluster::{Cluster, Plan};
use crate::load::Request;
use crate::outcome::{Outcome, Timeline};
use crate::pod::{Pod, Routing};
use crate::scenario::{Scenario, Test};
use crate::topology::VIP;
use crate::traffic::{Load, Watches, vip, vip6};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "first_start",
    promise: "first_start_of_an_agent_turns_pods_to_others_and_ends_old_connections_at_once",
    tests: &[Test::netns(bare_dual_stack)],
    run,
};

/// Watches of the pod, and as many of the node.
const WATCHES: usize = 4;

/// Their keepalive, in seconds: nobody is told by that. Longer than a kubelet takes to start a pod,
/// and than this waits.
const KEEPALIVE: u64 = 600;

/// Milliseconds between two of the pod's requests on new connections.
const EVERY_MS: u64 = 10;

/// Its connections that are kept.
const KEPT: usize = 2;

/// Requests before the agent starts, and after it has.
const REQUESTS: usize = 200;

fn bare_dual_stack() -> Plan {
    Plan {
        bare: true,
        ..Plan::dual_stack()
    }
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("first_start");
    let nodes = cluster.nodes();
    let (node, first) = nodes.split_last().context("a cluster has nodes")?;
    for node in first {
        cluster.start_agent(*node)?;
    }
    observe(cluster, *node, timeline, &mut outcome, |cluster| {
        cluster.start_agent(*node)
    })?;
    die_hanging(cluster, *node, timeline, &mut outcome)?;
    Ok(outcome)
}

/// The node loses its power while its server hangs, so that a probe waits on a connection from
/// before: when that gives up, it is no sign of life.
fn die_hanging(
    cluster: &mut Cluster,
    node: usize,
    timeline: &mut Timeline,
    outcome: &mut Outcome,
) -> Result<()> {
    let name = cluster.name(node);
    let address = IpAddr::from(cluster.host(node).address());
    let others: Vec<_> = cluster
        .nodes()
        .into_iter()
        .filter(|other| *other != node)
        .collect();
    let probe = |status: &Status, begin: &str| {
        let entry = status.nodes.iter().find(|entry| entry.address == address);
        entry.is_some_and(|entry| entry.probe.starts_with(begin))
    };
    cluster.signal_server(node, Signal::SIGSTOP);
    cluster.wait_for_status("the server hangs", &others, |_, _, status| {
        probe(status, "timed out") || probe(status, "hangs")
    })?;
    cluster.power_off(node)?;
    cluster.wait_for_status("probes get no answer", &others, |_, _, status| {
        probe(status, "no answer")
    })?;
    for other in others {
        let status = cluster.status(other)?;
        let [dead, answers] = ["node_away", "node_answers"].map(|event| status.event_count(event));
        outcome.promise((dead, answers) == (1, 0), || {
            format!(
                "{} called {name}, which has no power, dead {dead} times and alive {answers} times",
                cluster.name(other)
            )
        });
    }
    timeline.event(format!(
        "{name}, whose server hung, has no power, and is dead for good"
    ));
    Ok(())
}

/// Lets the first agent of a node start while it and a pod of it use the VIP. Their watches are
/// checked, and the pod's requests. The node's server starts behind it.
pub(super) fn observe(
    cluster: &mut Cluster,
    node: usize,
    timeline: &mut Timeline,
    outcome: &mut Outcome,
    start: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<Pod> {
    let name = cluster.name(node);
    let hung = IpAddr::from(cluster.host(node).address());
    // It takes connections, and answers nothing.
    cluster.signal_server(node, Signal::SIGSTOP);
    let others: Vec<_> = cluster.nodes_with_agent();
    cluster.owner_among(&others)?;
    cluster.wait_for_status("the server is known to hang", &others, |_, _, status| {
        let is_known = |entry: &NodeStatus| entry.ready == (entry.address != hung);
        status.nodes.iter().all(is_known)
    })?;
    let pod = Pod::start(cluster, node, Routing::Masqueraded)?;
    let mut clients = Vec::new();
    let mut hosts: Vec<(String, bool)> = vec![(vip(), true), (vip(), false)];
    if cluster.plan().dual_stack {
        hosts.push((vip6(), false));
    }
    for (target, in_pod) in hosts {
        let inside = pod.on(cluster);
        let host = if in_pod { &inside } else { cluster.host(node) };
        let (watches, _) = Watches::open_with(cluster, host, &target, WATCHES, KEEPALIVE)
            .with_context(|| format!("watch {target} before the agent starts"))?;
        clients.push(watches);
    }
    let mut load = Load::start_at(cluster, &pod.on(cluster), &vip(), EVERY_MS, KEPT)?;
    load.go_on(REQUESTS)?;
    let at = boot_now();
    start(cluster)?;
    timeline.event(format!("the first agent of {name} starts"));
    let ended = clients
        .iter_mut()
        .map(|watches| {
            let snapshot = watches.wait("all watches have ended", |snapshot| {
                snapshot.watches.iter().all(|watch| watch.ended.is_some())
            })?;
            Ok(snapshot.watches)
        })
        .collect::<Result<Vec<_>>>()?
        .concat();
    let ends: Vec<u64> = ended.iter().filter_map(|watch| watch.ended_at).collect();
    let last = ends
        .iter()
        .max()
        .map_or(0, |end| end.saturating_sub(at) / 1_000_000);
    timeline.event(format!(
        "all {} watches from there to {VIP} ended within {last} ms of it",
        ends.len()
    ));

    load.go_on(REQUESTS)?;
    let requests = load.stop()?;
    let failed = requests.iter().filter(|one| !one.succeeded());
    let (kept, new): (Vec<&Request>, Vec<&Request>) = failed.partition(|one| one.kept);
    // Those that were under way when the VIP came: at one moment.
    let first_end = new.iter().map(|one| one.end).min().unwrap_or(u64::MAX);
    let beside: Vec<_> = new.iter().filter(|one| one.start > first_end).collect();
    outcome.promise(beside.is_empty(), || {
        let all: Vec<_> = beside.iter().map(ToString::to_string).collect();
        format!("requests of a pod on {name} failed: {}", all.join("; "))
    });
    outcome.promise(kept.len() <= KEPT, || {
        format!(
            "{} requests of a pod failed on {KEPT} connections that were kept",
            kept.len()
        )
    });
    let on_own = requests
        .iter()
        .filter(|one| one.start > at && one.server.as_ref() == Some(&name))
        .count();
    outcome.promise(on_own == 0, || {
        format!("{on_own} requests of a pod went to {name}'s own server, which hangs")
    });
    timeline.event(format!(
        "of {} requests of a pod {} on new connections failed, and {} on those that were kept",
        requests.len(),
        new.len(),
        kept.len()
    ));
    cluster.signal_server(node, Signal::SIGCONT);
    cluster.wait_for_server(node)?;
    cluster.wait_until_settled()?;
    Ok(pod)
}

/// `kill -9` of a node's server: a pod of it that begins a connection after that reaches another
/// one, whatever probes know.
pub(super) fn kill_beside(
    cluster: &mut Cluster,
    node: usize,
    pod: &Pod,
    timeline: &mut Timeline,
    outcome: &mut Outcome,
) -> Result<()> {
    let name = cluster.name(node);
    let mut load = Load::start_at(cluster, &pod.on(cluster), &vip(), EVERY_MS, KEPT)?;
    load.go_on(REQUESTS)?;
    let at = cluster.kill_server(node);
    load.go_on(REQUESTS)?;
    let requests = load.stop()?;
    let own = |one: &&Request| one.server.as_ref() == Some(&name);
    let before = requests
        .iter()
        .filter(|one| one.start < at)
        .filter(own)
        .count();
    outcome.promise(before > 0, || {
        format!("a pod on {name} did not use its server while that was ready")
    });
    let failed: Vec<_> = requests
        .iter()
        .filter(|one| !one.succeeded() && !one.was_held_by(&name, at))
        .map(ToString::to_string)
        .collect();
    outcome.promise(failed.is_empty(), || {
        let all = failed.join("; ");
        format!("requests of a pod on {name} failed that the killed server did not hold: {all}")
    });
    let after = requests.iter().filter(|one| one.start > at).count();
    timeline.event(format!(
        "kill -9 of the server on {name}: {} of {after} requests of a pod there failed",
        failed.len()
    ));
    Ok(())
}
