//! Takeovers: which node becomes the owner, why, and the reports of it.

use super::*;

#[test]
fn takeover_raises_the_lease_before_it_announces() {
    let mut bench = Bench::new(params(0, false));
    let actions = bench.run(at(400));
    let place = |wanted: fn(&Action) -> bool| actions.iter().position(wanted).unwrap();
    let answer_until =
        place(|action| matches!(action, Action::SetAnswerUntil(until) if until.0 > 0));
    let announce = place(|action| *action == Action::Announce);
    assert!(
        answer_until < announce,
        "the egress program lets no announcement out before"
    );
}

#[test]
fn lease_of_long_timers_is_renewed_in_steps_that_the_programs_believe() {
    let mut long = params(0, false);
    long.vrrp.interval = Centiseconds::MAX;
    let mut bench = Bench::new(long);
    let (mut now, mut owned, mut steps) = (at(0), at(0), 0);
    while now < at(400_000) {
        now = bench.node.next_deadline();
        bench.out.clear();
        bench.node.on_timer(now, &mut bench.out);
        assert!(bench.node.next_deadline() > now, "it would never wait");
        if bench.node.state() == State::Active {
            let answer_until = bench.node.answer_until();
            assert!(answer_until.since(now) <= MAX_LEASE && lease_stands(answer_until, now));
            owned = if owned == at(0) { now } else { owned };
            let sets = |action: &&Action| matches!(action, Action::SetAnswerUntil(_));
            steps += bench.out.iter().filter(sets).count();
        }
    }
    // Once every two seconds from the takeover on.
    let seconds = now.since(owned).as_secs() as usize;
    assert!(
        (seconds / 2 - 2..seconds / 2 + 20).contains(&steps),
        "{steps} in {seconds} s"
    );
    // It hangs for longer than the kernel answers, but for less than the others wait.
    now = bench.node.answer_until().after(Duration::from_secs(1));
    bench.out.clear();
    bench.node.on_timer(now, &mut bench.out);
    assert_eq!(bench.node.state(), State::Active);
    assert!(lease_stands(bench.node.answer_until(), now));
}

#[test]
fn lease_that_no_agent_sets_is_not_taken_over() {
    let mut node = Node::new(&params(0, false));
    let far = at(0).after(LONGEST_LEASE * 2);
    node.on_start(at(0), far, Masks::default(), &mut vec![]);
    assert_eq!(node.state(), State::Backup);
}

#[test]
fn priority_is_a_quarter_while_the_own_server_is_not_ready() {
    let mut bench = Bench::new(params(0, false));
    bench.probe(at(1), 0, Probe::Refused);
    assert_eq!(bench.node.priority(), 62);
    bench.probe(at(2), 0, Probe::Ready);
    assert_eq!(bench.node.priority(), 250);
}

#[test]
fn vip_leaves_an_owner_whose_server_failed_only_for_one_whose_is_ready() {
    for (own_ready, leaves) in [(true, true), (false, false)] {
        let mut bench = Bench::new(params(1, false));
        bench.probe(at(1), 0, Probe::Refused);
        let own = if own_ready {
            Probe::Ready
        } else {
            Probe::Refused
        };
        bench.probe(at(1), 1, own);
        for tick in 1..20 {
            bench.advert(at(tick * 50), 0, 62);
            bench.run(at(tick * 50 + 49));
        }
        let active = bench.node.state() == State::Active;
        assert_eq!(active, leaves, "own ready: {own_ready}");
    }
}

#[test]
fn owner_that_lacks_something_gives_the_vip_up_at_once_and_comes_back() {
    // What the members know of it, a node finds out itself.
    let all = Fault::ALL.into_iter();
    for fault in all.filter(|fault| *fault != Fault::Unconfirmed) {
        let mut bench = owner(params(0, false));
        let actions = bench.fault(at(2001), fault, true);
        assert!(
            actions.contains(&Action::SetAnswerUntil(BootNanos::ZERO)),
            "{fault:?}"
        );
        assert_eq!(bench.node.faults().collect::<Vec<_>>(), [fault]);
        bench.run(at(5000));
        assert_eq!(bench.node.state(), State::Initialize);
        bench.fault(at(5001), fault, false);
        bench.run(at(6000));
        assert_eq!(bench.node.state(), State::Active);
    }
}

#[test]
fn an_owner_that_stays_after_all_is_believed() {
    let mut bench = Bench::new(params(1, false));
    bench.advert(at(1), 0, 250);
    bench.advert(at(10), 0, PRIORITY_RESIGNED);
    bench.advert(at(11), 0, 250);
    bench.run(at(300));
    assert_eq!(bench.node.state(), State::Backup);
}

#[test]
fn nodes_that_disagree_about_who_is_next_do_not_take_over_at_once() {
    // Neither hears the other, so each takes itself for the next.
    let claims = [1, 2].map(|own| {
        let mut bench = Bench::new(params(own, true));
        bench.advert(at(0), 0, 250);
        bench.advert(at(50), 0, PRIORITY_RESIGNED);
        bench.node.next_claim()
    });
    assert_eq!(claims[1].since(claims[0]), Duration::from_micros(12_500));
}

