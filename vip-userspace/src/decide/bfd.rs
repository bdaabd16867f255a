//! One BFD session (RFC 5880): single hop, asynchronous mode, without echo and demand.
//!
//! Both sides send packets at an agreed pace, and each takes the other for dead when a few of
//! them stay out. New timers are agreed on by a Poll sequence, so that neither side expects
//! packets sooner than they are sent.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use vip_common::layout::BootNanos;
pub use vip_common::wire::bfd::State;
use vip_common::wire::bfd::{ControlPacket, Diagnostic, Micros};

/// The interval while the session is not up, at least: an unreachable peer must not be flooded
/// (section 6.8.3).
const SLOW: Micros = Micros(1_000_000);

/// The least that packets are apart, in thousandths of the interval (section 6.8.7).
const LEAST_PERMILLE: u32 = 750;

/// How a session is configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Params {
    /// Packets that must stay out until this side is taken for dead.
    pub detect_mult: NonZeroU8,
    /// `DesiredMinTxInterval` while up, and `RequiredMinRxInterval`: 1 ms or more.
    pub interval: Duration,
}

impl Params {
    fn interval(self) -> Micros {
        Micros::from_duration(self.interval)
    }
}

/// What the caller has to do or to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send a packet.
    Send(ControlPacket),
    /// Both sides hear each other.
    Up,
    /// They do not any more; why.
    Down(Diagnostic),
}

/// What the other side said last (section 6.8.1).
#[derive(Clone, Copy, Debug)]
struct Remote {
    discriminator: NonZeroU32,
    state: State,
    diagnostic: Diagnostic,
    detect_mult: NonZeroU8,
    desired_min_tx: Micros,
    required_min_rx: Micros,
    /// When it was said.
    heard: BootNanos,
}

/// One session.
#[derive(Clone, Debug)]
pub struct Session {
    params: Params,
    /// `bfd.LocalDiscr`.
    discriminator: NonZeroU32,
    /// `bfd.SessionState`, `bfd.LocalDiag`.
    state: State,
    diagnostic: Diagnostic,
    /// Connections are better not brought here.
    path_down: bool,
    remote: Option<Remote>,
    started: bool,
    /// `bfd.DesiredMinTxInterval` and `bfd.RequiredMinRxInterval` as packets say them.
    desired_min_tx: Micros,
    required_min_rx: Micros,
    /// The same as they are acted upon: behind while a Poll sequence is on (section 6.8.3).
    transmit: Micros,
    receive: Micros,
    /// The smallest multiplier that the other side may be counting with.
    patience: NonZeroU8,
    /// A Poll sequence is on: packets carry the bit until one with Final comes.
    polling: bool,
    /// Packets with the bit whose Final has not come, and how many of them were sent before the
    /// timers changed last. A Final does not say what it answers, so that many are not counted.
    unanswered: u32,
    outdated: u32,
    /// When the last periodic packet left, and the next one is due.
    sent: BootNanos,
    next: BootNanos,
    /// State of the jitter.
    random: u64,
}

impl Session {
    /// Down, and silent until it is started. `seed` is that of the jitter.
    #[must_use]
    pub fn new(params: Params, local_discriminator: NonZeroU32, seed: u64) -> Self {
        let slow = params.interval().max(SLOW);
        Self {
            discriminator: local_discriminator,
            state: State::Down,
            diagnostic: Diagnostic::None,
            path_down: false,
            remote: None,
            started: false,
            desired_min_tx: slow,
            required_min_rx: params.interval(),
            transmit: slow,
            receive: params.interval(),
            patience: params.detect_mult,
            polling: false,
            unanswered: 0,
            outdated: 0,
            sent: BootNanos::ZERO,
            next: BootNanos::ZERO,
            random: seed | 1,
            params,
        }
    }

    /// State of this side.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Both sides hear each other.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// State of the other side as last heard; [`State::Down`] if it was not.
    #[must_use]
    pub fn remote_state(&self) -> State {
        self.remote.map_or(State::Down, |remote| remote.state)
    }

