//! Which nodes live: BFD sessions, and questions that tell a crashed agent from a dead node.
//!
//! A node's kernel is asked in two ways: by ICMP echo request, and by ARP (IPv6: Neighbor
//! Discovery). Firewalls may drop echo requests or limit their rate, but seldom drop ARP. Healthy
//! nodes are asked too, slowly, to learn which of the two they answer. A node is away only if it
//! used to answer at least one of them; otherwise probes of its API server decide.
//!
//! ```text
//!          no BFD packets in the          3 questions          `reset_after` since
//!          detection time                 without an answer    the last sign of life
//!  Up ──────────────────────▶ Suspect ──────────────────▶ Away ──────────────────▶ Gone
//!  ▲ │                          │ an answer                ▲ ▲                      │
//!  │ │ BFD: AdminDown or Down   ▼                          │ └──────────────────────┘
//!  │ └───────────────────────▶ Watched ────────────────────┘          an answer
//!  │                                     3 without an answer
//!  └── BFD is up: from each state
//! ```
//!
//! A node that has not been heard since this agent started is away. While this node is
//! isolated (`liveness::isolation`), silence proves nothing: no node goes on to Away or Gone.

mod isolation;
mod peer;

use std::num::NonZeroU32;
use std::time::Duration;

use vip_common::abi::{BackendIndex, BackendMask, MAX_BACKENDS};
use vip_common::wire::bfd::{ControlPacket, Diagnostic};
use vip_common::wire::time::BootNanos;

pub use self::peer::PeerState;
pub(crate) use self::peer::Standing;

use self::isolation::Isolation;
use self::peer::{Change, Pace, Peer};
use crate::bfd::{self, Refused, Session};
use crate::health::Probe;
use crate::input::{Params, Tuning};
use crate::membership::Membership;
use crate::random::mix;
use crate::slots::Slots;

/// Least time between questions to a node whose agent is not heard. A host answers much faster.
const QUESTION_INTERVAL: Duration = Duration::from_millis(20);

/// Least time between questions to a healthy node, times the number of other nodes: all nodes
/// together ask each one about once a second. With slow BFD it is 20 BFD intervals instead.
const SLOW_INTERVAL: Duration = Duration::from_secs(1);

/// What the node has to do or to know, in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Send a BFD packet.
    SendBfd {
        /// The receiver.
        to: BackendIndex,
        /// The packet.
        packet: ControlPacket,
    },
    /// A BFD packet was refused.
    RefuseBfd {
        /// The sender, as far as its address tells.
        from: BackendIndex,
        /// The reason.
        why: Refused,
    },
    /// Ask a node's kernel for an answer, by ICMP echo and by ARP or Neighbor Discovery.
    Ask(BackendIndex),
    /// A BFD session came up: both agents hear each other.
    Up(BackendIndex),
    /// A BFD session went down.
    Down {
        /// The other node.
        node: BackendIndex,
        /// The cause, as BFD names it.
        diagnostic: Diagnostic,
    },
    /// A node does not answer at all.
    Away(BackendIndex),
    /// It has not for so long that its clients are told.
    Gone(BackendIndex),
    /// A node that did not answer at all answers.
    Answers(BackendIndex),
    /// A node that lives does not answer echo requests, or answers them again.
    Echo {
        /// The node.
        node: BackendIndex,
        /// It does not answer.
        lost: bool,
    },
    /// Ask other hosts of the segment, members or not, for an answer by ARP or Neighbor Discovery.
    AskWitnesses,
    /// This node is cut off, as far as it knows (true), or is not any more.
    Isolated(bool),
    /// This node has heard neither a member nor a witness for `reset_after`.
    Silent,
}

