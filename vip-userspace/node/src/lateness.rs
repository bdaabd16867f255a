//! A node that runs late, and how much longer its timers are meanwhile.
//!
//! Peers expect a packet within `detect_mult` BFD intervals, and the lease ends half an interval
//! before that. So there are `detect_mult` - 1.5 intervals, the *margin*, from the time at which a
//! packet is due to the end of the lease. A node that wakes up late spends them. It asks its peers
//! to wait for longer: each interval of its own packets becomes longer by a number of base
//! intervals, and the margin by as many margins. Then a node that is late by these has the margin
//! of a node that is on time.
//!
//! Only the node's own packets are concerned. It reads all packets that wait before it looks at the
//! clock, so that it never finds a peer silent for being late itself.

use std::time::Duration;

use vip_common::wire::time::BootNanos;

use crate::input::{Params, Tuning};

/// How much longer intervals become, in base intervals. Few steps, since each change is a Poll
/// sequence with each peer.
const STEPS: [u32; 5] = [0, 1, 2, 4, 7];

/// How many times longer than the base interval the interval becomes at most.
pub const MAX_SLOWDOWN: u32 = 8;

const _: () = assert!(STEPS[STEPS.len() - 1] + 1 == MAX_SLOWDOWN);

/// How long a node must be on time before its timers become shorter by a step; and the same in base
/// intervals, for slow timers.
const HOLD: Duration = Duration::from_secs(10);
const HOLD_INTERVALS: u32 = 200;

/// How late a node is, and what follows.
#[derive(Clone, Debug)]
pub(crate) struct Lateness {
    /// The shortest interval: of BFD packets, or, without BFD, of advertisements.
    base: Duration,
    /// From the time at which a packet is due to the end of the lease.
    margin: Duration,
    /// The steps in use.
    steps: &'static [u32],
    step: usize,
    /// The latest that it was since the last change.
    worst: Duration,
    /// When the step may be lowered.
    until: BootNanos,
}

impl Lateness {
    /// On time.
    pub(crate) fn new(params: &Params) -> Self {
        let (base, margin) = base_and_margin(&params.tuning());
        let allowed = STEPS.partition_point(|extra| *extra < params.max_slowdown.max(1));
        Self {
            base,
            margin,
            steps: &STEPS[..allowed],
            step: 0,
            worst: Duration::ZERO,
            until: BootNanos::ZERO,
        }
    }

    /// Other timers. How many times longer they are stays as it is.
    pub(crate) fn tune(&mut self, tuning: &Tuning) {
        (self.base, self.margin) = base_and_margin(tuning);
    }

    /// The node runs, and should have run `late` ago. Returns whether intervals change.
    pub(crate) fn on_wake(&mut self, now: BootNanos, late: Duration) -> bool {
        let needed = (0..self.steps.len()).find(|step| late <= self.covered_by(*step));
        let Some(needed) = needed else {
            // A pause (a suspended or frozen host), against which longer timers do not help.
            return false;
        };
        if needed > 0 {
            self.worst = self.worst.max(late);
        }
        if needed >= self.step.max(1) {
            self.until = now.after(HOLD.max(self.base * HOLD_INTERVALS));
            return std::mem::replace(&mut self.step, needed) != needed;
        }
        let shortens = self.step > 0 && now >= self.until;
        if shortens {
            self.step -= 1;
            self.until = now.after(HOLD.max(self.base * HOLD_INTERVALS));
        }
        shortens
    }

    /// The latest that the node was since this was asked last.
    pub(crate) fn take_worst(&mut self) -> Duration {
        std::mem::take(&mut self.worst)
    }

    /// By how much all intervals of its packets are longer than configured.
    pub(crate) fn extra(&self) -> Duration {
        self.base * self.steps[self.step]
    }

    /// How late it may be without a shorter margin than that of a node on time.
    pub(crate) fn covered(&self) -> Duration {
        self.covered_by(self.step)
    }

    /// The same for a step; at the first, a third of the margin is no reason for a change.
    fn covered_by(&self, step: usize) -> Duration {
        match self.steps[step] {
            0 => self.margin / 3,
            extra => self.margin * extra,
        }
    }
}

/// The shortest interval, and the margin of a node on time.
fn base_and_margin(tuning: &Tuning) -> (Duration, Duration) {
    let adverts = tuning.vrrp.interval.duration();
    let (base, multiplier) = tuning.bfd.map_or((adverts, 3), |bfd| {
        // Advertisements have the margin of a multiplier of three.
        (bfd.interval.min(adverts), bfd.detect_mult.get().clamp(2, 3))
    });
    (base, base * (2 * u32::from(multiplier) - 3) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, params};

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn node_that_is_late_has_the_margin_of_one_on_time() {
        let mut lateness = Lateness::new(&params(0, true));
        assert!(!lateness.on_wake(at(0), MS(25)), "within the margin");
        for (late, extra) in [(26, 50), (75, 50), (83, 100), (151, 200), (301, 350)] {
            let changes = extra != lateness.extra().as_millis();
            assert_eq!(lateness.on_wake(at(0), MS(late)), changes);
            assert_eq!(lateness.extra(), MS(extra as u64), "{late} ms late");
            // Three intervals less half of one, and less the time until the packet is sent.
            let interval = MS(50) + lateness.extra();
            let margin = interval * 3 - interval / 2 - interval - MS(late);
            assert!(margin >= MS(75));
        }
        assert_eq!(lateness.take_worst(), MS(301));
    }

    #[test]
    fn timers_become_shorter_a_step_at_a_time() {
        let mut lateness = Lateness::new(&params(0, true));
        assert!(lateness.on_wake(at(0), MS(160)));
        assert!(!lateness.on_wake(at(9999), MS(100)));
        // That demands less: in ten seconds it is 100 ms.
        assert!(lateness.on_wake(at(10_000), MS(90)));
        assert_eq!(lateness.extra(), MS(100));
        assert!(!lateness.on_wake(at(15_000), MS(90)), "as late as that");
        assert!(!lateness.on_wake(at(24_999), Duration::ZERO));
        let changes: Vec<u64> = (25_000..60_000)
            .filter(|ms| lateness.on_wake(at(*ms), Duration::ZERO))
            .collect();
        assert_eq!(changes, [25_000, 35_000]);
        assert_eq!(lateness.extra(), Duration::ZERO);
    }

    #[test]
    fn pause_is_not_lateness() {
        let mut lateness = Lateness::new(&params(0, true));
        assert!(!lateness.on_wake(at(0), MS(526)));
        assert!(lateness.on_wake(at(0), MS(525)));
        assert_eq!(lateness.extra(), MS(350));
    }

    #[test]
    fn timers_are_not_lengthened_where_that_is_not_allowed() {
        for (most, extra) in [(0, 0), (1, 0), (2, 50), (4, 100), (8, 350)] {
            let mut lateness = Lateness::new(&Params {
                max_slowdown: most,
                ..params(0, true)
            });
            for late in 0..600 {
                lateness.on_wake(at(0), MS(late));
            }
            assert_eq!(lateness.extra(), MS(extra), "{most}");
        }
    }
}
