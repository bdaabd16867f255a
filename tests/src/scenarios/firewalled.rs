//! A firewall between the nodes lets through TCP and ARP, and nothing that agents speak. The
//! node behind it hears nobody, and says so instead of calling the owner a stranger.

use anyhow::Result;

use super::observed::ask;
use vip_node::alarm::Kind;

use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::topology::sh;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "firewalled",
    promise: "firewalled_node_says_so_and_is_not_ready",
    tests: &[Test::netns(Plan::bare)],
    run,
};

/// As on many hosts: replies may come in, and two ports are open.
const FIREWALL: &str = "nft 'table inet test { chain input { \
     type filter hook input priority 0; policy drop; iif lo accept; \
     ct state established,related accept; tcp dport { 22, 6443 } accept; }; }'";

/// One that was opened for BFD, and for nothing else.
const HALF_OPEN: &str = "nft 'table inet test { chain input { \
     type filter hook input priority 0; policy accept; ip protocol 112 drop; }; }'";

/// A switch between the nodes does the same.
const OUTPUT: &str = "nft 'table inet test { chain output { \
     type filter hook output priority 0; policy accept; \
     ip protocol 112 drop; udp dport 3784 drop; }; }'";

const OPEN: &str = "nft delete table inet test";

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("firewalled");
    alone(cluster, &mut outcome)?;
    timeline.event("the first agent of a cluster is ready");
    for node in cluster.nodes() {
        if cluster.agent_pid(node).is_none() {
            cluster.start_agent(node)?;
        }
    }
    cluster.wait_until_settled()?;
    cut_off(cluster, &mut outcome)?;
    timeline.event("a node behind a firewall says so, and is not ready");
    no_vrrp(cluster)?;
    timeline.event("a firewall that drops VRRP alone is named by both owners");
    Ok(outcome)
}

/// The servers of all nodes run, and the agent of one: it must not wait for the others.
fn alone(cluster: &mut Cluster, outcome: &mut Outcome) -> Result<()> {
    cluster.start_agent(0)?;
    cluster.wait_for_status("it owns the VIP", &[0], |_, _, status| status.is_active())?;
    for peer in ["10.0.0.12", "10.0.0.13"] {
        cluster.wait_for_status("it says who runs no agent", &[0], |_, _, status| {
            let text = status.alarm(Kind::NoAgent, peer);
            text.is_some_and(|text| text.contains("runs no agent"))
        })?;
    }
    let (code, text) = ask(cluster, 0, "/readyz")?;
    outcome.promise(code == 200, || {
        format!("the first agent is not ready: {code} {text}")
    });
    Ok(())
}

fn cut_off(cluster: &mut Cluster, outcome: &mut Outcome) -> Result<()> {
    let owner = cluster.owner()?;
    let node = super::steps::another_than(cluster, owner);
    let others = super::steps::others_than(cluster, node);
    let name = cluster.host(node).address().to_string();
    let peers: Vec<String> = others
        .iter()
        .map(|other| cluster.host(*other).address().to_string())
        .collect();
    for (firewall, on_node, on_others) in [
        (FIREWALL, "this node drops it", "does not arrive there"),
        (OUTPUT, "this node drops what it sends", "does not arrive"),
    ] {
        cluster.stop_agent(node)?;
        sh(cluster.host(node), firewall)?;
        cluster.start_agent(node)?;
        for peer in &peers {
            cluster.wait_for_status("it names what is dropped", &[node], |_, _, status| {
                let text = status.alarm(Kind::Unheard, peer).unwrap_or_default();
                text.contains("UDP 3784 and IP protocol 112") && text.contains(on_node)
            })?;
        }
        cluster.wait_for_status("the others name it too", &others, |_, _, status| {
            let text = status.alarm(Kind::Unheard, &name).unwrap_or_default();
            text.contains("UDP 3784 and IP protocol 112") && text.contains(on_others)
        })?;
        if firewall == FIREWALL {
            let (code, text) = ask(cluster, node, "/readyz")?;
            outcome.promise(code == 503 && text.contains("[-]peers failed"), || {
                format!("/readyz of a node that hears nobody: {code} {text}")
            });
            let config = cluster.work().join("vip.toml");
            let mut check = cluster
                .host(node)
                .command(cluster.programs().vip.as_os_str());
            let done = check.arg("check").arg("--config").arg(&config).output()?;
            let text = String::from_utf8_lossy(&done.stdout);
            outcome.promise(
                done.status.code() == Some(1) && text.contains("UDP 3784 and IP protocol 112"),
                || format!("vip check exits with {}: {text}", done.status),
            );
        }
        let status = cluster.status(node)?;
        outcome.promise(status.conflicts == 0 && status.claimant.is_none(), || {
            format!("it calls the owner a stranger: {status:?}")
        });
        let told = cluster.vip(node, &["events"])?;
        outcome.promise(told.contains("UDP 3784 and IP protocol 112"), || {
            format!("no event says what is dropped: {told}")
        });
        sh(cluster.host(node), OPEN)?;
        let all = cluster.nodes();
        cluster.wait_until_settled()?;
        cluster.wait_for_status("nothing is wrong", &all, |_, _, status| {
            status.alarms.is_empty()
        })?;
    }
    until("the node is ready", PATIENCE, || {
        let (code, _) = ask(cluster, node, "/readyz")?;
        Ok((code == 200).then_some(()))
    })
}

fn no_vrrp(cluster: &mut Cluster) -> Result<()> {
    let owner = cluster.owner()?;
    let node = super::steps::another_than(cluster, owner);
    let name = |cluster: &Cluster, node: usize| cluster.host(node).address().to_string();
    sh(cluster.host(node), HALF_OPEN)?;
    for (here, there) in [(node, owner), (owner, node)] {
        let peer = name(cluster, there);
        cluster.wait_for_status("both owners name each other", &[here], |_, _, status| {
            let text = status.alarm(Kind::TwoOwners, &peer);
            text.is_some_and(|text| text.contains("IP protocol 112"))
        })?;
    }
    sh(cluster.host(node), OPEN)?;
    cluster.wait_until_settled()?;
    let all = cluster.nodes();
    cluster.wait_for_status("nothing is wrong", &all, |_, _, status| {
        status.alarms.is_empty()
    })
}
