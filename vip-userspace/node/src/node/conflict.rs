//! Claims on the VIP by others than agents, the questions before it is claimed oneself (RFC 5227),
//! and those of its owner, which find whoever has it and says nothing.

use super::*;

impl Node {
    pub(super) fn on_claim(
        &mut self,
        now: BootNanos,
        mac: Mac,
        node: Option<BackendIndex>,
        agent: bool,
        out: &mut Vec<Action>,
    ) {
        if let Some(node) = node {
            self.on_rival(now, node, out);
            if self.is_heard(node) {
                return;
            }
        }
        let due = self
            .claims
            .defended
            .is_none_or(|defended| now.since(defended) >= DEFEND_INTERVAL);
        let defended = self.machine.state() == State::Active && due;
        if defended {
            self.claims.defended = Some(now);
            out.push(Action::Announce);
        } else if self.claims.probes_left > 0 || now < self.claims.next {
            // It has not been claimed yet, and will not be while it is there.
            self.claims.probes_left = CLAIM_PROBES;
            self.claims.next = now.after(CLAIM_RETRY);
        }
        let by = match (node, self.owner()) {
            (None, _) => Claimant::Stranger,
            (Some(node), Some(owner)) if agent => Claimant::Unheard { node, owner },
            // It may be the owner, and a firewall hide it: that it is not heard is told with more
            // about it.
            (Some(_), None) if agent => return,
            (Some(node), _) => Claimant::NoAgent(node),
        };
        if node.is_none() || self.knows_the_owner(now) {
            let fresh = self.note_claim(Claim { mac, by, last: now }, out);
            out.push(Action::Report(Report::Conflict {
                mac,
                claimant: by,
                defended,
                fresh,
            }));
        }
    }

    /// Keeps a claim in mind. Returns whether it is news.
    fn note_claim(&mut self, claim: Claim, out: &mut Vec<Action>) -> bool {
        let made = &mut self.claims.made;
        if let Some(known) = made.iter_mut().find(|known| known.mac == claim.mac) {
            let before = std::mem::replace(known, claim);
            return before.by != claim.by;
        }
        made.push(claim);
        if made.len() > MAX_CLAIMS
            && let Some(oldest) = (0..made.len()).min_by_key(|place| made[*place].last)
        {
            over(made.remove(oldest), out);
        }
        true
    }

    /// Forgets claims that are not repeated, and those of nodes whose agent is heard: what such a
    /// node says of the VIP is said by its agent.
    fn forget_claims(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        let mut made = std::mem::take(&mut self.claims.made);
        let is_over = |claim: &mut Claim| {
            let lapsed = now >= claim.last.after(CLAIM_LAPSE);
            lapsed || claim.by.node().is_some_and(|node| self.is_heard(node))
        };
        for claim in made.extract_if(.., is_over) {
            over(claim, out);
        }
        self.claims.made = made;
    }

    /// Another node answers for the VIP. Where this one owns it, too, only one of the two hears the
    /// other's advertisements, or neither does.
    fn on_rival(&mut self, now: BootNanos, node: BackendIndex, out: &mut Vec<Action>) {
        if self.machine.state() != State::Active || !matches!(self.transfer, Transfer::None) {
            return;
        }
        let known = self.claims.rival.filter(|known| known.node == node);
        let mut rival = known.unwrap_or(Rival {
            node,
            since: now,
            last: now,
            told: false,
        });
        rival.last = now;
        if !rival.told && now.since(rival.since) >= RIVAL_PATIENCE {
            rival.told = true;
            out.push(Action::Report(Report::TwoOwners(node, true)));
        }
        if known.is_none() {
            self.forget_rival(out);
        }
        self.claims.rival = Some(rival);
    }

    fn forget_rival(&mut self, out: &mut Vec<Action>) {
        if let Some(rival) = self.claims.rival.take()
            && rival.told
        {
            out.push(Action::Report(Report::TwoOwners(rival.node, false)));
        }
    }

    /// When a claim is over, unless it is repeated before.
    pub(super) fn next_lapse(&self) -> Option<BootNanos> {
        let claims = self.claims.made.iter().map(|claim| claim.last);
        let rival = self.claims.rival.map(|rival| rival.last);
        let first = claims.chain(rival).min()?;
        Some(first.after(CLAIM_LAPSE))
    }

    /// Asks now and then whether somebody else has the VIP that this node owns, and forgets who does
    /// not answer any more.
    pub(super) fn watch_address(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        let active = self.machine.state() == State::Active;
        if !self.claims.made.is_empty() {
            self.forget_claims(now, out);
        }
        let over = |rival: Rival| now >= rival.last.after(CLAIM_LAPSE);
        if !active || self.claims.rival.is_some_and(over) {
            self.forget_rival(out);
        }
        if active && self.params.probe_address && now >= self.claims.watch {
            self.claims.asked += 1;
            // Not in step with anybody else's: from three quarters of the interval on.
            let jitter = mix(self.params.seed, self.claims.asked) % 512;
            let wait = WATCH_INTERVAL * 3 / 4 + WATCH_INTERVAL * jitter as u32 / 1024;
            self.claims.watch = now.after(wait);
            out.push(Action::ProbeAddress);
        }
    }

    /// Whether a node's agent is heard. Then what the node says of the VIP is said by that agent:
    /// its programs let nobody else speak.
    fn is_heard(&self, node: BackendIndex) -> bool {
        self.owner() == Some(node) || self.bfd(node).is_some_and(Session::is_up)
    }

    /// Whether the owner, if there is one among the agents, must have been heard by now. Before
    /// that, a node that says it has the VIP may well be right.
    fn knows_the_owner(&self, now: BootNanos) -> bool {
        self.owner().is_some() || now >= self.machine.next_deadline()
    }

    /// Asks the segment for the VIP before it is claimed.
    pub(super) fn probe_address(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        let claims = &mut self.claims;
        if self.machine.state() == State::Active || claims.probes_left == 0 || self.faults != 0 {
            return;
        }
        if now >= claims.next {
            claims.probes_left -= 1;
            claims.next = now.after(CLAIM_PROBE_INTERVAL);
            out.push(Action::ProbeAddress);
        }
    }
}

fn over(Claim { mac, by, .. }: Claim, out: &mut Vec<Action>) {
    let claimant = by;
    out.push(Action::Report(Report::ConflictOver { mac, claimant }));
}