/// What is known of each other node.
#[derive(Clone, Debug)]
pub(crate) struct Liveness {
    /// By how much the intervals of this node's packets are longer than configured.
    extra: Duration,
    reset_after: Duration,
    isolation: Isolation,
    template: Template,
    /// The last [`Event::Isolated`]. A node that starts alone is no news.
    told_isolated: bool,
    /// All members but this node.
    peers: Slots<Peer>,
    /// Changes of a session's state that are not acted upon yet. A field, so that BFD packets cause
    /// no allocation.
    changes: Vec<bfd::Action>,
}

impl Liveness {
    /// No node was heard, and no session is started. Without BFD all count as up.
    pub(crate) fn new(params: &Params) -> Self {
        let mut template = Template::new(params);
        let others = params.nodes.mask().with(params.own, false);
        let peers = others
            .iter()
            .map(|slot| (slot, template.peer(slot)))
            .collect();
        Self {
            extra: Duration::ZERO,
            reset_after: params.reset_after,
            isolation: Isolation::new(template.pace(params.nodes.len())),
            template,
            told_isolated: false,
            peers,
            changes: Vec::new(),
        }
    }

    /// Starts all sessions. Nodes that an earlier agent heard (`known`) may have died since its
    /// end, so their kernels are asked at once.
    pub(crate) fn on_start(
        &mut self,
        now: BootNanos,
        members: &Membership,
        known: BackendMask,
        out: &mut Vec<Event>,
    ) {
        let is_known = members.others().any(|index| known.contains(index));
        self.isolation.on_start(now, is_known);
        for index in members.others() {
            if let Some(peer) = self.peer_mut(index) {
                peer.on_start(now, known.contains(index));
            }
            self.drive(index, out, |session, out| session.on_start(now, out));
        }
    }

    /// A host answered that need not have an agent: the segment works.
    pub(crate) fn on_witness(&mut self, now: BootNanos, out: &mut Vec<Event>) {
        self.isolation.on_witness(now);
        self.settle_isolation(now, out);
    }

    /// The NIC has a carrier, or has not.
    pub(crate) fn set_carrier(&mut self, carrier: bool) {
        self.isolation.set_carrier(carrier);
    }

    /// This node did not run for a detection time, or was cut off: what it did not hear proves
    /// nothing. All clocks towards Away and Gone begin anew, and sessions send at full rate for a
    /// while.
    pub(crate) fn begin_anew(&mut self, now: BootNanos) {
        for peer in self.peers.values_mut() {
            peer.begin_anew(now);
            if let Some(session) = &mut peer.session {
                session.hurry(now);
            }
        }
    }

    /// Whether this node is cut off, as far as it knows. It keeps what its own sockets want then,
    /// and drops the rest.
    pub(crate) const fn is_isolated(&self) -> bool {
        self.isolation.is_isolated()
    }

    /// Whether it has been cut off for `reset_after`: the segment may have no other host.
    pub(crate) const fn is_silent(&self) -> bool {
        self.isolation.is_silent()
    }

    /// Whether the agents of all other members are down, as far as this node can know.
    pub(crate) fn is_last(&self, now: BootNanos) -> bool {
        self.isolation.is_last(now)
    }

    /// Whether any member's agent is heard. True without BFD, and if there is no other member.
    pub(crate) const fn hears_any(&self) -> bool {
        self.isolation.hears_any()
    }

    /// Whether there may be an owner that this node has not heard: no member is heard, or the first
    /// one a moment ago.
    pub(crate) fn is_alone(&self, now: BootNanos) -> bool {
        self.isolation.is_alone(now)
    }

    /// When the moment after the first sign of a member is over.
    pub(crate) const fn alone_until(&self) -> BootNanos {
        self.isolation.alone_until()
    }

    /// When this node may claim the VIP at the earliest, as far as isolation is concerned; the end
    /// of time while it may not.
    /// It would claim at `from` otherwise, after its `turn`.
    pub(crate) fn claim_at(&self, from: BootNanos, turn: Duration) -> BootNanos {
        self.isolation.claim_at(from, turn)
    }

    /// A member's agent was heard.
    fn hear(&mut self, now: BootNanos, out: &mut Vec<Event>) {
        if self.isolation.hear(now) {
            self.begin_anew(now);
            self.tell_isolated(false, out);
        }
    }

