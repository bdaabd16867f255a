//! The machine that owns the VIP loses its power, with 200 watches open over all servers.
//!
//! Watches on the other servers go on: their connections are in those servers' kernels, and
//! the new owner steers them there without having heard of them. Watches on the dead one are
//! reset by a living node, so that clients need not wait for minutes.

use anyhow::Result;

use crate::clock::boot_now;
use crate::cluster::Cluster;
use crate::outcome::{Down, Outcome, Report};
use crate::traffic::Traffic;

pub(super) fn run(cluster: &mut Cluster, report: &mut Report) -> Result<Outcome> {
    let mut outcome = Outcome::new(super::OWNER_KILLED.name);
    let owner = cluster.owner()?;
    let name = cluster.name(owner);
    let mut traffic = Traffic::start(cluster, report)?;
    let held = traffic.before.on(&name).count();
    report.event(format!(
        "power cut of {name}, the owner; {held} watches are on its server"
    ));
    let at = cluster.power_off(owner)?;
    let heir = cluster.owner()?;
    report.event(format!("{} owns the VIP", cluster.name(heir)));
    cluster.wait_until_settled()?;
    let settled = boot_now();
    traffic.load.go_on(400)?;

    let down = Down { server: &name, at };
    let requests = traffic.finish(&mut outcome, Some(down))?;
    let reset = outcome.watches_reset_dead;
    outcome.promise(reset == held, || {
        format!("{reset} of the {held} watches on the dead server were reset")
    });
    let late = requests
        .iter()
        .filter(|request| request.start > settled && !request.succeeded())
        .count();
    outcome.promise(late == 0, || {
        format!("{late} requests failed that started after the cluster had settled")
    });
    report.event(format!(
        "{reset} of {held} watches on the dead server were reset, {} on living ones cut, {} of {} requests failed, longest gap {} ms",
        outcome.watches_cut_living, outcome.failed, outcome.requests, outcome.gap_ms
    ));
    Ok(outcome)
}
