use proptest::prelude::*;

use super::*;
use crate::testing::{Segment, at, index, params};

/// When the first node found something of the second one; only the first time.
fn found(segment: &Segment, wanted: &Event) -> Option<BootNanos> {
    let mut events = segment.ends[0].events.iter();
    events
        .find(|(_, event)| event == wanted)
        .map(|(time, _)| *time)
}

fn standing(segment: &Segment) -> Standing {
    segment.ends[0].liveness.standing(index(1)).unwrap()
}

#[test]
fn node_is_away_three_questions_after_its_last_packet_and_gone_after_reset_after() {
    let mut segment = Segment::up(2);
    assert_eq!(standing(&segment), Standing::Alive, "BFD alone proves it");
    let killed = segment.now;
    segment.kill(1);
    // Probes have not noticed it yet.
    segment.ends[1].server = true;
    segment.run(160);
    assert_eq!(standing(&segment), Standing::Suspect);
    segment.run(1000);
    let away = found(&segment, &Event::Away(index(1))).expect("it is away");
    // The detection time of 150 ms, and three questions 50 ms apart.
    let after = away.since(killed).as_millis();
    assert!((250..=310).contains(&after), "{after} ms");
    assert_eq!(standing(&segment), Standing::Away { silent: true });
    segment.run(1000);
    let gone = found(&segment, &Event::Gone(index(1))).expect("it is gone");
    let after = gone.since(killed).as_millis();
    assert!((1900..=2000).contains(&after), "{after} ms");
    assert_eq!(standing(&segment), Standing::Gone);
}

#[test]
fn node_whose_agent_crashed_lives_while_its_kernel_answers_by_any_means() {
    for (echo, neighbor) in [(true, true), (false, true), (true, false)] {
        let mut segment = Segment::up(2);
        segment.kill_agent(1);
        (segment.ends[1].echo, segment.ends[1].neighbor) = (echo, neighbor);
        segment.run(60_000);
        assert_eq!(found(&segment, &Event::Away(index(1))), None);
        assert_eq!(standing(&segment), Standing::Alive, "{echo} {neighbor}");
    }
}

#[test]
fn node_that_never_answered_is_away_only_once_probes_say_so() {
    let mut segment = Segment::new(2);
    (segment.ends[1].echo, segment.ends[1].neighbor) = (false, false);
    segment.run(60_000);
    segment.kill_agent(1);
    segment.run(60_000);
    assert_eq!(found(&segment, &Event::Away(index(1))), None);
    segment.ends[1].server = false;
    segment.run(1000);
    assert!(found(&segment, &Event::Away(index(1))).is_some());
}

#[test]
fn agent_that_ends_leaves_a_node_that_is_not_silent() {
    let mut segment = Segment::up(2);
    segment.tell(1, |liveness, now, members, out| {
        liveness.end(now, members, out);
    });
    segment.kill_agent(1);
    let diagnostic = Diagnostic::NeighborSignaledSessionDown;
    let node = index(1);
    assert!(found(&segment, &Event::Down { node, diagnostic }).is_some());
    for _ in 0..100 {
        segment.run(10);
        assert_eq!(standing(&segment), Standing::Alive);
    }
}

#[test]
fn node_that_was_away_must_be_heard_again() {
    let mut segment = Segment::up(2);
    segment.kill(1);
    segment.run(1000);
    let lost = found(&segment, &Event::Away(index(1))).unwrap();
    for (connected, counts) in [(lost.before(Duration::from_millis(1)), false), (lost, true)] {
        let probe = Probe::Hung {
            reason: String::new(),
            connected,
        };
        let dated = segment.ends[0].liveness.dated(index(1), probe.clone());
        assert_eq!(dated == probe, counts, "a connection from before its end");
    }
    let answer = |segment: &mut Segment| {
        segment.tell(0, |liveness, now, _, out| {
            liveness.on_sign_of_life(now, index(1), out);
        });
        assert_eq!(standing(segment), Standing::Away { silent: false });
    };
    answer(&mut segment);
    assert!(found(&segment, &Event::Answers(index(1))).is_some());
    // While its kernel answers, it may have its connections still.
    for _ in 0..10 {
        segment.run(1000);
        answer(&mut segment);
    }
    assert_eq!(found(&segment, &Event::Gone(index(1))), None);
    segment.run(2001);
    assert_eq!(standing(&segment), Standing::Gone);
    answer(&mut segment);
    let node = &mut segment.ends[1];
    (node.agent, node.echo, node.neighbor) = (true, true, true);
    segment.run(4000);
    assert_eq!(standing(&segment), Standing::Alive);
    assert!(segment.ends[0].liveness.hear_each_other(index(1)));
}

#[test]
fn node_that_was_never_heard_is_gone_after_three_seconds_in_which_this_one_was_not_cut_off() {
    let mut segment = Segment::new(1);
    segment.witness = false;
    segment.run(10_000);
    assert_eq!(standing(&segment), Standing::Away { silent: false });
    assert!(segment.ends[0].liveness.is_isolated());
    segment.witness = true;
    segment.run(3000);
    assert_eq!(standing(&segment), Standing::Away { silent: false });
    segment.run(1000);
    assert_eq!(standing(&segment), Standing::Gone);
}

