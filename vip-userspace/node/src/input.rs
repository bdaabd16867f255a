//! The inputs of a node: its parameters, and events.

use std::net::IpAddr;
use std::time::Duration;

use vip_common::abi::{BackendIndex, CheckIndex};
use vip_common::wire::addr::Mac;
use vip_common::wire::bfd::ControlPacket;
use vip_common::wire::vrrp::Advertisement;

use crate::bfd;
pub use crate::election::vrrp::Timers as VrrpParams;
use crate::election::{Sealed, Trust};
use crate::faults::Fault;
use crate::health::{Hang, Origin, Probe, Thresholds};
use crate::hello::{Hello, Instance};
use crate::rank::Identity;
use crate::slots::Slots;

/// The configuration of a node.
#[derive(Clone, Debug)]
pub struct Params {
    /// This node's slot in `nodes`.
    pub own: BackendIndex,
    /// The members that are known from the start, this node among them.
    pub nodes: Slots<Identity>,
    /// How members come and go; `None` if `nodes` is a closed list.
    pub open: Option<OpenCluster>,
    /// Time between hellos.
    pub hello_interval: Duration,
    /// The [tags](crate::hello::tag) of the VIPs, by which agents of one cluster know each other.
    pub vips: Vec<u64>,
    /// This node's configured VRRP priority, `1..=255`; `None`: by its address.
    pub priority: Option<u8>,
    /// VRRP timers and preemption.
    pub vrrp: VrrpParams,
    /// Which advertisements are believed.
    pub trust: Trust,
    /// BFD; `None` if it is off.
    pub bfd: Option<bfd::Params>,
    /// Number of checks of each server; the first check is that of the API.
    pub checks: usize,
    /// Probes in a row that change a server's state.
    pub thresholds: Thresholds,
    /// Whether to send ARP probes for the VIP (RFC 5227).
    pub probe_address: bool,
    /// Time from the last sign of a node until it counts as gone, and its clients are told: at least
    /// the time in which it is found to be away.
    pub reset_after: Duration,
    /// How far ahead the lease is set at most; it is renewed when half of that is left. A
    /// simulation may choose another value than [`MAX_LEASE`](crate::election::MAX_LEASE).
    pub max_lease: Duration,
    /// How many times longer than configured the shortest interval becomes at most while this node
    /// runs late; 1: it does not. A simulation may choose another value than
    /// [`MAX_SLOWDOWN`](crate::MAX_SLOWDOWN).
    pub max_slowdown: u32,
    /// Seed of BFD's jitter and discriminators. It must be secret and differ between nodes: an
    /// attacker on the segment who knows a session's discriminators can end the session.
    pub seed: u64,
}

impl Params {
    /// The part that may change while the node runs.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        Tuning {
            forget_after: self.open.map(|open| open.forget_after),
            hello_interval: self.hello_interval,
            priority: self.priority,
            vrrp: self.vrrp,
            trust: self.trust,
            bfd: self.bfd.map(bfd::Params::timers),
            probe_address: self.probe_address,
            reset_after: self.reset_after,
        }
    }

    /// As [`Tuning::detection`].
    pub(crate) fn detection(&self) -> Duration {
        self.tuning().detection()
    }
}

/// The part of the [parameters](Params) that may change while the node runs, in any order of nodes:
/// others may have other timers meanwhile. Its fields are as those of [`Params`]. Whether there is
/// BFD, a key or a list stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// As [`OpenCluster::forget_after`].
    pub forget_after: Option<Duration>,
    /// As [`Params::hello_interval`].
    pub hello_interval: Duration,
    /// As [`Params::priority`].
    pub priority: Option<u8>,
    /// As [`Params::vrrp`].
    pub vrrp: VrrpParams,
    /// As [`Params::trust`].
    pub trust: Trust,
    /// As [`Params::bfd`].
    pub bfd: Option<bfd::Timers>,
    /// As [`Params::probe_address`].
    pub probe_address: bool,
    /// As [`Params::reset_after`].
    pub reset_after: Duration,
}

impl Tuning {
    /// Time without packets after which a node counts as silent: the detection time of BFD, or,
    /// without it, three advertisement intervals.
    pub(crate) fn detection(&self) -> Duration {
        self.bfd.map_or(self.vrrp.interval.duration() * 3, |bfd| {
            bfd.interval * u32::from(bfd.detect_mult.get())
        })
    }
}

