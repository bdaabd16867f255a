//! Nodes that pause one after the other, and what agents may say of them.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use vip_tests::clock::boot_now;

use crate::failover::kinds::Profile;
use crate::failover::setup::Setup;

/// What pauses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pause {
    /// Daemons and API server of a node are stopped; its kernel runs on.
    Processes,
    /// The daemons only.
    Daemons,
    /// The node's port of the switch, whose carrier stays up.
    Port,
}

/// What an agent says of another node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    /// Nothing on it answers.
    Away,
    /// Its clients are told, or were.
    Gone,
    /// Its server does not answer.
    Hung,
}

/// Between two pauses: all sessions are up again.
const APART: Duration = Duration::from_secs(3);

/// After a pause, what agents say may be its consequence for so long.
const LATE: Duration = Duration::from_secs(3);

/// How long all of a host stops, as a hypervisor does it.
const STOPS: &[Duration] = &[ms(20), ms(50), ms(100), ms(200), ms(500)];

/// How long a port is disabled.
const OUTAGES: &[Duration] = &[
    ms(50),
    ms(100),
    ms(150),
    ms(300),
    ms(500),
    ms(1000),
    ms(2000),
];

/// A server that does not answer for so long may be said to hang.
const HANGS_AFTER: Duration = ms(100);

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A pause that has happened. Times are boot-time nanoseconds.
struct Happened {
    node: usize,
    from: u64,
    to: u64,
}

/// The pauses of a cluster.
pub(super) struct Pauses {
    profile: Profile,
    kind: Option<Pause>,
    happened: Vec<Happened>,
}

impl Pauses {
    pub(super) fn new(profile: Profile, kind: Option<Pause>) -> Self {
        Self {
            profile,
            kind,
            happened: Vec::new(),
        }
    }

    /// Lets nodes pause until the time is over, or only waits.
    pub(super) fn go_on_for(&mut self, setup: &mut Setup, time: Duration) -> Result<()> {
        let begin = Instant::now();
        let left = || time.saturating_sub(begin.elapsed());
        let Some(kind) = self.kind else {
            std::thread::sleep(left());
            return Ok(());
        };
        let nodes = setup.cluster.nodes();
        while !left().is_zero() {
            // All nodes take a duration in turn, then the next one.
            let turn = self.happened.len();
            let node = nodes[turn % nodes.len()];
            let lasts = kind.durations()[turn / nodes.len() % kind.durations().len()];
            let from = boot_now();
            kind.set(setup, node, false)?;
            std::thread::sleep(lasts);
            kind.set(setup, node, true)?;
            let to = boot_now();
            self.happened.push(Happened { node, from, to });
            std::thread::sleep(left().min(APART));
        }
        Ok(())
    }

    /// Whether an agent may say that of a node at a time (boot-time nanoseconds).
    pub(super) fn justify(&self, claim: Claim, node: usize, at: u64) -> bool {
        let least = self.kind.and_then(|kind| kind.least(claim, self.profile));
        least.is_some_and(|least| {
            self.happened.iter().any(|pause| {
                let lasted = Duration::from_nanos(pause.to - pause.from);
                let until = pause.to + LATE.as_nanos() as u64;
                pause.node == node && lasted >= least && (pause.from..until).contains(&at)
            })
        })
    }
}

impl Pause {
    fn durations(self) -> &'static [Duration] {
        match self {
            Self::Processes | Self::Daemons => STOPS,
            Self::Port => OUTAGES,
        }
    }

    /// How long a pause must last at least for a claim to be true of the node; `None` if it is never
    /// true, since the kernel answers, or the server.
    fn least(self, claim: Claim, profile: Profile) -> Option<Duration> {
        match (self, claim) {
            (Self::Daemons, Claim::Away | Claim::Gone | Claim::Hung)
            | (Self::Processes, Claim::Away | Claim::Gone) => None,
            (Self::Processes | Self::Port, Claim::Hung) => Some(HANGS_AFTER),
            (Self::Port, Claim::Away) => Some(away_after(profile)),
            // Less what was heard before the pause.
            (Self::Port, Claim::Gone) => Some(profile.reset_after() - ms(100)),
        }
    }

    fn set(self, setup: &mut Setup, node: usize, goes_on: bool) -> Result<()> {
        if self == Self::Port {
            return setup.cluster.host(node).port_forwards(goes_on);
        }
        let signal = if goes_on {
            Signal::SIGCONT
        } else {
            Signal::SIGSTOP
        };
        for pid in setup.daemons(node)? {
            kill(pid, signal)?;
        }
        if self == Self::Processes {
            setup.cluster.signal_server(node, signal);
        }
        Ok(())
    }
}

/// The shortest outage after which a node may be away: two of three BFD intervals are left of the
/// detection time, and three questions are asked.
fn away_after(profile: Profile) -> Duration {
    let interval = profile.bfd_interval();
    interval * 2 + interval.max(ms(20)) * 2
}
