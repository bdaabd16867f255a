//! Who lives: BFD sessions, and the questions that tell a crashed agent from a dead node.
//!
//! A node's kernel is asked in two ways, by ICMP echo and by ARP (Neighbor Discovery with IPv6).
//! Firewalls drop echo requests, or let through so many a second; ARP they mostly leave alone. Both
//! are tried all the time, slowly, while the node is well: silence proves death only where an answer
//! was to be expected, by all means that ever answered. Otherwise probes of the server decide.
//!
//! ```text
//!               BFD packets stay out              3 questions unanswered
//! Reachable ─────────────────────────▶ Suspect ──────────────────────────▶ Dead
//!  ▲  │  ▲                                │ an answer                      ▲ │
//!  │  │  └────────── BFD is up ────────┐  ▼                                │ │
//!  │  └─ its agent said that it ends ─▶ Monitored ─ 3 questions unanswered ┘ │
//!  └──────────────────────────────── an answer ─────────────────────────────┘
//! ```

use std::num::NonZeroU32;
use std::time::Duration;

use vip_common::abi::BackendIndex;
use vip_common::wire::bfd::{ControlPacket, Diagnostic};
use vip_common::wire::time::BootNanos;

use crate::bfd::{self, Session};
use crate::health::Probe;
use crate::input::Params;
use crate::membership::Membership;
use crate::random::mix;

/// Questions that a silent node may leave unanswered until it is taken for dead.
const QUESTIONS: u32 = 3;

/// Between questions to a silent node at least. A host answers within a fraction of that.
const QUESTION_INTERVAL: Duration = Duration::from_millis(20);

/// Between the questions to a node that is well, at least. Beside it they are 20 BFD intervals
/// apart, times the number of other nodes: each node is asked about once a second by all.
const EXERCISE: Duration = Duration::from_secs(1);

/// Questions to a node that is well that may be left unanswered in a row. One may be lost.
const LOST: u32 = 3;

/// What comes of an input. The node acts on it in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Send a BFD packet.
    SendBfd {
        /// To whom.
        to: BackendIndex,
        /// What.
        packet: ControlPacket,
    },
    /// Ask a node's kernel, by ICMP echo and by ARP or Neighbor Discovery.
    Ask(BackendIndex),
    /// A BFD session came up: both agents hear each other.
    Up(BackendIndex),
    /// A BFD session went down.
    Down {
        /// With which node.
        node: BackendIndex,
        /// Why.
        diagnostic: Diagnostic,
    },
    /// A node does not answer at all.
    Dead(BackendIndex),
    /// A node that was dead answers.
    Answers(BackendIndex),
    /// A node that lives answers no echo requests, or answers them again.
    Echo {
        /// Which node.
        node: BackendIndex,
        /// It answers none.
        lost: bool,
    },
}

/// What BFD and the questions say of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing speaks against it.
    Reachable,
    /// Its agent fell silent. Its kernel's answers tell whether the node is gone, too: an agent
    /// that crashed takes no connection with it, a node does.
    Suspect {
        /// Questions asked.
        asked: u32,
        /// When to send the next one, or give up.
        next: BootNanos,
    },
    /// Its agent is gone, but its kernel answers: it has its connections, and takes new ones.
    /// It is asked again and again, as no BFD session would tell of its end. A node that shuts
    /// down ends its agent first.
    Monitored {
        /// Questions asked since the last answer, [`QUESTIONS`] at most.
        asked: u32,
        /// When to send the next one, or give up.
        next: BootNanos,
    },
    /// Nothing answers.
    Dead,
}

/// A node as connections are concerned, where probes of its server are counted in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sign {
    /// Its kernel has its connections.
    pub(crate) lives: bool,
    /// Its agent is not heard, and whether the node lives is being found out.
    pub(crate) is_silent: bool,
}

/// Whether a node answers one kind of question.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Means {
    /// `None` while that is not known.
    answers: Option<bool>,
    /// Questions asked while the node was well, since the last answer.
    unanswered: u32,
}

impl Means {
    /// The node, which is well, is asked. True if it has come out that it does not answer.
    fn ask(&mut self) -> bool {
        let lost = self.unanswered >= LOST && self.answers != Some(false);
        if lost {
            self.answers = Some(false);
        }
        self.unanswered = self.unanswered.saturating_add(1);
        lost
    }

    /// It answered. True if it had been found not to.
    fn answered(&mut self) -> bool {
        self.unanswered = 0;
        self.answers.replace(true) == Some(false)
    }
}

#[derive(Clone, Debug)]
struct Peer {
    session: Option<Session>,
    state: State,
    /// When it last fell silent, or was found dead: what was heard before proves nothing since.
    lost: BootNanos,
    /// When it is to be asked next while it is well, to see whether it answers.
    exercise: BootNanos,
    /// Whether its kernel answers ICMP echo requests, and ARP or Neighbor Discovery.
    echo: Means,
    neighbor: Means,
}

