//! The verdict about a frame that arrived at the NIC.

use crate::abi::{Counter, NOT_A_BACKEND};
use crate::wire::addr::{Be16, Mac};
use crate::wire::tcp;

/// What to do with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Pass it to this node's stack.
    Pass,
    /// Discard it.
    Drop,
    /// Pass it to this node's stack, and count it for this node's backend.
    Local,
    /// Pass it to this node's stack as the reset that ends a TIME-WAIT socket.
    EndTimeWait,
    /// Send it to a peer, by the NIC at which it arrived.
    Forward,
    /// Turn the ARP request into its reply and send it back.
    AnswerArp,
    /// Turn the neighbor solicitation into its advertisement and send it back.
    AnswerNdp,
}

/// The decision about a frame.
///
/// A flat struct, made only by functions that set every field. An enum leaves bytes of its smaller
/// variants undefined. LLVM spills those bytes too when registers run short, and the verifier
/// refuses a program that reads bytes which were never written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub(crate) kind: Kind,
    pub(crate) counter: Counter,
    pub(crate) backend: u32,
    pub(crate) mac: Mac,
    /// TTL or hop limit that the frame leaves with, for [`Kind::Forward`]; else 0.
    pub(crate) ttl: u8,
    pub(crate) syn: bool,
    pub(crate) ipv6: bool,
    pub(crate) bytes: u32,
    /// Offset in the frame, in bytes, of a port that is to be rewritten before the stack gets the
    /// frame; 0 if there is none.
    pub(crate) port_offset: u32,
    /// Offset in the frame, in bytes, of the checksum that covers this port.
    pub(crate) checksum_offset: u32,
    /// The new port.
    pub(crate) port: Be16,
    /// Offset of the TCP header in the frame, in bytes, for [`Kind::EndTimeWait`]; else 0.
    pub(crate) tcp_offset: u32,
    /// The new sequence number in host byte order, for [`Kind::EndTimeWait`]; else 0.
    pub(crate) sequence: u32,
}

/// Where a port lies in a frame.
#[derive(Clone, Copy)]
pub(crate) struct PortField {
    /// Offset of the port in bytes.
    pub(crate) offset: usize,
    /// Offset in bytes of the checksum that covers the port.
    pub(crate) checksum: usize,
}

impl PortField {
    /// The destination port of the segment whose TCP header is at this offset, in bytes.
    #[inline(always)]
    pub(crate) const fn of_segment(tcp: usize) -> Self {
        Self {
            offset: tcp + tcp::DESTINATION_PORT,
            checksum: tcp + tcp::CHECKSUM,
        }
    }
}

impl Verdict {
    /// The frame is for no VIP: pass it, and count nothing.
    pub const UNTOUCHED: Self = Self::pass(Counter::Untouched);

    #[inline(always)]
    pub(crate) const fn new(kind: Kind, counter: Counter) -> Self {
        let mac = Mac::UNKNOWN;
        Self {
            kind,
            counter,
            backend: NOT_A_BACKEND,
            mac,
            ttl: 0,
            syn: false,
            ipv6: false,
            bytes: 0,
            port_offset: 0,
            checksum_offset: 0,
            port: Be16::new(0),
            tcp_offset: 0,
            sequence: 0,
        }
    }

    /// Passes the frame to this node's stack.
    #[inline(always)]
    #[must_use]
    pub const fn pass(counter: Counter) -> Self {
        Self::new(Kind::Pass, counter)
    }

