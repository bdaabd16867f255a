//! Reports of the owner by a node that leaves, or has a fault.

use super::*;

fn owners(actions: &[Action]) -> Vec<Option<usize>> {
    let told = |action: &Action| match action {
        Action::Report(Report::Owner { owner, .. }) => Some(owner.map(BackendIndex::get)),
        _ => None,
    };
    actions.iter().filter_map(told).collect()
}

#[test]
fn a_backup_that_leaves_does_not_report_the_owner_as_lost() {
    for bfd in [false, true] {
        let mut nodes = [0, 1, 2].map(|own| Bench::new(params(own, bfd)));
        let now = exchange(&mut nodes, at(0), 5000, 1);
        let backup = &mut nodes[1];
        assert_eq!(backup.node.owner(), Some(index(0)));
        let actions = backup.event(now, Input::Shutdown);
        assert!(actions.contains(&Action::Done));
        assert_eq!(owners(actions), []);
    }
}

#[test]
fn an_owner_that_leaves_reports_the_next_one_and_no_more() {
    let mut bench = owner(params(0, false));
    bench.probe(at(2001), 1, Probe::Ready);
    assert_eq!(owners(bench.event(at(2010), Input::Shutdown)), []);
    assert_eq!(owners(bench.advert(at(2510), 1, 220)), [Some(1)]);
    assert!(bench.node.has_left());
}

#[test]
fn a_node_with_a_fault_still_knows_the_owner() {
    let mut bench = Bench::new(params(1, false));
    bench.advert(at(10), 0, 250);
    let fault = bench.fault(at(20), Fault::Address, true);
    assert_eq!(owners(fault), []);
    for tenth in 1..20 {
        bench.advert(at(tenth * 100), 0, 250);
        bench.run(at(tenth * 100 + 99));
        assert_eq!(bench.node.owner(), Some(index(0)));
    }
    // It has no timer for that, and looks again at the next event: a probe, at the latest.
    bench.probe(at(3000), 1, Probe::Ready);
    assert_eq!(bench.node.owner(), None, "it is lost");
}

#[test]
fn owner_that_leaves_answers_until_the_next_one_advertises() {
    let mut bench = owner(params(0, false));
    bench.probe(at(2001), 1, Probe::Ready);
    let actions = bench.event(at(2010), Input::Shutdown);
    let resigned = Action::SendAdvert {
        to: To::All,
        priority: PRIORITY_RESIGNED,
        interval: params(0, false).vrrp.interval,
    };
    assert!(actions.contains(&resigned) && !actions.contains(&Action::Done));
    bench.run(at(2500));
    assert!(
        bench.node.answer_until() > at(2500),
        "nobody else answers yet"
    );
    let actions = bench.advert(at(2510), 1, 220);
    assert!(actions.contains(&Action::Done));
    assert_eq!(bench.node.answer_until(), BootNanos::ZERO);
    assert!(bench.node.has_left());
}
