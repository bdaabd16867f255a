//! Connections that the nodes themselves make to the VIP, and pods on them: to the node's own
//! server while it is ready, and to another one as soon as it is not, whatever has become of the
//! VIP's owner.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::first_start;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::pod::{Pod, Routing};
use crate::process::output;
use crate::scenario::{Scenario, Test, When};
use crate::topology::{Host as _, PORT, VIP, VIP6};
use crate::traffic::{vip, vip6};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "local_clients",
    promise: "local_clients_reach_a_ready_server_whatever_became_of_owner_and_own_server",
    tests: &[Test::netns(Plan::dual_stack).on_kernels(When::Asked)],
    run,
};

/// Connections made for each statement.
const CONNECTIONS: usize = 12;

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
    let targets = [vip(), vip6()];
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
