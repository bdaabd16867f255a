//! Authenticated sessions over a channel that loses and reorders packets, and an attacker who has
//! recorded all of them.

use std::time::Duration;

use proptest::prelude::*;
use vip_common::wire::bfd::{Diagnostic, Micros, State};

use super::super::{Action, HURRY, Params, Session, Timers};
use super::*;

const MS: u64 = 1_000_000;

fn key(id: u8) -> Key {
    Key::new(id, &[b'k', id])
}

fn only(current: Key) -> Auth {
    Auth {
        current,
        other: None,
    }
}

fn params(auth: Option<Auth>) -> Params {
    Params {
        detect_mult: NonZeroU8::new(3).unwrap(),
        interval: Duration::from_millis(35),
        auth,
    }
}

fn session(auth: Option<Auth>, seed: u64) -> Session {
    let seed = mix(seed, 1);
    let discriminator = NonZeroU32::new((seed >> 32) as u32).unwrap();
    Session::new(params(auth), discriminator, seed)
}

/// Two sessions, and what an attacker has recorded.
struct Channel {
    now: BootNanos,
    ends: [Session; 2],
    /// When, to whom, what.
    flying: Vec<(BootNanos, usize, ControlPacket)>,
    /// To whom, what; also those that were lost.
    recorded: Vec<(usize, ControlPacket)>,
    /// Packets in a thousand that are lost.
    loss: u64,
    /// Greatest delay in milliseconds: packets overtake each other.
    delay: u64,
    /// Ends whose packets are all lost.
    silent: [bool; 2],
    ups: [u32; 2],
    downs: [Vec<Diagnostic>; 2],
    refused: Vec<Refused>,
    random: u64,
}

impl Channel {
    fn new(auth: [Option<Auth>; 2]) -> Self {
        let [a, b] = auth;
        let mut channel = Self {
            now: BootNanos(1_000_000 * MS),
            ends: [session(a, 7), session(b, 9)],
            flying: vec![],
            recorded: vec![],
            loss: 0,
            delay: 1,
            silent: [false; 2],
            ups: [0; 2],
            downs: [vec![], vec![]],
            refused: vec![],
            random: 0x1234_5678_9abc_def1,
        };
        for end in 0..2 {
            channel.start(end);
        }
        channel
    }

    fn up() -> Self {
        let mut channel = Self::new([Some(only(key(1))); 2]);
        channel.run(10_000);
        assert!(channel.both_up());
        channel
    }

    fn start(&mut self, end: usize) {
        self.drive(end, |session, now, out| {
            session.set_fresh(now, true, out);
            session.on_start(now, out);
        });
    }

