//! The machine of a node is cut off, and comes back as it was. After a while, another node has taken the
//! VIP, clients of the server out of reach were told that it is gone, and at no time do two nodes
//! answer. After a moment, no watch was cut.

use std::time::Duration;

use anyhow::Result;

use crate::clock::boot_now;
use crate::cluster::Cluster;
use crate::outcome::{Down, Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::scenarios::steps::{another_than, others_than, promise_one_answer};
use crate::traffic::{ArpMonitor, Traffic, Watches, vip};
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

pub(in crate::scenarios) const FOR_A_MOMENT: Scenario = Scenario {
    name: "cut_off_for_a_moment",
    promise: "cable_pulled_or_host_frozen_for_a_second_cuts_no_watch",
    tests: &[Test::shared_machines(When::Always)],
    run: for_a_moment,
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
const CABLE: Fault = Fault {
    name: "cable_pulled",
    happens: |machine| machine.plug(0, false),
    ends: |machine| machine.plug(0, true),
    is_seen: true,
};

/// All of it stands still, kernel included, while time goes on: a firmware that takes the
/// processor, a hypervisor that has none to give. When it goes on, its kernel no longer speaks
/// for the VIP, before any of its processes has run.
const FREEZE: Fault = Fault {
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

fn cable_pulled(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    run(cluster, timeline, &CABLE)
}

fn host_frozen(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    run(cluster, timeline, &FREEZE)
}

/// A machine's clock (HPET, 32 bits at 100 MHz) takes a longer standstill for none at all.
const CLOCK: Duration = Duration::from_secs(20);

/// When agents give a probe up that gets no answer at all.
const PROBE_GIVEN_UP: Duration = Duration::from_secs(10);

/// Half of the agents' default `reset_after`.
const MOMENT: Duration = Duration::from_secs(1);

fn for_a_moment(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(FOR_A_MOMENT.name);
    let client = cluster.topology.client.as_ref();
    let (mut watches, before) = Watches::open(cluster, client, &vip(), cluster.pace().watches)?;
    for fault in [CABLE, FREEZE] {
        let owner = cluster.owner()?;
        for node in [another_than(cluster, owner), owner] {
            (fault.happens)(cluster.vm(node)?.machine())?;
            std::thread::sleep(MOMENT);
            (fault.ends)(cluster.vm(node)?.machine())?;
            cluster.wait_until_settled()?;
            timeline.event(format!(
                "{}, {MOMENT:?}: {}",
                fault.name,
                cluster.name(node)
            ));
        }
    }
    let after = watches.wait_for_verdict(boot_now(), None)?;
    outcome.take_watches(&before, &after, None);
    let (cut, all) = (outcome.watches_cut_living, outcome.watches);
    outcome.promise(cut == 0, || format!("{cut} of {all} watches were cut"));
    Ok(outcome)
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
    traffic.watches.wait("its watches have ended", |snapshot| {
        let mut its = snapshot.on(&name);
        its.all(|watch| watch.ended.is_some())
    })?;
    let lasted = Duration::from_nanos(boot_now() - at);
    (fault.ends)(cluster.vm(owner)?.machine())?;
    timeline.event(format!("it ends after {lasted:?}"));
    outcome.promise(fault.is_seen || lasted < CLOCK, || {
        format!("the host is too busy: its machine stood still for {lasted:?}, which its clock cannot tell")
    });
    let down = Down { server: &name, at };
    traffic.finish(&mut outcome, Some(down))?;
    let reset = outcome.watches_reset_dead;
    outcome.promise(reset == held, || {
        format!("{reset} of the {held} watches on the server out of reach were reset")
    });

    cluster.wait_until_settled()?;
    // A probe that began while the node was out of reach ends up to that much later, and its server
    // counts as not ready until the next one.
    std::thread::sleep(PROBE_GIVEN_UP);
    cluster.wait_until_settled()?;
    timeline.event(format!("{name} is back"));
    let traffic = Traffic::start(cluster, timeline)?;
    traffic.finish(&mut outcome, None)?;
    promise_one_answer(&mut outcome, &arp.report()?);
    Ok(outcome)
}
