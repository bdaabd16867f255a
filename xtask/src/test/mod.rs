//! `cargo xtask test`: all tests, in an empty network namespace.

mod background;
mod checks;
mod output;

use std::env;
use std::ffi::OsString;
use std::process::Command;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};

use crate::cargo::{self, Program};
use crate::image::{self, Architecture};
use crate::{build_ebpf, install, kernels, kubelet, kubernetes, netns, package, sh};
use background::{Ended, Lane, Step, idle};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// Which tests; without it, all
    #[command(subcommand)]
    suite: Option<Suite>,
    #[command(flatten)]
    all: All,
}

/// For all tests.
#[derive(clap::Args)]
struct All {
    /// Meanwhile, what else a change must pass: clippy and the documentation without a warning
    #[arg(long)]
    checks: bool,
    #[command(flatten)]
    passed: Passed,
}

/// For the test programs.
#[derive(clap::Args, Default)]
struct Passed {
    /// Passed to the test programs: a filter, `--nocapture`
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(clap::Subcommand)]
enum Suite {
    /// Unit and property tests, and each verdict of the real XDP program
    Unit(Passed),
    /// The whole in network namespaces: agents, API servers, faults
    Netns(Passed),
    /// The whole in virtual machines, with kernels as Debian ships them
    Vm(Vm),
}

#[derive(clap::Args)]
struct Vm {
    /// Only this one, on all machines; without it, one after the other, and clusters of all
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(kernels::names()))]
    kernel: Option<String>,
    /// Leave the machines of each scenario running until Ctrl-C, and say how to get in
    #[arg(long)]
    keep: bool,
    /// Only tests whose name contains this: `cold_start`, `linux_6.1`
    scenario: Option<String>,
    #[command(flatten)]
    passed: Passed,
}

impl Options {
    /// Whether the tests in virtual machines are among those wanted.
    fn wants_machines(&self) -> bool {
        matches!(self.suite, None | Some(Suite::Vm(_)))
    }

    /// Whether the test of what is shipped for the other architecture is among those wanted. Not
    /// with all others, for its time.
    fn wants_other_architecture(&self) -> bool {
        matches!(&self.suite, Some(Suite::Vm(vm)) if vm.kernel.is_none())
    }

    /// Whether machines are left running for somebody to look at.
    fn keeps(&self) -> bool {
        matches!(&self.suite, Some(Suite::Vm(vm)) if vm.keep)
    }

    /// Whether the tests that run the container image are among those wanted.
    fn wants_image(&self) -> bool {
        matches!(self.suite, None | Some(Suite::Netns(_)))
    }

    /// Whether the tests of packages, chart and role are among those wanted.
    fn wants_shipped(&self) -> bool {
        matches!(self.suite, None | Some(Suite::Unit(_)))
    }

    /// Whether the tests of a program are among those wanted.
    fn wants(&self, program: &Program) -> bool {
        let turn = Turn::of(program);
        match self.suite {
            None => true,
            Some(Suite::Unit(_)) => matches!(turn, Turn::First | Turn::Background),
            Some(Suite::Netns(_)) => turn == Turn::Namespaces,
            Some(Suite::Vm(_)) => turn == Turn::Machines,
        }
    }

    /// What the test programs are told.
    fn passed(&self) -> Vec<&String> {
        match &self.suite {
            None => self.all.passed.args.iter().collect(),
            Some(Suite::Unit(passed) | Suite::Netns(passed)) => passed.args.iter().collect(),
            Some(Suite::Vm(vm)) => vm.scenario.iter().chain(&vm.passed.args).collect(),
        }
    }

    /// Runs a test program where nothing reaches the machine's own NIC.
    fn command(&self, program: &Program, environment: &[OsString]) -> Command {
        let mut command = if self.keeps() {
            netns::open_command(&program.path, environment)
        } else {
            netns::command(&program.path, environment)
        };
        command.current_dir(&program.folder).args(self.passed());
        command
    }

    /// What the tests in virtual machines read in their environment.
    fn environment(&self) -> Vec<OsString> {
        let Some(Suite::Vm(vm)) = &self.suite else {
            return Vec::new();
        };
        let kernel = vm.kernel.as_ref();
        let kernel = kernel.map(|name| format!("VIP_TESTS_KERNEL={name}").into());
        let keep = vm.keep.then(|| "VIP_TESTS_KEEP=1".into());
        let all = Some("VIP_TESTS_ALL_MACHINES=1".into());
        kernel.into_iter().chain(keep).chain(all).collect()
    }
}

/// When a test program runs, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// What only computes: beside all others, with what they leave of the processors.
    Background,
    /// Those that take seconds.
    First,
    /// Clusters of emulated machines.
    Machines,
    /// Clusters in namespaces. Last: one of them needs the kubelet, which takes long to be built.
    Namespaces,
}