    fn restart(&mut self, end: usize, auth: Auth, seed: u64) {
        self.ends[end] = session(Some(auth), seed);
        self.start(end);
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn drive(&mut self, end: usize, drive: impl FnOnce(&mut Session, BootNanos, &mut Vec<Action>)) {
        let mut out = vec![];
        drive(&mut self.ends[end], self.now, &mut out);
        for action in out {
            match action {
                Action::Send(packet) => {
                    self.recorded.push((1 - end, packet));
                    if !self.silent[end] && self.random(1000) >= self.loss {
                        let delay = self.random(self.delay * MS) + 1;
                        let arrival = BootNanos(self.now.0 + delay);
                        self.flying.push((arrival, 1 - end, packet));
                    }
                }
                Action::Up => self.ups[end] += 1,
                Action::Down(why) => self.downs[end].push(why),
            }
        }
    }

    fn hear(&mut self, end: usize, packet: &ControlPacket) -> Result<(), Refused> {
        let mut result = Ok(());
        self.drive(end, |session, now, out| {
            result = session.on_packet(now, packet, out);
        });
        self.refused.extend(result.err());
        result
    }

    fn run(&mut self, ms: u64) {
        let end = BootNanos(self.now.0 + ms * MS);
        loop {
            let arrival = (0..self.flying.len()).min_by_key(|&index| self.flying[index].0);
            let arrives = arrival.map_or(BootNanos(u64::MAX), |index| self.flying[index].0);
            let timer = usize::from(self.ends[1].next_deadline() < self.ends[0].next_deadline());
            let fires = self.ends[timer].next_deadline();
            if arrives.min(fires) > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(arrives.min(fires));
            match arrival.filter(|_| arrives <= fires) {
                Some(index) => {
                    let (_, to, packet) = self.flying.remove(index);
                    // Counted; one that was overtaken is refused.
                    let _refused = self.hear(to, &packet);
                }
                None => self.drive(timer, |session, now, out| session.on_timer(now, out)),
            }
        }
    }

    /// Runs, and replays packets of a recording at any time.
    fn run_with_replays(&mut self, ms: u64, recorded: &[(usize, ControlPacket)]) {
        for _ in 0..ms {
            let (to, packet) = recorded[self.random(recorded.len() as u64) as usize];
            let _refused = self.hear(to, &packet);
            self.run(1);
        }
    }

    fn both_up(&self) -> bool {
        self.ends.iter().all(Session::is_up)
    }

    fn went_down(&self) -> usize {
        self.downs.iter().map(Vec::len).sum()
    }
}

fn signed(key: Key, sequence: u32) -> ControlPacket {
    let mut packet = ControlPacket {
        state: State::Up,
        diagnostic: Diagnostic::ControlDetectionTimeExpired,
        poll: true,
        final_: false,
        control_plane_independent: false,
        demand: false,
        detect_mult: NonZeroU8::new(3).unwrap(),
        my_discriminator: NonZeroU32::new(7).unwrap(),
        your_discriminator: 9,
        desired_min_tx: Micros(50_000),
        required_min_rx: Micros(50_000),
        required_min_echo_rx: Micros(0),
        authentication: None,
    };
    let mut authenticator = Authenticator::new(only(key), 0);
    authenticator.sent = sequence.wrapping_sub(1);
    authenticator.sign(&mut packet);
    packet
}

#[test]
fn digest_is_that_of_the_packet_with_the_padded_key() {
    // Computed with Python's hashlib.
    let wanted: Digest = [
        0xf1, 0x81, 0x62, 0x25, 0xe4, 0xb2, 0x04, 0x72, 0x85, 0xdf, 0x39, 0xc6, 0x4e, 0xb8, 0x3e,
        0xd0, 0x8b, 0xce, 0x60, 0x32,
    ];
    let key = Key::new(1, b"open sesame");
    let digest = signed(key, 1).authentication.unwrap().digest;
    assert_eq!(digest, wanted);
    let long = Key::new(1, &[7; 30]);
    assert_eq!(long, Key::new(1, &[7; 20]));
    assert_ne!(long, Key::new(1, &[7; 19]));
    assert_eq!(format!("{key:?}"), "Key { id: 1, .. }");
}

#[test]
fn each_bit_is_covered_by_the_digest() {
    let auth = only(key(1));
    let packet = signed(key(1), 5);
    let mut bytes = [0; MAX_LENGTH];
    assert!(packet.emit(&mut bytes).len() == MAX_LENGTH && auth.verify(&packet).is_ok());
    for bit in 0..8 * MAX_LENGTH {
        let mut changed = bytes;
        changed[bit / 8] ^= 1 << (bit % 8);
        if let Ok(packet) = ControlPacket::parse(&changed) {
            assert!(auth.verify(&packet).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn each_refused_packet_has_its_reason() {
    let mut channel = Channel::up();
    let (_, genuine) = *channel.recorded.iter().rfind(|(to, _)| *to == 0).unwrap();
    let forged = |change: &dyn Fn(&mut ControlPacket)| {
        let mut packet = genuine;
        change(&mut packet);
        packet
    };
    for (packet, why) in [
        (
            forged(&|packet| packet.authentication = None),
            Refused::Missing,
        ),
        (signed(key(2), 1), Refused::UnknownKey),
        (signed(Key::new(1, b"guessed"), 1), Refused::Digest),
        (
            forged(&|packet| packet.state = State::AdminDown),
            Refused::Digest,
        ),
        (
            forged(&|packet| packet.state = State::Down),
            Refused::Digest,
        ),
        (genuine, Refused::Sequence),
    ] {
        assert_eq!(channel.hear(0, &packet), Err(why));
        assert!(channel.both_up(), "{why:?}");
    }
    channel.run(10_000);
    assert_eq!(channel.went_down(), 0);

    let mut without = session(None, 3);
    let mut out = vec![];
    without.on_start(channel.now, &mut out);
    let refused = without.on_packet(channel.now, &genuine, &mut out);
    assert_eq!(refused, Err(Refused::Unexpected));
    for (place, why) in Refused::ALL.into_iter().enumerate() {
        assert_eq!(place, why as usize, "{}", why.name());
    }
}

#[test]
fn sessions_come_up_and_stay_up() {
    let mut channel = Channel::up();
    channel.run(600_000);
    assert_eq!(
        (channel.ups, channel.went_down(), &channel.refused[..]),
        ([1, 1], 0, &[][..])
    );
    // At least as often as without authentication.
    assert!(channel.recorded.len() > 2 * 600_000 / 35);
}

#[test]
fn each_packet_has_the_next_number_whatever_causes_it() {
    let mut channel = Channel::up();
    channel.drive(0, |session, now, out| {
        session.set_transmit_interval(now, Duration::from_millis(50), out);
        session.set_path(now, super::super::Path::Hangs, out);
        session.coalesce_tx(BootNanos(now.0 + 40 * MS), BootNanos(now.0 + 80 * MS), out);
        session.admin_down(now, out);
        session.admin_up(now, out);
    });
    for end in 0..2 {
        let packets = channel.recorded.iter().filter(|(to, _)| *to != end);
        let numbers = packets.map(|(_, packet)| packet.authentication.unwrap().sequence);
        let numbers: Vec<u32> = numbers.collect();
        let follow = |pair: &[u32]| pair[1] == pair[0].wrapping_add(1);
        assert!(numbers.windows(2).all(follow));
    }
}

#[test]
fn timers_change_one_side_at_a_time_and_no_session_ends() {
    let mut channel = Channel::up();
    for (interval_ms, detect_mult) in [(100, 3), (20, 2), (35, 10), (10, 2), (35, 3)] {
        let timers = Timers {
            detect_mult: NonZeroU8::new(detect_mult).unwrap(),
            interval: Duration::from_millis(interval_ms),
        };
        for end in 0..2 {
            channel.drive(end, |session, now, out| {
                session.set_timers(now, timers, timers.interval, out);
            });
            channel.run(5_000);
            assert!(channel.both_up());
        }
        let detection = timers.interval * u32::from(detect_mult);
        for session in &channel.ends {
            assert_eq!(session.detection_time(), detection);
        }
    }
    assert_eq!((channel.went_down(), &channel.refused[..]), (0, &[][..]));
}

#[test]
fn a_session_waits_in_init_until_it_is_fresh() {
    let mut channel = Channel::new([Some(only(key(1))); 2]);
    let now = channel.now;
    for end in &mut channel.ends {
        end.set_fresh(now, false, &mut vec![]);
    }
    channel.run(30_000);
    for end in &channel.ends {
        assert_eq!(end.state(), State::Init);
    }
    channel.drive(0, |session, now, out| session.set_fresh(now, true, out));
    channel.run(10_000);
    assert!(channel.ends[0].is_up() && channel.ends[1].state() == State::Init);
    channel.drive(1, |session, now, out| session.set_fresh(now, true, out));
    assert!(channel.both_up(), "at once");
    // One that is up does not go down.
    channel.drive(1, |session, now, out| session.set_fresh(now, false, out));
    channel.run(10_000);
    assert!(channel.both_up() && channel.ups == [1, 1] && channel.went_down() == 0);
    // It does not come up again.
    channel.silent[0] = true;
    channel.run(500);
    channel.silent[0] = false;
    channel.run(20_000);
    assert_eq!(channel.ends[1].state(), State::Init);
}

#[test]
fn packets_of_the_same_session_do_not_count_twice() {
    let mut channel = Channel::up();
    let recorded = channel.recorded.clone();
    channel.run_with_replays(10_000, &recorded);
    assert!(channel.both_up() && channel.went_down() == 0);
    assert!(channel.refused.contains(&Refused::Sequence));
    // They do not keep it up.
    let recorded = channel.recorded.clone();
    channel.silent[1] = true;
    channel.run_with_replays(140, &recorded);
    assert_eq!(channel.downs[0], [Diagnostic::ControlDetectionTimeExpired]);
}

#[test]
fn packets_of_an_earlier_session_bring_nobody_up_and_end_nothing() {
    let mut channel = Channel::up();
    // A session of each kind of end.
    channel.drive(1, |session, now, out| session.admin_down(now, out));
    channel.run(2000);
    channel.drive(1, |session, now, out| session.admin_up(now, out));
    channel.run(5000);
    assert!(channel.both_up());
    channel.silent[1] = true;
    channel.run(1000);
    channel.silent[1] = false;
    channel.run(5000);
    assert!(channel.both_up());
    let recorded = channel.recorded.clone();
    let states = |state| recorded.iter().any(|(_, packet)| packet.state == state);
    assert!([State::AdminDown, State::Down, State::Init, State::Up].map(states) == [true; 4]);

    let before = channel.went_down();
    channel.run_with_replays(20_000, &recorded);
    assert_eq!((channel.both_up(), channel.went_down()), (true, before));

    // The other side dies: this one goes down, and not up again.
    channel.silent[1] = true;
    channel.run(1000);
    let ups = channel.ups[0];
    channel.run_with_replays(60_000, &recorded);
    assert!(!channel.ends[0].is_up() && channel.ups[0] == ups);

    // The other side lives again, and the attacker does not give up.
    channel.silent[1] = false;
    channel.run_with_replays(10_000, &recorded);
    channel.run(5000);
    assert!(channel.both_up());
}

#[test]
fn an_agent_that_restarts_is_taken_up_again_at_once() {
    for ends in [false, true] {
        let mut channel = Channel::up();
        if ends {
            channel.drive(1, |session, now, out| session.admin_down(now, out));
            channel.run(50);
        }
        channel.restart(1, only(key(1)), 11);
        channel.run(500);
        assert!(channel.both_up(), "it says that it ends: {ends}");
    }
}

#[test]
fn an_end_is_told_under_the_old_discriminator_and_the_next_session_has_a_new_one() {
    let mut channel = Channel::up();
    let before = channel.ends.each_ref().map(Session::local_discriminator);
    channel.silent[1] = true;
    channel.run(140);
    channel.silent[1] = false;
    assert_eq!(channel.downs[0], [Diagnostic::ControlDetectionTimeExpired]);
    assert_eq!(channel.downs[1], [Diagnostic::NeighborSignaledSessionDown]);
    channel.run(500);
    assert!(channel.both_up());
    let after = channel.ends.each_ref().map(Session::local_discriminator);
    assert!(before[0] != after[0] && before[1] != after[1]);
}

#[test]
fn keys_change_without_a_break() {
    let (old, new) = (key(1), key(2));
    let both = |current, other| Auth {
        current,
        other: Some(other),
    };
    let steps = [only(old), both(old, new), both(new, old), only(new)];
    for pair in steps.windows(2) {
        let mut channel = Channel::new([Some(pair[0]), Some(pair[1])]);
        channel.run(10_000);
        assert!(channel.both_up() && channel.refused.is_empty());
    }
    let mut channel = Channel::new([Some(steps[0]), Some(steps[3])]);
    channel.run(10_000);
    assert!(channel.ups == [0, 0] && channel.refused.contains(&Refused::UnknownKey));
    // A new key with the number of the old one.
    let renamed = Key::new(1, b"new");
    let mut channel = Channel::new([Some(both(old, renamed)), Some(both(renamed, old))]);
    channel.run(10_000);
    assert!(channel.both_up());
    // One side without authentication.
    let mut channel = Channel::new([Some(steps[0]), None]);
    channel.run(10_000);
    assert!(channel.ups == [0, 0]);
    assert!(channel.refused.contains(&Refused::Unexpected));
    assert!(channel.refused.contains(&Refused::Missing));
}

#[test]
fn numbers_are_circular_and_lie_within_the_window() {
    let mut channel = Channel::new([Some(only(key(1))); 2]);
    let start = u32::MAX - 200;
    channel.ends[1].auth.as_mut().unwrap().sent = start;
    channel.run(20_000);
    assert!(channel.both_up() && channel.went_down() == 0);
    assert!(
        channel.ends[1].auth.as_ref().unwrap().sent < start,
        "past zero"
    );

    for (ahead, accepted) in [
        (0, false),
        (1, true),
        (9, true),
        (10, false),
        (u32::MAX, false),
    ] {
        let mut auth = Authenticator::new(only(key(1)), 1);
        auth.accept(u32::MAX - 3, BootNanos(MS));
        let sequence = (u32::MAX - 3).wrapping_add(ahead);
        let three = NonZeroU8::new(3).unwrap();
        let check = |now, up| auth.in_order(BootNanos(now), up, three, sequence).is_ok();
        assert_eq!(check(0, true), accepted, "{ahead}");
        assert_eq!(check(2 * MS, true), accepted, "{ahead}: while up, late");
        assert_eq!(
            check(0, false),
            (1..=10).contains(&ahead),
            "{ahead}: not up"
        );
        assert!(check(MS, false), "forgotten");
    }
}

#[test]
fn a_loss_of_many_packets_does_not_delay_the_next_session() {
    for silence in [120, 200, 240, 500, 1000, 4000] {
        let mut channel = Channel::up();
        for _ in 0..5 {
            channel.silent = [true; 2];
            channel.run(silence);
            // A single packet comes through.
            channel.silent = [false; 2];
            channel.run(40);
            channel.silent = [true; 2];
            channel.run(silence);
            channel.silent = [false; 2];
            channel.run(500);
            assert!(channel.both_up(), "after {silence} ms");
            channel.run(HURRY.as_millis() as u64);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sessions_recover_from_loss_reordering_replays_and_restarts(
        loss in 0_u64..600, delay in 1_u64..60, random: u64,
        restarts in prop::collection::vec((0_usize..2, 0_u64..3000), 0..4),
    ) {
        let mut channel = Channel::up();
        let old = channel.recorded.clone();
        channel.random = random | 1;
        (channel.loss, channel.delay) = (loss, delay);
        for (place, (end, after)) in restarts.into_iter().enumerate() {
            channel.run_with_replays(after, &old);
            channel.restart(end, only(key(1)), 100 + place as u64);
        }
        channel.run_with_replays(5000, &old);
        (channel.loss, channel.delay) = (0, 1);
        channel.run(7000);
        prop_assert!(channel.both_up());
        // Nothing that was recorded keeps up or brings up one whose other side is dead.
        let all = channel.recorded.clone();
        channel.silent[1] = true;
        channel.run(2);
        channel.flying.clear();
        channel.run_with_replays(140, &all);
        prop_assert!(!channel.ends[0].is_up());
        let ups = channel.ups[0];
        channel.run_with_replays(5000, &all);
        prop_assert_eq!(channel.ups[0], ups);
    }
}
