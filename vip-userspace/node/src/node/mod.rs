//! The whole node, as far as it decides: who owns the VIP, who lives, who may have connections.
//!
//! It puts three things together. The [VRRP machine](crate::election::vrrp) elects the owner. A [BFD
//! session](crate::bfd) with every other node tells within a few packets that its agent is gone,
//! and so hastens the election. Probes of the API servers and the state of this node's own NIC,
//! programs and addresses decide whether it is fit to be the owner.
//!
//! Pure: the clock is handed in, and all that is to be done comes out as [`Action`]s. The agent
//! and the simulator drive the same code.
//!
//! # The lease
//!
//! The owner answers for the VIP until its lease, and no other node may take over on a time-out
//! before that. There are two time-outs, so the lease is the earlier of two ends: two and a half
//! advertisement intervals after the last advertisement, and half a BFD interval before any peer
//! could miss this node's BFD packets. Both are moved on only by sending what the peers wait
//! for: a node that cannot send, or is not running, loses the VIP in the kernel. Where timers are
//! so long that this is more than [`Params::max_lease`] ahead, the lease goes there in steps: the
//! programs believe none that is far ahead ([`LONGEST_LEASE`]).

mod advert;
mod conflict;
mod event;
mod liveness;
mod transfer;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use vip_common::abi::{BackendIndex, BackendMask, LONGEST_LEASE, MAX_CHECKS, Masks};
use vip_common::wire::addr::Mac;
use vip_common::wire::bfd::{ControlPacket, Diagnostic};
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::{Advertisement, PRIORITY_RESIGNED};

use crate::announce::Schedule;
use crate::bfd::{self, Session};
use crate::choice::{Facts, Resort, choose};
use crate::election::vrrp::{self, Machine, State};
use crate::health::{Health, Probe, Server, Thresholds, Transition};

pub use self::event::*;

use self::liveness::Means;

/// Questions that a silent node may leave unanswered until it is taken for dead.
const ECHOES: u32 = 3;

/// Between questions to a silent node at least. A host answers within a fraction of that.
const ECHO_INTERVAL: Duration = Duration::from_millis(20);

/// RFC 5227, section 2.1.1: probes before an address is used.
const CLAIM_PROBES: u32 = 3;

/// Between them, and from the last one to the claim. The RFC's one to two seconds are for hosts
/// that wait for spanning trees; a control plane must not.
const CLAIM_PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// RFC 5227, section 2.4 (`DEFEND_INTERVAL`): an address is defended no more often.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Before an address that somebody else claims is asked for again.
const CLAIM_RETRY: Duration = Duration::from_secs(1);

/// Between the owner's questions whether somebody else has the VIP, a quarter more or less: a host
/// that has it and says nothing is found by its answer alone.
const WATCH_INTERVAL: Duration = Duration::from_secs(3);

/// A claim that is not repeated for so long is over: the owner has asked three times by then.
const CLAIM_LAPSE: Duration = Duration::from_secs(12);

/// Claims that are kept in mind. More make the oldest one be forgotten.
const MAX_CLAIMS: usize = 8;

/// How long another node may answer for the VIP while this one owns it: in a handover both do for a
/// moment.
const RIVAL_PATIENCE: Duration = Duration::from_millis(2500);

/// How long an owner waits for its successor to speak, beside three advertisement intervals:
/// more than any skew time at an interval of one second, which is keepalived's default.
const HANDOVER_PATIENCE: Duration = Duration::from_millis(1500);

/// What an owner that hands over advertises to all: it is still there, and nobody is worse.
const PRIORITY_HANDING_OVER: u8 = 1;

/// How long at least a node that has just come waits until it has heard from all others that they
/// hear it, and knows all Ethernet addresses. Those that run answer each other within a few BFD
/// packets, whoever began.
const JOINING: Duration = Duration::from_millis(500);

/// [`Params::max_lease`] of an agent.
pub const MAX_LEASE: Duration = Duration::from_secs(4);

const _: () = assert!(MAX_LEASE.as_nanos() < LONGEST_LEASE.as_nanos());

/// How another node is doing, beside what probes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Liveness {
    /// Nothing speaks against it.
    Reachable,
    /// Its agent fell silent. The kernel's echo tells whether the node went with it: an agent
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
        /// Questions asked since the last answer, [`ECHOES`] at most.
        asked: u32,
        /// When to send the next one, or give up.
        next: BootNanos,
    },
    /// Nothing answers.
    Dead,
}

