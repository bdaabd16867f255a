//! Claims on the VIP by others than agents, and the questions before it is claimed oneself (RFC 5227).

use super::*;

impl Node {
    pub(super) fn on_claim(
        &mut self,
        now: BootNanos,
        mac: Mac,
        node: Option<BackendIndex>,
        out: &mut Vec<Action>,
    ) {
        if node.is_some_and(|node| self.is_heard(node)) {
            return;
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
        if node.is_none() || self.knows_the_owner(now) {
            out.push(Action::Report(Report::Conflict {
                mac,
                node,
                defended,
            }));
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
