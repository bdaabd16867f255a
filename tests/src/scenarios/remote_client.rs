//! A client on another segment, behind a router: frames for the VIP come from the router's
//! Ethernet address, and answers go back through it, straight from each server.

use anyhow::Result;

use crate::cluster::Cluster;
use crate::outcome::{Outcome, Report};
use crate::traffic::{Load, Watches, vip};

pub(super) fn run(cluster: &mut Cluster, report: &mut Report) -> Result<Outcome> {
    let mut outcome = Outcome::new("remote_client");
    let remote = cluster.topology.remote.as_ref();
    let (mut watches, before) = Watches::open(cluster, remote, &vip(), 30)?;
    let mut load = Load::start(cluster, remote, &vip())?;
    load.go_on(400)?;
    let after = watches.wait_for_verdict(crate::clock::boot_now(), None)?;
    let requests = load.stop()?;
    let summary = outcome.take_requests(&requests, None);
    outcome.take_watches(&before, &after, None);
    outcome.promise_nothing_lost(&summary);
    for node in cluster.nodes() {
        let name = cluster.name(node);
        let share = summary.servers.get(&name).copied().unwrap_or(0);
        outcome.promise(share > 0, || {
            format!("no request reached {name}: {:?}", summary.servers)
        });
    }
    report.event(format!("answers by server: {:?}", summary.servers));
    Ok(outcome)
}
