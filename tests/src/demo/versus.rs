//! The demo's faults on a cluster with keepalived and HAProxy.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use super::row::Row;
use crate::agent::Programs;
use crate::clock::until;
use crate::cluster::{Cluster, Flavour, PATIENCE, Plan};
use crate::outcome::{Down, Outcome, Timeline};
use crate::peers::haproxy;
use crate::peers::rival::{Rival, Timers};
use crate::traffic::Traffic;

/// Requests in a row that are answered once a fault is over for clients.
const CALM: usize = 300;

/// The least requests after a fault: those that wait have failed by then.
const LEAST: usize = 800;

/// What keepalived and HAProxy did.
#[derive(Debug, Serialize)]
pub(super) struct Versus {
    /// Of both.
    pub(super) versions: String,
    pub(super) rows: Vec<Row>,
    /// Why not all faults were carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// A scenario of the demo, and what happens to the rival instead of it.
pub(super) struct Fault {
    /// The scenario's name.
    pub(super) scenario: &'static str,
    /// How the fault differs.
    pub(super) note: Option<&'static str>,
    /// `None` if there is nothing to compare.
    run: Option<fn(&mut Rivals, &mut Timeline) -> Result<Outcome>>,
}

/// Those of the demo, in its order.
pub(super) const FAULTS: &[Fault] = &[
    Fault {
        scenario: "membership",
        note: Some("not compared: HAProxy's list of servers is changed by hand, on all nodes"),
        run: None,
    },
    Fault {
        scenario: "apiserver_killed",
        note: None,
        run: Some(server_killed),
    },
    Fault {
        scenario: "readyz_says_no",
        note: None,
        run: Some(server_drained),
    },
    Fault {
        scenario: "agent_killed",
        note: Some(
            "for k+h, kill -9 of HAProxy on the owner; started again after as many requests as \
             the agent",
        ),
        run: Some(proxy_killed),
    },
    Fault {
        scenario: "owner_killed",
        note: None,
        run: Some(owner_killed),
    },
];

/// A cluster with keepalived and HAProxy.
struct Rivals {
    rival: Rival,
    cluster: Cluster,
}

/// Carries out all faults. One that cannot be is told of: the demo's verdict is about the product.
pub(super) fn run(programs: &Programs, flavour: Flavour, timeline: &mut Timeline) -> Versus {
    let mut rows = Vec::new();
    let versions = Rival::versions();
    let error = run_faults(programs, flavour, timeline, &mut rows).err();
    let error = error.map(|error| format!("{error:#}"));
    if let Some(error) = &error {
        timeline.event(error);
    }
    Versus {
        versions: versions.unwrap_or_else(|_| "keepalived and HAProxy".to_owned()),
        rows,
        error,
    }
}

fn run_faults(
    programs: &Programs,
    flavour: Flavour,
    timeline: &mut Timeline,
    rows: &mut Vec<Row>,
) -> Result<()> {
    println!();
    timeline.event("== the same with keepalived and HAProxy ==");
    let plan = Plan {
        flavour,
        ..Plan::bare()
    };
    let cluster = Cluster::start(programs, plan, timeline)?;
    let rival = Rival::start(&cluster, Timers::GUIDE)?;
    let mut rivals = Rivals { rival, cluster };
    let owner = Rival::owner(&rivals.cluster)?;
    timeline.event(format!(
        "{} run, {} owns the VIP",
        Rival::versions()?,
        rivals.cluster.name(owner)
    ));
    for fault in FAULTS {
        let Some(run) = fault.run else { continue };
        println!();
        timeline.event(format!("== {}, keepalived + HAProxy ==", fault.scenario));
        let begin = Instant::now();
        let outcome = run(&mut rivals, timeline);
        let outcome = outcome.or_else(|error| {
            let logs = rivals.cluster.save_logs("versus")?;
            let what = format!("{}: logs are in {}", fault.scenario, logs.display());
            Err(error.context(what))
        })?;
        timeline.event(format!(
            "{} of {} requests failed, {} watches to living servers cut, longest gap {} ms",
            outcome.failed, outcome.requests, outcome.watches_cut_living, outcome.gap_ms
        ));
        rows.push(Row {
            seconds: begin.elapsed().as_secs_f64(),
            outcome: Outcome {
                name: fault.scenario.to_owned(),
                // It has promised nothing.
                violations: Vec::new(),
                ..outcome
            },
        });
    }
    Ok(())
}

impl Rivals {
    fn traffic(&self, timeline: &mut Timeline) -> Result<Traffic> {
        Traffic::start_to(&self.cluster, &Rival::target(), timeline)
    }

    /// A node that is not the owner.
    fn another(&self) -> Result<usize> {
        let owner = Rival::owner(&self.cluster)?;
        let mut nodes = self.cluster.nodes().into_iter();
        nodes
            .find(|node| *node != owner)
            .context("the owner is the only node")
    }

