//! API servers whose `/readyz` demands credentials, as those of k3s, RKE2 and Talos: that they serve
//! is known, that they are ready is not. One that hangs costs nothing once it is found out, a node
//! that drains gets nothing, the last one that could be used is not drained by accident. With
//! credentials the agents know all there is to know.

use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::agent::NodeStatus;
use crate::cluster::{Cluster, Plan};
use crate::load::Request;
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::traffic::{Load, vip};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "credentials",
    promise: "credentials_are_wanted_by_readyz_and_hung_or_drained_get_nothing",
    tests: &[Test::netns(Plan::default)],
    run,
};

/// New connections that are looked at.
const CONNECTIONS: usize = 120;

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("credentials");
    for node in cluster.nodes() {
        cluster.lock_server(node);
    }
    for node in cluster.nodes() {
        wait_for_node(cluster, node, "answers 401", |entry| {
            entry.probe.contains("401")
        })?;
    }
    timeline.event("/readyz of all servers answers 401");
    hung(cluster, &mut outcome, timeline)?;
    drained(cluster, &mut outcome, timeline)?;
    last_usable(cluster, &mut outcome, timeline)?;
    token(cluster, &mut outcome, timeline)?;
    Ok(outcome)
}

/// Waits until all agents say something of a node.
fn wait_for_node(
    cluster: &mut Cluster,
    node: usize,
    what: &str,
    condition: impl Fn(&NodeStatus) -> bool,
) -> Result<()> {
    let nodes = cluster.nodes_with_agent();
    let what = format!("all agents see that {} {what}", cluster.name(node));
    cluster.wait_for_status(&what, &nodes, |own, _, status| {
        status.node(own.host(node)).is_some_and(&condition)
    })
}

/// Requests on new connections by the VIP, made now.
fn connect(cluster: &Cluster) -> Result<Vec<Request>> {
    let client = cluster.topology.client.as_ref();
    let mut load = Load::start_at(cluster, client, &vip(), 20, 0)?;
    load.go_on(CONNECTIONS)?;
    load.stop()
}

/// Makes new connections: none fails, and none reaches `avoided`.
fn all_but(
    cluster: &Cluster,
    avoided: Option<&str>,
    what: &str,
    outcome: &mut Outcome,
    timeline: &mut Timeline,
) -> Result<()> {
    let requests = connect(cluster)?;
    let failed = requests.iter().filter(|one| !one.succeeded()).count();
    let to = |one: &&Request| avoided.is_some() && one.server.as_deref() == avoided;
    let stray = requests.iter().filter(to).count();
    let count = requests.len();
    timeline.event(format!(
        "{what}: {failed} of {count} new connections failed, {stray} reached it"
    ));
    outcome.promise(failed == 0 && stray == 0 && count > 0, || {
        format!("{what}: {failed} of {count} new connections failed, {stray} reached it")
    });
    Ok(())
}

/// SIGSTOP of one server.
fn hung(cluster: &mut Cluster, outcome: &mut Outcome, timeline: &mut Timeline) -> Result<()> {
    let owner = cluster.owner()?;
    let node = super::steps::another_than(cluster, owner);
    cluster.signal_server(node, Signal::SIGSTOP);
    wait_for_node(cluster, node, "hangs", |entry| {
        entry.probe.contains("timed out") || entry.probe.contains("hangs")
    })?;
    // It takes `fall` probes.
    std::thread::sleep(std::time::Duration::from_secs(4));
    all_but(cluster, None, "a server hangs", outcome, timeline)?;
    cluster.signal_server(node, Signal::SIGCONT);
    wait_for_node(cluster, node, "serves again", |entry| {
        entry.probe.contains("401") && !entry.ready && entry.alive
    })
}

/// `vip drain` of one node.
fn drained(cluster: &mut Cluster, outcome: &mut Outcome, timeline: &mut Timeline) -> Result<()> {
    let owner = cluster.owner()?;
    let node = super::steps::another_than(cluster, owner);
    let name = cluster.name(node);
    wait_for_node(cluster, node, "is used", |entry| entry.usable)?;
    cluster.vip(node, &["drain"])?;
    wait_for_node(cluster, node, "drains", |entry| {
        entry.draining && !entry.usable
    })?;
    all_but(cluster, Some(&name), "a node drains", outcome, timeline)?;
    // An agent that starts knows from the one before it that the node drains.
    let owner = cluster.owner()?;
    let client = cluster.topology.client.as_ref();
    let mut load = Load::start_at(cluster, client, &vip(), 20, 0)?;
    load.go_on(CONNECTIONS / 4)?;
    cluster.stop_agent(owner)?;
    cluster.start_agent(owner)?;
    load.go_on(CONNECTIONS)?;
    let requests = load.stop()?;
    let to = |one: &&Request| one.server.as_deref() == Some(&name);
    let stray = requests.iter().filter(to).count();
    outcome.promise(stray == 0, || {
        format!("{stray} new connections went to {name}, which drains, at an agent's restart")
    });
    wait_for_node(cluster, node, "drains", |entry| entry.draining)?;
    Ok(())
}

