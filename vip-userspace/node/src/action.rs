//! The outputs of a node: actions and reports.

use std::net::IpAddr;
use std::time::Duration;

use vip_common::abi::{BackendIndex, CheckIndex, Masks};
use vip_common::wire::addr::Mac;
use vip_common::wire::bfd::{ControlPacket, Diagnostic};
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::Centiseconds;

use crate::bfd::Refused;
use crate::choice::Resort;
use crate::election;
use crate::faults::Fault;
use crate::health::{Hang, Transition};
use crate::hello::{Hello, Instance};
use crate::membership::Installation;

/// The receivers of an advertisement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// All other nodes.
    All,
    /// One of them alone.
    One(BackendIndex),
}

/// What the caller has to do, in the order given.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Write the answer lease to the map: the kernel answers for the VIP until then.
    /// [`BootNanos::ZERO`]: not any more.
    SetAnswerUntil(BootNanos),
    /// Write health to the map.
    SetMasks(Masks),
    /// Write to the map until when segments may be reset that no node has the socket for.
    /// [`BootNanos::ZERO`]: not any more.
    SetResetsUntil(BootNanos),
    /// Send an advertisement. One that is sealed carries [`Sealed`](crate::election::Sealed): the
    /// caller numbers them.
    SendAdvert {
        /// The receivers.
        to: To,
        /// The priority in it, 0 to resign.
        priority: u8,
        /// The interval in it.
        interval: Centiseconds,
    },
    /// Send a BFD packet.
    SendBfd {
        /// The receiver.
        to: BackendIndex,
        /// The packet.
        packet: ControlPacket,
    },
    /// Count a BFD packet of another node, which was refused.
    RefuseBfd {
        /// The sender, as far as its address tells.
        from: BackendIndex,
        /// The reason.
        why: Refused,
    },
    /// Count an advertisement of another node, which was refused.
    RefuseAdvert {
        /// The sender, as far as its address tells.
        from: BackendIndex,
        /// The reason.
        why: election::Refused,
    },
    /// Send an ICMP echo request.
    SendEcho(BackendIndex),
    /// Send a unicast ARP request or Neighbor Solicitation for a node's own address.
    AskNeighbor(BackendIndex),
    /// The same to all members, and to hosts of the segment that are none: an answer of one of these
    /// is [`Input::Witness`](crate::Input::Witness).
    AskWitnesses,
    /// Announce the VIP by gratuitous ARP or an unsolicited Neighbor Advertisement.
    Announce,
    /// Announce this node's own addresses in the same way.
    AnnounceOwn,
    /// Send an ARP probe for the VIP (RFC 5227), or its IPv6 counterpart.
    ProbeAddress,
    /// Send a hello: to the group of all agents, and to each member and each of these hosts.
    SendHello {
        /// The hello.
        hello: Box<Hello>,
        /// Hosts that are no members.
        also: Vec<IpAddr>,
    },
    /// Ask the API server of a host whether it is one of the cluster's. If it is:
    /// [`Input::Proved`](crate::Input::Proved).
    Prove {
        /// The host.
        address: IpAddr,
        /// The run of its agent.
        instance: Instance,
    },
    /// Make a rank table of these members, and use it. Then: [`Input::Installed`](crate::Input::Installed).
    Install(Box<Installation>),
    /// Report something to log, metrics and status.
    Report(Report),
    /// The node has given up the VIP and ended its sessions; the agent may end.
    Done,
}

