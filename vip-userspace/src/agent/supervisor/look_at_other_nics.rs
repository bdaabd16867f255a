//! The host's other NICs. The kernel is kept from answering for the VIPs on them, as on the VIPs'
//! own, and answers to clients that leave by them have the port that the clients know.

use std::collections::BTreeSet;
use std::time::Duration;

use vip_common::abi::{Service, Vip};
use vip_common::wire::addr::Mac;

use super::{Supervisor, hooks};
use crate::clock::now;
use crate::datapath::{DesiredState, Way};
use crate::net::{Heard, port_macs};
use crate::observe::event::Event;
use vip_node::election::State;

/// Between two reports that the same NIC answers for the VIP.
const PATIENCE: Duration = Duration::from_secs(60);

/// Other Ethernet addresses of nodes that are remembered, at most.
const REMEMBERED: usize = 64;

impl Supervisor {
    /// Whether the kernel is silent where it should be, and answers leave with the right port.
    pub(super) async fn look_at_other_nics(&mut self) {
        let before = std::mem::take(&mut self.other_nics.hindrances);
        let index = self.nic.index;
        let settled = self.other_nics.settle(&self.netlink, &self.config, index);
        let settled = settled.await;
        let port_macs = port_macs(&self.other_nics.nics, index, self.nic.mac);
        if port_macs != self.desired.port_macs {
            self.change_desired(DesiredState {
                port_macs,
                ..(*self.desired).clone()
            });
        }
        let mapped = self.map_ports_elsewhere().await;
        let failure = settled.and(mapped).err().map(|error| format!("{error:#}"));
        let new: Vec<String> = self
            .other_nics
            .hindrances
            .iter()
            .filter(|cause| !before.contains(cause))
            .cloned()
            .collect();
        for cause in new {
            self.journal.note(Event::other_nics(cause));
        }
        if let Some(cause) = failure.clone()
            && failure != self.other_nics.failure
        {
            self.journal.note(Event::other_nics(cause));
        }
        self.other_nics.failure = failure;
    }

    /// Attaches the program that gives answers the port that clients know wherever answers leave.
    async fn map_ports_elsewhere(&mut self) -> anyhow::Result<()> {
        let services = self.desired.vips.iter().flat_map(Vip::services);
        let ways = if services.into_iter().any(Service::maps_port) {
            let routes = self.netlink.routes().await?;
            self.other_nics.ways(routes, self.nic.index)
        } else {
            BTreeSet::new()
        };
        if ways.is_empty()
            && self
                .other_nics
                .mapped
                .as_ref()
                .is_some_and(BTreeSet::is_empty)
        {
            return Ok(());
        }
        let mut mapped = BTreeSet::new();
        for nic in &self.other_nics.nics {
            let (index, name) = (nic.interface.index, &nic.interface.name);
            if !ways.contains(&index) {
                continue;
            }
            if nic.mac.is_none() {
                self.other_nics.hindrances.push(format!(
                    "answers to clients by {name}, which is not Ethernet, come from `target_port`, \
                     not from the VIP's port: route these clients by {}, or let both ports be \
                     the same",
                    self.nic.name
                ));
                continue;
            }
            let attachment = self.attachment;
            let seen = hooks::seen(&self.netlink, index, None, attachment).await?;
            let look = self.datapath.look(Way::Elsewhere, name, attachment, &seen);
            if !look.is_ok_and(|look| look.attached) {
                let egress = attachment.egress;
                self.datapath.attach_elsewhere(name, index, egress)?;
                tracing::info!(
                    interface = name,
                    "answers by this interface get the VIP's port"
                );
            }
            mapped.insert(index);
        }
        self.datapath.detach_elsewhere(&mapped)?;
        self.other_nics.mapped = Some(mapped);
        Ok(())
    }

    /// Remembers who answers for the nodes' own addresses: another NIC of theirs, mostly.
    pub(super) fn remember(&mut self, heard: Heard) {
        let peer = self
            .peers
            .values()
            .find(|peer| peer.address == heard.address);
        let in_use = self.peers.values().any(|peer| peer.mac == heard.mac);
        let known = &mut self.other_nics.of_nodes;
        if let Some(peer) = peer
            && !in_use
            && !heard.mac.is_unknown()
            && known.len() < REMEMBERED
        {
            known.insert(heard.mac.to_wire(), peer.index);
        }
    }

    /// Whether a claim of the VIP comes from a NIC of this host or of another node, other than
    /// those that may. It is reported here: its host is no stranger, and no reason to leave the VIP
    /// without an owner.
    pub(super) fn is_other_nic(&mut self, mac: Mac) -> bool {
        let here = self.other_nics.name(mac, self.nic.index);
        let node = self.other_nics.of_nodes.get(&mac.to_wire());
        let node = node.and_then(|node| self.peers.get(*node));
        let whose = match (here, node) {
            (Some(name), _) => format!("{name} of this node"),
            (None, Some(peer)) if peer.mac != mac => format!("another NIC of {}", peer.name),
            _ => return false,
        };
        // An owner announces the VIP against what another host says, whichever it is.
        let is_settled = here.is_some() || self.state != State::Active;
        let (now, told) = (now(), &mut self.other_nics.told);
        told.retain(|_, last| now.since(*last) < PATIENCE);
        if told.insert(mac.to_wire(), now).is_none() {
            self.journal.note(Event::other_nics(format!(
                "{mac}, {whose}, answers for the VIP: `vip check` on that node names the \
                     setting of the kernel"
            )));
        }
        is_settled
    }
}
