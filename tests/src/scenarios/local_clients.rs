//! Connections that the nodes themselves make to the VIP, and pods on them: to the node's own
//! server while it is ready, and to another one as soon as it is not, whatever has become of the
//! VIP's owner.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::clients_told::KNOWN;
use super::first_start;
use crate::clock::boot_now;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Down, Outcome, Timeline};
use crate::pod::{Pod, Routing};
use crate::process::output;
use crate::scenario::{Scenario, Test, When};
use crate::topology::{Host as _, NIC, PORT, VIP, VIP6, sh};
use crate::traffic::{Watches, vip, vip6};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "local_clients",
    promise: "local_clients_reach_a_ready_server_whatever_became_of_owner_and_own_server",
    tests: &[Test::netns(Plan::dual_stack).on_kernels(When::Asked)],
    run,
};

pub(super) const DEAD_NODE: Scenario = Scenario {
    name: "local_clients_of_a_dead_node",
    promise: "local_clients_of_a_dead_node_are_told",
    tests: &[Test::netns(Plan::dual_stack).on_kernels(When::Asked)],
    run: lose_their_node,
};

pub(super) const DEAD_SERVER: Scenario = Scenario {
    name: "local_clients_of_a_dead_server",
    promise: "local_clients_of_the_own_server_are_told_after_another_node_has_died",
    tests: &[Test::netns(Plan::default)],
    run: lose_their_server,
};

/// Connections made for each statement.
const CONNECTIONS: usize = 12;

/// The service by either VIP.
fn targets() -> [String; 2] {
    [vip(), vip6()]
}

/// The servers that a host reaches by the VIP. `command` is what begins a command there.
fn reached(cluster: &Cluster, command: impl Fn() -> Command, target: &str) -> Result<Vec<String>> {
    (0..CONNECTIONS)
        .map(|_| {
            let mut get = command();
            cluster.aim(&mut get, "get", target);
            let text = output(get.args(["--path", "/whoami"]))
                .with_context(|| format!("reach {target}"))?;
            Ok(text.trim().to_owned())
        })
        .collect()
}

/// Those that a node reaches.
fn reached_by(cluster: &Cluster, node: usize, target: &str) -> Result<Vec<String>> {
    let testbed = cluster.programs().testbed.as_os_str();
    reached(cluster, || cluster.host(node).command(testbed), target)
        .with_context(|| format!("from {}", cluster.name(node)))
}

/// Those that a pod reaches.
fn reached_from(cluster: &Cluster, pod: &Pod) -> Result<Vec<String>> {
    let testbed = cluster.programs().testbed.as_os_str();
    let pod = pod.on(cluster);
    reached(cluster, || pod.command(testbed), &vip()).context("from a pod")
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("local_clients");
    let targets = targets();
    let owner = cluster.owner()?;
    let node = super::steps::another_than(cluster, owner);
    let name = cluster.name(node);
    for node in cluster.nodes() {
        for target in &targets {
            let own = cluster.name(node);
            let servers = reached_by(cluster, node, target)?;
            outcome.promise(servers.iter().all(|server| *server == own), || {
                format!("{own} reached {servers:?} and not itself at {target}")
            });
        }
    }
    for (address, expected) in [
        (format!("{VIP}:{PORT}"), format!("{VIP}:{PORT}")),
        (format!("[{VIP6}]:{PORT}"), format!("[{VIP6}]:{PORT}")),
        // As programs do that know IPv6 sockets only.
        (
            format!("[::ffff:{VIP}]:{PORT}"),
            format!("[::ffff:{VIP}]:{PORT}"),
        ),
    ] {
        let host = cluster.host(node);
        let mut reach = host.command(cluster.programs().testbed.as_os_str());
        let peer = output(reach.args(["reach", &address]))?;
        outcome.promise(peer.trim() == expected, || {
            format!("connected to {address}, a socket names {peer} as its peer")
        });
    }
    timeline.event("every node reaches its own server by the VIPs, and its sockets name the VIPs as their peers");
    let pod = Pod::start(cluster, node, Routing::Routed)?;
    let servers = reached_from(cluster, &pod)?;
    outcome.promise(servers.iter().all(|server| *server == name), || {
        format!("a pod on {name} reached {servers:?}")
    });

    // Its listener is gone, which the hooks see before any probe does.
    first_start::kill_beside(cluster, node, &pod, timeline, &mut outcome)?;
    for target in &targets {
        let servers = reached_by(cluster, node, target)?;
        ensure!(!servers.contains(&name), "{name} reached a dead server");
    }
    timeline.event(format!(
        "{name}, whose server was killed, reaches others at once"
    ));

    cluster.power_off(owner)?;
    cluster.wait_for_status(
        "the owner is known to be dead",
        &[node],
        |own, _, status| status.node(own.host(owner)).is_some_and(|node| !node.alive),
    )?;
    for target in &targets {
        reached_by(cluster, node, target)?;
    }
    timeline.event(format!("{name} reaches the one that is left"));

    // Somebody on the segment is not redirected.
    let client = cluster.topology.client.as_ref();
    cluster.get(client, "/whoami", &vip())?;
    Ok(outcome)
}

/// Time between two questions of TCP after the peer, in seconds: longer than the test may take. So
/// clients learn nothing by themselves.
const KEEPALIVE: u64 = 600;

/// Watches of each client. Of those of a node without a server, each goes to one of two others.
const WATCHES: usize = 16;