/// How a cluster without a list works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenCluster {
    /// A member that was gone for so long is forgotten.
    pub forget_after: Duration,
}

/// A node of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its address on the segment.
    pub address: IpAddr,
    /// Its VRRP priority while it is healthy, `1..=255`.
    pub priority: u8,
}

/// An event.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would allocate for each advertisement, and inputs are not kept"
)]
pub enum Input {
    /// An advertisement of this virtual router was received.
    Advert {
        /// The sender.
        source: BackendIndex,
        /// The advertisement.
        advert: Advertisement,
        /// How it came if it was sealed with the cluster's key; `None`: as plain VRRP.
        sealed: Option<Sealed>,
    },
    /// A BFD packet was received.
    Bfd {
        /// The sender.
        source: BackendIndex,
        /// The packet.
        packet: ControlPacket,
    },
    /// A node answered an ICMP echo request.
    Echo(BackendIndex),
    /// A node's kernel was heard by ARP or Neighbor Discovery.
    Neighbor(BackendIndex),
    /// A host that is no member answered ARP or Neighbor Discovery: the segment works.
    Witness,
    /// An agent advertises this virtual router, and is no known member.
    Stranger,
    /// A node's Ethernet address is known, so that frames can be forwarded to it.
    Located(BackendIndex),
    /// A probe ended.
    Probe {
        /// The node whose server was probed.
        node: BackendIndex,
        /// Index of the check.
        check: CheckIndex,
        /// The result.
        found: Probe,
    },
    /// This node's server was found to hang without a probe, or not to any more.
    Hang {
        /// Index of the check.
        check: CheckIndex,
        /// How that was found; `None`: it does not hang any more.
        hang: Option<Hang>,
    },
    /// The configuration has other checks or thresholds.
    Checks {
        /// Where each check comes from; the first is that of the API.
        origins: Vec<Origin>,
        /// As [`Params::thresholds`].
        thresholds: Thresholds,
    },
    /// The configuration has other timers or limits.
    Tune(Box<Tuning>),
    /// A fault of this node appeared or was removed.
    Fault {
        /// The fault.
        fault: Fault,
        /// It appeared.
        present: bool,
    },
    /// A host claims the VIP by ARP or Neighbor Discovery.
    Claim {
        /// Its Ethernet address.
        mac: Mac,
        /// The other node that it is, if it is one.
        node: Option<BackendIndex>,
        /// That node may run an agent, as far as its kernel shows.
        agent: bool,
    },
    /// This node's Ethernet address or NIC changed, or its link was down. Hosts and switches must
    /// learn where it is.
    Moved,
    /// `vip handover`: to the named node, or to the best one.
    Handover(Option<BackendIndex>),
    /// `vip drain` (true) or `vip undrain`.
    Drain(bool),
    /// A hello came from this address. `admits`: it proves that its sender may be a member.
    Hello {
        /// The sender.
        source: IpAddr,
        /// The hello.
        hello: Box<Hello>,
        /// It was sealed with the cluster's key, or anybody may be a member.
        admits: bool,
    },
    /// An agent has proved that it may be a member, after [`Action::Prove`](crate::Action::Prove).
    Proved {
        /// Its address.
        address: IpAddr,
        /// Its run.
        instance: Instance,
    },
    /// The cluster's key changes: other keys authenticate BFD packets from now on, and all sessions
    /// stay as they are. A node that has started without authentication ignores it: it is turned on
    /// and off by [`Params::bfd`] alone.
    Keys(bfd::Auth),
    /// What this node tells the others of itself, in each hello from now on.
    Text {
        /// The text. One that is longer than [`MAX_TEXT`](crate::hello::MAX_TEXT) is cut.
        text: String,
        /// It makes a hello due, and does not only go out with the next one.
        at_once: bool,
    },
    /// The rank table with this number is in use.
    Installed(u64),
    /// The closed list of members has changed: these are all of them, this node among them. Nothing
    /// happens without a list.
    List(Vec<Identity>),
    /// `vip forget`: this member does not come back.
    Forget(IpAddr),
    /// `vip leave`: as [`Self::Shutdown`], and this node leaves the cluster.
    Leave,
    /// The agent must end.
    Shutdown,
}