#[test]
fn what_wakes_an_owner_after_its_lease_does_not_move_it_on() {
    let (mut a, b) = up();
    assert_eq!(a.node.state(), State::Active);
    let late = a.node.answer_until().after(Duration::from_millis(1));
    let session = b.node.bfd(index(0)).unwrap();
    let packet = ControlPacket {
        state: vip_common::wire::bfd::State::Up,
        diagnostic: Diagnostic::None,
        poll: true,
        final_: false,
        control_plane_independent: false,
        demand: false,
        detect_mult: NonZeroU8::new(3).unwrap(),
        my_discriminator: session.local_discriminator(),
        your_discriminator: a.node.bfd(index(1)).unwrap().local_discriminator().get(),
        desired_min_tx: vip_common::wire::bfd::Micros(50_000),
        required_min_rx: vip_common::wire::bfd::Micros(50_000),
        required_min_echo_rx: vip_common::wire::bfd::Micros(0),
        authentication: None,
    };
    let source = index(1);
    let actions = a.event(late, Input::Bfd { source, packet });
    assert_eq!(actions[0], Action::SetAnswerUntil(BootNanos::ZERO));
    assert_eq!(a.node.state(), State::Backup);
}

/// The report of a takeover.
fn takeover(actions: &[Action]) -> Option<Takeover> {
    actions.iter().find_map(|action| match action {
        Action::Report(Report::Active(takeover)) => Some(*takeover),
        _ => None,
    })
}

#[test]
fn takeover_names_whose_the_vip_was_and_why_it_is_not_any_more() {
    let mut bench = Bench::new(params(1, false));
    assert_eq!(takeover(bench.run(at(2000))), Some(Takeover::Nobody));

    let node = index(0);
    let mut bench = Bench::new(params(1, false));
    bench.advert(at(10), 0, 250);
    bench.advert(at(110), 0, 250);
    let silent = takeover(bench.run(at(2000)));
    let after = Duration::from_millis(300) + Duration::from_millis(100) * 36 / 256;
    let why = Departure::Silent;
    assert_eq!(silent, Some(Takeover::From { node, why, after }));

    let mut bench = Bench::new(params(1, false));
    bench.advert(at(10), 0, 250);
    bench.advert(at(60), 0, PRIORITY_RESIGNED);
    let after = Duration::from_millis(100) * 36 / 256;
    let why = Departure::Resigned;
    let resigned = takeover(bench.run(at(2000)));
    assert_eq!(resigned, Some(Takeover::From { node, why, after }));

    // The next takeover does not count this former owner again.
    bench.fault(at(2001), Fault::Carrier, true);
    bench.fault(at(2002), Fault::Carrier, false);
    assert_eq!(takeover(bench.run(at(4000))), Some(Takeover::Nobody));
}

#[test]
fn loss_has_its_cause() {
    let loss = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Report(Report::Backup(loss)) => Some(*loss),
            _ => None,
        })
    };
    let mut bench = owner(params(1, false));
    // The other one has time to yield.
    for (time, wanted) in [
        (2001, None),
        (2101, None),
        (2301, Some(Loss::Outranked(index(0)))),
    ] {
        bench.run(at(time));
        assert_eq!(loss(bench.advert(at(time), 0, 250)), wanted, "{time}");
    }
    let mut bench = owner(params(1, false));
    let fault = Fault::Carrier;
    let actions = bench.fault(at(2001), fault, true);
    assert_eq!(loss(actions), Some(Loss::Fault(fault)));
    let mut bench = owner(params(1, false));
    bench.out.clear();
    bench.node.on_timer(at(60_000), &mut bench.out);
    assert_eq!(loss(&bench.out), Some(Loss::Overslept));
    let mut bench = owner(params(1, false));
    bench.event(at(2001), Input::Shutdown);
    assert_eq!(loss(bench.run(at(10_000))), Some(Loss::Shutdown));
}

#[test]
fn successor_of_an_owner_that_bfd_lost_is_believed_at_once() {
    let mut nodes = [0, 1, 2].map(|own| Bench::new(params(own, true)));
    let now = exchange(&mut nodes, at(0), 3000, 1);
    assert_eq!(nodes[2].node.owner(), Some(index(0)));
    // It is dead: started, it would be another one.
    nodes[0].node = Node::new(&params(0, true));
    let mut now = now;
    while nodes[1].node.state() != State::Active {
        now = exchange(&mut nodes, now, 1, 1);
    }
    // The last advertisement of the former owner, with a higher priority, has not expired yet.
    exchange(&mut nodes, now, 2, 1);
    assert_eq!(nodes[2].node.owner(), Some(index(1)));
}

#[test]
fn each_change_of_owner_is_told_with_its_cause() {
    let told = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Report(Report::Owner { owner, before }) => {
                Some((*owner, before.map(|was| (was.node, was.why))))
            }
            _ => None,
        })
    };
    let (first, second) = (index(0), index(1));
    let mut bench = Bench::new(params(2, false));
    let heard = told(bench.advert(at(10), 0, 220));
    assert_eq!(heard, Some((Some(first), None)));
    assert_eq!(told(bench.advert(at(110), 0, 220)), None);
    let outranked = told(bench.advert(at(150), 1, 230));
    let before = Some((first, Departure::Outranked));
    assert_eq!(outranked, Some((Some(second), before)));
    let resigned = told(bench.advert(at(200), 1, PRIORITY_RESIGNED));
    let before = Some((second, Departure::Resigned));
    assert_eq!(resigned, Some((None, before)));
}
