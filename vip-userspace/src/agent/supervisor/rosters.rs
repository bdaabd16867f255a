//! What the thread that keeps rosters is told, and what it tells.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use tokio::sync::mpsc;
use vip_common::abi::BackendIndex;
use vip_node::Report;

use super::Supervisor;
use super::checking::Checking;
use super::setup::{addresses_of, own_addresses};
use crate::agent::cluster::Cluster;
use crate::agent::node_thread::NodeThread;
use crate::agent::peer_channel::Hearers;
use crate::agent::probes;
use crate::agent::roster::{Clients, Command, Network, RosterNews, RosterThread, Servers};
use crate::config::{Config, Service};
use crate::observe::event::Event;
use crate::observe::status;

/// Where servers of this node have their ends of connections: at the VIPs, and at its own addresses,
/// where other nodes bring the connections of their own programs.
pub(super) fn ends(
    config: &Config,
    cluster: &Cluster,
    wanted: impl Fn(&Service) -> bool,
) -> BTreeSet<SocketAddr> {
    let at_vips = config.ends(wanted);
    let own = own_addresses(cluster.own_node());
    let at_own = at_vips.iter().flat_map(|end| {
        let own = own.iter();
        own.map(|own| SocketAddr::new(*own, end.port()))
    });
    at_vips.iter().copied().chain(at_own).collect()
}

/// Whose connections are in the roster of this node.
pub(super) fn servers(config: &Config, cluster: &Cluster) -> Servers {
    let own: BTreeSet<IpAddr> = own_addresses(cluster.own_node()).into_iter().collect();
    let vips = config.vips.iter();
    let services = vips.flat_map(|vip| vip.services.iter().map(move |service| (vip, service)));
    let mapped = services.map(|(vip, service)| {
        let at = |port| SocketAddr::new(vip.address, port);
        (at(service.port), at(service.target))
    });
    Servers {
        vips: addresses_of(config).collect(),
        ends: ends(config, cluster, |_| true),
        mapped: mapped.collect(),
        reset_after: config.datapath.reset_after,
        own,
    }
}

/// Tells the supervisor what the thread tells, and does not wait.
pub(super) fn teller(outcomes: mpsc::Sender<probes::Outcome>) -> impl Fn(RosterNews) {
    move |news| {
        if outcomes.try_send(probes::Outcome::Rosters(news)).is_err() {
            tracing::warn!("the agent is busy, and is not told of clients");
        }
    }
}

/// Who is told what other agents send.
pub(super) fn hearers(
    node_thread: &NodeThread,
    rosters: &RosterThread,
    checking: &Checking,
) -> Hearers {
    let teller = node_thread.teller();
    Hearers {
        node: Box::new(move |input| teller.tell(input)),
        rosters: rosters.messages(),
        outcomes: checking.outcomes(),
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
            Report::Admitted { address, .. } | Report::Removed { address, .. } => {
                Some(Command::Back(*address))
            }
            Report::BfdUp(slot) => node(*slot).map(|node| Command::Session(node, true)),
            Report::BfdDown { node: slot, .. } => {
                node(*slot).map(|node| Command::Session(node, false))
            }
            // Rows may have ended in a drop until now.
            Report::Isolated(false) | Report::Confirmed(_) => Some(Command::Again),
            _ => None,
        };
        if let Some(command) = command {
            self.rosters.tell(command);
        }
    }

    /// The thread tells something.
    pub(in crate::agent) fn on_rosters(&mut self, news: RosterNews) {
        self.journal.note(match news {
            RosterNews::Unable(cause) => Event::failed(
                "clients of a node that is gone are not told before they send something",
                cause,
            ),
            RosterNews::Told(node, clients, told) => {
                let peer = self.peers.find(|peer| peer.address == node);
                let name = peer.map_or_else(|| node.to_string(), |(_, peer)| peer.name.clone());
                match clients {
                    Clients::Vip => {
                        Event::clients_told(name, told.asked, told.answered, told.after)
                    }
                    Clients::Local => Event::local_clients_told(name, told.asked),
                }
            }
        });
    }

    /// How rosters and clients are, for status.
    pub(super) fn roster_status(&self) -> status::Rosters {
        let reading = self.rosters.stats.read();
        status::Rosters {
            own: reading.own,
            untold: reading.untold,
            scans: reading.scans,
            scan_seconds: reading.scan_time.as_secs_f64(),
            sent: reading.sent,
            received: reading
                .received
                .map(|(what, count)| (what.to_owned(), count))
                .into(),
            asked: reading.nudges,
            answered: reading.answered,
        }
    }

    /// Connections of a node that this one knows, by the node's address.
    pub(super) fn roster_sizes(&self) -> BTreeMap<IpAddr, u64> {
        let mut reading = self.rosters.stats.read();
        reading.told.insert(self.nic.address, reading.own);
        reading.told
    }
}
