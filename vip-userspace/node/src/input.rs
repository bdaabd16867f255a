//! What a node is told: its parameters and what happens.

use std::net::IpAddr;
use std::time::Duration;

use vip_common::abi::BackendIndex;
use vip_common::wire::addr::Mac;
use vip_common::wire::bfd::ControlPacket;
use vip_common::wire::vrrp::{Advertisement, Centiseconds};

use crate::bfd;
use crate::faults::Fault;
use crate::health::{Probe, Thresholds};

/// What a node is and knows of the others.
#[derive(Clone, Debug)]
pub struct Params {
    /// This node's place in `nodes`.
    pub own: BackendIndex,
    /// All nodes, in the order of the configuration, which is the same on each of them.
    pub nodes: Vec<Member>,
    /// VRRP.
    pub vrrp: VrrpParams,
    /// BFD; `None` if it is off.
    pub bfd: Option<bfd::Params>,
    /// Checks of each API server; the first one is that of the API itself.
    pub checks: usize,
    /// Probes that change the picture.
    pub thresholds: Thresholds,
    /// Whether to ask the segment for the VIP before the first claim (RFC 5227).
    pub probe_address: bool,
    /// How far ahead of now the lease is set at most: [`MAX_LEASE`](crate::election::MAX_LEASE), but in a simulation. It is
    /// renewed when half of that is left.
    pub max_lease: Duration,
    /// Makes the random numbers (BFD's jitter and discriminators) this node's own. Nobody else may
    /// guess it: who knows a session's discriminators can end it.
    pub seed: u64,
}

/// A node of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its address on the segment.
    pub address: IpAddr,
    /// Its VRRP priority while it is healthy, as far as this node knows, `1..=255`.
    pub priority: u8,
}

/// VRRP, the same for all nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VrrpParams {
    /// Time between advertisements.
    pub interval: Centiseconds,
    /// As [`vrrp::Params::preempt`](crate::election::vrrp::Params::preempt).
    pub preempt: bool,
    /// As [`vrrp::Params::preempt_delay`](crate::election::vrrp::Params::preempt_delay).
    pub preempt_delay: Duration,
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// An advertisement of our virtual router came from this node.
    Advert {
        /// Who sent it.
        source: BackendIndex,
        /// What it says.
        advert: Advertisement,
    },
    /// A BFD packet came from this node.
    Bfd {
        /// Who sent it.
        source: BackendIndex,
        /// What it says.
        packet: ControlPacket,
    },
    /// A node answered an echo request.
    Echo(BackendIndex),
    /// A node's kernel was heard by ARP or Neighbor Discovery.
    Neighbor(BackendIndex),
    /// A node's Ethernet address is known: frames can be handed on to it.
    Located(BackendIndex),
    /// A probe ended.
    Probe {
        /// Whose server was probed.
        node: BackendIndex,
        /// By which check.
        check: usize,
        /// What it found.
        found: Probe,
    },
    /// Something this node needs is missing, or is there (again).
    Fault {
        /// What.
        fault: Fault,
        /// It is missing.
        present: bool,
    },
    /// Somebody says that it has the VIP.
    Claim {
        /// Its Ethernet address.
        mac: Mac,
        /// The other node that has it, if one does.
        node: Option<BackendIndex>,
        /// That node may run an agent, as far as its kernel says.
        agent: bool,
    },
    /// ARP would answer something else than a moment ago, or other switches must learn where this
    /// node is: another Ethernet address, another NIC, a link that was gone.
    Moved,
    /// The operator wants another node to own the VIP: this one, or whichever is best.
    Handover(Option<BackendIndex>),
    /// The operator wants no new connections to be brought to this node, or wants them again.
    Drain(bool),
    /// The agent is to end.
    Shutdown,
}