impl Peer {
    /// When to ask its kernel next; never, if there is nothing to find out.
    fn next_question(&self) -> BootNanos {
        match self.state {
            State::Suspect { next, .. } | State::Monitored { next, .. } => next,
            State::Reachable if self.session.as_ref().is_some_and(Session::is_up) => self.exercise,
            State::Reachable | State::Dead => BootNanos(u64::MAX),
        }
    }
}

/// What is known of the other nodes' life.
#[derive(Clone, Debug)]
pub(crate) struct Liveness {
    bfd: Option<bfd::Params>,
    /// By backend index; `None` for this node itself.
    peers: Vec<Option<Peer>>,
    /// Ups and downs of a session that are not acted upon yet. Kept to save an allocation with
    /// each BFD packet.
    changes: Vec<bfd::Action>,
}

impl Liveness {
    /// Nothing speaks against any node.
    pub(crate) fn new(params: &Params) -> Self {
        let peer = |index: usize| Peer {
            session: params.bfd.map(|bfd| {
                let seed = mix(params.seed, index as u64);
                let discriminator = NonZeroU32::new((seed >> 32) as u32).unwrap_or(NonZeroU32::MIN);
                Session::new(bfd, discriminator, seed)
            }),
            state: State::Reachable,
            lost: BootNanos::ZERO,
            exercise: BootNanos::ZERO,
            echo: Means::default(),
            neighbor: Means::default(),
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

    /// Starts all sessions. Nodes that were heard, by an earlier agent, may have died while nobody
    /// looked, or their agents may.
    pub(crate) fn on_start(&mut self, now: BootNanos, members: &Membership, out: &mut Vec<Event>) {
        for index in members.others().filter(|index| members.was_heard(*index)) {
            if let Some(peer) = self.peer_mut(index)
                && peer.session.is_some()
            {
                peer.state = State::Monitored {
                    asked: 0,
                    next: now,
                };
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
            && peer.echo.answered()
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
            peer.neighbor.answered();
        }
        self.on_sign_of_life(now, members, node, out);
    }

    /// A node gave a sign of life.
    pub(crate) fn on_sign_of_life(
        &mut self,
        now: BootNanos,
        members: &Membership,
        node: BackendIndex,
        out: &mut Vec<Event>,
    ) {
        let later = now.after(self.question_pause());
        let Some(peer) = self.peer_mut(node) else {
            return;
        };
        let heard = peer.session.as_ref().is_none_or(Session::is_up);
        let next = match peer.state {
            State::Monitored { next, .. } => next.min(later),
            State::Reachable | State::Suspect { .. } | State::Dead => later,
        };
        let is = if heard || !members.was_heard(node) {
            State::Reachable
        } else {
            State::Monitored { asked: 0, next }
        };
        if std::mem::replace(&mut peer.state, is) == State::Dead {
            out.push(Event::Answers(node));
        }
    }

    /// To be called at [`Self::next_deadline`] or later. Earlier calls do nothing. `alive`: whether
    /// probes find life on a node.
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
            // One wake-up for the packets to all peers, and one move of the lease.
            for index in members.others() {
                self.drive(index, out, |session, out| {
                    session.coalesce_tx(now, next, out);
                });
            }
        }
    }

    /// Tells the peers that this node takes no new connections, or takes them again.
    pub(crate) fn set_path_down(
        &mut self,
        now: BootNanos,
        members: &Membership,
        down: bool,
        out: &mut Vec<Event>,
    ) {
        for index in members.others() {
            self.drive(index, out, |session, out| {
                session.set_path_down(now, down, out);
            });
        }
    }

    /// Tells the peers that the silence to come is meant.
    pub(crate) fn end(&mut self, now: BootNanos, members: &Membership, out: &mut Vec<Event>) {
        for index in members.others() {
            self.drive(index, out, |session, out| session.admin_down(now, out));
            // That its own sessions are down now is no news.
            self.changes.clear();
        }
    }

    /// Takes a node for dead that has left all questions unanswered, if it used to answer any, or
    /// if probes of its server found it dead, too.
    pub(crate) fn conclude(
        &mut self,
        now: BootNanos,
        node: BackendIndex,
        alive: bool,
        out: &mut Vec<Event>,
    ) {
        let pause = self.question_pause();
        let Some(peer) = self.peer_mut(node) else {
            return;
        };
        let (State::Suspect { asked, next } | State::Monitored { asked, next }) = &mut peer.state
        else {
            return;
        };
        if now.since(*next) > pause {
            // This node did not run, and may have missed the answers.
            *asked = 0;
        }
        let (asked, next) = (*asked, *next);
        let expected = [peer.echo, peer.neighbor]
            .iter()
            .any(|means| means.answers == Some(true));
        if asked >= QUESTIONS && (!alive || expected && now >= next) {
            peer.state = State::Dead;
            peer.lost = now;
            out.push(Event::Dead(node));
        }
    }

    /// A probe as it is to count now. One that waits on a connection tells of the time when that was
    /// made, and that may be before the node was lost.
    pub(crate) fn dated(&self, node: BackendIndex, probe: Probe) -> Probe {
        match (&probe, self.peer(node)) {
            (Probe::Hung { reason, connected }, Some(peer)) if *connected < peer.lost => {
                Probe::Silent(reason.clone())
            }
            _ => probe,
        }
    }

    /// What is known of a node; `None` for this one. `probed`: probes find life on it. A BFD session
    /// that is up proves life. New connections avoid a silent node at once; open ones, which a
    /// crashed agent does not harm, only once the node itself does not answer.
    pub(crate) fn sign(&self, node: BackendIndex, probed: bool) -> Option<Sign> {
        let peer = self.peer(node)?;
        let (lives, is_silent) = match peer.state {
            State::Reachable => {
                let heard = peer.session.as_ref().is_some_and(Session::is_up);
                (probed || heard, false)
            }
            // The last question may still be on its way.
            State::Monitored { asked, .. } => (probed, asked > 1),
            State::Suspect { .. } => (probed, true),
            State::Dead => (false, true),
        };
        Some(Sign { lives, is_silent })
    }

    /// The BFD session with a node, if there is to be one.
    pub(crate) fn session(&self, node: BackendIndex) -> Option<&Session> {
        self.peer(node)?.session.as_ref()
    }

    /// Whether a node's agent is heard by BFD.
    pub(crate) fn is_up(&self, node: BackendIndex) -> bool {
        self.session(node).is_some_and(Session::is_up)
    }

    /// Whether this node and another one hear each other.
    pub(crate) fn hear_each_other(&self, node: BackendIndex) -> bool {
        self.session(node)
            .is_some_and(|session| session.is_up() && session.remote_state() == bfd::State::Up)
    }

    /// When a node was last lost.
    #[cfg(test)]
    pub(crate) fn lost_at(&self, node: BackendIndex) -> Option<BootNanos> {
        self.peer(node).map(|peer| peer.lost)
    }

    /// Whether a node's kernel answers ICMP echo; `None` while that is not known, and for this
    /// node.
    pub(crate) fn answers_echo(&self, node: BackendIndex) -> Option<bool> {
        self.peer(node)?.echo.answers
    }

    /// When the first peer could miss this node's BFD packets, less half an interval: for the
    /// clocks, which are not the same, and for the time that packets take.
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

    /// What the ups and downs of a session mean.
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
                        peer.exercise = now;
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

    /// A node's BFD packets stay out: its agent is gone, and maybe the node.
    fn suspect(&mut self, now: BootNanos, node: BackendIndex) {
        if let Some(peer) = self.peer_mut(node) {
            peer.state = State::Suspect {
                asked: 0,
                next: now,
            };
            peer.lost = now;
        }
    }

    /// A node's agent said that it ends. Its connections are its kernel's.
    fn monitor(&mut self, now: BootNanos, members: &Membership, node: BackendIndex) {
        let next = now.after(self.question_pause());
        if let Some(peer) = self.peer_mut(node)
            && members.was_heard(node)
            && peer.state == State::Reachable
        {
            peer.state = State::Monitored { asked: 0, next };
        }
    }

    /// Asks a node's kernel if it is time: to tell a crashed agent from a dead node, or to find out
    /// whether that could be told.
    fn ask(&mut self, now: BootNanos, node: BackendIndex, out: &mut Vec<Event>) {
        let (pause, slow) = (self.question_pause(), self.exercise_pause());
        let Some(peer) = self.peer_mut(node) else {
            return;
        };
        if now < peer.next_question() {
            return;
        }
        match &mut peer.state {
            State::Dead => return,
            State::Reachable => {
                peer.exercise = now.after(slow);
                peer.neighbor.ask();
                if peer.echo.ask() {
                    out.push(Event::Echo { node, lost: true });
                }
            }
            State::Suspect { asked, next } | State::Monitored { asked, next } => {
                *next = now.after(if *asked < QUESTIONS { pause } else { slow });
                *asked = (*asked + 1).min(QUESTIONS);
            }
        }
        out.push(Event::Ask(node));
    }

    /// Between questions to a silent node.
    fn question_pause(&self) -> Duration {
        let bfd = self.bfd.map(|bfd| bfd.interval);
        bfd.unwrap_or_default().max(QUESTION_INTERVAL)
    }

    /// Between questions to a node that is well, or of which nothing can be concluded.
    fn exercise_pause(&self) -> Duration {
        let bfd = self.bfd.map(|bfd| bfd.interval);
        let others = self.peers.iter().flatten().count().max(1) as u32;
        EXERCISE.max(bfd.unwrap_or_default() * 20) * others
    }
}
