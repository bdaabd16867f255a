//! The limit of new connections: one token bucket for each source.

use bytemuck::{Pod, Zeroable};

use crate::wire::time::BootNanos;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// The token bucket of a source.
///
/// It holds the time at which it will be full again, in nanoseconds since boot (the virtual
/// scheduling algorithm of ITU-T I.371, annex A). This is one word: if two CPUs change it at once,
/// one of the two connections is not counted, and nothing worse happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Bucket {
    full_at: u64,
}

impl Bucket {
    /// Whether the source may open one more connection at the time `now`. If so, it is counted.
    /// `rate` is the number of connections for each second, and also the largest burst; 0 counts
    /// as 1.
    #[inline(always)]
    pub fn admit(&mut self, rate: u32, now: BootNanos) -> bool {
        let rate = u64::from(if rate == 0 { 1 } else { rate });
        let each = SECOND / rate;
        let full_at = if self.full_at > now.0 {
            self.full_at
        } else {
            now.0
        };
        // A full bucket holds the connections of one second.
        if full_at + each > now.0 + SECOND {
            return false;
        }
        self.full_at = full_at + each;
        true
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_has_the_connections_of_a_second_and_then_the_rate_applies() {
        let start = BootNanos(5 * SECOND);
        let mut bucket = Bucket::default();
        let burst = (0..100).filter(|_| bucket.admit(10, start)).count();
        assert_eq!(burst, 10);
        let later = start.after(Duration::from_millis(250));
        assert_eq!((0..100).filter(|_| bucket.admit(10, later)).count(), 2);
    }

    proptest! {
        #[test]
        fn a_source_opens_no_more_than_the_rate_and_one_burst(
            rate in 1_u32..2000, steps in prop::collection::vec(0_u64..50_000_000, 1..400),
        ) {
            let mut bucket = Bucket::default();
            let mut now = BootNanos(SECOND);
            let mut admitted = 0;
            let mut offered_evenly = 0;
            for step in &steps {
                now = now.after(Duration::from_nanos(*step));
                admitted += u64::from(bucket.admit(rate, now));
                offered_evenly += 1;
            }
            let seconds = now.0 - SECOND;
            // Rounding of `each` gives a little more than the rate, never a thousandth.
            let most = u64::from(rate) + u64::from(rate) * seconds / SECOND + 2 + seconds / SECOND * u64::from(rate) / 1000;
            prop_assert!(admitted <= most, "{} of {} in {} ns", admitted, offered_evenly, seconds);
        }
    }
}