    /// Why this side went down last.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// Why the other side says that it went down last.
    #[must_use]
    pub fn remote_diagnostic(&self) -> Diagnostic {
        self.remote
            .map_or(Diagnostic::None, |remote| remote.diagnostic)
    }

    /// This side's name for the session.
    #[must_use]
    pub fn local_discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    /// How long the other side may be silent (section 6.8.4): its multiplier times what it was
    /// agreed to send at. Zero while nothing was heard.
    #[must_use]
    pub fn detection_time(&self) -> Duration {
        self.remote.map_or(Duration::ZERO, |remote| {
            let interval = self.receive.max(remote.desired_min_tx);
            interval.duration() * u32::from(remote.detect_mult.get())
        })
    }

    /// Between packets of this side, before jitter (section 6.8.2).
    #[must_use]
    pub fn transmit_interval(&self) -> Duration {
        let wanted = self
            .remote
            .map_or(Micros(1), |remote| remote.required_min_rx);
        self.transmit.max(wanted).duration()
    }

    /// While up: the earliest moment at which the other side can take this one for dead, if it
    /// hears nothing more of it. What it computes (section 6.8.4) from the last packet of this
    /// side: this side's multiplier times the greater of what that said and of what the other
    /// side requires. While timers change it may have heard of the old ones only, so the
    /// smaller of both counts. Sound if that last packet arrives, and packets of the other side
    /// do not overtake each other while it changes its own timers.
    #[must_use]
    pub fn peer_patience(&self) -> Option<BootNanos> {
        let remote = self.remote.filter(|_| self.state == State::Up)?;
        let promised = self.desired_min_tx.min(self.transmit);
        let interval = promised.max(remote.required_min_rx).duration();
        Some(self.sent.after(interval * u32::from(self.patience.get())))
    }

    /// Tells the other side, while the session is up, that connections are better not brought
    /// here, or that they may be again: the diagnostic "concatenated path down" (RFC 5880,
    /// section 6.8.17), the path going on to the API server. Says so at once.
    pub fn set_path_down(&mut self, now: BootNanos, down: bool, out: &mut Vec<Action>) {
        if self.path_down == down {
            return;
        }
        self.path_down = down;
        if self.started && self.state == State::Up {
            // Section 6.8.7: a packet whose content differs need not wait for its turn.
            out.push(Action::Send(self.packet(false)));
            self.sent = now;
        }
    }

    /// Whether the other side says that connections are better not brought to it; `None` while
    /// it has not been heard.
    #[must_use]
    pub fn remote_path_down(&self) -> Option<bool> {
        let remote = self.remote.filter(|_| self.state == State::Up)?;
        Some(remote.diagnostic == Diagnostic::ConcatenatedPathDown)
    }

    /// Begins to send.
    pub fn on_start(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        self.started = true;
        self.transmit(now, out);
    }

    /// When to call [`Self::on_timer`], unless something happens before.
    #[must_use]
    pub fn next_deadline(&self) -> BootNanos {
        self.next_packet().min(self.detection())
    }

    /// When the other side will have been silent for too long.
    fn detection(&self) -> BootNanos {
        self.remote.map_or(BootNanos(u64::MAX), |remote| {
            remote.heard.after(self.detection_time())
        })
    }

    /// To be called at [`Self::next_deadline`] or later. Earlier calls do nothing, and one that
    /// is late by several intervals sends one packet.
    pub fn on_timer(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if !self.started {
            return;
        }
        if now >= self.detection() {
            // Section 6.8.1: after a detection time the discriminator is forgotten, too.
            self.remote = None;
            if matches!(self.state, State::Init | State::Up) {
                self.go_down(now, Diagnostic::ControlDetectionTimeExpired, out);
            }
        }
        if now >= self.next {
            self.transmit(now, out);
        }
    }

