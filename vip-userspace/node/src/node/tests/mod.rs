use std::net::IpAddr;
use std::num::NonZeroU8;

use vip_common::abi::{LONGEST_LEASE, lease_stands};
use vip_common::wire::addr::Mac;
use vip_common::wire::bfd::ControlPacket;
use vip_common::wire::vrrp::{Addresses, Centiseconds};

use super::*;
use crate::action::*;
use crate::election::MAX_LEASE;
use crate::testing::{at, index, params};

mod conflict;
mod handover;
mod transfer;

/// A node with what it did last.
struct Bench {
    node: Node,
    out: Vec<Action>,
}

impl Bench {
    fn new(params: Params) -> Self {
        Self::knowing(params, |_| true)
    }

    /// One that knows the Ethernet addresses of these nodes.
    fn knowing(params: Params, located: impl Fn(BackendIndex) -> bool) -> Self {
        let mut bench = Self {
            node: Node::new(&params),
            out: vec![],
        };
        let known = Masks::default();
        bench
            .node
            .on_start(at(0), BootNanos::ZERO, known, &mut bench.out);
        for other in bench.node.members.others().filter(|index| located(*index)) {
            let located = Input::Located(other);
            bench.node.on_input(at(0), located, &mut bench.out);
        }
        bench
    }

    fn event(&mut self, now: BootNanos, event: Input) -> &[Action] {
        self.out.clear();
        self.node.on_input(now, event, &mut self.out);
        &self.out
    }

    fn advert(&mut self, now: BootNanos, source: usize, priority: u8) -> &[Action] {
        let advert = Advertisement {
            router_id: 10,
            priority,
            interval: params(0, false).vrrp.interval,
            addresses: Addresses::new(&[IpAddr::from([10, 0, 0, 10])]).unwrap(),
        };
        let source = index(source);
        self.event(now, Input::Advert { source, advert })
    }

    /// Lets the timers run until then.
    fn run(&mut self, until: BootNanos) -> &[Action] {
        self.out.clear();
        while self.node.next_deadline() <= until {
            let now = self.node.next_deadline();
            self.node.on_timer(now, &mut self.out);
        }
        &self.out
    }
}

fn owner(params: Params) -> Bench {
    let mut bench = Bench::new(params);
    bench.run(at(2000));
    assert_eq!(bench.node.state(), State::Active);
    bench
}

#[test]
fn takeover_raises_the_lease_before_it_announces() {
    let mut bench = Bench::new(params(0, false));
    let actions = bench.run(at(400));
    let place = |wanted: fn(&Action) -> bool| actions.iter().position(wanted).unwrap();
    let answer_until =
        place(|action| matches!(action, Action::SetAnswerUntil(until) if until.0 > 0));
    let announce = place(|action| *action == Action::Announce);
    assert!(
        answer_until < announce,
        "the guard lets no announcement out before"
    );
}

#[test]
fn lease_of_long_timers_is_renewed_in_steps_that_the_programs_believe() {
    let mut long = params(0, false);
    long.vrrp.interval = Centiseconds::MAX;
    let mut bench = Bench::new(long);
    let (mut now, mut owned, mut steps) = (at(0), at(0), 0);
    while now < at(400_000) {
        now = bench.node.next_deadline();
        bench.out.clear();
        bench.node.on_timer(now, &mut bench.out);
        assert!(bench.node.next_deadline() > now, "it would never wait");
        if bench.node.state() == State::Active {
            let answer_until = bench.node.answer_until();
            assert!(answer_until.since(now) <= MAX_LEASE && lease_stands(answer_until, now));
            owned = if owned == at(0) { now } else { owned };
            let sets = |action: &&Action| matches!(action, Action::SetAnswerUntil(_));
            steps += bench.out.iter().filter(sets).count();
        }
    }
    // Once every two seconds from the takeover on.
    let seconds = now.since(owned).as_secs() as usize;
    assert!(
        (seconds / 2 - 2..seconds / 2 + 20).contains(&steps),
        "{steps} in {seconds} s"
    );
    // It hangs for longer than the kernel answers, but for less than the others wait.
    now = bench.node.answer_until().after(Duration::from_secs(1));
    bench.out.clear();
    bench.node.on_timer(now, &mut bench.out);
    assert_eq!(bench.node.state(), State::Active);
    assert!(lease_stands(bench.node.answer_until(), now));
}

#[test]
fn lease_that_no_agent_sets_is_not_taken_over() {
    let mut node = Node::new(&params(0, false));
    let far = at(0).after(LONGEST_LEASE * 2);
    node.on_start(at(0), far, Masks::default(), &mut vec![]);
    assert_eq!(node.state(), State::Backup);
}

#[test]
fn priority_is_a_quarter_while_the_own_server_is_not_ready() {
    let mut bench = Bench::new(params(0, false));
    bench.event(
        at(1),
        Input::Probe {
            node: index(0),
            check: 0,
            found: Probe::Refused,
        },
    );
    assert_eq!(bench.node.priority(), 62);
    bench.event(
        at(2),
        Input::Probe {
            node: index(0),
            check: 0,
            found: Probe::Ready,
        },
    );
    assert_eq!(bench.node.priority(), 250);
}

