//! A cluster without a list: members whom nobody knew before come, leave, die, and come back, and no
//! request fails.

mod arrivals;
mod clusters;
mod drift;
mod forged;
mod lists;
mod ways;

pub(super) use arrivals::{FAILOVER, FULL, MOVED, REBOOTED, UNREADY};
pub(super) use clusters::SCENARIO as CLUSTERS;
pub(super) use drift::SCENARIO as DRIFT;
pub(super) use forged::{KEYED, UNKEYED};
pub(super) use lists::SCENARIO as LISTS;
pub(super) use ways::{BROKEN_LINK, FILTERED, OWNERS_LINK, PARTITION};

use std::process::Stdio;

use anyhow::Result;

use crate::agent::NodeStatus;
use crate::clock::boot_now;
use crate::cluster::plan::Planned;
use crate::cluster::{Cluster, Pace, Plan};
use crate::load::Request;
use crate::outcome::{Down, Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::topology::vm::Machines;
use crate::traffic::{ArpMonitor, Traffic};

pub(super) const GROWS: Scenario = Scenario {
    name: "members_grow",
    promise: "cluster_without_a_list_grows_node_by_node_and_shrinks_to_three",
    tests: &[
        Test::netns(one),
        Test::netns(one_dual_stack).cluster("dual_stack"),
        Test::machines(|machines| on_machines(machines, 1, 5), When::Asked),
    ],
    run: grow,
};

pub(super) const REPLACED: Scenario = Scenario {
    name: "members_replaced",
    promise: "each_of_three_members_is_replaced_and_no_request_fails",
    tests: &[
        Test::netns(three),
        Test::machines(|machines| on_machines(machines, 3, 6), When::Asked),
    ],
    run: replace,
};

pub(super) const FORGOTTEN: Scenario = Scenario {
    name: "member_dies",
    promise: "member_that_died_is_forgotten_and_comes_back_as_a_new_one",
    tests: &[Test::netns(three)],
    run: forget,
};

pub(super) const RESTARTED: Scenario = Scenario {
    name: "members_restart",
    promise: "all_agents_of_a_cluster_without_a_list_restart_at_once",
    tests: &[Test::netns(three)],
    run: restart,
};

/// Only the demo runs it: tests do more of the same.
pub(super) const DEMO: Scenario = Scenario {
    name: "membership",
    promise: "membership_changes_and_no_request_fails",
    tests: &[],
    run: demo,
};

#[expect(clippy::unnecessary_wraps, reason = "as plans of machines are")]
fn on_machines(machines: Machines, founders: u8, nodes: u8) -> Planned {
    Ok(Plan {
        founders: Some(founders),
        nodes,
        ..Plan::on_machines(Pace::CALM, machines)
    })
}

fn one() -> Plan {
    Plan::found_by(1, 7, "")
}

fn one_dual_stack() -> Plan {
    Plan {
        dual_stack: true,
        ..Plan::found_by(1, 3, "")
    }
}

fn three() -> Plan {
    Plan::found_by(3, 6, "")
}

/// Whether a node has served requests that began in this time.
fn has_served(requests: &[Request], name: &str, from: u64) -> bool {
    let mut served = requests
        .iter()
        .filter(|request| request.start >= from && request.server.as_deref() == Some(name));
    served.next().is_some()
}

/// All agents know so many members, themselves among them.
fn promise_members(outcome: &mut Outcome, cluster: &Cluster, count: usize) -> Result<()> {
    for node in cluster.nodes_with_agent() {
        let members = cluster.status(node)?.nodes.len();
        outcome.promise(members == count, || {
            format!(
                "{} knows {members} members, not {count}",
                cluster.name(node)
            )
        });
    }
    Ok(())
}

/// Waits until these nodes' agents all see these hosts as members that take new connections.
fn wait_until_serving(cluster: &mut Cluster, agents: &[usize], members: &[usize]) -> Result<()> {
    let what = "the agents see these members serve";
    cluster.wait_for_status(what, agents, |own, _, status| {
        members.iter().all(|member| {
            let entry = status.node(own.host(*member));
            // Nothing can be sent to one whose Ethernet address is not known.
            let serves =
                |entry: &NodeStatus| entry.confirmed && entry.usable && entry.mac.is_some();
            entry.is_some_and(|entry| entry.alive && serves(entry))
        })
    })
}

fn grow(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("members_grow");
    let mut arp = ArpMonitor::start(cluster, 5)?;
    let mut traffic = Traffic::start(cluster, timeline)?;
    let nodes = cluster.plan().nodes.into();
    for node in 1..nodes {
        cluster.arrive(node)?;
        // The fourth and the fifth come together.
        if node == 3 && nodes > 4 {
            continue;
        }
        cluster.wait_until_settled()?;
        traffic.load.go_on(100)?;
        timeline.event(format!("{} nodes", node + 1));
    }
    let joined = boot_now();
    traffic.load.go_on(200)?;
    let requests = traffic.finish(&mut outcome, None)?;
    for node in cluster.nodes() {
        let name = cluster.name(node);
        outcome.promise(has_served(&requests, &name, joined), || {
            format!("{name} has served no request")
        });
    }
    promise_members(&mut outcome, cluster, nodes)?;
    for size in (3..nodes).rev() {
        let traffic = Traffic::start(cluster, timeline)?;
        let owner = cluster.owner()?;
        // The owner first.
        let node = if size == nodes - 1 {
            owner
        } else {
            super::steps::another_than(cluster, owner)
        };
        leave(cluster, &mut outcome, traffic, node)?;
        promise_members(&mut outcome, cluster, size)?;
        timeline.event(format!("{size} nodes, without {}", cluster.name(node)));
    }
    super::steps::promise_one_answer(&mut outcome, &arp.report()?);
    Ok(outcome)
}

/// A node leaves by `vip leave`, and then its API server ends.
fn leave(
    cluster: &mut Cluster,
    outcome: &mut Outcome,
    mut traffic: Traffic,
    node: usize,
) -> Result<()> {
    let name = cluster.name(node);
    let said = cluster.vip(node, &["leave", "--timeout", "1s"])?;
    outcome.promise(said.contains("has left the cluster"), || {
        format!("{name} says: {said}")
    });
    let left = cluster.vip(node, &["status"]);
    let text = left.unwrap_or_else(|error| format!("{error:#}"));
    outcome.promise(text.contains("has left the cluster"), || {
        format!("its status says: {text}")
    });
    cluster.stop_agent(node)?;
    let dry = cluster.vip(node, &["cleanup", "--dry-run"])?;
    // What the agent may not unmount any more, and its own files.
    let ours = ["bpffs mounted", "/var/lib/vip", "/run/vip"];
    let rest = |line: &&str| !ours.iter().any(|known| line.contains(known));
    let kernel: Vec<&str> = dry.lines().filter(rest).collect();
    outcome.promise(kernel.is_empty(), || {
        format!("{name} has left these in the kernel: {kernel:?}")
    });
    // Its watches end with its server, as in a node's shutdown.
    let at = cluster.depart(node);
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    let down = Down { server: &name, at };
    let requests = traffic.finish(outcome, Some(down))?;
    let late = has_served(&requests, &name, at);
    outcome.promise(!late, || format!("{name} has served after it left"));
    Ok(())
}

/// A new node comes, and an old one leaves, three times, each time the owner.
fn replace(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("members_replaced");
    let traffic = Traffic::start(cluster, timeline)?;
    let node = cluster.owner()?;
    let leave_and_wait = ["leave", "--timeout", "60s"];
    super::steps::undrain_meanwhile(cluster, timeline, &mut outcome, node, &leave_and_wait)?;
    traffic.finish(&mut outcome, None)?;
    promise_members(&mut outcome, cluster, 3)?;
    for newcomer in 3..6 {
        let mut traffic = Traffic::start(cluster, timeline)?;
        cluster.arrive(newcomer)?;
        cluster.wait_until_settled()?;
        traffic.load.go_on(100)?;
        let owner = cluster.owner()?;
        leave(cluster, &mut outcome, traffic, owner)?;
        promise_members(&mut outcome, cluster, 3)?;
        timeline.event(format!(
            "{} in the place of {}, which owned the VIP",
            cluster.name(newcomer),
            cluster.name(owner)
        ));
    }
    Ok(outcome)
}

/// From one node to three, and a fourth one takes the place of the owner.
fn demo(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(DEMO.name);
    let mut traffic = Traffic::start(cluster, timeline)?;
    for node in 1..4 {
        cluster.arrive(node)?;
        cluster.wait_until_settled()?;
        traffic.load.go_on(100)?;
        timeline.event(format!("{} has joined", cluster.name(node)));
    }
    let owner = cluster.owner()?;
    let name = cluster.name(owner);
    cluster.vip(owner, &["leave", "--timeout", "1s"])?;
    cluster.stop_agent(owner)?;
    // Its watches end with its server, as in a node's shutdown.
    let at = cluster.depart(owner);
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    timeline.event(format!("{name}, the owner, has left"));
    let down = Down { server: &name, at };
    traffic.finish(&mut outcome, Some(down))?;
    promise_members(&mut outcome, cluster, 3)?;
    Ok(outcome)
}

/// A member that is not the owner loses its power, is forgotten, and a node with its address comes.
fn forget(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("member_dies");
    let owner = cluster.owner()?;
    let dead = super::steps::another_than(cluster, owner);
    let (name, address) = (cluster.name(dead), cluster.host(dead).address().to_string());
    let mut traffic = Traffic::start(cluster, timeline)?;
    let refused = cluster.vip(owner, &["forget", &address]);
    let text = refused.unwrap_or_else(|error| format!("{error:#}"));
    outcome.promise(text.contains("is not gone"), || {
        format!("a living member to be forgotten: {text}")
    });
    cluster.kill_agent(dead);
    let at = cluster.depart(dead);
    // Its kernel still answers, so it is not gone.
    traffic.load.go_on(100)?;
    cluster.topology.nodes[dead].power_off()?;
    cluster.wait_for_status("it is gone", &[owner], |own, _, status| {
        status.node(own.host(dead)).is_some_and(|node| node.gone)
    })?;
    let said = cluster.vip(owner, &["forget", &address])?;
    outcome.promise(said.contains("is no member any more"), || said.clone());
    let nodes = cluster.nodes();
    cluster.wait_for_status("all have forgotten it", &nodes, |own, _, status| {
        status.node(own.host(dead)).is_none()
    })?;
    timeline.event(format!("{name} has died, and is forgotten"));
    // A newcomer needs nobody who is gone.
    cluster.arrive(3)?;
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    let down = Down { server: &name, at };
    traffic.finish(&mut outcome, Some(down))?;
    promise_members(&mut outcome, cluster, 3)?;
    all_leave(cluster, &mut outcome)?;
    timeline.event("all wanted to leave at once, and one of them owns the VIP still");
    Ok(outcome)
}

/// All members want to leave at the same time. One of them stays at least, and owns the VIP.
fn all_leave(cluster: &mut Cluster, outcome: &mut Outcome) -> Result<()> {
    let nodes = cluster.nodes();
    let mut leaving = Vec::new();
    for node in nodes {
        let vip = cluster.programs().vip.as_os_str();
        let mut command = cluster.host(node).command(vip);
        command.args(["leave", "--timeout", "1s"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        leaving.push((node, command.spawn()?));
    }
    let mut stays = Vec::new();
    for (node, mut leaving) in leaving {
        if !leaving.wait()?.success() {
            stays.push(node);
        }
    }
    outcome.promise(!stays.is_empty(), || "all have left".to_owned());
    cluster.wait_for_status("one that stays owns the VIP", &stays, |_, _, status| {
        status.owner.is_some()
    })
}

fn restart(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("members_restart");
    let mut traffic = Traffic::start(cluster, timeline)?;
    for node in cluster.nodes() {
        cluster.kill_agent(node);
    }
    for node in cluster.nodes() {
        cluster.start_agent(node)?;
    }
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    timeline.event("all agents were killed at once, and run again");
    cluster.arrive(3)?;
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    timeline.event("a newcomer after that");
    traffic.finish(&mut outcome, None)?;
    Ok(outcome)
}
