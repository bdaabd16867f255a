//! What the thread that keeps rosters is told, and what it tells.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use vip_common::abi::BackendIndex;
use vip_node::Report;
use vip_node::roster::Outcome;

use super::Supervisor;
use super::setup::{addresses_of, own_addresses};
use crate::agent::cluster::Cluster;
use crate::agent::roster::{Clients, Command, Network, Servers};
use crate::config::Config;
use crate::observe::event::Event;

/// Whose connections are in the roster of this node.
pub(super) fn servers(config: &Config, cluster: &Cluster) -> Servers {
    let own: BTreeSet<IpAddr> = own_addresses(cluster.own_node()).into_iter().collect();
    let vips = config.vips.iter();
    let services = vips.flat_map(|vip| vip.services.iter().map(move |service| (vip, service)));
    let mapped = services.map(|(vip, service)| {
        let at = |port| SocketAddr::new(vip.address, port);
        (at(service.port), at(service.target))
    });
    let at_vips = config.ends(|_| true);
    let ports: BTreeSet<u16> = at_vips.iter().map(SocketAddr::port).collect();
    let at_own = own.iter().flat_map(|own| {
        let ports = ports.iter();
        ports.map(|port| SocketAddr::new(*own, *port))
    });
    Servers {
        vips: addresses_of(config).collect(),
        ends: at_vips.iter().copied().chain(at_own).collect(),
        mapped: mapped.collect(),
        reset_after: config.datapath.reset_after,
        own,
    }
}

impl Supervisor {
    /// The NIC or what is bound to it has changed.
    pub(super) fn roster_network_changed(&self) {
        self.rosters.tell(Command::Network(Box::new(Network {
            nic: self.nic.clone(),
            channel: self.sockets.peer_channel.clone(),
        })));
    }

    /// The configuration or this node's addresses have changed.
    pub(super) fn roster_servers_changed(&self) {
        let servers = servers(&self.config, &self.cluster);
        self.rosters.tell(Command::Servers(Box::new(servers)));
    }

    /// Members have come or left.
    pub(super) fn roster_peers_changed(&self) {
        let peers = self.cluster.peers().into_iter().collect();
        self.rosters.tell(Command::Peers(peers));
    }

    /// Tells the thread what has changed for the clients of nodes.
    pub(super) fn tell_rosters(&self, report: &Report) {
        let node = |node: BackendIndex| self.peers.get(node).map(|peer| peer.address);
        let command = match report {
            Report::Active(_) => Some(Command::Owner(true)),
            Report::Backup(_) => Some(Command::Owner(false)),
            Report::Away(slot) => node(*slot).map(Command::Away),
            Report::Gone(slot) => {
                let gone = self.cluster.nodes().get(*slot);
                gone.map(|gone| Command::Gone(own_addresses(gone)))
            }
            Report::Answers(slot) => node(*slot).map(Command::Back),
            Report::BfdUp(slot) => node(*slot).map(|node| Command::Session(node, true)),
            Report::BfdDown { node: slot, .. } => {
                node(*slot).map(|node| Command::Session(node, false))
            }
            // Rows may have ended in a drop until now.
            Report::Isolated(false) | Report::Confirmed(_) | Report::Removed { .. } => {
                Some(Command::Again)
            }
            _ => None,
        };
        if let Some(command) = command {
            self.rosters.tell(command);
        }
    }

    /// Rosters cannot be kept.
    pub(in crate::agent) fn on_no_roster(&mut self, cause: String) {
        let what = "clients of a node that is gone are not told before they send something";
        self.journal.note(Event::failed(what, cause));
    }

    /// Clients of a node that is gone were asked.
    pub(in crate::agent) fn on_clients_told(
        &mut self,
        node: IpAddr,
        clients: Clients,
        told: Outcome,
    ) {
        let peer = self.peers.find(|peer| peer.address == node);
        let name = peer.map_or_else(|| node.to_string(), |(_, peer)| peer.name.clone());
        self.journal.note(match clients {
            Clients::Vip => Event::clients_told(name, told.asked, told.answered, told.after),
            Clients::Local => Event::local_clients_told(name, told.asked),
        });
    }
}
