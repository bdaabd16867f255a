//! When to scan this node's connections.

use std::time::Duration;

use vip_common::wire::time::BootNanos;

/// From one scan to the next while connections come.
const BUSY: Duration = Duration::from_millis(100);

/// The same while none come: some end, and numbers move on.
const AT_REST: Duration = Duration::from_secs(1);

/// A scan takes 2 % of the time of a core at most, however many connections there are.
const SHARE: u32 = 50;

/// The time of the next scan.
pub(super) struct Cadence {
    /// When the last one began, and what it took.
    last: Option<(BootNanos, Duration)>,
    /// SYNs that this node had kept then.
    syns: u64,
}

impl Cadence {
    pub(super) const fn new() -> Self {
        Self {
            last: None,
            syns: 0,
        }
    }

    /// Whether a scan is due. `syns`: those that this node has kept by now.
    pub(super) fn is_due(&self, now: BootNanos, syns: u64) -> bool {
        let Some((begun, took)) = self.last else {
            return true;
        };
        let wait = if syns == self.syns { AT_REST } else { BUSY };
        now.since(begun) >= wait.max(took * SHARE)
    }

    /// A scan that began at this time took so long. `syns`: as they were before it.
    pub(super) fn scanned(&mut self, begun: BootNanos, took: Duration, syns: u64) {
        self.last = Some((begun, took));
        self.syns = syns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_follow_connections_and_take_little_time() {
        let at =
            |milliseconds| BootNanos(1_000_000_000_000).after(Duration::from_millis(milliseconds));
        let mut cadence = Cadence::new();
        assert!(cadence.is_due(at(0), 0));
        cadence.scanned(at(0), Duration::from_millis(2), 0);
        assert!(!cadence.is_due(at(999), 0) && cadence.is_due(at(1000), 0));
        assert!(!cadence.is_due(at(99), 1) && cadence.is_due(at(100), 1));
        cadence.scanned(at(1000), Duration::from_millis(30), 1);
        assert!(!cadence.is_due(at(2400), 2) && cadence.is_due(at(2500), 2));
    }
}
