//! Who lives: BFD sessions, the questions that tell a crashed agent from a dead node, and what
//! becomes of it in the masks.
//!
//! A node's kernel is asked in two ways, by ICMP echo and by ARP (Neighbour Discovery with IPv6).
//! Firewalls drop echo, or let through so many a second; ARP they mostly leave alone. Both are
//! tried all the time, slowly, while the node is well: silence proves death only where an answer
//! was to be expected, by all means that ever answered. Otherwise probes of the server decide.

use super::*;

/// Between the questions to a node that is well, at least. Beside it they are 20 BFD intervals
/// apart, times the number of other nodes: each node is asked about once a second by all.
const EXERCISE: Duration = Duration::from_secs(1);

/// Questions to a node that is well that may be left unanswered in a row. One may be lost.
const LOST: u32 = 3;

/// How a connection gets to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// Frames for the VIP are handed on to it.
    Steering,
    /// A process or pod of this node is connected to the node's own address.
    Connecting,
}

/// Whether a node answers one kind of question.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Means {
    /// `None` while that is not known.
    pub(super) answers: Option<bool>,
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
    fn heard(&mut self) -> bool {
        self.unanswered = 0;
        self.answers.replace(true) == Some(false)
    }
}

impl Node {
    /// What the ups and downs of a session mean.
    pub(super) fn on_sessions(
        &mut self,
        now: BootNanos,
        index: BackendIndex,
        out: &mut Vec<Action>,
    ) {
        while let Some(action) = self.bfd.pop() {
            match action {
                bfd::Action::Send(_) => {}
                bfd::Action::Up => {
                    if let Some(peer) = self.peer_mut(index) {
                        peer.joined = true;
                        peer.exercise = now;
                    }
                    out.push(Action::Report(Report::BfdUp(index)));
                    self.answers(now, index, out);
                    if self.machine.state() == State::Active {
                        // A node has come back, and others with it that heard another owner.
                        self.schedule.repeat(now);
                    }
                }
                bfd::Action::Down(diagnostic) => {
                    out.push(Action::Report(Report::BfdDown(index, diagnostic)));
                    if diagnostic == Diagnostic::ControlDetectionTimeExpired {
                        self.on_silence(now, index);
                    } else {
                        self.watch(now, index);
                    }
                }
            }
        }
    }

    /// A node's BFD packets stay out: its agent is gone, and maybe the node.
    fn on_silence(&mut self, now: BootNanos, index: BackendIndex) {
        if let Some(peer) = self.peer_mut(index) {
            peer.liveness = Liveness::Suspect {
                asked: 0,
                next: now,
            };
            peer.lost = now;
        }
        let Some(bfd) = self.params.bfd else {
            return;
        };
        let lost = self.params.nodes[index.get()].address;
        // An owner whose advertisements come in is there, whatever became of its BFD packets.
        let heard = self.machine.heard().unwrap_or(now);
        let detection = bfd.interval * u32::from(bfd.detect_mult.get());
        if self.machine.owner() == Some(lost) && now.since(heard) >= detection / 2 {
            self.machine.hasten(now);
        }
    }

    /// A node's agent took its leave. Its connections are its kernel's.
    fn watch(&mut self, now: BootNanos, index: BackendIndex) {
        let next = now.after(self.echo_pause());
        if let Some(peer) = self.peer_mut(index)
            && peer.joined
            && peer.liveness == Liveness::Reachable
        {
            peer.liveness = Liveness::Monitored { asked: 0, next };
        }
    }

    /// Between echo requests to a node.
    fn echo_pause(&self) -> Duration {
        let bfd = self.params.bfd.map(|bfd| bfd.interval);
        bfd.unwrap_or_default().max(ECHO_INTERVAL)
    }

    /// Between questions to a node that is well, or of which nothing can be concluded.
    fn exercise_pause(&self) -> Duration {
        let bfd = self.params.bfd.map(|bfd| bfd.interval);
        let others = self.others().count().max(1) as u32;
        EXERCISE.max(bfd.unwrap_or_default() * 20) * others
    }

