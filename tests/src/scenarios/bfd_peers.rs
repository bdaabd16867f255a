//! BIRD and FRR as BFD peers of our agent: sessions come up, follow new timers, and go down on
//! both sides when one sends nothing more.

use anyhow::{Context, Result};

use vip_node::bfd::State;

use crate::agent::session_is;
use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::peers::{Bird, Frr, Seat};
use crate::scenario::{Scenario, Test};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "bfd_peers",
    promise: "bird_and_frr_keep_bfd_sessions_with_ours",
    tests: &[Test::netns(Plan::bare)],
    run,
};

const OURS: usize = 0;
const BIRD: usize = 1;
const FRR: usize = 2;

/// Waits until a session of our agent is in a state, with a detection time in milliseconds.
fn wait(cluster: &mut Cluster, peer: usize, state: State, detection: Option<f64>) -> Result<()> {
    let what = format!("the session with {} is {state:?}", cluster.name(peer));
    cluster.wait_for_status(&what, &[OURS], |own, _, status| {
        status.node(own.host(peer)).is_some_and(|node| {
            let found = node.bfd.as_ref().map(|session| session.detection_ms);
            let fits = |wanted: f64| found.is_some_and(|found| (found - wanted).abs() < 0.5);
            session_is(node, state) && detection.is_none_or(fits)
        })
    })
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let outcome = Outcome::new("bfd_peers");
    let mut bird = Bird::start(cluster, Seat::Node(BIRD), &[Seat::Node(OURS)], 50)?;
    let mut frr = Frr::start(cluster, Seat::Node(FRR), &[Seat::Node(OURS)], 60)?;
    cluster.start_agent(OURS)?;
    wait(cluster, BIRD, State::Up, Some(150.0))?;
    // The slower of both counts: FRR's 60 ms, three times.
    wait(cluster, FRR, State::Up, Some(180.0))?;
    timeline.event("sessions with BIRD and FRR are up");

    bird.set_interval(cluster, 100)?;
    wait(cluster, BIRD, State::Up, Some(300.0))?;
    bird.set_interval(cluster, 50)?;
    wait(cluster, BIRD, State::Up, Some(150.0))?;
    timeline.event("the session with BIRD followed its timers up and down");

    bird.process.kill_and_reap();
    wait(cluster, BIRD, State::Down, None)?;
    frr.process.kill_and_reap();
    wait(cluster, FRR, State::Down, None)?;
    timeline.event("both were killed: their sessions are down");

    let bird = Bird::start(cluster, Seat::Node(BIRD), &[Seat::Node(OURS)], 50)?;
    let frr = Frr::start(cluster, Seat::Node(FRR), &[Seat::Node(OURS)], 60)?;
    wait(cluster, BIRD, State::Up, None)?;
    wait(cluster, FRR, State::Up, None)?;
    let theirs = |cluster: &Cluster, wanted: [&str; 2]| {
        until("their sessions follow ours", PATIENCE, || {
            let bird = bird.session(cluster, Seat::Node(OURS))?.unwrap_or_default();
            let frr = frr.session(cluster, Seat::Node(OURS))?.unwrap_or_default();
            let there = bird == wanted[0] && frr == wanted[1];
            Ok(there.then_some(()))
        })
        .context("BIRD and FRR")
    };
    theirs(cluster, ["Up", "up"])?;
    cluster.freeze_agent(OURS);
    theirs(cluster, ["Down", "down"])?;
    timeline.event("our agent hangs: both say that it is down");
    cluster.thaw_agent(OURS);
    theirs(cluster, ["Up", "up"])?;
    cluster.stop_agent(OURS)?;
    theirs(cluster, ["Down", "down"])?;
    timeline.event("our agent has left: both say that it is down");
    Ok(outcome)
}
