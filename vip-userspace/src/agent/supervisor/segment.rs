//! What the agent knows of the segment and of the other nodes' agents.

use std::net::IpAddr;

use tokio::sync::mpsc::Sender;
use vip_common::abi::BackendIndex;
use vip_common::wire::addr::Mac;
use vip_common::wire::time::BootNanos;

use crate::agent::survey::Found;
use vip_node::alarm::Alarms;
use vip_node::hearing::{Facts, Hearing};

/// What the supervisor knows of the segment.
pub(super) struct Segment {
    /// What is wrong.
    pub(super) alarms: Alarms,
    /// Where findings go.
    pub(super) surveys: Sender<Found>,
    /// Since when a survey is.
    pub(super) under_way: Option<BootNanos>,
    /// Looks since the start.
    pub(super) looks: u32,
    /// Hosts that spoke BFD and are no nodes.
    pub(super) strangers: Vec<Stranger>,
    /// Other nodes that own the VIP as well as this one.
    pub(super) rivals: Vec<BackendIndex>,
    /// Ethernet addresses of the kernel's neighbours.
    pub(super) known_macs: Vec<KnownMac>,
    /// Those of them that can prove that the segment works.
    pub(super) witnesses: Vec<(IpAddr, Mac)>,
    /// A claim that may be that of a node whose Ethernet address is not known yet, or not any more.
    pub(super) unplaced: Option<UnplacedClaim>,
    /// Another node owns the VIP, as far as this one hears.
    pub(super) another_owns: bool,
}

impl Segment {
    pub(super) fn new(surveys: Sender<Found>) -> Self {
        Self {
            alarms: Alarms::default(),
            surveys,
            under_way: None,
            looks: 0,
            strangers: Vec::new(),
            rivals: Vec::new(),
            known_macs: Vec::new(),
            witnesses: Vec::new(),
            unplaced: None,
            another_owns: false,
        }
    }

    /// A host that is no node has sent BFD. Returns since when it does.
    pub(super) fn on_stranger(&mut self, now: BootNanos, host: IpAddr) -> BootNanos {
        let known = |stranger: &&mut Stranger| stranger.host == host;
        if let Some(stranger) = self.strangers.iter_mut().find(known) {
            stranger.last = now;
            return stranger.since;
        }
        self.strangers.push(Stranger {
            host,
            since: now,
            last: now,
        });
        now
    }
}

/// A host that sends BFD to this node and is none of the nodes.
pub(super) struct Stranger {
    pub(super) host: IpAddr,
    /// When its first packet came.
    pub(super) since: BootNanos,
    /// When its last packet came.
    pub(super) last: BootNanos,
}

/// An entry of the kernel's neighbour table.
pub(super) struct KnownMac {
    pub(super) mac: Mac,
    pub(super) address: IpAddr,
}

/// A claim of the VIP from an Ethernet address that no node is known to have.
pub(super) struct UnplacedClaim {
    pub(super) mac: Mac,
    pub(super) since: BootNanos,
}

/// What one node knows of another one's agent.
#[derive(Default)]
pub(super) struct Agent {
    pub(super) facts: Facts,
    pub(super) hearing: Hearing,
    /// An advertisement of it came to the NIC, whatever became of it then.
    pub(super) advert_on_nic: Option<BootNanos>,
    /// The agent got one.
    pub(super) advert: Option<BootNanos>,
    /// Its server answered the last probe.
    pub(super) serves: bool,
}
