//! Which nodes live: BFD sessions, and questions that tell a crashed agent from a dead node.
//!
//! A node's kernel is asked in two ways: by ICMP echo request, and by ARP (IPv6: Neighbor
//! Discovery). Firewalls may drop echo requests or limit their rate, but seldom drop ARP. Healthy
//! nodes are asked too, slowly, to learn which of the two they answer. A node is declared dead only
//! if it used to answer at least one of them; otherwise probes of its API server decide.
//!
//! ```text
//!               no BFD packets in the             3 questions
//!               detection time                    without an answer
//! Reachable ─────────────────────────▶ Suspect ──────────────────────────▶ Dead
//!  ▲  │  ▲                                │ an answer                      ▲ │
//!  │  │  └────────── BFD is up ────────┐  ▼                                │ │
//!  │  └─ BFD: AdminDown or Down ──────▶ Monitored ─ 3 without an answer ───┘ │
//!  └──────────────────────────────── an answer ──────────────────────────────┘
//! ```
//!
//! An answer leads to Monitored if the node's agent was heard since the node was last dead and its
//! BFD session is down, and to Reachable otherwise.

mod peer;

use std::num::NonZeroU32;
use std::time::Duration;

use vip_common::abi::BackendIndex;
use vip_common::wire::bfd::{ControlPacket, Diagnostic};
use vip_common::wire::time::BootNanos;

pub(crate) use self::peer::Sign;

use self::peer::Peer;
use crate::bfd::{self, Session};
use crate::health::Probe;
use crate::input::Params;
use crate::membership::Membership;
use crate::random::mix;

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
    Dead(BackendIndex),
    /// A node that was dead answers.
    Answers(BackendIndex),
    /// A node that lives does not answer echo requests, or answers them again.
    Echo {
        /// The node.
        node: BackendIndex,
        /// It does not answer.
        lost: bool,
    },
}

/// What is known of each other node.
#[derive(Clone, Debug)]
pub(crate) struct Liveness {
    bfd: Option<bfd::Params>,
    /// By backend index; `None` for this node itself.
    peers: Vec<Option<Peer>>,
    /// Changes of a session's state that are not acted upon yet. A field, so that BFD packets cause
    /// no allocation.
    changes: Vec<bfd::Action>,
}

impl Liveness {
    /// All nodes count as reachable, and no session is started.
    pub(crate) fn new(params: &Params) -> Self {
        let peer = |index: usize| {
            Peer::new(params.bfd.map(|bfd| {
                let seed = mix(params.seed, index as u64);
                let discriminator = NonZeroU32::new((seed >> 32) as u32).unwrap_or(NonZeroU32::MIN);
                Session::new(bfd, discriminator, seed)
            }))
        };
        let peers = (0..params.nodes.len())
            .map(|index| (index != params.own.get()).then(|| peer(index)))
            .collect();
        Self {
            bfd: params.bfd,
            peers,
            changes: Vec::new(),
        }
    }

    /// Starts all sessions. Nodes that an earlier agent heard may have died since its end, so their
    /// kernels are asked at once.
    pub(crate) fn on_start(&mut self, now: BootNanos, members: &Membership, out: &mut Vec<Event>) {
        for index in members.others().filter(|index| members.was_heard(*index)) {
            if let Some(peer) = self.peer_mut(index) {
                peer.remember(now);
            }
        }
        for index in members.others() {
            self.drive(index, out, |session, out| session.on_start(now, out));
        }
    }

    /// A BFD packet came.
    pub(crate) fn on_packet(
        &mut self,
        now: BootNanos,
        members: &Membership,
        source: BackendIndex,
        packet: &ControlPacket,
        out: &mut Vec<Event>,
    ) {
        self.drive(source, out, |session, out| {
            session.on_packet(now, packet, out);
        });
        self.act_on_changes(now, members, source, out);
    }

    /// A node answered an echo request.
    pub(crate) fn on_echo(
        &mut self,
        now: BootNanos,
        members: &Membership,
        node: BackendIndex,
        out: &mut Vec<Event>,
    ) {
        if let Some(peer) = self.peer_mut(node)
            && peer.on_echo()
        {
            out.push(Event::Echo { node, lost: false });
        }
        self.on_sign_of_life(now, members, node, out);
    }

    /// A node's kernel was heard by ARP or Neighbor Discovery.
    pub(crate) fn on_neighbor(
        &mut self,
        now: BootNanos,
        members: &Membership,
        node: BackendIndex,
        out: &mut Vec<Event>,
    ) {
        if let Some(peer) = self.peer_mut(node) {
            peer.on_neighbor();
        }
        self.on_sign_of_life(now, members, node, out);
    }

