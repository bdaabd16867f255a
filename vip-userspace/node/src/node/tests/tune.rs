//! Timers that change node by node.

use super::*;

/// The same node with other timers.
fn tuned(own: usize, bfd: (u64, u8), adverts: u16) -> Box<Tuning> {
    let mut params = params(own, true);
    params.vrrp.interval = Centiseconds::new(adverts).unwrap();
    params.bfd = params.bfd.map(|before| bfd::Params {
        interval: Duration::from_millis(bfd.0),
        detect_mult: NonZeroU8::new(bfd.1).unwrap(),
        ..before
    });
    Box::new(params.tuning())
}

#[test]
fn timers_change_node_by_node_and_the_owner_stays() {
    let (mut nodes, mut now) = three();
    assert_eq!(nodes[0].node.state(), State::Active);
    let mut takeovers = 0;
    for (bfd, adverts) in [
        ((10, 3), 2),
        ((300, 3), 200),
        ((20, 10), 5),
        ((100, 2), 100),
        ((50, 3), 10),
    ] {
        for own in [1, 0, 2] {
            let tuning = tuned(own, bfd, adverts);
            let bench = &mut nodes[own];
            bench
                .node
                .on_input(now, Input::Tune(tuning), &mut bench.out);
            now = exchange_if(&mut nodes, now, 4000, 1, |action| {
                let ends = matches!(
                    action,
                    Action::Report(Report::BfdDown { .. } | Report::Active(_) | Report::Backup(_))
                        | Action::SetAnswerUntil(BootNanos::ZERO)
                );
                takeovers += usize::from(ends);
                !matches!(action, Action::AskNeighbor(_))
            });
        }
        let detection = Duration::from_millis(bfd.0) * u32::from(bfd.1);
        for (own, bench) in nodes.iter().enumerate() {
            let session = bench.node.bfd(index((own + 1) % 3)).unwrap();
            assert_eq!(session.detection_time(), detection);
        }
    }
    assert_eq!(takeovers, 0);
    assert_eq!(nodes[0].node.state(), State::Active);
}

#[test]
fn priority_and_time_until_a_node_is_gone_change_at_once() {
    let (mut nodes, now) = three();
    let mut tuning = tuned(1, (50, 3), 10);
    (tuning.priority, tuning.reset_after) = (Some(7), Duration::from_secs(8));
    let [first, second, _] = &mut nodes;
    let out = second.event(now, Input::Tune(tuning)).to_vec();
    assert!(
        out.contains(&Action::Report(Report::Priority(7))),
        "{out:?}"
    );
    // The first one is silent from now on.
    drop(first.out.drain(..));
    second.probe(now, 0, Probe::Silent(String::new()));
    let gone = |bench: &mut Bench, until| {
        let out = bench.run(until);
        out.contains(&Action::Report(Report::Gone(index(0))))
    };
    assert!(!gone(second, now.after(Duration::from_secs(7))));
    assert!(gone(second, now.after(Duration::from_secs(10))));
}
