//! Every core of the machine is busy many times over. The thread that keeps the lease comes
//! first: the VIP stays where it is, and no BFD session goes down.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "busy_machine",
    promise: "busy_machine_moves_nothing",
    tests: &[Test::netns(Plan::default).alone()],
    run,
};

/// Processes that do nothing but work.
const BUSY: usize = 16;

/// Some dozens of detection times.
const TIME: Duration = Duration::from_secs(6);

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("busy_machine");
    let owner = cluster.owner()?;
    let count = |text: &str| {
        let moves = text.matches("became the owner").count();
        (moves, text.matches("BFD session is down").count())
    };
    let before = count(&cluster.logs());
    let busy = super::steps::keep_busy(cluster, owner, BUSY)?;
    let end = Instant::now() + TIME;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(busy);
    let after = count(&cluster.logs());
    outcome.promise(before == after, || {
        format!("(takeovers, BFD sessions down) were {before:?} and are {after:?}")
    });
    let successor = cluster.owner()?;
    outcome.promise(successor == owner, || "the VIP moved".to_owned());
    timeline.event(format!("{BUSY} busy processes moved nothing"));
    Ok(outcome)
}
