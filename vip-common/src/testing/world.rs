//! One node's tables and sockets in memory.

use std::vec::Vec;

use bytemuck::Zeroable as _;

use super::addresses::{BANNED, BANNED6, PORT, VIP, VIP6, node_address, node_address6, node_mac};
use crate::abi::{
    Backend, BackendIndex, Config, LAYOUT_VERSION, LONGEST_LEASE, Masks, RankRow, Service, State,
    Vip,
};
use crate::env::{Address, Socket, Sockets, Tables};
use crate::hash::Flow;
use crate::ingress::untag::untag;
use crate::ingress::{self, Action};
use crate::verdict::Verdict;
use crate::wire::addr::{Be16, Be128, Mac};
use crate::wire::time::BootNanos;

/// Key of the flow hash.
pub const HASH_KEY: [u64; 2] = [1, 2];
/// Buckets of the rank table.
pub const BUCKETS: u32 = 64;

/// The current time of a [`World`].
pub const NOW: BootNanos = BootNanos(1_000_000_000);

/// The environment of one node's decisions.
#[derive(Clone, Debug)]
pub struct World {
    /// Everything but the rank table.
    pub state: State,
    /// The rank table: the row of bucket `b` begins with backend `b` modulo their number, and goes
    /// round from there.
    pub rows: Vec<RankRow>,
    /// The socket of every flow to the VIP's service.
    pub socket: Socket,
    /// Whether there is also a listener, with [`Socket::TimeWait`].
    pub listens: bool,
}

impl World {
    /// The node `me` of a cluster of `nodes`. All are healthy; it is not the owner, and has no
    /// sockets.
    #[must_use]
    pub fn new(nodes: usize, me: usize) -> Self {
        let members: Vec<usize> = (0..nodes).collect();
        Self::with_list(&members, me)
    }

    /// The node at index `me` of this list of nodes.
    #[must_use]
    pub fn with_list(list: &[usize], me: usize) -> Self {
        let nodes = list.len();
        let rows = (0..BUCKETS as usize)
            .map(|bucket| RankRow::new((0..nodes).map(|rank| backend((bucket + rank) % nodes))));
        let mut state = State {
            config: Config {
                layout_version: LAYOUT_VERSION,
                own_index: me as u32,
                vip_count: 2,
                ipv4_count: 1,
                backend_count: nodes as u32,
                bucket_mask: BUCKETS - 1,
                hash_key: HASH_KEY,
                own_mac: node_mac(list[me]),
                own_address: node_address(list[me]),
                ..Config::zeroed()
            },
            masks: Masks::all(nodes),
            ..State::zeroed()
        };
        for (vip, address) in state.vips.iter_mut().zip([VIP.into(), VIP6]) {
            *vip = Vip::new(address, &[Service::new(HASH_KEY, address, Be16::new(PORT))]);
        }
        for (&node, backend) in list.iter().zip(&mut state.backends) {
            *backend = Backend {
                mac: node_mac(node),
                source: Mac::UNKNOWN,
                address: node_address(node).into(),
                other_address: node_address6(node),
            };
        }
        state.config.peers = state.peers();
        state.config.set_families(&state.backends[..nodes]);
        Self {
            state,
            rows: rows.collect(),
            socket: Socket::None,
            listens: false,
        }
    }

    /// The same node, whose answer leases stand or not.
    #[must_use]
    pub fn owning(mut self, owner: bool) -> Self {
        for vip in &mut self.state.vips[..2] {
            vip.answer_until = if owner {
                NOW.after(LONGEST_LEASE)
            } else {
                BootNanos::ZERO
            };
        }
        self
    }

    /// The same node, which has learned that the frames of `node` come from this Ethernet address.
    #[must_use]
    pub fn knowing_source(mut self, node: usize, source: Mac) -> Self {
        self.state.backends[node].source = source;
        self.state.config.peers = self.state.peers();
        self
    }

    /// The same node, whose service has this port and target.
    #[must_use]
    pub fn mapping(mut self, port: u16, target: u16) -> Self {
        self.state.config.maps_ports = 1;
        for vip in &mut self.state.vips[..2] {
            vip.services[0] = Service {
                target: Be16::new(target),
                ..Service::new(HASH_KEY, vip.address, Be16::new(port))
            };
        }
        self
    }

    /// The same node, whose service has these [`flag`](crate::abi::flag)s. The allow list has all
    /// sources but [`BANNED`] and [`BANNED6`]; only these two have reached the limit.
    #[must_use]
    pub fn refusing(mut self, flags: u8) -> Self {
        for vip in &mut self.state.vips[..2] {
            vip.services[0].flags = flags;
            // No other source reaches it.
            vip.services[0].syn_rate = 1_000_000_000;
        }
        self
    }

    /// Decides about a frame and rewrites it by the verdict, as the programs do.
    ///
    /// # Panics
    /// If the tag of a tagged frame cannot be removed.
    pub fn run(&self, frame: &mut Vec<u8>) -> (Verdict, Action) {
        assert!(untag(frame, self), "the tag is there");
        let verdict = ingress::decide(frame, self, self);
        (verdict, ingress::apply(verdict, frame, self))
    }
}

/// Whether a source is [`BANNED`] or [`BANNED6`].
fn is_banned(source: Be128) -> bool {
    source == BANNED6 || source == BANNED.into()
}

impl Tables for World {
    fn state(&self) -> &State {
        &self.state
    }

    fn row(&self, index: u32) -> Option<RankRow> {
        self.rows.get(index as usize).copied()
    }

    fn now(&self) -> BootNanos {
        NOW
    }

    fn allows(&self, _service: &Service, source: Be128) -> bool {
        !is_banned(source)
    }

    fn admits(&self, _service: &Service, source: Be128) -> bool {
        !is_banned(source)
    }
}

impl Sockets for World {
    fn lookup<A: Address>(&self, flow: &Flow<A>, cookie: bool, _tcp: usize) -> Socket {
        let destination: Be128 = flow.destination.into();
        assert!(
            destination == VIP6 || destination == VIP.into(),
            "only flows to a VIP are looked up"
        );
        match self.socket {
            Socket::Cookie if !cookie => Socket::Listener,
            socket => socket,
        }
    }

    fn listens<A: Address>(&self, _flow: &Flow<A>) -> bool {
        self.listens
    }
}

/// The index of a backend.
///
/// # Panics
/// If it is not in `0..MAX_BACKENDS`.
#[must_use]
pub fn backend(index: usize) -> BackendIndex {
    BackendIndex::new(index).expect("at most 16 backends")
}
