//! A client uses a port again, soon after a server closed the connection from it. What is left
//! of that connection waits on the server's node (TIME-WAIT); the new one may be at another, whose
//! power may be cut.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use crate::clock::boot_now;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Down, Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test, When};
use crate::traffic::{Watches, vip};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "port_reused",
    promise: "port_reused_after_a_servers_close_reaches_another_server",
    tests: &[Test::netns(Plan::default).on_kernels(When::Asked)],
    run,
};

/// Ports to try: two thirds of them lead to another node than wanted.
const PORTS: Range<u16> = 20_000..20_100;

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("port_reused");
    let owner = cluster.owner()?;
    let node = super::steps::another_than(cluster, owner);
    let name = cluster.name(node);
    let mut ports = PORTS;

    let port = leave(cluster, &name, &mut ports)?;
    cluster.kill_server(node);
    let server = again(cluster, &mut outcome, &name, port);
    timeline.event(format!(
        "the API server on {name} is killed; port {port}, connected to it before, reaches {server}"
    ));
    cluster.start_server(node)?;
    cluster.wait_for_server(node)?;
    cluster.wait_until_settled()?;

    let port = leave(cluster, &name, &mut ports)?;
    cluster.drain_server(node);
    cluster.wait_until_not_ready(node)?;
    let server = again(cluster, &mut outcome, &name, port);
    timeline.event(format!(
        "the API server on {name} drains; port {port}, connected to it before, reaches {server}"
    ));
    cluster.kill_server(node);
    cluster.start_server(node)?;
    cluster.wait_for_server(node)?;
    cluster.wait_until_settled()?;

    power_cut_with_time_wait_elsewhere(cluster, &mut outcome, timeline)?;
    Ok(outcome)
}

/// Ports of watches, of which a third comes to each server.
const WATCHES: Range<u16> = 21_000..21_060;

/// All ports come to one node's server, while the others are down, and it closes. Then watches from
/// the same ports are open, and another node's power is cut. The last node that is asked for its
/// connections may be the one with the TIME-WAIT sockets, which would answer in place of a reset.
fn power_cut_with_time_wait_elsewhere(
    cluster: &mut Cluster,
    outcome: &mut Outcome,
    timeline: &mut Timeline,
) -> Result<()> {
    let owner = cluster.owner()?;
    let last = super::steps::another_than(cluster, owner);
    let others = super::steps::others_than(cluster, last);
    for node in &others {
        cluster.kill_server(*node);
        cluster.wait_until_not_ready(*node)?;
    }
    for port in WATCHES {
        let server = visit(cluster, port)?;
        ensure!(
            server == cluster.name(last),
            "port {port} leads to {server}"
        );
    }
    for node in &others {
        cluster.start_server(*node)?;
        cluster.wait_for_server(*node)?;
    }
    cluster.wait_until_settled()?;
    let client = cluster.topology.client.as_ref();
    let (mut watches, before) = Watches::open_from(cluster, client, &vip(), &WATCHES)?;
    let name = cluster.name(owner);
    let held = before.on(&name).count();
    ensure!(held > 0, "no watch is on {name}");
    timeline.event(format!(
        "power cut of {name}, the owner; {held} of {} watches are on its server, and {} has a TIME-WAIT \
         socket for each port",
        WATCHES.len(),
        cluster.name(last)
    ));
    let at = cluster.power_off(owner)?;
    cluster.wait_until_settled()?;
    let after = watches.wait_for_verdict(boot_now(), Some(&name))?;
    let down = Down { server: &name, at };
    outcome.take_watches(&before, &after, Some(down));
    let (reset, cut) = (outcome.watches_reset_dead, outcome.watches_cut_living);
    outcome.promise(reset == held && cut == 0, || {
        format!("{reset} of the {held} watches on the dead server were reset, and {cut} on living ones cut")
    });
    Ok(())
}

/// Connects from one port after the other until the server is the wanted one. Returns the port.
fn leave(cluster: &Cluster, name: &str, ports: &mut Range<u16>) -> Result<u16> {
    for port in ports {
        if visit(cluster, port)? == name {
            return Ok(port);
        }
    }
    anyhow::bail!("no port leads to {name}")
}

/// Connects from a port again; the server must be another. Returns its name.
fn again(cluster: &Cluster, outcome: &mut Outcome, name: &str, port: u16) -> String {
    match visit(cluster, port) {
        Ok(server) => {
            outcome.promise(server != name, || {
                format!("port {port} led to {name} again, which takes no new connections")
            });
            server
        }
        Err(error) => {
            outcome.promise(false, || {
                format!("from port {port}, which was connected to {name} before: {error:#}")
            });
            "nobody".to_owned()
        }
    }
}

fn visit(cluster: &Cluster, port: u16) -> Result<String> {
    let client = cluster.topology.client.as_ref();
    let mut command = cluster.client(client, "visit", &vip());
    command
        .args(["--path", cluster.load_path()])
        .args(["--from", &port.to_string()]);
    let server = output(&mut command).context("make a request")?;
    Ok(server.trim().to_owned())
}
