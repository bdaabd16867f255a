//! What is decided about a frame.

use crate::abi::{Counter, NOT_A_BACKEND};
use crate::wire::addr::{Be16, Mac};

/// What to do with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// To this node's stack.
    Pass,
    /// Nowhere.
    Drop,
    /// To this node's stack, as one of the backends.
    Local,
    /// Out of the NIC it came in by, to another node.
    Forward,
    /// Back to its sender, as the answer to its ARP request.
    AnswerArp,
    /// Back to its sender, as the answer to its neighbour solicitation.
    AnswerNdp,
}

/// The decision about a frame.
///
/// Flat, and made only by functions that set every field: the bytes that an enum leaves
/// undefined in its smaller variants are spilled like any others when registers run short, and
/// the verifier refuses a program that reads what was never written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub(crate) kind: Kind,
    pub(crate) counter: Counter,
    pub(crate) backend: u32,
    pub(crate) mac: Mac,
    pub(crate) syn: bool,
    pub(crate) ipv6: bool,
    pub(crate) bytes: u32,
    /// What is to be rewritten before the stack gets the frame: the offset of a port, of the
    /// checksum that it lies under, and the port. 0: nothing.
    pub(crate) word: u32,
    pub(crate) checksum: u32,
    pub(crate) port: Be16,
}

impl Verdict {
    /// Nothing of ours.
    pub const UNTOUCHED: Self = Self::pass(Counter::Untouched);

    #[inline(always)]
    pub(crate) const fn new(kind: Kind, counter: Counter) -> Self {
        let mac = Mac::UNKNOWN;
        Self {
            kind,
            counter,
            backend: NOT_A_BACKEND,
            mac,
            syn: false,
            ipv6: false,
            bytes: 0,
            word: 0,
            checksum: 0,
            port: Be16::new(0),
        }
    }

    /// To this node's stack.
    #[inline(always)]
    #[must_use]
    pub const fn pass(counter: Counter) -> Self {
        Self::new(Kind::Pass, counter)
    }

    /// Nowhere.
    #[inline(always)]
    #[must_use]
    pub const fn drop(counter: Counter) -> Self {
        Self::new(Kind::Drop, counter)
    }

    /// Somebody who is no node claims the VIP. `asked`: it says so to the VIP itself, and the
    /// stack, which has it, would answer it.
    #[inline(always)]
    #[must_use]
    pub const fn conflict(counter: Counter, claimant: Mac, asked: bool) -> Self {
        let kind = if asked { Kind::Drop } else { Kind::Pass };
        Self {
            mac: claimant,
            ..Self::new(kind, counter)
        }
    }

    /// To this node's stack: this node, which is the backend `own_index`, is the one. `syn`: the
    /// segment opens a connection.
    #[inline(always)]
    #[must_use]
    pub const fn local(counter: Counter, own_index: u32, syn: bool) -> Self {
        Self {
            backend: own_index,
            syn,
            ..Self::new(Kind::Local, counter)
        }
    }

    /// To another node. `ipv6`: it is a frame of IPv6, whose hop limit is to be lowered, and not a
    /// TTL.
    #[inline(always)]
    #[must_use]
    pub const fn forward(backend: u32, mac: Mac, syn: bool, ipv6: bool) -> Self {
        let counter = if syn {
            Counter::ForwardedSyn
        } else {
            Counter::ForwardedSegment
        };
        Self {
            backend,
            mac,
            syn,
            ipv6,
            ..Self::new(Kind::Forward, counter)
        }
    }

    /// With the length of the frame, padding not included.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn of(self, bytes: u32) -> Self {
        Self { bytes, ..self }
    }

    /// With a port to rewrite: its offset in the frame, that of the checksum it lies under, and
    /// the port.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn naming(self, (word, checksum): (usize, usize), port: Be16) -> Self {
        Self {
            word: word as u32,
            checksum: checksum as u32,
            port,
            ..self
        }
    }

    /// Back to the asker.
    #[inline(always)]
    #[must_use]
    pub const fn answer_arp() -> Self {
        Self::new(Kind::AnswerArp, Counter::ArpAnswered)
    }

    /// Back to the asker.
    #[inline(always)]
    #[must_use]
    pub const fn answer_ndp() -> Self {
        Self::new(Kind::AnswerNdp, Counter::NdpAnswered)
    }

    /// What to do.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// What to count it as.
    #[inline(always)]
    #[must_use]
    pub const fn counter(&self) -> Counter {
        self.counter
    }

    /// The backend that the frame goes to, for [`Kind::Forward`] and [`Kind::Local`]; else
    /// [`NOT_A_BACKEND`].
    #[inline(always)]
    #[must_use]
    pub const fn backend(&self) -> u32 {
        self.backend
    }

    /// Where the frame goes, for [`Kind::Forward`]; who claims the VIP, for
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

    /// Whether it opens a connection there.
    #[inline(always)]
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.syn
    }
}

/// What happens next to a verdict.
pub trait VerdictHandler: Copy {
    /// What comes of it.
    type Outcome;

    /// A verdict was found. To be inlined: see [`decide_with`](crate::ingress::decide_with).
    fn handle(self, verdict: Verdict) -> Self::Outcome;
}
