//! Detection of address conflicts (RFC 5227): the questions before the VIP is claimed, those of its
//! owner, which find whoever has it and says nothing, and the claims of others than agents.

use std::time::Duration;

use vip_common::abi::{BackendIndex, BackendMask};
use vip_common::wire::addr::Mac;
use vip_common::wire::time::BootNanos;

use crate::action::{Action, Claimant, Report};
use crate::input::Params;
use crate::random::mix;

/// RFC 5227, section 2.1.1: probes before an address is used.
const PROBES: u32 = 3;

/// Between them, and from the last one to the claim. The RFC's one to two seconds are for hosts
/// that wait for spanning trees; a control plane must not.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// RFC 5227, section 2.4 (`DEFEND_INTERVAL`): an address is defended no more often.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Before an address that somebody else claims is asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// Between the owner's questions whether somebody else has the VIP, a quarter more or less: a host
/// that has it and says nothing is found by its answer alone.
const WATCH_INTERVAL: Duration = Duration::from_secs(3);

/// A claim that is not repeated for so long is over: the owner has asked three times by then.
const LAPSE: Duration = Duration::from_secs(12);

/// Claims that are kept in mind. More make the oldest one be forgotten.
pub(crate) const MAX_CLAIMS: usize = 8;

/// How long another node may answer for the VIP while this one owns it: in a handover both do for a
/// moment.
const RIVAL_PATIENCE: Duration = Duration::from_millis(2500);

/// What a claim is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Situation {
    /// This node owns the VIP.
    pub(crate) is_owner: bool,
    /// It stays the owner: it neither hands over nor leaves.
    pub(crate) stays: bool,
    /// Who owns the VIP, as far as is known.
    pub(crate) owner: Option<BackendIndex>,
    /// Nodes whose agents are heard. What such a node says of the VIP is said by its agent: its
    /// programs let nobody else speak.
    pub(crate) heard: BackendMask,
    /// When the owner, if there is one among the agents, must have been heard. Before that, a node
    /// that says it has the VIP may well be right.
    pub(crate) owner_known_at: BootNanos,
}

impl Situation {
    fn hears(&self, node: BackendIndex) -> bool {
        self.owner == Some(node) || self.heard.contains(node)
    }
}

/// A claim of the VIP by somebody who is no agent that is heard.
#[derive(Clone, Copy, Debug)]
struct Claim {
    mac: Mac,
    by: Claimant,
    /// When it was made last.
    last: BootNanos,
}

/// Another node that answers for the VIP while this one owns it.
#[derive(Clone, Copy, Debug)]
struct Rival {
    node: BackendIndex,
    since: BootNanos,
    last: BootNanos,
    /// Whether that was reported.
    told: bool,
}

/// Looks for somebody else who has the VIP.
#[derive(Clone, Debug)]
pub(crate) struct Conflicts {
    /// Whether the segment is asked at all.
    asks: bool,
    /// Makes the pauses between questions this node's own.
    seed: u64,
    /// Probes still to send before the VIP may be claimed.
    probes_left: u32,
    /// When the next one is due, or the claim allowed.
    next: BootNanos,
    /// When the VIP was last defended.
    defended: Option<BootNanos>,
    /// When the owner asks again whether somebody else has the VIP.
    watch: BootNanos,
    /// How often it has asked.
    asked: u64,
    /// Who claims the VIP, [`MAX_CLAIMS`] at most, until that is over.
    claims: Vec<Claim>,
    rival: Option<Rival>,
}

impl Conflicts {
    /// Nobody has claimed the VIP, and nobody was asked.
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

    /// The agent starts. `resumes`: an agent before it owned the VIP a moment ago, and had asked.
    pub(crate) fn on_start(&mut self, now: BootNanos, resumes: bool) {
        if resumes {
            self.probes_left = 0;
        }
        self.next = now;
    }

    /// A node of the cluster owns the VIP: nobody else needs to be asked.
    pub(crate) fn on_owner(&mut self, now: BootNanos) {
        self.probes_left = 0;
        self.next = now;
    }

    /// This node has become the owner.
    pub(crate) fn on_takeover(&mut self, now: BootNanos) {
        self.watch = now;
    }

    /// Somebody says that it has the VIP: the other node, if it is one, which may run an `agent`.
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
            // It has not been claimed yet, and will not be while somebody else has it.
            self.probes_left = PROBES;
            self.next = now.after(RETRY);
        }
        let by = match (node, situation.owner) {
            (None, _) => Claimant::Stranger,
            (Some(node), Some(owner)) if agent => Claimant::Unheard { node, owner },
            // It may be the owner, and a firewall hide it: that it is not heard is told with more
            // about it.
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

    /// Asks the segment for the VIP before it is claimed. `may_claim`: this node does not own it,
    /// and nothing keeps it from doing so.
    pub(crate) fn probe(&mut self, now: BootNanos, may_claim: bool, out: &mut Vec<Action>) {
        if may_claim && self.probes_left > 0 && now >= self.next {
            self.probes_left -= 1;
            self.next = now.after(PROBE_INTERVAL);
            out.push(Action::ProbeAddress);
        }
    }

    /// Asks now and then whether somebody else has the VIP that this node owns, and forgets who does
    /// not answer any more.
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
            // Not in step with anybody else's: from three quarters of the interval on.
            let jitter = mix(self.seed, self.asked) % 512;
            let wait = WATCH_INTERVAL * 3 / 4 + WATCH_INTERVAL * jitter as u32 / 1024;
            self.watch = now.after(wait);
            out.push(Action::ProbeAddress);
        }
    }

    /// When a backup may claim the VIP at the earliest; `None` while the segment is still to be
    /// asked.
    pub(crate) fn claim_allowed(&self) -> Option<BootNanos> {
        (self.probes_left == 0).then_some(self.next)
    }

    /// When to ask the segment next before a claim; `None` if it has been asked.
    pub(crate) fn next_probe(&self) -> Option<BootNanos> {
        (self.probes_left > 0).then_some(self.next)
    }

    /// When the owner asks next; `None` if it never does.
    pub(crate) fn next_watch(&self) -> Option<BootNanos> {
        self.asks.then_some(self.watch)
    }

    /// When a claim is over, unless it is repeated before.
    pub(crate) fn next_lapse(&self) -> Option<BootNanos> {
        let claims = self.claims.iter().map(|claim| claim.last);
        let rival = self.rival.map(|rival| rival.last);
        let first = claims.chain(rival).min()?;
        Some(first.after(LAPSE))
    }

    /// Keeps a claim in mind. Returns whether it is news.
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

    /// Another node answers for the VIP, which this one owns, too: only one of the two hears the
    /// other's advertisements, or neither does.
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
