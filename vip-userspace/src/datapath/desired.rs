//! What should lie in the maps, whatever the nodes' health is.

use std::iter::zip;

use bytemuck::Zeroable as _;
use vip_common::abi::{
    AllowNode, Backend, BackendIndex, BackendMask, Config, LAYOUT_VERSION, MAX_BOND_PORTS, Masks,
    NOT_A_BACKEND, RankRow, Service, State, Vip, flag,
};
use vip_common::wire::addr::{Be32, Be128, Mac};
use vip_common::wire::time::BootNanos;
use vip_node::allow::AllowLists;
use vip_node::slots::Slots;

/// The halves of the tables in use. A new table is written into the other half first.
#[derive(Clone, Copy, Debug)]
pub struct Halves {
    /// Index of the first row of the rank table.
    pub rank_base: u32,
    /// The half of the allow lists, 0 or 1.
    pub allowed: usize,
}

impl Halves {
    /// The halves that this state names.
    pub(super) fn of(state: &State) -> Self {
        let services = state.vips().iter().flat_map(Vip::services);
        let mut roots = services.map(|service| service.allowed);
        Self {
            rank_base: state.config.rank_base,
            allowed: roots
                .find(|root| *root != AllowNode::EVERYTHING)
                .map_or(0, AllowNode::half),
        }
    }
}

/// What should lie in the maps and does not depend on anybody's health.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredState {
    /// This node's place among the backends.
    pub own_index: Option<BackendIndex>,
    /// Ethernet address of the NIC.
    pub own_mac: Mac,
    /// Those of its ports, where they are others.
    pub port_macs: [Mac; MAX_BOND_PORTS],
    /// This node's IPv4 address on the NIC; 0.0.0.0 if it has none.
    pub own_address: Be32,
    /// Addresses and ports that are served, those of IPv4 first.
    pub vips: Vec<Vip>,
    /// The allow lists. The services' roots are those of the first half.
    pub allowed: AllowLists,
    /// Whether connections of this node and its pods are redirected.
    pub redirects: bool,
    /// Number of the agent's network namespace; 0 if the kernel does not tell.
    pub netns: u64,
    /// The nodes' addresses.
    pub backends: Slots<NodeAddresses>,
    /// Level of the programs' own log (see [`Datapath::log`](super::Datapath::log)): 0 is none, 4
    /// (debug) tells of each frame.
    pub log_level: u8,
    /// Key of the flow hash.
    pub hash_key: [u64; 2],
    /// The rank table, one row a bucket.
    pub rows: Vec<RankRow>,
}

/// The level from which on the programs log each frame: debug (`aya_log_common::Level`).
const LOGS_FRAMES: u8 = 4;

/// A node's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeAddresses {
    /// As [`Backend::address`].
    pub address: Be128,
    /// As [`Backend::other_address`].
    pub other: Be128,
}

impl DesiredState {
    /// Whether the programs may run twice on a frame, on a port and on its bridge: they decide the
    /// same again, unless a port was written or a source's share was used up.
    #[must_use]
    pub fn may_run_twice(&self) -> bool {
        let mut services = self.vips.iter().flat_map(Vip::services);
        !services.any(|service| Service::maps_port(service) || service.flags & flag::SYN_LIMIT != 0)
    }

    /// Writes what it says into the state. Leases stay as they are, and so do health and the
    /// nodes' Ethernet addresses where the nodes do. In a state that nobody has written yet,
    /// every node is alive and ready until somebody knows better; but nothing is sent there, nothing
    /// is reset, and no local connection is turned, as long as nobody does.
    ///
    /// `halves` are those where the rows and allow lists of the desired state lie.
    pub fn write(&self, state: &mut State, halves: Halves) {
        if state.config.layout_version != LAYOUT_VERSION {
            state.masks = Masks {
                no_forward: BackendMask::ALL,
                connect: Masks::default().connect,
                ..Masks::of(self.backends.mask())
            };
        }
        for (slot, found) in state.backends.iter_mut().enumerate() {
            let slot = BackendIndex::new(slot);
            let Some(node) = slot.and_then(|slot| self.backends.get(slot)) else {
                *found = Backend::zeroed();
                continue;
            };
            let (mac, source) = if found.address == node.address {
                (found.mac, found.source)
            } else {
                (Mac::UNKNOWN, Mac::UNKNOWN)
            };
            *found = Backend {
                mac,
                source,
                address: node.address,
                other_address: node.other,
            };
        }
        state.config = Config {
            layout_version: LAYOUT_VERSION,
            own_index: self
                .own_index
                .map_or(NOT_A_BACKEND, |index| index.get() as u32),
            backend_count: self.backends.len() as u32,
            slot_count: self
                .backends
                .iter()
                .next_back()
                .map_or(0, |(slot, _)| slot.get() as u32 + 1),
            rank_base: halves.rank_base,
            hash_key: self.hash_key,
            own_mac: self.own_mac,
            straight_mac: if self.log_level < LOGS_FRAMES {
                self.own_mac
            } else {
                Mac::UNKNOWN
            },
            port_macs: self.port_macs,
            own_address: self.own_address,
            redirects: u32::from(self.redirects),
            maps_ports: u32::from(
                self.vips
                    .iter()
                    .flat_map(Vip::services)
                    .any(Service::maps_port),
            ),
            netns: self.netns,
            ..Config::zeroed()
        };
        let before = state.vips;
        state.set_vips(zip(&before, &self.vips).map(|(found, vip)| {
            let answer_until = if found.address == vip.address {
                found.answer_until
            } else {
                BootNanos::ZERO
            };
            let services = vip.services.map(|service| Service {
                allowed: service.allowed.in_half(halves.allowed),
                ..service
            });
            Vip {
                answer_until,
                services,
                ..*vip
            }
        }));
        state.config.peers = state.peers();
        state.config.set_families(&state.backends);
    }

    /// Whether an Ethernet address is the NIC's own, as the programs see it too.
    #[must_use]
    pub fn is_own(&self, mac: Mac) -> bool {
        mac == self.own_mac || !mac.is_unknown() && self.port_macs.contains(&mac)
    }

    /// The desired state that a state was made by, with these rows.
    #[must_use]
    pub fn of(state: &State, rows: Vec<RankRow>) -> Self {
        let config = &state.config;
        Self {
            own_index: BackendIndex::new(config.own_index as usize),
            own_mac: config.own_mac,
            port_macs: config.port_macs,
            own_address: config.own_address,
            vips: state.vips().to_vec(),
            allowed: AllowLists::default(),
            redirects: config.redirects != 0,
            netns: config.netns,
            backends: state
                .backends()
                .map(|(slot, node)| {
                    let addresses = NodeAddresses {
                        address: node.address,
                        other: node.other_address,
                    };
                    (slot, addresses)
                })
                .collect(),
            log_level: 0,
            hash_key: config.hash_key,
            rows,
        }
    }
}