    fn tell_isolated(&mut self, isolated: bool, out: &mut Vec<Event>) {
        if std::mem::replace(&mut self.told_isolated, isolated) != isolated {
            out.push(Event::Isolated(isolated));
        }
    }

    /// Looks whether this node is cut off, and asks witnesses.
    fn settle_isolation(&mut self, now: BootNanos, out: &mut Vec<Event>) {
        while let Some(change) = self.isolation.on_timer(now) {
            match change {
                isolation::Change::Isolated => self.tell_isolated(true, out),
                isolation::Change::Proved => self.begin_anew(now),
                isolation::Change::Silent => out.push(Event::Silent),
                isolation::Change::Survivor => self.tell_isolated(false, out),
            }
        }
        out.extend(self.isolation.ask(now).then_some(Event::AskWitnesses));
    }

    /// A hello of a node was believed. With authentication of BFD, the node's session may come up
    /// until then: its packets prove that somebody has the key, and not that they are new.
    pub(crate) fn on_hello(
        &mut self,
        now: BootNanos,
        node: BackendIndex,
        fresh_until: BootNanos,
        out: &mut Vec<Event>,
    ) {
        if !self.template.authenticates() {
            return;
        }
        if let Some(peer) = self.peer_mut(node) {
            peer.fresh_until = Some(fresh_until);
        }
        self.drive(node, out, |session, out| session.set_fresh(now, true, out));
        self.act_on_changes(now, node, out);
    }

    /// Without a hello in time, a session that goes down does not come up again. One that is up
    /// stays up: the numbers of its packets show that they are new.
    fn settle_fresh(&mut self, now: BootNanos, node: BackendIndex, out: &mut Vec<Event>) {
        let Some(peer) = self.peer_mut(node) else {
            return;
        };
        if peer.fresh_until.is_some_and(|until| now >= until) {
            peer.fresh_until = None;
            self.drive(node, out, |session, out| session.set_fresh(now, false, out));
        }
    }

    /// The keys of BFD's authentication change. No session ends by it.
    pub(crate) fn set_auth(&mut self, auth: bfd::Auth) {
        let Some(bfd) = &mut self.template.bfd else {
            return;
        };
        // New sessions would be refused by peers that have no keys.
        if bfd.auth.is_none() {
            return;
        }
        bfd.auth = Some(auth);
        for peer in self.peers.values_mut() {
            if let Some(session) = &mut peer.session {
                session.set_auth(auth);
            }
        }
    }

    /// A BFD packet came.
    pub(crate) fn on_packet(
        &mut self,
        now: BootNanos,
        source: BackendIndex,
        packet: &ControlPacket,
        out: &mut Vec<Event>,
    ) {
        self.settle_fresh(now, source, out);
        let mut refused = None;
        self.drive(source, out, |session, out| {
            refused = session.on_packet(now, packet, out).err();
        });
        if let Some(why) = refused {
            out.push(Event::RefuseBfd { from: source, why });
            return;
        }
        if self
            .session(source)
            .is_some_and(|session| session.heard() == now)
        {
            self.hear(now, out);
        }
        self.act_on_changes(now, source, out);
    }

    /// Whether all sessions are [settled](Session::is_settled).
    pub(crate) fn is_settled(&self, now: BootNanos) -> bool {
        self.sessions().all(|session| session.is_settled(now))
    }

    /// When the first session sends its next packet.
    pub(crate) fn next_packet(&self) -> Option<BootNanos> {
        self.sessions().map(Session::next_packet).min()
    }

    /// A node answered an echo request.
    pub(crate) fn on_echo(&mut self, now: BootNanos, node: BackendIndex, out: &mut Vec<Event>) {
        if let Some(peer) = self.peer_mut(node)
            && peer.on_echo()
        {
            out.push(Event::Echo { node, lost: false });
        }
        self.on_sign_of_life(now, node, out);
    }

