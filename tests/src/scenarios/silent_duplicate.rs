//! A host has an address of the cluster and says nothing of it, until somebody asks: the VIP,
//! which its owner asks for now and then, or a node's own address, which that node does.

use anyhow::Result;

use crate::cluster::Cluster;
use crate::outcome::{Outcome, Report};
use crate::topology::{NIC, VIP, VIP6, mac, sh};
use crate::traffic::ArpMonitor;

pub(super) fn run(cluster: &mut Cluster, report: &mut Report) -> Result<Outcome> {
    let mut outcome = Outcome::new("silent_duplicate");
    let owner = cluster.owner()?;
    let own = mac(cluster.host(owner))?;
    // Not so often that its own questions stir anybody up.
    let mut monitor = ArpMonitor::start(cluster, 1000)?;
    let etcd = |cluster: &Cluster, line: &str| sh(cluster.topology.etcd.as_ref(), line);
    let stranger = mac(cluster.topology.etcd.as_ref())?;
    for address in [format!("{VIP}/32"), format!("{VIP6}/128")] {
        let before = cluster.status(owner)?.conflicts;
        let announced = |seen: &crate::arp::ArpReport| {
            let announcements = seen.announcements.iter();
            announcements.filter(|mac| **mac == own).count()
        };
        let known = announced(&monitor.report()?);
        etcd(
            cluster,
            &format!("ip address add {address} dev {NIC} nodad"),
        )?;
        cluster.wait_for_status("the owner names the host", &[owner], |_, _, status| {
            status.conflicts > before && status.claimant.as_ref() == Some(&stranger)
        })?;
        if address.starts_with(&VIP.to_string()) {
            monitor.wait("the owner announces the VIP against it", |seen| {
                announced(seen) > known
            })?;
        }
        etcd(cluster, &format!("ip address del {address} dev {NIC}"))?;
        cluster.wait_for_status("the conflict is over", &[owner], |_, _, status| {
            status.claimant.is_none()
        })?;
        report.event(format!("{address}: named, answered and over"));
    }
    let told = cluster.vip(owner, &["events"])?;
    for expected in [
        format!("{stranger}, which is no node of the cluster, claims the VIP"),
        format!("{stranger} claims the VIP no more"),
    ] {
        outcome.promise(told.contains(&expected), || {
            format!("no {expected:?} among the events: {told}")
        });
    }

    let node = super::another_than(cluster, owner);
    let address = cluster.host(node).address();
    etcd(cluster, &format!("ip address add {address}/32 dev {NIC}"))?;
    cluster.wait_for_status("the node names the host", &[node], |_, _, status| {
        status.alarm("duplicate", &stranger).is_some()
    })?;
    etcd(cluster, &format!("ip address del {address}/32 dev {NIC}"))?;
    cluster.wait_for_status("its address is its own again", &[node], |_, _, status| {
        status.alarms.is_empty()
    })?;
    report.event("a node's own address: named and over");
    cluster.wait_until_settled()?;
    let after = cluster.owner()?;
    outcome.promise(after == owner, || "a claim moved the VIP".to_owned());
    Ok(outcome)
}
