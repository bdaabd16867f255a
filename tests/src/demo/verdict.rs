//! The end of the demo: were all promises kept?

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::row::Row;
use super::table::seconds;
use crate::outcome::Outcome;
use crate::text::count;

/// A scenario with promises that were not kept.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Broken {
    pub(super) scenario: String,
    /// What happened instead.
    pub(super) violations: Vec<String>,
    /// The folder with the logs.
    pub(super) logs: PathBuf,
}

/// Sums over all scenarios, and what was not kept.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    /// All scenarios ran, and all promises were kept.
    pub(super) kept: bool,
    scenarios: usize,
    requests: usize,
    failed: usize,
    lost_with_server: usize,
    watches_living: usize,
    watches_cut_living: usize,
    /// The slowest notice to a client of a dead server, in ms; `None` if no server died.
    told_ms: Option<u64>,
    broken: Vec<Broken>,
    /// Scenarios that did not run to their end.
    missing: usize,
}

impl Verdict {
    /// Of these scenarios, of `planned`.
    pub(super) fn of(rows: &[Row], planned: usize, broken: Vec<Broken>) -> Self {
        let sum = |value: fn(&Outcome) -> usize| rows.iter().map(|row| value(&row.outcome)).sum();
        let missing = planned - rows.len();
        Self {
            kept: broken.is_empty() && missing == 0,
            scenarios: rows.len(),
            requests: sum(|outcome| outcome.requests),
            failed: sum(|outcome| outcome.failed),
            lost_with_server: sum(|outcome| outcome.lost_with_server),
            watches_living: sum(|outcome| outcome.watches_living),
            watches_cut_living: sum(|outcome| outcome.watches_cut_living),
            told_ms: rows.iter().filter_map(|row| row.outcome.told_ms).max(),
            broken,
            missing,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} scenarios, {} requests: {} failed, {} lost with their server; {} of {} watches to \
             living servers cut",
            self.scenarios,
            count(self.requests),
            count(self.failed),
            count(self.lost_with_server),
            count(self.watches_cut_living),
            count(self.watches_living),
        )?;
        if let Some(told) = self.told_ms {
            write!(
                f,
                "; clients of dead servers told after at most {}",
                seconds(told)
            )?;
        }
        writeln!(f, ".")?;
        if self.kept {
            return write!(f, "All promises kept.");
        }
        write!(f, "NOT all promises kept:")?;
        for broken in &self.broken {
            for violation in &broken.violations {
                write!(f, "\n- {}: {violation}", broken.scenario)?;
            }
            write!(f, "\n  Logs: {}", broken.logs.display())?;
        }
        if self.missing > 0 {
            write!(f, "\n{} scenarios did not run to their end.", self.missing)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, told_ms: Option<u64>) -> Row {
        Row {
            seconds: 9.8,
            outcome: Outcome {
                requests: 6_172,
                lost_with_server: 4,
                watches: 200,
                watches_living: 133,
                watches_reset_dead: 67,
                told_ms,
                ..Outcome::new(name)
            },
        }
    }

    #[test]
    fn kept_promises_are_one_sentence_of_sums() {
        let rows = [row("one", Some(12)), row("two", Some(2_034))];
        let verdict = Verdict::of(&rows, 2, Vec::new());
        assert!(verdict.kept);
        assert_eq!(
            verdict.to_string(),
            "2 scenarios, 12,344 requests: 0 failed, 8 lost with their server; 0 of 266 watches to \
             living servers cut; clients of dead servers told after at most 2.0 s.\n\
             All promises kept."
        );
    }

    #[test]
    fn a_broken_promise_is_named_with_its_logs() {
        let broken = Broken {
            scenario: "one".to_owned(),
            violations: vec!["3 of 9 requests failed".to_owned()],
            logs: "/tmp/logs".into(),
        };
        let verdict = Verdict::of(&[row("one", None)], 1, vec![broken]);
        assert!(!verdict.kept);
        let text = verdict.to_string();
        assert!(
            text.ends_with(
                "NOT all promises kept:\n- one: 3 of 9 requests failed\n  Logs: /tmp/logs"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_scenario_that_did_not_run_keeps_no_promise() {
        let verdict = Verdict::of(&[row("one", None)], 3, Vec::new());
        assert!(!verdict.kept);
        let text = verdict.to_string();
        assert!(
            text.ends_with("\n2 scenarios did not run to their end."),
            "{text}"
        );
    }
}
