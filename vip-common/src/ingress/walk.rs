//! The walk down the ranks of a row.

use core::num::NonZeroU32;

use super::passage::{self, Passage};
use crate::abi::{
    BackendIndex, BackendMask, Counter, FIRST_RANKS, LaterRanks, MAX_BACKENDS, RankRow, Service,
    State, lease_stands,
};
use crate::env::{Address, Socket, Sockets, Tables};
use crate::hash::Flow;
use crate::verdict::{Kind, PortField, Verdict, VerdictHandler};
use crate::wire::Frame;
use crate::wire::addr::Mac;

/// The relation of a segment to the connection of its flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A SYN opens the connection.
    Open,
    /// Any other segment belongs to it.
    Continue,
    /// An ICMP error is about it.
    Error,
}

/// A segment for a service, or the one that an ICMP error quotes.
pub(super) struct Segment<'t, A> {
    pub(super) service: &'t Service,
    /// Its destination port is the service's target.
    pub(super) flow: Flow<A>,
    pub(super) purpose: Purpose,
    /// The segment may acknowledge a SYN cookie.
    pub(super) cookie: bool,
    /// Sequence number of its first byte, in host byte order; not used for an error.
    pub(super) sequence: u32,
    /// Its acknowledgement number, in host byte order, and whether that is valid.
    pub(super) acknowledgement: u32,
    pub(super) acknowledges: bool,
    /// Offset of the TCP header in the frame, in bytes.
    pub(super) tcp: usize,
    /// Where the service's port lies in the frame.
    pub(super) port: PortField,
    /// This node is known to have no socket for the flow.
    pub(super) no_socket: bool,
    /// Its way to this node.
    pub(super) passage: Passage,
    /// Length of the frame in bytes, padding and FCS not included.
    pub(super) bytes: u32,
}

impl<A> Segment<'_, A> {
    /// The verdict for this segment if it stays.
    #[inline(always)]
    fn keep_here(&self, verdict: Verdict) -> Verdict {
        keep_here(verdict, self.service, self.port)
    }
}

/// The verdict for a segment that stays: its port becomes the service's target.
#[inline(always)]
pub(super) fn keep_here(verdict: Verdict, service: &Service, port: PortField) -> Verdict {
    if service.maps_port() {
        verdict.with_port(port, service.target)
    } else {
        verdict
    }
}

/// Walks down the ranks of the segment's bucket, and calls `next` with the verdict.
#[inline(always)]
pub(super) fn walk<F, A, T, S, N>(
    frame: &F,
    segment: &Segment<'_, A>,
    tables: &T,
    sockets: &S,
    next: N,
) -> N::Outcome
where
    F: Frame + ?Sized,
    A: Address,
    T: Tables,
    S: Sockets,
    N: VerdictHandler,
{
    let state = tables.state();
    let (config, masks) = (&state.config, &state.masks);
    let syn = segment.purpose == Purpose::Open;
    let bucket = A::bucket(
        segment.service,
        segment.flow.source,
        segment.flow.source_port,
    );
    let usable = usable(state, segment.service, syn);

    // A mask instead of a test whether this node is joining: the verifier sees no branch.
    let others = usable.without(masks.no_forward);

    // The nodes that may have the socket. One that is not ready is passed over by a SYN by right.
    let holders = if syn { masks.suspect } else { masks.not_gone };

    let mut passage = segment.passage;
    let mut ranks = Ranks {
        row: row(tables, bucket),
        left: EVERY_HOP >> (MAX_BACKENDS - (config.backend_count as usize).min(MAX_BACKENDS)),
        passed: BackendMask::EMPTY,
    };
    let mut found = None;
    let mut time_wait = None;
    if passage.starts_here {
        let above = ranks.skip_to(config.own_index);
        passage.doubtful |= passage.asked < above.and(holders).count();
    } else {
        found = ranks.descend(state, others);
    }
    if found.is_none() {
        ranks.left = state.hide_from_verifier::<{ EVERY_HOP + 1 }>(ranks.left);
        if let Some(own) = ranks.next() {
            if !segment.no_socket {
                match keep(frame, segment, usable.contains(own), sockets) {
                    Keep::Yes(counter) => {
                        let verdict = Verdict::local(counter, config.own_index, syn);
                        return next.handle(segment.keep_here(verdict.of(segment.bytes)));
                    }
                    Keep::No { in_the_way } => time_wait = in_the_way,
                }
            }
            passage.counts = true;
            found = ranks.descend(state, others);
        }
    }
    if passage.is_spent(state) {
        // No reset: it is unknown which nodes have looked for the socket. A last resort is no sign of
        // frames that go round.
        let counter = if passage.is_last_resort() {
            Counter::Unasked
        } else {
            Counter::TtlExceeded
        };
        return next.handle(Verdict::drop(counter));
    }
    passage.asked += u32::from(passage.counts);
    passage.doubtful |= !ranks.passed.and(holders).is_empty();
    let (ttl, found) = match found {
        Some(found) => (passage.ttl(), Some(found)),
        None => (passage::LAST_RESORT, suspect(state)),
    };
    let Some((backend, mac)) = found else {
        let verdict = match (no_socket(segment.purpose, passage, tables), time_wait) {
            // The stack would give the segment to that socket, whose ACK means nothing to the client.
            // It resets the next segment, once the socket has gone.
            (verdict, Some(expects)) if verdict.kind == Kind::Pass => {
                Verdict::end_time_wait(verdict.counter, segment.tcp, expects.get())
            }
            (verdict, _) => verdict,
        };
        return next.handle(segment.keep_here(verdict));
    };
    let verdict = Verdict::forward(backend.get() as u32, mac, ttl, syn, A::IPV6);
    next.handle(verdict.of(segment.bytes))
}

