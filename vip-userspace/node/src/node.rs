//! The whole node, as far as it decides: who owns the VIP, who lives, who may have connections.
//!
//! It puts the parts together. The [election](crate::election) makes one node the owner. BFD sessions
//! and questions to the kernels tell who [lives](crate::liveness); a node whose agent is gone is found
//! within a few packets, which hastens the election. Probes of the API servers decide who is
//! [selected](crate::selection) for connections. [Faults](crate::faults) of this node's own NIC,
//! programs and addresses keep it from owning the VIP.
//!
//! Pure: the clock is handed in, and all that is to be done comes out as [`Action`]s. The agent
//! and the simulator drive the same code.

use std::time::Duration;

use vip_common::abi::{BackendIndex, BackendMask, Masks};
use vip_common::wire::bfd::Diagnostic;
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::{Advertisement, PRIORITY_RESIGNED};

use crate::action::{Action, Loss, NoDrain, NoHandover, Report, To};
use crate::announce::Schedule;
use crate::bfd::{self, Session};
use crate::choice::Resort;
use crate::conflict::{Conflicts, Situation};
use crate::election::{self, Election, State, priority};
use crate::faults::{Fault, Faults};
use crate::health::{Probe, Server};
use crate::input::{Input, Params};
use crate::liveness::{self, Liveness};
use crate::membership::Membership;
use crate::ownership::Ownership;
use crate::selection::Selection;
use crate::transfer::{Advertising, Due, PRIORITY_HANDING_OVER, Transfer};
use crate::view::View;

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    bfd: Option<bfd::Params>,
    members: Membership,
    liveness: Liveness,
    selection: Selection,
    election: Election,
    ownership: Ownership,
    conflicts: Conflicts,
    transfer: Transfer,
    faults: Faults,
    /// Announcements of the VIP.
    schedule: Schedule,
    /// Announcements of this node's own addresses.
    own_schedule: Schedule,
    started: bool,
    /// Kept to save an allocation with each input.
    events: Vec<liveness::Event>,
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

impl Node {
    /// A node that has not started.
    #[must_use]
    pub fn new(params: &Params) -> Self {
        Self {
            bfd: params.bfd,
            members: Membership::new(params),
            liveness: Liveness::new(params),
            selection: Selection::new(params),
            election: Election::new(params),
            ownership: Ownership::new(params),
            conflicts: Conflicts::new(params),
            transfer: Transfer::new(params.vrrp.interval.duration()),
            faults: Faults::default(),
            schedule: Schedule::default(),
            own_schedule: Schedule::default(),
            started: false,
            events: Vec::new(),
        }
    }

    /// Starts it. `answer_until` is the lease that lies in the map: where it ends ahead of `now`, an
    /// agent before this one owned the VIP until a moment ago, and this one goes on. `known` is
    /// the health that an agent before this one has left in the map. (A lease that ends further ahead
    /// than [`Params::max_lease`] was no agent's.)
    pub fn on_start(
        &mut self,
        now: BootNanos,
        answer_until: BootNanos,
        known: Masks,
        out: &mut Vec<Action>,
    ) {
        self.started = true;
        let answer_until = self.election.believable(now, answer_until);
        let resumes = answer_until > now;
        self.members.on_start(now, known.alive);
        for index in self
            .members
            .all()
            .filter(|index| known.alive.contains(*index))
        {
            self.selection.remember(index, &known, out);
        }
        self.live(now, out, |liveness, members, out| {
            liveness.on_start(now, members, out);
        });
        self.conflicts.on_start(now, resumes);
        if self.faults.is_empty() {
            let actions = self.election.on_start(now, answer_until);
            self.carry_out(now, Trigger::Start { resumes }, actions, out);
        } else {
            self.end_lease(out);
        }
        self.settle(now, out);
    }

