//! What a node is told, and what it says: its parameters, events and actions.

use super::*;

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
    /// How far ahead of now the lease is set at most: [`MAX_LEASE`], but in a simulation. It is
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
    pub interval: vip_common::wire::vrrp::Centiseconds,
    /// As [`vrrp::Params::preempt`].
    pub preempt: bool,
    /// As [`vrrp::Params::preempt_delay`].
    pub preempt_delay: Duration,
}

/// Why a node cannot own the VIP, whatever its priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The NIC has no carrier, is down or is gone.
    Carrier,
    /// The programs are not on the NIC: nothing would answer or steer.
    Programs,
    /// The VIP is not on `lo`: the stack would not take what is steered here.
    Vip,
    /// The node's own address is not on the NIC: its peers would not know it.
    Address,
    /// BFD's port cannot be opened, so this node hears no peer's agent, and no peer hears this one:
    /// another program has it, and the kernel cannot share it.
    BfdPort,
    /// The program on the way in does not run: the kernel would answer for the VIP, whoever owns
    /// it.
    Ingress,
    /// The program on the way out does not run: the kernel would speak for the VIP.
    Egress,
}

impl Fault {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::Carrier,
        Self::Programs,
        Self::Vip,
        Self::Address,
        Self::BfdPort,
        Self::Ingress,
        Self::Egress,
    ];

    pub(super) const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// For programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Carrier => "carrier",
            Self::Programs => "programs",
            Self::Vip => "vip",
            Self::Address => "address",
            Self::BfdPort => "bfd_port",
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// For people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Carrier => "no carrier",
            Self::Programs => "programs are not attached",
            Self::Vip => "the VIP is not on lo",
            Self::Address => "the node's own address is gone",
            Self::BfdPort => "UDP port 3784 (BFD) cannot be opened",
            Self::Ingress => "the program on the way in is not seen to run",
            Self::Egress => "the program on the way out is not seen to run",
        }
    }
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// An advertisement of our virtual router came from this node.
    Advert {
        /// Who sent it.
        source: BackendIndex,
        /// What it says.
        advert: &'a Advertisement,
    },
    /// A BFD packet came from this node.
    Bfd {
        /// Who sent it.
        source: BackendIndex,
        /// What it says.
        packet: &'a ControlPacket,
    },
    /// A node answered an echo request.
    Echo(BackendIndex),
    /// A node's kernel was heard by ARP or Neighbour Discovery.
    Neighbour(BackendIndex),
    /// A node's Ethernet address is known: frames can be handed on to it.
    Located(BackendIndex),
    /// A probe by one of the checks ended.
    Probe(BackendIndex, usize, Probe),
    /// Something this node needs is missing, or is there (again).
    Fault(Fault, bool),
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
    /// Ask a node alone by ARP or Neighbour Discovery whether it still has its address.
    AskNeighbour(BackendIndex),
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
        /// Who was it, and why it is not any more.
        before: Option<(BackendIndex, Departure)>,
    },
    /// A BFD session came up.
    BfdUp(BackendIndex),
    /// A BFD session went down.
    BfdDown(BackendIndex, Diagnostic),
    /// A node does not answer at all.
    Dead(BackendIndex),
    /// A node that was silent answers.
    Answers(BackendIndex),
    /// A node that lives answers no ICMP echo request (`true`), or answers them (again).
    EchoLost(BackendIndex, bool),
    /// What probes by one of the checks found.
    Health(BackendIndex, usize, Transition),
    /// By one of the checks, new connections go to nodes of that kind now.
    NewConnections(usize, Resort),
    /// A node, this one or another, takes no new connections (`true`), or takes them again.
    Draining(BackendIndex, bool),
    /// A fault came (`true`) or went.
    Fault(Fault, bool),
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
    /// handover takes (`true`); or it does so no more.
    TwoOwners(BackendIndex, bool),
    /// The VIP is handed over to that node.
    HandingOver(BackendIndex),
    /// It has it.
    HandedOver(BackendIndex),
    /// Why the VIP was not handed over.
    NotHandedOver(NoHandover),
    /// The priority changed with the node's health.
    Priority(u8),
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
