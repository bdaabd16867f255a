//! When addresses are announced.

use super::*;

#[test]
fn what_has_moved_is_announced_at_once_and_the_nodes_own_address_first() {
    let times = |bench: &mut Bench, start: u64| {
        let mut seen: Vec<(u64, Vec<Action>)> = Vec::new();
        let mut take = |time: BootNanos, out: &[Action]| {
            let spoken = out
                .iter()
                .filter(|action| matches!(action, Action::Announce | Action::AnnounceOwn));
            let spoken: Vec<Action> = spoken.cloned().collect();
            if !spoken.is_empty() {
                seen.push((time.since(at(start)).as_millis() as u64, spoken));
            }
        };
        bench.run(at(start));
        let out = bench.event(at(start), Input::Moved).to_vec();
        take(at(start), &out);
        while bench.node.next_deadline() <= at(start + 5000) {
            let now = bench.node.next_deadline();
            bench.out.clear();
            bench.node.on_timer(now, &mut bench.out);
            let out = std::mem::take(&mut bench.out);
            take(now, &out);
        }
        seen
    };
    let both = [Action::AnnounceOwn, Action::Announce].to_vec();
    let mut first = owner(params(0, false));
    let wanted: Vec<_> = [0, 50, 200, 1000].map(|time| (time, both.clone())).into();
    assert_eq!(times(&mut first, 10_000), wanted);
    // A backup announces only its own address.
    let mut second = Bench::new(params(1, false));
    second.advert(at(9_999), 0, 250);
    let own = [Action::AnnounceOwn].to_vec();
    let wanted: Vec<_> = [0, 50, 200].map(|time| (time, own.clone())).into();
    assert_eq!(times(&mut second, 10_000)[..3], wanted);
}
