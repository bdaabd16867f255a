//! `cargo xtask test`: all tests, in an empty network namespace.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::{build_ebpf, cargo, image, install, kernels, kubelet, kubernetes, netns, sh};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// Which tests; without it, all
    #[command(subcommand)]
    suite: Option<Suite>,
    #[command(flatten)]
    all: Passed,
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

    /// What cargo is told about which tests to run. Names of targets and not of packages: for a
    /// package by itself, cargo builds all it depends on with other features, once more.
    fn selection(&self) -> &'static [&'static str] {
        match self.suite {
            None => &[],
            Some(Suite::Unit(_)) => &[
                "--lib",
                "--bins",
                "--test=attach",
                "--test=cli",
                "--test=documents",
                "--test=simulation",
                "--test=verdicts",
            ],
            Some(Suite::Netns(_)) => &["--test=netns"],
            Some(Suite::Vm(_)) => &["--test=vm"],
        }
    }

    /// What the test programs are told.
    fn passed(&self) -> Vec<&String> {
        match &self.suite {
            None => self.all.args.iter().collect(),
            Some(Suite::Unit(passed) | Suite::Netns(passed)) => passed.args.iter().collect(),
            Some(Suite::Vm(vm)) => vm.scenario.iter().chain(&vm.passed.args).collect(),
        }
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

pub(crate) fn run(options: &Options) -> Result<()> {
    install::programs(install::BUILD)?;
    install::programs(install::TOPOLOGY)?;
    install::programs(install::PEERS)?;
    install::programs(install::OPERATORS)?;
    install::browser()?;
    if options.wants_image() {
        kubelet::prepare()?;
    }
    let mut environment = options.environment();
    environment.extend(kubernetes::prepare()?);
    build_ebpf::object()?;

    // Built outside, as the registry cannot be reached from inside. Always all of it: the
    // network-namespace tests run the agent's binary, and machines run other tests.
    sh::run(sh::command("cargo").args(["test", "--no-run"]))?;
    if options.wants_machines() {
        environment.push(sh::variable("VIP_TESTS_KERNELS", kernels::prepare()?));
        let built = cargo::test_programs(sh::command("cargo").args(["test", "--no-run"]))?;
        let programs = env::join_paths(built).context("name the test programs")?;
        environment.push(sh::variable("VIP_TESTS_INSIDE", programs));
    }
    if options.wants_other_architecture() {
        let folder = kernels::aarch64::prepare()?;
        environment.push(sh::variable("VIP_TESTS_AARCH64", folder));
    }
    if options.wants_image() {
        environment.push(sh::variable("VIP_TESTS_IMAGE", image::for_tests()?));
    }
    let mut inside = if options.keeps() {
        netns::open_command("cargo", environment)
    } else {
        netns::command("cargo", environment)
    };
    inside.args(["test", "--offline", "--no-fail-fast"]);
    inside.args(options.selection());
    inside.arg("--").args(options.passed());
    if io::stderr().is_terminal() {
        inside.env("CARGO_TERM_COLOR", "always");
    }
    run_and_list_skipped(&mut inside)
}

/// Shows what the tests print as it comes, and again at the end which were skipped and why.
fn run_and_list_skipped(tests: &mut Command) -> Result<()> {
    tests.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tests.spawn().with_context(|| sh::starting(tests))?;
    let errors = child.stderr.take().context("the tests have no stderr")?;
    let output = child.stdout.take().context("the tests have no stdout")?;
    let errors = thread::spawn(move || tee(errors, io::stderr()));
    let mut skipped = tee(output, io::stdout()).context("read what the tests print")?;
    let of_stderr = errors
        .join()
        .map_err(|_| anyhow!("the thread that reads the tests' stderr panicked"))?;
    skipped.extend(of_stderr.context("read what the tests print")?);
    let status = child.wait().context("wait for the tests")?;

    if skipped.is_empty() {
        println!("\nxtask: no test was skipped");
    } else {
        println!("\nxtask: {} skipped:", skipped.len());
        for line in &skipped {
            println!("  {line}");
        }
    }
    sh::check(tests, status)
}

/// Copies lines, and returns those that tell of a skipped test.
fn tee(from: impl Read, mut to: impl Write) -> io::Result<Vec<String>> {
    let mut skipped = Vec::new();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        skipped.extend(skipped_test(&String::from_utf8_lossy(&line)));
        line.clear();
    }
    Ok(skipped)
}

/// A test that cannot run here writes `SKIPPED name: reason` to its stderr, past the capture
/// of the test runner. One that is ignored is told of by the runner:
/// `test name ... ignored, reason`, or, where it knows no reasons, `test name (reason) ... ignored`.
fn skipped_test(line: &str) -> Option<String> {
    // The runner may have begun a line of its own: `test name ... SKIPPED …`.
    if let Some((_, skipped)) = line.split_once("SKIPPED ") {
        return Some(skipped.trim().to_owned());
    }
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let given = verdict.trim().strip_prefix("ignored")?.strip_prefix(", ");
    let named = name.trim().strip_suffix(')');
    let (name, reason) = match (given, named.and_then(|name| name.split_once(" ("))) {
        (Some(reason), _) => (name, reason),
        (None, Some(named)) => named,
        (None, None) => (name, "ignored, no reason given"),
    };
    Some(format!("{name}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_test_is_seen_however_it_is_told() {
        let skipped = |line| skipped_test(line).unwrap_or_default();
        assert_eq!(
            skipped("SKIPPED net::vip: not root\n"),
            "net::vip: not root"
        );
        assert_eq!(
            skipped("test net::vip ... SKIPPED net::vip: not root\n"),
            "net::vip: not root"
        );
        assert_eq!(
            skipped("test slow ... ignored, takes hours\n"),
            "slow: takes hours"
        );
        assert_eq!(
            skipped("test slow ... ignored\n"),
            "slow: ignored, no reason given"
        );
        assert_eq!(
            skipped("test page (no browser)   ... ignored\n"),
            "page: no browser"
        );
        assert_eq!(skipped_test("test quick ... ok\n"), None);
        assert_eq!(
            skipped_test("test result: ok. 3 passed; 0 failed; 1 ignored;\n"),
            None
        );
    }
}
