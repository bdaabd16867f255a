//! Nodes that stop answering, and agents that end.

use super::*;

#[test]
fn silent_agent_loses_new_connections_at_once_and_open_ones_only_with_its_node() {
    for answers in [true, false] {
        let (_, mut b) = up();
        let silent = at(4000 + 160);
        let echoes = b
            .run(silent)
            .iter()
            .filter(|a| matches!(a, Action::SendEcho(_)));
        assert!(echoes.count() > 0);
        let masks = b.node.masks();
        assert!(!masks.new_connections[0].contains(index(0)) && masks.suspect.contains(index(0)));
        for time in (4170..4600).step_by(10) {
            let asked = b.run(at(time)).contains(&Action::SendEcho(index(0)));
            if answers && (asked || time == 4170) {
                b.event(at(time + 1), Input::Echo(index(0)));
            }
        }
        let masks = b.node.masks();
        assert_eq!(masks.new_connections[0].contains(index(0)), answers);
        assert_eq!(masks.alive.contains(index(0)), answers);
    }
}

#[test]
fn owner_that_runs_late_says_so_and_peers_wait_for_longer() {
    let mut nodes = [0, 1].map(|own| Bench::new(params(own, true)));
    exchange(&mut nodes, at(0), 4000, 1);
    assert_eq!(nodes[0].node.state(), State::Active);
    let late = nodes[0]
        .node
        .next_deadline()
        .after(Duration::from_millis(60));
    nodes[0].out.clear();
    nodes[0].node.on_timer(late, &mut nodes[0].out);
    let report = Action::Report(Report::Late(Late {
        by: Duration::from_millis(60),
        bfd: Some(Duration::from_millis(100)),
        adverts: Duration::from_millis(150),
    }));
    assert!(nodes[0].out.contains(&report), "{:?}", nodes[0].out);
    let longer = |action: &Action| match action {
        Action::SendAdvert { interval, .. } => interval.get() == 15,
        _ => false,
    };
    assert!(nodes[0].out.iter().any(longer));
    let now = exchange(&mut nodes, late, 1000, 1);
    let detection = |bench: &Bench, peer| bench.node.bfd(index(peer)).unwrap().detection_time();
    assert_eq!(detection(&nodes[1], 0), Duration::from_millis(300));
    assert_eq!(
        detection(&nodes[0], 1),
        Duration::from_millis(150),
        "as before"
    );
    // It is on time again.
    exchange(&mut nodes, now, 10_000, 1);
    assert_eq!(detection(&nodes[1], 0), Duration::from_millis(150));
    assert_eq!(nodes[0].node.state(), State::Active);
}

#[test]
fn node_that_dies_after_its_agent_ended_is_found_dead_by_questions() {
    let (mut a, mut b) = up();
    let sent = a.event(at(4000), Input::Shutdown).to_vec();
    let mut left = false;
    for action in sent {
        if let Action::SendBfd { to, packet } = action
            && to == index(1)
        {
            left = true;
            let source = index(0);
            b.event(at(4001), Input::Bfd { source, packet });
        }
    }
    assert!(left, "it ends its session");
    // Its kernel lives, and its connections go on without the agent.
    for time in (4001..8000).step_by(10) {
        if b.run(at(time)).contains(&Action::SendEcho(index(0))) {
            b.event(at(time + 1), Input::Echo(index(0)));
        }
        assert!(b.node.masks().alive.contains(index(0)), "at {time}");
    }
    b.run(at(8300));
    assert!(!b.node.masks().alive.contains(index(0)));
    // It boots: its server is there again, but its stack has no VIP yet.
    b.probe(at(20_000), 0, Probe::Ready);
    b.probe(at(20_001), 0, Probe::Ready);
    assert!(!b.node.masks().alive.contains(index(0)));
    assert!(!b.node.masks().new_connections[0].contains(index(0)));
}

