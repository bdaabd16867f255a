//! Detection of address conflicts (RFC 5227): ARP probes before the VIP is claimed, probes by its
//! owner, which find a host that has the VIP and does not announce it, and claims by other hosts.

use std::time::Duration;

use vip_common::abi::{BackendIndex, BackendMask};
use vip_common::wire::addr::Mac;
use vip_common::wire::time::BootNanos;

use crate::action::{Action, Claimant, Report};
use crate::input::Params;
use crate::random::mix;

/// ARP probes before an address is used (`PROBE_NUM`, RFC 5227, section 1.1).
const PROBES: u32 = 3;

/// Time between them, and from the last one to the claim. The RFC's one to two seconds allow for
/// spanning tree delays, which would be too long for a control plane.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// RFC 5227, section 2.4 (`DEFEND_INTERVAL`): an address is defended no more often.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Time from a foreign claim to the next probe.
const RETRY: Duration = Duration::from_secs(1);

/// Time between the owner's probes, a quarter more or less. Only an answer shows a host that has
/// the VIP and does not announce it.
const WATCH_INTERVAL: Duration = Duration::from_secs(3);

/// Time after its last repetition when a claim is over. The owner probes three times in it.
const LAPSE: Duration = Duration::from_secs(12);

/// Claims that are kept. A further one replaces the oldest.
pub(crate) const MAX_CLAIMS: usize = 8;

/// How long another node may answer for the VIP while this one owns it, until that is reported. In
/// a handover both answer for a moment.
const RIVAL_PATIENCE: Duration = Duration::from_millis(2500);

/// The node's state by which a claim is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    /// This node owns the VIP.
    pub(crate) is_owner: bool,
    /// It stays the owner: it neither hands over nor leaves.
    pub(crate) stays: bool,
    /// The owner of the VIP, as far as it is known.
    pub(crate) owner: Option<BackendIndex>,
    /// Nodes whose agents are heard. Their ARP for the VIP comes from the agent, since the programs
    /// drop all other.
    pub(crate) heard: BackendMask,
    /// When an advertisement of an owner must have arrived, if there is an owner. Before that, a
    /// node that claims the VIP may be the owner.
    pub(crate) owner_known_at: BootNanos,
}

impl Situation {
    fn hears(&self, node: BackendIndex) -> bool {
        self.owner == Some(node) || self.heard.contains(node)
    }
}

/// A claim of the VIP by a host whose agent is not heard.
#[derive(Clone, Copy, Debug)]
struct Claim {
    mac: Mac,
    by: Claimant,
    /// Time of its last repetition.
    last: BootNanos,
}

/// Another node that answers for the VIP while this one owns it.
#[derive(Clone, Copy, Debug)]
struct Rival {
    node: BackendIndex,
    since: BootNanos,
    last: BootNanos,
    /// Whether it was reported.
    told: bool,
}

/// The state of conflict detection.
#[derive(Clone, Debug)]
pub(crate) struct Conflicts {
    /// Whether ARP probes are sent at all.
    asks: bool,
    /// Seed of the jitter between the owner's probes.
    seed: u64,
    /// Probes still to send before the VIP may be claimed.
    probes_left: u32,
    /// When the next one is due, or the claim is allowed.
    next: BootNanos,
    /// When the VIP was last defended.
    defended: Option<BootNanos>,
    /// When the owner sends its next probe.
    watch: BootNanos,
    /// Number of the owner's probes so far.
    asked: u64,
    /// Claims that are not over, [`MAX_CLAIMS`] at most.
    claims: Vec<Claim>,
    rival: Option<Rival>,
}

impl Conflicts {
    /// There is no claim, and no probe was sent.
    pub(crate) fn new(params: &Params) -> Self {
        Self {
            asks: params.probe_address,
            seed: params.seed,
            probes_left: if params.probe_address { PROBES } else { 0 },
            next: BootNanos::ZERO,
            defended: None,
            watch: BootNanos::ZERO,
            asked: 0,
            claims: Vec::new(),
            rival: None,
        }
    }

    /// Whether ARP probes are sent from now on. Without them, a claim does not wait any more.
    pub(crate) const fn set_asks(&mut self, asks: bool) {
        self.asks = asks;
        if !asks {
            self.probes_left = 0;
        }
    }

    /// The agent starts. `resumes`: an earlier agent owned the VIP a moment ago, and had probed.
    pub(crate) fn on_start(&mut self, now: BootNanos, resumes: bool) {
        if resumes {
            self.probes_left = 0;
        }
        self.next = now;
    }

    /// Another node of the cluster owns the VIP, so no further probe is needed.
    pub(crate) fn on_owner(&mut self, now: BootNanos) {
        self.probes_left = 0;
        self.next = now;
    }

    /// Nothing has been heard on the segment for long. Before this node claims the VIP, it probes
    /// anew.
    pub(crate) fn probe_anew(&mut self, now: BootNanos) {
        if self.asks {
            self.probes_left = PROBES;
        }
        self.next = now;
    }

    /// This node has become the owner.
    pub(crate) fn on_takeover(&mut self, now: BootNanos) {
        self.watch = now;
    }

