//! The walk down the ranks.

use super::hops;
use crate::abi::{BackendIndex, BackendMask, Counter, MAX_BACKENDS, RankRow, Service, State};
use crate::env::{Address, Socket, Sockets, Tables};
use crate::hash::Flow;
use crate::verdict::{Verdict, VerdictHandler};
use crate::wire::addr::Mac;

/// Why a segment looks for its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// It asks for a new one.
    Syn,
    /// It belongs to one.
    Other,
    /// It is an ICMP error about one.
    Error,
}

/// What the walk needs to know.
pub(super) struct Segment<'t, A> {
    pub(super) service: &'t Service,
    /// The destination port is that on the nodes.
    pub(super) flow: Flow<A>,
    pub(super) what: What,
    /// It may acknowledge a SYN cookie.
    pub(super) cookie: bool,
    /// Number of its first byte; of no meaning in an error.
    pub(super) sequence: u32,
    /// Offset of the TCP header in the frame, in bytes.
    pub(super) tcp: usize,
    /// Offsets of the service's port and of the checksum that this lies under.
    pub(super) port: (usize, usize),
    /// It begins at this node's own rank: see `Datagram::from_peer`.
    pub(super) from_peer: bool,
    /// Hops left, and so how many it has made between nodes.
    pub(super) ttl: u8,
    /// Length of the frame.
    pub(super) bytes: u32,
}

impl<A> Segment<'_, A> {
    /// The verdict for this node's stack: it gets the port that it listens on.
    #[inline(always)]
    fn here(&self, verdict: Verdict) -> Verdict {
        if self.service.maps_port() {
            verdict.naming(self.port, self.service.target)
        } else {
            verdict
        }
    }
}

/// The walk down the ranks.
#[inline(always)]
pub(super) fn walk<A: Address, T: Tables, S: Sockets, N: VerdictHandler>(
    segment: &Segment<'_, A>,
    tables: &T,
    sockets: &S,
    next: N,
) -> N::Outcome {
    let state = tables.state();
    let config = &state.config;
    let syn = segment.what == What::Syn;
    let bucket = A::hash(segment.service, &segment.flow) as u32 & config.bucket_mask;
    let Some(row) = tables.row(config.rank_base.wrapping_add(bucket)) else {
        return next.handle(segment.here(Verdict::pass(Counter::NoSocket)));
    };
    let usable = if syn {
        state.masks.for_new_connections(segment.service.check)
    } else {
        state.masks.alive
    };

    // The sets are words to the verifier: it follows no branch for a node that joins.
    let others = usable.without(state.masks.no_forward);

    let mut ranks = Ranks {
        row,
        left: EVERY_HOP >> (MAX_BACKENDS - (config.backend_count as usize).min(MAX_BACKENDS)),
    };
    let mut found = None;
    if segment.from_peer {
        // A peer has walked down to my rank already; or I am the last that can look for a socket.
        ranks.skip_to(config.own_index);
    } else {
        found = ranks.descend(state, others);
    }
    if found.is_none() {
        ranks.left = state.hide_from_verifier::<{ EVERY_HOP + 1 }>(ranks.left);
        if let Some(own) = ranks.next() {
            if let Some(counter) = keep(segment, usable.contains(own), sockets) {
                let verdict = Verdict::local(counter, config.own_index, syn).of(segment.bytes);
                return next.handle(segment.here(verdict));
            }
            found = ranks.descend(state, others);
        }
    }
    if is_spent(segment, state) {
        // Not handed on, but no reset either: nobody knows who was asked and who was not.
        return next.handle(Verdict::drop(Counter::TtlExceeded));
    }
    let Some((backend, mac)) = found else {
        let joining = !state.masks.no_forward.is_empty();
        return next.handle(if joining && segment.what != What::Error {
            Verdict::drop(Counter::Joining)
        } else {
            segment.here(Verdict::pass(Counter::NoSocket))
        });
    };
    let verdict = Verdict::forward(backend.get() as u32, mac, syn, A::IPV6);
    next.handle(verdict.of(segment.bytes))
}