    /// Sends the questions that tell a crashed agent from a dead node, or find out whether these
    /// would be answered.
    pub(super) fn ask(&mut self, now: BootNanos, index: BackendIndex, out: &mut Vec<Action>) {
        let (pause, slow) = (self.echo_pause(), self.exercise_pause());
        self.conclude(now, index, out);
        let Some(peer) = self.peer_mut(index) else {
            return;
        };
        if now < peer.next_question() {
            return;
        }
        match &mut peer.liveness {
            Liveness::Dead => return,
            Liveness::Reachable => {
                peer.exercise = now.after(slow);
                peer.neighbour.ask();
                if peer.echo.ask() {
                    out.push(Action::Report(Report::EchoLost(index, true)));
                }
            }
            Liveness::Suspect { asked, next } | Liveness::Monitored { asked, next } => {
                *next = now.after(if *asked < ECHOES { pause } else { slow });
                *asked = (*asked + 1).min(ECHOES);
            }
        }
        out.extend([Action::SendEcho(index), Action::AskNeighbour(index)]);
    }

    /// Takes a node for dead that has left all questions unanswered, if it used to answer any, or
    /// if probes of its server found it dead, too.
    pub(super) fn conclude(&mut self, now: BootNanos, index: BackendIndex, out: &mut Vec<Action>) {
        let (alive, pause) = (self.health.alive(index), self.echo_pause());
        let Some(peer) = self.peer_mut(index) else {
            return;
        };
        let (Liveness::Suspect { asked, next } | Liveness::Monitored { asked, next }) =
            &mut peer.liveness
        else {
            return;
        };
        if now.since(*next) > pause {
            // This node did not run, and may have missed the answers.
            *asked = 0;
        }
        let (asked, next) = (*asked, *next);
        let expected = [peer.echo, peer.neighbour]
            .iter()
            .any(|means| means.answers == Some(true));
        if asked >= ECHOES && (!alive || expected && now >= next) {
            peer.liveness = Liveness::Dead;
            peer.lost = now;
            // Unless there is nothing to hear it by.
            peer.joined = peer.session.is_none();
            out.push(Action::Report(Report::Dead(index)));
        }
    }

    /// A probe as it is to count now. One that waits on a connection tells of the time when that was
    /// made, and that may be before the node was lost.
    pub(super) fn dated(&self, index: BackendIndex, probe: Probe) -> Probe {
        match (&probe, self.peer(index)) {
            (Probe::Hung { connected, .. }, Some(peer)) if *connected < peer.lost => Probe::Silent,
            _ => probe,
        }
    }

    /// A node's kernel answered a question of that kind.
    pub(super) fn on_answer(
        &mut self,
        now: BootNanos,
        index: BackendIndex,
        by_echo: bool,
        out: &mut Vec<Action>,
    ) {
        if let Some(peer) = self.peer_mut(index) {
            let means = if by_echo {
                &mut peer.echo
            } else {
                &mut peer.neighbour
            };
            if means.heard() && by_echo {
                out.push(Action::Report(Report::EchoLost(index, false)));
            }
        }
        self.answers(now, index, out);
    }

    /// A node gave a sign of life.
    pub(super) fn answers(&mut self, now: BootNanos, index: BackendIndex, out: &mut Vec<Action>) {
        let later = now.after(self.echo_pause());
        let Some(peer) = self.peer_mut(index) else {
            return;
        };
        let heard = peer.session.as_ref().is_none_or(Session::is_up);
        let next = match peer.liveness {
            Liveness::Monitored { next, .. } => next.min(later),
            _ => later,
        };
        let is = if heard || !peer.joined {
            Liveness::Reachable
        } else {
            Liveness::Monitored { asked: 0, next }
        };
        if std::mem::replace(&mut peer.liveness, is) == Liveness::Dead {
            out.push(Action::Report(Report::Answers(index)));
        }
    }

    /// Whether all other nodes have said that they hear this one, and frames can be handed on to
    /// each. A segment that passed over one of them would be reset by the next.
    pub(super) fn knows_all(&self) -> bool {
        let hears = |session: &Session| session.is_up() && session.remote_state() == bfd::State::Up;
        self.peers
            .iter()
            .flatten()
            .all(|peer| peer.located && peer.session.as_ref().is_some_and(hears))
    }

