//! The cable of the owner's network card is pulled, and plugged in again. The owner sees it and
//! gives the VIP up; another one takes it; later both live with each other as before.

use anyhow::Result;

use crate::clock::boot_now;
use crate::cluster::Cluster;
use crate::outcome::{Down, Outcome, Report};
use crate::scenarios::{others_than, promise_one_voice};
use crate::traffic::{ArpMonitor, Traffic};

pub(in crate::scenarios) fn run(cluster: &mut Cluster, report: &mut Report) -> Result<Outcome> {
    let mut outcome = Outcome::new("cable_pulled");
    let owner = cluster.owner()?;
    let name = cluster.name(owner);
    let mut traffic = Traffic::start(cluster, report)?;
    let held = traffic.before.on(&name).count();
    let mut arp = ArpMonitor::start(cluster, 50)?;

    cluster.vm(owner)?.machine().plug(0, false)?;
    let at = boot_now();
    report.event(format!("the cable of {name}, the owner, is pulled"));
    let others = others_than(cluster, owner);
    let heir = cluster.owner_among(&others)?;
    report.event(format!("{} owns the VIP", cluster.name(heir)));
    cluster.wait_for_status("the node says what it lacks", &[owner], |_, _, status| {
        !status.faults.is_empty() && status.state == "initialize"
    })?;
    traffic.load.go_on(50)?;
    let down = Down { server: &name, at };
    traffic.finish(&mut outcome, Some(down))?;
    let reset = outcome.watches_reset_dead;
    outcome.promise(reset == held, || {
        format!("{reset} of the {held} watches on the unreachable server were reset")
    });

    cluster.vm(owner)?.machine().plug(0, true)?;
    cluster.wait_until_settled()?;
    report.event(format!(
        "the cable of {name} is plugged in, all is as before"
    ));
    let traffic = Traffic::start(cluster, report)?;
    traffic.finish(&mut outcome, None)?;
    promise_one_voice(&mut outcome, &arp.report()?);
    Ok(outcome)
}
