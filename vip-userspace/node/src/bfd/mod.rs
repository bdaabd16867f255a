//! One BFD session (RFC 5880): single hop, asynchronous mode, without echo and demand.
//!
//! Both sides send packets at an agreed interval. A side declares the session down when it gets
//! no packet for the detection time, which is `multiplier` intervals. A new interval is agreed on by
//! a Poll sequence, so that packets are not expected sooner than they are sent.
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
//! packet a second; but for [`HURRY`] after it was up, it sends at full rate, so that it comes up
//! again as soon as the network does. While it is up, its diagnostic tells the state of the [`Path`]
//! to the API server.
//!
//! With [authentication](Auth), a session has a new discriminator after each Down, and it stays in
//! Init until the caller has confirmed that the other side's packets are fresh
//! ([`Session::set_fresh`]).

mod auth;

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use self::auth::Authenticator;
pub use self::auth::{Auth, Key, Refused};
pub use vip_common::wire::bfd::State;
use vip_common::wire::bfd::{ControlPacket, Diagnostic, Micros};
use vip_common::wire::time::BootNanos;

/// Least transmit interval while the session is not up, so that an unreachable peer is not flooded
/// (section 6.8.3).
const SLOW: Micros = Micros(1_000_000);

/// How long a session that was up a moment ago sends at full rate. Section 6.8.3 would have it send
/// once a second at once, lest it flood a peer that does not exist. This one existed. The interval
/// in its packets is that of section 6.8.3.
pub const HURRY: Duration = Duration::from_secs(5);

/// Least time between packets, in thousandths of the interval (section 6.8.7).
const LEAST_PERMILLE: u32 = 750;

/// The configuration of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Params {
    /// `bfd.DetectMult`: intervals without a packet after which the other side declares this one
    /// down.
    pub detect_mult: NonZeroU8,
    /// `RequiredMinRxInterval`, and `DesiredMinTxInterval` while up, unless that is lengthened
    /// ([`Session::set_transmit_interval`]): 1 ms or more.
    pub interval: Duration,
    /// Authentication; `None` if it is off.
    pub auth: Option<Auth>,
}

impl Params {
    fn interval(self) -> Micros {
        Micros::from_duration(self.interval)
    }

    /// The part that may change while the session is up.
    #[must_use]
    pub const fn timers(self) -> Timers {
        Timers {
            detect_mult: self.detect_mult,
            interval: self.interval,
        }
    }
}

/// The timers of a session, which may change while it is up ([`Session::set_timers`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timers {
    /// As [`Params::detect_mult`].
    pub detect_mult: NonZeroU8,
    /// `RequiredMinRxInterval`, and `DesiredMinTxInterval` while up: 1 ms or more.
    pub interval: Duration,
}

/// Timers of this side, as a packet of its own has told them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    detect_mult: NonZeroU8,
    desired_min_tx: Micros,
    /// As configured: packets may be sent less often.
    interval: Duration,
}

impl Told {
    /// From this side's last packet to the end of the other side's detection time, if that goes by
    /// these timers and requires that time between packets.
    fn detection(self, required_min_rx: Micros) -> Duration {
        let interval = self.desired_min_tx.max(required_min_rx).duration();
        interval * u32::from(self.detect_mult.get())
    }
}

/// State of the path to a node's API server, as its packets tell while the session is up: by the
/// diagnostic, which means nothing else then. Other implementations of BFD ignore it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// It takes new connections.
    Serves,
    /// The server hangs: "path down" (section 4.1).
    Hangs,
    /// The node drains: "concatenated path down" (section 6.8.17).
    Drains,
}

impl Path {
    const fn diagnostic(self) -> Option<Diagnostic> {
        match self {
            Self::Serves => None,
            Self::Hangs => Some(Diagnostic::PathDown),
            Self::Drains => Some(Diagnostic::ConcatenatedPathDown),
        }
    }
}

