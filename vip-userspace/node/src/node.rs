//! One node, put together from its parts. It has no rules of its own, but those that need several
//! parts.
//!
//! The [election](crate::election) makes one node the owner. [Liveness](crate::liveness) finds a
//! lost owner within a few BFD packets, so that backups need not wait for VRRP's time-out.
//! [Selection](crate::selection) decides which nodes get connections. [Faults](crate::faults) keep
//! this node from owning the VIP. The documentation of the crate has a picture.

mod cluster;
mod health;
mod queries;
mod transfers;

use std::net::IpAddr;
use std::time::Duration;

use vip_common::abi::{BackendIndex, BackendMask, CheckIndex, Masks};
use vip_common::wire::bfd::Diagnostic;
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::{Advertisement, PRIORITY_RESIGNED};

use crate::action::{Action, Late, Loss, Report, To};
use crate::announce::Schedule;
use crate::bfd::{self, Session};
use crate::conflict::{Conflicts, Situation};
use crate::election::vrrp::{PRIORITY_ALONE, PRIORITY_CLAIMED_ALONE};
use crate::election::{self, Election, Lease, Meeting, Sealed, State, priority};
use crate::faults::{Fault, Faults};
use crate::health::Hang;
use crate::input::{Input, Params, Tuning};
use crate::lateness::Lateness;
use crate::liveness::{self, Liveness};
use crate::membership::Membership;
use crate::ownership::Ownership;
use crate::selection::Selection;
use crate::transfer::{Advertising, PRIORITY_HANDING_OVER, Transfer};
use crate::view::View;

/// How long no segment is reset after a sign of an agent that is no known member: it may have the
/// connection.
const STRANGER: Duration = Duration::from_secs(3);

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Between BFD packets, as configured; `None` without BFD.
    bfd_interval: Option<Duration>,
    members: Membership,
    liveness: Liveness,
    lateness: Lateness,
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
    /// Until when segments may be reset that no node has the socket for. A dead agent's verdict
    /// that a node is gone must not hold for ever: the node may come back.
    resets: Lease,
    /// When the last sign of an agent that is no known member is [`STRANGER`] old.
    strangers_until: BootNanos,
    /// As the owner it hears no other node, or has not for long: the priority that it advertises.
    /// Whether it claimed the VIP so, or owned it before, makes the difference.
    alone: Option<u8>,
    started: bool,
    /// Time without packets after which a node counts as silent.
    detection: Duration,
    /// When [`Self::on_timer`] is to be called.
    deadline: BootNanos,
    /// A field, so that inputs cause no allocation.
    events: Vec<liveness::Event>,
}

/// The cause of an action of the election.
#[derive(Clone, Copy, Debug)]
enum Trigger {
    /// The node starts, or its last fault was removed.
    Start {
        /// The lease of an earlier agent has not ended.
        resumes: bool,
    },
    /// A timer.
    Time,
    /// An event by which an owner loses the VIP.
    Loss(Loss),
}

impl Trigger {
    /// Why the node is a backup after it.
    fn loss(self) -> Loss {
        match self {
            Self::Start { .. } => Loss::Started,
            // By a timer an owner loses the VIP only if it did not run in time.
            Self::Time => Loss::Overslept,
            Self::Loss(loss) => loss,
        }
    }
}

impl Node {
    /// A node that has not started.
    #[must_use]
    pub fn new(params: &Params) -> Self {
        let members = Membership::new(params);
        Self {
            bfd_interval: params.bfd.map(|bfd| bfd.interval),
            liveness: Liveness::new(params),
            lateness: Lateness::new(params),
            selection: Selection::new(params),
            election: Election::new(params, members.own_member()),
            members,
            ownership: Ownership::new(params),
            conflicts: Conflicts::new(params),
            transfer: Transfer::new(params.vrrp.interval.duration()),
            faults: Faults::default(),
            schedule: Schedule::default(),
            own_schedule: Schedule::default(),
            resets: Lease::new(params.max_lease / 4),
            strangers_until: BootNanos::ZERO,
            alone: None,
            started: false,
            detection: params.detection(),
            deadline: BootNanos(u64::MAX),
            events: Vec::new(),
        }
    }