    /// A node's kernel was heard by ARP or Neighbor Discovery.
    pub(crate) fn on_neighbor(&mut self, now: BootNanos, node: BackendIndex, out: &mut Vec<Event>) {
        if let Some(peer) = self.peer_mut(node) {
            peer.on_neighbor();
        }
        self.on_sign_of_life(now, node, out);
    }

    /// A node showed that it lives: an answer, a probe, or its BFD session.
    pub(crate) fn on_sign_of_life(
        &mut self,
        now: BootNanos,
        node: BackendIndex,
        out: &mut Vec<Event>,
    ) {
        let later = now.after(self.fast_interval());
        let Some(peer) = self.peer_mut(node) else {
            return;
        };
        if peer.on_sign_of_life(now, later) {
            out.push(Event::Answers(node));
        }
        // A kernel that answers proves that the segment works, as a host does that is no member. It
        // is not its agent, which alone would tell of an owner.
        self.on_witness(now, out);
    }

    /// To be called at [`Self::next_deadline`] or later. Earlier calls do nothing. `alive`: whether
    /// probes show that a node lives.
    pub(crate) fn on_timer(
        &mut self,
        now: BootNanos,
        members: &Membership,
        alive: impl Fn(BackendIndex) -> bool,
        out: &mut Vec<Event>,
    ) {
        self.settle_isolation(now, out);
        let mut next_packet = None;
        for index in members.others() {
            self.settle_fresh(now, index, out);
            let due = |session: &Session| session.next_deadline() <= now;
            if self.session(index).is_some_and(due) {
                self.drive(index, out, |session, out| {
                    let sends = session.next_packet() <= now;
                    session.on_timer(now, out);
                    if sends {
                        next_packet = Some(session.next_packet());
                    }
                });
                self.act_on_changes(now, index, out);
            }
            self.conclude(now, index, alive(index), out);
            self.ask(now, index, out);
        }
        if let Some(next) = next_packet {
            // The packets to all peers leave at one time, and the lease moves once.
            for index in members.others() {
                self.drive(index, out, |session, out| {
                    session.coalesce_tx(now, next, out);
                });
            }
        }
        // A session that went down may have been the one with the longest detection time. Whether
        // this node is cut off must be known before it claims the VIP.
        self.settle_isolation(now, out);
    }

    /// Tells the peers the state of the path to this node's API server.
    pub(crate) fn set_path(
        &mut self,
        now: BootNanos,
        members: &Membership,
        path: bfd::Path,
        out: &mut Vec<Event>,
    ) {
        for index in members.others() {
            self.drive(index, out, |session, out| session.set_path(now, path, out));
        }
    }

    /// Changes the timers. `extra` is as for [`Self::lengthen`].
    pub(crate) fn tune(
        &mut self,
        now: BootNanos,
        members: &Membership,
        tuning: &Tuning,
        extra: Duration,
        out: &mut Vec<Event>,
    ) {
        (self.extra, self.reset_after) = (extra, tuning.reset_after);
        self.template.tune(tuning);
        let pace = self.template.pace(members.all().count());
        self.isolation.set_pace(pace);
        let Some(bfd) = self.template.bfd else {
            return;
        };
        for index in members.others() {
            self.drive(index, out, |session, out| {
                session.set_timers(now, bfd.timers(), bfd.interval + extra, out);
            });
        }
    }

    /// Makes the intervals of this node's packets longer than configured by `extra`: this node runs
    /// late.
    pub(crate) fn lengthen(
        &mut self,
        now: BootNanos,
        members: &Membership,
        extra: Duration,
        out: &mut Vec<Event>,
    ) {
        self.extra = extra;
        let Some(bfd) = self.template.bfd else {
            return;
        };
        for index in members.others() {
            self.drive(index, out, |session, out| {
                session.set_transmit_interval(now, bfd.interval + extra, out);
            });
        }
    }

