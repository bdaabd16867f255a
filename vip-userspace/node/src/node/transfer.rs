//! How an owner gives the VIP up of its own will: handover, and shutdown.

use super::*;

impl Node {
    pub(super) fn on_handover(
        &mut self,
        now: BootNanos,
        to: Option<BackendIndex>,
        out: &mut Vec<Action>,
    ) {
        let to = match self.successor(to) {
            Ok(to) => to,
            Err(why) => {
                out.push(Action::Report(Report::NotHandedOver(why)));
                return;
            }
        };
        self.transfer = Transfer::Handover {
            to,
            until: now.after(self.handover_patience()),
        };
        out.push(Action::Report(Report::HandingOver(to)));
        // To it alone: nobody else feels called.
        out.push(Action::SendAdvert {
            to: To::One(to),
            priority: PRIORITY_RESIGNED,
        });
    }

    pub(super) fn handover_patience(&self) -> Duration {
        HANDOVER_PATIENCE + self.machine.interval().duration() * 3
    }

    /// The node to hand over to.
    pub(super) fn successor(&self, to: Option<BackendIndex>) -> Result<BackendIndex, NoHandover> {
        if self.machine.state() != State::Active
            || !matches!(self.transfer, Transfer::None | Transfer::Handover { .. })
        {
            let owner = self.owner().filter(|owner| *owner != self.params.own);
            return Err(NoHandover::NotOwner(owner));
        }
        if let Some(to) = to {
            if to == self.params.own {
                return Err(NoHandover::Own);
            }
            return match self.unsuited(to) {
                None => Ok(to),
                Some(why) => Err(NoHandover::Unsuited(to, why)),
            };
        }
        let suited = self
            .others()
            .filter(|&index| self.unsuited(index).is_none());
        let best = suited.max_by_key(|&index| {
            let node = self.params.nodes[index.get()];
            let drains = self.draining.contains(index);
            let usable = self.is_usable(index);
            let priority = priority(node.priority, usable);
            (usable, !drains, priority, node.address)
        });
        best.ok_or_else(|| {
            let others = self.others();
            let why = others.filter_map(|index| Some((index, self.unsuited(index)?)));
            NoHandover::NoSuccessor(why.collect())
        })
    }

    /// Why the VIP would not go to a node, or not stay there; `None` if it would. An unready or
    /// draining node keeps it only while no node is better, this one included.
    fn unsuited(&self, index: BackendIndex) -> Option<Unsuited> {
        if !self.lives(index) {
            return Some(Unsuited::Unheard);
        }
        let usable = self.is_usable(index);
        let own = self.params.own;
        let is_better = |node: BackendIndex| {
            self.is_usable(node) && (node == own || node != index && self.lives(node))
        };
        if !usable && (is_better(own) || self.others().any(is_better)) {
            return Some(if self.draining.contains(index) {
                Unsuited::Draining
            } else {
                Unsuited::Unready
            });
        }
        let own = self.machine.priority();
        let theirs = priority(self.params.nodes[index.get()].priority, usable);
        (self.params.vrrp.preempt && theirs < own).then_some(Unsuited::Outranked { own, theirs })
    }

    /// Whether a node could take the VIP.
    pub(super) fn lives(&self, index: BackendIndex) -> bool {
        let Some(peer) = self.peer(index) else {
            return false;
        };
        match &peer.session {
            Some(session) => session.is_up(),
            None => self.health.alive(index),
        }
    }

    pub(super) fn on_shutdown(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if matches!(self.transfer, Transfer::Leaving { .. } | Transfer::Left) {
            return;
        }
        let active = self.machine.state() == State::Active;
        let successor = active && self.others().any(|index| self.lives(index));
        // The peers are told that the silence to come is meant, before the next of them takes
        // over.
        for index in self.others() {
            self.session(index, out, |session, out| session.admin_down(now, out));
            self.bfd.clear();
        }
        if successor {
            self.transfer = Transfer::Leaving {
                until: now.after(self.handover_patience()),
                next: now,
            };
            self.leave(now, out);
        } else {
            let actions = self.machine.on_shutdown();
            self.carry_out(now, Trigger::Loss(Loss::Shutdown), actions, out);
            self.left(out);
        }
    }

    /// The owner that leaves goes on answering until the next one speaks.
    pub(super) fn leave(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        match self.transfer {
            Transfer::None | Transfer::Left => {}
            Transfer::Handover { to, until } => {
                if self.machine.state() != State::Active {
                    self.transfer = Transfer::None;
                } else if now >= until {
                    self.transfer = Transfer::None;
                    out.push(Action::Report(Report::NotHandedOver(NoHandover::NoAnswer(
                        to,
                    ))));
                }
            }
            Transfer::Leaving { until, next } => {
                if now >= until || self.machine.state() != State::Active {
                    let actions = self.machine.on_shutdown();
                    self.carry_out(now, Trigger::Loss(Loss::Shutdown), actions, out);
                    self.left(out);
                } else if now >= next {
                    let next = now.after(self.machine.interval().duration());
                    self.transfer = Transfer::Leaving { until, next };
                    out.push(Action::SendAdvert {
                        to: To::All,
                        priority: PRIORITY_RESIGNED,
                    });
                }
            }
        }
    }

    pub(super) fn left(&mut self, out: &mut Vec<Action>) {
        self.transfer = Transfer::Left;
        self.machine.on_shutdown();
        self.schedule.end();
        self.set_answer_until(BootNanos::ZERO, out);
        out.push(Action::Done);
    }
}
