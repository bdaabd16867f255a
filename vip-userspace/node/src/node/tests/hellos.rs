//! What hellos tell of a node: a text, that it drains, that it leaves.

use super::*;
use crate::hello::MAX_TEXT;

/// Three nodes of a closed list that have heard each other's hellos, and their time.
fn closed(bfd: bool) -> (Vec<Bench>, BootNanos) {
    let node = |own| Bench::new(seeded(own, bfd, 1));
    let mut nodes: Vec<Bench> = (0..3).map(node).collect();
    let now = exchange(&mut nodes, at(0), 5000, 1);
    (nodes, now)
}

/// Parameters of a run of an agent.
fn seeded(own: usize, bfd: bool, run: u64) -> Params {
    let mut params = params(own, bfd);
    params.seed = run * 100 + own as u64;
    params
}

#[test]
fn without_bfd_hellos_tell_at_once_that_a_node_drains() {
    let (mut nodes, mut now) = closed(false);
    for draining in [true, false] {
        let bench = &mut nodes[1];
        bench
            .node
            .on_input(now, Input::Drain(draining), &mut bench.out);
        now = exchange(&mut nodes, now, 50, 1);
        assert_eq!(nodes[0].node.is_draining(index(1)), draining);
    }
}

#[test]
fn bfd_is_believed_rather_than_a_hello_that_was_sent_before() {
    let (mut nodes, now) = closed(true);
    let hello = nodes[1].node.members.make_hello(now, true, |_| None);
    let (hello, source) = (
        Box::new(hello.expect("a member").0),
        IpAddr::from([10, 0, 0, 12]),
    );
    let admits = true;
    let input = Input::Hello {
        source,
        hello,
        admits,
    };
    nodes[0].event(now, input);
    assert!(!nodes[0].node.is_draining(index(1)));
}

#[test]
fn member_of_a_closed_list_that_leaves_drains_until_it_comes_back() {
    let (mut nodes, now) = closed(true);
    let third = &mut nodes[2];
    third.node.on_input(now, Input::Leave, &mut third.out);
    let now = exchange(&mut nodes, now, 50, 1);
    assert!(nodes[2].node.has_left());
    let first = &nodes[0].node;
    assert!(first.is_draining(index(2)) && first.slot([10, 0, 0, 13].into()).is_some());
    assert!(
        first.masks().alive.contains(index(2)),
        "it may have connections"
    );
    nodes[2] = Bench::new(seeded(2, true, 2));
    exchange(&mut nodes, now, 5000, 1);
    assert!(!nodes[0].node.is_draining(index(2)));
}

/// The texts that the first node hears of the second one within that time, and the hellos that the
/// second one sends meanwhile.
fn told(nodes: &mut [Bench], now: BootNanos, ms: u64) -> (Vec<String>, usize) {
    let (mut texts, mut hellos) = (Vec::new(), 0);
    let second = IpAddr::from([10, 0, 0, 12]);
    exchange_if(&mut nodes[..2], now, ms, 1, |action| {
        match action {
            Action::Report(Report::Told { node, text }) if *node == index(1) => {
                texts.push(text.clone());
            }
            Action::SendHello { hello, .. } if hello.sender().address == second => hellos += 1,
            _ => {}
        }
        true
    });
    (texts, hellos)
}

#[test]
fn text_is_told_at_once_and_reported_when_it_changes() {
    let (mut nodes, now) = closed(true);
    let tell = |nodes: &mut [Bench], now, text: &str, at_once| {
        let bench = &mut nodes[1];
        let text = text.to_owned();
        let input = Input::Text { text, at_once };
        bench.node.on_input(now, input, &mut bench.out);
    };
    tell(&mut nodes, now, "2.0 steers", true);
    let (texts, _) = told(&mut nodes, now, 50);
    assert_eq!(texts, ["2.0 steers"]);
    let mut later = now.after(Duration::from_millis(50));
    let (texts, hellos) = told(&mut nodes, later, 5000);
    assert_eq!(
        (texts.len(), hellos),
        (0, 5),
        "it goes out with each hello, and is no news"
    );
    // What can wait goes out with the next one.
    later = later.after(Duration::from_secs(5));
    tell(&mut nodes, later, "7 connections", false);
    let (texts, hellos) = told(&mut nodes, later, 2000);
    assert_eq!((&*texts[0], texts.len(), hellos), ("7 connections", 1, 2));
    // One that changes all the time makes no flood: a hello each 20 ms at most.
    later = later.after(Duration::from_secs(2));
    let mut hellos = 0;
    for ms in 0..1000_u64 {
        tell(&mut nodes, later, &ms.to_string(), true);
        hellos += told(&mut nodes, later, 1).1;
        later = later.after(Duration::from_millis(1));
    }
    assert!((40..=51).contains(&hellos), "{hellos}");
}

#[test]
fn text_that_is_too_long_is_cut_between_two_characters() {
    let (mut nodes, now) = closed(false);
    let bench = &mut nodes[1];
    let text = format!("{}ü more", "x".repeat(MAX_TEXT - 1));
    let at_once = true;
    let input = Input::Text { text, at_once };
    bench.node.on_input(now, input, &mut bench.out);
    let (texts, _) = told(&mut nodes, now, 50);
    assert_eq!(texts, ["x".repeat(MAX_TEXT - 1)]);
}
