//! What advertisements say of who owns the VIP, and whose turn it is when nobody does.

use super::*;

impl Node {
    /// How long to let others go first once the owner is gone: a BFD interval for each living
    /// node that stands before this one, so that not all of them take over at once. Nodes may
    /// disagree for a moment about who is ready, and each let the other go first, or neither. Then
    /// their places by configured priority, worth half an interval in all, keep them apart.
    pub(super) fn turn(&self) -> Duration {
        let Some(bfd) = self.params.bfd else {
            return Duration::ZERO;
        };
        let configured = self.params.nodes[self.params.own.get()];
        let own = (self.machine.priority(), configured.address);
        let mut before = 0;
        let mut configured_before = 0;
        for index in self.others() {
            let node = self.params.nodes[index.get()];
            if self.machine.owner() != Some(node.address) {
                let rank = (node.priority, node.address);
                configured_before += u32::from(rank > (configured.priority, configured.address));
            }
            let lives = self.bfd(index).is_some_and(Session::is_up);
            let rank = (priority(node.priority, self.is_usable(index)), node.address);
            let resigned = self
                .resigned
                .is_some_and(|resigned| resigned.index == index);
            before += u32::from(lives && !resigned && rank > own);
        }
        let others = self.others().count().max(1) as u32;
        bfd.interval * before + bfd.interval * configured_before / (2 * others)
    }

    pub(super) fn on_advert(
        &mut self,
        now: BootNanos,
        source: BackendIndex,
        advert: &Advertisement,
        out: &mut Vec<Action>,
    ) {
        let Some(address) = self.params.nodes.get(source.get()).map(|node| node.address) else {
            return;
        };
        if let Some(peer) = self.peer_mut(source) {
            peer.advert = Some(now);
        }
        let resigns = advert.priority == PRIORITY_RESIGNED;
        let leaving = self.has_resigned(now, source);
        self.follow(now, source, address, advert);
        match self.transfer {
            Transfer::Left => return,
            Transfer::Leaving { .. } if !resigns => {
                // The next owner has spoken.
                out.push(Action::Report(Report::HandedOver(source)));
                self.left(out);
                return;
            }
            Transfer::Leaving { .. } => return,
            // Whoever speaks: it may also be the owner of the other part of a segment that has
            // come together again.
            Transfer::Handover { .. } if !resigns => {
                self.transfer = Transfer::None;
                let actions = self.machine.yield_to(now, address, advert.interval);
                out.push(Action::Report(Report::HandedOver(source)));
                self.carry_out(now, Trigger::Loss(Loss::HandedOver(source)), actions, out);
                self.owner = None;
                self.follow(now, source, address, advert);
                return;
            }
            Transfer::Handover { .. } | Transfer::None => {}
        }
        // One that leaves or hands over says so again and again, and to others that it is still
        // there. That is no reason to wait any longer.
        if leaving && advert.priority <= PRIORITY_HANDING_OVER {
            return;
        }
        if !resigns {
            // A node of the cluster owns the VIP: nobody else needs to be asked.
            self.claims.probes_left = 0;
            self.claims.next = now;
        }
        let was = self.machine.state();
        let unfit = self.is_usable(self.params.own) && !self.is_usable(source);
        let actions = self.machine.on_advert(now, address, advert, unfit);
        self.carry_out(now, Trigger::Loss(Loss::Outranked(source)), actions, out);
        match self.machine.state() {
            // Two owners met, and this one stays: hosts may have believed the other.
            State::Active if was == State::Active && !resigns => self.schedule.repeat(now),
            // Its turn, and not the skew time, decides who is next.
            State::Backup
                if resigns
                    && self.params.bfd.is_some()
                    && self.machine.owner() == Some(address) =>
            {
                self.machine.hasten(now);
            }
            _ => {}
        }
    }

    /// Notes who owns the VIP.
    fn follow(
        &mut self,
        now: BootNanos,
        source: BackendIndex,
        address: IpAddr,
        advert: &Advertisement,
    ) {
        let rank = |owner: &Owner| (owner.priority, self.params.nodes[owner.index.get()].address);
        let predecessor = self.predecessor.filter(|last| last.index == source);
        if advert.priority == PRIORITY_RESIGNED {
            self.predecessor = predecessor.or(self.predecessor).map(|last| Predecessor {
                // It may say so more than once.
                resigned: last.resigned.or((last.index == source).then_some(now)),
                ..last
            });
            self.owner = self.owner.filter(|owner| owner.index != source);
            self.resigned = Some(Resigned {
                index: source,
                until: now.after(self.handover_patience()),
            });
            return;
        }
        let hands_over = advert.priority == PRIORITY_HANDING_OVER && self.has_resigned(now, source);
        if !hands_over {
            self.resigned = self.resigned.filter(|resigned| resigned.index != source);
        }
        // BFD knows of an owner's end before its advertisements have stayed out for long enough.
        let better = |owner: Owner| {
            owner.index == source
                || now >= owner.until
                || self.departure(now, owner.index) == Departure::Silent
                || rank(&owner) < (advert.priority, address)
        };
        if self.owner.is_none_or(better) {
            if predecessor.is_none() {
                self.predecessor_before = self.predecessor;
            }
            self.predecessor = Some(Predecessor {
                index: source,
                heard: now,
                // While it hands over it says that it is still there.
                resigned: predecessor
                    .and_then(|last| last.resigned)
                    .filter(|_| hands_over),
            });
            self.owner = Some(Owner {
                index: source,
                priority: advert.priority,
                // One more than it takes to be taken for dead.
                until: now.after(advert.interval.duration() * 4),
            });
        }
    }

    /// How this node comes to own the VIP.
    pub(super) fn takeover(&self, now: BootNanos, trigger: Trigger) -> Takeover {
        if matches!(trigger, Trigger::Start { resumes: true }) {
            return Takeover::Resumed;
        }
        let Some(last) = self.predecessor else {
            return Takeover::Nobody;
        };
        let node = last.index;
        let why = self.departure(now, node);
        let after = match why {
            Departure::Resigned => now.since(last.resigned.unwrap_or(now)),
            Departure::Silent => {
                let packet = self.bfd(node).map_or(BootNanos::ZERO, Session::heard);
                now.since(last.heard.max(packet))
            }
            Departure::Outranked => Duration::ZERO,
        };
        Takeover::From { node, why, after }
    }

    /// Why a node that owned the VIP does so no more.
    pub(super) fn departure(&self, now: BootNanos, node: BackendIndex) -> Departure {
        let last = [self.predecessor, self.predecessor_before]
            .into_iter()
            .flatten()
            .find(|last| last.index == node);
        if last.is_some_and(|last| last.resigned.is_some()) {
            return Departure::Resigned;
        }
        let is_heard = match self.bfd(node) {
            Some(session) => session.is_up(),
            None => last
                .is_some_and(|last| now.since(last.heard) < self.machine.interval().duration() * 3),
        };
        if is_heard {
            Departure::Outranked
        } else {
            Departure::Silent
        }
    }

    /// Whether a node has resigned lately.
    fn has_resigned(&self, now: BootNanos, index: BackendIndex) -> bool {
        self.resigned
            .is_some_and(|resigned| resigned.index == index && now < resigned.until)
    }
}