#[derive(Clone, Debug)]
struct Peer {
    session: Option<Session>,
    liveness: Liveness,
    /// Its agent was heard, so that the VIP lies on its `lo`: only then does its stack take what
    /// is steered there. (It stays there when the agent ends.) A node that was dead must be heard
    /// again: it may have booted, and its stack know nothing of the VIP.
    joined: bool,
    /// Frames can be handed on to it.
    located: bool,
    /// When it last fell silent, or was found dead: what was heard before proves nothing since.
    lost: BootNanos,
    /// When it said last that it owns the VIP, or gives it up.
    advert: Option<BootNanos>,
    /// When it is to be asked next while it is well, to see whether it answers.
    exercise: BootNanos,
    /// Whether its kernel answers echo, and ARP or Neighbour Discovery.
    echo: Means,
    neighbour: Means,
}

impl Peer {
    /// When to ask its kernel next; never, if there is nothing to find out.
    fn next_question(&self) -> BootNanos {
        match self.liveness {
            Liveness::Suspect { next, .. } | Liveness::Monitored { next, .. } => next,
            Liveness::Reachable if self.session.as_ref().is_some_and(Session::is_up) => {
                self.exercise
            }
            Liveness::Reachable | Liveness::Dead => BootNanos(u64::MAX),
        }
    }
}

/// The owner's way out.
#[derive(Clone, Copy, Debug)]
enum Transfer {
    /// None: it stays.
    None,
    /// It asks this node to take over, until then.
    Handover { to: BackendIndex, until: BootNanos },
    /// It has resigned and answers until somebody else does, or until then.
    Leaving { until: BootNanos, next: BootNanos },
    /// It has left.
    Left,
}

/// Looking for somebody else who has the VIP.
#[derive(Clone, Debug)]
struct Claims {
    /// ARP probes still to send before the VIP may be claimed.
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
    made: Vec<Claim>,
    /// The other node that answers for the VIP while this one owns it.
    rival: Option<Rival>,
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

/// Who owns the VIP, as far as a node hears.
#[derive(Clone, Copy, Debug)]
struct Owner {
    index: BackendIndex,
    priority: u8,
    /// Not the owner any more if nothing is heard of it until then.
    until: BootNanos,
}

/// The last other node that said it owns the VIP.
#[derive(Clone, Copy, Debug)]
struct Predecessor {
    index: BackendIndex,
    /// When it said so last.
    heard: BootNanos,
    /// When it gave the VIP up, if it did.
    resigned: Option<BootNanos>,
}

/// Who resigned last, and has not said that it stays after all.
#[derive(Clone, Copy, Debug)]
struct Resigned {
    index: BackendIndex,
    /// So long it may go on speaking to others, as one that hands over does.
    until: BootNanos,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    params: Params,
    machine: Machine,
    /// By backend index; `None` for this node itself.
    peers: Vec<Option<Peer>>,
    health: Health,
    /// Nodes that take no new connections, as far as this one knows. Of one whose agent is
    /// silent, what it said last.
    draining: BackendMask,
    schedule: Schedule,
    /// Announcements of this node's own addresses.
    own_schedule: Schedule,
    faults: u8,
    masks: Option<Masks>,
    /// Where new connections go, by each check, as it was last reported.
    resorts: [Resort; MAX_CHECKS],
    /// It has just come, and does not know the others yet: so long at most.
    joining: Option<BootNanos>,
    answer_until: BootNanos,
    /// The best owner that is heard. (There are two where a segment has fallen apart.)
    owner: Option<Owner>,
    /// Who was last reported to be it.
    reported: Option<BackendIndex>,
    predecessor: Option<Predecessor>,
    /// And the one before, whose end is told when the later one speaks.
    predecessor_before: Option<Predecessor>,
    resigned: Option<Resigned>,
    transfer: Transfer,
    claims: Claims,
    started: bool,
    /// Kept to save an allocation with each BFD packet.
    bfd: Vec<bfd::Action>,
}

impl Node {
    /// A node that has not started.
    #[must_use]
    pub fn new(params: Params) -> Self {
        let own = params.nodes[params.own.get()];
        let peers = (0..params.nodes.len()).map(|index| {
            (index != params.own.get()).then(|| Peer {
                session: params.bfd.map(|bfd| {
                    let seed = mix(params.seed, index as u64);
                    let discriminator =
                        NonZeroU32::new((seed >> 32) as u32).unwrap_or(NonZeroU32::MIN);
                    Session::new(bfd, discriminator, seed)
                }),
                liveness: Liveness::Reachable,
                // Without BFD there is nothing to hear it by.
                joined: params.bfd.is_none(),
                located: false,
                exercise: BootNanos::ZERO,
                echo: Means::default(),
                neighbour: Means::default(),
                lost: BootNanos::ZERO,
                advert: None,
            })
        });
        Self {
            machine: Machine::new(vrrp::Params {
                address: own.address,
                priority: own.priority,
                interval: params.vrrp.interval,
                preempt: params.vrrp.preempt,
                preempt_delay: params.vrrp.preempt_delay,
            }),
            peers: peers.collect(),
            health: Health::new(params.nodes.len(), params.checks, params.thresholds),
            draining: BackendMask::EMPTY,
            schedule: Schedule::default(),
            own_schedule: Schedule::default(),
            faults: 0,
            masks: None,
            resorts: [Resort::default(); MAX_CHECKS],
            joining: None,
            answer_until: BootNanos::ZERO,
            owner: None,
            reported: None,
            predecessor: None,
            predecessor_before: None,
            resigned: None,
            transfer: Transfer::None,
            claims: Claims {
                probes_left: if params.probe_address {
                    CLAIM_PROBES
                } else {
                    0
                },
                next: BootNanos::ZERO,
                defended: None,
                watch: BootNanos::ZERO,
                asked: 0,
                made: Vec::new(),
                rival: None,
            },
            started: false,
            bfd: Vec::new(),
            params,
        }
    }