#[test]
fn node_that_is_cut_off_takes_nobody_for_away() {
    let mut segment = Segment::up(3);
    segment.witness = false;
    segment.kill(1);
    segment.kill(2);
    segment.run(60_000);
    assert_eq!(standing(&segment), Standing::Suspect);
    assert!(segment.ends[0].liveness.is_isolated());
    // The clock begins when the segment is proved.
    segment.witness = true;
    segment.run(1900);
    assert_eq!(standing(&segment), Standing::Away { silent: true });
    assert_eq!(found(&segment, &Event::Gone(index(1))), None);
    segment.run(700);
    assert_eq!(standing(&segment), Standing::Gone);
}

#[test]
fn sessions_come_up_at_once_after_an_outage() {
    let mut segment = Segment::up(2);
    segment.kill(1);
    segment.run(1500);
    let node = &mut segment.ends[1];
    (node.agent, node.echo, node.neighbor) = (true, true, true);
    segment.run(110);
    assert!(segment.ends[0].liveness.hear_each_other(index(1)));
}

#[test]
fn agent_that_takes_over_from_another_asks_at_once_whether_nodes_still_live() {
    let params = params(0, true);
    let members = Membership::new(&params);
    let mut liveness = Liveness::new(&params);
    let known = BackendMask::EMPTY.with(index(1), true);
    liveness.on_start(at(0), &members, known, &mut Vec::new());
    let mut out = Vec::new();
    liveness.on_timer(at(0), &members, |_| true, &mut out);
    assert!(out.contains(&Event::Ask(index(1))));
    assert!(!out.contains(&Event::Ask(index(2))), "it was never heard");
}

#[test]
fn echo_that_does_not_come_back_from_a_node_that_lives_is_told_once() {
    let mut segment = Segment::up(2);
    for (echo, ms) in [(false, 36_000), (true, 20_000)] {
        segment.ends[1].echo = echo;
        segment.run(ms);
        let answers = segment.ends[0].liveness.answers_echo(index(1));
        assert_eq!(answers, Some(echo));
    }
    let told = segment.ends[0]
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Echo { lost, .. } => Some(*lost),
            _ => None,
        });
    assert_eq!(told.collect::<Vec<_>>(), [true, false]);
}

#[test]
fn questions_to_a_node_that_is_well_are_no_storm() {
    let mut segment = Segment::up(2);
    segment.run(60_000);
    let ask = Event::Ask(index(1));
    let events = segment.ends[0].events.iter();
    let asked = events.filter(|(_, event)| *event == ask).count();
    // One in two seconds: there are two other nodes, one of which is not there.
    assert!((29..=31).contains(&asked), "{asked} in a minute");
}

#[test]
fn packets_to_all_peers_leave_at_the_same_moments() {
    let mut segment = Segment::up(3);
    segment.ends[0].sent.clear();
    segment.run(10_000);
    let sent = &segment.ends[0].sent;
    // Answers to the peers' packets with Poll go to one peer alone, and there are few.
    let to_all = sent.iter().filter(|(_, packets)| *packets == 2).count();
    assert!(to_all >= 200 && sent.len() - to_all <= 2, "{to_all}");
}

#[test]
fn lease_is_limited_by_the_peer_that_misses_packets_first() {
    let mut segment = Segment::new(2);
    assert_eq!(segment.ends[0].liveness.first_missed(), None);
    segment.run(4000);
    let (sent, _) = *segment.ends[0].sent.last().unwrap();
    // Three intervals from the last packet on, less half an interval.
    let wanted = sent.after(Duration::from_millis(3 * 50 - 25));
    assert_eq!(segment.ends[0].liveness.first_missed(), Some(wanted));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Answers are expected: three questions in a row without one mean that the node is away, and nothing less.
    #[test]
    fn three_questions_without_an_answer_mean_that_a_node_is_away(
        answers in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        let mut segment = Segment::up(2);
        segment.kill(1);
        segment.ends[1].server = true;
        let (mut answers, mut unanswered) = (answers.into_iter().chain([false; 3]), 0);
        let ask = Event::Ask(index(1));
        let away = Event::Away(index(1));
        while found(&segment, &away).is_none() {
            segment.ends[0].events.clear();
            segment.run(1);
            let asked = segment.ends[0].events.iter().any(|(_, event)| *event == ask);
            // A question to a healthy node does not count.
            if !asked || segment.ends[0].liveness.is_up(index(1)) {
                continue;
            }
            let Some(answer) = answers.next() else {
                return Err(TestCaseError::fail("it is asked without end"));
            };
            unanswered = if answer { 0 } else { unanswered + 1 };
            prop_assert!(unanswered <= 3);
            if answer {
                segment.tell(0, |liveness, now, _, out| {
                    liveness.on_echo(now, index(1), out);
                });
            }
        }
        prop_assert_eq!(unanswered, 3);
        prop_assert_eq!(standing(&segment), Standing::Away { silent: true });
    }
}
