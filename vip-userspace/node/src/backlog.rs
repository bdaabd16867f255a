//! Whether a server accepts connections, by its accept queue.
//!
//! The kernel completes TCP's handshake for the server and puts the connection into the listener's
//! accept queue, which is first in, first out. Those that wait at a first look are watched: while
//! all of them still wait, nothing was accepted. A server that is only slow accepts some of them.

use std::time::Duration;

use vip_common::wire::time::BootNanos;

/// Time between two looks.
pub const INTERVAL: Duration = Duration::from_millis(50);

/// How long nothing is accepted until the server counts as one that hangs.
const LIMIT: Duration = Duration::from_millis(100);

/// The same on a machine so busy that connections waited not long ago, and were accepted then:
/// that many times as long, up to a limit.
const BUSY: u32 = 4;
const BUSY_LIMIT: Duration = Duration::from_millis(400);

/// How long a wait is remembered.
const MEMORY: Duration = Duration::from_secs(10);

/// A look that comes later than that after the one before says nothing about the server: this
/// machine was too busy to look, so it may have been too busy to serve.
const LATE: Duration = INTERVAL.saturating_mul(2);

/// The result of a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// No connection waits.
    Empty,
    /// Connections wait that were not watched before. They are from now on.
    First,
    /// All watched connections still wait.
    Waiting,
    /// At least one of the watched connections was accepted, so they are not watched any more.
    Accepted,
}

/// What follows from a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The server hangs: nothing was accepted since then.
    Hangs {
        /// The first look at the connections that wait.
        since: BootNanos,
    },
    /// It accepts again.
    Accepts,
}

/// What is known of one server.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    /// When the watched connections were first seen to wait.
    since: Option<BootNanos>,
    hangs: bool,
    /// The last look.
    looked: BootNanos,
    /// How long connections have waited at least that were accepted then, and when that was.
    waited: Option<Waited>,
}

#[derive(Clone, Copy, Debug)]
struct Waited {
    time: Duration,
    end: BootNanos,
}

impl Backlog {
    /// Takes a look.
    pub fn on_look(&mut self, now: BootNanos, look: Look) -> Option<Change> {
        let looked = std::mem::replace(&mut self.looked, now);
        let late = now.since(looked) > LATE;
        if look == Look::Accepted
            && let Some(since) = self.since
        {
            self.remember(now, looked.since(since));
        }
        match look {
            Look::Empty | Look::Accepted => {
                self.since = None;
                std::mem::take(&mut self.hangs).then_some(Change::Accepts)
            }
            Look::First => {
                self.since = Some(now);
                None
            }
            Look::Waiting => {
                if late {
                    self.since = Some(now);
                }
                let since = self.since.filter(|_| !self.hangs)?;
                self.hangs = now.since(since) >= self.limit(now);
                self.hangs.then_some(Change::Hangs { since })
            }
        }
    }

    /// Connections were accepted that had waited for that long at the look before.
    fn remember(&mut self, now: BootNanos, time: Duration) {
        let recent = self.recent(now);
        if !time.is_zero() && recent.is_none_or(|longest| longest <= time) {
            self.waited = Some(Waited { time, end: now });
        }
    }

    fn recent(&self, now: BootNanos) -> Option<Duration> {
        let recent = self
            .waited
            .filter(|waited| now.since(waited.end) < MEMORY)?;
        Some(recent.time)
    }

    fn limit(&self, now: BootNanos) -> Duration {
        let busy = self.recent(now).unwrap_or_default().saturating_mul(BUSY);
        busy.clamp(LIMIT, BUSY_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    /// What follows from each of the looks, which are given with their times in milliseconds.
    fn after(looks: &[(u64, Look)]) -> Vec<Option<Change>> {
        let mut backlog = Backlog::default();
        let on_look = |(time, look): &(u64, Look)| backlog.on_look(at(*time), *look);
        looks.iter().map(on_look).collect()
    }

    #[test]
    fn server_hangs_after_100_ms_without_an_accepted_connection() {
        use Look::{Accepted, Empty, First, Waiting};
        let hangs = Some(Change::Hangs { since: at(50) });
        let looks = [
            (0, Empty),
            (50, First),
            (100, Waiting),
            (150, Waiting),
            (200, Waiting),
            (250, Accepted),
            (250, First),
            (300, Empty),
        ];
        let accepts = Some(Change::Accepts);
        assert_eq!(
            after(&looks),
            [None, None, None, hangs, None, accepts, None, None]
        );
    }

    #[test]
    fn server_that_accepts_one_in_time_does_not_hang() {
        use Look::{Accepted, First, Waiting};
        let looks = [
            (0, First),
            (50, Waiting),
            (99, Accepted),
            (99, First),
            (150, Waiting),
            (198, Accepted),
        ];
        assert_eq!(after(&looks), [None; 6]);
    }

    #[test]
    fn server_that_was_slow_a_moment_ago_has_more_time() {
        use Look::{Accepted, Empty, First, Waiting};
        let mut slow = vec![(0, First), (50, Waiting), (99, Accepted)];
        slow.extend([(99, First), (149, Waiting), (199, Waiting), (249, Waiting)]);
        slow.extend([(299, Waiting), (349, Waiting)]);
        let hangs = Some(Change::Hangs { since: at(99) });
        assert_eq!(after(&slow[..7]), [None; 7]);
        assert_eq!(after(&slow)[7..], [hangs, None]);
        // Long ago.
        slow.truncate(3);
        slow.extend([(10_050, Empty), (10_100, First), (10_150, Waiting)]);
        slow.push((10_200, Waiting));
        let hangs = Some(Change::Hangs { since: at(10_100) });
        assert_eq!(after(&slow).last(), Some(&hangs));
    }

    #[test]
    fn a_late_look_begins_anew() {
        use Look::{Empty, First, Waiting};
        let looks = [
            (0, Empty),
            (50, First),
            (400, Waiting),
            (450, Waiting),
            (500, Waiting),
        ];
        let hangs = Some(Change::Hangs { since: at(400) });
        assert_eq!(after(&looks), [None, None, None, None, hangs]);
    }

    #[test]
    fn a_late_look_does_not_end_a_hang() {
        use Look::{Accepted, First, Waiting};
        let looks = [
            (0, First),
            (50, Waiting),
            (100, Waiting),
            (900, Waiting),
            (950, Waiting),
            (1000, Accepted),
        ];
        let hangs = Some(Change::Hangs { since: at(0) });
        let accepts = Some(Change::Accepts);
        assert_eq!(after(&looks), [None, None, hangs, None, None, accepts]);
    }
}