    /// Starts it. `lease` is the one that lies in the map: where it ends ahead of `now`, an
    /// agent before this one owned the VIP until a moment ago, and this one goes on. `known` is
    /// the health that an agent before this one has left in the map. (A lease further ahead than
    /// [`Params::max_lease`] was no agent's.)
    pub fn on_start(
        &mut self,
        now: BootNanos,
        answer_until: BootNanos,
        known: Masks,
        out: &mut Vec<Action>,
    ) {
        self.started = true;
        let answer_until = if answer_until > now.after(self.params.max_lease) {
            BootNanos::ZERO
        } else {
            answer_until
        };
        if let Some(bfd) = self.params.bfd
            && known.alive.is_empty()
        {
            self.joining = Some(now.after(JOINING.max(bfd.interval * 10)));
        }
        self.remember(known, out);
        for index in self.others() {
            if let Some(peer) = self.peer_mut(index) {
                peer.joined |= known.alive.contains(index);
                if peer.joined && peer.session.is_some() {
                    // It may have died, or only its agent, while nobody looked.
                    peer.liveness = Liveness::Monitored {
                        asked: 0,
                        next: now,
                    };
                }
            }
        }
        for index in self.others() {
            self.session(index, out, |session, out| session.on_start(now, out));
        }
        if answer_until > now {
            // It was asked before it was claimed.
            self.claims.probes_left = 0;
        }
        self.claims.next = now;
        if self.faults == 0 {
            let resumes = answer_until > now;
            let actions = self.machine.on_start(now, answer_until);
            self.carry_out(now, Trigger::Start { resumes }, actions, out);
        } else {
            self.set_answer_until(BootNanos::ZERO, out);
        }
        self.settle(now, out);
    }

    /// What an agent before this one knew of draining nodes, and which servers new connections were
    /// brought to.
    fn remember(&mut self, known: Masks, out: &mut Vec<Action>) {
        let all = (0..self.params.nodes.len()).filter_map(BackendIndex::new);
        for index in all.filter(|index| known.alive.contains(*index)) {
            if known.draining.contains(index) {
                self.set_draining(index, true, out);
                continue;
            }
            for check in 0..self.health.checks() {
                let usable = known.new_connections[check].contains(index);
                self.health.remember(index, check, usable);
            }
        }
    }

