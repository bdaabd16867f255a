//! Whether a server accepts connections, by its accept queue.
//!
//! The kernel completes TCP's handshake for the server and puts the connection into the listener's
//! accept queue, which is first in, first out. Those that wait at a first look are watched: while
//! all of them still wait, nothing was accepted. A server that is only slow accepts some of them.
//!
//! A connection that is gone was not accepted for that: its client may have reset it, or an agent
//! (`reset_on_hang`, `vip drain --cut`). The kernel keeps it in the queue until the server accepts it,
//! and then shows it no more, except by the queue's length. So a server that hangs does so until a
//! connection has a process, or its queue is shorter than before.
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

/// The accept queue of one listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queue {
    /// Tells the listener from all others, also from those that are opened later.
    pub listener: u64,
    /// Connections in it, with those that were reset. Only the server takes one out.
    pub length: u32,
}

/// What became of a connection that waited in an accept queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It still waits.
    Waits,
    /// A process has it, or has closed it.
    Accepted,
    /// It was reset, or it was accepted and has ended since.
    Gone,
}

/// The result of a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look<'a> {
    /// The queues are empty.
    Empty,
    /// Connections wait that were not watched before. They are from now on. All queues.
    First(&'a [Queue]),
    /// The queues are not empty, and all connections in them were reset. All queues.
    Unseen(&'a [Queue]),
    /// All watched connections still wait.
    Waiting,
    /// At least one of the watched connections was accepted, so they are not watched any more.
    Accepted,
    /// At least one of them is gone, so they are not watched any more. Perhaps none was accepted.
    Gone,
}

impl Look<'_> {
    /// The look at watched connections.
    #[must_use]
    pub fn at(fates: &[Fate]) -> Self {
        if fates.contains(&Fate::Accepted) {
            Self::Accepted
        } else if fates.contains(&Fate::Gone) {
            Self::Gone
        } else {
            Self::Waiting
        }
    }
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
    /// Those that were not empty when all were listed last. During a hang, only those of them that
    /// were not when it began: the server may have another listener at the same port, which works.
    queues: Vec<Queue>,
    hangs: bool,
    /// The last look.
    looked: BootNanos,
}

impl Backlog {
    /// Of a server that was found to hang before.
    #[must_use]
    pub fn of_hang() -> Self {
        Self {
            hangs: true,
            ..Self::default()
        }
    }

    /// Whether the server hangs. All queues must be listed then, unless connections are watched.
    #[must_use]
    pub const fn hangs(&self) -> bool {
        self.hangs
    }

