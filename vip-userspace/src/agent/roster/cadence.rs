//! When to scan this node's connections.

use std::fs;
use std::time::Duration;

use vip_common::wire::time::BootNanos;

/// From one scan to the next while clients connect by a VIP.
const BUSY: Duration = Duration::from_millis(100);

/// The same while others do: other nodes bring their programs' connections to this node's own address.
/// But connections of any other program count, too.
const OTHERS: Duration = Duration::from_millis(300);

/// The same while none come: some end, and numbers move on.
const AT_REST: Duration = Duration::from_secs(1);

/// A scan takes 1 % of the time of a core at most, however many connections there are.
const SHARE: u32 = 100;

/// What has come so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Arrived {
    /// SYNs to the VIPs that this node has kept.
    pub(super) syns: u64,
    /// Connections that any program of this node has accepted.
    pub(super) opened: u64,
}

/// The time of the next scan.
pub(super) struct Cadence {
    /// When the last one began, and what it took.
    last: Option<(BootNanos, Duration)>,
    /// What had come by then.
    arrived: Arrived,
}

impl Cadence {
    pub(super) fn new() -> Self {
        Self {
            last: None,
            arrived: Arrived::default(),
        }
    }

    /// Whether a scan is due.
    pub(super) fn is_due(&self, now: BootNanos, arrived: Arrived) -> bool {
        let Some((begun, took)) = self.last else {
            return true;
        };
        let wait = if arrived.syns != self.arrived.syns {
            BUSY
        } else if arrived.opened != self.arrived.opened {
            OTHERS
        } else {
            AT_REST
        };
        now.since(begun) >= wait.max(took * SHARE)
    }

    /// A scan that began at this time took so long. `arrived`: as it was before it.
    pub(super) fn scanned(&mut self, begun: BootNanos, took: Duration, arrived: Arrived) {
        self.last = Some((begun, took));
        self.arrived = arrived;
    }
}

/// Connections that programs of this thread's network namespace have accepted (`PassiveOpens` of
/// RFC 4022, in `/proc/net/snmp`); 0 where the kernel does not tell.
pub(super) fn accepted() -> u64 {
    let table = fs::read_to_string("/proc/thread-self/net/snmp").unwrap_or_default();
    passive_opens(&table).unwrap_or(0)
}

/// A line of names, and one of values.
fn passive_opens(table: &str) -> Option<u64> {
    let mut lines = table.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(name, _)| *name == "PassiveOpens")?;
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_follow_connections_and_take_little_time() {
        let at =
            |milliseconds| BootNanos(1_000_000_000_000).after(Duration::from_millis(milliseconds));
        let arrived = |syns, opened| Arrived { syns, opened };
        let none = arrived(0, 0);
        let mut cadence = Cadence::new();
        assert!(cadence.is_due(at(0), none));
        cadence.scanned(at(0), Duration::from_millis(2), none);
        assert!(!cadence.is_due(at(999), none) && cadence.is_due(at(1000), none));
        let others = arrived(0, 1);
        assert!(!cadence.is_due(at(299), others) && cadence.is_due(at(300), others));
        let one = arrived(1, 1);
        assert!(!cadence.is_due(at(199), one) && cadence.is_due(at(200), one));
        cadence.scanned(at(1000), Duration::from_millis(30), one);
        let two = arrived(2, 2);
        assert!(!cadence.is_due(at(3999), two) && cadence.is_due(at(4000), two));
    }

    #[test]
    fn accepted_connections_are_counted_by_the_kernel() {
        let table = "Ip: Forwarding\nIp: 1\nTcp: RtoMin ActiveOpens PassiveOpens\nTcp: 200 3 14\n";
        assert_eq!(passive_opens(table), Some(14));
        assert_eq!(passive_opens("Ip: Forwarding\nIp: 1\n"), None);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
        let before = accepted();
        let at = listener.local_addr().expect("bound");
        let _client = std::net::TcpStream::connect(at).expect("connects");
        let _server = listener.accept().expect("accepts");
        assert!(accepted() > before);
    }
}
