//! What a scenario measured, what it promised and did not keep, and what happened when.

use std::time::Instant;

use serde::Serialize;

use crate::load::{Request, Summary};
use crate::watch::Snapshot;

/// What came out of a scenario. Serialised, it is a row of the demo's table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// Name of the scenario.
    pub name: String,
    /// Requests made through the VIP.
    pub requests: usize,
    /// Requests that failed, other than those in `lost_with_server`.
    pub failed: usize,
    /// Requests whose connection was open to a server when that went down.
    pub lost_with_server: usize,
    /// Longest time between two answers, in ms.
    pub gap_ms: u64,
    /// Watches open before the fault.
    pub watches: usize,
    /// Those of them whose server lives after it.
    pub watches_living: usize,
    /// Watches that ended although their server lives: must be 0.
    pub watches_cut_living: usize,
    /// Watches that were told that their server is gone.
    pub watches_reset_dead: usize,
    /// From the moment at which that server went down to the last of these notices, in ms; `None` if
    /// there was none.
    pub told_ms: Option<u64>,
    /// Promises that were not kept.
    #[serde(skip)]
    pub violations: Vec<String>,
}

/// A server that went down, and when (boot-time nanoseconds).
#[derive(Debug, Clone, Copy)]
pub struct Down<'a> {
    /// Its name.
    pub server: &'a str,
    /// No later than this its connections were gone.
    pub at: u64,
}

impl Outcome {
    /// An empty one.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Notes a promise; broken, it makes the test fail and names the figures.
    pub fn promise(&mut self, kept: bool, otherwise: impl FnOnce() -> String) {
        if !kept {
            self.violations.push(otherwise());
        }
    }

    /// Takes in the requests. The summary counts those that were lost with their server, and says
    /// nothing more of them.
    pub fn take_requests(&mut self, requests: &[Request], down: Option<Down<'_>>) -> Summary {
        let (lost, others): (Vec<&Request>, Vec<&Request>) = requests.iter().partition(|request| {
            !request.succeeded()
                && down.is_some_and(|down| request.was_held_by(down.server, down.at))
        });
        let mut summary = Summary::of(others);
        summary.requests += lost.len();
        self.requests += summary.requests;
        self.lost_with_server += lost.len();
        self.failed += summary.failed;
        self.gap_ms = self.gap_ms.max(summary.gap_ms);
        summary
    }

    /// Takes in the watches, as they were before the fault and after it.
    pub fn take_watches(&mut self, before: &Snapshot, after: &Snapshot, down: Option<Down<'_>>) {
        self.watches += before.watches.len();
        for (before, after) in before.watches.iter().zip(&after.watches) {
            let on_dead = down.is_some_and(|down| before.server.as_deref() == Some(down.server));
            self.watches_living += usize::from(!on_dead);
            match (&after.ended, on_dead) {
                (Some(_), false) => self.watches_cut_living += 1,
                (Some(how), true) if how == "reset" || how == "eof" => {
                    self.watches_reset_dead += 1;
                    let at = down.map_or(0, |down| down.at);
                    let told = after
                        .ended_at
                        .map(|told| told.saturating_sub(at) / 1_000_000);
                    self.told_ms = self.told_ms.max(told);
                }
                _ => {}
            }
        }
    }

    /// The promises that every scenario makes.
    pub fn promise_nothing_lost(&mut self, summary: &Summary) {
        let (failed, cut, requests) = (self.failed, self.watches_cut_living, self.requests);
        self.promise(requests > 0, || "no request was made".to_owned());
        self.promise(failed == 0, || {
            format!(
                "{failed} of {requests} requests failed: {:?}; the first: {}",
                summary.errors, summary.first_failures
            )
        });
        self.promise(cut == 0, || {
            format!("{cut} watches to living servers were cut")
        });
    }
}

/// The story of a run: what happened when.
#[derive(Debug)]
pub struct Timeline {
    begin: Instant,
    aloud: bool,
    lines: Vec<String>,
}

impl Timeline {
    /// Begins one. `aloud` prints each line as it comes.
    #[must_use]
    pub fn new(aloud: bool) -> Self {
        Self {
            begin: Instant::now(),
            aloud,
            lines: Vec::new(),
        }
    }

    /// Begins that of a test. It is aloud if `VIP_TESTS_ALOUD` is set.
    #[must_use]
    pub fn of_test() -> Self {
        Self::new(std::env::var_os("VIP_TESTS_ALOUD").is_some())
    }

    /// Something happened.
    pub fn event(&mut self, text: impl AsRef<str>) {
        let line = format!(
            "{:7.2} s  {}",
            self.begin.elapsed().as_secs_f64(),
            text.as_ref()
        );
        if self.aloud {
            println!("{line}");
        }
        self.lines.push(line);
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Watch;

    fn snapshot(watches: &[(&str, Option<&str>)]) -> Snapshot {
        let watch = |(server, ended): &(&str, Option<&str>)| Watch {
            server: Some((*server).to_owned()),
            opened: Some(1),
            ended: ended.map(str::to_owned),
            ended_at: ended.map(|_| 7_000_000),
            ..Watch::default()
        };
        Snapshot {
            at: 0,
            watches: watches.iter().map(watch).collect(),
        }
    }

    #[test]
    fn a_watch_counts_by_the_server_it_was_on() {
        let before = snapshot(&[("n1", None), ("n1", None), ("n2", None), ("n3", None)]);
        let after = snapshot(&[
            ("n1", Some("reset")),
            ("n1", Some("timeout")),
            ("n2", Some("reset")),
            ("n3", None),
        ]);
        let mut outcome = Outcome::new("test");
        let down = Down {
            server: "n1",
            at: 2_000_000,
        };
        outcome.take_watches(&before, &after, Some(down));
        assert_eq!((outcome.watches, outcome.watches_living), (4, 2));
        assert_eq!(outcome.watches_cut_living, 1);
        // A time-out is no notice: the client had to find out by itself.
        assert_eq!(outcome.watches_reset_dead, 1);
        assert_eq!(outcome.told_ms, Some(5));
    }

    #[test]
    fn a_failure_counts_unless_the_dead_server_held_its_connection() {
        let request = |connected, error: Option<&str>| Request {
            start: 1,
            connected,
            end: 20,
            server: None,
            error: error.map(str::to_owned),
            kept: false,
        };
        let requests = [
            request(Some(5), Some("reset")),
            request(Some(1_000_000_000), Some("reset")),
            request(None, Some("timeout")),
            request(Some(5), None),
        ];
        let mut outcome = Outcome::new("test");
        let down = Down {
            server: "n1",
            at: 10,
        };
        let summary = outcome.take_requests(&requests, Some(down));
        outcome.promise_nothing_lost(&summary);
        assert_eq!((outcome.failed, outcome.lost_with_server), (2, 1));
        assert_eq!(outcome.violations.len(), 1);
    }
}
