//! The machine that owns the VIP loses its power, with 200 watches open over all servers.
//!
//! Watches on the other servers go on: their connections are in those servers' kernels, and
//! the new owner steers them there without having heard of them. Watches on the dead one are
//! reset by a living node, so that clients need not wait for minutes.

use anyhow::Result;

use crate::clock::boot_now;
use crate::cluster::plan::Planned;
use crate::cluster::{Cluster, Flavour, Pace, Plan};
use crate::kube::Layout;
use crate::outcome::{Down, Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::topology::vm::Machines;
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "owner_killed",
    promise: "owner_killed_cuts_no_watch_of_a_living_server",
    tests: &[
        Test::netns(Plan::default).on_kernels(When::Asked),
        Test::netns(five_nodes).cluster("five_nodes").alone(),
        Test::netns_if(|| Plan::kubernetes(Layout::Apart))
            .cluster("real_apiserver")
            .alone(),
        Test::shared_machines(When::Always),
        Test::machines(real_apiserver_on_machines, When::Asked).cluster("machines_real_apiserver"),
    ],
    run,
};

fn five_nodes() -> Plan {
    Plan {
        nodes: 5,
        ..Plan::default()
    }
}

fn real_apiserver_on_machines(machines: Machines) -> Planned {
    let machines = Machines {
        memory: 1536,
        ..machines
    };
    Ok(Plan {
        flavour: Flavour::kubernetes(Layout::Apart)?,
        ..Plan::on_machines(Pace::SLOW, machines)
    })
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(SCENARIO.name);
    let owner = cluster.owner()?;
    let name = cluster.name(owner);
    let mut traffic = Traffic::start(cluster, timeline)?;
    let held = traffic.before.on(&name).count();
    timeline.event(format!(
        "power cut of {name}, the owner; {held} watches are on its server"
    ));
    let at = cluster.power_off(owner)?;
    let successor = cluster.owner()?;
    timeline.event(format!("{} owns the VIP", cluster.name(successor)));
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
    timeline.event(format!(
        "{reset} of {held} watches on the dead server were reset, {} on living ones cut, {} of {} requests failed, longest gap {} ms",
        outcome.watches_cut_living, outcome.failed, outcome.requests, outcome.gap_ms
    ));
    Ok(outcome)
}
