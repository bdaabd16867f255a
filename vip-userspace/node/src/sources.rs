//! The source MACs of other nodes' frames.
//!
//! A node that receives a forwarded frame goes on from its own rank. It recognizes such a frame by
//! its source MAC, which is mostly the one that ARP resolves to. But a bond of mode 5 or 6 sends by
//! each of its ports with the port's own MAC, and some hypervisors translate MACs. So this module
//! looks at frames that nodes send to each other anyway, and learns one more MAC for each node.
//! That is enough for a bond of two ports.
//!
//! If a node's MACs keep changing, an alarm is raised. Its frames are then steered like those of a
//! client: they end after N + 1 hops, but not always at their connection.

use std::fmt::Write as _;
use std::time::Duration;

use vip_common::abi::{BackendIndex, MAX_BACKENDS};
use vip_common::wire::addr::Mac;
use vip_common::wire::time::BootNanos;

/// Changes within [`WINDOW`] from which on a node's MACs count as unsettled. A cable that is moved
/// makes one, a bond that changes its active port twice a few.
const CHANGES: usize = 4;

/// Time in which changes are counted. MACs settle after as long without a change.
const WINDOW: Duration = Duration::from_secs(60);

/// The MACs of one node.
#[derive(Clone, Debug, Default)]
struct Node {
    /// The one that ARP or Neighbor Discovery resolves to.
    mac: Mac,
    /// Another one that its frames come from.
    source: Mac,
    /// Times of the last changes of `source`, the latest first.
    changes: Vec<BootNanos>,
    /// The last values of `source`, the latest first, for the alarm.
    seen: Vec<Mac>,
    unsettled: bool,
}

impl Node {
    fn has(&self, mac: Mac) -> bool {
        !mac.is_unknown() && (self.mac == mac || self.source == mac)
    }
}

/// The MACs of all other nodes.
#[derive(Clone, Debug)]
pub struct Sources {
    own: BackendIndex,
    nodes: [Node; MAX_BACKENDS],
    changes: u64,
}

impl Sources {
    /// No node's MAC is known.
    #[must_use]
    pub fn new(own: BackendIndex) -> Self {
        Self {
            own,
            nodes: Default::default(),
            changes: 0,
        }
    }

    /// Takes over a MAC that an earlier agent has learned.
    pub fn restore(&mut self, index: BackendIndex, source: Mac) {
        self.nodes[index.get()].source = source;
    }

    /// A node has left: another one may take its place.
    pub fn forget(&mut self, index: BackendIndex) {
        self.nodes[index.get()] = Node::default();
    }

    /// ARP or Neighbor Discovery resolved a node's address.
    pub fn on_neighbour(&mut self, index: BackendIndex, mac: Mac) {
        self.nodes[index.get()].mac = mac;
    }

    /// A node has sent a frame with this source MAC. The caller has made sure that the node itself
    /// sent it. Returns whether the MAC was not known.
    pub fn on_frame(&mut self, now: BootNanos, index: BackendIndex, mac: Mac) -> bool {
        let node = &mut self.nodes[index.get()];
        // Before ARP has resolved its address, any MAC may be the usual one.
        if index == self.own || node.mac.is_unknown() || node.has(mac) || mac.is_unknown() {
            return false;
        }
        node.source = mac;
        node.seen.retain(|seen| *seen != mac);
        node.seen.insert(0, mac);
        node.seen.truncate(CHANGES);
        node.changes.retain(|change| now.since(*change) < WINDOW);
        node.changes.insert(0, now);
        node.changes.truncate(CHANGES);
        node.unsettled |= node.changes.len() == CHANGES;
        self.changes += 1;
        true
    }

    /// To be called from time to time: ends the unsettled state.
    pub fn on_time(&mut self, now: BootNanos) {
        for node in &mut self.nodes {
            let last = node.changes.first().copied().unwrap_or_default();
            node.unsettled &= now.since(last) < WINDOW;
        }
    }

    /// The MAC of a node's frames beside the one that ARP resolves to; [`Mac::UNKNOWN`] if there is
    /// none.
    #[must_use]
    pub fn of(&self, index: BackendIndex) -> Mac {
        self.nodes[index.get()].source
    }

    /// The node with this MAC, of either kind.
    #[must_use]
    pub fn node(&self, mac: Mac) -> Option<BackendIndex> {
        let place = self.nodes.iter().position(|node| node.has(mac))?;
        BackendIndex::new(place)
    }

