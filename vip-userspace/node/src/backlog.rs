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
}

impl Backlog {
    /// Takes a look.
    pub fn on_look(&mut self, now: BootNanos, look: Look) -> Option<Change> {
        let late = now.since(std::mem::replace(&mut self.looked, now)) > LATE;
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
                self.hangs = now.since(since) >= LIMIT;
                self.hangs.then_some(Change::Hangs { since })
            }
        }
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
