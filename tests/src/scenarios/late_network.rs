//! An agent is started before its node's network is there, as at a boot: the interface has not got its
//! name yet, then not its address (DHCP). It waits, says what for, and is a node like any other once
//! the address is there, without a restart.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::observed::ask;
use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::topology::{NIC, sh};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "late_network",
    promise: "late_network_is_waited_for_without_a_restart",
    tests: &[Test::netns(Plan::bare)],
    run,
};

/// An alternative name, longer than names of interfaces can be.
const NAME: &str = "uplink-of-the-control-plane-segment";

/// Ends an agent that waits, whatever it waits for.
const AT_ONCE: Duration = Duration::from_secs(2);

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("late_network");
    let nodes = cluster.nodes();
    let (node, others) = nodes.split_last().context("a cluster has nodes")?;
    let node = *node;
    for &other in others {
        cluster.start_agent(other)?;
    }
    let address = cluster.host(node).address();
    let lose = format!("ip address del {address}/24 dev {NIC}");
    let get = format!("ip address add {address}/24 dev {NIC}");
    sh(cluster.host(node), &lose)?;
    let config = format!("interface = \"{NAME}\"\n{}", cluster.config()?);
    cluster.start_agent_with(node, &config)?;
    let pid = cluster.agent_pid(node);
    waits_for(cluster, node, &format!("no interface {NAME}"))?;
    timeline.event("an agent waits for its interface, and says so");
    sh(
        cluster.host(node),
        &format!("ip link property add dev {NIC} altname {NAME}"),
    )?;
    waits_for(cluster, node, "is this machine")?;
    let (code, text) = ask(cluster, node, "/healthz")?;
    outcome.promise(
        code == 200 && text.contains("waits for its network"),
        || format!("/healthz of an agent that waits: {code} {text}"),
    );
    let (code, text) = ask(cluster, node, "/readyz")?;
    outcome.promise(
        code == 503 && text.contains("waits for its network"),
        || format!("/readyz of an agent that waits: {code} {text}"),
    );
    std::thread::sleep(Duration::from_secs(2));
    sh(cluster.host(node), &get)?;
    cluster.wait_until_settled()?;
    timeline.event("the address is there two seconds later: the node is one like any other");
    let interface = cluster.status(node)?.xdp.interface.clone();
    outcome.promise(interface == NIC, || {
        format!("the NIC is called {interface} there")
    });
    outcome.promise(pid.is_some() && cluster.agent_pid(node) == pid, || {
        "the agent was started again".to_owned()
    });

    cluster.stop_agent(node)?;
    sh(cluster.host(node), &lose)?;
    cluster.start_agent_with(node, &config)?;
    waits_for(cluster, node, "is this machine")?;
    let start = Instant::now();
    cluster.stop_agent(node)?;
    let took = start.elapsed();
    outcome.promise(took < AT_ONCE, || {
        format!("an agent that waits ended {took:?} after SIGTERM")
    });
    sh(cluster.host(node), &get)?;
    cluster.start_agent_with(node, &config)?;
    cluster.wait_until_settled()?;
    Ok(outcome)
}

/// Waits until `vip status` on a node says what its agent waits for.
fn waits_for(cluster: &mut Cluster, node: usize, what: &str) -> Result<()> {
    let mut last = String::new();
    let waited = until("an agent says what it waits for", PATIENCE, || {
        let said = cluster.vip(node, &["status"]);
        last = said.unwrap_or_else(|error| format!("{error:#}"));
        let dead = cluster.dead_agents();
        anyhow::ensure!(
            dead.is_empty(),
            "the agent on {} has ended",
            dead.join(", ")
        );
        Ok((last.contains("waits for its network") && last.contains(what)).then_some(()))
    });
    waited.with_context(|| last)
}