    /// Sets all sessions to AdminDown, so that the peers do not suspect this node.
    pub(crate) fn end(&mut self, now: BootNanos, members: &Membership, out: &mut Vec<Event>) {
        for index in members.others() {
            self.drive(index, out, |session, out| session.admin_down(now, out));
            // This node has caused that itself, so there is nothing to act upon.
            self.changes.clear();
        }
    }

    /// Finds a node away whose kernel does not answer any more, and gone if it has been away for
    /// long enough. `alive`: probes show that it lives.
    pub(crate) fn conclude(
        &mut self,
        now: BootNanos,
        node: BackendIndex,
        alive: bool,
        out: &mut Vec<Event>,
    ) {
        if self.isolation.is_cut_off() {
            return;
        }
        let pace = self.pace();
        let change = self
            .peer_mut(node)
            .and_then(|peer| peer.conclude(now, pace, alive));
        out.extend(change.map(|change| match change {
            Change::Away => Event::Away(node),
            Change::Gone => Event::Gone(node),
        }));
    }

    /// A probe's result as it counts now. One that got no answer on an open connection proves life
    /// only at the time of the connection. If that was before the node was lost, it is silence.
    pub(crate) fn dated(&self, node: BackendIndex, probe: Probe) -> Probe {
        match self.peer(node) {
            Some(peer) => peer.dated(probe),
            None => probe,
        }
    }

    /// A member has come: its session begins. `heard`: by a hello that was believed.
    pub(crate) fn admit(
        &mut self,
        now: BootNanos,
        node: BackendIndex,
        members: usize,
        heard: bool,
        out: &mut Vec<Event>,
    ) {
        // Without members there was nobody to be cut off from.
        let heard = heard || self.peers.mask().is_empty();
        self.peers.insert(node, self.template.peer(node));
        self.isolation.set_pace(self.template.pace(members));
        if heard {
            self.hear(now, out);
        }
        if let Some(peer) = self.peer_mut(node) {
            peer.on_start(now, false);
        }
        self.drive(node, out, |session, out| session.on_start(now, out));
    }

    /// A member has left.
    pub(crate) fn remove(&mut self, node: BackendIndex, members: usize) {
        self.peers.remove(node);
        self.isolation.set_pace(self.template.pace(members));
    }

    /// Another member had evidence at that time that a node lives.
    pub(crate) fn on_evidence(&mut self, now: BootNanos, node: BackendIndex, at: BootNanos) {
        let pace = self.pace();
        if let Some(peer) = self.peer_mut(node) {
            peer.on_evidence(now, at, pace);
        }
    }

    /// When this node itself last had a sign that a node lives.
    pub(crate) fn last_sign(&self, node: BackendIndex) -> Option<BootNanos> {
        self.peer(node)?.last_sign()
    }

    /// The members that are not gone, this node not among them.
    pub(crate) fn not_gone(&self) -> BackendMask {
        self.peers
            .which(|_, peer| peer.standing() != Standing::Gone)
    }

    /// What follows for connections to a node; `None` for this one.
    pub(crate) fn standing(&self, node: BackendIndex) -> Option<Standing> {
        Some(self.peer(node)?.standing())
    }

    /// Whether nothing on another node answers.
    pub(crate) fn is_node_silent(&self, node: BackendIndex) -> bool {
        self.peer(node).is_some_and(Peer::is_silent)
    }

    /// What is known of a node, for operators; `None` for this one.
    pub(crate) fn state(&self, node: BackendIndex) -> Option<PeerState> {
        Some(self.peer(node)?.state())
    }

    /// The BFD session with a node, if there is to be one.
    pub(crate) fn session(&self, node: BackendIndex) -> Option<&Session> {
        self.peer(node)?.session.as_ref()
    }

    /// Whether the BFD session with a node is up on this side.
    pub(crate) fn is_up(&self, node: BackendIndex) -> bool {
        self.peer(node).is_some_and(Peer::is_up)
    }