    /// Waits until the owner's HAProxy has said so of a node's API server once more than before.
    fn wait_for_log(&self, owner: usize, server: &str, state: &str, before: usize) -> Result<()> {
        let what = format!("HAProxy finds that {server} is {state}");
        until(&what, PATIENCE, || {
            let times = self.logged(owner, server, state)?;
            Ok((times > before).then_some(()))
        })
    }

    /// How often the owner's HAProxy has said that a server is in a state.
    fn logged(&self, owner: usize, server: &str, state: &str) -> Result<usize> {
        let log = haproxy::log(&self.cluster, owner);
        let text = std::fs::read_to_string(&log);
        let text = text.with_context(|| format!("read {}", log.display()))?;
        Ok(text.matches(&format!("/{server} is {state}")).count())
    }
}

/// Waits until the fault is over for clients: the last requests have all been answered.
fn wait_until_calm(traffic: &mut Traffic) -> Result<()> {
    traffic.load.go_on(LEAST)?;
    until("requests are answered again", PATIENCE, || {
        traffic.load.go_on(50)?;
        let requests = traffic.load.requests()?;
        let last = &requests[requests.len().saturating_sub(CALM)..];
        Ok(last.iter().all(|one| one.succeeded()).then_some(()))
    })
}

fn server_killed(rivals: &mut Rivals, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let (owner, victim) = (Rival::owner(&rivals.cluster)?, rivals.another()?);
    let name = rivals.cluster.name(victim);
    let mut traffic = rivals.traffic(timeline)?;
    let up = rivals.logged(owner, &name, "UP")?;
    let at = rivals.cluster.kill_server(victim);
    timeline.event(format!("kill -9 of the API server on {name}"));
    wait_until_calm(&mut traffic)?;
    let down = Down { server: &name, at };
    traffic.finish(&mut outcome, Some(down))?;
    rivals.cluster.start_server(victim)?;
    rivals.cluster.wait_for_server(victim)?;
    rivals.wait_for_log(owner, &name, "UP", up)?;
    Ok(outcome)
}

fn server_drained(rivals: &mut Rivals, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let (owner, drained) = (Rival::owner(&rivals.cluster)?, rivals.another()?);
    let name = rivals.cluster.name(drained);
    let mut traffic = rivals.traffic(timeline)?;
    let up = rivals.logged(owner, &name, "UP")?;
    let down = rivals.logged(owner, &name, "DOWN")?;
    rivals.cluster.drain_server(drained);
    timeline.event(format!("the API server on {name} drains"));
    rivals.wait_for_log(owner, &name, "DOWN", down)?;
    timeline.event("HAProxy knows");
    traffic.load.go_on(400)?;
    traffic.finish(&mut outcome, None)?;
    rivals.cluster.restore_server(drained)?;
    rivals.wait_for_log(owner, &name, "UP", up)?;
    Ok(outcome)
}

fn proxy_killed(rivals: &mut Rivals, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let owner = Rival::owner(&rivals.cluster)?;
    let name = rivals.cluster.name(owner);
    let mut traffic = rivals.traffic(timeline)?;
    rivals.rival.kill_haproxy(owner);
    timeline.event(format!("kill -9 of HAProxy on {name}, the owner"));
    traffic.load.go_on(300)?;
    rivals.rival.restart_haproxy(&rivals.cluster, owner)?;
    timeline.event(format!("HAProxy on {name} is started again"));
    wait_until_calm(&mut traffic)?;
    traffic.finish(&mut outcome, None)?;
    Ok(outcome)
}

fn owner_killed(rivals: &mut Rivals, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let owner = Rival::owner(&rivals.cluster)?;
    let name = rivals.cluster.name(owner);
    let mut traffic = rivals.traffic(timeline)?;
    timeline.event(format!("power cut of {name}, the owner"));
    let at = rivals.cluster.power_off(owner)?;
    rivals.rival.lose(owner);
    let successor = Rival::owner(&rivals.cluster)?;
    timeline.event(format!("{} owns the VIP", rivals.cluster.name(successor)));
    wait_until_calm(&mut traffic)?;
    timeline.event("requests are answered again; clients with watches find out by TCP keepalive");
    let down = Down { server: &name, at };
    traffic.finish(&mut outcome, Some(down))?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios::DEMO;

    #[test]
    fn each_scenario_of_the_demo_is_compared_or_says_why_not() {
        let scenarios = DEMO.iter().map(|scenario| scenario.name);
        assert!(scenarios.eq(FAULTS.iter().map(|fault| fault.scenario)));
        assert!(
            FAULTS
                .iter()
                .all(|fault| fault.run.is_some() || fault.note.is_some())
        );
    }
}