    /// A host claims the VIP. `node`: the node of the cluster that it is, if it is one; `agent`:
    /// that node may run an agent, as far as its kernel shows.
    pub(crate) fn on_claim(
        &mut self,
        now: BootNanos,
        mac: Mac,
        node: Option<BackendIndex>,
        agent: bool,
        situation: &Situation,
        out: &mut Vec<Action>,
    ) {
        if let Some(node) = node {
            if situation.is_owner && situation.stays {
                self.on_rival(now, node, out);
            }
            if situation.hears(node) {
                return;
            }
        }
        let due = |defended| now.since(defended) >= DEFEND_INTERVAL;
        let defended = situation.is_owner && self.defended.is_none_or(due);
        if defended {
            self.defended = Some(now);
            out.push(Action::Announce);
        } else if self.probes_left > 0 || now < self.next {
            // This node has not claimed the VIP yet, and must not while another host has it.
            self.probes_left = PROBES;
            self.next = now.after(RETRY);
        }
        let by = match (node, situation.owner) {
            (None, _) => Claimant::Stranger,
            (Some(node), Some(owner)) if agent => Claimant::Unheard { node, owner },
            // It may be the owner, hidden by a firewall. Another alarm reports that it is not
            // heard.
            (Some(_), None) if agent => return,
            (Some(node), _) => Claimant::NoAgent(node),
        };
        let owner_is_known = situation.owner.is_some() || now >= situation.owner_known_at;
        if node.is_none() || owner_is_known {
            let fresh = self.note(Claim { mac, by, last: now }, out);
            out.push(Action::Report(Report::Conflict {
                mac,
                claimant: by,
                defended,
                fresh,
            }));
        }
    }

    /// Sends the probes before a claim. `may_claim`: this node does not own the VIP and has no
    /// fault.
    pub(crate) fn probe(&mut self, now: BootNanos, may_claim: bool, out: &mut Vec<Action>) {
        if may_claim && self.probes_left > 0 && now >= self.next {
            self.probes_left -= 1;
            self.next = now.after(PROBE_INTERVAL);
            out.push(Action::ProbeAddress);
        }
    }

    /// Sends the owner's probes, and ends claims that are not repeated any more.
    pub(crate) fn watch(&mut self, now: BootNanos, situation: &Situation, out: &mut Vec<Action>) {
        let is_over = |claim: &mut Claim| {
            let lapsed = now >= claim.last.after(LAPSE);
            lapsed || claim.by.node().is_some_and(|node| situation.hears(node))
        };
        for claim in self.claims.extract_if(.., is_over) {
            report_end(claim, out);
        }
        let is_over = |rival: Rival| now >= rival.last.after(LAPSE);
        if !situation.is_owner || self.rival.is_some_and(is_over) {
            self.forget_rival(out);
        }
        if situation.is_owner && self.asks && now >= self.watch {
            self.asked += 1;
            // From three to five quarters of the interval, so that nodes do not probe in step.
            let jitter = mix(self.seed, self.asked) % 512;
            let wait = WATCH_INTERVAL * 3 / 4 + WATCH_INTERVAL * jitter as u32 / 1024;
            self.watch = now.after(wait);
            out.push(Action::ProbeAddress);
        }
    }

    /// When a backup may claim the VIP at the earliest; `None` while probes are still to be sent.
    pub(crate) fn claim_allowed(&self) -> Option<BootNanos> {
        (self.probes_left == 0).then_some(self.next)
    }

    /// When the next probe before a claim is due; `None` if all were sent.
    pub(crate) fn next_probe(&self) -> Option<BootNanos> {
        (self.probes_left > 0).then_some(self.next)
    }

    /// When the owner's next probe is due; `None` if probes are off.
    pub(crate) fn next_watch(&self) -> Option<BootNanos> {
        self.asks.then_some(self.watch)
    }

    /// When the first claim is over, unless it is repeated before; `None` if there is none.
    pub(crate) fn next_lapse(&self) -> Option<BootNanos> {
        let claims = self.claims.iter().map(|claim| claim.last);
        let rival = self.rival.map(|rival| rival.last);
        let first = claims.chain(rival).min()?;
        Some(first.after(LAPSE))
    }

    /// Keeps a claim. Returns whether it is a new one, or of another claimant.
    fn note(&mut self, claim: Claim, out: &mut Vec<Action>) -> bool {
        let claims = &mut self.claims;
        if let Some(known) = claims.iter_mut().find(|known| known.mac == claim.mac) {
            let before = std::mem::replace(known, claim);
            return before.by != claim.by;
        }
        claims.push(claim);
        if claims.len() > MAX_CLAIMS
            && let Some(oldest) = (0..claims.len()).min_by_key(|place| claims[*place].last)
        {
            report_end(claims.remove(oldest), out);
        }
        true
    }

    /// Another node answers for the VIP, which this one owns. So one of the two, or neither,
    /// receives the other's advertisements.
    fn on_rival(&mut self, now: BootNanos, node: BackendIndex, out: &mut Vec<Action>) {
        let known = self.rival.filter(|known| known.node == node);
        let mut rival = known.unwrap_or(Rival {
            node,
            since: now,
            last: now,
            told: false,
        });
        rival.last = now;
        if !rival.told && now.since(rival.since) >= RIVAL_PATIENCE {
            rival.told = true;
            let present = true;
            out.push(Action::Report(Report::TwoOwners { node, present }));
        }
        if known.is_none() {
            self.forget_rival(out);
        }
        self.rival = Some(rival);
    }

    /// A member was removed. All alarms about it end with it.
    pub(crate) fn remove(&mut self, node: BackendIndex) {
        self.rival = self.rival.filter(|rival| rival.node != node);
    }

    fn forget_rival(&mut self, out: &mut Vec<Action>) {
        if let Some(Rival { node, told, .. }) = self.rival.take()
            && told
        {
            let present = false;
            out.push(Action::Report(Report::TwoOwners { node, present }));
        }
    }
}

fn report_end(Claim { mac, by, .. }: Claim, out: &mut Vec<Action>) {
    let claimant = by;
    out.push(Action::Report(Report::ConflictOver { mac, claimant }));
}

#[cfg(test)]
mod tests;