    /// Takes a look.
    pub fn on_look(&mut self, moment: Moment, look: Look<'_>) -> Option<Change> {
        let late = moment
            .now
            .since(std::mem::replace(&mut self.looked, moment.now))
            > LATE;
        match look {
            Look::Empty | Look::Accepted => {
                self.since = None;
                self.queues.clear();
                std::mem::take(&mut self.hangs).then_some(Change::Accepts)
            }
            Look::Gone => {
                self.since = None;
                None
            }
            Look::First(queues) | Look::Unseen(queues) => {
                self.since = matches!(look, Look::First(_)).then_some(moment);
                let accepts = self.hangs && self.is_shorter_in(queues);
                self.hangs &= !accepts;
                self.keep(queues);
                accepts.then_some(Change::Accepts)
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

    /// Whether a queue has become shorter, or its listener is no more.
    fn is_shorter_in(&self, queues: &[Queue]) -> bool {
        self.queues.iter().any(|before| {
            let after = queues.iter().find(|one| one.listener == before.listener);
            after.is_none_or(|after| after.length < before.length)
        })
    }

    fn keep(&mut self, queues: &[Queue]) {
        let before = std::mem::take(&mut self.queues);
        let hung = |queue: &Queue| before.iter().any(|one| one.listener == queue.listener);
        let all = !self.hangs || before.is_empty();
        let kept = queues.iter().filter(|queue| queue.length > 0);
        self.queues = kept.filter(|queue| all || hung(queue)).copied().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    /// The queue of a server's only listener.
    const fn queue(length: u32) -> Queue {
        let listener = 7;
        Queue { listener, length }
    }

    /// Connections wait that were not watched before.
    const FIRST: Look<'static> = Look::First(&[queue(3)]);

    /// What follows from each of the looks, which are given with their times in milliseconds.
    fn after(looks: &[(u64, Look<'_>)]) -> Vec<Option<Change>> {
        let calm = looks.iter().map(|(time, look)| (*time, 0, *look));
        after_stalls(&calm.collect::<Vec<_>>())
    }

    /// The same, with the milliseconds until then in which a process waited for a processor.
    fn after_stalls(looks: &[(u64, u64, Look<'_>)]) -> Vec<Option<Change>> {
        let mut backlog = Backlog::default();
        let on_look = |(time, stalled, look): &(u64, u64, Look<'_>)| {
            let now = at(*time);
            let stalled = Duration::from_millis(*stalled);
            backlog.on_look(Moment { now, stalled }, *look)
        };
        looks.iter().map(on_look).collect()
    }

    #[test]
    fn server_without_a_processor_does_not_hang() {
        use Look::{Accepted, Waiting};
        let looks = [
            (0, 1000, FIRST),
            (50, 1050, Waiting),
            (100, 1098, Waiting),
            (150, 1146, Waiting),
            (200, 1194, Accepted),
        ];
        assert_eq!(after_stalls(&looks), [None; 5]);
    }

    #[test]
    fn server_that_did_not_use_a_free_processor_hangs() {
        use Look::Waiting;
        let looks = [
            (0, 1000, FIRST),
            (50, 1046, Waiting),
            (100, 1092, Waiting),
            (150, 1138, Waiting),
        ];
        let hangs = Some(Change::Hangs { since: at(0) });
        assert_eq!(after_stalls(&looks), [None, None, None, hangs]);
    }

    #[test]
    fn server_hangs_after_a_second_on_a_machine_that_is_never_calm() {
        use Look::Waiting;
        let mut looks = vec![(0, 0, FIRST)];
        looks.extend((1..=20).map(|n| (n * 50, n * 50, Waiting)));
        let changes = after_stalls(&looks);
        let hangs = Some(Change::Hangs { since: at(0) });
        assert_eq!(changes.iter().position(Option::is_some), Some(20));
        assert_eq!(changes[20], hangs);
    }

    #[test]
    fn server_hangs_after_100_ms_without_an_accepted_connection() {
        use Look::{Accepted, Empty, Waiting};
        let hangs = Some(Change::Hangs { since: at(50) });
        let looks = [
            (0, Empty),
            (50, FIRST),
            (100, Waiting),
            (150, Waiting),
            (200, Waiting),
            (250, Accepted),
            (250, FIRST),
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
        use Look::{Accepted, Waiting};
        let looks = [
            (0, FIRST),
            (50, Waiting),
            (99, Accepted),
            (99, FIRST),
            (150, Waiting),
            (198, Accepted),
        ];
        assert_eq!(after(&looks), [None; 6]);
    }

    #[test]
    fn a_late_look_begins_anew() {
        use Look::{Empty, Waiting};
        let looks = [
            (0, Empty),
            (50, FIRST),
            (400, Waiting),
            (450, Waiting),
            (500, Waiting),
        ];
        let hangs = Some(Change::Hangs { since: at(400) });
        assert_eq!(after(&looks), [None, None, None, None, hangs]);
    }

    #[test]
    fn a_late_look_does_not_end_a_hang() {
        use Look::{Accepted, Waiting};
        let looks = [
            (0, FIRST),
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

    /// Looks until 100 ms, by which a server is found to hang.
    const HANG: [(u64, Look<'static>); 3] = [(0, FIRST), (50, Look::Waiting), (100, Look::Waiting)];

    /// What follows from looks at a server that was found to hang.
    fn after_hang(looks: &[(u64, Look<'_>)]) -> Vec<Option<Change>> {
        let all: Vec<_> = HANG.iter().chain(looks).copied().collect();
        after(&all).split_off(HANG.len())
    }

    const ACCEPTS: Option<Change> = Some(Change::Accepts);

    #[test]
    fn a_reset_ends_no_hang() {
        use Look::{First, Gone, Unseen, Waiting};
        // The agent resets all; probes and clients come; the agent resets them, too.
        let looks = [
            (1100, Gone),
            (1100, Unseen(&[queue(5)])),
            (1125, Unseen(&[queue(5)])),
            (1500, First(&[queue(6)])),
            (1525, Waiting),
            (1700, Waiting),
            (2000, Gone),
            (2000, First(&[queue(8)])),
            (2025, Waiting),
        ];
        assert_eq!(after_hang(&looks), [None; 9]);
    }

    #[test]
    fn a_hang_ends_when_a_queue_becomes_shorter_or_has_no_listener() {
        use Look::{Empty, First, Gone, Unseen};
        let gone = (1100, Gone);
        let unseen = (1100, Unseen(&[queue(5)]));
        let other = [Queue {
            listener: 8,
            length: 9,
        }];
        for accepts in [
            Empty,
            Unseen(&[queue(4)]),
            First(&[queue(4)]),
            First(&other),
        ] {
            let looks = [gone, unseen, (1125, accepts), (1150, Empty)];
            assert_eq!(after_hang(&looks), [None, None, ACCEPTS, None]);
        }
        let looks = [gone, unseen, (1125, Look::at(&[Fate::Accepted]))];
        assert_eq!(after_hang(&looks), [None, None, ACCEPTS]);
        // Fewer than when it was found to hang.
        let looks = [gone, (1100, First(&[queue(2)]))];
        assert_eq!(after_hang(&looks), [None, ACCEPTS]);
    }

    #[test]
    fn a_listener_beside_that_one_ends_no_hang() {
        use Look::{Gone, Unseen};
        let both = |length| {
            let listener = 8;
            [queue(5), Queue { listener, length }]
        };
        let (some, none) = (both(1), both(0));
        let looks = [(1100, Gone), (1100, Unseen(&some)), (1125, Unseen(&none))];
        assert_eq!(after_hang(&looks), [None; 3]);
    }

    #[test]
    fn a_connection_that_is_gone_begins_the_wait_anew() {
        use Look::{Gone, Waiting};
        let looks = [
            (0, FIRST),
            (50, Waiting),
            (75, Gone),
            (75, FIRST),
            (125, Waiting),
            (175, Waiting),
        ];
        let hangs = Some(Change::Hangs { since: at(75) });
        assert_eq!(after(&looks), [None, None, None, None, None, hangs]);
    }

    #[test]
    fn a_hang_that_was_found_before_lasts_until_the_server_accepts() {
        use Look::{Empty, Unseen};
        let now = at(0);
        let stalled = Duration::ZERO;
        let mut backlog = Backlog::of_hang();
        let looks = [Unseen(&[queue(2)]), FIRST, Unseen(&[queue(2)])];
        let changes = looks.map(|look| backlog.on_look(Moment { now, stalled }, look));
        assert_eq!(changes, [None, None, ACCEPTS]);
        let mut backlog = Backlog::of_hang();
        assert_eq!(backlog.on_look(Moment { now, stalled }, Empty), ACCEPTS);
    }

    #[test]
    fn one_connection_tells_of_all_that_are_watched() {
        use Fate::{Accepted, Gone, Waits};
        assert_eq!(Look::at(&[Waits, Waits]), Look::Waiting);
        assert_eq!(Look::at(&[Waits, Gone]), Look::Gone);
        assert_eq!(Look::at(&[Gone, Accepted, Waits]), Look::Accepted);
    }
}