    /// Something happened.
    pub fn on_event(&mut self, now: BootNanos, event: Event<'_>, out: &mut Vec<Action>) {
        self.wake(now, out);
        match event {
            Event::Advert { source, advert } => self.on_advert(now, source, advert, out),
            Event::Bfd { source, packet } => {
                self.session(source, out, |session, out| {
                    session.on_packet(now, packet, out);
                });
                self.on_sessions(now, source, out);
                if let Some(draining) = self.bfd(source).and_then(Session::remote_path_down) {
                    self.set_draining(source, draining, out);
                }
            }
            Event::Echo(index) => self.on_answer(now, index, true, out),
            Event::Neighbour(index) => self.on_answer(now, index, false, out),
            Event::Located(index) => {
                if let Some(peer) = self.peer_mut(index) {
                    peer.located = true;
                }
            }
            Event::Probe(index, check, probe) => {
                let probe = self.dated(index, probe);
                if probe != Probe::Silent {
                    self.answers(now, index, out);
                }
                for transition in self.health.on_probe(index, check, probe) {
                    out.push(Action::Report(Report::Health(index, check, transition)));
                }
                self.conclude(now, index, out);
                self.set_priority(out);
            }
            Event::Drain(draining) => {
                for index in self.others() {
                    self.session(index, out, |session, out| {
                        session.set_path_down(now, draining, out);
                    });
                }
                self.set_draining(self.params.own, draining, out);
                self.set_priority(out);
            }
            Event::Fault(fault, present) => self.on_fault(now, fault, present, out),
            Event::Claim { mac, node, agent } => self.on_claim(now, mac, node, agent, out),
            Event::Moved => self.on_moved(now),
            Event::Handover(to) => self.on_handover(now, to, out),
            Event::Shutdown => self.on_shutdown(now, out),
        }
        self.settle(now, out);
    }

    /// To be called at [`Self::next_deadline`] or later. Earlier calls do nothing.
    ///
    /// Whatever waits in sockets is to be handed in first: what came in time must not count as
    /// missing because this node was late.
    pub fn on_timer(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        self.wake(now, out);
        let mut next_packet = None;
        for index in self.others() {
            let due = |session: &Session| session.next_deadline() <= now;
            if self.bfd(index).is_some_and(due) {
                self.session(index, out, |session, out| {
                    let sends = session.next_packet() <= now;
                    session.on_timer(now, out);
                    if sends {
                        next_packet = Some(session.next_packet());
                    }
                });
                self.on_sessions(now, index, out);
            }
            self.ask(now, index, out);
        }
        if let Some(next) = next_packet {
            // One wake-up for the packets to all peers, and one move of the lease.
            for index in self.others() {
                self.session(index, out, |session, out| {
                    session.coalesce_tx(now, next, out);
                });
            }
        }
        self.probe_address(now, out);
        self.watch_address(now, out);
        if now >= self.next_claim() {
            let actions = self.machine.on_timer(now);
            self.carry_out(now, Trigger::Time, actions, out);
        }
        self.leave(now, out);
        self.settle(now, out);
    }

    /// An owner that comes back after its lease has ended was away, and steps down before
    /// anything else: what it does next must not move the lease on.
    fn wake(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if self.machine.state() == State::Active && now >= self.answer_until {
            let actions = self.machine.on_timer(now);
            self.carry_out(now, Trigger::Time, actions, out);
        }
    }

    /// When to call [`Self::on_timer`], unless something happens before.
    #[must_use]
    pub fn next_deadline(&self) -> BootNanos {
        if !self.started {
            return BootNanos(u64::MAX);
        }
        let mut deadline = self.next_claim();
        let mut earliest = |at: BootNanos| deadline = deadline.min(at);
        if let Some(until) = self.joining {
            earliest(until);
        }
        for peer in self.peers.iter().flatten() {
            if let Some(session) = &peer.session {
                earliest(session.next_deadline());
            }
            earliest(peer.next_question());
        }
        if let Some(until) = self.machine.answer_until() {
            earliest(if self.answer_until < until {
                self.renewal()
            } else {
                self.answer_until
            });
            if let Some(at) = self.schedule.deadline() {
                earliest(at);
            }
            if self.params.probe_address {
                earliest(self.claims.watch);
            }
        } else if self.claims.probes_left > 0 && self.faults == 0 {
            earliest(self.claims.next);
        }
        if let Some(at) = self.own_schedule.deadline() {
            earliest(at);
        }
        if let Some(at) = self.next_lapse() {
            earliest(at);
        }
        match self.transfer {
            Transfer::None | Transfer::Left => {}
            Transfer::Handover { until, .. } => earliest(until),
            Transfer::Leaving { until, next } => {
                earliest(until);
                earliest(next);
            }
        }
        deadline
    }

