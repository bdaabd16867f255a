//! Where frames of the other nodes come from: what the packet socket heard is looked at, learned
//! and, if it is odd, told.

use vip_common::layout::BackendIndex;

use super::Shell;
use crate::agent::clock::now;
use crate::agent::pacer::Command;
use crate::observe::event::Event;

impl Shell {
    /// Looks at what was heard since the last time.
    pub(in crate::agent) fn look_at_sources(&mut self) {
        let now = now();
        let mut learned = Vec::new();
        for (address, mac) in self.sockets.sources.heard() {
            let Some(peer) = self.peers.iter().find(|peer| peer.address == address) else {
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
            tracing::debug!(node = self.peers[index.get()].name, %mac, "frames come from");
            self.pacer.tell(Command::Source(index, mac));
        }
        for place in 0..self.peers.len() {
            let alarm = self.source_alarm(self.peers[place].index);
            let peer = &mut self.peers[place];
            if alarm.is_some() != peer.source_alarm {
                peer.source_alarm = alarm.is_some();
                let node = peer.name.clone();
                self.journal.note(match alarm {
                    Some(cause) => Event::SourceAlarm { node, cause },
                    None => Event::SourceAlarmOver { node },
                });
            }
        }
    }

    /// What is wrong with the addresses that frames of a node come from.
    pub(super) fn source_alarm(&self, index: BackendIndex) -> Option<String> {
        let names: Vec<&str> = self.peers.iter().map(|peer| peer.name.as_str()).collect();
        self.sources.alarm(index, &names)
    }
}