    /// Whether the BFD session with a node is up on both sides.
    pub(crate) fn hear_each_other(&self, node: BackendIndex) -> bool {
        self.session(node)
            .is_some_and(|session| session.is_up() && session.remote_state() == bfd::State::Up)
    }

    /// Whether a node's kernel answers ICMP echo; `None` while that is not known, and for this
    /// node.
    pub(crate) fn answers_echo(&self, node: BackendIndex) -> Option<bool> {
        self.peer(node)?.answers_echo()
    }

    /// Half a BFD interval before the first peer's detection time can expire; `None` if no session
    /// is up.
    pub(crate) fn first_missed(&self) -> Option<BootNanos> {
        self.sessions().filter_map(Session::believed_until).min()
    }

    /// When to call [`Self::on_timer`], unless something happens before.
    pub(crate) fn next_deadline(&self) -> BootNanos {
        let pace = self.pace();
        let cut_off = self.isolation.is_cut_off();
        let peers = self.peers.values();
        let peers = peers.map(|peer| {
            let session = peer.session.as_ref().map(Session::next_deadline);
            let end = (!cut_off).then(|| peer.end(pace));
            let first = peer.next_question();
            let others = session.into_iter().chain(end).chain(peer.fresh_until);
            others.fold(first, BootNanos::min)
        });
        peers.fold(self.isolation.next_deadline(), BootNanos::min)
    }

    fn sessions(&self) -> impl Iterator<Item = &Session> {
        let peers = self.peers.values();
        peers.filter_map(|peer| peer.session.as_ref())
    }

    fn peer(&self, node: BackendIndex) -> Option<&Peer> {
        self.peers.get(node)
    }

    fn peer_mut(&mut self, node: BackendIndex) -> Option<&mut Peer> {
        self.peers.get_mut(node)
    }

    /// Drives one BFD session. Its packets go out, its ups and downs wait for
    /// [`Self::act_on_changes`].
    fn drive(
        &mut self,
        node: BackendIndex,
        out: &mut Vec<Event>,
        drive: impl FnOnce(&mut Session, &mut Vec<bfd::Action>),
    ) {
        let Some(Peer {
            session: Some(session),
            ..
        }) = self.peers.get_mut(node)
        else {
            return;
        };
        drive(session, &mut self.changes);
        let up = self.sessions().filter(|session| session.is_up());
        let patience = up.map(Session::detection_time).max();
        self.isolation.set_patience(patience.unwrap_or_default());
        out.extend(
            self.changes
                .extract_if(.., |action| matches!(action, bfd::Action::Send(_)))
                .filter_map(|action| match action {
                    bfd::Action::Send(packet) => Some(Event::SendBfd { to: node, packet }),
                    bfd::Action::Up | bfd::Action::Down(_) => None,
                }),
        );
    }

    /// Acts on changes of a session's state.
    fn act_on_changes(&mut self, now: BootNanos, node: BackendIndex, out: &mut Vec<Event>) {
        while let Some(action) = self.changes.pop() {
            match action {
                bfd::Action::Send(_) => {}
                bfd::Action::Up => {
                    let answers = self.peer_mut(node).is_some_and(|peer| peer.on_up(now));
                    out.push(Event::Up(node));
                    out.extend(answers.then_some(Event::Answers(node)));
                }
                bfd::Action::Down(diagnostic) => {
                    out.push(Event::Down { node, diagnostic });
                    if diagnostic == Diagnostic::ControlDetectionTimeExpired {
                        self.suspect(now, node);
                    } else {
                        self.watch(now, node);
                    }
                }
            }
        }
    }

    /// The detection time of a node's session expired: its agent is gone, and maybe the node.
    fn suspect(&mut self, now: BootNanos, node: BackendIndex) {
        if let Some(peer) = self.peer_mut(node) {
            peer.suspect(now);
        }
    }

