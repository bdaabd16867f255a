//! Claims of the VIP by configured nodes whose agent is not heard, and how claims end.

use super::*;

fn mac(last: u8) -> Mac {
    Mac::from_wire([2, 9, 9, 9, 9, last])
}

/// A host with that Ethernet address claims the VIP.
fn by(last: u8, node: Option<usize>, agent: bool) -> Input {
    Input::Claim {
        mac: mac(last),
        node: node.map(index),
        agent,
    }
}

/// New claims: the last byte of the MAC, and the claimant; `None` at the end of a claim.
fn told(actions: &[Action]) -> Vec<(u8, Option<Claimant>)> {
    let told = |action: &Action| match action {
        Action::Report(Report::Conflict {
            mac,
            claimant,
            fresh: true,
            ..
        }) => Some((mac.to_wire()[5], Some(*claimant))),
        Action::Report(Report::ConflictOver { mac, .. }) => Some((mac.to_wire()[5], None)),
        _ => None,
    };
    actions.iter().filter_map(told).collect()
}

/// A backup that hears the first node own the VIP.
fn backup(bench: &mut Bench, from: u64, to: u64) {
    for tenth in from / 100..to / 100 {
        bench.advert(at(tenth * 100), 0, 250);
        bench.run(at(tenth * 100 + 99));
    }
}

#[test]
fn a_node_that_answers_for_the_vip_of_another_is_no_stranger() {
    let mut bench = Bench::new(params(1, true));
    backup(&mut bench, 1000, 2000);
    let news = told(bench.event(at(2000), by(1, Some(2), true)));
    let unheard = Claimant::Unheard {
        node: index(2),
        owner: index(0),
    };
    assert_eq!(news, [(1, Some(unheard))]);
    assert_eq!(told(bench.event(at(2001), by(1, Some(2), true))), []);
    // Its kernel refuses the next datagram.
    let news = told(bench.event(at(2002), by(1, Some(2), false)));
    assert_eq!(news, [(1, Some(Claimant::NoAgent(index(2))))]);
}

#[test]
fn a_node_that_may_be_a_hidden_owner_is_not_reported() {
    let mut bench = Bench::new(params(1, true));
    bench.run(at(200));
    assert_eq!(told(bench.event(at(200), by(1, Some(2), true))), []);
    assert_eq!(told(bench.run(at(60_000))), []);
}

#[test]
fn the_claim_of_a_node_is_over_once_its_agent_is_heard() {
    let mut nodes = [0, 1, 2].map(|own| Bench::new(params(own, true)));
    let mut now = exchange(&mut nodes, at(0), 5000, 1);
    // The third one does not get to run.
    now = exchange(&mut nodes[..2], now, 1000, 1);
    let news = told(nodes[1].event(now, by(1, Some(2), true)));
    assert_eq!(news.len(), 1);
    let mut over = Vec::new();
    for _ in 0..40 {
        now = exchange(&mut nodes, now, 100, 1);
        let bench = &mut nodes[1];
        bench.node.on_timer(now, &mut bench.out);
        over.extend(told(&bench.out));
        if !over.is_empty() {
            break;
        }
        // `exchange` has dropped the reports meanwhile.
        if bench.node.conflicts.next_lapse().is_none() {
            over.push((1, None));
        }
    }
    assert_eq!(over, [(1, None)], "within four seconds");
}

/// A host claims the VIP.
fn claim(node: Option<BackendIndex>) -> Input {
    Input::Claim {
        mac: Mac::from_wire([2, 9, 9, 9, 9, 9]),
        node,
        agent: false,
    }
}

/// Numbers of reported conflicts, and of announcements against them.
fn conflicts(actions: &[Action]) -> (usize, usize) {
    let told = actions
        .iter()
        .filter(|action| matches!(action, Action::Report(Report::Conflict { .. })));
    let defended = actions.iter().filter(|action| **action == Action::Announce);
    (told.count(), defended.count())
}

#[test]
fn node_without_an_agent_that_has_the_vip_is_waited_for_and_named_once_it_cannot_be_the_owner() {
    let mut bench = Bench::new(Params {
        probe_address: true,
        ..params(0, true)
    });
    // It may be the owner, whose advertisement is still to come.
    let early = bench.event(at(50), claim(Some(index(1))));
    assert_eq!(conflicts(early), (0, 0));
    for second in 1..5 {
        bench.run(at(second * 1000));
        let later = bench.event(at(second * 1000 + 10), claim(Some(index(1))));
        assert_eq!(conflicts(later), (1, 0), "after {second} s");
        assert_eq!(bench.node.state(), State::Backup, "after {second} s");
    }
    bench.run(at(10_000));
    assert_eq!(bench.node.state(), State::Active);
    let against = bench.event(at(10_001), claim(Some(index(1))));
    assert_eq!(conflicts(against), (1, 1));
}

