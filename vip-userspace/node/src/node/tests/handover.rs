//! `vip handover`: the nodes to which the VIP goes, and the reasons against others.

use super::*;

/// The answer to a request: the successor, or why the VIP stays.
fn asked(bench: &mut Bench, now: BootNanos, to: Option<usize>) -> Result<usize, NoHandover> {
    let actions = bench.event(now, Input::Handover(to.map(index)));
    let mut reports = actions.iter().filter_map(|action| match action {
        Action::Report(Report::HandingOver(to)) => Some(Ok(to.get())),
        Action::Report(Report::NotHandedOver(why)) => Some(Err(why.clone())),
        _ => None,
    });
    let first = reports.next().unwrap();
    assert_eq!(reports.next(), None);
    if first.is_err() {
        let adverts = |action: &Action| matches!(action, Action::SendAdvert { .. });
        assert!(!actions.iter().any(adverts), "a refusal moves nothing");
    }
    first
}

fn unsuited(node: usize, why: Unsuited) -> Result<usize, NoHandover> {
    let node = index(node);
    Err(NoHandover::Unsuited(UnsuitedNode { node, why }))
}

/// Three nodes that hear each other; the first one owns the VIP.
fn cluster() -> ([Bench; 3], BootNanos) {
    let mut nodes = [0, 1, 2].map(|own| Bench::new(params(own, true)));
    let mut now = exchange(&mut nodes, at(0), 5000, 1);
    for server in 0..3 {
        tell_all(&mut nodes, now, server, &Probe::Ready);
    }
    now = exchange(&mut nodes, now, 500, 1);
    assert_eq!(nodes[0].node.state(), State::Active);
    (nodes, now)
}

/// All nodes probe a server.
fn tell_all(nodes: &mut [Bench], now: BootNanos, server: usize, probe: &Probe) {
    for bench in nodes {
        let event = Input::Probe {
            node: index(server),
            check: CheckIndex::API,
            found: probe.clone(),
        };
        bench.node.on_input(now, event, &mut bench.out);
    }
}

fn drain(bench: &mut Bench, now: BootNanos) {
    bench.node.on_input(now, Input::Drain(true), &mut bench.out);
}

#[test]
fn the_vip_does_not_go_to_a_node_that_would_not_keep_it() {
    let (mut nodes, mut now) = cluster();
    drain(&mut nodes[1], now);
    let no = Probe::NotReady("500".to_owned());
    tell_all(&mut nodes, now, 2, &no);
    now = exchange(&mut nodes, now, 500, 1);
    let owner = &mut nodes[0];
    assert_eq!(asked(owner, now, Some(1)), unsuited(1, Unsuited::Draining));
    assert_eq!(asked(owner, now, Some(2)), unsuited(2, Unsuited::Unready));
    let unsuited = |(node, why)| UnsuitedNode {
        node: index(node),
        why,
    };
    let why = [(1, Unsuited::Draining), (2, Unsuited::Unready)].map(unsuited);
    let nobody = Err(NoHandover::NoSuccessor(why.to_vec()));
    assert_eq!(asked(owner, now, None), nobody);
    exchange(&mut nodes, now, 3000, 1);
    assert_eq!(nodes[0].node.state(), State::Active);
}

#[test]
fn the_best_of_those_that_would_keep_it_is_chosen() {
    let (mut nodes, mut now) = cluster();
    drain(&mut nodes[1], now);
    now = exchange(&mut nodes, now, 500, 1);
    assert_eq!(asked(&mut nodes[0], now, None), Ok(2));
    exchange(&mut nodes, now, 3000, 1);
    let states = nodes.each_ref().map(|bench| bench.node.state());
    assert_eq!(states, [State::Backup, State::Backup, State::Active]);
}

#[test]
fn a_node_whose_agent_is_not_heard_is_no_successor() {
    let (mut nodes, mut now) = cluster();
    now = exchange(&mut nodes[..2], now, 1000, 1);
    let owner = &mut nodes[0];
    assert_eq!(asked(owner, now, Some(2)), unsuited(2, Unsuited::Unheard));
    assert_eq!(asked(owner, now, Some(0)), Err(NoHandover::Own));
    assert_eq!(asked(owner, now, None), Ok(1));
    let backup = &mut nodes[1];
    assert_eq!(
        asked(backup, now, Some(0)),
        Err(NoHandover::NotOwner(Some(index(0))))
    );
}

#[test]
fn while_no_node_is_better_an_unfit_one_takes_it_and_keeps_it() {
    let (mut nodes, mut now) = cluster();
    let no = Probe::NotReady("500".to_owned());
    for server in 0..3 {
        tell_all(&mut nodes, now, server, &no);
    }
    drain(&mut nodes[1], now);
    now = exchange(&mut nodes, now, 500, 1);
    assert_eq!(nodes[0].node.state(), State::Active);
    assert_eq!(asked(&mut nodes[0], now, None), Ok(2), "it does not drain");
    now = exchange(&mut nodes, now, 3000, 1);
    assert_eq!(nodes[2].node.state(), State::Active);
    // A third one is better than the owner and than the one that was named.
    tell_all(&mut nodes, now, 0, &Probe::Ready);
    let owner = &mut nodes[2];
    assert_eq!(asked(owner, now, Some(1)), unsuited(1, Unsuited::Draining));
    assert_eq!(asked(owner, now, None), Ok(0));
}