/// Whether the segment has made all the hops that it may.
///
/// By a TTL of which the verifier knows nothing: else it would follow all that comes before once
/// for those of clients and once for those that nodes leave.
#[inline(always)]
fn is_spent<A>(segment: &Segment<'_, A>, state: &State) -> bool {
    let ttl = state.hide_from_verifier::<256>(segment.ttl.into());
    hops::are_spent(ttl as u32, state.config.backend_count)
}

/// As many ones as a row has ranks.
const EVERY_HOP: usize = (1 << MAX_BACKENDS) - 1;

/// What is left of a row.
struct Ranks {
    row: RankRow,
    /// As many ones as there are ranks left. The verifier of Linux 6.1 does not know that a
    /// number which is not 0 is at least 1, and would follow a counter below 0 and on for ever.
    /// But it knows what shifting does to the largest value.
    left: usize,
}

impl Ranks {
    /// The next one, and goes on to the one behind it.
    #[inline(always)]
    fn next(&mut self) -> Option<BackendIndex> {
        if self.left == 0 {
            return None;
        }
        let first = self.row.first();
        self.row = self.row.rest();
        self.left >>= 1;
        Some(first)
    }

    /// Goes down to a node's rank, or to the end.
    #[inline(always)]
    fn skip_to(&mut self, node: u32) {
        while self.left != 0 && self.row.first().get() as u32 != node {
            self.next();
        }
    }

    /// Goes down to the first other node that may be used, which it returns; or to this node's
    /// own rank, or the end.
    ///
    /// The own rank is not looked at in here: the verifier does not know that there is only one,
    /// and would follow the look into the socket table from each rank.
    #[inline(always)]
    fn descend(&mut self, state: &State, usable: BackendMask) -> Option<(BackendIndex, Mac)> {
        while self.left != 0 && self.row.first().get() as u32 != state.config.own_index {
            let index = self.next()?;
            let mac = state.backends[index.get()].mac;
            if usable.contains(index) && !mac.is_unknown() {
                return Some((index, mac));
            }
        }
        None
    }
}

/// Whether this node's own stack wants the segment, and as what that counts. `usable`: it may
/// take new connections.
#[inline(always)]
fn keep<A: Address, S: Sockets>(
    segment: &Segment<'_, A>,
    usable: bool,
    sockets: &S,
) -> Option<Counter> {
    match sockets.lookup(&segment.flow, segment.cookie, segment.tcp) {
        // A SYN that is sent again belongs to the request it made the first time, and one for
        // a connection gets its challenge (RFC 5961), even when this node takes no new ones.
        Socket::Connection => Some(match segment.what {
            What::Syn => Counter::LocalSyn,
            What::Other => Counter::LocalSegment,
            What::Error => Counter::LocalError,
        }),
        // A client may use its port again while this is still here: only the side that closes
        // first waits. If this node was not ready then, its new connection is at a node further
        // down, and so must its segments go there. Their numbers tell them from what the client
        // still has to say about the old one: acknowledgements, its FIN, the RST of one that
        // closed with something unread, or that answers what this here answers to a new SYN.
        Socket::TimeWait { .. } if segment.what == What::Syn => {
            (usable && sockets.listens(&segment.flow)).then_some(Counter::LocalSyn)
        }
        Socket::TimeWait {
            expects: Some(expects),
        } if segment.what == What::Other => {
            is_old(segment.sequence, expects).then_some(Counter::LocalSegment)
        }
        Socket::Listener | Socket::Cookie if segment.what == What::Syn && usable => {
            Some(Counter::LocalSyn)
        }
        Socket::Cookie if segment.what == What::Other => Some(Counter::LocalCookie),
        Socket::Listener | Socket::Cookie | Socket::TimeWait { .. } | Socket::None => None,
    }
}

/// How far before the expected one a number may lie: what a client sends again because it lacks
/// an acknowledgement.
const SENT_AGAIN: u32 = 1 << 16;

/// Whether a segment with this number may belong to a connection that expects that one.
///
/// None behind it does. Clients count on from one connection to the next from the same port, once
/// in 64 ns with Linux (`secure_tcp_seq` in net/core/secure_seq.c, after RFC 6528), so that the
/// numbers of one that follows at once are just behind those of the old one. Data of the old one
/// that are still to come get a reset here and elsewhere.
#[inline(always)]
fn is_old(sequence: u32, expects: u32) -> bool {
    expects.wrapping_sub(sequence) <= SENT_AGAIN
}
