use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

fn params(interval_ms: u64, detect_mult: u8) -> Params {
    Params {
        detect_mult: NonZeroU8::new(detect_mult).unwrap(),
        interval: Duration::from_millis(interval_ms),
        auth: None,
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
    /// Packets from an end that is silent are lost.
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

    fn drive(&mut self, end: usize, drive: impl FnOnce(&mut Session, BootNanos, &mut Vec<Action>)) {
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

    fn hear(&mut self, end: usize, packet: &ControlPacket) {
        self.drive(end, |session, now, out| {
            assert_eq!(session.on_packet(now, packet, out), Ok(()));
        });
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
                self.hear(to, &packet);
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
        assert_eq!(session.on_packet(at(1), &packet, &mut out), Ok(()));
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
    wire.hear(0, &packet);
    assert!(wire.both_up());
    // One that has forgotten this side's discriminator is down, and means it.
    packet.your_discriminator = 0;
    wire.hear(0, &packet);
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
        assert_eq!(session.on_packet(at(1), &packet, &mut out), Ok(()));
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
    // The silent one learns at once that it is not heard.
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
fn state_of_the_path_is_told_at_once_and_does_not_end_the_session() {
    let mut wire = up(params(50, 3), params(50, 3));
    assert_eq!(wire.ends[1].remote_path(), Some(Path::Serves));
    for path in [Path::Drains, Path::Hangs, Path::Serves] {
        wire.drive(0, |session, now, out| session.set_path(now, path, out));
        wire.run(Duration::from_millis(10));
        assert_eq!(wire.ends[1].remote_path(), Some(path));
        wire.run(Duration::from_secs(2));
        assert!(wire.both_up());
        assert_eq!(wire.ends[1].remote_path(), Some(path));
    }
}

#[test]
fn restarted_peer_is_taken_up_again() {
    let mut wire = up(params(50, 3), params(50, 3));
    wire.ends[1] = session(params(50, 3), 11);
    wire.drive(1, |session, now, out| session.on_start(now, out));
    // Its first packet proves nothing. The detection time of its old session does.
    wire.run(Duration::from_millis(90));
    assert_eq!(wire.downs[0], []);
    wire.run(Duration::from_millis(70));
    assert_eq!(wire.downs[0], [Diagnostic::ControlDetectionTimeExpired]);
    // This side sends a packet at once, so both are up again in less than a second.
    wire.run(Duration::from_millis(150));
    assert!(wire.both_up());
}

#[test]
fn a_packet_without_a_known_discriminator_does_not_end_a_session() {
    for state in [State::Down, State::AdminDown] {
        let mut wire = up(params(50, 3), params(50, 3));
        let mut forged = wire.ends[1].packet(false);
        forged.state = state;
        forged.your_discriminator = 0;
        forged.my_discriminator = NonZeroU32::new(10).unwrap();
        for _ in 0..1000 {
            wire.hear(0, &forged);
            wire.run(Duration::from_millis(1));
        }
        assert!(
            wire.both_up() && wire.downs == [vec![], vec![]],
            "{state:?}"
        );
        // Nor does it keep a session up whose other side is gone.
        wire.silent[1] = true;
        for _ in 0..160 {
            wire.hear(0, &forged);
            wire.run(Duration::from_millis(1));
        }
        assert_eq!(wire.downs[0], [Diagnostic::ControlDetectionTimeExpired]);
    }
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
    session.coalesce_tx(BootNanos(sent.0 + 37 * MS), other, &mut out);
    assert_eq!((out.len(), session.next_packet()), (0, due), "too early");
    let now = BootNanos(sent.0 + 38 * MS);
    session.coalesce_tx(now, other, &mut out);
    assert_eq!((out.len(), session.next_packet()), (1, other));
    // The other session is slower than this one may be.
    let now = BootNanos(now.0 + 45 * MS);
    session.coalesce_tx(now, now.after(Duration::from_millis(51)), &mut out);
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
            let changed = Duration::from_millis(interval);
            wire.drive(end, |session, now, out| session.set_transmit_interval(now, changed, out));
            wire.run(Duration::from_millis(37));
        }
        wire.run(Duration::from_secs(12));
        prop_assert!(wire.both_up());
        prop_assert_eq!(&wire.downs, &[vec![], vec![]]);
        for (one, other) in [(0, 1), (1, 0)] {
            let wanted = wire.ends[one].usual_min_tx.max(wire.ends[other].params.interval());
            prop_assert_eq!(wire.ends[one].transmit_interval(), wanted.duration());
        }
    }

    #[test]
    fn no_peer_loses_patience_before_it_is_said_to(
        a in 10_u64..500, b in 10_u64..500, mult in 2_u8..6, delay in 0_u64..100,
        changes in prop::collection::vec((0_usize..2, 10_u64..500, 0_u64..30), 0..4),
        silent_after in prop_oneof![0_u64..40, 0_u64..2000],
    ) {
        let delay = MS * 8 * delay / 100;
        let mut wire = Wire::new(params(a, mult), params(b, 3), [delay, delay]);
        wire.run(Duration::from_secs(12));
        for (end, interval, then) in changes {
            let changed = Duration::from_millis(interval);
            wire.drive(end, |session, now, out| session.set_transmit_interval(now, changed, out));
            wire.run(Duration::from_millis(then));
        }
        wire.run(Duration::from_millis(silent_after));
        wire.silent[0] = true;
        // As its packets so far allow; packets on their way still arrive.
        let patience = wire.ends[0].remote_detection_deadline().unwrap();
        while wire.downs[1].is_empty() {
            let before = wire.now;
            wire.run(Duration::from_micros(500));
            prop_assert!(
                wire.downs[1].is_empty() || patience <= before.after(Duration::from_micros(500)),
                "gone at {:?}, not before {:?} was expected", wire.now, patience
            );
        }
    }

    #[test]
    fn timers_change_on_both_sides_and_nothing_goes_down_or_is_believed_for_too_long(
        a in 10_u64..1000, b in 10_u64..1000, mult in 2_u8..6,
        delay in 0_u64..100,
        changes in prop::collection::vec((0_usize..2, 10_u64..1000, 2_u8..10, 0_u64..300), 0..8),
        silent_after in prop_oneof![0_u64..40, 0_u64..4000],
    ) {
        let delay = MS * 8 * delay / 100;
        let mut wire = Wire::new(params(a, mult), params(b, 3), [delay, delay]);
        wire.run(Duration::from_secs(12));
        prop_assert!(wire.both_up());
        for (end, interval, detect_mult, then) in changes {
            let timers = params(interval, detect_mult).timers();
            wire.drive(end, |session, now, out| {
                session.set_timers(now, timers, timers.interval, out);
            });
            // The owner must be able to renew its lease before that ends.
            let now = wire.now;
            for session in &wire.ends {
                let until = session.believed_until().unwrap();
                prop_assert!(until > now && until > session.next_packet());
            }
            wire.run(Duration::from_millis(then));
        }
        wire.run(Duration::from_millis(silent_after));
        prop_assert!(wire.both_up());
        prop_assert_eq!(&wire.downs, &[vec![], vec![]]);
        wire.silent[0] = true;
        let until = wire.ends[0].believed_until().unwrap();
        let patience = wire.ends[0].remote_detection_deadline().unwrap();
        prop_assert!(until < patience);
        while wire.downs[1].is_empty() {
            let before = wire.now;
            wire.run(Duration::from_micros(500));
            prop_assert!(
                wire.downs[1].is_empty() || patience <= before.after(Duration::from_micros(500)),
                "gone at {:?}, not before {:?} was expected", wire.now, patience
            );
        }
    }
}

#[test]
fn changed_timers_count_as_section_6_8_3_says() {
    let mut wire = up(params(100, 3), params(100, 3));
    let set = |interval_ms, detect_mult| {
        let timers = params(interval_ms, detect_mult).timers();
        move |session: &mut Session, now, out: &mut Vec<Action>| {
            session.set_timers(now, timers, timers.interval, out);
        }
    };
    let ms = Duration::from_millis;
    // Answers take some time.
    wire.delay = [MS, 50 * MS];
    wire.drive(0, set(20, 5));
    assert_eq!(wire.ends[0].detection_time(), ms(300), "the longer one");
    wire.run(ms(45));
    assert_eq!(wire.ends[0].detection_time(), ms(300));
    wire.run(ms(1000));
    assert_eq!(
        wire.ends[0].transmit_interval(),
        ms(100),
        "the other side's"
    );
    assert_eq!(wire.ends[1].detection_time(), ms(500));
    assert!(!wire.ends[0].polling && wire.both_up());
    assert_eq!(wire.ends[0].detection_time(), ms(300), "the other side's");
    wire.drive(1, set(20, 3));
    wire.run(ms(3000));
    let times = wire.ends.each_ref().map(Session::detection_time);
    assert_eq!(times, [ms(60), ms(100)]);
    // A longer one: it waits at once, and sends less often after the answer.
    wire.drive(0, set(200, 2));
    assert_eq!(wire.ends[0].detection_time(), ms(600));
    assert_eq!(wire.ends[0].transmit_interval(), ms(20));
    wire.run(ms(3000));
    assert_eq!(wire.ends[0].transmit_interval(), ms(200));
    let times = wire.ends.each_ref().map(Session::detection_time);
    assert_eq!(times, [ms(600), ms(400)]);
    assert_eq!(wire.downs, [vec![], vec![]]);
}

#[test]
fn round_trip_is_measured_by_each_poll_sequence() {
    let mut wire = up(params(50, 3), params(50, 3));
    let trip = Some(Duration::from_millis(2));
    assert_eq!(wire.ends.each_ref().map(Session::round_trip), [trip, trip]);
    wire.delay = [5 * MS, 5 * MS];
    for end in 0..2 {
        wire.drive(end, |session, now, out| {
            session.set_transmit_interval(now, Duration::from_millis(60), out);
        });
    }
    wire.run(Duration::from_secs(1));
    let trip = Some(Duration::from_millis(10));
    assert_eq!(wire.ends.each_ref().map(Session::round_trip), [trip, trip]);
}

#[test]
fn session_is_settled_when_it_has_been_up_for_a_while_and_no_timers_change() {
    let mut wire = Wire::new(params(50, 3), params(50, 3), [MS, MS]);
    while !wire.both_up() {
        wire.run(Duration::from_millis(10));
    }
    assert!(!wire.ends[0].is_settled(wire.now));
    wire.run(HURRY);
    assert!(wire.ends[0].is_settled(wire.now));
    wire.drive(0, |session, now, out| {
        session.set_transmit_interval(now, Duration::from_millis(60), out);
    });
    assert!(!wire.ends[0].is_settled(wire.now), "it waits for an answer");
    wire.run(Duration::from_secs(1));
    assert!(wire.ends[0].is_settled(wire.now));
}