/// What the caller has to do, or is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send a packet.
    Send(ControlPacket),
    /// Both sides hear each other.
    Up,
    /// They do not any more; the cause.
    Down(Diagnostic),
}

/// The other side's last packet (section 6.8.1).
#[derive(Clone, Copy, Debug)]
struct Remote {
    discriminator: NonZeroU32,
    state: State,
    diagnostic: Diagnostic,
    detect_mult: NonZeroU8,
    desired_min_tx: Micros,
    required_min_rx: Micros,
    /// When it was received.
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
    path: Path,
    remote: Option<Remote>,
    started: bool,
    /// `bfd.DesiredMinTxInterval` of a session that is up.
    usual_min_tx: Micros,
    /// `bfd.DesiredMinTxInterval` as packets carry it.
    desired_min_tx: Micros,
    /// The same as it is in force: during a Poll sequence still the shorter one (section 6.8.3).
    transmit: Micros,
    /// `bfd.RequiredMinRxInterval` as the detection time goes by it: during a Poll sequence still the
    /// longer one (section 6.8.3).
    expected: Micros,
    /// Other timers than those in its packets now, by which the other side may go until the Poll
    /// sequence ends.
    former: Vec<Told>,
    /// A Poll sequence is on: packets carry the P bit until one with the F bit arrives.
    polling: bool,
    /// Packets with the P bit that have no answer yet, and those of them that were sent before the
    /// timers changed last. An answer does not tell which packet it is for, so the first `outdated`
    /// answers do not end the Poll sequence.
    unanswered: u32,
    outdated: u32,
    /// When the last periodic packet left, and the next one is due.
    sent: BootNanos,
    next: BootNanos,
    /// [`HURRY`] after it came up or went down. Until then, it sends at full rate though it is not
    /// up.
    hurries_until: BootNanos,
    /// When the other side's last packet was received.
    heard: BootNanos,
    /// When the packet was sent whose answer measures the round trip.
    asked: Option<BootNanos>,
    /// The last round trip.
    round_trip: Option<Duration>,
    /// State of the jitter's random numbers.
    random: u64,
    auth: Option<Authenticator>,
    /// The session is over on this side. It has a new discriminator as soon as the other side was
    /// told so under the old one.
    over: bool,
    /// The other side's packets are known to be fresh. Always true without authentication.
    fresh: bool,
}