/// Another node loses its power first, and then the server of the node itself ends: its programs and a
/// pod were connected to that one.
fn lose_their_server(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(DEAD_SERVER.name);
    let owner = cluster.owner()?;
    let node = super::steps::another_than(cluster, owner);
    let name = cluster.name(node);
    let pod = Pod::start(cluster, node, Routing::Masqueraded)?;
    let inside = pod.on(cluster);
    let mut clients = Vec::new();
    for host in [cluster.host(node), &inside] {
        let (watches, before) = Watches::open_with(cluster, host, &vip(), WATCHES, KEEPALIVE)?;
        ensure!(before.on(&name).count() == WATCHES, "all are on {name}");
        clients.push((watches, before));
    }
    cluster.power_off(owner)?;
    cluster.wait_for_status("the owner is gone", &[node], |own, _, status| {
        status.node(own.host(owner)).is_some_and(|node| node.gone)
    })?;
    for (watches, before) in &mut clients {
        let after = watches.wait_for_verdict(boot_now(), None)?;
        outcome.take_watches(before, &after, None);
    }
    let cut = outcome.watches_cut_living;
    outcome.promise(cut == 0, || {
        format!("{cut} watches of {name} were cut by another node's end")
    });
    let at = cluster.kill_server(node);
    let down = Down { server: &name, at };
    for (watches, before) in &mut clients {
        let after = watches.wait_for_verdict(at, Some(&name))?;
        outcome.take_watches(before, &after, Some(down));
    }
    let told = outcome.watches_reset_dead;
    outcome.promise(told == 2 * WATCHES, || {
        format!("{told} of {} watches on {name} were reset", 2 * WATCHES)
    });
    timeline.event(format!(
        "{} lost its power, and then {name} its server: {told} watches of {name} and a pod were told",
        cluster.name(owner)
    ));
    reached_by(cluster, node, &vip())?;
    reached_from(cluster, &pod)?;
    Ok(outcome)
}

/// A node's own server is dead, so it and a pod behind its NAT use those of the two others, one of
/// which loses its power. Nobody but their own node can tell them.
fn lose_their_node(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(DEAD_NODE.name);
    let owner = cluster.owner()?;
    let node = super::steps::another_than(cluster, owner);
    let name = cluster.name(node);
    cluster.kill_server(node);
    let own = cluster.host(node).address();
    cluster.wait_for_status("its server is known to be dead", &[node], |_, _, status| {
        let mut nodes = status.nodes.iter();
        nodes.any(|entry| entry.address == own && !entry.ready)
    })?;
    let pod = Pod::start(cluster, node, Routing::Masqueraded)?;
    let bystander = super::steps::others_than(cluster, node)
        .into_iter()
        .find(|other| *other != owner)
        .context("three nodes")?;
    let open = |place: &str, target: &str| {
        let inside = pod.on(cluster);
        let host = match place {
            "node" => cluster.host(node),
            "pod" => &inside,
            _ => cluster.host(bystander),
        };
        Watches::open_with(cluster, host, target, WATCHES, KEEPALIVE)
            .with_context(|| format!("from the {place}"))
    };
    let mut clients = Vec::new();
    for (place, target) in [
        ("node", vip()),
        ("node", vip6()),
        ("pod", vip()),
        ("bystander", vip()),
        ("bystander", vip6()),
    ] {
        clients.push(open(place, &target)?);
    }
    std::thread::sleep(KNOWN);
    let dead = cluster.name(owner);
    let held: usize = clients
        .iter()
        .map(|(_, before)| before.on(&dead).count())
        .sum();
    ensure!(held > 0, "no watch is on {dead}");
    timeline.event(format!(
        "{held} of {} watches of {name}, a pod on it and {} are on {dead}, which loses its power",
        clients.len() * WATCHES,
        cluster.name(bystander)
    ));

    let at = cluster.power_off(owner)?;
    // As it is after a while: the kernel does not know any more where to send to.
    let (ipv4, ipv6) = (cluster.host(owner).address(), cluster.host(owner).ipv6());
    for address in [ipv4.to_string(), ipv6.to_string()] {
        let forget = format!("ip neighbour delete {address} dev {NIC} || true");
        sh(cluster.host(node), &forget)?;
    }
    let down = Down { server: &dead, at };
    let mut last = 0;
    for (watches, before) in &mut clients {
        let after = watches.wait_for_verdict(at, Some(&dead))?;
        let ends = after.on(&dead).filter_map(|watch| watch.ended_at);
        last = last.max(ends.max().unwrap_or(0).saturating_sub(at) / 1_000_000);
        outcome.take_watches(before, &after, Some(down));
    }
    let (told, cut) = (outcome.watches_reset_dead, outcome.watches_cut_living);
    outcome.promise((told, cut) == (held, 0), || {
        format!("{told} of {held} watches on {dead} were reset, and {cut} on living servers cut")
    });
    // The node is gone after `reset_after` (2 s), and its clients are asked then. A machine that is emulated takes longer for everything.
    let limit = cluster.pace().timeout_secs * 1000;
    outcome.promise(last < limit, || {
        format!("the last watch on {dead} was told after {last} ms")
    });
    let counted = cluster.status(node)?.count("gone_reset");
    outcome.promise(counted >= held as u64, || {
        format!("{name} counted {counted} resets of {held} connections")
    });
    timeline.event(format!(
        "{told} of them were reset, the last one after {last} ms; {name} counted {counted} resets"
    ));
    for target in &targets() {
        reached_by(cluster, node, target)?;
    }
    reached_from(cluster, &pod)?;
    Ok(outcome)
}
