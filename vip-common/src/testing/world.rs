//! One node's tables and sockets in memory.

use core::ops::ControlFlow;
use std::vec::Vec;

use bytemuck::Zeroable as _;

use super::addresses::{BANNED, BANNED6, PORT, VIP, VIP6, node_address, node_address6, node_mac};
use crate::abi::{
    Backend, BackendIndex, Config, FirstRanks, LAYOUT_VERSION, LONGEST_LEASE, LaterRanks,
    MAX_CHECKS, Masks, RankRow, Service, State, Vip,
};
use crate::env::{Address, Socket, Sockets, Tables};
use crate::hash::Flow;
use crate::ingress::{self, Action, Known};
use crate::verdict::{Steered, Verdict, VerdictHandler};
use crate::wire::Frame;
use crate::wire::addr::{Be16, Be128, Mac};
use crate::wire::time::BootNanos;

/// Key of the flow hash.
pub const HASH_KEY: [u64; 2] = [1, 2];
/// Different rows of the rank table.
pub const ROWS: usize = 64;

/// The current time of a [`World`].
pub const NOW: BootNanos = BootNanos(1_000_000_000);

/// The state of a node as another one sees it. A node that is watched counts as up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// It gets all segments.
    Up,
    /// Its packets stay out: it gets a segment after all other nodes.
    Suspect,
    /// It gets nothing, and may have the socket.
    Away,
    /// It gets nothing, and its connections may be reset.
    Gone,
}

/// The environment of one node's decisions.
#[derive(Clone, Debug)]
pub struct World {
    /// Everything but the rank table.
    pub state: State,
    /// The rank table, which repeats these [`ROWS`] rows: the row of bucket `b` begins with backend
    /// `b` modulo their number, and goes round from there.
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
        let rows = (0..ROWS)
            .map(|bucket| RankRow::new((0..nodes).map(|rank| backend((bucket + rank) % nodes))));
        let mut state = State {
            config: Config {
                layout_version: LAYOUT_VERSION,
                own_index: me as u32,
                backend_count: nodes as u32,
                slot_count: nodes as u32,
                hash_key: HASH_KEY,
                own_mac: node_mac(list[me]),
                straight_mac: node_mac(list[me]),
                own_address: node_address(list[me]),
                ..Config::zeroed()
            },
            masks: Masks::all(nodes),
            resets_until: NOW.after(LONGEST_LEASE),
            ..State::zeroed()
        };
        state.set_vips(
            [VIP.into(), VIP6].map(|address| {
                Vip::new(address, &[Service::new(HASH_KEY, address, Be16::new(PORT))])
            }),
        );
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

    /// The same node, which sees the backend with this index in this state. One that is up is
    /// chosen for new connections.
    #[must_use]
    pub fn seeing(mut self, node: usize, seen: Seen) -> Self {
        let node = backend(node);
        let masks = &mut self.state.masks;
        masks.alive = masks.alive.with(node, seen == Seen::Up);
        masks.suspect = masks.suspect.with(node, seen == Seen::Suspect);
        masks.not_gone = masks.not_gone.with(node, seen != Seen::Gone);
        masks.new_connections = [masks.alive; MAX_CHECKS];
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

    /// The row with this index of the programs' table.
    fn row(&self, index: u32) -> RankRow {
        self.rows[index as usize % self.rows.len()]
    }

    /// Decides about a frame and rewrites it by the verdict, as the programs do.
    ///
    /// # Panics
    /// If the tag of a tagged frame cannot be removed.
    pub fn run(&self, frame: &mut Vec<u8>) -> (Verdict, Action) {
        let done = match ingress::straight(frame, self, self, Rewrite) {
            ControlFlow::Break(done) => done,
            ControlFlow::Continue(known) => self.decide(frame, known),
        };
        self.finish(done, frame)
    }

    /// The same, if the straight path answers.
    pub fn run_straight(&self, frame: &mut Vec<u8>) -> Option<(Verdict, Action)> {
        match ingress::straight(frame, self, self, Rewrite) {
            ControlFlow::Break(done) => Some(self.finish(done, frame)),
            ControlFlow::Continue(_) => None,
        }
    }

    /// The same without the straight path.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_without_straight_path(&self, frame: &mut Vec<u8>) -> (Verdict, Action) {
        let done = self.decide(frame, Known::default());
        self.finish(done, frame)
    }

    /// Decides about a frame that the straight path leaves.
    fn decide(&self, frame: &mut Vec<u8>, known: Known) -> (Verdict, bool) {
        assert!(ingress::untag(frame, self), "the tag is there");
        ingress::decide(frame, self, self, known, Rewrite)
    }

    /// Rewrites the frame, unless that is done.
    fn finish(&self, done: (Verdict, bool), frame: &mut Vec<u8>) -> (Verdict, Action) {
        match done {
            (verdict, true) => (verdict, Action::Transmit),
            (verdict, false) => (verdict, ingress::apply(verdict, frame, self)),
        }
    }
}

/// Returns the verdict, and whether it has rewritten the frame.
#[derive(Clone, Copy)]
struct Rewrite;

impl VerdictHandler for Rewrite {
    type Outcome = (Verdict, bool);

    fn handle(self, verdict: Verdict) -> Self::Outcome {
        (verdict, false)
    }

    fn forward(self, verdict: Verdict, headers: &mut impl Steered) -> Self::Outcome {
        headers.forward_to(verdict.mac());
        (verdict, true)
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

    fn first_ranks(&self, row: u32) -> FirstRanks {
        self.row(row).first_ranks()
    }

    fn later_ranks(&self, row: u32) -> LaterRanks {
        self.row(row).later_ranks()
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
    fn peek<A: Address>(&self, flow: &Flow<A>) -> Socket {
        match self.lookup(&[][..], flow, false, 0) {
            Socket::TimeWait { .. } => Socket::TimeWait { expects: None },
            Socket::Request { .. } => Socket::Request { expects: None },
            socket => socket,
        }
    }

    fn lookup<F, A>(&self, _frame: &F, flow: &Flow<A>, cookie: bool, _tcp: usize) -> Socket
    where
        F: Frame + ?Sized,
        A: Address,
    {
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
