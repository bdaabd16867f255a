//! The answer lease: until when the kernel answers for the VIP.

use std::time::Duration;

use vip_common::abi::LONGEST_LEASE;
use vip_common::wire::time::BootNanos;

/// How far ahead an agent sets its lease at most.
pub const MAX_LEASE: Duration = Duration::from_secs(4);

const _: () = assert!(MAX_LEASE.as_nanos() < LONGEST_LEASE.as_nanos());

/// The lease in force. A long one is renewed when half of the greatest length is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    /// How far ahead it is set at most.
    max: Duration,
    answer_until: BootNanos,
}

impl Lease {
    /// No lease.
    pub(crate) const fn new(max: Duration) -> Self {
        Self {
            max,
            answer_until: BootNanos::ZERO,
        }
    }

    /// Until when this node answers.
    pub(crate) const fn answer_until(self) -> BootNanos {
        self.answer_until
    }

    /// The end of a lease that was found in the map. Zero if it ends further ahead than an agent
    /// would have set it.
    pub(crate) fn believable(self, now: BootNanos, until: BootNanos) -> BootNanos {
        if until > now.after(self.max) {
            BootNanos::ZERO
        } else {
            until
        }
    }

    /// When to renew a lease that could end later than it does.
    pub(crate) const fn renewal(self) -> BootNanos {
        let half = Duration::from_nanos(self.max.as_nanos() as u64 / 2);
        self.answer_until.before(half)
    }

    /// When to renew it at the latest, if nothing else happens before: a quarter of the greatest
    /// length before its end. The end of time if there is none.
    pub(crate) fn last_renewal(self) -> BootNanos {
        if self.answer_until == BootNanos::ZERO {
            BootNanos(u64::MAX)
        } else {
            self.answer_until.before(self.max / 4)
        }
    }

    /// Sets the end to `until`, or, if that is too far ahead, as far ahead as allowed. Returns the
    /// new end if it changed.
    pub(crate) fn renew(&mut self, now: BootNanos, until: BootNanos) -> Option<BootNanos> {
        let furthest = now.after(self.max);
        if until <= furthest {
            self.set(until)
        } else if self.renewal() <= now {
            self.set(furthest)
        } else {
            None
        }
    }

    /// Ends it. Returns the new end, zero, if there was a lease.
    pub(crate) fn end(&mut self) -> Option<BootNanos> {
        self.set(BootNanos::ZERO)
    }

    fn set(&mut self, until: BootNanos) -> Option<BootNanos> {
        (std::mem::replace(&mut self.answer_until, until) != until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::at;

    const MAX: Duration = Duration::from_secs(4);

    #[test]
    fn lease_that_ends_further_ahead_than_an_agent_sets_it_is_not_believed() {
        let lease = Lease::new(MAX);
        assert_eq!(lease.believable(at(0), at(4000)), at(4000));
        assert_eq!(lease.believable(at(0), at(4001)), BootNanos::ZERO);
    }

    #[test]
    fn lease_ends_once() {
        let mut lease = Lease::new(MAX);
        assert_eq!(lease.end(), None);
        assert_eq!(lease.renew(at(0), at(250)), Some(at(250)));
        assert_eq!(lease.renew(at(10), at(250)), None, "it ends there already");
        assert_eq!(lease.end(), Some(BootNanos::ZERO));
        assert_eq!(lease.end(), None);
    }

    #[test]
    fn long_lease_is_renewed_when_half_of_the_most_is_left() {
        let mut lease = Lease::new(MAX);
        assert_eq!(lease.renew(at(0), at(60_000)), Some(at(4000)));
        assert_eq!(lease.renewal(), at(2000));
        assert_eq!(lease.renew(at(1999), at(60_000)), None);
        assert_eq!(lease.renew(at(2000), at(60_000)), Some(at(6000)));
    }

    proptest! {
        #[test]
        fn lease_ends_neither_too_far_ahead_nor_after_its_limit(
            steps in prop::collection::vec((0_u64..3000, 0_u64..100_000), 1..40),
        ) {
            let mut lease = Lease::new(MAX);
            let mut now = 0;
            for (pause, ahead) in steps {
                now += pause;
                let before = lease.answer_until();
                let (until, set) = (at(now + ahead), lease.renew(at(now), at(now + ahead)));
                prop_assert_eq!(set, (lease.answer_until() != before).then(|| lease.answer_until()));
                if set.is_some() {
                    prop_assert!(lease.answer_until() <= until.min(at(now).after(MAX)));
                }
                // It never needs to be renewed in the past.
                prop_assert!(lease.renewal() > at(now) || lease.answer_until() == until);
            }
        }
    }
}