    /// A node's agent ends its session. The node's kernel keeps its connections.
    fn watch(&mut self, now: BootNanos, node: BackendIndex) {
        let next = now.after(self.fast_interval());
        if let Some(peer) = self.peer_mut(node) {
            peer.watch(next);
        }
    }

    /// Asks a node's kernel if it is time: to tell a crashed agent from a dead node, or, of a
    /// healthy node, to learn whether it answers at all.
    fn ask(&mut self, now: BootNanos, node: BackendIndex, out: &mut Vec<Event>) {
        let pace = self.pace();
        let Some(peer) = self.peer_mut(node) else {
            return;
        };
        if now < peer.next_question() {
            return;
        }
        if peer.ask(now, pace) {
            out.push(Event::Echo { node, lost: true });
        }
        out.push(Event::Ask(node));
    }

    fn pace(&self) -> Pace {
        let fast = self.fast_interval();
        Pace {
            fast,
            slow: self.slow_interval(),
            away: fast.max(self.reset_after / 8),
            reset_after: self.reset_after,
        }
    }

    /// Time between questions to a node whose agent is not heard.
    fn fast_interval(&self) -> Duration {
        let bfd = self.template.bfd.map(|bfd| bfd.interval);
        bfd.unwrap_or_default().max(QUESTION_INTERVAL) + self.extra
    }

    /// Time between questions to a healthy node, or to one whose silence proves nothing.
    fn slow_interval(&self) -> Duration {
        let bfd = self.template.bfd.map(|bfd| bfd.interval);
        let others = self.peers.values().count().max(1) as u32;
        SLOW_INTERVAL.max(bfd.unwrap_or_default() * 20) * others
    }
}

/// How peers are made.
#[derive(Clone, Debug)]
struct Template {
    bfd: Option<bfd::Params>,
    seed: u64,
    /// Number of peers made in each slot: each session has its own discriminator.
    made: Slots<u64>,
    /// The times by which isolation is judged; `None` without BFD.
    isolation: Option<isolation::Pace>,
}

impl Template {
    fn new(params: &Params) -> Self {
        Self {
            bfd: params.bfd,
            seed: params.seed,
            made: Slots::new(),
            isolation: isolation_pace(&params.tuning()),
        }
    }

    /// Changes the timers. Whether there is BFD stays as it is.
    fn tune(&mut self, tuning: &Tuning) {
        if let (Some(bfd), Some(timers)) = (&mut self.bfd, tuning.bfd) {
            (bfd.detect_mult, bfd.interval) = (timers.detect_mult, timers.interval);
            self.isolation = isolation_pace(tuning);
        }
    }

    /// A peer that is not heard yet.
    fn peer(&mut self, slot: BackendIndex) -> Peer {
        let before = self.made.get(slot).copied().unwrap_or(0);
        self.made.insert(slot, before + 1);
        let seed = mix(self.seed, slot.get() as u64 + before * MAX_BACKENDS as u64);
        Peer::new(self.bfd.map(|bfd| {
            let discriminator = NonZeroU32::new((seed >> 32) as u32).unwrap_or(NonZeroU32::MIN);
            Session::new(bfd, discriminator, seed)
        }))
    }

    /// Whether BFD packets are authenticated.
    fn authenticates(&self) -> bool {
        self.bfd.is_some_and(|bfd| bfd.auth.is_some())
    }

    /// The times by which isolation is judged, with so many members. A single one is never isolated.
    fn pace(&self, members: usize) -> Option<isolation::Pace> {
        self.isolation.filter(|_| members > 1)
    }
}

/// The times by which isolation is judged; `None` without BFD.
fn isolation_pace(tuning: &Tuning) -> Option<isolation::Pace> {
    tuning.bfd.map(|bfd| isolation::Pace {
        detection: tuning.detection(),
        question: bfd.interval.max(QUESTION_INTERVAL),
        reset_after: tuning.reset_after,
        // An owner advertises at once when it hears a lesser one, and every interval.
        owner: tuning.vrrp.interval.duration() * 4,
    })
}

#[cfg(test)]
mod tests;
