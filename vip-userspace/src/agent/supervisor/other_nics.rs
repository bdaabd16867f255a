//! The host's other NICs, and the kernel's settings that keep it from answering for the VIPs there.

use std::collections::{BTreeMap, BTreeSet};

use vip_common::abi::BackendIndex;
use vip_common::wire::addr::Mac;
use vip_common::wire::time::BootNanos;

use super::setup::addresses_of;
use crate::agent::notes;
use crate::config::Config;
use crate::net::HostNic;
use crate::net::netlink::Netlink;
use crate::observe::status;
use vip_node::settings::{self, Key, Note, Wanted};
use vip_node::ways::{self, Kind, Route};

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct OtherNics {
    /// What was set.
    noted: Vec<Note>,
    /// What cannot be helped, in words.
    pub(super) hindrances: Vec<String>,
    /// The last failure, in words.
    pub(super) failure: Option<String>,
    /// All NICs of this host.
    pub(super) nics: Vec<HostNic>,
    /// Those that the program on the way out was attached to; `None` if an agent before this one
    /// may have attached it to any.
    pub(super) mapped: Option<BTreeSet<u32>>,
    /// Ethernet addresses that have answered for a node's own address, beside the one in use.
    pub(super) of_nodes: BTreeMap<[u8; 6], BackendIndex>,
    /// When it was last reported that one of these answers for the VIP.
    pub(super) told: BTreeMap<[u8; 6], BootNanos>,
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
    pub(super) fn ways(&self, routes: impl IntoIterator<Item = Route>, nic: u32) -> BTreeSet<u32> {
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
            name: note.key,
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
