//! Whether a server accepts connections, by its accept queue.
//!
//! The kernel completes TCP's handshake for the server and puts the connection into the listener's
//! accept queue, which is first in, first out. Those that wait at a first look are watched: while
//! all of them still wait, nothing was accepted. A server that is only slow accepts some of them.
//!
//! A server that gets no processor accepts nothing either, and does not hang. Linux counts the time
//! in which a process waits for a processor (pressure stall information). A server that could run
//! would have run when nobody waited, so some of that time must pass too.

use std::time::Duration;

use vip_common::wire::time::BootNanos;

/// Time between two looks.
pub const INTERVAL: Duration = Duration::from_millis(25);

/// How long nothing is accepted until the server counts as one that hangs: four intervals, less
/// what the fifth look may come early.
const LIMIT: Duration = Duration::from_millis(95);

/// For how much of that no process waited for a processor, at least.
const CALM: Duration = Duration::from_millis(10);

/// How long nothing is accepted until the server counts as one that hangs on a machine where a
/// process waits for a processor all the time.
const STARVED_LIMIT: Duration = Duration::from_secs(1);

/// A look that comes later than that after the one before says nothing about the server: this
/// machine was too busy to look, so it may have been too busy to serve.
const LATE: Duration = INTERVAL.saturating_mul(4);

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

/// When a look is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// The time.
    pub now: BootNanos,
    /// For how long some process of this machine has waited for a processor until now; zero where
    /// the kernel does not say. Not used while no connection waits.
    pub stalled: Duration,
}

impl Moment {
    /// Whether a server hangs that has accepted nothing since an earlier moment.
    fn proves_hang(self, since: Self) -> bool {
        let waited = self.now.since(since.now);
        let calm = waited.saturating_sub(self.stalled.saturating_sub(since.stalled));
        waited >= STARVED_LIMIT || waited >= LIMIT && calm >= CALM
    }
}

/// What is known of one server.
#[derive(Clone, Debug, Default)]
pub struct Backlog {
    /// When the watched connections were first seen to wait.
    since: Option<Moment>,
    hangs: bool,
    /// The last look.
    looked: BootNanos,
}

impl Backlog {
    /// Takes a look.
    pub fn on_look(&mut self, moment: Moment, look: Look) -> Option<Change> {
        let late = moment
            .now
            .since(std::mem::replace(&mut self.looked, moment.now))
            > LATE;
        match look {
            Look::Empty | Look::Accepted => {
                self.since = None;
                std::mem::take(&mut self.hangs).then_some(Change::Accepts)
            }
            Look::First => {
                self.since = Some(moment);
                None
            }
            Look::Waiting => {
                if late {
                    self.since = Some(moment);
                }
                let since = self.since.filter(|_| !self.hangs)?;
                self.hangs = moment.proves_hang(since);
                self.hangs.then_some(Change::Hangs { since: since.now })
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
        let calm = looks.iter().map(|(time, look)| (*time, 0, *look));
        after_stalls(&calm.collect::<Vec<_>>())
    }

    /// The same, with the milliseconds until then in which a process waited for a processor.
    fn after_stalls(looks: &[(u64, u64, Look)]) -> Vec<Option<Change>> {
        let mut backlog = Backlog::default();
        let on_look = |(time, stalled, look): &(u64, u64, Look)| {
            let now = at(*time);
            let stalled = Duration::from_millis(*stalled);
            backlog.on_look(Moment { now, stalled }, *look)
        };
        looks.iter().map(on_look).collect()
    }

    #[test]
    fn server_without_a_processor_does_not_hang() {
        use Look::{Accepted, First, Waiting};
        let looks = [
            (0, 1000, First),
            (50, 1050, Waiting),
            (100, 1098, Waiting),
            (150, 1146, Waiting),
            (200, 1194, Accepted),
        ];
        assert_eq!(after_stalls(&looks), [None; 5]);
    }

    #[test]
    fn server_that_did_not_use_a_free_processor_hangs() {
        use Look::{First, Waiting};
        let looks = [
            (0, 1000, First),
            (50, 1046, Waiting),
            (100, 1092, Waiting),
            (150, 1138, Waiting),
        ];
        let hangs = Some(Change::Hangs { since: at(0) });
        assert_eq!(after_stalls(&looks), [None, None, None, hangs]);
    }

    #[test]
    fn server_hangs_after_a_second_on_a_machine_that_is_never_calm() {
        use Look::{First, Waiting};
        let mut looks = vec![(0, 0, First)];
        looks.extend((1..=20).map(|n| (n * 50, n * 50, Waiting)));
        let changes = after_stalls(&looks);
        let hangs = Some(Change::Hangs { since: at(0) });
        assert_eq!(changes.iter().position(Option::is_some), Some(20));
        assert_eq!(changes[20], hangs);
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
