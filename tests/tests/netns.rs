//! The whole in network namespaces: each scenario on a cluster of its own, and tests of the
//! harness itself.
//!
//! Needs root. Runs inside an empty network namespace, see `vip_tests::isolation`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use vip_tests::agent::Programs;
use vip_tests::cluster::Cluster;
use vip_tests::cluster::plan::{Missing, Plan};
use vip_tests::isolation;
use vip_tests::outcome::Timeline;
use vip_tests::scenario::{On, Scenario, Weight};
use vip_tests::scenarios;

mod harness;
mod phases;

/// Scenarios that run at a time: one of them takes a third of a processor.
const AT_ONCE: usize = 3;

/// Runs a scenario, and tells the whole story if it breaks a promise.
fn check(scenario: &Scenario, plan: Plan) -> Result<(), Failed> {
    let mut timeline = Timeline::of_test();
    let result = run(scenario, plan, &mut timeline);
    result.map_err(|error| {
        let story = timeline.lines().join("\n");
        Failed::from(format!("{error:#}\n\nwhat happened:\n{story}"))
    })
}

fn run(scenario: &Scenario, plan: Plan, timeline: &mut Timeline) -> Result<()> {
    let programs = Programs::find()?;
    let mut cluster = Cluster::start(&programs, plan, timeline)?;
    let violations = match (scenario.run)(&mut cluster, timeline) {
        Ok(outcome) => outcome.violations,
        Err(error) => vec![format!("{error:#}")],
    };
    if violations.is_empty() {
        return Ok(());
    }
    let logs = cluster.save_logs(scenario.name)?;
    bail!("{}\nlogs are in {}", violations.join("\n"), logs.display());
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list {
        // Before any thread starts.
        isolation::enter_empty_netns();
    }
    let mut beside_others = Vec::new();
    let mut alone = harness::trials();
    for scenario in scenarios::ALL {
        for test in scenario.tests {
            let On::Namespaces(planner) = test.on else {
                continue;
            };
            let trials = match test.weight {
                Weight::BesideOthers => &mut beside_others,
                Weight::Alone => &mut alone,
            };
            trials.push(match planner.plan() {
                Ok(plan) => Trial::test(test.name(scenario), || check(scenario, plan)),
                Err(Missing(reason)) => skipped(&test.skipped(scenario, &reason)),
            });
        }
    }
    phases::run(arguments, AT_ONCE, beside_others, alone)
}

/// One that cannot run here: listed as ignored, and its name says why.
fn skipped(name: &str) -> Trial {
    Trial::test(name, || Ok(())).with_ignored_flag(true)
}
