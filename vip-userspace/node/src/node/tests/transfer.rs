//! What a node that leaves, or lacks something, says of the owner.

use super::*;

fn owners(actions: &[Action]) -> Vec<Option<usize>> {
    let told = |action: &Action| match action {
        Action::Report(Report::Owner { owner, .. }) => Some(owner.map(BackendIndex::get)),
        _ => None,
    };
    actions.iter().filter_map(told).collect()
}

#[test]
fn a_backup_that_leaves_does_not_say_that_the_owner_fell_silent() {
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
fn an_owner_that_leaves_names_the_next_one_and_says_no_more() {
    let mut bench = owner(params(0, false));
    bench.event(
        at(2001),
        Input::Probe {
            node: index(1),
            check: 0,
            found: Probe::Ready,
        },
    );
    assert_eq!(owners(bench.event(at(2010), Input::Shutdown)), []);
    assert_eq!(owners(bench.advert(at(2510), 1, 220)), [Some(1)]);
    assert!(bench.node.has_left());
}

#[test]
fn a_node_that_lacks_something_still_knows_the_owner() {
    let mut bench = Bench::new(params(1, false));
    bench.advert(at(10), 0, 250);
    let fault = bench.event(
        at(20),
        Input::Fault {
            fault: Fault::Address,
            present: true,
        },
    );
    assert_eq!(owners(fault), []);
    for tenth in 1..20 {
        bench.advert(at(tenth * 100), 0, 250);
        bench.run(at(tenth * 100 + 99));
        assert_eq!(bench.node.owner(), Some(index(0)));
    }
    // It has no timer for that, and looks again at the next event: a probe, at the latest.
    bench.event(
        at(3000),
        Input::Probe {
            node: index(1),
            check: 0,
            found: Probe::Ready,
        },
    );
    assert_eq!(bench.node.owner(), None, "it fell silent");
}
