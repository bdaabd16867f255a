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

fn sign(segment: &Segment, probed: bool) -> Sign {
    segment.ends[0].liveness.sign(index(1), probed).unwrap()
}

const LIVES: Sign = Sign {
    lives: true,
    is_silent: false,
};

#[test]
fn node_is_dead_three_questions_after_its_last_packet() {
    let mut segment = Segment::up(2);
    assert_eq!(sign(&segment, false), LIVES, "BFD alone proves it");
    let killed = segment.now;
    segment.kill(1);
    // Probes have not noticed it yet.
    segment.ends[1].server = true;
    segment.run(160);
    let suspect = Sign {
        lives: true,
        is_silent: true,
    };
    assert_eq!(sign(&segment, true), suspect);
    segment.run(1000);
    let dead = found(&segment, &Event::Dead(index(1))).expect("it is dead");
    // The detection time of 150 ms, and three questions 50 ms apart.
    let after = dead.since(killed).as_millis();
    assert!((250..=310).contains(&after), "{after} ms");
    assert!(!sign(&segment, true).lives);
}

#[test]
fn node_whose_agent_crashed_lives_while_its_kernel_answers_by_any_means() {
    for (echo, neighbor) in [(true, true), (false, true), (true, false)] {
        let mut segment = Segment::up(2);
        segment.kill_agent(1);
        (segment.ends[1].echo, segment.ends[1].neighbor) = (echo, neighbor);
        segment.run(60_000);
        assert_eq!(found(&segment, &Event::Dead(index(1))), None);
        assert_eq!(sign(&segment, true), LIVES, "{echo} {neighbor}");
    }
}

#[test]
fn node_that_never_answered_is_dead_only_once_probes_say_so() {
    let mut segment = Segment::new(2);
    (segment.ends[1].echo, segment.ends[1].neighbor) = (false, false);
    segment.run(60_000);
    segment.kill_agent(1);
    segment.run(60_000);
    assert_eq!(found(&segment, &Event::Dead(index(1))), None);
    segment.ends[1].server = false;
    segment.run(1000);
    assert!(found(&segment, &Event::Dead(index(1))).is_some());
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
        assert_eq!(sign(&segment, true), LIVES);
    }
}

#[test]
fn node_that_was_dead_must_be_heard_again() {
    let mut segment = Segment::up(2);
    segment.kill(1);
    segment.run(1000);
    let lost = found(&segment, &Event::Dead(index(1))).unwrap();
    for (connected, counts) in [(lost.before(Duration::from_millis(1)), false), (lost, true)] {
        let probe = Probe::Hung {
            reason: String::new(),
            connected,
        };
        let dated = segment.ends[0].liveness.dated(index(1), probe.clone());
        assert_eq!(dated == probe, counts, "a connection from before its end");
    }
    assert!(!segment.ends[0].members.was_heard(index(1)));
    segment.tell(0, |liveness, now, members, out| {
        liveness.on_sign_of_life(now, members, index(1), out);
    });
    assert!(found(&segment, &Event::Answers(index(1))).is_some());
    let node = &mut segment.ends[1];
    (node.agent, node.echo, node.neighbor) = (true, true, true);
    segment.run(4000);
    assert!(segment.ends[0].members.was_heard(index(1)));
    assert!(segment.ends[0].liveness.hear_each_other(index(1)));
}

#[test]
fn agent_that_takes_over_from_another_asks_at_once_whether_nodes_still_live() {
    let params = params(0, true);
    let mut members = Membership::new(&params);
    members.hear(index(1));
    let mut liveness = Liveness::new(&params);
    liveness.on_start(at(0), &members, &mut Vec::new());
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

    /// Answers are expected: three questions in a row without one mean death, and nothing less.
    #[test]
    fn three_questions_without_an_answer_mean_death(
        answers in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        let mut segment = Segment::up(2);
        segment.kill(1);
        segment.ends[1].server = true;
        let (mut answers, mut unanswered) = (answers.into_iter().chain([false; 3]), 0);
        let ask = Event::Ask(index(1));
        let dead = Event::Dead(index(1));
        while found(&segment, &dead).is_none() {
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
                segment.tell(0, |liveness, now, members, out| {
                    liveness.on_echo(now, members, index(1), out);
                });
            }
        }
        prop_assert_eq!(unanswered, 3);
        prop_assert!(!sign(&segment, true).lives);
    }
}
