//! The owner's whole machine stands still for a while, kernel and all, while time goes on: a
//! firmware that takes the processor, a hypervisor that has none to give. When it goes on, its
//! kernel no longer speaks for the VIP, before any of its processes has run.

use anyhow::Result;

use crate::clock::boot_now;
use crate::cluster::Cluster;
use crate::outcome::{Down, Outcome, Report};
use crate::scenarios::{others_than, promise_one_voice};
use crate::traffic::{ArpMonitor, Traffic};

pub(in crate::scenarios) fn run(cluster: &mut Cluster, report: &mut Report) -> Result<Outcome> {
    let mut outcome = Outcome::new("host_frozen");
    let owner = cluster.owner()?;
    let name = cluster.name(owner);
    let mut traffic = Traffic::start(cluster, report)?;
    let held = traffic.before.on(&name).count();
    let mut arp = ArpMonitor::start(cluster, 50)?;
    arp.wait("the owner answers", |seen| !seen.speakers.is_empty())?;

    cluster.vm(owner)?.machine().freeze();
    let at = boot_now();
    report.event(format!("{name}, the owner, stands still"));
    let others = others_than(cluster, owner);
    let heir = cluster.owner_among(&others)?;
    report.event(format!("{} owns the VIP", cluster.name(heir)));
    cluster.wait_for_status(
        "the others know that it is dead",
        &others,
        |own, _, status| status.node(own.host(owner)).is_some_and(|node| !node.alive),
    )?;
    traffic.load.go_on(50)?;
    let down = Down { server: &name, at };
    traffic.finish(&mut outcome, Some(down))?;
    let reset = outcome.watches_reset_dead;
    outcome.promise(reset == held, || {
        format!("{reset} of the {held} watches on the frozen server were reset")
    });

    cluster.vm(owner)?.machine().thaw();
    report.event(format!("{name} goes on"));
    cluster.wait_until_settled()?;
    let traffic = Traffic::start(cluster, report)?;
    traffic.finish(&mut outcome, None)?;
    promise_one_voice(&mut outcome, &arp.report()?);
    Ok(outcome)
}
