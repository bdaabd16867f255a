//! Newcomers at a bad time, or of a bad kind: while the owner dies, with a server that is never ready,
//! with another address than before, on another machine, and one more than there is room for.

use std::net::IpAddr;

use anyhow::Result;

use super::super::steps::{another_than, others_than};
use super::{has_served, promise_members, three, wait_until_serving};
use crate::agent::cleanup;
use crate::clock::{boot_now, until};
use crate::cluster::{Cluster, PATIENCE, Pace, Plan};
use crate::outcome::{Down, Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::topology::{NIC, PORT, mac, moved, sh};
use crate::traffic::Traffic;

pub(in crate::scenarios) const FAILOVER: Scenario = Scenario {
    name: "joins_in_a_failover",
    promise: "newcomer_joins_while_the_owner_dies",
    tests: &[Test::netns(three)],
    run: failover,
};

pub(in crate::scenarios) const UNREADY: Scenario = Scenario {
    name: "never_ready",
    promise: "member_that_is_never_ready_keeps_no_newcomer_out_and_gets_no_connection",
    tests: &[Test::netns(three)],
    run: unready,
};

pub(in crate::scenarios) const MOVED: Scenario = Scenario {
    name: "new_address",
    promise: "node_with_a_new_address_is_a_new_member",
    tests: &[Test::netns(three)],
    run: new_address,
};

pub(in crate::scenarios) const REBOOTED: Scenario = Scenario {
    name: "other_machine",
    promise: "node_that_comes_back_on_another_machine_cuts_nothing_of_the_others",
    tests: &[Test::netns(three)],
    run: rebooted,
};

pub(in crate::scenarios) const FULL: Scenario = Scenario {
    name: "members_full",
    promise: "seventeenth_is_refused_and_sixteen_go_on",
    tests: &[Test::netns(many).alone()],
    run: full,
};

/// Each of 16 agents has a session with each other one, and asks each server: on one machine that is
/// too much at the default intervals.
fn many() -> Plan {
    let pace = Pace {
        watches: 200,
        every_ms: 50,
        ..Pace::CALM
    };
    Plan {
        interval: pace.interval.to_owned(),
        more: pace.bfd.to_owned(),
        pace,
        ..Plan::found_by(15, 17, "")
    }
}

fn failover(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(FAILOVER.name);
    let owner = cluster.owner()?;
    let (name, newcomer) = (cluster.name(owner), cluster.name(3));
    let mut traffic = Traffic::start(cluster, timeline)?;
    cluster.arrive(3)?;
    cluster.wait_for_status("somebody has admitted it", &[owner], |own, _, status| {
        status.node(own.host(3)).is_some()
    })?;
    let at = cluster.power_off(owner)?;
    timeline.event(format!("{newcomer} comes, and {name} loses its power"));
    cluster.wait_until_settled()?;
    let joined = boot_now();
    traffic.load.go_on(200)?;
    let down = Down { server: &name, at };
    let requests = traffic.finish(&mut outcome, Some(down))?;
    outcome.promise(has_served(&requests, &newcomer, joined), || {
        format!("{newcomer} has served no request")
    });
    // The dead one is a member until it is forgotten.
    promise_members(&mut outcome, cluster, 4)?;
    Ok(outcome)
}

fn unready(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(UNREADY.name);
    let mut traffic = Traffic::start(cluster, timeline)?;
    let founders = cluster.nodes();
    cluster.start_server(3)?;
    cluster.wait_for_server(3)?;
    cluster.drain_server(3);
    cluster.join(3)?;
    let (name, next) = (cluster.name(3), cluster.name(4));
    let all = cluster.nodes();
    cluster.wait_for_status("it is a member", &all, |own, _, status| {
        let entry = status.node(own.host(3));
        entry.is_some_and(|entry| entry.alive && entry.confirmed && !entry.ready)
    })?;
    traffic.load.go_on(100)?;
    timeline.event(format!("{name} is a member, and its server is not ready"));
    cluster.arrive(4)?;
    let all = cluster.nodes();
    wait_until_serving(cluster, &all, &[&founders[..], &[4]].concat())?;
    let joined = boot_now();
    traffic.load.go_on(200)?;
    timeline.event(format!("{next} has joined"));
    let requests = traffic.finish(&mut outcome, None)?;
    outcome.promise(has_served(&requests, &next, joined), || {
        format!("{next} has served no request")
    });
    outcome.promise(!has_served(&requests, &name, 0), || {
        format!("{name} has got a connection")
    });
    promise_members(&mut outcome, cluster, 5)?;
    Ok(outcome)
}

/// A node reboots, and gets another address, by DHCP perhaps.
fn new_address(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(MOVED.name);
    let owner = cluster.owner()?;
    let node = another_than(cluster, owner);
    let others = others_than(cluster, node);
    let name = cluster.name(node);
    let old = cluster.host(node).address();
    let new = moved(old);
    let mut traffic = Traffic::start(cluster, timeline)?;
    cluster.stop_agent(node)?;
    let at = cluster.kill_server(node);
    let change = format!(
        "ip address del {old}/24 dev {NIC}; ip address add {new}/24 dev {NIC}; \
         ip route replace default via 10.0.0.1"
    );
    sh(cluster.host(node), &change)?;
    cluster.start_server(node)?;
    until("its server is ready", PATIENCE, || {
        let target = format!("{new}:{PORT}");
        Ok(cluster.get(cluster.host(node), "/readyz", &target).ok())
    })?;
    cluster.start_agent(node)?;
    let all = cluster.nodes();
    cluster.wait_for_status("it is a new member", &all, |_, _, status| {
        let mut nodes = status.nodes.iter();
        let entry = nodes.find(|entry| entry.address == IpAddr::from(new));
        entry.is_some_and(|entry| entry.confirmed && entry.usable && entry.mac.is_some())
    })?;
    let joined = boot_now();
    traffic.load.go_on(200)?;
    timeline.event(format!("{name} has come back as {new}"));
    cluster.wait_for_status("the old one is gone", &others, |own, _, status| {
        status.node(own.host(node)).is_some_and(|entry| entry.gone)
    })?;
    let said = cluster.vip(owner, &["forget", &old.to_string()])?;
    outcome.promise(said.contains("is no member any more"), || said.clone());
    cluster.wait_for_status("all have forgotten it", &all, |own, _, status| {
        status.node(own.host(node)).is_none()
    })?;
    traffic.load.go_on(100)?;
    let down = Down { server: &name, at };
    let requests = traffic.finish(&mut outcome, Some(down))?;
    outcome.promise(has_served(&requests, &name, joined), || {
        format!("{name} has served no request at its new address")
    });
    promise_members(&mut outcome, cluster, 3)?;
    Ok(outcome)
}

/// A node stops, and starts on other hardware: with its address and another Ethernet address, without
/// what the agent had put into the kernel, and its server without connections. First a node that is not
/// the owner, then the owner.
fn rebooted(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(REBOOTED.name);
    for is_owner in [false, true] {
        let owner = cluster.owner()?;
        let node = if is_owner {
            owner
        } else {
            another_than(cluster, owner)
        };
        let name = cluster.name(node);
        let mut traffic = Traffic::start(cluster, timeline)?;
        // The cable first, so that nothing says good-bye.
        cluster.host(node).port_forwards(false)?;
        cluster.kill_agent(node);
        let at = cluster.kill_server(node);
        cleanup(cluster.programs(), cluster.host(node))?;
        let now = mac(cluster.host(node))?.replace("02:00", "02:01");
        let change = format!(
            "ip link set {NIC} down; ip link set {NIC} address {now}; ip link set {NIC} up; \
             ip route replace default via 10.0.0.1"
        );
        sh(cluster.host(node), &change)?;
        traffic.load.go_on(100)?;
        cluster.host(node).port_forwards(true)?;
        cluster.start_server(node)?;
        cluster.wait_for_server(node)?;
        cluster.start_agent(node)?;
        cluster.wait_until_settled()?;
        let all = cluster.nodes();
        cluster.wait_for_status("all know the new address", &all, |own, _, status| {
            let entry = status.node(own.host(node));
            entry.is_some_and(|entry| entry.mac.as_ref() == Some(&now))
        })?;
        let back = boot_now();
        traffic.load.go_on(200)?;
        let down = Down { server: &name, at };
        let requests = traffic.finish(&mut outcome, Some(down))?;
        outcome.promise(has_served(&requests, &name, back), || {
            format!("{name} has served no request on its other machine")
        });
        promise_members(&mut outcome, cluster, 3)?;
        timeline.event(format!(
            "{name} has come back with another Ethernet address"
        ));
    }
    Ok(outcome)
}

fn full(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(FULL.name);
    let mut traffic = Traffic::start(cluster, timeline)?;
    cluster.arrive(15)?;
    cluster.wait_until_settled()?;
    let joined = boot_now();
    traffic.load.go_on(200)?;
    timeline.event("16 members");
    let owner = cluster.owner()?;
    let sixteen = cluster.nodes();
    let down_before = heard_down(cluster, &sixteen)?;
    cluster.arrive(16)?;
    cluster.wait_for_status("all refuse the 17th", &sixteen, |_, _, status| {
        status.event_count("members_full") > 0
    })?;
    traffic.load.go_on(200)?;
    timeline.event("the 17th is refused");
    let down_after = heard_down(cluster, &sixteen)?;
    outcome.promise(down_before == down_after, || {
        format!("{down_after} sessions went down, {down_before} before the 17th came")
    });
    let same = cluster.owner_among(&sixteen)?;
    outcome.promise(same == owner, || "the VIP has moved".to_owned());
    let (seventeenth, last) = (cluster.name(16), cluster.name(15));
    let status = cluster.status(16)?;
    outcome.promise(!status.is_active(), || {
        format!("{seventeenth} owns the VIP, and is no member")
    });
    for node in &sixteen {
        let status = cluster.status(*node)?;
        let knows = status.node(cluster.host(16)).is_some();
        let count = status.nodes.len();
        outcome.promise(!knows && count == 16, || {
            format!("{} knows {count} members", cluster.name(*node))
        });
    }
    let requests = traffic.finish(&mut outcome, None)?;
    outcome.promise(has_served(&requests, &last, joined), || {
        format!("{last} has served no request")
    });
    outcome.promise(!has_served(&requests, &seventeenth, 0), || {
        format!("{seventeenth} has served a request")
    });
    Ok(outcome)
}

/// How often these agents have lost a BFD session.
fn heard_down(cluster: &Cluster, nodes: &[usize]) -> Result<u64> {
    let downs = nodes
        .iter()
        .map(|node| Ok(cluster.status(*node)?.event_count("bfd_down")));
    downs.sum()
}
