//! A node's NIC gets another Ethernet address, as a bond's does that fails over: first the
//! owner's, which clients and the router know by the VIP, then that of another node, which the
//! others send connections to. Nobody waits for a table of somebody else's to run out.

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::topology::{NIC, mac, sh};
use crate::traffic::{Load, Traffic, vip, vip6};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "mac_changed",
    promise: "mac_changed_is_announced_at_once",
    tests: &[Test::netns(Plan::dual_stack)],
    run,
};

/// Longest time without an answer, in milliseconds: hosts send again what was lost after a
/// second at most. A neighbour table runs out after some nine.
const LONGEST: u64 = 3000;

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("mac_changed");
    let owner = cluster.owner()?;
    let other = super::steps::another_than(cluster, owner);
    for node in [owner, other] {
        let was = mac(cluster.host(node))?;
        let mut traffic = Traffic::start(cluster, timeline)?;
        let remote = cluster.topology.remote.as_ref();
        let mut by_ipv6 = Load::start(cluster, cluster.topology.client.as_ref(), &vip6())?;
        let mut from_afar = Load::start(cluster, remote, &vip())?;
        by_ipv6.go_on(50)?;
        from_afar.go_on(50)?;
        let now = was.replace("02:00", "02:01");
        sh(
            cluster.host(node),
            &format!("ip link set {NIC} address {now}"),
        )?;
        for load in [&mut traffic.load, &mut by_ipv6, &mut from_afar] {
            load.go_on(300)?;
        }
        let all = cluster.nodes();
        cluster.wait_for_status("all know the new address", &all, |own, _, status| {
            let entry = status.node(own.host(node));
            entry.is_some_and(|entry| entry.mac.as_ref() == Some(&now))
        })?;
        let mut changed = Outcome::new("one change");
        changed.take_requests(&by_ipv6.stop()?, None);
        changed.take_requests(&from_afar.stop()?, None);
        traffic.finish(&mut changed, None)?;
        timeline.event(format!(
            "{}: {} of {} requests failed, {} ms without an answer",
            cluster.name(node),
            changed.failed,
            changed.requests,
            changed.gap_ms
        ));
        changed.promise(changed.gap_ms < LONGEST, || {
            "nobody answered for too long".to_owned()
        });
        let story = format!(
            "{} with another address, {} of {} requests failed, {} ms without an answer",
            cluster.name(node),
            changed.failed,
            changed.requests,
            changed.gap_ms
        );
        let broken = changed.violations.iter();
        outcome
            .violations
            .extend(broken.map(|broken| format!("{story}: {broken}")));
        outcome.requests += changed.requests;
    }
    for node in cluster.nodes() {
        let status = cluster.status(node)?;
        outcome.promise(status.conflicts == 0 && status.alarms.is_empty(), || {
            format!("{} takes it for a stranger: {status:?}", cluster.name(node))
        });
    }
    let still = cluster.owner()?;
    outcome.promise(still == owner, || "the VIP moved".to_owned());
    Ok(outcome)
}
