//! Claims on the VIP by strangers, and the questions before it is claimed oneself (RFC 5227).

use super::*;

impl Node {
    pub(super) fn on_claim(&mut self, now: BootNanos, mac: Mac, out: &mut Vec<Action>) {
        let due = self
            .claims
            .defended
            .is_none_or(|defended| now.since(defended) >= DEFEND_INTERVAL);
        let defended = self.machine.state() == State::Active && due;
        if defended {
            self.claims.defended = Some(now);
            out.push(Action::Announce);
        } else if self.claims.probes_left > 0 || now < self.claims.next {
            // It has not been claimed yet, and will not be while he is there.
            self.claims.probes_left = CLAIM_PROBES;
            self.claims.next = now.after(CLAIM_RETRY);
        }
        out.push(Action::Report(Report::Conflict { mac, defended }));
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
