//! When to scan this node's connections.

use std::time::Duration;

use vip_common::wire::time::BootNanos;

/// From one scan to the next: numbers move on, and a change may have been missed.
const INTERVAL: Duration = Duration::from_secs(1);

/// A scan takes 1 % of the time of a core at most, however many connections there are.
const SHARE: u32 = 100;

/// When scans are due.
pub(super) struct Cadence {
    /// The next one, whatever happens.
    next: BootNanos,
    /// Not before this.
    earliest: BootNanos,
    /// Changes were lost since the last one: only a scan tells.
    is_behind: bool,
}

impl Cadence {
    pub(super) const fn new() -> Self {
        Self {
            next: BootNanos::ZERO,
            earliest: BootNanos::ZERO,
            is_behind: false,
        }
    }

    /// Changes were lost.
    pub(super) fn lost(&mut self) {
        self.is_behind = true;
    }

    /// Whether a scan is due.
    pub(super) fn is_due(&self, now: BootNanos) -> bool {
        let from = if self.is_behind {
            self.earliest
        } else {
            self.next
        };
        from <= now
    }

    /// A scan that began at this time took so long.
    pub(super) fn scanned(&mut self, begun: BootNanos, took: Duration) {
        self.earliest = begun.after(took * SHARE);
        self.next = self.earliest.max(begun.after(INTERVAL));
        self.is_behind = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> BootNanos {
        BootNanos(1_000_000_000_000).after(Duration::from_millis(milliseconds))
    }

    #[test]
    fn scans_take_little_time() {
        let mut cadence = Cadence::new();
        assert!(cadence.is_due(at(0)));
        cadence.scanned(at(0), Duration::from_millis(2));
        assert!(!cadence.is_due(at(999)) && cadence.is_due(at(1000)));
        cadence.scanned(at(1000), Duration::from_millis(90));
        assert!(!cadence.is_due(at(9999)) && cadence.is_due(at(10_000)));
    }

    #[test]
    fn a_flood_of_changes_costs_no_more_scans_than_there_is_time_for() {
        let mut cadence = Cadence::new();
        cadence.scanned(at(0), Duration::from_millis(2));
        cadence.lost();
        assert!(!cadence.is_due(at(199)) && cadence.is_due(at(200)));
        cadence.scanned(at(200), Duration::from_millis(2));
        assert!(!cadence.is_due(at(1199)) && cadence.is_due(at(1200)));
    }
}