#[test]
fn vip_leaves_an_owner_whose_server_failed_only_for_one_whose_is_ready() {
    for (own_ready, leaves) in [(true, true), (false, false)] {
        let mut bench = Bench::new(params(1, false));
        bench.event(
            at(1),
            Input::Probe {
                node: index(0),
                check: 0,
                found: Probe::Refused,
            },
        );
        let own = if own_ready {
            Probe::Ready
        } else {
            Probe::Refused
        };
        bench.event(
            at(1),
            Input::Probe {
                node: index(1),
                check: 0,
                found: own,
            },
        );
        for tick in 1..20 {
            bench.advert(at(tick * 50), 0, 62);
            bench.run(at(tick * 50 + 49));
        }
        let active = bench.node.state() == State::Active;
        assert_eq!(active, leaves, "own ready: {own_ready}");
    }
}

#[test]
fn owner_that_lacks_something_gives_the_vip_up_at_once_and_comes_back() {
    for fault in Fault::ALL {
        let mut bench = owner(params(0, false));
        let actions = bench.event(
            at(2001),
            Input::Fault {
                fault: fault,
                present: true,
            },
        );
        assert!(
            actions.contains(&Action::SetAnswerUntil(BootNanos::ZERO)),
            "{fault:?}"
        );
        assert_eq!(bench.node.faults().collect::<Vec<_>>(), [fault]);
        bench.run(at(5000));
        assert_eq!(bench.node.state(), State::Initialize);
        bench.event(
            at(5001),
            Input::Fault {
                fault: fault,
                present: false,
            },
        );
        bench.run(at(6000));
        assert_eq!(bench.node.state(), State::Active);
    }
}

#[test]
fn handover_asks_one_node_alone_and_keeps_answering_until_it_speaks() {
    let mut bench = owner(params(0, false));
    bench.event(
        at(2001),
        Input::Probe {
            node: index(1),
            check: 0,
            found: Probe::Ready,
        },
    );
    bench.event(
        at(2001),
        Input::Probe {
            node: index(2),
            check: 0,
            found: Probe::Ready,
        },
    );
    let actions = bench.event(at(2010), Input::Handover(Some(index(2))));
    let resigned = Action::SendAdvert {
        to: To::One(index(2)),
        priority: PRIORITY_RESIGNED,
    };
    assert!(actions.contains(&resigned));
    assert!(bench.node.answer_until() > at(2010), "it still answers");
    // To the others it is still there, and to the successor, who is asked again each time,
    // no reason to yield.
    let adverts: Vec<_> = bench
        .run(at(2200))
        .iter()
        .filter_map(|action| match action {
            Action::SendAdvert { to, priority } => Some((*to, *priority)),
            _ => None,
        })
        .collect();
    assert_eq!(adverts, [(To::All, 1), (To::One(index(2)), 0)].repeat(2));
    let actions = bench.advert(at(2210), 2, 190);
    assert!(actions.contains(&Action::Report(Report::HandedOver(index(2)))));
    assert_eq!(bench.node.answer_until(), BootNanos::ZERO);
    assert_eq!(bench.node.owner(), Some(index(2)));
}

/// Delivers what was sent, for that many milliseconds, in batches: a busy node hears several
/// packets at once. Returns the time after that.
fn exchange(nodes: &mut [Bench], start: BootNanos, ms: u64, batch: u64) -> BootNanos {
    let mut waiting = vec![];
    let mut now = start;
    for step in 1..=ms {
        now = start.after(Duration::from_millis(step));
        for (from, bench) in nodes.iter_mut().enumerate() {
            // What events have caused, too.
            let mut sent = std::mem::take(&mut bench.out);
            sent.extend(bench.run(now).iter().cloned());
            bench.out.clear();
            waiting.extend(sent.into_iter().map(|action| (from, action)));
        }
        if step % batch != 0 {
            continue;
        }
        for (from, action) in waiting.drain(..) {
            for (node, bench) in nodes.iter_mut().enumerate() {
                let source = index(from);
                let mine =
                    |to: To| node != from && matches!(to, To::All) || to == To::One(index(node));
                match &action {
                    Action::SendBfd { to, packet } if *to == index(node) => {
                        let event = Input::Bfd {
                            source,
                            packet: *packet,
                        };
                        bench.node.on_input(now, event, &mut bench.out);
                    }
                    Action::SendAdvert { to, priority } if mine(*to) => {
                        let kept = std::mem::take(&mut bench.out);
                        let more = bench.advert(now, from, *priority).to_vec();
                        bench.out = [kept, more].concat();
                    }
                    _ => {}
                }
            }
        }
    }
    now
}

