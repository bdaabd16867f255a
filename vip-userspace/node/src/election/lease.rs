//! The answer lease: until when the kernel answers for the VIP.

use std::time::Duration;

use vip_common::abi::LONGEST_LEASE;
use vip_common::wire::time::BootNanos;

/// How far ahead of now an agent sets its lease at most.
pub const MAX_LEASE: Duration = Duration::from_secs(4);

const _: () = assert!(MAX_LEASE.as_nanos() < LONGEST_LEASE.as_nanos());

/// The lease in force. It is renewed when half of the most is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    /// How far ahead of now it is set at most.
    max: Duration,
    answer_until: BootNanos,
}

impl Lease {
    /// There is none.
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

    /// One that lies in the map, as far as an agent can have set it: one that ends further ahead
    /// was no agent's.
    pub(crate) fn believable(self, now: BootNanos, until: BootNanos) -> BootNanos {
        if until > now.after(self.max) {
            BootNanos::ZERO
        } else {
            until
        }
    }

    /// When a lease is renewed that does not go as far as it might.
    pub(crate) const fn renewal(self) -> BootNanos {
        let half = Duration::from_nanos(self.max.as_nanos() as u64 / 2);
        self.answer_until.before(half)
    }

    /// Moves the lease towards `until`, in steps if that is far ahead. Returns its end if that is
    /// another one.
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

    /// Ends it. Returns its end if there was one.
    pub(crate) fn end(&mut self) -> Option<BootNanos> {
        self.set(BootNanos::ZERO)
    }

    fn set(&mut self, until: BootNanos) -> Option<BootNanos> {
        (std::mem::replace(&mut self.answer_until, until) != until).then_some(until)
    }
}