/// `vip drain` of all nodes, one after the other; one drains already.
fn last_usable(
    cluster: &mut Cluster,
    outcome: &mut Outcome,
    timeline: &mut Timeline,
) -> Result<()> {
    // The owner may be another one since.
    let owner = cluster.owner()?;
    let status = cluster.status(owner)?;
    let drains = |node: &usize| {
        let entry = status.node(cluster.host(*node));
        entry.is_some_and(|entry| entry.draining)
    };
    let first = cluster.nodes().into_iter().find(drains);
    let first = first.context("a node drains")?;
    let mut others = super::steps::others_than(cluster, first);
    let last = others.pop().context("three nodes")?;
    let second = others.pop().context("three nodes")?;
    cluster.vip(second, &["drain"])?;
    wait_for_node(cluster, second, "drains", |entry| entry.draining)?;
    let refused = cluster.vip(last, &["drain"]);
    let said = refused
        .as_ref()
        .map_or_else(|error| format!("{error:#}"), Clone::clone);
    let names = [cluster.name(first), cluster.name(second)];
    let named = cluster
        .nodes()
        .into_iter()
        .filter(|node| *node != last)
        .all(|node| said.contains(&cluster.host(node).address().to_string()));
    outcome.promise(
        refused.is_err() && said.contains("--force") && named,
        || format!("draining the last node while {names:?} drain says: {said}"),
    );
    let name = cluster.name(last);
    let requests = connect(cluster)?;
    let all_there = requests
        .iter()
        .all(|one| one.server.as_deref() == Some(&name));
    outcome.promise(all_there, || {
        format!("not all connections went to {name}, which alone does not drain")
    });
    cluster.vip(last, &["drain", "--force"])?;
    wait_for_node(cluster, last, "drains", |entry| entry.draining)?;
    all_but(cluster, None, "all nodes drain", outcome, timeline)?;
    for node in cluster.nodes() {
        cluster.vip(node, &["undrain"])?;
    }
    for node in cluster.nodes() {
        wait_for_node(cluster, node, "is used again", |entry| {
            entry.usable && !entry.draining
        })?;
    }
    Ok(())
}

/// Agents with a token know which servers are ready. It rotates, and is written badly.
fn token(cluster: &mut Cluster, outcome: &mut Outcome, timeline: &mut Timeline) -> Result<()> {
    const SECRET: &str = "s3cr3t-of-the-harness";
    let token = cluster.work().join("agent-token");
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
    };
    write(&cluster.server_token(), SECRET)?;
    write(&token, &format!("{SECRET}\n"))?;
    let file = cluster.work().join("vip.toml");
    let text = std::fs::read_to_string(&file).context("read vip.toml")?;
    let line = format!("[health]\ntoken_file = \"{}\"\n", token.display());
    write(&file, &text.replace("[health]\n", &line))?;
    for node in cluster.nodes() {
        cluster.stop_agent(node)?;
        cluster.start_agent(node)?;
    }
    cluster.wait_until_settled()?;
    timeline.event("with the token all servers are ready");

    let owner = cluster.owner()?;
    let node = super::steps::another_than(cluster, owner);
    let name = cluster.name(node);
    cluster.drain_server(node);
    cluster.wait_until_not_ready(node)?;
    all_but(cluster, Some(&name), "a server says no", outcome, timeline)?;
    cluster.signal_server(node, Signal::SIGUSR2);
    cluster.wait_until_settled()?;

    // A file that is empty is not taken, one with another token is.
    write(&token, "")?;
    let nodes = cluster.nodes();
    let told = |cluster: &Cluster, node: usize| {
        let events = cluster.vip(node, &["events"]).unwrap_or_default();
        events.contains(&token.display().to_string())
    };
    cluster.wait_for_status("agents name the broken file", &nodes, |own, node, _| {
        told(own, node)
    })?;
    cluster.wait_until_settled()?;
    write(&cluster.server_token(), "another")?;
    for node in cluster.nodes() {
        wait_for_node(cluster, node, "refuses the old token", |entry| {
            entry.unknown && entry.usable && entry.probe.contains("401")
        })?;
    }
    write(&token, "another")?;
    cluster.wait_until_settled()?;
    timeline.event("the token has rotated");
    for node in cluster.nodes() {
        let mut said = cluster.vip(node, &["status", "--json"])?;
        said += &cluster.vip(node, &["events", "--json"])?;
        said += &std::fs::read_to_string(cluster.agent_log(node)).unwrap_or_default();
        outcome.promise(!said.contains(SECRET), || {
            format!("{} has told the token", cluster.name(node))
        });
    }
    Ok(())
}