    /// Number of MACs learned so far.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The problem with a node's MACs, as a text for operators. `name` is that
    /// of a node.
    #[must_use]
    pub fn alarm(
        &self,
        index: BackendIndex,
        name: impl Fn(BackendIndex) -> String,
    ) -> Option<String> {
        let node = &self.nodes[index.get()];
        let mut alarm = String::new();
        if node.unsettled {
            alarm = String::from("its frames come from one MAC after the other");
            for (place, mac) in node.seen.iter().enumerate() {
                // Writing to a string cannot fail.
                let _ = write!(alarm, "{} {mac}", if place == 0 { ":" } else { "," });
            }
            alarm += "; use bond mode 1 or 4 there, and no translation of MACs";
        }
        for mac in [node.mac, node.source] {
            let others = self.nodes.iter().enumerate();
            let mut others =
                others.filter(|(place, other)| *place != index.get() && other.has(mac));
            if let Some((place, _)) = others.next() {
                let name = BackendIndex::new(place).map(name).unwrap_or_default();
                let and = if alarm.is_empty() { "" } else { "; " };
                let _ = write!(
                    alarm,
                    "{and}{mac} is also the MAC of {name}; each node needs one of its own"
                );
                break;
            }
        }
        (!alarm.is_empty()).then_some(alarm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(index: BackendIndex) -> String {
        format!("cp{}", index.get() + 1)
    }

    fn at(seconds: u64) -> BootNanos {
        BootNanos(1_000_000_000_000 + seconds * 1_000_000_000)
    }

    fn mac(last: u8) -> Mac {
        Mac::from_wire([2, 0, 0, 0, 0, last])
    }

    fn index(node: usize) -> BackendIndex {
        BackendIndex::new(node).unwrap()
    }

    /// Node 0 knows where the other two are reached.
    fn sources() -> Sources {
        let mut sources = Sources::new(index(0));
        for node in 0..3 {
            sources.on_neighbour(index(node), mac(node as u8 + 1));
        }
        sources
    }

    fn frame(sources: &mut Sources, now: BootNanos, node: usize, from: u8) -> bool {
        sources.on_frame(now, index(node), mac(from))
    }

    #[test]
    fn one_address_beside_that_of_arp_is_learned() {
        let mut sources = sources();
        assert!(!frame(&mut sources, at(0), 1, 2));
        assert_eq!(sources.of(index(1)), Mac::UNKNOWN);
        assert!(frame(&mut sources, at(0), 1, 9));
        // A bond of two ports, by turns.
        for second in 0..200 {
            let by = [2, 9][second as usize % 2];
            assert!(!frame(&mut sources, at(second), 1, by));
        }
        assert_eq!((sources.of(index(1)), sources.changes()), (mac(9), 1));
        assert_eq!(sources.node(mac(9)), Some(index(1)));
        assert_eq!(sources.node(mac(2)), Some(index(1)));
        assert_eq!(sources.node(Mac::UNKNOWN), None);
        assert_eq!(sources.alarm(index(1), name), None);
        // A node does not receive its own frames, and learns no invalid address.
        assert!(!frame(&mut sources, at(0), 0, 7));
        assert!(!sources.on_frame(at(0), index(1), Mac::UNKNOWN));
    }

    #[test]
    fn nothing_is_learned_before_arp_has_told() {
        let mut sources = Sources::new(index(0));
        assert!(!frame(&mut sources, at(0), 1, 9));
        sources.on_neighbour(index(1), mac(9));
        assert!(!frame(&mut sources, at(0), 1, 9));
    }

    #[test]
    fn addresses_that_go_on_changing_raise_an_alarm_until_they_settle() {
        let mut sources = sources();
        // One in 20 seconds is few enough, for ever.
        for change in 0..20 {
            assert!(frame(&mut sources, at(20 * change), 1, 100 + change as u8));
            assert_eq!(sources.alarm(index(1), name), None);
        }
        let begin = 1000;
        for change in 0..4 {
            assert_eq!(sources.alarm(index(1), name), None);
            assert!(frame(
                &mut sources,
                at(begin + change),
                1,
                10 + change as u8
            ));
        }
        let alarm = sources.alarm(index(1), name).unwrap();
        assert!(
            alarm.contains("02:00:00:00:00:0d, 02:00:00:00:00:0c"),
            "{alarm}"
        );
        assert_eq!(sources.alarm(index(2), name), None);
        sources.on_time(at(begin + 3 + 59));
        assert!(sources.alarm(index(1), name).is_some());
        sources.on_time(at(begin + 3 + 60));
        assert_eq!(sources.alarm(index(1), name), None);
    }

    #[test]
    fn two_nodes_with_one_address_are_named() {
        let mut sources = sources();
        frame(&mut sources, at(0), 1, 9);
        frame(&mut sources, at(0), 2, 9);
        let names = |sources: &Sources, node, other: &str| {
            let alarm = sources.alarm(index(node), name).unwrap();
            assert!(
                alarm.contains(&format!("is also the MAC of {other};")),
                "{alarm}"
            );
        };
        names(&sources, 1, "cp3");
        names(&sources, 2, "cp2");
        // By ARP alone, and with this node itself.
        sources.on_neighbour(index(2), mac(1));
        names(&sources, 2, "cp1");
    }
}