    /// What probes say, and what the peers' silence adds to it. A node whose agent was never heard
    /// is steered nothing: its API server may be ready, but its stack does not have the VIP. That
    /// is nothing to local connections, which go to its own address. New connections avoid a silent node at once; open ones, which a crashed agent
    /// does not harm, only once the node itself does not answer. A BFD session that is up proves
    /// life.
    fn lives_and_is_silent(&self, way: By) -> (BackendMask, BackendMask) {
        let mut alive = self.health.all_alive();
        let mut silent = BackendMask::EMPTY;
        for index in self.others() {
            let Some(peer) = self.peer(index) else {
                continue;
            };
            let probed = alive.contains(index);
            let (lives, is_silent) = match peer.liveness {
                _ if !peer.joined && way == By::Steering => (false, true),
                Liveness::Reachable => {
                    let heard = peer.session.as_ref().is_some_and(Session::is_up);
                    (probed || heard, false)
                }
                // The last request may still be on its way.
                Liveness::Monitored { asked, .. } => (probed, asked > 1),
                Liveness::Suspect { .. } => (probed, true),
                Liveness::Dead => (false, true),
            };
            alive = alive.with(index, lives);
            silent = silent.with(index, is_silent);
        }
        (alive, silent)
    }

    /// What is known of all nodes, for a check.
    fn facts(&self, check: usize, way: By) -> Facts {
        let (alive, silent) = self.lives_and_is_silent(way);
        let mut unasked = self.health.all_unasked(check);
        // This node's own server least: it starts when the node does.
        let others = unasked.with(self.params.own, false);
        if !others.and(alive).without(silent).is_empty() {
            unasked = others;
        }
        Facts {
            alive,
            silent,
            draining: self.draining,
            usable: self.health.all_usable(check),
            answering: self.health.all_answering(check),
            unasked,
        }
    }

    /// What the packet path is to read, and for each check where new connections go.
    pub(super) fn overlay(&self) -> (Masks, [Resort; MAX_CHECKS]) {
        let mut masks = Masks {
            alive: self.lives_and_is_silent(By::Steering).0,
            draining: self.draining,
            ..Masks::default()
        };
        if self.joining.is_some() {
            masks.no_forward = BackendMask::ALL;
        }
        let mut resorts = [Resort::default(); MAX_CHECKS];
        let chosen = masks.new_connections.iter_mut().zip(&mut resorts);
        for (check, (nodes, resort)) in chosen.enumerate().take(self.health.checks()) {
            (*nodes, *resort) = choose(&self.facts(check, By::Steering));
        }
        for (check, nodes) in masks
            .connect
            .iter_mut()
            .enumerate()
            .take(self.health.checks())
        {
            (*nodes, _) = choose(&self.facts(check, By::Connecting));
        }
        debug_assert!(masks.alive.and(BackendMask::first(self.params.nodes.len())) == masks.alive);
        (masks, resorts)
    }

    /// Whether this node may be drained: an error if nobody as good would be left for new
    /// connections, or nobody for the VIP.
    ///
    /// # Errors
    /// Why it is none of the others.
    pub fn may_drain(&self) -> Result<(), NoDrain> {
        for check in 0..self.health.checks() {
            let before = self.facts(check, By::Steering);
            let mut after = before;
            after.draining = before.draining.with(self.params.own, true);
            if choose(&after).1 <= choose(&before).1 {
                continue;
            }
            let why = |index: &BackendIndex| {
                if !before.alive.contains(*index) {
                    Unfit::Dead
                } else if before.draining.contains(*index) {
                    Unfit::Draining
                } else if before.silent.contains(*index) {
                    Unfit::Silent
                } else {
                    Unfit::Unready
                }
            };
            return Err(NoDrain::LastUsable(LastUsable {
                check,
                others: self.others().map(|index| (index, why(&index))).collect(),
            }));
        }
        let owns = self.machine.state() == State::Active;
        if owns && !self.others().any(|index| self.lives(index)) {
            return Err(NoDrain::LastAgent);
        }
        Ok(())
    }
}