    /// Something happened.
    pub fn on_input(&mut self, now: BootNanos, input: Input, out: &mut Vec<Action>) {
        self.wake(now, out);
        match input {
            Input::Advert { source, advert } => self.on_advert(now, source, &advert, out),
            Input::Bfd { source, packet } => {
                self.live(now, out, |liveness, members, out| {
                    liveness.on_packet(now, members, source, &packet, out);
                });
                let drains = self.bfd(source).and_then(Session::remote_path_down);
                if let Some(draining) = drains {
                    self.selection.set_draining(source, draining, out);
                }
            }
            Input::Echo(node) => self.live(now, out, |liveness, members, out| {
                liveness.on_echo(now, members, node, out);
            }),
            Input::Neighbor(node) => self.live(now, out, |liveness, members, out| {
                liveness.on_neighbor(now, members, node, out);
            }),
            Input::Located(node) => self.members.locate(node),
            Input::Probe { node, check, found } => self.on_probe(now, node, check, found, out),
            Input::Drain(draining) => {
                self.live(now, out, |liveness, members, out| {
                    liveness.set_path_down(now, members, draining, out);
                });
                self.selection
                    .set_draining(self.members.own(), draining, out);
                self.set_priority(out);
            }
            Input::Fault { fault, present } => self.on_fault(now, fault, present, out),
            Input::Claim { mac, node, agent } => {
                let situation = self.situation();
                self.conflicts
                    .on_claim(now, mac, node, agent, &situation, out);
            }
            Input::Moved => self.on_moved(now),
            Input::Handover(to) => self.on_handover(now, to, out),
            Input::Shutdown => self.on_shutdown(now, out),
        }
        self.settle(now, out);
    }

    /// To be called at [`Self::next_deadline`] or later. Earlier calls do nothing.
    ///
    /// Whatever waits in sockets is to be handed in first: what came in time must not count as
    /// missing because this node was late.
    pub fn on_timer(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        self.wake(now, out);
        let mut events = std::mem::take(&mut self.events);
        let alive = |index| self.selection.is_alive(index);
        self.liveness
            .on_timer(now, &self.members, alive, &mut events);
        self.act_on(now, events, out);
        let may_claim = !self.election.is_owner() && self.faults.is_empty();
        self.conflicts.probe(now, may_claim, out);
        let situation = self.situation();
        self.conflicts.watch(now, &situation, out);
        if now >= self.next_claim() {
            let actions = self.election.on_timer(now);
            self.carry_out(now, Trigger::Time, actions, out);
        }
        self.go_on_with_transfer(now, out);
        self.settle(now, out);
    }

    /// When to call [`Self::on_timer`], unless something happens before.
    #[must_use]
    pub fn next_deadline(&self) -> BootNanos {
        if !self.started {
            return BootNanos(u64::MAX);
        }
        let conflicts = if self.election.is_owner() {
            self.conflicts.next_watch()
        } else {
            let may_claim = self.faults.is_empty();
            self.conflicts.next_probe().filter(|_| may_claim)
        };
        let announcement = self.schedule.deadline();
        let others = [
            self.members.next_deadline(),
            self.election.lease_deadline(),
            announcement.filter(|_| self.election.is_owner()),
            conflicts,
            self.own_schedule.deadline(),
            self.conflicts.next_lapse(),
            self.transfer.next_deadline(),
        ];
        let first = self.next_claim().min(self.liveness.next_deadline());
        others.into_iter().flatten().fold(first, BootNanos::min)
    }

    /// What VRRP says this node is.
    #[must_use]
    pub fn state(&self) -> State {
        self.election.state()
    }