    /// Starts it. `answer_until` and `known` are the lease and the health that an earlier agent
    /// left in the map. If that lease has not ended, this node owns the VIP at once. (One that ends
    /// further ahead than [`Params::max_lease`] is ignored: no agent sets it so.)
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
        self.members.on_start(now, known.living());
        for index in self
            .members
            .all()
            .filter(|index| known.living().contains(*index))
        {
            self.selection.remember(index, &known, out);
        }
        self.live(now, out, |liveness, members, out| {
            liveness.on_start(now, members, known.living(), out);
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

    /// Takes an event.
    pub fn on_input(&mut self, now: BootNanos, input: Input, out: &mut Vec<Action>) {
        self.wake(now, out);
        match input {
            Input::Advert {
                source,
                advert,
                sealed,
            } => self.on_advert(now, source, &advert, sealed, out),
            Input::Bfd { source, packet } => {
                self.live(now, out, |liveness, _, out| {
                    liveness.on_packet(now, source, &packet, out);
                });
                let waits = |session: &Session| session.awaits_fresh() && session.heard() == now;
                if self.bfd(source).is_some_and(waits) {
                    // Its answer to a hello confirms the session.
                    self.members.hurry();
                }
                if let Some(path) = self.bfd(source).and_then(Session::remote_path) {
                    let draining = path == bfd::Path::Drains;
                    self.selection.set_draining(source, draining, out);
                    let hang = (path == bfd::Path::Hangs).then_some(Hang::Reported);
                    self.set_hang(now, source, CheckIndex::API, hang, out);
                }
            }
            Input::Echo(node) => self.live(now, out, |liveness, _, out| {
                liveness.on_echo(now, node, out);
            }),
            Input::Neighbor(node) => self.live(now, out, |liveness, _, out| {
                liveness.on_neighbor(now, node, out);
            }),
            Input::Witness => self.live(now, out, |liveness, _, out| {
                liveness.on_witness(now, out);
            }),
            Input::Stranger => self.strangers_until = now.after(STRANGER),
            Input::Located(node) => self.members.locate(node),
            Input::Probe { node, check, found } => self.on_probe(now, node, check, found, out),
            Input::Hang { check, hang } => {
                self.set_hang(now, self.members.own(), check, hang, out);
                self.tell_path(now, out);
            }
            Input::Checks {
                origins,
                thresholds,
            } => {
                self.selection.change_checks(&origins, thresholds);
                self.tell_path(now, out);
            }
            Input::Tune(tuning) => self.tune(now, &tuning, out),
            Input::Drain(draining) => {
                self.selection
                    .set_draining(self.members.own(), draining, out);
                self.tell_path(now, out);
                self.members.hurry();
            }
            Input::Fault { fault, present } => self.on_fault(now, fault, present, out),
            Input::Claim { mac, node, agent } => {
                if node.is_none() {
                    self.strangers_until = now.after(STRANGER);
                }
                let situation = self.situation();
                self.conflicts
                    .on_claim(now, mac, node, agent, &situation, out);
            }
            Input::Moved => self.on_moved(now),
            Input::Handover(to) => self.on_handover(now, to, out),
            Input::Hello {
                source,
                hello,
                admits,
            } => self.on_hello(now, source, &hello, admits, out),
            Input::Proved { address, instance } => self.on_proved(now, address, instance, out),
            Input::Keys(auth) => self.liveness.set_auth(auth),
            Input::Text { text, at_once } => self.members.set_text(text, at_once),
            Input::Installed(number) => self.members.on_installed(now, number),
            Input::List(list) => self.on_list(now, list, out),
            Input::Forget(address) => self.forget(now, address, out),
            Input::Leave => {
                self.members.leave();
                self.on_shutdown(now, out);
            }
            Input::Shutdown => self.on_shutdown(now, out),
        }
        self.settle(now, out);
    }

    /// To be called at [`Self::next_deadline`] or later. Earlier calls do nothing.
    ///
    /// The caller takes in all packets that wait in its sockets first. Otherwise packets that
    /// arrived in time would count as missing because this node was late.
    pub fn on_timer(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        self.wake(now, out);
        let mut events = std::mem::take(&mut self.events);
        let alive = |index| self.selection.is_alive(index);
        self.liveness
            .on_timer(now, &self.members, alive, &mut events);
        let sends = |event: &liveness::Event| matches!(event, liveness::Event::SendBfd { .. });
        let next_packet = self.liveness.next_packet();
        let next_packet = next_packet.filter(|_| events.iter().any(sends));
        self.act_on(now, events, out);
        let may_claim = !self.election.is_owner() && self.faults.is_empty();
        self.conflicts.probe(now, may_claim, out);
        let situation = self.situation();
        self.conflicts.watch(now, &situation, out);
        if now >= self.next_claim() {
            if self.election.state() == State::Backup {
                self.alone = (!self.liveness.hears_any()).then_some(PRIORITY_CLAIMED_ALONE);
            }
            let actions = self.election.on_timer(now);
            self.carry_out(now, Trigger::Time, actions, out);
        } else if let Some(next) = next_packet {
            let actions = self.election.advertise_before(now, next);
            self.carry_out(now, Trigger::Time, actions, out);
        }
        self.go_on_with_transfer(now, out);
        self.settle(now, out);
    }

    /// When to call [`Self::on_timer`]; the end of time before the start.
    #[must_use]
    pub const fn next_deadline(&self) -> BootNanos {
        self.deadline
    }

    /// Until when BFD packets may wait in their socket, if they may: all sessions have been up for a
    /// while, and this node then runs anyway. So it need not wake up for each of them. The caller
    /// takes them in before each other input and [`Self::on_timer`], with the times at which they
    /// came. A peer that drains or ends is noticed so much later.
    #[must_use]
    pub fn bfd_may_wait(&self, now: BootNanos) -> Option<BootNanos> {
        let next = self.liveness.next_packet();
        next.filter(|_| self.liveness.is_settled(now))
    }

    /// When something may have to be done, if nothing happens before.
    fn find_deadline(&self) -> BootNanos {
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
            Some(self.resets.last_renewal()),
            self.alone.map(|_| self.liveness.alone_until()),
        ];
        let first = self.next_claim().min(self.liveness.next_deadline());
        others.into_iter().flatten().fold(first, BootNanos::min)
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

    /// This node's state, by which a claim of the VIP is judged.
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

    /// When the election's timer fires. For a backup that is after the ARP probes, and after the
    /// nodes that rank above it had time to take over.
    fn next_claim(&self) -> BootNanos {
        const NEVER: BootNanos = BootNanos(u64::MAX);
        let deadline = self.election.next_deadline();
        match (self.election.state(), self.conflicts.claim_allowed()) {
            (State::Initialize, _) | (State::Backup, None) => NEVER,
            (State::Active, _) => deadline,
            (State::Backup, Some(allowed)) => {
                let turn = self.view().takeover_delay(self.bfd_interval);
                self.liveness.claim_at(deadline.max(allowed), turn)
            }
        }
    }

    /// A node that did not run for a detection time has missed packets, and cannot judge others by
    /// them. An owner whose lease has ended did not run in time either. It becomes a backup before
    /// anything else, so that the input does not extend the lease.
    fn wake(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        let late = now.since(self.deadline);
        if self.started && late >= self.detection.max(self.lateness.covered()) {
            self.liveness.begin_anew(now);
        }
        if self.election.overslept(now) {
            let actions = self.election.on_timer(now);
            self.carry_out(now, Trigger::Time, actions, out);
        }
        if self.lateness.on_wake(now, late) {
            self.lengthen(now, out);
        }
    }

    /// Other timers from now on. Other nodes may have the former ones for as long as they like.
    fn tune(&mut self, now: BootNanos, tuning: &Tuning, out: &mut Vec<Action>) {
        self.bfd_interval = tuning.bfd.map(|bfd| bfd.interval);
        self.detection = tuning.detection();
        self.members.tune(tuning);
        self.lateness.tune(tuning);
        self.transfer.set_interval(tuning.vrrp.interval.duration());
        self.conflicts.set_asks(tuning.probe_address);
        let extra = self.lateness.extra();
        self.live(now, out, |liveness, members, out| {
            liveness.tune(now, members, tuning, extra, out);
        });
        let actions = self.election.tune(now, tuning.vrrp, extra);
        self.carry_out(now, Trigger::Time, actions, out);
    }

    /// Lets this node's packets be as far apart as its lateness demands.
    fn lengthen(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        let extra = self.lateness.extra();
        self.live(now, out, |liveness, members, out| {
            liveness.lengthen(now, members, extra, out);
        });
        let actions = self.election.lengthen(now, extra);
        self.carry_out(now, Trigger::Time, actions, out);
        let by = self.lateness.take_worst();
        out.push(Action::Report(if extra.is_zero() {
            Report::OnTime
        } else {
            Report::Late(Late {
                by,
                bfd: self.bfd_interval.map(|interval| interval + extra),
                adverts: self.election.interval().duration(),
            })
        }));
    }

    /// Passes an input to [`Liveness`], and acts on the events.
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
                liveness::Event::RefuseBfd { from, why } => {
                    out.push(Action::RefuseBfd { from, why });
                }
                liveness::Event::Ask(node) => {
                    out.extend([Action::SendEcho(node), Action::AskNeighbor(node)]);
                }
                liveness::Event::Up(node) => {
                    out.push(Action::Report(Report::BfdUp(node)));
                    if self.election.is_owner() {
                        // The node was away, and hosts beside it may have heard another owner.
                        self.schedule.repeat(now);
                    }
                }
                liveness::Event::Down { node, diagnostic } => {
                    out.push(Action::Report(Report::BfdDown { node, diagnostic }));
                    // Nothing would tell when its server goes on: probes decide.
                    self.set_hang(now, node, CheckIndex::API, None, out);
                    if diagnostic == Diagnostic::ControlDetectionTimeExpired {
                        self.on_silence(now, node);
                    }
                }
                liveness::Event::Away(node) => {
                    self.members.on_absent(node);
                    out.push(Action::Report(Report::Away(node)));
                }
                liveness::Event::Gone(node) => out.push(Action::Report(Report::Gone(node))),
                liveness::Event::AskWitnesses => out.push(Action::AskWitnesses),
                liveness::Event::Isolated(isolated) => {
                    out.push(Action::Report(Report::Isolated(isolated)));
                }
                liveness::Event::Silent => self.conflicts.probe_anew(now),
                liveness::Event::Answers(node) => out.push(Action::Report(Report::Answers(node))),
                liveness::Event::Echo { node, lost } => {
                    out.push(Action::Report(Report::Echo { node, lost }));
                }
            }
        }
        self.events = events;
    }

    /// A BFD detection time expired. If that node owned the VIP, a backup does not wait for VRRP's
    /// time-out as well, unless advertisements of the owner still arrive.
    fn on_silence(&mut self, now: BootNanos, node: BackendIndex) {
        let Some(silent) = self.members.member(node) else {
            return;
        };
        let advertised = now.since(self.election.heard().unwrap_or(now));
        let silence = now.since(self.bfd(node).map_or(now, Session::heard));
        if self.election.waits_for() == Some(silent.address) && advertised >= silence / 2 {
            self.election.shorten_active_down_timer(now);
        }
    }

    fn on_advert(
        &mut self,
        now: BootNanos,
        source: BackendIndex,
        advert: &Advertisement,
        sealed: Option<Sealed>,
        out: &mut Vec<Action>,
    ) {
        let Some(address) = self.members.member(source).map(|member| member.address) else {
            return;
        };
        if let Err(why) = self.members.on_advert(source, sealed) {
            if why == election::Refused::Instance {
                // Its answer to a hello makes its next advertisement count.
                self.members.hurry();
            }
            out.push(Action::RefuseAdvert { from: source, why });
            return;
        }
        let resigns = advert.priority == PRIORITY_RESIGNED;
        let resigned_before = self.ownership.has_resigned(now, source);
        self.follow(now, source, address, advert);
        if self.transfer.has_left() {
            return;
        }
        if self.transfer.is_leaving() {
            if !resigns {
                // The next owner advertises.
                out.push(Action::Report(Report::HandedOver(source)));
                self.go(now, out);
            }
            return;
        }
        // It need not be the named successor: when a partition ends, the other part's owner
        // advertises too.
        if self.transfer.hands_over() && !resigns {
            self.transfer.stay();
            let actions = self.election.yield_to(now, address, advert.interval);
            out.push(Action::Report(Report::HandedOver(source)));
            let trigger = Trigger::Loss(Loss::HandedOver(source));
            self.carry_out(now, trigger, actions, out);
            self.ownership.forget();
            self.follow(now, source, address, advert);
            return;
        }
        // In a transfer, a node repeats its resignation, and advertises to other nodes. Neither
        // makes a backup wait longer.
        if resigned_before && advert.priority <= PRIORITY_HANDING_OVER {
            return;
        }
        if !resigns {
            self.conflicts.on_owner(now);
        }
        let was_owner = self.election.is_owner();
        let own = self.members.own();
        let own_unfit = !self.selection.is_usable(own);
        let meeting = Meeting {
            unfit: !own_unfit && self.selection.is_unfit(source),
            own_unfit,
        };
        let actions = self.election.on_advert(now, address, advert, meeting);
        self.carry_out(now, Trigger::Loss(Loss::Outranked(source)), actions, out);
        match self.election.state() {
            // Two owners met, and this one stays. Hosts may have learned the other's address.
            State::Active if was_owner && !resigns => self.schedule.repeat(now),
            // With BFD, `takeover_delay` decides which node is next, not the skew time.
            State::Backup
                if resigns
                    && self.bfd_interval.is_some()
                    && self.election.waits_for() == Some(address) =>
            {
                self.election.shorten_active_down_timer(now);
            }
            State::Initialize | State::Backup | State::Active => {}
        }
    }

    /// Passes an advertisement to [`Ownership`].
    fn follow(
        &mut self,
        now: BootNanos,
        source: BackendIndex,
        address: IpAddr,
        advert: &Advertisement,
    ) {
        let patience = self.transfer.patience();
        self.ownership
            .on_advert(now, source, address, advert, patience, &self.liveness);
    }

    /// Sets the priority by this node's own health. An owner that hears no other node gives way to
    /// any owner that there may be.
    fn set_priority(&mut self, out: &mut Vec<Action>) {
        let base = self.members.own_member().priority;
        let by_health = priority(base, self.selection.is_usable(self.members.own()));
        let wanted = by_health.min(self.alone.unwrap_or(u8::MAX));
        if self.election.set_priority(wanted) {
            out.push(Action::Report(Report::Priority(wanted)));
        }
    }

    fn on_fault(&mut self, now: BootNanos, fault: Fault, present: bool, out: &mut Vec<Action>) {
        if fault == Fault::Carrier {
            self.liveness.set_carrier(!present);
        }
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

    /// Announces this node's addresses anew.
    fn on_moved(&mut self, now: BootNanos) {
        if !self.started || self.transfer.has_left() {
            return;
        }
        self.own_schedule.begin(now);
        if self.election.is_owner() {
            self.schedule.begin(now);
        }
    }

    /// Carries out actions of the election.
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
                    // `settle` writes it, once for all inputs of one time.
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

    fn advertisement(&self, to: To, priority: u8) -> Action {
        let interval = self.election.interval();
        Action::SendAdvert {
            to,
            priority,
            interval,
        }
    }

    /// Sends an advertisement of the election, as a transfer modifies it.
    fn advertise(&self, priority: u8, out: &mut Vec<Action>) {
        let to = To::All;
        // The election has not been told of it before its first advertisement: the priority is also
        // that of a backup's wait.
        let priority = priority.min(self.alone.unwrap_or(u8::MAX));
        match self.transfer.advertising() {
            Advertising::Usual => out.push(self.advertisement(to, priority)),
            // The other nodes learn that this one is still there. The successor, which outranks
            // that priority, is asked again, since packets get lost.
            Advertising::ResigningTo(successor) => {
                out.push(self.advertisement(to, PRIORITY_HANDING_OVER));
                out.push(self.advertisement(To::One(successor), PRIORITY_RESIGNED));
            }
            Advertising::None => {}
        }
    }

    fn end_lease(&mut self, out: &mut Vec<Action>) {
        let ended = self.election.end_lease();
        out.extend(ended.map(Action::SetAnswerUntil));
    }

    /// Updates leases, masks and owner after an input, and makes announcements that are due.
    fn settle(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        self.alone = if !self.election.is_owner() || !self.liveness.is_alone(now) {
            None
        } else if self.liveness.hears_any() {
            self.alone
        } else {
            self.alone.or(Some(PRIORITY_ALONE))
        };
        self.set_priority(out);
        let renewed = self.election.renew(now, self.liveness.first_missed());
        out.extend(renewed.map(Action::SetAnswerUntil));
        self.settle_members(now, out);
        self.selection.settle(&self.members, &self.liveness, out);
        let is_owner = self.election.is_owner();
        let leaves = self.transfer.is_leaving() || self.transfer.has_left();
        let news = self.ownership.settle(now, is_owner, leaves, &self.liveness);
        out.extend(news.map(Action::Report));
        // This node's own address first: other nodes recognize the VIP's announcements by it.
        if self.own_schedule.due(now) {
            out.push(Action::AnnounceOwn);
            if self.own_schedule.is_past_burst() {
                self.own_schedule.end();
            }
        }
        if is_owner && self.schedule.due(now) {
            out.push(Action::Announce);
        }
        self.settle_resets(now, out);
        if self.started {
            // Not before now: lateness begins when there is something to do.
            self.deadline = self.find_deadline().max(now);
        }
    }

    /// Segments may be reset while this node knows the others, hears them or a witness, and there
    /// is no other agent that could have the connection.
    fn settle_resets(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        let may_reset = self.started
            && !self.members.is_joining()
            && self.members.may_reset(now)
            && !self.liveness.is_isolated()
            && now >= self.strangers_until;
        let until = if may_reset {
            self.resets.renew(now, BootNanos(u64::MAX))
        } else {
            self.resets.end()
        };
        out.extend(until.map(Action::SetResetsUntil));
    }
}

#[cfg(test)]
mod tests;
