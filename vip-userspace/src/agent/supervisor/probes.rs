//! What becomes of the results of probes.

use super::peer::Peer;
use super::{Supervisor, first};
use crate::agent::probes::Probed;
use crate::clock::now;
use crate::observe::event::Event;
use crate::probe::News;
use vip_common::abi::{BackendIndex, CheckIndex};
use vip_node::Input;
use vip_node::health::Probe;

impl Supervisor {
    /// A probe has ended.
    pub(in crate::agent) fn on_probe(&mut self, probed: &Probed) {
        if let Some((index, found)) = self.note_probe(probed) {
            let good = found == Probe::Ready;
            let input = Input::Probe {
                node: index,
                check: probed.check,
                found,
            };
            if good {
                self.node_thread.tell_soon(input);
            } else {
                self.node_thread.tell(input);
            }
        }
    }

    /// Keeps what a probe found, for people and for pods. Returns what it means; `None` if it is about
    /// a check that there was before a reload.
    pub(super) fn note_probe(&mut self, probed: &Probed) -> Option<(BackendIndex, Probe)> {
        if probed.generation != self.checking.generation {
            return None;
        }
        let (own, check) = (probed.node == self.cluster.own(), probed.check);
        let found = first::meaning(probed, own);
        let peer = self.peers.get_mut(probed.node)?;
        if peer.address != probed.address {
            return None;
        }
        if check == CheckIndex::API {
            peer.rtt = probed.found.rtt.or(peer.rtt);
            peer.certificate_not_after = probed.found.certificate_not_after;
        }
        let port = self.config.checks[check.get()].port;
        self.instruments.note_probe(&peer.name, port, &probed.found);
        if own
            && probed.connected
            && !matches!(probed.found.probe, Probe::Refused | Probe::Silent(_))
            && let Err(error) = self.datapath.note_listener(check, probed.began)
        {
            tracing::warn!(%error, "pods are not connected to this node's server");
        }
        let answers = !matches!(
            found,
            Probe::Refused | Probe::Silent(_) | Probe::Hung { .. }
        );
        if !own && !found.is_silent() {
            peer.agent.facts.take_answer(now());
        }
        if check == CheckIndex::API {
            peer.agent.serves = answers;
        }
        peer.probes[check.get()] = Some(found.clone());
        Some((peer.index, found))
    }

    /// Why a server that counts as not ready does so: the last probe may have found it ready, and
    /// one is not enough. A server that hangs may still answer over connections that it has accepted.
    pub(super) fn why_unready(&self, peer: &Peer, check: CheckIndex) -> String {
        let hang = peer.hangs[check.get()].and_then(|known| known.hang.text(now()));
        if let Some(text) = hang {
            return text;
        }
        let last = peer.last_probe(check);
        match &peer.probes[check.get()] {
            Some(Probe::Ready | Probe::Unknown(_)) => self.not_yet_ready(last),
            Some(_) | None => last.to_owned(),
        }
    }

    pub(super) fn not_yet_ready(&self, found: &str) -> String {
        let rise = self.config.health.rise;
        format!("{found} again, but not yet {rise} times in a row")
    }

    /// The credentials for health checks were read anew, or could not be.
    pub(in crate::agent) fn on_credentials(&mut self, news: News) {
        self.credentials_trouble = news.clone().err();
        self.journal.note(match news {
            Ok(()) => Event::credentials_read(),
            Err(cause) => Event::credentials_unread(cause),
        });
    }
}
