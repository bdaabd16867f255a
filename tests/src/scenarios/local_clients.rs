//! Connections that the nodes themselves make to the VIP, and pods on them: to the node's own
//! server while it is ready, and to another one as soon as it is not, whatever has become of the
//! VIP's owner.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE};
use crate::outcome::{Outcome, Report};
use crate::process::{Process, output};
use crate::topology::{PORT, VIP, VIP6};
use crate::traffic::{aim, get, vip, vip6};

/// Connections made for each statement.
const CONNECTIONS: usize = 12;

/// The servers that a host reaches by the VIP. `command` is what begins a command there.
fn reached(cluster: &Cluster, command: impl Fn() -> Command, target: &str) -> Result<Vec<String>> {
    (0..CONNECTIONS)
        .map(|_| {
            let mut get = command();
            aim(&mut get, cluster, "get", target);
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

/// A pod: a network namespace below a node's, in the same control group.
struct Pod {
    node: usize,
    holder: Process,
}

impl Pod {
    fn start(cluster: &Cluster, node: usize) -> Result<Self> {
        let host = cluster.host(node);
        let mut command = host.command("unshare".as_ref());
        // It says so when it is in its namespace.
        command.args(["--net", "sh", "-c", "echo; exec sleep infinity"]);
        let holder = Process::reporter("pod", &mut command, "/dev/null".as_ref())?;
        until("the pod has its namespace", PATIENCE, || {
            Ok((holder.line_count() > 0).then_some(()))
        })?;
        let pod = Self { node, holder };
        let address = host.address();
        let pid = pod.holder.pid();
        let script = format!(
            "set -e; echo 1 >/proc/sys/net/ipv4/ip_forward; \
             ip link add pod0 type veth peer name eth0 netns {pid}; \
             ip address add 10.244.0.1/24 dev pod0; ip link set pod0 up"
        );
        output(host.command("sh".as_ref()).args(["-c", &script]))?;
        let script = "set -e; ip link set lo up; ip address add 10.244.0.2/24 dev eth0; \
                      ip link set eth0 up; ip route add default via 10.244.0.1";
        output(pod.command(cluster, "sh").args(["-c", script]))?;
        for other in cluster.nodes() {
            if other != node {
                let via = address.to_string();
                let mut route = cluster.host(other).command("ip".as_ref());
                output(route.args(["route", "add", "10.244.0.0/24", "via", &via]))?;
            }
        }
        Ok(pod)
    }

    fn command(&self, cluster: &Cluster, program: &str) -> Command {
        let mut command = cluster.host(self.node).command("nsenter".as_ref());
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.pid()));
        command.arg(program);
        command
    }

    fn reached(&self, cluster: &Cluster) -> Result<Vec<String>> {
        let testbed = cluster.programs().testbed.display().to_string();
        reached(cluster, || self.command(cluster, &testbed), &vip()).context("from a pod")
    }
}

pub(super) fn run(cluster: &mut Cluster, report: &mut Report) -> Result<Outcome> {
    let mut outcome = Outcome::new("local_clients");
    let targets = [vip(), vip6()];
    let owner = cluster.owner()?;
    let node = super::another_than(cluster, owner);
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
    for (address, believed) in [
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
        outcome.promise(peer.trim() == believed, || {
            format!("connected to {address}, a socket believes to be connected to {peer}")
        });
    }
    report.event("every node reaches its own server by the VIPs, and believes to reach the VIPs");
    let pod = Pod::start(cluster, node)?;
    let servers = pod.reached(cluster)?;
    outcome.promise(servers.iter().all(|server| *server == name), || {
        format!("a pod on {name} reached {servers:?}")
    });

    // Its listener is gone, which the hook sees before any probe does.
    cluster.kill_server(node);
    for target in &targets {
        let servers = reached_by(cluster, node, target)?;
        ensure!(!servers.contains(&name), "{name} reached a dead server");
    }
    report.event(format!(
        "{name}, whose server was killed, reaches others at once"
    ));
    // A pod cannot see the node's listeners, so the probe decides.
    cluster.wait_for_status(
        "the server is known to be dead",
        &[node],
        |own, _, status| status.node(own.host(node)).is_some_and(|node| !node.ready),
    )?;
    let servers = pod.reached(cluster)?;
    outcome.promise(!servers.contains(&name), || {
        format!("a pod on {name} reached its dead server: {servers:?}")
    });
    report.event(format!("and so does a pod on {name}"));

    cluster.power_off(owner)?;
    cluster.wait_for_status(
        "the owner is known to be dead",
        &[node],
        |own, _, status| status.node(own.host(owner)).is_some_and(|node| !node.alive),
    )?;
    for target in &targets {
        reached_by(cluster, node, target)?;
    }
    report.event(format!("{name} reaches the one that is left"));

    // Somebody on the segment is not redirected.
    let client = cluster.topology.client.as_ref();
    get(cluster, client, "/whoami", &vip())?;
    Ok(outcome)
}
