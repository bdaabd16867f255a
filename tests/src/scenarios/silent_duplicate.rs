//! A host has an address of the cluster and says nothing of it, until somebody asks: the VIP,
//! which its owner asks for now and then, or a node's own address, which that node does.

use anyhow::Result;

use vip_node::alarm::Kind;

use crate::arp::ArpReport;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::topology::{NIC, VIP, VIP6, mac, sh};
use crate::traffic::ArpMonitor;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "silent_duplicate",
    promise: "silent_duplicate_of_an_address_is_named_answered_and_forgotten_when_it_is_gone",
    tests: &[Test::netns(Plan::dual_stack)],
    run,
};

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("silent_duplicate");
    let owner = cluster.owner()?;
    let own = mac(cluster.host(owner))?;
    let node = super::steps::another_than(cluster, owner);
    let stranger = mac(cluster.topology.etcd.as_ref())?;
    // Not so often that its own questions stir anybody up.
    let mut monitor = ArpMonitor::start(cluster, 1000)?;
    let announced = |seen: &ArpReport| {
        let announcements = seen.announcements.iter();
        announcements.filter(|mac| **mac == own).count()
    };
    let known = announced(&monitor.wait("the owner answers", |seen| !seen.answerers.is_empty())?);
    let before = cluster.status(owner)?;
    let addresses = [
        format!("{VIP}/32"),
        format!("{VIP6}/128"),
        format!("{}/32", cluster.host(node).address()),
    ];
    let etcd = |cluster: &Cluster, verb: &str, end: &str| {
        let lines = addresses
            .iter()
            .map(|address| format!("ip address {verb} {address} dev {NIC}{end}\n"));
        sh(cluster.topology.etcd.as_ref(), &lines.collect::<String>())
    };
    etcd(cluster, "add", " nodad")?;
    cluster.wait_for_status("the owner names the host", &[owner], |_, _, status| {
        status.conflicts > before.conflicts
            && status.claimant.as_ref() == Some(&stranger)
            && ["arp_conflict", "ndp_conflict"]
                .iter()
                .all(|counter| status.count(counter) > before.count(counter))
    })?;
    monitor.wait("the owner announces the VIP against it", |seen| {
        announced(seen) > known
    })?;
    cluster.wait_for_status("the node names the host", &[node], |_, _, status| {
        status.alarm(Kind::Duplicate, &stranger).is_some()
    })?;
    timeline.event("both VIPs and a node's own address are on another host: it is named");
    etcd(cluster, "del", "")?;
    cluster.wait_for_status("nobody else has them", &[owner, node], |_, _, status| {
        status.claimant.is_none() && status.alarms.is_empty()
    })?;
    timeline.event("they are not any more, and nothing is left of it");
    let told = cluster.vip(owner, &["events"])?;
    for expected in [
        "which is no node of the cluster, claims the VIP: announced against it".to_owned(),
        format!("{stranger} no longer claims the VIP"),
    ] {
        outcome.promise(told.contains(&expected), || {
            format!("no {expected:?} among the events: {told}")
        });
    }
    cluster.wait_until_settled()?;
    let after = cluster.owner()?;
    outcome.promise(after == owner, || "a claim moved the VIP".to_owned());
    Ok(outcome)
}
