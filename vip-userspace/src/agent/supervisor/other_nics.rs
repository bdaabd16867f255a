//! The host's other NICs. The kernel is kept from speaking for the VIPs on them, as on the VIPs'
//! own, and answers to clients that leave by them have the port that the clients know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vip_common::abi::{BackendIndex, Service, Vip};
use vip_common::wire::addr::Mac;
use vip_common::wire::time::BootNanos;

use super::setup::addresses_of;
use super::{Supervisor, hooks};
use crate::agent::clock::now;
use crate::agent::notes;
use crate::config::Config;
use crate::datapath::{DesiredState, Way};
use crate::net::netlink::Netlink;
use crate::net::{Heard, HostNic, port_macs};
use crate::observe::event::Event;
use crate::observe::status;
use vip_node::election::State;
use vip_node::settings::{self, Key, Note, Wanted};
use vip_node::ways::{self, Kind, Route};

/// Between two reports that the same NIC speaks for the VIP.
const PATIENCE: Duration = Duration::from_secs(60);

/// Other Ethernet addresses of nodes that are remembered, at most.
const REMEMBERED: usize = 64;

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct OtherNics {
    /// What was set.
    noted: Vec<Note>,
    /// What cannot be helped, in words.
    hindrances: Vec<String>,
    /// The last failure, in words.
    failure: Option<String>,
    /// All NICs of this host.
    nics: Vec<HostNic>,
    /// Those that the program on the way out was attached to; `None` if an agent before this one
    /// may have attached it to any.
    mapped: Option<BTreeSet<u32>>,
    /// Ethernet addresses that have answered for a node's own address, beside the one in use.
    of_nodes: BTreeMap<[u8; 6], BackendIndex>,
    /// When it was last told that one of these speaks for the VIP.
    told: BTreeMap<[u8; 6], BootNanos>,
}

impl OtherNics {
    /// With what agents before this one have set.
    pub(super) fn open(config: &Config) -> Self {
        Self {
            noted: notes::settings(&config.run_dir),
            ..Self::default()
        }
    }

    /// Makes the kernel's settings what they should be. `nic`: index of the VIPs' NIC.
    pub(super) async fn settle(
        &mut self,
        netlink: &Netlink,
        config: &Config,
        nic: u32,
    ) -> anyhow::Result<()> {
        let (seen, nics) = netlink.settings().await?;
        self.nics = nics;
        let silent = addresses_of(config).any(|vip| vip.is_ipv4());
        // Whether answers leave elsewhere matters only to a filter that asks.
        let asks = seen.all.rp_filter == 1
            || self.noted.iter().any(|note| note.key == Key::RpFilter)
            || self
                .nics
                .iter()
                .any(|found| found.interface.index == nic && found.interface.values.rp_filter == 1);
        let loose = silent && asks && {
            let routes = netlink.routes().await?;
            let ipv4 = routes.into_iter().filter(|route| route.ipv4);
            !self.ways(ipv4, nic).is_empty()
        };
        let wanted = Wanted {
            silent,
            loose: loose.then_some(nic),
        };
        let decision = settings::decide(&seen, &self.noted, wanted);
        let done = notes::change_settings(netlink, &config.run_dir, &self.noted, &decision).await;
        self.noted = decision.notes;
        self.hindrances = decision
            .hindrances
            .iter()
            .map(ToString::to_string)
            .collect();
        done
    }

    /// Interfaces by which answers to clients may leave, other than the VIPs' NIC.
    fn ways(&self, routes: impl IntoIterator<Item = Route>, nic: u32) -> BTreeSet<u32> {
        ways::others(routes, nic, |index| {
            let found = self.nics.iter().find(|nic| nic.interface.index == index);
            found.map_or(Kind::Other, |nic| nic.kind)
        })
    }

    /// The name of the interface of this host that has an Ethernet address, other than the VIPs'
    /// NIC.
    pub(super) fn name(&self, mac: Mac, nic: u32) -> Option<&str> {
        let mut others = self
            .nics
            .iter()
            .filter(|found| found.interface.index != nic);
        let found = others.find(|found| found.mac.map(Mac::from_wire) == Some(mac))?;
        Some(&found.interface.name)
    }

    /// What `vip status` says was set.
    pub(super) fn settings(&self) -> Vec<status::Setting> {
        let setting = |note: &Note| status::Setting {
            interface: note.name.clone(),
            name: note.key.name().to_owned(),
            value: note.set,
            before: note.before,
        };
        self.noted.iter().map(setting).collect()
    }

    /// What `vip status` says cannot be helped.
    pub(super) fn hindrances(&self) -> Vec<String> {
        self.hindrances.clone()
    }
}

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
            self.journal.note(Event::OtherNics { cause });
        }
        if let Some(cause) = failure.clone()
            && failure != self.other_nics.failure
        {
            self.journal.note(Event::OtherNics { cause });
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
                tracing::info!(interface = name, "answers get their port there, too");
            }
            mapped.insert(index);
        }
        self.datapath.detach_elsewhere(&mapped)?;
        self.other_nics.mapped = Some(mapped);
        Ok(())
    }

    /// Remembers who answers for the nodes' own addresses: another NIC of theirs, mostly.
    pub(super) fn remember(&mut self, heard: Heard) {
        let peer = self.peers.iter().find(|peer| peer.address == heard.address);
        let in_use = self.peers.iter().any(|peer| peer.mac == heard.mac);
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
    /// those that may. That is told here: its host is no stranger, and no reason to leave the VIP
    /// without an owner.
    pub(super) fn is_other_nic(&mut self, mac: Mac) -> bool {
        let here = self.other_nics.name(mac, self.nic.index);
        let node = self.other_nics.of_nodes.get(&mac.to_wire());
        let node = node.and_then(|node| self.peers.get(node.get()));
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
            self.journal.note(Event::OtherNics {
                cause: format!(
                    "{mac}, {whose}, answers for the VIP: `vip check` on that node says which \
                     config lets it"
                ),
            });
        }
        is_settled
    }
}