#[test]
fn any_successor_takes_over_though_the_owner_still_speaks() {
    for (to, batch) in [(1, 1), (2, 1), (1, 15), (2, 15)] {
        // A turn takes longer than it takes the owner to speak again.
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
fn an_owner_that_stays_after_all_is_believed() {
    let mut bench = Bench::new(params(1, false));
    bench.advert(at(1), 0, 250);
    bench.advert(at(10), 0, PRIORITY_RESIGNED);
    bench.advert(at(11), 0, 250);
    bench.run(at(300));
    assert_eq!(bench.node.state(), State::Backup);
}

#[test]
fn handover_that_nobody_answers_leaves_the_vip_where_it_is() {
    let mut bench = owner(params(0, false));
    bench.event(
        at(2001),
        Input::Probe {
            node: index(1),
            check: 0,
            found: Probe::Ready,
        },
    );
    bench.event(at(2010), Input::Handover(None));
    let actions = bench.run(at(5000));
    let failed = NoHandover::NoAnswer(index(1));
    assert!(actions.contains(&Action::Report(Report::NotHandedOver(failed))));
    assert_eq!(bench.node.state(), State::Active);
    for (to, why) in [
        (Some(index(0)), NoHandover::Own),
        (
            Some(index(2)),
            NoHandover::Unsuited(index(2), Unsuited::Unheard),
        ),
    ] {
        bench.event(
            at(5001),
            Input::Probe {
                node: index(2),
                check: 0,
                found: Probe::Silent(String::new()),
            },
        );
        let actions = bench.event(at(5002), Input::Handover(to));
        assert!(actions.contains(&Action::Report(Report::NotHandedOver(why))));
    }
}

#[test]
fn owner_that_leaves_answers_until_the_next_one_speaks() {
    let mut bench = owner(params(0, false));
    bench.event(
        at(2001),
        Input::Probe {
            node: index(1),
            check: 0,
            found: Probe::Ready,
        },
    );
    let actions = bench.event(at(2010), Input::Shutdown);
    let resigned = Action::SendAdvert {
        to: To::All,
        priority: PRIORITY_RESIGNED,
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

#[test]
fn draining_node_gets_no_new_connections_anywhere_and_keeps_its_open_ones() {
    let (mut nodes, mut now) = three();
    for draining in [true, false] {
        let bench = &mut nodes[1];
        bench
            .node
            .on_input(now, Input::Drain(draining), &mut bench.out);
        now = exchange(&mut nodes, now, 5, 1);
        for bench in &nodes {
            let masks = bench.node.masks();
            assert_eq!(masks.new_connections[0].contains(index(1)), !draining);
            assert!(masks.alive.contains(index(1)));
        }
        // As with a server that is not ready: it takes the VIP only if nobody else does.
        let priority = if draining { 220 / 4 } else { 220 };
        assert_eq!(nodes[1].node.priority(), priority);
        now = exchange(&mut nodes, now, 3000, 1);
        assert_eq!(nodes[0].node.is_draining(index(1)), draining);
    }
}

/// Somebody says that it has the VIP.
fn claim(node: Option<BackendIndex>) -> Input {
    Input::Claim {
        mac: Mac::from_wire([2, 9, 9, 9, 9, 9]),
        node,
        agent: false,
    }
}

/// How many conflicts are told of, and how often the VIP is defended.
fn conflicts(actions: &[Action]) -> (usize, usize) {
    let told = actions
        .iter()
        .filter(|action| matches!(action, Action::Report(Report::Conflict { .. })));
    let defended = actions.iter().filter(|action| **action == Action::Announce);
    (told.count(), defended.count())
}

#[test]
fn node_without_an_agent_that_has_the_vip_is_waited_for_and_named_once_it_cannot_be_the_owner() {
    let mut bench = Bench::new(Params {
        probe_address: true,
        ..params(0, true)
    });
    // It may be the owner, whose advertisement is still to come.
    let early = bench.event(at(50), claim(Some(index(1))));
    assert_eq!(conflicts(early), (0, 0));
    for second in 1..5 {
        bench.run(at(second * 1000));
        let later = bench.event(at(second * 1000 + 10), claim(Some(index(1))));
        assert_eq!(conflicts(later), (1, 0), "after {second} s");
        assert_eq!(bench.node.state(), State::Backup, "after {second} s");
    }
    bench.run(at(10_000));
    assert_eq!(bench.node.state(), State::Active);
    let against = bench.event(at(10_001), claim(Some(index(1))));
    assert_eq!(conflicts(against), (1, 1));
}

#[test]
fn node_whose_agent_is_heard_says_of_the_vip_what_the_agent_says() {
    // By its advertisements.
    let mut bench = Bench::new(params(0, false));
    bench.advert(at(10), 1, 220);
    let owner = bench.event(at(11), claim(Some(index(1))));
    assert_eq!(conflicts(owner), (0, 0));
    let another = bench.event(at(12), claim(Some(index(2))));
    assert_eq!(conflicts(another), (1, 0));
    // By BFD: an owner that was until a moment ago.
    let (mut first, _) = up();
    let heard = first.event(at(4001), claim(Some(index(1))));
    assert_eq!(conflicts(heard), (0, 0));
}

#[test]
fn stranger_keeps_the_vip_from_being_claimed_and_is_answered_once_in_ten_seconds_later() {
    let mut bench = Bench::new(Params {
        probe_address: true,
        ..params(0, false)
    });
    for second in 0..5 {
        bench.event(at(second * 1000 + 50), claim(None));
        bench.run(at(second * 1000 + 1000));
        assert_eq!(bench.node.state(), State::Backup, "after {second} s");
    }
    bench.run(at(10_000));
    assert_eq!(bench.node.state(), State::Active);
    let mut defended = 0;
    for second in 0..25 {
        let actions = bench.event(at(20_000 + second * 1000), claim(None));
        defended += usize::from(actions.contains(&Action::Announce));
        bench.run(at(20_000 + second * 1000 + 999));
    }
    assert_eq!(defended, 3);
    assert_eq!(bench.node.state(), State::Active, "a claim moves nothing");
}

/// When the owner asks whether somebody else has its address, and what is told of claims.
fn asked(bench: &mut Bench, from: u64, to: u64) -> Vec<u64> {
    let mut times = Vec::new();
    bench.out.clear();
    while bench.node.next_deadline() <= at(to) {
        let now = bench.node.next_deadline();
        bench.out.clear();
        bench.node.on_timer(now, &mut bench.out);
        let asks = bench.out.contains(&Action::ProbeAddress) && now >= at(from);
        times.extend(asks.then(|| now.since(at(0)).as_millis() as u64));
    }
    times
}

#[test]
fn owner_asks_for_its_address_at_once_and_every_few_seconds_and_no_other_node_does() {
    let probing = |own| Params {
        probe_address: true,
        ..params(own, false)
    };
    let mut owner = Bench::new(probing(0));
    let times = asked(&mut owner, 0, 60_000);
    assert_eq!(owner.node.state(), State::Active);
    // Three before the claim, and one with it.
    assert!(times[3] - times[2] <= 150 && times[3] < 1000, "{times:?}");
    let pauses: Vec<u64> = times[3..]
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert!(pauses.iter().all(|pause| (2250..=3750).contains(pause)));
    assert!(pauses.len() >= 15 && pauses.iter().any(|pause| *pause != pauses[0]));

    let mut backup = Bench::new(probing(1));
    for tenth in 1..200 {
        backup.advert(at(tenth * 100), 0, 250);
        let asks = asked(&mut backup, 1000, tenth * 100 + 50);
        assert!(asks.is_empty(), "{asks:?}");
    }
    let mut mute = Bench::new(params(0, false));
    assert_eq!(asked(&mut mute, 0, 60_000), [0; 0], "as configured");
}

#[test]
fn claim_is_news_once_and_over_when_nobody_answers_any_more() {
    let mut bench = owner(params(0, false));
    let told = |actions: &[Action]| {
        let mut reports = actions.iter().filter_map(|action| match action {
            Action::Report(Report::Conflict { fresh, .. }) => Some(Some(*fresh)),
            Action::Report(Report::ConflictOver { .. }) => Some(None),
            _ => None,
        });
        let first = reports.next();
        assert_eq!(reports.next(), None);
        first
    };
    for second in 0..5 {
        let time = at(10_000 + second * 3000);
        assert_eq!(told(bench.run(time)), None);
        let news = told(bench.event(time, claim(None)));
        assert_eq!(news, Some(Some(second == 0)), "after {second}");
    }
    assert_eq!(told(bench.run(at(10_000 + 4 * 3000 + 11_999))), None);
    assert_eq!(told(bench.run(at(10_000 + 4 * 3000 + 12_000))), Some(None));
    assert_eq!(told(bench.run(at(100_000))), None);
    assert_eq!(
        told(bench.event(at(100_000), claim(None))),
        Some(Some(true))
    );
}

#[test]
fn another_owner_is_named_once_it_is_no_handover() {
    let told = |actions: &[Action]| {
        let mut reports = actions.iter().filter_map(|action| match action {
            Action::Report(Report::TwoOwners { node, present }) => Some((node.get(), *present)),
            _ => None,
        });
        reports.next()
    };
    let mut bench = owner(params(0, false));
    bench.run(at(10_000));
    let rival = || claim(Some(index(1)));
    // In a handover the other one still answers, to questions for several addresses.
    assert_eq!(told(bench.event(at(10_000), rival())), None);
    assert_eq!(told(bench.event(at(10_001), rival())), None);
    for (time, wanted) in [(60_000, None), (63_000, Some((1, true))), (66_000, None)] {
        assert_eq!(told(bench.run(at(time))), None, "{time}");
        assert_eq!(told(bench.event(at(time), rival())), wanted, "{time}");
    }
    assert_eq!(told(bench.run(at(78_000))), Some((1, false)));
    // One that yields has no rival.
    for time in [90_000, 93_000] {
        bench.run(at(time));
        bench.event(at(time), rival());
    }
    bench.run(at(96_000));
    bench.advert(at(96_000), 1, 255);
    assert_eq!(bench.node.state(), State::Backup);
    assert_eq!(told(bench.run(at(97_000))), Some((1, false)));
    assert_eq!(told(bench.event(at(97_000), rival())), None);
}

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
    // Another one has nothing to say of the VIP.
    let mut second = Bench::new(params(1, false));
    second.advert(at(9_999), 0, 250);
    let own = [Action::AnnounceOwn].to_vec();
    let wanted: Vec<_> = [0, 50, 200].map(|time| (time, own.clone())).into();
    assert_eq!(times(&mut second, 10_000)[..3], wanted);
}

/// Two nodes whose BFD session is up, and who answer echo requests; what the first one sends after
/// that is lost.
fn up() -> (Bench, Bench) {
    let mut nodes = [Bench::new(params(0, true)), Bench::new(params(1, true))];
    let mut now = at(0);
    for _ in 0..4000 {
        now = now.after(Duration::from_millis(1));
        for from in 0..2 {
            let sent = nodes[from].run(now).to_vec();
            for action in sent {
                let (to, event) = match &action {
                    Action::SendBfd { to, packet } if *to == index(1 - from) => {
                        let source = index(from);
                        (
                            1 - from,
                            Input::Bfd {
                                source,
                                packet: *packet,
                            },
                        )
                    }
                    Action::SendEcho(to) => (from, Input::Echo(*to)),
                    _ => continue,
                };
                nodes[to].node.on_input(now, event, &mut Vec::new());
            }
        }
    }
    let [a, b] = nodes;
    assert!(a.node.bfd(index(1)).unwrap().is_up());
    (a, b)
}

#[test]
fn node_gets_nothing_until_its_agent_was_heard() {
    let mut bench = Bench::new(params(1, true));
    bench.event(
        at(1),
        Input::Probe {
            node: index(0),
            check: 0,
            found: Probe::Ready,
        },
    );
    let masks = bench.node.masks();
    assert!(!masks.new_connections[0].contains(index(0)) && !masks.alive.contains(index(0)));
    let (_, b) = up();
    let masks = b.node.masks();
    assert!(masks.new_connections[0].contains(index(0)) && masks.alive.contains(index(0)));
}

#[test]
fn node_that_has_just_come_is_joining_until_all_others_have_said_that_they_hear_it() {
    // Nobody is there: it does not wait for ever.
    let mut alone = Bench::new(params(1, true));
    assert_eq!(alone.node.masks().no_forward, BackendMask::ALL);
    alone.run(at(499));
    assert_eq!(alone.node.masks().no_forward, BackendMask::ALL);
    alone.run(at(500));
    assert!(alone.node.masks().no_forward.is_empty());

    // One is there and the other is not: it waits for the other.
    let mut pair = [0, 1].map(|own| Bench::new(params(own, true)));
    exchange(&mut pair, at(0), 400, 1);
    assert!(pair[0].node.bfd(index(1)).unwrap().is_up());
    assert_eq!(pair[0].node.masks().no_forward, BackendMask::ALL);

    // All are there.
    let mut nodes = [0, 1, 2].map(|own| Bench::new(params(own, true)));
    let mut now = at(0);
    while nodes
        .iter()
        .any(|bench| !bench.node.masks().no_forward.is_empty())
    {
        now = exchange(&mut nodes, now, 1, 1);
        for bench in nodes
            .iter()
            .filter(|bench| bench.node.masks().no_forward.is_empty())
        {
            for other in bench.node.members.others() {
                let hears = nodes[other.get()].node.masks().alive;
                assert!(
                    hears.contains(bench.node.members.own()),
                    "{other:?} knows it"
                );
            }
        }
    }
    assert!(now < at(400), "sooner than by time alone");

    // All hear each other, and one does not know yet how to reach another.
    let mut nodes = [0, 1, 2].map(|own| {
        let knows = |other| own != 0 || other != index(1);
        Bench::knowing(params(own, true), knows)
    });
    exchange(&mut nodes, at(0), 400, 1);
    assert!(nodes[1].node.masks().no_forward.is_empty());
    assert_eq!(nodes[0].node.masks().no_forward, BackendMask::ALL);
    nodes[0].event(at(400), Input::Located(index(1)));
    assert!(nodes[0].node.masks().no_forward.is_empty());

    // One that goes on where another agent left off knows the others.
    let mut node = Node::new(&params(0, true));
    node.on_start(at(0), BootNanos::ZERO, Masks::all(3), &mut Vec::new());
    assert!(node.masks().no_forward.is_empty());
}

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
        assert!(!masks.new_connections[0].contains(index(0)) && masks.alive.contains(index(0)));
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
fn node_that_dies_after_its_agent_took_leave_is_found_dead_by_its_silence() {
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
    assert!(left, "it says transfer");
    // Its kernel lives, and goes on with its connections, however long its agent is away.
    for time in (4001..8000).step_by(10) {
        if b.run(at(time)).contains(&Action::SendEcho(index(0))) {
            b.event(at(time + 1), Input::Echo(index(0)));
        }
        assert!(b.node.masks().alive.contains(index(0)), "at {time}");
    }
    b.run(at(8300));
    assert!(!b.node.masks().alive.contains(index(0)));
    // It boots: its server is there again, but its stack has no VIP yet.
    b.event(
        at(20_000),
        Input::Probe {
            node: index(0),
            check: 0,
            found: Probe::Ready,
        },
    );
    b.event(
        at(20_001),
        Input::Probe {
            node: index(0),
            check: 0,
            found: Probe::Ready,
        },
    );
    assert!(!b.node.masks().alive.contains(index(0)));
    assert!(!b.node.masks().new_connections[0].contains(index(0)));
}

/// Lets two nodes hear each other, while the second asks the first, which answers by these means.
/// What the second one does.
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
    let dead = Action::Report(Report::Dead(index(0)));
    let found = (16_000..17_000).find(|time| answer(&mut b, *time, false, false).contains(&dead));
    assert!(found.is_some_and(|time| time < 16_300), "{found:?}");
}

#[test]
fn echo_that_does_not_come_back_from_a_node_that_lives_is_told_once() {
    let (mut a, mut b) = up();
    assert_eq!(b.node.answers_echo(index(0)), Some(true));
    let mut told = vec![];
    for (echo, times) in [(false, 4000..40_000), (true, 40_000..60_000)] {
        let done = hear(&mut a, &mut b, times, echo, true);
        told.extend(done.into_iter().filter_map(|(time, action)| match action {
            Action::Report(Report::Echo { lost, .. }) => Some((lost, time / 10_000)),
            _ => None,
        }));
        assert_eq!(b.node.answers_echo(index(0)), Some(echo));
    }
    assert_eq!(told, [(true, 1), (false, 4)]);
}

#[test]
fn questions_to_a_node_that_is_well_are_no_storm() {
    let (mut a, mut b) = up();
    let done = hear(&mut a, &mut b, 4000..64_000, true, true);
    let is_echo = |(_, action): &&(u64, Action)| *action == Action::SendEcho(index(0));
    let asked = done.iter().filter(is_echo).count();
    // One in two seconds: there are two others, one of whom is not there.
    assert!((29..=31).contains(&asked), "{asked} in a minute");
}

#[test]
fn node_that_never_answered_is_not_dead_by_silence_but_by_probes() {
    let (mut a, mut b) = up();
    hear(&mut a, &mut b, 4000..20_000, false, false);
    assert_eq!(b.node.answers_echo(index(0)), Some(false));
    for time in 20_000..30_000 {
        answer(&mut b, time, false, false);
        if time % 500 == 0 {
            b.event(
                at(time),
                Input::Probe {
                    node: index(0),
                    check: 0,
                    found: Probe::Refused,
                },
            );
        }
        assert!(b.node.masks().alive.contains(index(0)), "at {time}");
    }
    for time in 30_000..30_300 {
        answer(&mut b, time, false, false);
    }
    let actions = b.event(
        at(30_300),
        Input::Probe {
            node: index(0),
            check: 0,
            found: Probe::Silent(String::new()),
        },
    );
    assert!(actions.contains(&Action::Report(Report::Dead(index(0)))));
    // As any other that was dead, it must be heard again.
    b.event(
        at(40_000),
        Input::Probe {
            node: index(0),
            check: 0,
            found: Probe::Ready,
        },
    );
    assert!(!b.node.masks().alive.contains(index(0)));
}

#[test]
fn probe_of_a_connection_from_before_a_node_died_is_no_sign_of_life() {
    let (mut a, mut b) = up();
    hear(&mut a, &mut b, 4000..20_000, true, true);
    for time in 20_000..21_000 {
        answer(&mut b, time, false, false);
    }
    let dead = b.node.liveness.lost_at(index(0)).unwrap();
    assert!(dead > at(20_100) && !b.node.masks().alive.contains(index(0)));
    let answers = Action::Report(Report::Answers(index(0)));
    for (connected, lives) in [(at(19_990), false), (at(20_050), false), (at(20_990), true)] {
        let probe = Input::Probe {
            node: index(0),
            check: 0,
            found: hung(connected),
        };
        let actions = b.event(at(21_000), probe);
        assert_eq!(actions.contains(&answers), lives, "{connected:?}");
    }
}

/// Three nodes that hear each other, and whose servers are ready.
fn three() -> ([Bench; 3], BootNanos) {
    let mut nodes = [0, 1, 2].map(|own| Bench::new(params(own, true)));
    let now = exchange(&mut nodes, at(0), 5000, 1);
    for bench in &mut nodes {
        for server in 0..3 {
            bench.event(
                now,
                Input::Probe {
                    node: index(server),
                    check: 0,
                    found: Probe::Ready,
                },
            );
        }
    }
    (nodes, now)
}

fn drain(bench: &mut Bench, now: BootNanos) {
    bench.node.on_input(now, Input::Drain(true), &mut bench.out);
}

/// A probe that found no answer on a connection from then.
fn hung(connected: BootNanos) -> Probe {
    let reason = String::new();
    Probe::Hung { reason, connected }
}

#[test]
fn last_usable_node_is_not_drained_without_being_told_why() {
    let (mut nodes, mut now) = three();
    drain(&mut nodes[0], now);
    now = exchange(&mut nodes, now, 200, 1);
    assert_eq!(nodes[1].node.may_drain(), Ok(()));
    // The third hangs: the second is the last.
    nodes[1].event(
        now,
        Input::Probe {
            node: index(2),
            check: 0,
            found: hung(now),
        },
    );
    let why = LastUsable {
        check: 0,
        others: vec![(index(0), Unfit::Draining), (index(2), Unfit::Unready)],
    };
    assert_eq!(nodes[1].node.may_drain(), Err(NoDrain::LastUsable(why)));
    // Forced, its connections go to the one that hangs, and not to those that drain; all know.
    let own = index(1);
    nodes[1].event(now, Input::Drain(true));
    let masks = nodes[1].node.masks();
    assert_eq!(
        masks.new_connections[0],
        BackendMask::EMPTY.with(index(2), true)
    );
    assert_eq!(nodes[1].node.resort(0), Resort::Living);
    assert!(masks.draining.contains(own) && nodes[1].node.may_drain().is_ok());
}

#[test]
fn no_server_gets_connections_before_it_was_asked_while_another_one_was_the_own_least() {
    let set = |nodes: &[usize]| {
        let add = |set: BackendMask, node: &usize| set.with(index(*node), true);
        nodes.iter().fold(BackendMask::EMPTY, add)
    };
    let mut nodes = [0, 1, 2].map(|own| Bench::new(params(own, true)));
    // Alone on the segment, it connects its pods to others all the same.
    let masks = nodes[0].node.masks();
    assert_eq!(masks.new_connections[0], set(&[0]));
    assert_eq!(masks.connect[0], set(&[1, 2]));
    let now = exchange(&mut nodes, at(0), 5000, 1);
    let [bench, ..] = &mut nodes;
    assert_eq!(bench.node.masks().new_connections[0], set(&[1, 2]));
    for (server, probe, gets) in [
        (0, Probe::NotReady(String::new()), &[1, 2][..]),
        (2, Probe::Ready, &[2]),
        (1, Probe::Refused, &[2]),
        (0, Probe::Ready, &[0, 2]),
    ] {
        bench.event(
            now,
            Input::Probe {
                node: index(server),
                check: 0,
                found: probe,
            },
        );
        let masks = bench.node.masks();
        let both = (masks.new_connections[0], masks.connect[0]);
        assert_eq!(both, (set(gets), set(gets)), "server {server}");
        assert_eq!(bench.node.resort(0), Resort::Usable);
    }
}

#[test]
fn owner_is_not_drained_while_no_other_agent_is_heard() {
    let (mut nodes, mut now) = three();
    assert_eq!(nodes[0].node.state(), State::Active);
    assert_eq!(nodes[0].node.may_drain(), Ok(()));
    // The agents of the others end, and their kernels go on.
    for other in [1, 2] {
        nodes[other].event(now, Input::Shutdown);
    }
    now = exchange(&mut nodes, now, 200, 1);
    for other in [1, 2] {
        nodes[0].event(now, Input::Echo(index(other)));
    }
    assert_eq!(nodes[0].node.may_drain(), Err(NoDrain::LastAgent));
}

#[test]
fn single_node_is_not_drained_by_accident() {
    let mut params = params(0, true);
    params.nodes.truncate(1);
    let mut bench = Bench::new(params);
    assert!(bench.node.may_drain().is_err());
    bench.event(at(1), Input::Drain(true));
    assert_eq!(bench.node.resort(0), Resort::Draining);
    assert!(bench.node.masks().new_connections[0].contains(index(0)));
}

#[test]
fn what_is_known_of_draining_and_unusable_nodes_outlives_the_agent() {
    let (mut nodes, mut now) = three();
    drain(&mut nodes[1], now);
    now = exchange(&mut nodes, now, 200, 1);
    nodes[0].event(
        now,
        Input::Probe {
            node: index(2),
            check: 0,
            found: hung(now),
        },
    );
    let known = nodes[0].node.masks();
    let mut next = Node::new(&params(0, true));
    next.on_start(now, BootNanos::ZERO, known, &mut Vec::new());
    assert_eq!(next.masks().new_connections, known.new_connections);
    assert!(next.is_draining(index(1)));
}

#[test]
fn nodes_that_disagree_about_who_is_next_do_not_take_over_at_once() {
    // Neither hears the other, so each takes itself for the next.
    let claims = [1, 2].map(|own| {
        let mut bench = Bench::new(params(own, true));
        bench.advert(at(0), 0, 250);
        bench.advert(at(50), 0, PRIORITY_RESIGNED);
        bench.node.next_claim()
    });
    assert_eq!(claims[1].since(claims[0]), Duration::from_micros(12_500));
}

#[test]
fn packets_to_all_peers_leave_at_the_same_moments() {
    let mut bench = Bench::new(params(0, true));
    bench.run(at(5000));
    let mut moments = 0;
    while bench.node.next_deadline() <= at(60_000) {
        let now = bench.node.next_deadline();
        let actions = bench.run(now);
        let sends = |action: &&Action| matches!(action, Action::SendBfd { .. });
        match actions.iter().filter(sends).count() {
            0 => {}
            packets => {
                assert_eq!(packets, 2);
                moments += 1;
            }
        }
    }
    // A second at most: sessions with nobody are slow.
    assert!(moments >= 55, "{moments}");
}

#[test]
fn what_wakes_an_owner_after_its_lease_does_not_move_it_on() {
    let (mut a, b) = up();
    assert_eq!(a.node.state(), State::Active);
    let late = a.node.answer_until().after(Duration::from_millis(1));
    let session = b.node.bfd(index(0)).unwrap();
    let packet = ControlPacket {
        state: vip_common::wire::bfd::State::Up,
        diagnostic: Diagnostic::None,
        poll: true,
        final_: false,
        control_plane_independent: false,
        demand: false,
        detect_mult: NonZeroU8::new(3).unwrap(),
        my_discriminator: session.local_discriminator(),
        your_discriminator: a.node.bfd(index(1)).unwrap().local_discriminator().get(),
        desired_min_tx: vip_common::wire::bfd::Micros(50_000),
        required_min_rx: vip_common::wire::bfd::Micros(50_000),
        required_min_echo_rx: vip_common::wire::bfd::Micros(0),
    };
    let source = index(1);
    let actions = a.event(late, Input::Bfd { source, packet });
    assert_eq!(actions[0], Action::SetAnswerUntil(BootNanos::ZERO));
    assert_eq!(a.node.state(), State::Backup);
}

/// How a node says that it became the owner.
fn takeover(actions: &[Action]) -> Option<Takeover> {
    actions.iter().find_map(|action| match action {
        Action::Report(Report::Active(takeover)) => Some(*takeover),
        _ => None,
    })
}

#[test]
fn takeover_names_whose_the_vip_was_and_why_it_is_not_any_more() {
    let mut bench = Bench::new(params(1, false));
    assert_eq!(takeover(bench.run(at(2000))), Some(Takeover::Nobody));

    let node = index(0);
    let mut bench = Bench::new(params(1, false));
    bench.advert(at(10), 0, 250);
    bench.advert(at(110), 0, 250);
    let silent = takeover(bench.run(at(2000)));
    let after = Duration::from_millis(300) + Duration::from_millis(100) * 36 / 256;
    let why = Departure::Silent;
    assert_eq!(silent, Some(Takeover::From { node, why, after }));

    let mut bench = Bench::new(params(1, false));
    bench.advert(at(10), 0, 250);
    bench.advert(at(60), 0, PRIORITY_RESIGNED);
    let after = Duration::from_millis(100) * 36 / 256;
    let why = Departure::Resigned;
    let resigned = takeover(bench.run(at(2000)));
    assert_eq!(resigned, Some(Takeover::From { node, why, after }));

    // The next one is told from this one.
    bench.event(
        at(2001),
        Input::Fault {
            fault: Fault::Carrier,
            present: true,
        },
    );
    bench.event(
        at(2002),
        Input::Fault {
            fault: Fault::Carrier,
            present: false,
        },
    );
    assert_eq!(takeover(bench.run(at(4000))), Some(Takeover::Nobody));
}

#[test]
fn loss_has_its_cause() {
    let loss = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Report(Report::Backup(loss)) => Some(*loss),
            _ => None,
        })
    };
    let mut bench = owner(params(1, false));
    let actions = bench.advert(at(2001), 0, 250);
    assert_eq!(loss(actions), Some(Loss::Outranked(index(0))));
    let mut bench = owner(params(1, false));
    let fault = Fault::Carrier;
    let actions = bench.event(
        at(2001),
        Input::Fault {
            fault: fault,
            present: true,
        },
    );
    assert_eq!(loss(actions), Some(Loss::Fault(fault)));
    let mut bench = owner(params(1, false));
    bench.out.clear();
    bench.node.on_timer(at(60_000), &mut bench.out);
    assert_eq!(loss(&bench.out), Some(Loss::Overslept));
    let mut bench = owner(params(1, false));
    bench.event(at(2001), Input::Shutdown);
    assert_eq!(loss(bench.run(at(10_000))), Some(Loss::Shutdown));
}