#[test]
fn node_whose_agent_is_heard_makes_no_claim() {
    // By its advertisements.
    let mut bench = Bench::new(params(0, false));
    bench.advert(at(10), 1, 220);
    let owner = bench.event(at(11), claim(Some(index(1))));
    assert_eq!(conflicts(owner), (0, 0));
    let another = bench.event(at(12), claim(Some(index(2))));
    assert_eq!(conflicts(another), (1, 0));
    // By BFD: an owner that was until a moment ago.
    let (mut first, _) = up();
    let heard = first.event(at(4001), claim(Some(index(1))));
    assert_eq!(conflicts(heard), (0, 0));
}

#[test]
fn stranger_keeps_the_vip_from_being_claimed_and_is_answered_once_in_ten_seconds_later() {
    let mut bench = Bench::new(Params {
        probe_address: true,
        ..params(0, false)
    });
    for second in 0..5 {
        bench.event(at(second * 1000 + 50), claim(None));
        bench.run(at(second * 1000 + 1000));
        assert_eq!(bench.node.state(), State::Backup, "after {second} s");
    }
    bench.run(at(10_000));
    assert_eq!(bench.node.state(), State::Active);
    let mut defended = 0;
    for second in 0..25 {
        let actions = bench.event(at(20_000 + second * 1000), claim(None));
        defended += usize::from(actions.contains(&Action::Announce));
        bench.run(at(20_000 + second * 1000 + 999));
    }
    assert_eq!(defended, 3);
    assert_eq!(bench.node.state(), State::Active, "a claim moves nothing");
}

#[test]
fn claim_is_news_once_and_over_when_nobody_answers_any_more() {
    let mut bench = owner(params(0, false));
    let told = |actions: &[Action]| {
        let mut reports = actions.iter().filter_map(|action| match action {
            Action::Report(Report::Conflict { fresh, .. }) => Some(Some(*fresh)),
            Action::Report(Report::ConflictOver { .. }) => Some(None),
            _ => None,
        });
        let first = reports.next();
        assert_eq!(reports.next(), None);
        first
    };
    for second in 0..5 {
        let time = at(10_000 + second * 3000);
        assert_eq!(told(bench.run(time)), None);
        let news = told(bench.event(time, claim(None)));
        assert_eq!(news, Some(Some(second == 0)), "after {second}");
    }
    assert_eq!(told(bench.run(at(10_000 + 4 * 3000 + 11_999))), None);
    assert_eq!(told(bench.run(at(10_000 + 4 * 3000 + 12_000))), Some(None));
    assert_eq!(told(bench.run(at(100_000))), None);
    assert_eq!(
        told(bench.event(at(100_000), claim(None))),
        Some(Some(true))
    );
}

#[test]
fn another_owner_is_named_once_it_is_no_handover() {
    let told = |actions: &[Action]| {
        let mut reports = actions.iter().filter_map(|action| match action {
            Action::Report(Report::TwoOwners { node, present }) => Some((node.get(), *present)),
            _ => None,
        });
        reports.next()
    };
    let mut bench = owner(params(0, false));
    bench.run(at(10_000));
    let rival = || claim(Some(index(1)));
    // In a handover the other one still answers, to questions for several addresses.
    assert_eq!(told(bench.event(at(10_000), rival())), None);
    assert_eq!(told(bench.event(at(10_001), rival())), None);
    for (time, wanted) in [(60_000, None), (63_000, Some((1, true))), (66_000, None)] {
        assert_eq!(told(bench.run(at(time))), None, "{time}");
        assert_eq!(told(bench.event(at(time), rival())), wanted, "{time}");
    }
    assert_eq!(told(bench.run(at(78_000))), Some((1, false)));
    // One that yields has no rival.
    for time in [90_000, 93_000] {
        bench.run(at(time));
        bench.event(at(time), rival());
    }
    for time in [96_000, 96_100, 96_200, 96_300] {
        bench.run(at(time));
        bench.advert(at(time), 1, 255);
    }
    assert_eq!(bench.node.state(), State::Backup);
    assert_eq!(told(bench.run(at(97_000))), Some((1, false)));
    assert_eq!(told(bench.event(at(97_000), rival())), None);
}
