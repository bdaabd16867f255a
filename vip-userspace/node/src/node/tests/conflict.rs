//! Claims of the VIP by configured nodes whose agent is not heard, and how claims end.

use super::*;
use crate::conflict::MAX_CLAIMS;

fn mac(last: u8) -> Mac {
    Mac::from_wire([2, 9, 9, 9, 9, last])
}

/// Somebody claims the VIP, by that Ethernet address.
fn by(last: u8, node: Option<usize>, agent: bool) -> Input {
    Input::Claim {
        mac: mac(last),
        node: node.map(index),
        agent,
    }
}

/// What is told: the Ethernet address's last byte and who it is, if it is news; `None` at the end.
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
fn a_node_that_answers_for_the_vip_of_another_is_named_and_no_stranger() {
    let mut bench = Bench::new(params(1, true));
    backup(&mut bench, 1000, 2000);
    let news = told(bench.event(at(2000), by(1, Some(2), true)));
    let unheard = Claimant::Unheard {
        node: index(2),
        owner: index(0),
    };
    assert_eq!(news, [(1, Some(unheard))]);
    assert_eq!(told(bench.event(at(2001), by(1, Some(2), true))), []);
    // The refusal of its kernel comes later.
    let news = told(bench.event(at(2002), by(1, Some(2), false)));
    assert_eq!(news, [(1, Some(Claimant::NoAgent(index(2))))]);
}

#[test]
fn a_node_that_may_be_the_owner_and_is_hidden_is_not_told_of() {
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
        // `exchange` has dropped what was told meanwhile.
        if bench.node.conflicts.next_lapse().is_none() {
            over.push((1, None));
        }
    }
    assert_eq!(over, [(1, None)], "within four seconds");
}

#[test]
fn each_claim_ends_by_itself_whoever_else_makes_one() {
    let mut bench = owner(params(0, false));
    bench.run(at(10_000));
    assert_eq!(told(bench.event(at(10_000), by(1, None, false))).len(), 1);
    assert_eq!(told(bench.run(at(16_000))), []);
    assert_eq!(told(bench.event(at(16_000), by(2, None, false))).len(), 1);
    // That of the first one comes back, and is none that is new.
    assert_eq!(told(bench.event(at(16_001), by(1, None, false))), []);
    assert_eq!(told(bench.run(at(27_999))), []);
    assert_eq!(told(bench.run(at(30_000))), [(2, None), (1, None)]);
    assert!(bench.node.conflicts.next_lapse().is_none());
}

#[test]
fn so_many_claimants_are_kept_in_mind_and_no_more() {
    let mut bench = owner(params(0, false));
    bench.run(at(10_000));
    for last in 0..100 {
        bench.event(at(10_000 + u64::from(last)), by(last, None, false));
    }
    let ends = told(bench.run(at(30_000)));
    assert_eq!(ends.len(), MAX_CLAIMS);
}