#[test]
fn successor_of_an_owner_that_fell_silent_is_believed_at_once() {
    let mut nodes = [0, 1, 2].map(|own| Bench::new(params(own, true)));
    let now = exchange(&mut nodes, at(0), 3000, 1);
    assert_eq!(nodes[2].node.owner(), Some(index(0)));
    // It is dead: started, it would be another one.
    nodes[0].node = Node::new(&params(0, true));
    let mut now = now;
    while nodes[1].node.state() != State::Active {
        now = exchange(&mut nodes, now, 1, 1);
    }
    // What the last one promised, with a higher priority, is not over yet.
    exchange(&mut nodes, now, 2, 1);
    assert_eq!(nodes[2].node.owner(), Some(index(1)));
}

#[test]
fn each_change_of_owner_is_told_with_its_cause() {
    let told = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Report(Report::Owner { owner, before }) => {
                Some((*owner, before.map(|was| (was.node, was.why))))
            }
            _ => None,
        })
    };
    let (first, second) = (index(0), index(1));
    let mut bench = Bench::new(params(2, false));
    let heard = told(bench.advert(at(10), 0, 220));
    assert_eq!(heard, Some((Some(first), None)));
    assert_eq!(told(bench.advert(at(110), 0, 220)), None);
    let outranked = told(bench.advert(at(150), 1, 230));
    let before = Some((first, Departure::Outranked));
    assert_eq!(outranked, Some((Some(second), before)));
    let resigned = told(bench.advert(at(200), 1, PRIORITY_RESIGNED));
    let before = Some((second, Departure::Resigned));
    assert_eq!(resigned, Some((None, before)));
}
