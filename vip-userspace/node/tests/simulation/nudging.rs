//! What an agent of the simulation knows of the clients that it asks, and what came of it. Times are
//! units of the simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use vip_node::roster::Nudges;

/// Whose clients are asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// Those of a node that is gone.
    Of(usize),
    /// Those of this node, which was cut off.
    Own,
}

/// What an agent does for the clients of nodes that are gone.
#[derive(Default)]
pub(super) struct Nudging {
    pub(super) nudges: Nudges<Group>,
    pub(super) owns: bool,
    /// The nodes whose clients it asks, or would if it were the owner.
    pub(super) gone: BTreeSet<usize>,
    /// Since when BFD sessions are down, and which start of the agent there they were with.
    pub(super) down: BTreeMap<usize, (u64, u64)>,
    /// Counts plans, so that outdated ones can be ignored.
    pub(super) turn: u64,
}

impl Nudging {
    /// The agent starts, and knows nothing.
    pub(super) fn restart(&mut self) {
        *self = Self {
            turn: self.turn + 1,
            ..Self::default()
        };
    }
}

/// A client whose node has lost its power.
#[derive(Clone, Copy)]
pub(super) struct Stranded {
    pub(super) port: u16,
    pub(super) holder: usize,
    /// When that was.
    pub(super) since: u64,
    /// The number of the trouble that this was, if the cluster was healthy until then.
    pub(super) alone: Option<u64>,
}

/// What came of asking.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) nudges: u64,
    /// Of clients of nodes that live, and of others.
    pub(super) answers: [u64; 2],
    /// The same, where the answer was reset.
    pub(super) resets: [u64; 2],
    /// Nodes all of whose clients had to be told by a certain time.
    pub(super) deaths: u64,
    /// The longest time from a loss of power to a reset if nothing else happened, in units.
    pub(super) slowest: f64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.nudges += other.nudges;
        for of in 0..2 {
            self.answers[of] += other.answers[of];
            self.resets[of] += other.resets[of];
        }
        self.deaths += other.deaths;
        self.slowest = self.slowest.max(other.slowest);
    }

    pub(super) const fn are_many(&self) -> bool {
        let Self {
            answers, resets, ..
        } = self;
        self.nudges > 1_000 && answers[0] > 1_000 && resets[1] > 100
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            nudges,
            answers,
            resets,
            deaths,
            slowest,
        } = self;
        write!(
            f,
            "{nudges} nudges; answers for living connections: {}, of which {} were reset where nodes \
             were cut off or late, or packets lost; for lost ones: {}, of which {} were reset; {deaths} nodes died alone, and their \
             last client was reset after {slowest:.1} units at most",
            answers[0], resets[0], answers[1], resets[1]
        )
    }
}