impl Turn {
    fn of(program: &Program) -> Self {
        match program.name.as_str() {
            "simulation" => Self::Background,
            "vm" => Self::Machines,
            "netns" => Self::Namespaces,
            _ => Self::First,
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    // What is fetched is not waited for before it is needed.
    let ebpf = thread::spawn(build_ebpf::object);
    let builds_kubelet = options.wants_image() && kubelet::is_missing()?;
    install_tools(options, builds_kubelet)?;
    let mut kubelet = None;
    if builds_kubelet {
        kubelet = Some(Lane::start(vec![checks::kubelet()?]));
    }
    let kernels = options
        .wants_machines()
        .then(|| thread::spawn(kernels::prepare));
    let mut environment = options.environment();
    environment.extend(kubernetes::prepare(builds_kubelet)?);
    join(ebpf)?;
    let mut programs = build()?;
    if let Some(kernels) = kernels {
        environment.push(sh::variable("VIP_TESTS_KERNELS", join(kernels)?));
    }
    environment.extend(prepare(options, &programs)?);

    programs.retain(|program| options.wants(program));
    let mut outcome = Outcome::default();
    let (background, mut foreground): (Vec<Program>, Vec<Program>) = programs
        .into_iter()
        .partition(|program| Turn::of(program) == Turn::Background);
    let lanes = start_lanes(options, &background, &environment)?;
    foreground.sort_by_key(Turn::of);
    for program in &foreground {
        if Turn::of(program) == Turn::Namespaces
            && let Some(lane) = kubelet.take()
        {
            // The test that needs it is skipped if there is none, and says so.
            lane.wait()?;
        }
        println!("\n     Running {}", program.name);
        let (passed, skipped) = output::run(&mut options.command(program, &environment))?;
        outcome.add(Ended {
            name: program.name.clone(),
            passed,
            skipped,
        });
    }
    for lane in lanes {
        for ended in lane.wait()? {
            outcome.add(ended);
        }
    }
    outcome.tell()
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    let ended = thread.join();
    ended.map_err(|_| anyhow!("a thread that prepares the tests panicked"))?
}

/// All at once, as each time apt takes its time.
fn install_tools(options: &Options, builds_kubelet: bool) -> Result<()> {
    let mut tools = [
        install::BUILD,
        install::TOPOLOGY,
        install::PEERS,
        install::OPERATORS,
    ]
    .concat();
    if options.wants_machines() {
        tools.extend(kernels::TOOLS);
    }
    if options.wants_shipped() {
        tools.extend(install::SHIPPED);
    }
    if builds_kubelet {
        tools.extend(kubelet::TOOLS);
    }
    install::programs(&tools)?;
    install::browser()
}

/// Builds all tests, as programs that need nothing of this machine: the agent among them is the
/// one in the image, and all kernels' machines run them.
fn build() -> Result<Vec<Program>> {
    // Outside, as the registry cannot be reached from inside. Always all of it: scenarios run the
    // agent's binary, and machines run other tests.
    let mut cargo = Architecture::here()?.cargo("test")?;
    let mut programs = cargo::test_programs(cargo.args(cargo::TESTED))?;
    let mut own = sh::command("cargo");
    programs.extend(cargo::test_programs(own.args([
        "test",
        "--package",
        "xtask",
    ]))?);
    Ok(programs)
}

/// What programs read in their environment beside that.
fn prepare(options: &Options, programs: &[Program]) -> Result<Vec<OsString>> {
    let mut environment = Vec::new();
    if options.wants_machines() {
        let inside = env::join_paths(programs.iter().map(|program| &program.path));
        let inside = inside.context("name the test programs")?;
        environment.push(sh::variable("VIP_TESTS_INSIDE", inside));
    }
    if options.wants_other_architecture() {
        let folder = kernels::aarch64::prepare()?;
        environment.push(sh::variable("VIP_TESTS_AARCH64", folder));
    }
    if options.wants_shipped() {
        environment.push(sh::variable("VIP_TESTS_PACKAGES", package::for_tests()?));
        if let Some(folder) = install::wheels()? {
            environment.push(sh::variable("VIP_TESTS_PYTHON", folder));
        }
    }
    if options.wants_image() || options.wants_shipped() {
        environment.push(sh::variable("VIP_TESTS_IMAGE", image::for_tests()?));
    }
    Ok(environment)
}

/// Starts what runs in the background.
fn start_lanes(
    options: &Options,
    programs: &[Program],
    environment: &[OsString],
) -> Result<Vec<Lane>> {
    let tests = programs.iter().map(|program| {
        let command = options.command(program, environment);
        Step::new(&program.name, idle(&command))
    });
    let mut cargo = Vec::new();
    if options.all.checks {
        cargo.extend(checks::all()?);
    }
    if options.suite.is_none() {
        cargo.push(checks::doc_tests()?);
    }
    Ok(vec![Lane::start(tests.collect()), Lane::start(cargo)])
}

/// What came of all.
#[derive(Default)]
struct Outcome {
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Outcome {
    fn add(&mut self, ended: Ended) {
        self.skipped.extend(ended.skipped);
        if !ended.passed {
            self.failed.push(ended.name);
        }
    }

    /// Lists what was skipped and what failed.
    fn tell(&self) -> Result<()> {
        if self.skipped.is_empty() {
            println!("\nxtask: no test was skipped");
        } else {
            println!("\nxtask: {} skipped:", self.skipped.len());
            for line in &self.skipped {
                println!("  {line}");
            }
        }
        if !self.failed.is_empty() {
            bail!("FAILED: {}", self.failed.join(", "));
        }
        Ok(())
    }
}
