//! Who lives: BFD sessions, the echo that tells a crashed agent from a dead node, and what becomes
//! of it in the masks.

use super::*;

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
            peer.liveness = Liveness::Doubted {
                asked: 0,
                next: now,
            };
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
            && peer.liveness == Liveness::Trusted
        {
            peer.liveness = Liveness::Watched { asked: 0, next };
        }
    }

    /// Between echo requests to a node.
    fn echo_pause(&self) -> Duration {
        let bfd = self.params.bfd.map(|bfd| bfd.interval);
        bfd.unwrap_or_default().max(ECHO_INTERVAL)
    }

    /// Sends the echo requests that tell a crashed agent from a dead node.
    pub(super) fn ask(&mut self, now: BootNanos, index: BackendIndex, out: &mut Vec<Action>) {
        let pause = self.echo_pause();
        let Some(peer) = self.peer_mut(index) else {
            return;
        };
        let (Liveness::Doubted { asked, next } | Liveness::Watched { asked, next }) =
            &mut peer.liveness
        else {
            return;
        };
        if now < *next {
            return;
        }
        if *asked < ECHOES {
            *asked += 1;
            *next = now.after(pause);
            out.push(Action::SendEcho(index));
        } else {
            peer.liveness = Liveness::Dead;
            // Unless there is nothing to hear it by.
            peer.joined = peer.session.is_none();
            out.push(Action::Report(Report::Dead(index)));
        }
    }

    /// A node gave a sign of life.
    pub(super) fn answers(&mut self, now: BootNanos, index: BackendIndex, out: &mut Vec<Action>) {
        let later = now.after(self.echo_pause());
        let Some(peer) = self.peer_mut(index) else {
            return;
        };
        let heard = peer.session.as_ref().is_none_or(Session::is_up);
        let next = match peer.liveness {
            Liveness::Watched { next, .. } => next,
            _ => later,
        };
        let is = if heard || !peer.joined {
            Liveness::Trusted
        } else {
            Liveness::Watched { asked: 0, next }
        };
        if std::mem::replace(&mut peer.liveness, is) == Liveness::Dead {
            out.push(Action::Report(Report::Answers(index)));
        }
    }

    /// Whether all other nodes have said that they hear this one.
    pub(super) fn is_known_to_all(&self) -> bool {
        let hears = |session: &Session| session.is_up() && session.remote_state() == bfd::State::Up;
        self.others()
            .all(|index| self.bfd(index).is_some_and(hears))
    }

    /// What probes say, and what operators and the peers' silence add to it. A node whose agent
    /// was never heard gets nothing: its API server may be ready, but its stack does not have
    /// the VIP. New connections avoid a silent node at once; open ones, which a crashed agent
    /// does not harm, only once the node itself does not answer. A BFD session that is up proves
    /// life.
    pub(super) fn overlay(&self) -> Masks {
        let mut masks = self.health.masks();
        if self.joining.is_some() {
            masks.withheld = BackendMask::ALL;
        }
        let mut silent = BackendMask::EMPTY;
        for index in self.others() {
            let Some(peer) = self.peer(index) else {
                continue;
            };
            let (alive, may_be_ready) = match peer.liveness {
                _ if !peer.joined => (false, false),
                Liveness::Trusted => {
                    let heard = peer.session.as_ref().is_some_and(Session::is_up);
                    (masks.alive.contains(index) || heard, true)
                }
                // The last request may still be on its way.
                Liveness::Watched { asked, .. } => (masks.alive.contains(index), asked <= 1),
                Liveness::Doubted { .. } => (masks.alive.contains(index), false),
                Liveness::Dead => (false, false),
            };
            masks.alive = masks.alive.with(index, alive);
            if !may_be_ready {
                silent = silent.with(index, true);
            }
        }
        for ready in &mut masks.ready {
            *ready = ready.without(silent).without(self.draining);
        }
        debug_assert!(masks.alive.and(BackendMask::first(self.params.nodes.len())) == masks.alive);
        masks
    }
}
