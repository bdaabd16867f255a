//! What tests print: shown, and searched for those that were skipped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::sh;

/// Runs tests and shows what they print as it comes. Returns whether they passed, and which were
/// skipped and why.
pub(super) fn run(tests: &mut Command) -> Result<(bool, Vec<String>)> {
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
    Ok((status.success(), skipped))
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
pub(super) fn skipped_test(line: &str) -> Option<String> {
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
