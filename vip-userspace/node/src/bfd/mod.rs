//! One BFD session (RFC 5880): single hop, asynchronous mode, without echo and demand.
//!
//! Both sides send packets at an agreed interval. A side declares the session down when it gets
//! no packet for the detection time, which is `multiplier` intervals. New timers are agreed on by
//! a Poll sequence, so that neither side expects packets sooner than they are sent.
//!
//! ```text
//!                     receives Init
//!          +---------------------------------------+
//!          |                                       v
//!        Down --------------> Init -------------> Up
//!          ^  receives Down    |   receives Init   |
//!          |                   |   or Up           |
//!          +-------------------+-------------------+
//!            detection time over, or receives AdminDown;
//!            in Up also: receives Down
//!
//! Every state --- admin_down ---> AdminDown --- admin_up ---> Down
//! ```
//!
//! "Receives" means the state field of a packet that belongs to this session (section 6.8.6, with
//! one more condition: `Session::is_unproved`). While it is not up, a session sends about one
//! packet a second. While it is up, it may carry "path down" ([`Session::set_path_down`]): the
//! node drains.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

pub use vip_common::wire::bfd::State;
use vip_common::wire::bfd::{ControlPacket, Diagnostic, Micros};
use vip_common::wire::time::BootNanos;

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
    /// When the other side was heard last.
    heard: BootNanos,
    /// When the packet left that is to be answered by a Final, to see how long that takes.
    asked: Option<BootNanos>,
    /// How long it took the last time.
    round_trip: Option<Duration>,
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
            heard: BootNanos::ZERO,
            asked: None,
            round_trip: None,
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

    /// When the other side was heard last; [`BootNanos::ZERO`] if it never was.
    #[must_use]
    pub fn heard(&self) -> BootNanos {
        self.heard
    }

    /// How long the last answer took to a packet with Poll: the network's round trip, and the
    /// time until the other side's agent ran. `None` while there was none. (Sequences for this
    /// alone would do harm: each answer is a packet to one peer and not to the others, which then
    /// find the sender dead sooner than that one does, and no longer at about the same time.)
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
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
    pub fn remote_detection_deadline(&self) -> Option<BootNanos> {
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
    pub fn coalesce_tx(&mut self, now: BootNanos, next: BootNanos, out: &mut Vec<Action>) {
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
            0 => {
                matches!(packet.state, State::AdminDown | State::Down) && !self.is_unproved(packet)
            }
            yours => yours == self.discriminator.get(),
        };
        if !self.started || !known {
            return;
        }
        let before = self.transmit_interval();
        self.heard = now;
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
            if let Some(asked) = self.asked.take() {
                self.round_trip = Some(now.since(asked));
            }
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

    /// Whether a packet that does not name this session has to wait for proof that it is of it.
    ///
    /// A system that has restarted does not know this side's discriminator, and says that it is
    /// down. Anybody on the segment could say that of it. So while the session is up, a packet
    /// must name at least the discriminator that the other side has. One with another counts only
    /// after that other side has been silent for a detection time, as one that has restarted is.
    /// (RFC 5881, section 3, gives it to this session; RFC 5880, section 6.8.6, lets the selection
    /// depend on the discriminator, too.)
    fn is_unproved(&self, packet: &ControlPacket) -> bool {
        let is_another = |remote: Remote| remote.discriminator != packet.my_discriminator;
        self.state == State::Up && self.remote.is_some_and(is_another)
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
            self.asked = (self.polling && self.unanswered == 0).then_some(now);
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
mod tests;
