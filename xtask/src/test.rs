//! `cargo xtask test`: all tests, in an empty network namespace.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::{build_ebpf, install, kubernetes, netns, sh};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which tests; without it, all
    suite: Option<Suite>,
    /// Passed to the test programs: a filter, `--nocapture`
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Suite {
    /// Unit and property tests, and each verdict of the real XDP program
    Unit,
    /// The whole in network namespaces: agents, API servers, faults
    Netns,
}

impl Suite {
    fn selection(self) -> &'static [&'static str] {
        match self {
            Self::Unit => &["--workspace", "--exclude=vip-ebpf", "--exclude=vip-tests"],
            Self::Netns => &["--package=vip-tests"],
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    install::programs(install::BUILD)?;
    install::programs(install::TOPOLOGY)?;
    install::programs(install::PEERS)?;
    let assets = kubernetes::prepare()?;
    build_ebpf::object()?;

    // Built outside, as the registry cannot be reached from inside. Always all of it: the
    // network-namespace tests run the agent's binary.
    sh::run(sh::command("cargo").args(["test", "--no-run"]))?;
    let mut inside = netns::command("cargo", assets);
    inside.args(["test", "--offline", "--no-fail-fast"]);
    inside.args(options.suite.map_or(&[][..], Suite::selection));
    inside.arg("--").args(&options.args);
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
/// `test name ... ignored, reason`.
fn skipped_test(line: &str) -> Option<String> {
    // The runner may have begun a line of its own: `test name ... SKIPPED …`.
    if let Some((_, skipped)) = line.split_once("SKIPPED ") {
        return Some(skipped.trim().to_owned());
    }
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let reason = verdict.trim().strip_prefix("ignored")?;
    let reason = reason
        .strip_prefix(", ")
        .unwrap_or("ignored, no reason given");
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
        assert_eq!(skipped_test("test quick ... ok\n"), None);
        assert_eq!(
            skipped_test("test result: ok. 3 passed; 0 failed; 1 ignored;\n"),
            None
        );
    }
}