/// The suspect that gets a segment after all other nodes. Every node is in every row, so any will
/// do.
#[inline(always)]
fn suspect(state: &State) -> Option<(BackendIndex, Mac)> {
    let suspects = state.masks.suspect.without(state.masks.no_forward);
    let index = suspects.nth(0)?;
    let mac = state.backends[index.get()].mac;
    (index.get() as u32 != state.config.own_index && !mac.is_unknown()).then_some((index, mac))
}

/// The verdict at the end of the row, where no node that was asked has the socket. The stack of
/// this node refuses a SYN and resets any other segment. It does not get a segment whose socket
/// another member may have; the client sends that segment again.
#[inline(always)]
fn no_socket<T: Tables>(purpose: Purpose, passage: Passage, tables: &T) -> Verdict {
    let state = tables.state();
    let masks = &state.masks;
    // A node that hands nothing on does not know which peers are there.
    let knows_peers = masks.no_forward.is_empty();
    let is_final = match purpose {
        Purpose::Open => knows_peers && !passage.doubtful && masks.suspect.is_empty(),
        Purpose::Continue => {
            knows_peers
                && !passage.doubtful
                && passage.asked >= masks.not_gone.count()
                && lease_stands(state.resets_until, tables.now())
        }
        Purpose::Error => true,
    };
    if is_final {
        Verdict::pass(Counter::NoSocket)
    } else if knows_peers {
        Verdict::drop(Counter::Unasked)
    } else {
        Verdict::drop(Counter::Joining)
    }
}

/// The row of a bucket. A cluster with few nodes has no later ranks.
#[inline(always)]
fn row<T: Tables>(tables: &T, bucket: u16) -> RankRow {
    let config = &tables.state().config;
    let index = config.rank_base.wrapping_add(bucket.into());
    let later = if config.backend_count as usize > FIRST_RANKS {
        tables.later_ranks(index)
    } else {
        LaterRanks::default()
    };
    RankRow::of(tables.first_ranks(index), later)
}

/// The nodes that a segment to a service may go to. `syn`: it opens a connection.
#[inline(always)]
pub(super) fn usable(state: &State, service: &Service, syn: bool) -> BackendMask {
    if syn {
        state.masks.for_new_connections(service.check)
    } else {
        state.masks.alive
    }
}

/// One bit for each rank of a row.
const EVERY_HOP: usize = (1 << MAX_BACKENDS) - 1;

/// The ranks of a row that the walk has not passed.
struct Ranks {
    row: RankRow,
    /// One bit for each of these ranks. The verifier of Linux 6.1 does not derive from `x != 0`
    /// that `x` is at least 1, so it would follow a counter below 0 without end. A shift to the
    /// right lowers the upper bound that it knows.
    left: usize,
    /// The nodes of the ranks that [`descend`](Self::descend) has passed over.
    passed: BackendMask,
}

impl Ranks {
    /// Takes the next rank.
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

    /// Goes down to the rank of this backend, or to the end. Returns the nodes above.
    #[inline(always)]
    fn skip_to(&mut self, node: u32) -> BackendMask {
        let mut above = BackendMask::EMPTY;
        while self.left != 0 && self.row.first().get() as u32 != node {
            above = above.with(self.row.first(), true);
            self.next();
        }
        above
    }