    /// To be called when a packet of another session leaves: one of this session may go along, if
    /// jitter could have made it leave now. The next packets of both are then due together,
    /// `next` being the other's, so that a node with many sessions wakes up as often as one with
    /// a single session. Packets stay jittered, by 25 % at most (section 6.8.7).
    pub fn on_company(&mut self, now: BootNanos, next: BootNanos, out: &mut Vec<Action>) {
        if !self.started || now < self.sent.after(self.jittered(LEAST_PERMILLE)) {
            return;
        }
        self.transmit(now, out);
        let earliest = now.after(self.jittered(LEAST_PERMILLE));
        let latest = now.after(self.jittered(self.most_permille()));
        if (earliest..=latest).contains(&next) {
            self.next = next;
        }
    }

    /// When the next packet is due.
    #[must_use]
    pub fn next_packet(&self) -> BootNanos {
        if self.started {
            self.next
        } else {
            BootNanos(u64::MAX)
        }
    }

    /// Section 6.8.6, from where the session is known. The caller has checked where the packet
    /// came from.
    pub fn on_packet(&mut self, now: BootNanos, packet: &ControlPacket, out: &mut Vec<Action>) {
        let known = match packet.your_discriminator {
            0 => matches!(packet.state, State::AdminDown | State::Down),
            yours => yours == self.discriminator.get(),
        };
        if !self.started || !known {
            return;
        }
        let before = self.transmit_interval();
        self.remote = Some(Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            detect_mult: packet.detect_mult,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            heard: now,
        });
        if packet.final_ {
            self.unanswered = self.unanswered.saturating_sub(1);
            if self.outdated > 0 {
                self.outdated -= 1;
            } else if self.polling {
                self.polling = false;
                self.transmit = self.desired_min_tx;
                self.receive = self.required_min_rx;
                self.patience = self.params.detect_mult;
            }
        }
        if self.state == State::AdminDown {
            return;
        }
        match (self.state, packet.state) {
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.go_down(now, Diagnostic::NeighborSignaledSessionDown, out);
            }
            (State::Down, State::Down) => {
                self.state = State::Init;
                self.transmit_soon(now, out);
            }
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.state = State::Up;
                out.push(Action::Up);
                self.set_intervals(self.params.interval());
                self.transmit_soon(now, out);
            }
            _ => {}
        }
        if packet.poll {
            // Section 6.8.7: at once, whatever the pace.
            out.push(Action::Send(self.packet(true)));
            // The peer may have heard of new timers by it, but it does not move the schedule.
            self.sent = now;
        }
        if self.transmit_interval() < before {
            // The next packet is due sooner than it was.
            self.next = self.next.min(self.due(self.sent));
        }
    }

    /// Other timers, by a Poll sequence if the session is up.
    pub fn set_params(&mut self, now: BootNanos, params: Params, out: &mut Vec<Action>) {
        self.params = params;
        if self.state == State::Up {
            self.set_intervals(params.interval());
            self.transmit_soon(now, out);
        } else {
            // The session may come up before the other side has heard of it.
            self.advertise(params.interval().max(SLOW), params.interval());
        }
    }

    /// Holds it down (section 6.8.16), and says so.
    pub fn admin_down(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if self.state == State::AdminDown {
            return;
        }
        let was_up = self.state == State::Up;
        self.diagnostic = Diagnostic::AdministrativelyDown;
        self.state = State::AdminDown;
        self.slow_down();
        if was_up {
            out.push(Action::Down(self.diagnostic));
        }
        if self.started {
            self.transmit(now, out);
        }
    }

    /// Lets it come up again.
    pub fn admin_up(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if self.state == State::AdminDown {
            self.state = State::Down;
            if self.started {
                self.transmit(now, out);
            }
        }
    }

    fn go_down(&mut self, now: BootNanos, why: Diagnostic, out: &mut Vec<Action>) {
        let was_up = self.state == State::Up;
        self.state = State::Down;
        self.diagnostic = why;
        self.slow_down();
        if was_up {
            out.push(Action::Down(why));
        }
        self.transmit_soon(now, out);
    }

    /// The other side should hear of a change now, not in a second. But no sooner than packets
    /// follow each other while up: two sides that answer each other at once, with packets that
    /// overtake each other, would never come to rest.
    fn transmit_soon(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        let pace = self.params.interval.min(self.transmit_interval());
        let soonest = self.sent.after(pace * 3 / 4);
        if now >= soonest {
            self.transmit(now, out);
        } else {
            self.next = self.next.min(soonest);
        }
    }

    /// The pace of a session that is not up. Nobody relies on it, so nobody is asked.
    fn slow_down(&mut self) {
        self.polling = false;
        self.unanswered = 0;
        self.outdated = 0;
        self.desired_min_tx = self.params.interval().max(SLOW);
        self.required_min_rx = self.params.interval();
        self.transmit = self.desired_min_tx;
        self.receive = self.required_min_rx;
    }

    /// Another pace while up (section 6.8.3): a Poll sequence, during which packets are sent no
    /// more slowly, and expected no sooner, than the other side knows of.
    fn set_intervals(&mut self, interval: Micros) {
        self.advertise(interval, interval);
        self.polling = true;
        self.outdated = self.unanswered;
    }

    /// What packets say from now on. Acted upon at once is what the other side need not know of.
    fn advertise(&mut self, desired_min_tx: Micros, required_min_rx: Micros) {
        self.desired_min_tx = desired_min_tx;
        self.required_min_rx = required_min_rx;
        self.transmit = self.transmit.min(desired_min_tx);
        self.receive = self.receive.max(required_min_rx);
        self.patience = self.patience.min(self.params.detect_mult);
    }

    /// Sends a packet, and plans the next one.
    fn transmit(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        self.next = self.due(now);
        // Section 6.8.7: not to one who wants to hear nothing.
        if self
            .remote
            .is_none_or(|remote| remote.required_min_rx != Micros(0))
        {
            self.sent = now;
            self.unanswered = self.unanswered.saturating_add(u32::from(self.polling));
            out.push(Action::Send(self.packet(false)));
        }
    }

    /// When the packet after one at `sent` is due: the interval less up to a quarter, at random,
    /// and at least a tenth where one packet is all there is to detection (section 6.8.7).
    fn due(&mut self, sent: BootNanos) -> BootNanos {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let choices = self.most_permille() - LEAST_PERMILLE + 1;
        let permille = LEAST_PERMILLE + (self.random % u64::from(choices)) as u32;
        sent.after(self.jittered(permille))
    }

    /// Thousandths of the interval.
    fn jittered(&self, permille: u32) -> Duration {
        self.transmit_interval() * permille / 1000
    }

    /// The longest that packets may be apart, in thousandths of the interval.
    fn most_permille(&self) -> u32 {
        if self.params.detect_mult.get() == 1 {
            900
        } else {
            1000
        }
    }

    fn packet(&self, final_: bool) -> ControlPacket {
        ControlPacket {
            state: self.state,
            diagnostic: if self.path_down && self.state == State::Up {
                Diagnostic::ConcatenatedPathDown
            } else {
                self.diagnostic
            },
            poll: self.polling && !final_,
            final_,
            control_plane_independent: false,
            demand: false,
            detect_mult: self.params.detect_mult,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.map_or(0, |remote| remote.discriminator.get()),
            desired_min_tx: self.desired_min_tx,
            required_min_rx: self.required_min_rx,
            required_min_echo_rx: Micros(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn params(interval_ms: u64, detect_mult: u8) -> Params {
        Params {
            detect_mult: NonZeroU8::new(detect_mult).unwrap(),
            interval: Duration::from_millis(interval_ms),
        }
    }

    fn session(params: Params, discriminator: u32) -> Session {
        let discriminator = NonZeroU32::new(discriminator).unwrap();
        Session::new(params, discriminator, u64::from(discriminator.get()))
    }

    fn at(ms: u64) -> BootNanos {
        BootNanos(1000 * MS + ms * MS)
    }

    /// Two sessions on a wire. Nothing overtakes.
    struct Wire {
        now: BootNanos,
        ends: [Session; 2],
        /// When, to whom, what.
        flying: Vec<(BootNanos, usize, ControlPacket)>,
        delay: [u64; 2],
        /// Nothing comes out of an end that is silent.
        silent: [bool; 2],
        ups: [u32; 2],
        downs: [Vec<Diagnostic>; 2],
        packets: usize,
    }

    impl Wire {
        fn new(a: Params, b: Params, delay: [u64; 2]) -> Self {
            let mut wire = Self {
                now: at(0),
                ends: [session(a, 7), session(b, 9)],
                flying: vec![],
                delay,
                silent: [false; 2],
                ups: [0; 2],
                downs: [vec![], vec![]],
                packets: 0,
            };
            for end in 0..2 {
                wire.drive(end, |session, now, out| session.on_start(now, out));
            }
            wire
        }

        fn drive(
            &mut self,
            end: usize,
            drive: impl FnOnce(&mut Session, BootNanos, &mut Vec<Action>),
        ) {
            let mut out = vec![];
            drive(&mut self.ends[end], self.now, &mut out);
            for action in out {
                match action {
                    Action::Send(packet) => {
                        assert!(!(packet.poll && packet.final_), "section 6.8.7");
                        self.packets += 1;
                        if !self.silent[end] {
                            let arrival = BootNanos(self.now.0 + self.delay[end]);
                            self.flying.push((arrival, 1 - end, packet));
                        }
                    }
                    Action::Up => self.ups[end] += 1,
                    Action::Down(why) => self.downs[end].push(why),
                }
            }
        }

        fn run(&mut self, duration: Duration) {
            let end = self.now.after(duration);
            loop {
                let arrival = (0..self.flying.len()).min_by_key(|&index| self.flying[index].0);
                let arrives = arrival.map_or(BootNanos(u64::MAX), |index| self.flying[index].0);
                let timer = (0..2)
                    .min_by_key(|&end| self.ends[end].next_deadline())
                    .unwrap();
                let fires = self.ends[timer].next_deadline();
                if arrives.min(fires) > end {
                    self.now = end;
                    return;
                }
                self.now = self.now.max(arrives.min(fires));
                if arrives <= fires {
                    let (_, to, packet) = self.flying.remove(arrival.unwrap());
                    self.drive(to, |session, now, out| session.on_packet(now, &packet, out));
                } else {
                    self.drive(timer, |session, now, out| session.on_timer(now, out));
                }
            }
        }

        fn both_up(&self) -> bool {
            self.ends.iter().all(Session::is_up)
        }
    }

    fn up(a: Params, b: Params) -> Wire {
        let mut wire = Wire::new(a, b, [MS, MS]);
        wire.run(Duration::from_secs(10));
        assert!(wire.both_up());
        wire
    }

    #[test]
    fn state_machine_is_that_of_section_6_8_6() {
        use State::{AdminDown, Down, Init, Up};
        for (own, heard, then) in [
            (Down, AdminDown, Down),
            (Down, Down, Init),
            (Down, Init, Up),
            (Down, Up, Down),
            (Init, AdminDown, Down),
            (Init, Down, Init),
            (Init, Init, Up),
            (Init, Up, Up),
            (Up, AdminDown, Down),
            (Up, Down, Down),
            (Up, Init, Up),
            (Up, Up, Up),
            (AdminDown, AdminDown, AdminDown),
            (AdminDown, Down, AdminDown),
            (AdminDown, Init, AdminDown),
            (AdminDown, Up, AdminDown),
        ] {
            let mut session = session(params(50, 3), 7);
            let mut out = vec![];
            session.on_start(at(0), &mut out);
            session.state = own;
            let mut packet = session.packet(false);
            packet.state = heard;
            packet.my_discriminator = NonZeroU32::new(9).unwrap();
            packet.your_discriminator = 7;
            session.on_packet(at(1), &packet, &mut out);
            assert_eq!(session.state(), then, "{own:?} hears {heard:?}");
            assert_eq!(session.remote_state(), heard);
        }
    }

    #[test]
    fn packets_for_another_session_mean_nothing() {
        let mut wire = up(params(50, 3), params(50, 3));
        let mut packet = wire.ends[1].packet(false);
        packet.state = State::Down;
        packet.your_discriminator = 8;
        wire.drive(0, |session, now, out| session.on_packet(now, &packet, out));
        assert!(wire.both_up());
        // One that has forgotten this side's name is down, and means it.
        packet.your_discriminator = 0;
        wire.drive(0, |session, now, out| session.on_packet(now, &packet, out));
        assert_eq!(wire.downs[0], [Diagnostic::NeighborSignaledSessionDown]);
    }

    #[test]
    fn only_one_that_is_down_may_not_know_this_side() {
        for heard in [State::Init, State::Up] {
            let mut session = session(params(50, 3), 7);
            let mut out = vec![];
            session.on_start(at(0), &mut out);
            let mut packet = session.packet(false);
            (packet.state, packet.your_discriminator) = (heard, 0);
            session.on_packet(at(1), &packet, &mut out);
            assert_eq!(session.state(), State::Down, "{heard:?}");
        }
    }

    #[test]
    fn slower_side_sets_the_pace_and_detection_follows() {
        let wire = up(params(20, 5), params(50, 3));
        for end in &wire.ends {
            assert_eq!(end.transmit_interval(), Duration::from_millis(50));
        }
        // The other side's multiplier.
        assert_eq!(wire.ends[0].detection_time(), Duration::from_millis(150));
        assert_eq!(wire.ends[1].detection_time(), Duration::from_millis(250));
    }

    #[test]
    fn silence_is_noticed_in_the_detection_time_and_told_as_such() {
        let mut wire = up(params(50, 3), params(50, 3));
        wire.silent[1] = true;
        wire.run(Duration::from_millis(100));
        assert!(wire.ends[0].is_up());
        wire.run(Duration::from_millis(60));
        assert_eq!(wire.downs[0], [Diagnostic::ControlDetectionTimeExpired]);
        // The silent one hears at once that it is not heard.
        assert_eq!(wire.downs[1], [Diagnostic::NeighborSignaledSessionDown]);
        wire.silent[1] = false;
        wire.run(Duration::from_secs(10));
        assert!(wire.both_up());
        assert_eq!(wire.ups, [2, 2]);
    }

    #[test]
    fn admin_down_is_told_and_not_taken_for_silence() {
        let mut wire = up(params(50, 3), params(50, 3));
        wire.drive(0, |session, now, out| session.admin_down(now, out));
        wire.run(Duration::from_millis(5));
        assert_eq!(wire.ends[1].remote_state(), State::AdminDown);
        assert_eq!(wire.downs[1], [Diagnostic::NeighborSignaledSessionDown]);
        wire.run(Duration::from_secs(10));
        assert!(!wire.both_up());
        wire.drive(0, |session, now, out| session.admin_up(now, out));
        wire.run(Duration::from_secs(10));
        assert!(wire.both_up());
    }

    #[test]
    fn session_that_was_not_up_does_not_go_down() {
        let mut session = session(params(50, 3), 7);
        let mut out = vec![];
        session.on_start(at(0), &mut out);
        session.admin_down(at(1), &mut out);
        assert!(!out.iter().any(|action| matches!(action, Action::Down(_))));
        assert_eq!(session.state(), State::AdminDown);
    }

    #[test]
    fn path_down_is_told_at_once_and_does_not_end_the_session() {
        let mut wire = up(params(50, 3), params(50, 3));
        assert_eq!(wire.ends[1].remote_path_down(), Some(false));
        for down in [true, false] {
            wire.drive(0, |session, now, out| session.set_path_down(now, down, out));
            wire.run(Duration::from_millis(10));
            assert_eq!(wire.ends[1].remote_path_down(), Some(down));
            wire.run(Duration::from_secs(2));
            assert!(wire.both_up());
            assert_eq!(wire.ends[1].remote_path_down(), Some(down));
        }
    }

    #[test]
    fn restarted_peer_is_taken_up_again() {
        let mut wire = up(params(50, 3), params(50, 3));
        wire.ends[1] = session(params(50, 3), 11);
        wire.drive(1, |session, now, out| session.on_start(now, out));
        wire.run(Duration::from_secs(10));
        assert!(wire.both_up());
        assert_eq!(wire.downs[0], [Diagnostic::NeighborSignaledSessionDown]);
    }

    #[test]
    fn packet_goes_along_with_another_sessions_if_jitter_allows() {
        let mut wire = up(params(50, 3), params(50, 3));
        wire.run(Duration::from_secs(10));
        let session = &mut wire.ends[0];
        let mut out = vec![];
        session.on_timer(session.next_packet(), &mut out);
        out.clear();
        let sent = session.sent;
        let (due, other) = (session.next_packet(), sent.after(Duration::from_millis(80)));
        session.on_company(BootNanos(sent.0 + 37 * MS), other, &mut out);
        assert_eq!((out.len(), session.next_packet()), (0, due), "too early");
        let now = BootNanos(sent.0 + 38 * MS);
        session.on_company(now, other, &mut out);
        assert_eq!((out.len(), session.next_packet()), (1, other));
        // The other session is slower than this one may be.
        let now = BootNanos(now.0 + 45 * MS);
        session.on_company(now, now.after(Duration::from_millis(51)), &mut out);
        assert_eq!(out.len(), 2);
        assert!(session.next_packet() <= now.after(Duration::from_millis(50)));
    }

    #[test]
    fn late_timer_sends_one_packet() {
        let mut wire = up(params(50, 3), params(50, 3));
        let before = wire.packets;
        let late = wire.now.after(Duration::from_millis(120));
        wire.drive(0, |session, _, out| session.on_timer(late, out));
        assert_eq!(wire.packets, before + 1);
    }

    proptest! {
        #[test]
        fn nothing_goes_down_without_loss_whatever_the_timers_and_their_changes(
            a in 10_u64..1000, b in 10_u64..1000, mult in 2_u8..6,
            delay in 0_u64..100, changes in prop::collection::vec((0_usize..2, 10_u64..1000), 0..6),
        ) {
            // Below the shortest interval that is ever used.
            let delay = MS * 8 * delay / 100;
            let mut wire = Wire::new(params(a, mult), params(b, 3), [delay, delay / 2]);
            wire.run(Duration::from_secs(12));
            prop_assert!(wire.both_up());
            for (end, interval) in changes {
                let changed = params(interval, wire.ends[end].params.detect_mult.get());
                wire.drive(end, |session, now, out| session.set_params(now, changed, out));
                wire.run(Duration::from_millis(37));
            }
            wire.run(Duration::from_secs(12));
            prop_assert!(wire.both_up());
            prop_assert_eq!(&wire.downs, &[vec![], vec![]]);
            let slower = |end: usize| wire.ends[end].params.interval;
            prop_assert_eq!(wire.ends[0].transmit_interval(), slower(0).max(slower(1)));
        }

        #[test]
        fn no_peer_loses_patience_before_it_is_said_to(
            a in 10_u64..500, b in 10_u64..500, mult in 2_u8..6, delay in 0_u64..100,
            changes in prop::collection::vec((0_usize..2, 10_u64..500, 2_u8..8, 0_u64..30), 0..4),
            silent_after in prop_oneof![0_u64..40, 0_u64..2000],
        ) {
            let delay = MS * 8 * delay / 100;
            let mut wire = Wire::new(params(a, mult), params(b, 3), [delay, delay]);
            wire.run(Duration::from_secs(12));
            for (end, interval, mult, then) in changes {
                let changed = params(interval, mult);
                wire.drive(end, |session, now, out| session.set_params(now, changed, out));
                wire.run(Duration::from_millis(then));
            }
            wire.run(Duration::from_millis(silent_after));
            wire.silent[0] = true;
            // What it promised by what it has sent so far; packets on their way still arrive.
            let patience = wire.ends[0].peer_patience().unwrap();
            while wire.downs[1].is_empty() {
                let before = wire.now;
                wire.run(Duration::from_micros(500));
                prop_assert!(
                    wire.downs[1].is_empty() || patience <= before.after(Duration::from_micros(500)),
                    "gone at {:?}, {:?} was promised", wire.now, patience
                );
            }
        }
    }
}
