//! The owner's machine is cut off for a while, and comes back as it was. Another node takes the
//! VIP meanwhile; clients of the owner's server are told that it is gone; and at no time do two
//! nodes answer.

use anyhow::Result;

use crate::clock::boot_now;
use crate::cluster::Cluster;
use crate::outcome::{Down, Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::scenarios::steps::{others_than, promise_one_answer};
use crate::traffic::{ArpMonitor, Traffic};
use crate::vm::machine::Machine;

pub(in crate::scenarios) const CABLE_PULLED: Scenario = Scenario {
    name: "cable_pulled",
    promise: "cable_pulled_moves_the_vip_and_cuts_no_watch_of_another_server",
    tests: &[Test::shared_machines(When::Always)],
    run: cable_pulled,
};

pub(in crate::scenarios) const HOST_FROZEN: Scenario = Scenario {
    name: "host_frozen",
    promise: "host_frozen_does_not_speak_for_the_vip_when_it_goes_on",
    tests: &[Test::shared_machines(When::Always)],
    run: host_frozen,
};

/// A way to cut a machine off.
struct Fault {
    name: &'static str,
    happens: fn(&mut Machine) -> Result<()>,
    ends: fn(&mut Machine) -> Result<()>,
    /// The machine's own agent sees it, and gives the VIP up.
    is_seen: bool,
}

/// The cable of its network card is pulled, and plugged in again.
fn cable_pulled(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let fault = Fault {
        name: "cable_pulled",
        happens: |machine| machine.plug(0, false),
        ends: |machine| machine.plug(0, true),
        is_seen: true,
    };
    run(cluster, timeline, &fault)
}

/// All of it stands still, kernel included, while time goes on: a firmware that takes the
/// processor, a hypervisor that has none to give. When it goes on, its kernel no longer speaks
/// for the VIP, before any of its processes has run.
fn host_frozen(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let fault = Fault {
        name: "host_frozen",
        happens: |machine| {
            machine.freeze();
            Ok(())
        },
        ends: |machine| {
            machine.thaw();
            Ok(())
        },
        is_seen: false,
    };
    run(cluster, timeline, &fault)
}

fn run(cluster: &mut Cluster, timeline: &mut Timeline, fault: &Fault) -> Result<Outcome> {
    let mut outcome = Outcome::new(fault.name);
    let owner = cluster.owner()?;
    let name = cluster.name(owner);
    let mut traffic = Traffic::start(cluster, timeline)?;
    let held = traffic.before.on(&name).count();
    let mut arp = ArpMonitor::start(cluster, 50)?;
    arp.wait("the owner answers", |seen| !seen.answerers.is_empty())?;

    (fault.happens)(cluster.vm(owner)?.machine())?;
    let at = boot_now();
    timeline.event(format!("{}: {name}, the owner", fault.name));
    let others = others_than(cluster, owner);
    let successor = cluster.owner_among(&others)?;
    timeline.event(format!("{} owns the VIP", cluster.name(successor)));
    let what = "the others know that it is dead";
    cluster.wait_for_status(what, &others, |own, _, status| {
        let entry = status.node(own.host(owner));
        entry.is_some_and(|entry| !entry.alive)
    })?;
    if fault.is_seen {
        cluster.wait_for_status("the node says what it lacks", &[owner], |_, _, status| {
            status.is_faulty()
        })?;
    }
    traffic.load.go_on(50)?;
    let down = Down { server: &name, at };
    traffic.finish(&mut outcome, Some(down))?;
    let reset = outcome.watches_reset_dead;
    outcome.promise(reset == held, || {
        format!("{reset} of the {held} watches on the server out of reach were reset")
    });

    (fault.ends)(cluster.vm(owner)?.machine())?;
    cluster.wait_until_settled()?;
    timeline.event(format!("{name} is back"));
    let traffic = Traffic::start(cluster, timeline)?;
    traffic.finish(&mut outcome, None)?;
    promise_one_answer(&mut outcome, &arp.report()?);
    Ok(outcome)
}
