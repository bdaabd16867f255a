//! The whole in virtual machines, with kernels as Debian ships them: first one machine a kernel,
//! in which other tests run; then clusters of machines.
//!
//! Needs root, QEMU, and the kernels that `cargo xtask test` prepares. Runs inside an empty
//! network namespace, see `vip_tests::isolation`.

mod aarch64;
mod inside;
mod named;
#[path = "../phases/mod.rs"]
mod phases;

use std::cell::RefCell;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{SigSet, Signal};
use vip_tests::agent::Programs;
use vip_tests::cluster::plan::Missing;
use vip_tests::cluster::{Cluster, Pace, Plan};
use vip_tests::isolation;
use vip_tests::outcome::Timeline;
use vip_tests::scenario::{On, Scenario, When};
use vip_tests::scenarios;
use vip_tests::topology::vm::Machines;
use vip_tests::vm::Kernel;

/// Set: only the kernel of this name is used.
const KERNEL: &str = "VIP_TESTS_KERNEL";

/// Set: the machines of a scenario are left running until somebody ends the tests.
const KEEP: &str = "VIP_TESTS_KEEP";

/// Set: all of these tests run, and not those only that also run when all tests of the
/// repository do.
const ALL: &str = "VIP_TESTS_ALL_MACHINES";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list {
        // Before any thread starts.
        isolation::enter_empty_netns();
        // For `keep`: nobody else waits for them.
        if std::env::var_os(KEEP).is_some() {
            let blocked = ending_signals().thread_block();
            blocked.expect("a thread may block signals");
        }
    }
    let (paired, alone) = match trials() {
        Ok(trials) => trials,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::from(2);
        }
    };
    // Of machines with one processor, which they keep busy.
    let code = phases::run(arguments, 2, paired, alone);
    // Machines are switched off, files removed.
    SHARED.take();
    inside::done();
    code
}

/// Those that may run beside each other, and those that need the host for themselves.
fn trials() -> Result<(Vec<Trial>, Vec<Trial>)> {
    let Some(mut kernels) = Kernel::all()? else {
        let reason = "machines (no kernels for them: run cargo xtask test)";
        let skipped = Trial::test(reason, || Ok(())).with_ignored_flag(true);
        return Ok((vec![skipped], Vec::new()));
    };
    if let Ok(wanted) = std::env::var(KERNEL) {
        let known: Vec<String> = kernels.iter().map(|kernel| kernel.name.clone()).collect();
        kernels.retain(|kernel| kernel.name == wanted);
        if kernels.is_empty() {
            bail!("{KERNEL}={wanted} is none of {}", known.join(", "));
        }
    }
    let all = std::env::var_os(ALL).is_some();
    let (paired, mut trials) = inside::trials(&kernels, all);
    if std::env::var_os(KERNEL).is_none() {
        trials.push(aarch64::trial());
    }
    trials.extend(on_machines(&Machines::new(kernels), all));
    Ok((paired, trials))
}

/// Scenarios on clusters of machines: first those that share one.
fn on_machines(machines: &Machines, all: bool) -> Vec<Trial> {
    let (mut shared, mut own) = (Vec::new(), Vec::new());
    for scenario in scenarios::ALL {
        for test in scenario.tests {
            let runs = all || test.on_machines == When::Always;
            let name = named::named(test.name(scenario), runs);
            match test.on {
                On::Namespaces(_) => {}
                On::SharedMachines => {
                    let plan = Plan::on_machines(Pace::CALM, machines.clone());
                    let trial = Trial::test(name, || check(scenario, on_shared(scenario, plan)));
                    shared.push(trial.with_ignored_flag(!runs));
                }
                On::Machines(plan) => own.push(match plan(machines.clone()) {
                    Ok(plan) => Trial::test(name, || check(scenario, on_its_own(scenario, plan)))
                        .with_ignored_flag(!runs),
                    Err(Missing(reason)) => {
                        let name = test.skipped(scenario, &reason);
                        Trial::test(name, || Ok(())).with_ignored_flag(true)
                    }
                }),
            }
        }
    }
    shared.append(&mut own);
    shared
}

/// The timeline of a scenario, and the promises that were broken.
type Story = (Timeline, Result<()>);

fn check(scenario: &Scenario, (timeline, result): Story) -> Result<(), Failed> {
    result.map_err(|error| {
        let (name, story) = (scenario.name, timeline.lines().join("\n"));
        Failed::from(format!("{name}: {error:#}\n\nwhat happened:\n{story}"))
    })
}

thread_local! {
    /// The cluster of [`On::SharedMachines`]. A scenario that failed leaves none behind.
    static SHARED: RefCell<Option<Cluster>> = const { RefCell::new(None) };
}

fn on_shared(scenario: &Scenario, plan: Plan) -> Story {
    inside::done();
    let mut timeline = Timeline::of_test();
    let run = || {
        let mut cluster = match SHARED.take() {
            Some(cluster) => cluster,
            None => Cluster::start(&Programs::find()?, plan, &mut timeline)?,
        };
        carry_out(scenario, &mut cluster, &mut timeline)?;
        cluster.heal().context("make the cluster whole again")?;
        SHARED.set(Some(cluster));
        Ok(())
    };
    let result = run();
    (timeline, result)
}

fn on_its_own(scenario: &Scenario, plan: Plan) -> Story {
    // More at once would be too much for the host.
    SHARED.take();
    inside::done();
    let mut timeline = Timeline::of_test();
    let run = || {
        let mut cluster = Cluster::start(&Programs::find()?, plan, &mut timeline)?;
        carry_out(scenario, &mut cluster, &mut timeline)
    };
    let result = run();
    (timeline, result)
}

fn carry_out(scenario: &Scenario, cluster: &mut Cluster, timeline: &mut Timeline) -> Result<()> {
    let violations = match (scenario.run)(cluster, timeline) {
        Ok(outcome) => outcome.violations,
        Err(error) => vec![format!("{error:#}")],
    };
    let logs = if violations.is_empty() {
        None
    } else {
        Some(cluster.save_logs(scenario.name)?)
    };
    if std::env::var_os(KEEP).is_some() {
        keep(cluster)?;
    }
    match logs {
        None => Ok(()),
        Some(logs) => bail!(
            "{}\nlogs, consoles and a capture are in {}",
            violations.join("\n"),
            logs.display()
        ),
    }
}

fn ending_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM].into_iter().collect()
}

/// Says how to get into the machines, and waits until somebody has seen enough.
fn keep(cluster: &Cluster) -> Result<()> {
    println!("\nThe cluster is kept until Ctrl-C. To get in:");
    for host in cluster.topology.hosts() {
        println!("{:8} {:12} {}", host.name(), host.address(), host.way_in());
    }
    println!(
        "logs are in /proc/{}/root{}",
        std::process::id(),
        cluster.work().display()
    );
    ending_signals().wait().context("wait for a signal")?;
    Ok(())
}