/// Lets two nodes hear each other, while the second asks the first, which answers by these means.
/// Returns the second one's actions.
fn hear(
    a: &mut Bench,
    b: &mut Bench,
    times: std::ops::Range<u64>,
    echo: bool,
    neighbour: bool,
) -> Vec<(u64, Action)> {
    let (mut all, mut done) = (vec![], vec![]);
    for time in times {
        for action in a.run(at(time)).to_vec() {
            if let Action::SendBfd { to, packet } = action
                && to == index(1)
            {
                let source = index(0);
                done.extend(b.event(at(time), Input::Bfd { source, packet }).to_vec());
            }
        }
        done.extend(answer(b, time, echo, neighbour));
        let mut kept = vec![];
        for action in done.drain(..) {
            if let Action::SendBfd { to, packet } = &action
                && *to == index(0)
            {
                let source = index(1);
                a.event(
                    at(time),
                    Input::Bfd {
                        source,
                        packet: *packet,
                    },
                );
            } else {
                kept.push(action);
            }
        }
        all.extend(kept.into_iter().map(|action| (time, action)));
    }
    all
}

/// Lets a node run until then, and answers what it asks the first node.
fn answer(b: &mut Bench, time: u64, echo: bool, neighbour: bool) -> Vec<Action> {
    let mut actions = b.run(at(time)).to_vec();
    for action in actions.clone() {
        let event = match action {
            Action::SendEcho(to) if echo && to == index(0) => Input::Echo(to),
            Action::AskNeighbor(to) if neighbour && to == index(0) => Input::Neighbor(to),
            _ => continue,
        };
        actions.extend(b.event(at(time), event).iter().cloned());
    }
    actions
}

#[test]
fn node_whose_echo_is_dropped_while_its_agent_is_away_lives_by_arp() {
    let (mut a, mut b) = up();
    hear(&mut a, &mut b, 4000..12_000, true, true);
    // Its agent is killed, and a limit leaves next to nothing of the echo.
    for time in 12_000..16_000 {
        answer(&mut b, time, time % 400 == 0, true);
        assert!(b.node.masks().alive.contains(index(0)), "at {time}");
    }
    // The node goes, too.
    let dead = Action::Report(Report::Away(index(0)));
    let found = (16_000..17_000).find(|time| answer(&mut b, *time, false, false).contains(&dead));
    assert!(found.is_some_and(|time| time < 16_300), "{found:?}");
}

#[test]
fn node_that_never_answered_is_not_dead_by_silence_but_by_probes() {
    let (mut a, mut b) = up();
    hear(&mut a, &mut b, 4000..20_000, false, false);
    assert_eq!(b.node.answers_echo(index(0)), Some(false));
    for time in 20_000..30_000 {
        answer(&mut b, time, false, false);
        if time % 500 == 0 {
            b.probe(at(time), 0, Probe::Refused);
        }
        assert!(b.node.masks().living().contains(index(0)), "at {time}");
    }
    for time in 30_000..30_300 {
        answer(&mut b, time, false, false);
    }
    let actions = b.probe(at(30_300), 0, Probe::Silent(String::new()));
    assert!(actions.contains(&Action::Report(Report::Away(index(0)))));
    // As any other that was dead, it must be heard again.
    b.probe(at(40_000), 0, Probe::Ready);
    assert!(!b.node.masks().alive.contains(index(0)));
}

#[test]
fn probe_of_a_connection_from_before_a_node_died_is_no_sign_of_life() {
    let (mut a, mut b) = up();
    hear(&mut a, &mut b, 4000..20_000, true, true);
    let died = Action::Report(Report::Away(index(0)));
    let finds = |time: &u64| answer(&mut b, *time, false, false).contains(&died);
    assert!(
        (20_000..21_000)
            .find(finds)
            .is_some_and(|dead| dead > 20_100)
    );
    let answers = Action::Report(Report::Answers(index(0)));
    for (connected, lives) in [(at(19_990), false), (at(20_050), false), (at(20_990), true)] {
        let actions = b.probe(at(21_000), 0, hung(connected));
        assert_eq!(actions.contains(&answers), lives, "{connected:?}");
    }
}