/// A change, and its cause.
#[derive(Clone, PartialEq, Debug)]
pub enum Report {
    /// This node became the owner.
    Active(Takeover),
    /// This node does not own the VIP (any more).
    Backup(Loss),
    /// Another node is the owner now, as far as this one knows, or none.
    Owner {
        /// The owner.
        owner: Option<BackendIndex>,
        /// The owner before it, if it was another node.
        before: Option<Former>,
    },
    /// A BFD session came up.
    BfdUp(BackendIndex),
    /// A BFD session went down.
    BfdDown {
        /// The other node.
        node: BackendIndex,
        /// The cause, as BFD names it.
        diagnostic: Diagnostic,
    },
    /// A node is away: nothing on it answers.
    Away(BackendIndex),
    /// It has been for `reset_after`: its clients are told.
    Gone(BackendIndex),
    /// A node that was away or gone answers.
    Answers(BackendIndex),
    /// This node is cut off, as far as it knows (true), or is not any more.
    Isolated(bool),
    /// This node runs late, and its timers have changed for that reason.
    Late(Late),
    /// It does not any more, and its timers are as configured.
    OnTime,
    /// A node that lives does not answer ICMP echo requests, or answers them again.
    Echo {
        /// The node.
        node: BackendIndex,
        /// It does not answer.
        lost: bool,
    },
    /// Probes found a node or its server in another state.
    Health {
        /// The node.
        node: BackendIndex,
        /// Index of the check.
        check: CheckIndex,
        /// The new state, and the probe's result.
        change: Transition,
    },
    /// A server counts as one that hangs, for another reason than before, or not any more.
    Hang {
        /// The node.
        node: BackendIndex,
        /// Index of the check.
        check: CheckIndex,
        /// The reason; `None`: it does not hang any more.
        hang: Option<Hang>,
    },
    /// New connections go to nodes of another kind.
    NewConnections {
        /// Index of the check.
        check: CheckIndex,
        /// The kind of nodes.
        resort: Resort,
    },
    /// A node, this one or another, begins or ends to drain.
    Draining {
        /// The node.
        node: BackendIndex,
        /// It begins.
        draining: bool,
    },
    /// A member has come, in this slot.
    Admitted {
        /// Its slot.
        node: BackendIndex,
        /// Its address.
        address: IpAddr,
    },
    /// All living members know a member. It may get new connections.
    Confirmed(BackendIndex),
    /// A member has left, or was forgotten.
    Removed {
        /// The slot that it had.
        node: BackendIndex,
        /// Its address.
        address: IpAddr,
    },
    /// A member tells another text of itself than before, for status.
    Told {
        /// The member.
        node: BackendIndex,
        /// The text, of [`MAX_TEXT`](crate::hello::MAX_TEXT) bytes at most. Without a key anybody can
        /// have written it.
        text: String,
    },
    /// An agent is heard that is no member of the closed list.
    Stranger(IpAddr),
    /// There is no slot for an agent that asks to be a member.
    Full(IpAddr),
    /// A fault appeared or was removed.
    Fault {
        /// The fault.
        fault: Fault,
        /// It appeared.
        present: bool,
    },
    /// Another host claims the VIP (RFC 5227).
    Conflict {
        /// Its Ethernet address.
        mac: Mac,
        /// The host, as far as it is known.
        claimant: Claimant,
        /// Whether this node defended the VIP by an announcement.
        defended: bool,
        /// Whether it is the first claim of this host that is not over.
        fresh: bool,
    },
    /// A host does not claim the VIP any more, as far as this node hears.
    ConflictOver {
        /// Its Ethernet address.
        mac: Mac,
        /// The host, as far as it is known.
        claimant: Claimant,
    },
    /// This node owns the VIP, and another node has answered for it for longer than a handover
    /// takes; or has stopped to.
    TwoOwners {
        /// The other node.
        node: BackendIndex,
        /// It answers.
        present: bool,
    },
    /// A handover to that node has begun.
    HandingOver(BackendIndex),
    /// That node has taken the VIP.
    HandedOver(BackendIndex),
    /// The VIP was not handed over.
    NotHandedOver(NoHandover),
    /// The priority changed with the node's health.
    Priority(u8),
}

/// How late a node runs, and its timers meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Late {
    /// The latest that it was since its timers changed last.
    pub by: Duration,
    /// Between its BFD packets; `None` without BFD.
    pub bfd: Option<Duration>,
    /// Between its advertisements.
    pub adverts: Duration,
}

/// A former owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Former {
    /// The node.
    pub node: BackendIndex,
    /// Why it is not the owner any more.
    pub why: Departure,
}

/// A host that claims the VIP and whose agent is not heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimant {
    /// No node of the cluster, as far as is known.
    Stranger,
    /// That node, which runs no agent.
    NoAgent(BackendIndex),
    /// A node whose agent may run, but is not heard.
    Unheard {
        /// The node.
        node: BackendIndex,
        /// The owner of the VIP.
        owner: BackendIndex,
    },
}