#[test]
fn an_owner_that_ends_hands_over_to_any_node_that_lives() {
    let (mut nodes, mut now) = cluster();
    let no = Probe::NotReady("500".to_owned());
    tell_all(&mut nodes, now, 2, &no);
    drain(&mut nodes[1], now);
    now = exchange(&mut nodes, now, 500, 1);
    assert!(asked(&mut nodes[0], now, None).is_err());
    let bench = &mut nodes[0];
    bench.node.on_input(now, Input::Shutdown, &mut bench.out);
    exchange(&mut nodes, now, 3000, 1);
    assert!(nodes[0].node.has_left());
    let owners = nodes[1..]
        .iter()
        .filter(|bench| bench.node.state() == State::Active);
    assert_eq!(owners.count(), 1);
}

#[test]
fn an_owner_that_preempts_refuses_a_node_it_would_take_the_vip_back_from() {
    let mut preempts = params(1, false);
    preempts.vrrp.preempt = true;
    let mut bench = owner(preempts);
    for server in 0..3 {
        bench.probe(at(2001), server, Probe::Ready);
    }
    let back = Unsuited::Outranked {
        own: 220,
        theirs: 190,
    };
    assert_eq!(asked(&mut bench, at(2002), Some(2)), unsuited(2, back));
    assert_eq!(asked(&mut bench, at(2003), None), Ok(0));
    // One that drains has no reason to take it back.
    let mut drained = params(1, false);
    drained.vrrp.preempt = true;
    let mut bench = owner(drained);
    for server in 0..3 {
        bench.probe(at(2001), server, Probe::Ready);
    }
    bench.event(at(2002), Input::Drain(true));
    assert_eq!(asked(&mut bench, at(2003), Some(2)), Ok(2));
}

#[test]
fn handover_asks_one_node_alone_and_the_owner_answers_until_that_advertises() {
    let mut bench = owner(params(0, false));
    bench.probe(at(2001), 1, Probe::Ready);
    bench.probe(at(2001), 2, Probe::Ready);
    let actions = bench.event(at(2010), Input::Handover(Some(index(2))));
    let resigned = Action::SendAdvert {
        to: To::One(index(2)),
        priority: PRIORITY_RESIGNED,
        interval: params(0, false).vrrp.interval,
    };
    assert!(actions.contains(&resigned));
    assert!(bench.node.answer_until() > at(2010), "it still answers");
    // To the others it is still there, and to the successor, who is asked again each time,
    // no reason to yield.
    let adverts: Vec<_> = bench
        .run(at(2200))
        .iter()
        .filter_map(|action| match action {
            Action::SendAdvert { to, priority, .. } => Some((*to, *priority)),
            _ => None,
        })
        .collect();
    assert_eq!(adverts, [(To::All, 1), (To::One(index(2)), 0)].repeat(2));
    let actions = bench.advert(at(2210), 2, 190);
    assert!(actions.contains(&Action::Report(Report::HandedOver(index(2)))));
    assert_eq!(bench.node.answer_until(), BootNanos::ZERO);
    assert_eq!(bench.node.owner(), Some(index(2)));
}

#[test]
fn any_successor_takes_over_though_the_owner_still_advertises() {
    for (to, batch) in [(1, 1), (2, 1), (1, 15), (2, 15)] {
        // The takeover delay is longer than the advertisement interval.
        let mut nodes = [0, 1, 2].map(|own| {
            let mut params = params(own, true);
            params.vrrp.interval = Centiseconds::new(1).unwrap();
            Bench::new(params)
        });
        let now = exchange(&mut nodes, at(0), 5000, 1);
        let active = |nodes: &[Bench]| -> Vec<usize> {
            let states = nodes.iter().map(|bench| bench.node.state());
            let numbered = states.enumerate();
            numbered
                .filter(|(_, state)| *state == State::Active)
                .map(|(node, _)| node)
                .collect()
        };
        assert_eq!(active(&nodes), [0]);
        let handover = Input::Handover(Some(index(to)));
        let bench = &mut nodes[0];
        bench.node.on_input(now, handover, &mut bench.out);
        exchange(&mut nodes, now, 500, batch);
        assert_eq!(active(&nodes), [to], "in batches of {batch} ms");
    }
}

#[test]
fn handover_without_an_answer_leaves_the_vip_where_it_is() {
    let mut bench = owner(params(0, false));
    bench.probe(at(2001), 1, Probe::Ready);
    bench.event(at(2010), Input::Handover(None));
    let actions = bench.run(at(5000));
    let failed = NoHandover::NoAnswer(index(1));
    assert!(actions.contains(&Action::Report(Report::NotHandedOver(failed))));
    assert_eq!(bench.node.state(), State::Active);
    for (to, why) in [
        (Some(index(0)), NoHandover::Own),
        (
            Some(index(2)),
            NoHandover::Unsuited(UnsuitedNode {
                node: index(2),
                why: Unsuited::Unheard,
            }),
        ),
    ] {
        bench.probe(at(5001), 2, Probe::Silent(String::new()));
        let actions = bench.event(at(5002), Input::Handover(to));
        assert!(actions.contains(&Action::Report(Report::NotHandedOver(why))));
    }
}