    /// A node showed that it lives: an answer, a probe, or its BFD session.
    pub(crate) fn on_sign_of_life(
        &mut self,
        now: BootNanos,
        members: &Membership,
        node: BackendIndex,
        out: &mut Vec<Event>,
    ) {
        let later = now.after(self.fast_interval());
        if let Some(peer) = self.peer_mut(node)
            && peer.on_sign_of_life(members.was_heard(node), later)
        {
            out.push(Event::Answers(node));
        }
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
        let mut next_packet = None;
        for index in members.others() {
            let due = |session: &Session| session.next_deadline() <= now;
            if self.session(index).is_some_and(due) {
                self.drive(index, out, |session, out| {
                    let sends = session.next_packet() <= now;
                    session.on_timer(now, out);
                    if sends {
                        next_packet = Some(session.next_packet());
                    }
                });
                self.act_on_changes(now, members, index, out);
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

    /// Sets all sessions to AdminDown, so that the peers do not suspect this node.
    pub(crate) fn end(&mut self, now: BootNanos, members: &Membership, out: &mut Vec<Event>) {
        for index in members.others() {
            self.drive(index, out, |session, out| session.admin_down(now, out));
            // This node has caused that itself, so there is nothing to act upon.
            self.changes.clear();
        }
    }

    /// Declares a node dead whose kernel does not answer any more. `alive`: probes show that it
    /// lives.
    pub(crate) fn conclude(
        &mut self,
        now: BootNanos,
        node: BackendIndex,
        alive: bool,
        out: &mut Vec<Event>,
    ) {
        let interval = self.fast_interval();
        if let Some(peer) = self.peer_mut(node)
            && peer.conclude(now, interval, alive)
        {
            out.push(Event::Dead(node));
        }
    }

    /// A probe's result as it counts now. One that got no answer on an open connection proves life
    /// only at the time of the connection. If that was before the node was lost, it is silence.
    pub(crate) fn dated(&self, node: BackendIndex, probe: Probe) -> Probe {
        match self.peer(node) {
            Some(peer) => peer.dated(probe),
            None => probe,
        }
    }

    /// What follows for connections to a node; `None` for this one. `probed`: probes show that it
    /// lives. A BFD session that is up shows it too. New connections avoid a silent node at once;
    /// open ones only once it is dead, since they survive a crash of its agent.
    pub(crate) fn sign(&self, node: BackendIndex, probed: bool) -> Option<Sign> {
        Some(self.peer(node)?.sign(probed))
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
    /// is up. The half interval is for differences between clocks and for packets' travel time.
    pub(crate) fn first_missed(&self) -> Option<BootNanos> {
        let margin = self.bfd?.interval / 2;
        let first = self
            .sessions()
            .filter_map(Session::remote_detection_deadline)
            .min()?;
        Some(first.before(margin))
    }

    /// When to call [`Self::on_timer`], unless something happens before.
    pub(crate) fn next_deadline(&self) -> BootNanos {
        let sessions = self.sessions().map(Session::next_deadline);
        let questions = self.peers.iter().flatten().map(Peer::next_question);
        let first = sessions.chain(questions).min();
        first.unwrap_or(BootNanos(u64::MAX))
    }

    fn sessions(&self) -> impl Iterator<Item = &Session> {
        let peers = self.peers.iter().flatten();
        peers.filter_map(|peer| peer.session.as_ref())
    }

    fn peer(&self, node: BackendIndex) -> Option<&Peer> {
        self.peers.get(node.get())?.as_ref()
    }

    fn peer_mut(&mut self, node: BackendIndex) -> Option<&mut Peer> {
        self.peers.get_mut(node.get())?.as_mut()
    }

    /// Drives one BFD session. Its packets go out, its ups and downs wait for
    /// [`Self::act_on_changes`].
    fn drive(
        &mut self,
        node: BackendIndex,
        out: &mut Vec<Event>,
        drive: impl FnOnce(&mut Session, &mut Vec<bfd::Action>),
    ) {
        let Some(Some(Peer {
            session: Some(session),
            ..
        })) = self.peers.get_mut(node.get())
        else {
            return;
        };
        drive(session, &mut self.changes);
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
    fn act_on_changes(
        &mut self,
        now: BootNanos,
        members: &Membership,
        node: BackendIndex,
        out: &mut Vec<Event>,
    ) {
        while let Some(action) = self.changes.pop() {
            match action {
                bfd::Action::Send(_) => {}
                bfd::Action::Up => {
                    if let Some(peer) = self.peer_mut(node) {
                        peer.on_up(now);
                    }
                    out.push(Event::Up(node));
                    self.on_sign_of_life(now, members, node, out);
                }
                bfd::Action::Down(diagnostic) => {
                    out.push(Event::Down { node, diagnostic });
                    if diagnostic == Diagnostic::ControlDetectionTimeExpired {
                        self.suspect(now, node);
                    } else {
                        self.monitor(now, members, node);
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
    fn monitor(&mut self, now: BootNanos, members: &Membership, node: BackendIndex) {
        let next = now.after(self.fast_interval());
        if let Some(peer) = self.peer_mut(node)
            && members.was_heard(node)
        {
            peer.monitor(next);
        }
    }

    /// Asks a node's kernel if it is time: to tell a crashed agent from a dead node, or, of a
    /// healthy node, to learn whether it answers at all.
    fn ask(&mut self, now: BootNanos, node: BackendIndex, out: &mut Vec<Event>) {
        let (fast, slow) = (self.fast_interval(), self.slow_interval());
        let Some(peer) = self.peer_mut(node) else {
            return;
        };
        if now < peer.next_question() {
            return;
        }
        if peer.ask(now, fast, slow) {
            out.push(Event::Echo { node, lost: true });
        }
        out.push(Event::Ask(node));
    }

    /// Time between questions to a node whose agent is not heard.
    fn fast_interval(&self) -> Duration {
        let bfd = self.bfd.map(|bfd| bfd.interval);
        bfd.unwrap_or_default().max(QUESTION_INTERVAL)
    }

    /// Time between questions to a healthy node, or to one whose silence proves nothing.
    fn slow_interval(&self) -> Duration {
        let bfd = self.bfd.map(|bfd| bfd.interval);
        let others = self.peers.iter().flatten().count().max(1) as u32;
        SLOW_INTERVAL.max(bfd.unwrap_or_default() * 20) * others
    }
}

#[cfg(test)]
mod tests;