impl Claimant {
    /// The node of the cluster that it is; `None` for a stranger.
    #[must_use]
    pub const fn node(self) -> Option<BackendIndex> {
        match self {
            Self::Stranger => None,
            Self::NoAgent(node) | Self::Unheard { node, .. } => Some(node),
        }
    }
}

/// How a node became the owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takeover {
    /// An earlier agent of this node owned the VIP, and its lease had not ended.
    Resumed,
    /// No node owned it, as far as this node knows.
    Nobody,
    /// From another node.
    From {
        /// The former owner.
        node: BackendIndex,
        /// Why it is not the owner any more.
        why: Departure,
        /// Time since that node's last packet, or its resignation. The clients' outage is at most
        /// that, plus the time that an announcement takes. Zero if it did not stop to answer.
        after: Duration,
    },
}

impl Takeover {
    /// The codes of all causes.
    pub const CAUSES: [&str; 5] = ["resumed", "no_owner", "resigned", "silent", "outranked"];

    /// The cause, as a code for metrics.
    #[must_use]
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
            Self::Nobody => "no_owner",
            Self::From { why, .. } => match why {
                Departure::Resigned => "resigned",
                Departure::Silent => "silent",
                Departure::Outranked => "outranked",
            },
        }
    }
}

/// Why a node is not the owner any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// It resigned.
    Resigned,
    /// Its packets stopped.
    Silent,
    /// Another node outranks it.
    Outranked,
}

/// Why a node is a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// It has just started.
    Started,
    /// That node outranks it.
    Outranked(BackendIndex),
    /// The VIP was handed over to that node.
    HandedOver(BackendIndex),
    /// Its agent did not run in time, and its lease ended.
    Overslept,
    /// It has this fault.
    Fault(Fault),
    /// The agent ends.
    Shutdown,
}

impl Loss {
    /// The codes of all causes.
    pub const CAUSES: [&str; 6] = [
        "started",
        "outranked",
        "handed_over",
        "overslept",
        "fault",
        "shutdown",
    ];

    /// The cause, as a code for metrics.
    #[must_use]
    pub const fn cause(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Outranked(_) => "outranked",
            Self::HandedOver(_) => "handed_over",
            Self::Overslept => "overslept",
            Self::Fault(_) => "fault",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Why the VIP is not handed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoHandover {
    /// This node does not own it; the owner, if it is known.
    NotOwner(Option<BackendIndex>),
    /// The named node is this one.
    Own,
    /// The named node would not take the VIP, or not keep it.
    Unsuited(UnsuitedNode),
    /// No other node would; each of them, and its reason.
    NoSuccessor(Vec<UnsuitedNode>),
    /// That node did not advertise as the owner in time.
    NoAnswer(BackendIndex),
}

/// A node to which the VIP is not handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnsuitedNode {
    /// The node.
    pub node: BackendIndex,
    /// Why it is unsuited.
    pub why: Unsuited,
}

/// Why the VIP is not handed over to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsuited {
    /// Its agent is not heard; without BFD: its server does not answer.
    Unheard,
    /// It drains, so a usable node would take the VIP from it.
    Draining,
    /// Its server is not ready, so a usable node would take the VIP from it.
    Unready,
    /// This node has a higher priority and preempts, so it would take the VIP back.
    Outranked {
        /// This node's priority.
        own: u8,
        /// That node's.
        theirs: u8,
    },
}

/// Why a node must not be drained.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoDrain {
    /// No other node is as good for new connections.
    LastUsable(LastUsable),
    /// It owns the VIP, and no other agent is heard.
    LastAgent,
}

/// No other node is as good for new connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastUsable {
    /// Index of the check by which that is so.
    pub check: CheckIndex,
    /// All other nodes.
    pub others: Vec<UnfitNode>,
}

/// A node that does not get new connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnfitNode {
    /// The node.
    pub node: BackendIndex,
    /// Why it does not get them.
    pub why: Unfit,
}

/// Why a node does not get new connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// It does not answer, or was never heard.
    Dead,
    /// Its packets stopped, and whether it lives is not known yet.
    Silent,
    /// It drains.
    Draining,
    /// Its server is not ready, hangs or refuses.
    Unready,
}
