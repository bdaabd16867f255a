//! The whole in virtual machines, with kernels as Debian ships them: first one machine a kernel,
//! in which other tests run; then clusters of machines.
//!
//! Needs root, QEMU, and the kernels that `cargo xtask test` prepares. Runs inside an empty
//! network namespace, see `vip_tests::isolation`.

mod aarch64;
mod inside;
#[path = "../phases/mod.rs"]
mod phases;

use std::cell::RefCell;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{SigSet, Signal};
use vip_tests::agent::Programs;
use vip_tests::cluster::{Cluster, Flavour, Pace, Plan};
use vip_tests::isolation;
use vip_tests::kube::{Binaries, Layout};
use vip_tests::outcome::Report;
use vip_tests::scenarios::{MACHINES, OWNER_KILLED, Scenario, WIRINGS};
use vip_tests::topology::vm::{Bonding, Machines, Wiring};
use vip_tests::vm::Kernel;

/// Set: only the kernel of this name is used.
const KERNEL: &str = "VIP_TESTS_KERNEL";

/// Set: the machines of a scenario are left running until somebody ends the tests.
const KEEP: &str = "VIP_TESTS_KEEP";

/// Set: all of these tests run, and not those only that also run when all tests of the
/// repository do.
const ALL: &str = "VIP_TESTS_ALL_MACHINES";

/// The wirings that are always tested: generic XDP on a card, and what a bond makes of cards.
const ALWAYS: &[Wiring] = &[Wiring::E1000e, Wiring::Bond(Bonding::ActiveBackup)];

/// Scenarios on machines of which all is seen in namespaces too: no machine loses its power or
/// its network in them.
const NO_MACHINES_FAULT: &[&str] = &["apiserver_killed", "drain", "agent_killed"];

/// The name of a test, with the reason if it does not run.
fn named(name: String, runs: bool) -> String {
    if runs {
        name
    } else {
        format!("{name} (for its time: run cargo xtask test vm)")
    }
}

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

/// Those that may run beside each other, and those that want the host for themselves.
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
    let machines = Machines::new(kernels.clone());
    for scenario in MACHINES {
        let plan = plan(Pace::CALM, machines.clone());
        let runs = all || !NO_MACHINES_FAULT.contains(&scenario.name);
        let name = named(format!("machines_{}", scenario.promise), runs);
        let trial = Trial::test(name, || check(*scenario, || on_shared(*scenario, plan)));
        trials.push(trial.with_ignored_flag(!runs));
    }
    for (wiring, scenario) in WIRINGS {
        let machines = Machines {
            wiring: *wiring,
            ..machines.clone()
        };
        let plan = plan(Pace::CALM, machines);
        let runs = all || ALWAYS.contains(wiring);
        let name = named(format!("machines_{}", scenario.promise), runs);
        let trial = Trial::test(name, || check(*scenario, || on_its_own(*scenario, plan)));
        trials.push(trial.with_ignored_flag(!runs));
    }
    trials.push(real_api_server(machines, all));
    Ok((paired, trials))
}

fn plan(pace: Pace, machines: Machines) -> Plan {
    Plan {
        interval: pace.interval.to_owned(),
        more: pace.bfd.to_owned(),
        pace,
        machines: Some(machines),
        ..Plan::default()
    }
}

/// kube-apiserver on three machines, and one of them loses its power.
fn real_api_server(machines: Machines, all: bool) -> Trial {
    let Some(binaries) = Binaries::find() else {
        let reason =
            "machines_real_apiserver (no kube-apiserver and etcd: KUBEBUILDER_ASSETS is not set)";
        return Trial::test(reason, || Ok(())).with_ignored_flag(true);
    };
    let machines = Machines {
        memory: 1536,
        ..machines
    };
    let plan = Plan {
        flavour: Flavour::Kubernetes(binaries, Layout::Apart),
        ..plan(Pace::SLOW, machines)
    };
    let name = format!("machines_real_apiserver_{}", OWNER_KILLED.promise);
    let trial = Trial::test(named(name, all), || {
        check(OWNER_KILLED, || on_its_own(OWNER_KILLED, plan))
    });
    trial.with_ignored_flag(!all)
}

/// What came of a scenario: its story, and the promises that were broken.
type Story = (Report, Result<()>);

fn check(scenario: Scenario, run: impl FnOnce() -> Story) -> Result<(), Failed> {
    let (report, result) = run();
    result.map_err(|error| {
        let (name, story) = (scenario.name, report.lines().join("\n"));
        Failed::from(format!("{name}: {error:#}\n\nwhat happened:\n{story}"))
    })
}

thread_local! {
    /// The cluster that scenarios of [`MACHINES`] share, as booting takes longer than most of
    /// them. One that failed leaves none behind.
    static SHARED: RefCell<Option<Cluster>> = const { RefCell::new(None) };
}

fn on_shared(scenario: Scenario, plan: Plan) -> Story {
    inside::done();
    let mut report = Report::new(false);
    let run = || {
        let mut cluster = match SHARED.take() {
            Some(cluster) => cluster,
            None => Cluster::start(&Programs::find()?, plan, &mut report)?,
        };
        carry_out(scenario, &mut cluster, &mut report)?;
        cluster.heal().context("make the cluster whole again")?;
        SHARED.set(Some(cluster));
        Ok(())
    };
    let result = run();
    (report, result)
}

fn on_its_own(scenario: Scenario, plan: Plan) -> Story {
    // More at once would be too much for the host.
    SHARED.take();
    inside::done();
    let mut report = Report::new(false);
    let run = || {
        let mut cluster = Cluster::start(&Programs::find()?, plan, &mut report)?;
        carry_out(scenario, &mut cluster, &mut report)
    };
    let result = run();
    (report, result)
}

fn carry_out(scenario: Scenario, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let violations = match (scenario.run)(cluster, report) {
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
