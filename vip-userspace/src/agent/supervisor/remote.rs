//! What commands on one node ask of the agent of another.

use std::net::IpAddr;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::Supervisor;
use crate::agent::peer_channel::PeerChannel;
use crate::agent::remote;
use crate::observe::event::Event;
use crate::observe::socket::Request;

/// Another node.
pub(in crate::agent) struct Other {
    name: String,
    address: IpAddr,
}

impl Supervisor {
    /// By which agents ask each other.
    pub(super) fn peer_channel(&self) -> Arc<PeerChannel> {
        self.sockets.peer_channel.clone()
    }

    /// The node with this name or address; `None` if it is this one.
    ///
    /// # Errors
    /// There is none.
    pub(in crate::agent) fn address_of(&self, node: &str) -> anyhow::Result<Option<Other>> {
        let slot = self.named(node)?;
        let peer = &self.peers[slot];
        Ok((slot != self.cluster.own()).then(|| Other {
            name: peer.name.clone(),
            address: peer.address,
        }))
    }

    /// Asks the agent of another node.
    ///
    /// # Errors
    /// As [`remote::ask`].
    pub(in crate::agent) fn ask_other<T: DeserializeOwned>(
        &self,
        other: Other,
        request: Request,
    ) -> impl Future<Output = anyhow::Result<T>> + use<T> {
        let channel = self.peer_channel();
        async move { remote::ask(channel, &other.name, other.address, &request).await }
    }

    /// Another agent asks for something, which the journal keeps if it changes anything.
    pub(in crate::agent) fn note_asked(&mut self, from: IpAddr, request: &Request) {
        let asker = self.peers.find(|peer| peer.address == from);
        let asker = asker.map_or_else(|| from.to_string(), |(_, peer)| peer.name.clone());
        let command = match request {
            Request::Drain { draining: true, .. } => "vip drain",
            Request::Drain { .. } => "vip undrain",
            Request::Handover { .. } => "vip handover",
            Request::Cut => "vip drain --cut",
            _ => return,
        };
        self.journal.note(Event::asked(asker, command));
    }
}