    /// Passes the segment, whose TCP header is at offset `tcp` of the frame, in bytes, to this node's
    /// stack as the reset that ends a TIME-WAIT socket: one with the sequence number `expects`, in
    /// host byte order, that the socket expects next.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn end_time_wait(counter: Counter, tcp: usize, expects: u32) -> Self {
        Self {
            tcp_offset: tcp as u32,
            sequence: expects,
            ..Self::new(Kind::EndTimeWait, counter)
        }
    }

    /// Discards the frame.
    #[inline(always)]
    #[must_use]
    pub const fn drop(counter: Counter) -> Self {
        Self::new(Kind::Drop, counter)
    }

    /// A claimant announces the VIP as its own. `asked`: the frame also asks for the VIP. It is
    /// dropped then, because the stack, which has the VIP, would answer.
    #[inline(always)]
    #[must_use]
    pub const fn conflict(counter: Counter, claimant: Mac, asked: bool) -> Self {
        let kind = if asked { Kind::Drop } else { Kind::Pass };
        Self {
            mac: claimant,
            ..Self::new(kind, counter)
        }
    }

    /// Keeps the frame: it is for this node, the backend `own_index`. `syn`: the segment opens a
    /// connection.
    #[inline(always)]
    #[must_use]
    pub const fn local(counter: Counter, own_index: u32, syn: bool) -> Self {
        Self {
            backend: own_index,
            syn,
            ..Self::new(Kind::Local, counter)
        }
    }

    /// Forwards the frame to a peer, with this TTL. `ipv6`: the frame has a hop limit to lower, not
    /// a TTL and its checksum.
    #[inline(always)]
    #[must_use]
    pub const fn forward(backend: u32, mac: Mac, ttl: u8, syn: bool, ipv6: bool) -> Self {
        let counter = if syn {
            Counter::ForwardedSyn
        } else {
            Counter::ForwardedSegment
        };
        Self {
            backend,
            mac,
            ttl,
            syn,
            ipv6,
            ..Self::new(Kind::Forward, counter)
        }
    }

    /// This verdict with the length of the frame in bytes, padding and FCS not included.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn of(self, bytes: u32) -> Self {
        Self { bytes, ..self }
    }

    /// This verdict, which also writes `port` into a field of the frame.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn with_port(self, field: PortField, port: Be16) -> Self {
        Self {
            port_offset: field.offset as u32,
            checksum_offset: field.checksum as u32,
            port,
            ..self
        }
    }

    /// Answers the ARP request.
    #[inline(always)]
    #[must_use]
    pub const fn answer_arp() -> Self {
        Self::new(Kind::AnswerArp, Counter::ArpAnswered)
    }

    /// Answers the neighbor solicitation.
    #[inline(always)]
    #[must_use]
    pub const fn answer_ndp() -> Self {
        Self::new(Kind::AnswerNdp, Counter::NdpAnswered)
    }

    /// The action that the program takes.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The counter that the frame adds to.
    #[inline(always)]
    #[must_use]
    pub const fn counter(&self) -> Counter {
        self.counter
    }

    /// Index of the backend that gets the frame, for [`Kind::Forward`] and [`Kind::Local`]; else
    /// [`NOT_A_BACKEND`].
    #[inline(always)]
    #[must_use]
    pub const fn backend(&self) -> u32 {
        self.backend
    }

    /// The peer's Ethernet address, for [`Kind::Forward`]; the claimant's, for
    /// [`Counter::ArpConflict`] and [`Counter::NdpConflict`]; else [`Mac::UNKNOWN`].
    #[inline(always)]
    #[must_use]
    pub const fn mac(&self) -> Mac {
        self.mac
    }

    /// Length of the frame in bytes, padding and FCS not included, for [`Kind::Forward`] and
    /// [`Kind::Local`]; else 0.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Whether the frame opens a connection at that backend.
    #[inline(always)]
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.syn
    }
}

/// The headers of a frame that can be forwarded.
pub trait Steered {
    /// Rewrites them for the first hop, to this Ethernet address, and from the one that the frame
    /// came to.
    fn forward_to(&mut self, mac: Mac);
}

/// Carries out a verdict at the place where it is found. The compiler knows the verdict's fields
/// there, so that they need no tests later. This saves a third of the time that a steered packet
/// takes in the kernel. Both functions must be inlined.
pub trait VerdictHandler: Copy {
    /// The result, for example an XDP action.
    type Outcome;

    /// Handles a verdict. [`ingress::apply`](crate::ingress::apply()) rewrites the frame.
    fn handle(self, verdict: Verdict) -> Self::Outcome;

    /// Handles a verdict that forwards the frame with these headers for the first time.
    fn forward(self, verdict: Verdict, headers: &mut impl Steered) -> Self::Outcome;
}