    /// The priority in force.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.election.priority()
    }

    /// Who owns the VIP, as far as this node knows.
    #[must_use]
    pub fn owner(&self) -> Option<BackendIndex> {
        self.ownership.owner()
    }

    /// Until when this node answers for the VIP.
    #[must_use]
    pub fn answer_until(&self) -> BootNanos {
        self.election.answer_until()
    }

    /// Health as the packet path sees it.
    #[must_use]
    pub fn masks(&self) -> Masks {
        self.selection.masks(&self.members, &self.liveness)
    }

    /// The BFD session with a node, if there is to be one.
    #[must_use]
    pub fn bfd(&self, node: BackendIndex) -> Option<&Session> {
        self.liveness.session(node)
    }

    /// When a node's last advertisement came, if one did.
    #[must_use]
    pub fn advert(&self, node: BackendIndex) -> Option<BootNanos> {
        self.ownership.advert(node)
    }

    /// What keeps this node from owning the VIP.
    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        self.faults.iter()
    }

    /// Whether it has left for good.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.transfer.has_left()
    }

    /// What is known of a node's server, by one of the checks.
    #[must_use]
    pub fn server(&self, node: BackendIndex, check: usize) -> Server {
        self.selection.server(node, check)
    }

    /// Where new connections go, by one of the checks.
    #[must_use]
    pub fn resort(&self, check: usize) -> Resort {
        self.selection.resort(check)
    }

    /// Whether a node's kernel answers ICMP echo; `None` while that is not known, and for this
    /// node.
    #[must_use]
    pub fn answers_echo(&self, node: BackendIndex) -> Option<bool> {
        self.liveness.answers_echo(node)
    }

    /// Whether a node takes no new connections because its operator said so.
    #[must_use]
    pub fn is_draining(&self, node: BackendIndex) -> bool {
        self.selection.is_draining(node)
    }

    /// Whether this node may be drained: an error if nobody as good would be left for new
    /// connections, or nobody for the VIP.
    ///
    /// # Errors
    /// Why it is none of the others.
    pub fn may_drain(&self) -> Result<(), NoDrain> {
        self.selection
            .may_drain(&self.members, &self.liveness)
            .map_err(NoDrain::LastUsable)?;
        if self.election.is_owner() && !self.view().has_successor() {
            return Err(NoDrain::LastAgent);
        }
        Ok(())
    }

    /// The parts that decisions about the VIP's owner look at.
    const fn view(&self) -> View<'_> {
        View {
            members: &self.members,
            liveness: &self.liveness,
            selection: &self.selection,
            election: &self.election,
            ownership: &self.ownership,
        }
    }

    /// What a claim of the VIP is judged by.
    fn situation(&self) -> Situation {
        let others = self.members.others();
        let heard = others.filter(|index| self.liveness.is_up(*index));
        Situation {
            is_owner: self.election.is_owner(),
            stays: self.transfer.stays(),
            owner: self.ownership.owner(),
            heard: heard.fold(BackendMask::EMPTY, |set, index| set.with(index, true)),
            owner_known_at: self.election.next_deadline(),
        }
    }

    /// When the election's own timer fires: for a backup not before it may claim the VIP.
    fn next_claim(&self) -> BootNanos {
        const NEVER: BootNanos = BootNanos(u64::MAX);
        let deadline = self.election.next_deadline();
        match (self.election.state(), self.conflicts.claim_allowed()) {
            (State::Initialize, _) | (State::Backup, None) => NEVER,
            (State::Active, _) => deadline,
            (State::Backup, Some(allowed)) => {
                let interval = self.bfd.map(|bfd| bfd.interval);
                deadline
                    .max(allowed)
                    .after(self.view().takeover_delay(interval))
            }
        }
    }

    /// An owner that comes back after its lease has ended was away, and steps down before
    /// anything else: what it does next must not move the lease on.
    fn wake(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if self.election.overslept(now) {
            let actions = self.election.on_timer(now);
            self.carry_out(now, Trigger::Time, actions, out);
        }
    }

    /// Tells [`Liveness`] something, and acts on what comes of it.
    fn live(
        &mut self,
        now: BootNanos,
        out: &mut Vec<Action>,
        tell: impl FnOnce(&mut Liveness, &Membership, &mut Vec<liveness::Event>),
    ) {
        let mut events = std::mem::take(&mut self.events);
        tell(&mut self.liveness, &self.members, &mut events);
        self.act_on(now, events, out);
    }

    fn act_on(&mut self, now: BootNanos, mut events: Vec<liveness::Event>, out: &mut Vec<Action>) {
        for event in events.drain(..) {
            match event {
                liveness::Event::SendBfd { to, packet } => {
                    out.push(Action::SendBfd { to, packet });
                }
                liveness::Event::Ask(node) => {
                    out.extend([Action::SendEcho(node), Action::AskNeighbor(node)]);
                }
                liveness::Event::Up(node) => {
                    self.members.hear(node);
                    out.push(Action::Report(Report::BfdUp(node)));
                    if self.election.is_owner() {
                        // A node has come back, and others with it that heard another owner.
                        self.schedule.repeat(now);
                    }
                }
                liveness::Event::Down { node, diagnostic } => {
                    out.push(Action::Report(Report::BfdDown { node, diagnostic }));
                    if diagnostic == Diagnostic::ControlDetectionTimeExpired {
                        self.on_silence(now, node);
                    }
                }
                liveness::Event::Dead(node) => {
                    self.members.lose(node);
                    out.push(Action::Report(Report::Dead(node)));
                }
                liveness::Event::Answers(node) => out.push(Action::Report(Report::Answers(node))),
                liveness::Event::Echo { node, lost } => {
                    out.push(Action::Report(Report::Echo { node, lost }));
                }
            }
        }
        self.events = events;
    }

    /// A node's BFD packets stay out. If it owned the VIP, a backup need not wait for its
    /// advertisements to stay out, too; but an owner whose advertisements come in is there, whatever
    /// became of its BFD packets.
    fn on_silence(&mut self, now: BootNanos, node: BackendIndex) {
        let (Some(bfd), Some(silent)) = (self.bfd, self.members.member(node)) else {
            return;
        };
        let heard = self.election.heard().unwrap_or(now);
        let detection: Duration = bfd.interval * u32::from(bfd.detect_mult.get());
        if self.election.waits_for() == Some(silent.address) && now.since(heard) >= detection / 2 {
            self.election.hasten(now);
        }
    }

    fn on_probe(
        &mut self,
        now: BootNanos,
        node: BackendIndex,
        check: usize,
        found: Probe,
        out: &mut Vec<Action>,
    ) {
        let found = self.liveness.dated(node, found);
        if !found.is_silent() {
            self.live(now, out, |liveness, members, out| {
                liveness.on_sign_of_life(now, members, node, out);
            });
        }
        for change in self.selection.on_probe(node, check, found) {
            out.push(Action::Report(Report::Health {
                node,
                check,
                change,
            }));
        }
        let alive = self.selection.is_alive(node);
        self.live(now, out, |liveness, _, out| {
            liveness.conclude(now, node, alive, out);
        });
        self.set_priority(out);
    }

    fn on_advert(
        &mut self,
        now: BootNanos,
        source: BackendIndex,
        advert: &Advertisement,
        out: &mut Vec<Action>,
    ) {
        let Some(address) = self.members.member(source).map(|member| member.address) else {
            return;
        };
        let resigns = advert.priority == PRIORITY_RESIGNED;
        let resigned_before = self.ownership.has_resigned(now, source);
        self.follow(now, source, advert);
        if self.transfer.has_left() {
            return;
        }
        if self.transfer.is_leaving() {
            if !resigns {
                // The next owner has spoken.
                out.push(Action::Report(Report::HandedOver(source)));
                self.go(out);
            }
            return;
        }
        // Whoever speaks: it may also be the owner of the other part of a segment that has
        // come together again.
        if self.transfer.hands_over() && !resigns {
            self.transfer.stay();
            let actions = self.election.yield_to(now, address, advert.interval);
            out.push(Action::Report(Report::HandedOver(source)));
            let trigger = Trigger::Loss(Loss::HandedOver(source));
            self.carry_out(now, trigger, actions, out);
            self.ownership.forget();
            self.follow(now, source, advert);
            return;
        }
        // One that leaves or hands over says so again and again, and to others that it is still
        // there. That is no reason to wait any longer.
        if resigned_before && advert.priority <= PRIORITY_HANDING_OVER {
            return;
        }
        if !resigns {
            self.conflicts.on_owner(now);
        }
        let was_owner = self.election.is_owner();
        let own = self.members.own();
        let unfit = self.selection.is_usable(own) && !self.selection.is_usable(source);
        let actions = self.election.on_advert(now, address, advert, unfit);
        self.carry_out(now, Trigger::Loss(Loss::Outranked(source)), actions, out);
        match self.election.state() {
            // Two owners met, and this one stays: hosts may have believed the other.
            State::Active if was_owner && !resigns => self.schedule.repeat(now),
            // Its turn, and not the skew time, decides who is next.
            State::Backup
                if resigns && self.bfd.is_some() && self.election.waits_for() == Some(address) =>
            {
                self.election.hasten(now);
            }
            State::Initialize | State::Backup | State::Active => {}
        }
    }

    /// Notes who owns the VIP.
    fn follow(&mut self, now: BootNanos, source: BackendIndex, advert: &Advertisement) {
        if let Some(member) = self.members.member(source) {
            let patience = self.transfer.patience();
            self.ownership.on_advert(
                now,
                source,
                member.address,
                advert,
                patience,
                &self.liveness,
            );
        }
    }

    /// The priority follows the node's health.
    fn set_priority(&mut self, out: &mut Vec<Action>) {
        let base = self.members.own_member().priority;
        let wanted = priority(base, self.selection.is_usable(self.members.own()));
        if self.election.set_priority(wanted) {
            out.push(Action::Report(Report::Priority(wanted)));
        }
    }

    fn on_fault(&mut self, now: BootNanos, fault: Fault, present: bool, out: &mut Vec<Action>) {
        let was_fit = self.faults.is_empty();
        if !self.faults.set(fault, present) {
            return;
        }
        out.push(Action::Report(Report::Fault { fault, present }));
        if !self.started || self.transfer.is_leaving() || self.transfer.has_left() {
            return;
        }
        if was_fit {
            self.transfer.stay();
            let actions = self.election.stop();
            self.carry_out(now, Trigger::Loss(Loss::Fault(fault)), actions, out);
        } else if self.faults.is_empty() {
            let actions = self.election.on_start(now, BootNanos::ZERO);
            let resumes = false;
            self.carry_out(now, Trigger::Start { resumes }, actions, out);
        }
    }

    /// What hosts and switches know of this node is not so any more.
    fn on_moved(&mut self, now: BootNanos) {
        if !self.started || self.transfer.has_left() {
            return;
        }
        self.own_schedule.begin(now);
        if self.election.is_owner() {
            self.schedule.begin(now);
        }
    }

    fn on_handover(&mut self, now: BootNanos, to: Option<BackendIndex>, out: &mut Vec<Action>) {
        let owns =
            self.election.is_owner() && (self.transfer.stays() || self.transfer.hands_over());
        let successor = if owns {
            self.view().successor(to)
        } else {
            let owner = self.owner().filter(|owner| *owner != self.members.own());
            Err(NoHandover::NotOwner(owner))
        };
        let to = match successor {
            Ok(to) => to,
            Err(why) => {
                out.push(Action::Report(Report::NotHandedOver(why)));
                return;
            }
        };
        self.transfer.hand_over(now, to);
        out.push(Action::Report(Report::HandingOver(to)));
        // To it alone: nobody else feels called.
        out.push(Action::SendAdvert {
            to: To::One(to),
            priority: PRIORITY_RESIGNED,
        });
    }

    fn on_shutdown(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if self.transfer.is_leaving() || self.transfer.has_left() {
            return;
        }
        let hands_over = self.election.is_owner() && self.view().has_successor();
        // The peers are told that the silence to come is meant, before the next of them takes
        // over.
        self.live(now, out, |liveness, members, out| {
            liveness.end(now, members, out);
        });
        if hands_over {
            self.transfer.leave(now);
            self.go_on_with_transfer(now, out);
        } else {
            let actions = self.election.stop();
            self.carry_out(now, Trigger::Loss(Loss::Shutdown), actions, out);
            self.go(out);
        }
    }

    /// Goes on with a handover, or with leaving: such an owner answers until the next one speaks.
    fn go_on_with_transfer(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        match self.transfer.due(now, self.election.is_owner()) {
            Due::Nothing => {}
            Due::Unanswered(to) => {
                let why = NoHandover::NoAnswer(to);
                out.push(Action::Report(Report::NotHandedOver(why)));
            }
            Due::Resign => out.push(Action::SendAdvert {
                to: To::All,
                priority: PRIORITY_RESIGNED,
            }),
            Due::Go => {
                let actions = self.election.stop();
                self.carry_out(now, Trigger::Loss(Loss::Shutdown), actions, out);
                self.go(out);
            }
        }
    }

    /// Leaves for good.
    fn go(&mut self, out: &mut Vec<Action>) {
        self.transfer.go();
        self.end_lease(out);
        // Whatever it would send has been sent, or is not to be.
        self.election.stop();
        self.schedule.end();
        out.push(Action::Done);
    }

    /// Acts on what the election says.
    fn carry_out(
        &mut self,
        now: BootNanos,
        trigger: Trigger,
        actions: Vec<election::Action>,
        out: &mut Vec<Action>,
    ) {
        for action in actions {
            match action {
                election::Action::LeaseMoved => {
                    // It is set by `settle`, once for all that happens now.
                    if let Some(limit) = self.liveness.first_missed() {
                        self.election.limit_lease(limit);
                    }
                }
                election::Action::LeaseEnded => {
                    out.push(Action::SetAnswerUntil(BootNanos::ZERO));
                }
                election::Action::SendAdvert { priority } => self.advertise(priority, out),
                election::Action::BecomeActive => {
                    let resumes = matches!(trigger, Trigger::Start { resumes: true });
                    let takeover = self.ownership.take_over(now, resumes, &self.liveness);
                    out.push(Action::Report(Report::Active(takeover)));
                    self.schedule.begin(now);
                    self.conflicts.on_takeover(now);
                }
                election::Action::BecomeBackup => {
                    out.push(Action::Report(Report::Backup(trigger.loss())));
                    self.schedule.end();
                }
            }
        }
    }

    /// Sends the advertisement that the election wants to be sent, or what a transfer makes of it.
    fn advertise(&self, priority: u8, out: &mut Vec<Action>) {
        let to = To::All;
        match self.transfer.advertising() {
            Advertising::Usual => out.push(Action::SendAdvert { to, priority }),
            // Still here for all others, and no reason for the successor to yield, which is asked
            // again: packets get lost.
            Advertising::ResigningTo(successor) => {
                let priority = PRIORITY_HANDING_OVER;
                out.push(Action::SendAdvert { to, priority });
                out.push(Action::SendAdvert {
                    to: To::One(successor),
                    priority: PRIORITY_RESIGNED,
                });
            }
            Advertising::None => {}
        }
    }

    fn end_lease(&mut self, out: &mut Vec<Action>) {
        let ended = self.election.end_lease();
        out.extend(ended.map(Action::SetAnswerUntil));
    }

    /// Brings the lease, the masks and the owner's name in line with what was decided.
    fn settle(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        let renewed = self.election.renew(now, self.liveness.first_missed());
        out.extend(renewed.map(Action::SetAnswerUntil));
        let hears = |index| self.liveness.hear_each_other(index);
        self.members.settle(now, hears);
        self.selection.settle(&self.members, &self.liveness, out);
        let is_owner = self.election.is_owner();
        let leaves = self.transfer.is_leaving() || self.transfer.has_left();
        let news = self.ownership.settle(now, is_owner, leaves, &self.liveness);
        out.extend(news.map(Action::Report));
        // This node's own address first: the others know the VIP's announcements by it.
        if self.own_schedule.due(now) {
            out.push(Action::AnnounceOwn);
            if self.own_schedule.is_past_burst() {
                self.own_schedule.end();
            }
        }
        if is_owner && self.schedule.due(now) {
            out.push(Action::Announce);
        }
    }
}

#[cfg(test)]
mod tests;
