//! What a node does and reports.

use std::time::Duration;

use vip_common::abi::{BackendIndex, Masks};
use vip_common::wire::addr::Mac;
use vip_common::wire::bfd::{ControlPacket, Diagnostic};
use vip_common::wire::time::BootNanos;

use crate::choice::Resort;
use crate::faults::Fault;
use crate::health::Transition;

/// Where an advertisement goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// To all other nodes.
    All,
    /// To one of them.
    One(BackendIndex),
}

/// What the shell has to do, in the order given.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Let the kernel answer for the VIP until then; [`BootNanos::ZERO`]: no more.
    SetAnswerUntil(BootNanos),
    /// Write health to the map.
    SetMasks(Masks),
    /// Send an advertisement.
    SendAdvert {
        /// To whom.
        to: To,
        /// With this priority, 0 to resign.
        priority: u8,
    },
    /// Send a BFD packet.
    SendBfd {
        /// To whom.
        to: BackendIndex,
        /// What.
        packet: ControlPacket,
    },
    /// Send an ICMP echo request.
    SendEcho(BackendIndex),
    /// Ask a node alone by ARP or Neighbor Discovery whether it still has its address.
    AskNeighbor(BackendIndex),
    /// Announce the VIP: gratuitous ARP.
    Announce,
    /// Announce this node's own addresses in the same way.
    AnnounceOwn,
    /// Ask the segment who has the VIP (RFC 5227, an ARP probe).
    ProbeAddress,
    /// Tell whoever listens: log, metrics, status.
    Report(Report),
    /// The node has given up all it held; the agent may end.
    Done,
}

/// What changed, and why.
#[derive(Clone, PartialEq, Debug)]
pub enum Report {
    /// This node became the owner.
    Active(Takeover),
    /// This node is no owner (any more).
    Backup(Loss),
    /// Another node is the owner now, as far as this one hears, or none.
    Owner {
        /// The owner.
        owner: Option<BackendIndex>,
        /// The one before, if it is known.
        before: Option<Former>,
    },
    /// A BFD session came up.
    BfdUp(BackendIndex),
    /// A BFD session went down.
    BfdDown {
        /// With which node.
        node: BackendIndex,
        /// Why.
        diagnostic: Diagnostic,
    },
    /// A node does not answer at all.
    Dead(BackendIndex),
    /// A node that was silent answers.
    Answers(BackendIndex),
    /// A node that lives answers no ICMP echo requests, or answers them again.
    Echo {
        /// Which node.
        node: BackendIndex,
        /// It answers none.
        lost: bool,
    },
    /// Probes found that a node or its server is in another state.
    Health {
        /// Which node.
        node: BackendIndex,
        /// The check by which that is so.
        check: usize,
        /// The state, and what the probe found.
        change: Transition,
    },
    /// New connections go to nodes of another kind.
    NewConnections {
        /// The check by which that is so.
        check: usize,
        /// The kind.
        resort: Resort,
    },
    /// A node, this one or another, takes no new connections, or takes them again.
    Draining {
        /// Which node.
        node: BackendIndex,
        /// It takes none.
        draining: bool,
    },
    /// A fault came or went.
    Fault {
        /// Which.
        fault: Fault,
        /// It came.
        present: bool,
    },
    /// Somebody else claims the VIP; whether it is defended.
    Conflict {
        /// Its Ethernet address.
        mac: Mac,
        /// Who it is.
        claimant: Claimant,
        /// Whether the VIP was announced against it.
        defended: bool,
        /// Whether it is news: that one did not claim it until now.
        fresh: bool,
    },
    /// Whoever claimed the VIP does so no more, as far as this node hears.
    ConflictOver {
        /// Its Ethernet address.
        mac: Mac,
        /// Who it is.
        claimant: Claimant,
    },
    /// This node owns the VIP, and another node answers for it as well, for longer than a
    /// handover takes; or it does so no more.
    TwoOwners {
        /// The other node.
        node: BackendIndex,
        /// It answers.
        present: bool,
    },
    /// The VIP is handed over to that node.
    HandingOver(BackendIndex),
    /// It has it.
    HandedOver(BackendIndex),
    /// Why the VIP was not handed over.
    NotHandedOver(NoHandover),
    /// The priority changed with the node's health.
    Priority(u8),
}

/// A node that was the owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Former {
    /// Which.
    pub node: BackendIndex,
    /// Why it is not the owner any more.
    pub why: Departure,
}

/// Who claims the VIP, and is no agent that is heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimant {
    /// No node of the cluster, as far as is known.
    Stranger,
    /// Something on this node, which runs no agent.
    NoAgent(BackendIndex),
    /// This node, whose agent is not heard.
    Unheard {
        /// It.
        node: BackendIndex,
        /// Who owns the VIP.
        owner: BackendIndex,
    },
}

impl Claimant {
    /// The node of the cluster that it is.
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
    /// The agent before this one owned the VIP a moment ago, and its lease still stood.
    Resumed,
    /// Nobody owned it, as far as this node heard.
    Nobody,
    /// From another node.
    From {
        /// Whose it was.
        node: BackendIndex,
        /// Why it is not any more.
        why: Departure,
        /// How long ago that node gave its last sign of life, or resigned: the clients' outage
        /// is no longer than that, and the time an announcement takes. Zero if it never ceased to
        /// answer.
        after: Duration,
    },
}

/// Why a node is the owner no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// It gave the VIP up.
    Resigned,
    /// It fell silent.
    Silent,
    /// Another one has more reason to be the owner.
    Outranked,
}

/// Why a node is a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// It has just started.
    Started,
    /// That node has more reason to be the owner.
    Outranked(BackendIndex),
    /// The VIP was handed over to that node.
    HandedOver(BackendIndex),
    /// It did not run for so long that its lease ended.
    Overslept,
    /// It lacks something.
    Fault(Fault),
    /// The agent is to end.
    Shutdown,
}

/// Why the VIP stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoHandover {
    /// This node does not own it, but that one, if any is heard.
    NotOwner(Option<BackendIndex>),
    /// The node that was named is this one.
    Own,
    /// The node that was named would not have it, or not for long.
    Unsuited(BackendIndex, Unsuited),
    /// None of the other nodes would, and why each would not.
    NoSuccessor(Vec<(BackendIndex, Unsuited)>),
    /// The node did not take it.
    NoAnswer(BackendIndex),
}

/// Why a node is not to have the VIP by a handover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsuited {
    /// Its agent is not heard (without BFD: the node does not answer).
    Unheard,
    /// Its operator wants no new connections there, and a node that may have them would take the
    /// VIP from it.
    Draining,
    /// Its server is not ready, and a node whose server is would take the VIP from it.
    Unready,
    /// This node has a higher priority and preempts: it would take the VIP back.
    Outranked {
        /// This node's priority.
        own: u8,
        /// That node's.
        theirs: u8,
    },
}

/// Why a node is not to be drained.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoDrain {
    /// Nobody as good is left for new connections.
    LastUsable(LastUsable),
    /// It owns the VIP, and no other node is heard that could.
    LastAgent,
}

/// That nobody as good is left for new connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastUsable {
    /// The check by which that is so.
    pub check: usize,
    /// The other nodes, and why it is none of them.
    pub others: Vec<(BackendIndex, Unfit)>,
}

/// Why a node is not one for new connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// It does not answer, or was never heard.
    Dead,
    /// Its packets stay out.
    Silent,
    /// Its operator wants none there.
    Draining,
    /// Its server is not ready, hangs or refuses.
    Unready,
}