    /// Takes ranks up to the first usable peer and returns it. Stops before this node's own rank
    /// and at the end.
    ///
    /// The socket lookup is outside of this loop. The verifier does not know that a node has one
    /// rank only, and would verify the lookup once for each rank.
    #[inline(always)]
    fn descend(&mut self, state: &State, usable: BackendMask) -> Option<(BackendIndex, Mac)> {
        while self.left != 0 && self.row.first().get() as u32 != state.config.own_index {
            let index = self.next()?;
            let mac = state.backends[index.get()].mac;
            if usable.contains(index) && !mac.is_unknown() {
                return Some((index, mac));
            }
            self.passed = self.passed.with(index, true);
        }
        None
    }
}

/// Whether this node keeps a segment.
enum Keep {
    /// It does, under this counter.
    Yes(Counter),
    /// It does not.
    No {
        /// The sequence number that a TIME-WAIT socket of an earlier connection expects, which the
        /// stack would give the segment to.
        in_the_way: Option<NonZeroU32>,
    },
}

impl Keep {
    /// This node has no use for the segment, and its stack would reset it.
    const NO: Self = Self::No { in_the_way: None };

    #[inline(always)]
    fn under(counter: Option<Counter>) -> Self {
        counter.map_or(Self::NO, Self::Yes)
    }
}

/// Whether this node keeps the segment. `usable`: it may take new connections.
#[inline(always)]
fn keep<F: Frame + ?Sized, A: Address, S: Sockets>(
    frame: &F,
    segment: &Segment<'_, A>,
    usable: bool,
    sockets: &S,
) -> Keep {
    match sockets.lookup(frame, &segment.flow, segment.cookie, segment.tcp) {
        // The client has answered another node's SYN-ACK. This node got a copy of the SYN, and its
        // TCP would reset the connection.
        Socket::Request {
            expects: Some(expects),
        } if segment.acknowledges && segment.acknowledgement != expects.get() => Keep::NO,
        // Also for a SYN, and also when this node takes no new connections. A retransmitted SYN
        // belongs to its request; one for an open connection gets a challenge ACK (RFC 5961).
        Socket::Connection | Socket::Request { .. } => Keep::Yes(match segment.purpose {
            Purpose::Open => Counter::LocalSyn,
            Purpose::Continue => Counter::LocalSegment,
            Purpose::Error => Counter::LocalError,
        }),
        // Only the side that closes first enters TIME-WAIT, so the client may reuse its port at
        // once. If this node was not usable for that new connection, a backend further down has
        // it, and its segments must go there. The old connection still gets its late segments:
        // acknowledgements, the client's FIN, and resets. A client sends a reset if it closed
        // with unread data, or in answer to the ACK that the TIME-WAIT socket sends for a SYN.
        // The sequence number tells old segments from new ones.
        Socket::TimeWait { .. } if segment.purpose == Purpose::Open => {
            Keep::under((usable && sockets.listens(&segment.flow)).then_some(Counter::LocalSyn))
        }
        Socket::TimeWait {
            expects: Some(expects),
        } if segment.purpose == Purpose::Continue => {
            if is_old(segment.sequence, expects.get()) {
                Keep::Yes(Counter::LocalSegment)
            } else {
                Keep::No {
                    in_the_way: Some(expects),
                }
            }
        }
        Socket::Listener | Socket::Cookie if segment.purpose == Purpose::Open && usable => {
            Keep::Yes(Counter::LocalSyn)
        }
        Socket::Cookie if segment.purpose == Purpose::Continue => Keep::Yes(Counter::LocalCookie),
        Socket::Listener | Socket::Cookie | Socket::TimeWait { .. } | Socket::None => Keep::NO,
    }
}

/// How far a retransmitted segment may lie before the expected sequence number, in bytes.
const RETRANSMITTED: u32 = 1 << 16;

/// Whether a segment with this sequence number may belong to the old connection, whose TIME-WAIT
/// socket expects `expects` next.
///
/// No later number does. A new connection from the same port begins at a later number: Linux adds
/// one every 64 ns (`secure_tcp_seq` in net/core/secure_seq.c, after RFC 6528). One that follows at
/// once therefore begins just above the old one. New data for the old connection would get a reset
/// on any node.
#[inline(always)]
fn is_old(sequence: u32, expects: u32) -> bool {
    expects.wrapping_sub(sequence) <= RETRANSMITTED
}
