//! When to scan this node's connections.

use std::time::Duration;

use vip_common::wire::time::BootNanos;

/// From one scan to the next: numbers move on, and a change may have been missed.
const INTERVAL: Duration = Duration::from_secs(1);

/// A scan takes 1 % of the time of a core at most, however many connections there are.
const SHARE: u32 = 100;

/// The time of the next scan.
pub(super) struct Cadence(BootNanos);

impl Cadence {
    pub(super) const fn new() -> Self {
        Self(BootNanos::ZERO)
    }

    /// Whether a scan is due.
    pub(super) fn is_due(&self, now: BootNanos) -> bool {
        self.0 <= now
    }

    /// A scan that began at this time took so long.
    pub(super) fn scanned(&mut self, begun: BootNanos, took: Duration) {
        self.0 = begun.after(INTERVAL.max(took * SHARE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_take_little_time() {
        let at =
            |milliseconds| BootNanos(1_000_000_000_000).after(Duration::from_millis(milliseconds));
        let mut cadence = Cadence::new();
        assert!(cadence.is_due(at(0)));
        cadence.scanned(at(0), Duration::from_millis(2));
        assert!(!cadence.is_due(at(999)) && cadence.is_due(at(1000)));
        cadence.scanned(at(1000), Duration::from_millis(90));
        assert!(!cadence.is_due(at(9999)) && cadence.is_due(at(10_000)));
    }
}