    /// What VRRP says this node is.
    #[must_use]
    pub fn state(&self) -> State {
        self.machine.state()
    }

    /// The priority in force.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.machine.priority()
    }

    /// Who owns the VIP, as far as this node knows.
    #[must_use]
    pub fn owner(&self) -> Option<BackendIndex> {
        self.owner.map(|owner| owner.index)
    }

    /// Until when this node answers for the VIP.
    #[must_use]
    pub fn answer_until(&self) -> BootNanos {
        self.answer_until
    }

    /// Health as the packet path sees it.
    #[must_use]
    pub fn masks(&self) -> Masks {
        self.masks.unwrap_or_else(|| self.overlay().0)
    }

    /// The BFD session with a node, if there is to be one.
    #[must_use]
    pub fn bfd(&self, index: BackendIndex) -> Option<&Session> {
        self.peer(index)?.session.as_ref()
    }

    /// When a node's last advertisement came, if one did.
    #[must_use]
    pub fn advert(&self, index: BackendIndex) -> Option<BootNanos> {
        self.peer(index)?.advert
    }

    /// What keeps this node from owning the VIP.
    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        let faults = self.faults;
        Fault::ALL
            .into_iter()
            .filter(move |fault| faults & fault.bit() != 0)
    }

    /// Whether it has left for good.
    #[must_use]
    pub fn has_left(&self) -> bool {
        matches!(self.transfer, Transfer::Left)
    }

    fn others(&self) -> impl Iterator<Item = BackendIndex> + use<> {
        let own = self.params.own;
        (0..self.params.nodes.len())
            .filter_map(BackendIndex::new)
            .filter(move |index| *index != own)
    }

    fn peer(&self, index: BackendIndex) -> Option<&Peer> {
        self.peers.get(index.get())?.as_ref()
    }

    fn peer_mut(&mut self, index: BackendIndex) -> Option<&mut Peer> {
        self.peers.get_mut(index.get())?.as_mut()
    }

    /// When the election's own timer fires: for a backup not before it may claim the VIP.
    fn next_claim(&self) -> BootNanos {
        let deadline = self.machine.next_deadline();
        match self.machine.state() {
            State::Initialize => BootNanos(u64::MAX),
            State::Active => deadline,
            State::Backup if self.claims.probes_left > 0 => BootNanos(u64::MAX),
            State::Backup => deadline.max(self.claims.next).after(self.turn()),
        }
    }

    /// Drives one BFD session and carries out what it says, its ups and downs excepted: see
    /// [`Self::on_sessions`].
    fn session(
        &mut self,
        index: BackendIndex,
        out: &mut Vec<Action>,
        drive: impl FnOnce(&mut Session, &mut Vec<bfd::Action>),
    ) {
        let Some(Some(Peer {
            session: Some(session),
            ..
        })) = self.peers.get_mut(index.get())
        else {
            return;
        };
        drive(session, &mut self.bfd);
        out.extend(
            self.bfd
                .extract_if(.., |action| matches!(action, bfd::Action::Send(_)))
                .filter_map(|action| match action {
                    bfd::Action::Send(packet) => Some(Action::SendBfd { to: index, packet }),
                    bfd::Action::Up | bfd::Action::Down(_) => None,
                }),
        );
    }

    /// Whether nothing speaks against new connections to the API there, as far as a node's server and
    /// its operator go.
    fn is_usable(&self, index: BackendIndex) -> bool {
        let unasked = self.health.all_unasked(0).contains(index);
        (unasked || self.health.usable(index, 0)) && !self.draining.contains(index)
    }

    /// What is known of a node's server, by one of the checks.
    #[must_use]
    pub fn server(&self, index: BackendIndex, check: usize) -> Server {
        self.health.server(index, check)
    }

    /// Where new connections go, by one of the checks.
    #[must_use]
    pub fn resort(&self, check: usize) -> Resort {
        self.resorts.get(check).copied().unwrap_or_default()
    }

    /// Whether a node's kernel answers ICMP echo; `None` while that is not known, and for this
    /// node.
    #[must_use]
    pub fn answers_echo(&self, index: BackendIndex) -> Option<bool> {
        self.peer(index)?.echo.answers
    }

    fn set_draining(&mut self, index: BackendIndex, draining: bool, out: &mut Vec<Action>) {
        if self.draining.contains(index) != draining {
            self.draining = self.draining.with(index, draining);
            out.push(Action::Report(Report::Draining(index, draining)));
        }
    }

    /// Whether a node takes no new connections because its operator said so.
    #[must_use]
    pub fn is_draining(&self, index: BackendIndex) -> bool {
        self.draining.contains(index)
    }

    /// The priority follows the node's health. A quarter is less than any healthy node's among
    /// the first seven.
    fn set_priority(&mut self, out: &mut Vec<Action>) {
        let base = self.params.nodes[self.params.own.get()].priority;
        let wanted = priority(base, self.is_usable(self.params.own));
        if wanted != self.machine.priority() {
            self.machine.set_priority(wanted);
            out.push(Action::Report(Report::Priority(wanted)));
        }
    }

    fn on_fault(&mut self, now: BootNanos, fault: Fault, present: bool, out: &mut Vec<Action>) {
        let before = self.faults;
        if present {
            self.faults |= fault.bit();
        } else {
            self.faults &= !fault.bit();
        }
        if before == self.faults {
            return;
        }
        out.push(Action::Report(Report::Fault(fault, present)));
        if !self.started || !matches!(self.transfer, Transfer::None | Transfer::Handover { .. }) {
            return;
        }
        if before == 0 {
            self.transfer = Transfer::None;
            let actions = self.machine.on_shutdown();
            self.carry_out(now, Trigger::Loss(Loss::Fault(fault)), actions, out);
        } else if self.faults == 0 {
            let actions = self.machine.on_start(now, BootNanos::ZERO);
            let resumes = false;
            self.carry_out(now, Trigger::Start { resumes }, actions, out);
        }
    }

    fn carry_out(
        &mut self,
        now: BootNanos,
        trigger: Trigger,
        actions: impl IntoIterator<Item = vrrp::Action>,
        out: &mut Vec<Action>,
    ) {
        for action in actions {
            match action {
                vrrp::Action::RenewLease { .. } => {
                    if let Some(limit) = self.patience() {
                        self.machine.limit_lease(limit);
                    }
                    // Set below, once for all that happens now.
                }
                vrrp::Action::EndLease => self.set_answer_until(BootNanos::ZERO, out),
                vrrp::Action::SendAdvert { priority } => {
                    let to = To::All;
                    match self.transfer {
                        Transfer::None | Transfer::Left => {
                            out.push(Action::SendAdvert { to, priority });
                        }
                        Transfer::Handover { to: successor, .. } => {
                            // Still here for all others, and no reason for the successor to
                            // yield, who is asked again: packets get lost.
                            let priority = PRIORITY_HANDING_OVER;
                            out.push(Action::SendAdvert { to, priority });
                            out.push(Action::SendAdvert {
                                to: To::One(successor),
                                priority: PRIORITY_RESIGNED,
                            });
                        }
                        // It resigns again and again instead: see `leave`.
                        Transfer::Leaving { .. } => {}
                    }
                }
                vrrp::Action::BecomeActive => {
                    let takeover = self.takeover(now, trigger);
                    out.push(Action::Report(Report::Active(takeover)));
                    self.predecessor = None;
                    self.schedule.begin(now);
                    self.claims.watch = now;
                }
                vrrp::Action::BecomeBackup => {
                    out.push(Action::Report(Report::Backup(trigger.loss())));
                    self.schedule.end();
                }
            }
        }
    }

    /// When the first peer could miss this node's BFD packets, less half an interval: for the
    /// clocks, which are not the same, and for the time that packets take.
    fn patience(&self) -> Option<BootNanos> {
        let margin = self.params.bfd?.interval / 2;
        let sessions = self
            .peers
            .iter()
            .flatten()
            .filter_map(|peer| peer.session.as_ref());
        let first = sessions
            .filter_map(Session::remote_detection_deadline)
            .min()?;
        Some(BootNanos(first.0.saturating_sub(margin.as_nanos() as u64)))
    }

    /// When a lease is renewed that does not go as far as it might.
    fn renewal(&self) -> BootNanos {
        let half = self.params.max_lease.as_nanos() as u64 / 2;
        BootNanos(self.answer_until.0.saturating_sub(half))
    }

    /// Moves the lease towards its end by the election, in steps if that is far ahead.
    fn renew_lease(&mut self, now: BootNanos, until: BootNanos, out: &mut Vec<Action>) {
        let furthest = now.after(self.params.max_lease);
        if until <= furthest {
            self.set_answer_until(until, out);
        } else if self.renewal() <= now {
            self.set_answer_until(furthest, out);
        }
    }

    fn set_answer_until(&mut self, until: BootNanos, out: &mut Vec<Action>) {
        if self.answer_until != until {
            self.answer_until = until;
            out.push(Action::SetAnswerUntil(until));
        }
    }

    /// Brings lease, masks and the owner's name in line with what was decided.
    fn settle(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if let Some(limit) = self.patience() {
            self.machine.limit_lease(limit);
        } else {
            self.machine.limit_lease(BootNanos(u64::MAX));
        }
        if let Some(until) = self.machine.answer_until() {
            self.renew_lease(now, until, out);
        }
        if self
            .joining
            .is_some_and(|until| now >= until || self.knows_all())
        {
            self.joining = None;
        }
        let (masks, resorts) = self.overlay();
        let before = std::mem::replace(&mut self.resorts, resorts);
        for (check, (before, resort)) in before.into_iter().zip(resorts).enumerate() {
            if before != resort {
                out.push(Action::Report(Report::NewConnections(check, resort)));
            }
        }
        if self.masks != Some(masks) {
            self.masks = Some(masks);
            out.push(Action::SetMasks(masks));
        }
        self.owner = match self.machine.state() {
            State::Active => Some(Owner {
                index: self.params.own,
                priority: self.machine.priority(),
                until: BootNanos(u64::MAX),
            }),
            // One that lacks something hears who the owner is.
            State::Backup | State::Initialize => self
                .owner
                .filter(|owner| owner.index != self.params.own && now < owner.until),
        };
        let (owner, own) = (self.owner(), self.params.own);
        // One that leaves does not listen any more: whom it does not hear may well be there.
        let leaves = matches!(self.transfer, Transfer::Leaving { .. } | Transfer::Left);
        if owner != self.reported && (owner.is_some() || !leaves) {
            let before = self.reported.filter(|before| *before != own);
            self.reported = owner;
            // That it is the owner itself was told with more about it.
            if owner != Some(own) {
                out.push(Action::Report(Report::Owner {
                    owner,
                    before: before.map(|before| (before, self.departure(now, before))),
                }));
            }
        }
        // This node's own address first: the others know the VIP's announcements by it.
        if self.own_schedule.due(now) {
            out.push(Action::AnnounceOwn);
            if self.own_schedule.is_past_burst() {
                self.own_schedule.end();
            }
        }
        if self.machine.state() == State::Active && self.schedule.due(now) {
            out.push(Action::Announce);
        }
    }

    /// What hosts and switches know of this node is not so any more.
    fn on_moved(&mut self, now: BootNanos) {
        if !self.started || matches!(self.transfer, Transfer::Left) {
            return;
        }
        self.own_schedule.begin(now);
        if self.machine.state() == State::Active {
            self.schedule.begin(now);
        }
    }
}

/// What the election acts upon.
#[derive(Clone, Copy, Debug)]
enum Trigger {
    /// The node starts, or lacks nothing any more.
    Start {
        /// The lease of an agent before this one still stands.
        resumes: bool,
    },
    /// Time has passed.
    Time,
    /// Something that an owner loses the VIP by.
    Loss(Loss),
}

impl Trigger {
    /// Why the node is a backup after it.
    fn loss(self) -> Loss {
        match self {
            Self::Start { .. } => Loss::Started,
            // An owner's time does not run out, unless it does not run itself.
            Self::Time => Loss::Overslept,
            Self::Loss(loss) => loss,
        }
    }
}

/// The priority of a node whose own API server may be used, or may not.
fn priority(base: u8, usable: bool) -> u8 {
    if usable { base } else { (base / 4).max(1) }
}

/// A number of its own for each peer.
fn mix(seed: u64, index: u64) -> u64 {
    let mixed =
        (seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests;
