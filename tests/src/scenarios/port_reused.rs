//! A client uses a port again, soon after a server closed the connection from it. What is left
//! of that connection waits on the server's node (time-wait); the new one may be at another.

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test, When};
use crate::traffic::vip;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "port_reused",
    promise: "port_reused_after_a_servers_close_reaches_another_server",
    tests: &[Test::netns(Plan::default).on_kernels(When::Asked)],
    run,
};

/// Ports to try: two thirds of them lead to another node than wanted.
const PORTS: std::ops::Range<u16> = 20_000..20_100;

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
    Ok(outcome)
}

/// Connects from one port after the other until the server is the wanted one. Returns the port.
fn leave(cluster: &Cluster, name: &str, ports: &mut std::ops::Range<u16>) -> Result<u16> {
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
