//! The counters of the programs.

use bytemuck::{Pod, Zeroable};

/// Traffic that this node steered to one backend. Each frame adds to one of the three counts of
/// frames. Their sums never decrease then, even if a program counts while the agent reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub struct BackendCounters {
    /// Segments forwarded to the backend or, on the backend itself, passed to its stack. Neither
    /// SYNs nor `others`; of those forwarded, also ICMP errors.
    pub segments: u64,
    /// SYNs likewise.
    pub syns: u64,
    /// Frames that the backend itself passed to its stack under [`Counter::LocalCookie`] or
    /// [`Counter::LocalError`].
    pub others: u64,
    /// Bytes of all these frames, Ethernet header included, FCS not.
    pub bytes: u64,
}

impl BackendCounters {
    /// All frames.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.segments + self.syns + self.others
    }
}

impl core::ops::Add for BackendCounters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            segments: self.segments + other.segments,
            syns: self.syns + other.syns,
            others: self.others + other.others,
            bytes: self.bytes + other.bytes,
        }
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// The counters, one for each reason of a verdict. A variant's documentation is the help
        /// text of its metric.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $doc])+ $variant,)+ }

        impl Counter {
            /// All counters, in the order of their index in the map.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in metrics and in `vip status --json`, in `snake_case`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The help text of the metric: one line.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii()),+ }
            }

            /// Index in the map of counters, below [`COUNTERS`].
            #[must_use]
            pub const fn index(self) -> u32 {
                self as u32
            }
        }
    };
}

counters! {
    /// Not for a VIP: untouched. Not counted, to keep that path short; never seen in the map.
    Untouched = "untouched",
    /// SYN sent on to another node.
    ForwardedSyn = "forwarded_syn",
    /// Any other segment sent on to another node.
    ForwardedSegment = "forwarded_segment",
    /// SYN passed to this node's own stack.
    LocalSyn = "local_syn",
    /// Any other segment passed to this node's own stack, which has its connection.
    LocalSegment = "local_segment",
    /// Acknowledgement of a SYN cookie of this node, passed to its stack.
    LocalCookie = "local_cookie",
    /// No node has the connection or a listener: passed to this stack, which resets it (or ends the
    /// TIME-WAIT socket that lies in the way, and resets the client's next segment).
    NoSocket = "no_socket",
    /// The same while this node is joining, and another may have the socket: dropped, to be sent
    /// again.
    Joining = "joining",
    /// No node that was asked has the connection, and a member that was not asked may have it:
    /// dropped, to be sent again.
    Unasked = "unasked",
    /// Had made all the hops that a frame may make between nodes, and found no socket: dropped.
    TtlExceeded = "ttl_exceeded",
    /// A TCP port that is not declared for the VIP: dropped.
    UndeclaredPort = "undeclared_port",
    /// A protocol other than TCP and ICMP for the VIP: dropped.
    OtherProtocol = "other_protocol",
    /// A fragment of TCP for the VIP: dropped.
    Fragment = "fragment",
    /// Headers that contradict themselves or the frame, for the VIP: dropped.
    Malformed = "malformed",
    /// Shorter than its headers, before a VIP could be seen in it: passed.
    Short = "short",
    /// For the VIP, but not for this NIC's address (flooded, promiscuous): passed, the stack drops
    /// it. In a frame for a group, which the stack would take: dropped.
    OtherHost = "other_host",
    /// ICMP for the VIP: passed to this node's stack.
    Icmp = "icmp",
    /// ICMP error about a connection of this node: passed to its stack.
    LocalError = "local_error",
    /// SYN from a source that is not on the service's allow list: dropped.
    NotAllowed = "not_allowed",
    /// SYN from a source that opens too many connections: dropped.
    SynLimited = "syn_limited",
    /// ARP request for the VIP, answered.
    ArpAnswered = "arp_answered",
    /// ARP request for the VIP on a node that does not own it: dropped.
    ArpNotOwner = "arp_not_owner",
    /// Gratuitous ARP for the VIP from a living node of the cluster: dropped.
    ArpAnnouncement = "arp_announcement",
    /// ARP from somebody else who claims the VIP as its own: dropped.
    ArpConflict = "arp_conflict",
    /// Any other ARP: passed.
    ArpPassed = "arp_passed",
    /// Neighbour solicitation for the VIP, answered.
    NdpAnswered = "ndp_answered",
    /// Neighbour solicitation for the VIP on a node that does not own it: dropped.
    NdpNotOwner = "ndp_not_owner",
    /// Neighbour discovery from a living node of the cluster that claims the VIP: passed.
    NdpAnnouncement = "ndp_announcement",
    /// Neighbour discovery from somebody else who claims the VIP as its own: passed.
    NdpConflict = "ndp_conflict",
    /// Any other neighbour solicitation or advertisement: passed.
    NdpPassed = "ndp_passed",
    /// Outgoing ARP that named the VIP as its sender: rewritten to name the node.
    GuardRewritten = "guard_rewritten",
    /// Outgoing announcement of the VIP from a node whose lease is down: dropped.
    GuardDropped = "guard_dropped",
    /// Connection from this node or a pod on it, redirected to a ready node.
    Redirected = "redirected",
    /// Test frame of the agent, seen on the way out: dropped.
    GuardTested = "guard_tested",
    /// Test socket of the agent, seen at `connect`.
    ConnectTested = "connect_tested",
    /// Segment of this node or its pods to a member that is gone: answered with a reset in its name.
    GoneReset = "gone_reset",
}

impl Counter {
    /// Whether it counts frames or connections of clients, not the agent's self-tests.
    #[must_use]
    pub const fn tells_of_traffic(self) -> bool {
        !matches!(
            self,
            Self::Untouched | Self::GuardTested | Self::ConnectTested
        )
    }
}

/// Number of entries of the map of counters.
pub const COUNTERS: u32 = Counter::ALL.len() as u32;