impl Session {
    /// Down; sends nothing until it is started. `seed` is that of the jitter, and with
    /// authentication that of later discriminators and of the first sequence number.
    #[must_use]
    pub fn new(params: Params, local_discriminator: NonZeroU32, seed: u64) -> Self {
        let slow = params.interval().max(SLOW);
        Self {
            discriminator: local_discriminator,
            state: State::Down,
            diagnostic: Diagnostic::None,
            path: Path::Serves,
            remote: None,
            started: false,
            usual_min_tx: params.interval(),
            desired_min_tx: slow,
            transmit: slow,
            expected: params.interval(),
            former: Vec::new(),
            polling: false,
            unanswered: 0,
            outdated: 0,
            sent: BootNanos::ZERO,
            next: BootNanos::ZERO,
            hurries_until: BootNanos::ZERO,
            heard: BootNanos::ZERO,
            asked: None,
            round_trip: None,
            random: seed | 1,
            auth: params.auth.map(|keys| Authenticator::new(keys, seed)),
            over: false,
            fresh: params.auth.is_none(),
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

    /// Whether nothing is expected of the other side but that it goes on: the session has been up
    /// for [`HURRY`], and no Poll sequence is on.
    #[must_use]
    pub fn is_settled(&self, now: BootNanos) -> bool {
        self.is_up() && !self.polling && now >= self.hurries_until
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

    /// Time from the last packet with the P bit to its answer: the network's round trip, and the
    /// time until the other side's agent ran. `None` before the first answer. (Poll sequences only
    /// to measure this would do harm. Each answer is a packet to one peer alone, and delays only
    /// that peer's detection time, so the peers would not detect a failure at about the same time.)
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Why this side went down last.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// The diagnostic in the other side's last packet.
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

    /// The detection time (section 6.8.4): the other side's multiplier times its agreed transmit
    /// interval. Zero before its first packet.
    #[must_use]
    pub fn detection_time(&self) -> Duration {
        self.remote.map_or(Duration::ZERO, |remote| {
            let interval = self.expected.max(remote.desired_min_tx);
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

    /// The same for a packet that follows one at `sent`: shorter while the session hurries.
    fn spacing(&self, sent: BootNanos) -> Duration {
        let hurries = matches!(self.state, State::Down | State::Init) && sent < self.hurries_until;
        if hurries {
            self.params.interval.min(self.transmit_interval())
        } else {
            self.transmit_interval()
        }
    }

    /// Lets a session that is not up send at full rate for [`HURRY`]: the network may be there
    /// again.
    pub fn hurry(&mut self, now: BootNanos) {
        self.hurries_until = now.after(HURRY);
        self.next = self.next.min(self.due(now));
    }

    /// While up: the earliest time at which the other side's detection time can expire, if this
    /// side sends nothing more. The other side computes it (section 6.8.4) from this side's last
    /// packet: this side's multiplier, times the greater of the interval in that packet and the
    /// interval that the other side requires. While timers change, the other side may know the old
    /// or the new ones, so those count that end sooner.
    ///
    /// This is exact if the last packet arrives, and if packets of the other side are not reordered
    /// while it changes its own timers.
    #[must_use]
    pub fn remote_detection_deadline(&self) -> Option<BootNanos> {
        self.first_of_told(|_, end| end)
    }

    /// Half an interval before [`Self::remote_detection_deadline`]: for differences between clocks,
    /// and for the packet's travel time.
    #[must_use]
    pub fn believed_until(&self) -> Option<BootNanos> {
        self.first_of_told(|told, end| end.before(told.interval / 2))
    }

    /// The first time that is made of timers by which the other side may go, and the end of its
    /// detection time with them.
    fn first_of_told(&self, time: impl Fn(&Told, BootNanos) -> BootNanos) -> Option<BootNanos> {
        let remote = self.remote.filter(|_| self.state == State::Up)?;
        let current = self.told();
        let all = self.former.iter().chain([&current]);
        let times = all.map(|told| {
            let end = self.sent.after(told.detection(remote.required_min_rx));
            time(told, end)
        });
        times.min()
    }

    /// The timers in this side's packets.
    fn told(&self) -> Told {
        Told {
            detect_mult: self.params.detect_mult,
            desired_min_tx: self.desired_min_tx,
            interval: self.params.interval,
        }
    }

    /// Tells the other side the state of the path to this node's API server. If the session is up,
    /// a packet is sent at once.
    pub fn set_path(&mut self, now: BootNanos, path: Path, out: &mut Vec<Action>) {
        if self.path == path {
            return;
        }
        self.path = path;
        if self.started && self.state == State::Up {
            // Section 6.8.7: a packet whose content differs need not wait for its turn.
            self.send(false, out);
            self.sent = now;
        }
    }

    /// State of the path to the other side's API server, as its last packet tells; `None` if the
    /// session is not up.
    #[must_use]
    pub fn remote_path(&self) -> Option<Path> {
        let remote = self.remote.filter(|_| self.state == State::Up)?;
        let told = |path: &Path| path.diagnostic() == Some(remote.diagnostic);
        let known = [Path::Hangs, Path::Drains].into_iter().find(told);
        Some(known.unwrap_or(Path::Serves))
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

    /// When the detection time expires.
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

    /// To be called when another session sends a packet, whose next one is due at `next`. This
    /// session sends one too, if jitter could have made it due now, and plans its next one for the
    /// same time. So a node with many sessions wakes up as often as one with a single session.
    /// Packets stay jittered, by 25 % at most (section 6.8.7).
    pub fn coalesce_tx(&mut self, now: BootNanos, next: BootNanos, out: &mut Vec<Action>) {
        if !self.started || now < self.sent.after(self.jittered(self.sent, LEAST_PERMILLE)) {
            return;
        }
        self.transmit(now, out);
        let earliest = now.after(self.jittered(now, LEAST_PERMILLE));
        let latest = now.after(self.jittered(now, self.most_permille()));
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

    /// With authentication: confirms that the other side's packets are fresh, which their digests
    /// alone do not prove, or that this is to be confirmed anew. A session that is not fresh does
    /// not leave Init for Up; one that is up stays up. This does not change by itself: after a Down
    /// the caller says whether the next session needs a new confirmation. Without authentication
    /// nothing needs one.
    pub fn set_fresh(&mut self, now: BootNanos, fresh: bool, out: &mut Vec<Action>) {
        if self.auth.is_none() {
            return;
        }
        self.fresh = fresh;
        if self.started
            && fresh
            && self.state == State::Init
            && now < self.detection()
            && matches!(self.remote_state(), State::Init | State::Up)
        {
            self.come_up(now, out);
        }
    }

    /// Whether the session stays in Init until it is confirmed ([`Self::set_fresh`]).
    #[must_use]
    pub fn awaits_fresh(&self) -> bool {
        self.state == State::Init && !self.fresh
    }

    /// Changes the keys. The session stays as it is, and its packets' numbers go on. Nothing happens
    /// without authentication: that is set when the session is made.
    pub fn set_auth(&mut self, keys: Auth) {
        if let Some(auth) = &mut self.auth {
            auth.set_keys(keys);
        }
    }

    /// Receives a packet (section 6.8.6). The caller has selected the session and checked the
    /// packet's source.
    ///
    /// # Errors
    /// Its authentication is not what it should be. It has changed nothing.
    pub fn on_packet(
        &mut self,
        now: BootNanos,
        packet: &ControlPacket,
        out: &mut Vec<Action>,
    ) -> Result<(), Refused> {
        let sequence = match (&self.auth, packet.authentication) {
            (Some(auth), _) => Some(auth.verify(packet)?.sequence),
            (None, Some(_)) => return Err(Refused::Unexpected),
            (None, None) => None,
        };
        let known = match packet.your_discriminator {
            0 => {
                matches!(packet.state, State::AdminDown | State::Down) && !self.is_unproved(packet)
            }
            yours => yours == self.discriminator.get(),
        };
        // One that is over waits for nothing but its last packet.
        if !self.started || !known || self.over {
            return Ok(());
        }
        // With authentication, a packet without this side's discriminator may be an old one.
        let proves = sequence.is_none() || packet.your_discriminator != 0 || self.is_up();
        if let (Some(auth), Some(sequence)) = (&self.auth, sequence)
            && proves
        {
            // Packets may have been lost by the multiplier of before.
            let before = self.remote.map(|remote| remote.detect_mult);
            let detect_mult =
                before.map_or(packet.detect_mult, |mult| mult.max(packet.detect_mult));
            auth.in_order(now, self.is_up(), detect_mult, sequence)?;
        }
        let before = self.transmit_interval();
        if proves {
            self.heard = now;
        }
        // What this side has sent names a session that is over there.
        let is_another = |remote: Remote| remote.discriminator != packet.my_discriminator;
        let renewed = self.auth.is_some() && self.remote.is_some_and(is_another);
        self.remote = Some(Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diagnostic: packet.diagnostic,
            detect_mult: packet.detect_mult,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
            heard: now,
        });
        let known_until = now.after(self.detection_time() * 2);
        if let (Some(auth), Some(sequence)) = (&mut self.auth, sequence)
            && proves
        {
            auth.accept(sequence, known_until);
        }
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
                self.expected = self.params.interval();
                self.former.clear();
            }
        }
        if self.state == State::AdminDown {
            return Ok(());
        }
        match (self.state, packet.state) {
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                self.go_down(now, Diagnostic::NeighborSignaledSessionDown, out);
            }
            (State::Down, State::Down) => {
                self.state = State::Init;
                self.transmit_soon(now, out);
            }
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) if self.fresh => {
                self.come_up(now, out);
            }
            (State::Down, State::Init) => {
                self.state = State::Init;
                self.transmit_soon(now, out);
            }
            (State::Init, State::Down) if renewed => self.transmit_soon(now, out),
            _ => {}
        }
        if packet.poll {
            // Section 6.8.7: at once, whatever the pace.
            self.send(true, out);
            // The peer may learn new timers by it, but the next periodic packet is not delayed.
            self.sent = now;
        }
        if self.transmit_interval() < before {
            // The next packet is due sooner than it was.
            self.next = self.next.min(self.due(self.sent));
        }
        Ok(())
    }

    /// Whether a packet without this session's discriminator cannot be attributed to it.
    ///
    /// A system that has restarted does not know this side's discriminator, and sends Down with a
    /// zero in its place. Any host on the segment could forge such a packet. So while the session
    /// is up, it must at least carry the other side's discriminator. One with another discriminator
    /// counts only after the detection time has expired, as it does for a system that has
    /// restarted. (RFC 5881, section 3, would assign it to this session. RFC 5880, section 6.8.6,
    /// allows the selection to depend on the discriminator.)
    ///
    /// Authentication does not change that: who has recorded packets of earlier sessions can wait
    /// until the number of one of them is the next.
    fn is_unproved(&self, packet: &ControlPacket) -> bool {
        let is_another = |remote: Remote| remote.discriminator != packet.my_discriminator;
        self.state == State::Up && self.remote.is_some_and(is_another)
    }

    /// Changes the time between this side's packets while up, by a Poll sequence if the session is
    /// up. The other side may go on sending as often as before.
    pub fn set_transmit_interval(
        &mut self,
        now: BootNanos,
        interval: Duration,
        out: &mut Vec<Action>,
    ) {
        let timers = self.params.timers();
        self.set_timers(now, timers, interval, out);
    }

    /// Changes the timers. `transmit`: the time between this side's packets while up, as for
    /// [`Self::set_transmit_interval`].
    ///
    /// If the session is up, a Poll sequence tells the other side. Until it ends, this side sends as
    /// often as it did, and waits for packets as long as it did, if that is more often or longer
    /// (section 6.8.3). So nothing goes down, whatever timers the other side has.
    pub fn set_timers(
        &mut self,
        now: BootNanos,
        timers: Timers,
        transmit: Duration,
        out: &mut Vec<Action>,
    ) {
        let before = self.told();
        let Timers {
            detect_mult,
            interval,
        } = timers;
        (self.params.detect_mult, self.params.interval) = (detect_mult, interval);
        self.usual_min_tx = Micros::from_duration(transmit);
        // One that comes up a moment later may be known by them.
        if !self.former.contains(&before) {
            self.former.push(before);
        }
        if self.state == State::Up {
            self.expected = self.expected.max(self.params.interval());
            self.poll();
            self.transmit_soon(now, out);
        } else {
            self.expected = self.params.interval();
            // The session may come up before the other side has heard of it.
            self.advertise(self.usual_min_tx.max(SLOW));
        }
    }

    /// Goes to AdminDown (section 6.8.16), and tells the other side.
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

    /// Leaves AdminDown.
    pub fn admin_up(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        if self.state == State::AdminDown {
            self.state = State::Down;
            // The other side has heard AdminDown under the old discriminator.
            self.renew();
            if self.started {
                self.transmit(now, out);
            }
        }
    }

    fn come_up(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        self.state = State::Up;
        self.hurries_until = now.after(HURRY);
        out.push(Action::Up);
        self.poll();
        self.transmit_soon(now, out);
    }

    fn go_down(&mut self, now: BootNanos, why: Diagnostic, out: &mut Vec<Action>) {
        let was_up = self.state == State::Up;
        self.state = State::Down;
        self.diagnostic = why;
        self.slow_down();
        if was_up {
            self.hurries_until = now.after(HURRY);
            out.push(Action::Down(why));
        }
        self.over = self.auth.is_some();
        self.transmit_soon(now, out);
    }

    /// Begins a new session: takes a discriminator that no recorded packet has.
    fn renew(&mut self) {
        self.over = false;
        if let Some(auth) = &mut self.auth {
            self.discriminator = auth.renew();
        }
    }

    /// Sends a packet about a change now, not in a second. But packets stay at least as far apart
    /// as while up: two sides that answer each other at once, with reordered packets, could do so
    /// without end.
    fn transmit_soon(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        let pace = self.params.interval.min(self.transmit_interval());
        let soonest = self.sent.after(pace * 3 / 4);
        if now >= soonest {
            self.transmit(now, out);
        } else {
            self.next = self.next.min(soonest);
        }
    }

    /// The timers of a session that is not up. They need no Poll sequence, since no detection time
    /// depends on them.
    fn slow_down(&mut self) {
        self.polling = false;
        self.unanswered = 0;
        self.outdated = 0;
        self.expected = self.params.interval();
        self.former.clear();
        self.desired_min_tx = self.usual_min_tx.max(SLOW);
        self.transmit = self.desired_min_tx;
    }

    /// Changes the interval to that of a session that is up (section 6.8.3), by a Poll sequence.
    /// Until it ends, packets are sent at least as often as the other side knows.
    fn poll(&mut self) {
        self.advertise(self.usual_min_tx);
        self.polling = true;
        self.outdated = self.unanswered;
    }

    /// Sets the interval that packets carry. A shorter one needs no agreement.
    fn advertise(&mut self, desired_min_tx: Micros) {
        self.desired_min_tx = desired_min_tx;
        self.transmit = self.transmit.min(desired_min_tx);
    }

    /// Sends a packet, and plans the next one.
    fn transmit(&mut self, now: BootNanos, out: &mut Vec<Action>) {
        self.next = self.due(now);
        // Section 6.8.7: not if the other side requires that none be sent.
        if self
            .remote
            .is_none_or(|remote| remote.required_min_rx != Micros(0))
        {
            self.sent = now;
            self.asked = (self.polling && self.unanswered == 0).then_some(now);
            self.unanswered = self.unanswered.saturating_add(u32::from(self.polling));
            self.send(false, out);
        }
        if self.over && self.state == State::Down {
            self.renew();
        }
    }

    fn send(&mut self, final_: bool, out: &mut Vec<Action>) {
        let mut packet = self.packet(final_);
        if let Some(auth) = &mut self.auth {
            auth.sign(&mut packet);
        }
        out.push(Action::Send(packet));
    }

    /// When the packet after one at `sent` is due: the interval less a random part, up to a
    /// quarter; at least a tenth if the multiplier is one (section 6.8.7).
    fn due(&mut self, sent: BootNanos) -> BootNanos {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let choices = self.most_permille() - LEAST_PERMILLE + 1;
        let permille = LEAST_PERMILLE + (self.random % u64::from(choices)) as u32;
        sent.after(self.jittered(sent, permille))
    }

    /// That many thousandths of the time between a packet at `sent` and the next one.
    fn jittered(&self, sent: BootNanos, permille: u32) -> Duration {
        self.spacing(sent) * permille / 1000
    }

    /// Greatest time between packets, in thousandths of the interval.
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
            diagnostic: match self.path.diagnostic() {
                Some(path) if self.state == State::Up => path,
                Some(_) | None => self.diagnostic,
            },
            poll: self.polling && !final_,
            final_,
            control_plane_independent: false,
            demand: false,
            detect_mult: self.params.detect_mult,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.map_or(0, |remote| remote.discriminator.get()),
            desired_min_tx: self.desired_min_tx,
            required_min_rx: self.params.interval(),
            required_min_echo_rx: Micros(0),
            authentication: None,
        }
    }
}

#[cfg(test)]
mod tests;
