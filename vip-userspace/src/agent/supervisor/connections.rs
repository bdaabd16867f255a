//! How many connections to the VIPs this node's servers have open, and when to count them.

use std::time::Duration;

use vip_common::abi::BackendCounters;
use vip_common::wire::time::BootNanos;

/// From one count to the next while segments come. A count walks the kernel's whole socket table,
/// which takes some 0.5 ms a port and family.
const EVERY: Duration = Duration::from_secs(4);

/// The same while none come: then only a server ends connections, or the node's own programs open some.
const AT_REST: Duration = Duration::from_secs(60);

/// The last count.
#[derive(Default)]
pub(super) struct Connections {
    /// Those that were open; `None` while the kernel cannot be asked.
    pub(super) open: Option<u32>,
    /// When it began; `None` before the first one.
    begun: Option<BootNanos>,
    /// What this node's stack had got at that time.
    got: BackendCounters,
    under_way: bool,
}

impl Connections {
    /// Begins a count, if one is due. `got`: what this node's stack has got by now.
    pub(super) fn begin(&mut self, now: BootNanos, got: BackendCounters) -> bool {
        let wait = if got == self.got { AT_REST } else { EVERY };
        let is_due = !self.under_way && self.begun.is_none_or(|begun| now.since(begun) >= wait);
        if is_due {
            *self = Self {
                open: self.open,
                begun: Some(now),
                got,
                under_way: true,
            };
        }
        is_due
    }

    /// A count has ended; `None`: the kernel could not be asked.
    pub(super) fn end(&mut self, open: Option<u32>) {
        self.under_way = false;
        self.open = open;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_counted_while_segments_come_and_seldom_otherwise() {
        let at = |seconds| BootNanos(1_000_000_000_000).after(Duration::from_secs(seconds));
        let mut connections = Connections::default();
        let none = BackendCounters::default();
        let got = |segments| BackendCounters { segments, ..none };
        for (second, got, due) in [
            (0, none, true),
            (2, got(1), false),
            (4, got(1), true),
            (8, got(1), false),
            (63, got(1), false),
            (64, got(1), true),
            (68, got(2), true),
        ] {
            assert_eq!(connections.begin(at(second), got), due, "{second}");
            if due {
                assert!(!connections.begin(at(1000), got), "one is under way");
                connections.end(Some(7));
            }
        }
        assert_eq!(connections.open, Some(7));
    }
}
