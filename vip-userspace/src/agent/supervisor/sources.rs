//! Where frames of the other nodes come from: what the packet socket heard is looked at, learned
//! and, if it is odd, told.

use super::Supervisor;
use crate::agent::node_thread::Command;
use crate::clock::now;
use vip_node::alarm::Kind;

impl Supervisor {
    /// Looks at what was heard since the last time.
    pub(in crate::agent) fn look_at_sources(&mut self) {
        let now = now();
        let mut learned = Vec::new();
        for (address, mac) in self.sockets.sources.heard() {
            let Some(peer) = self.peers.values().find(|peer| peer.address == address) else {
                continue;
            };
            if self.sources.on_frame(now, peer.index, mac) && !learned.contains(&peer.index) {
                learned.push(peer.index);
            }
        }
        self.sources.on_time(now);
        // The last one of each, however often it changed.
        for index in learned {
            let mac = self.sources.of(index);
            tracing::debug!(node = self.peers[index].name, %mac, "frames come from");
            self.node_thread.tell(Command::Source(index, mac));
        }
        let name = |slot| {
            self.peers
                .get(slot)
                .map_or_else(String::new, |peer| peer.name.clone())
        };
        let mut changes = Vec::new();
        for peer in self.peers.values() {
            let alarms = &mut self.segment.alarms;
            changes.push(match self.sources.alarm(peer.index, name) {
                // Not again for each address that comes after the first few.
                Some(_) if alarms.is_up(Kind::SourceMacs, &peer.name) => None,
                Some(cause) => {
                    let text = format!(
                        "frames from {} may miss their connections: {cause}",
                        peer.name
                    );
                    alarms.raise(Kind::SourceMacs, &peer.name, text, None)
                }
                None => alarms.lower(Kind::SourceMacs, &peer.name),
            });
        }
        for change in changes {
            self.tell_change(change);
        }
    }
}
