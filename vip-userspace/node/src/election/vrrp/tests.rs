use proptest::prelude::*;
use vip_common::wire::vrrp::Addresses;

use super::*;

const MS: u64 = 1_000_000;
const MINUTE: Duration = Duration::from_secs(60);

fn address(node: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, 11 + node as u8])
}

fn interval(ms: u64) -> Centiseconds {
    Centiseconds::from_duration(Duration::from_millis(ms)).unwrap()
}

fn advert(priority: u8, interval: Centiseconds) -> Advertisement {
    Advertisement {
        router_id: 10,
        priority,
        interval,
        addresses: Addresses::new(&[IpAddr::from([10, 0, 0, 10])]).unwrap(),
    }
}

fn machine(node: usize, priority: u8, preempt: bool) -> Machine {
    Machine::new(Params {
        address: address(node),
        priority,
        interval: interval(100),
        preempt,
        preempt_delay: Duration::ZERO,
    })
}

fn at(ms: u64) -> BootNanos {
    BootNanos(ms * MS)
}

fn active(node: usize, priority: u8) -> (Machine, BootNanos) {
    let mut machine = machine(node, priority, false);
    machine.on_start(at(0), BootNanos::ZERO);
    let now = machine.next_deadline();
    machine.on_timer(now);
    assert_eq!(machine.state(), State::Active);
    (machine, now)
}

#[test]
fn starts_as_backup_and_takes_over_after_three_intervals_and_skew() {
    let mut machine = machine(0, 128, false);
    assert_eq!(machine.next_deadline(), BootNanos(u64::MAX));
    assert_eq!(
        machine.on_start(at(1000), BootNanos::ZERO),
        [Action::EndLease, Action::BecomeBackup]
    );
    assert_eq!(machine.next_deadline(), at(1350));
    assert_eq!(machine.on_timer(BootNanos(1350 * MS - 1)), []);
    assert_eq!(
        machine.on_timer(at(1350)),
        [
            Action::RenewLease { until: at(1600) },
            Action::SendAdvert { priority: 128 },
            Action::BecomeActive
        ]
    );
    assert_eq!(machine.next_deadline(), at(1450));
}

#[test]
fn backup_waits_as_long_as_the_owners_interval_says() {
    let mut machine = machine(0, 128, false);
    machine.on_start(at(0), BootNanos::ZERO);
    machine.on_advert(
        at(200),
        address(1),
        &advert(250, interval(1000)),
        Meeting::default(),
    );
    assert_eq!(machine.next_deadline(), at(200 + 3000 + 500));
    // A resignation leaves only the skew time, still that of the owner's interval.
    machine.on_advert(
        at(300),
        address(1),
        &advert(0, interval(10)),
        Meeting::default(),
    );
    assert_eq!(machine.next_deadline(), at(300 + 500));
}

#[test]
fn longer_interval_is_in_force_when_three_advertisements_have_carried_it() {
    let (mut machine, now) = active(0, 128);
    let ms = Duration::from_millis;
    let mut actions = machine.lengthen(now.after(ms(50)), ms(295));
    assert_eq!(machine.interval(), interval(400), "whole centiseconds");
    for sent in [50, 150].map(|after| now.after(ms(after))) {
        let until = sent.after(ms(250));
        assert_eq!(actions[0], Action::RenewLease { until });
        assert_eq!(machine.next_deadline(), sent.after(ms(100)));
        actions = machine.on_timer(machine.next_deadline());
    }
    let sent = now.after(ms(250));
    let until = sent.after(ms(1000));
    assert_eq!(actions[0], Action::RenewLease { until });
    assert_eq!(machine.next_deadline(), sent.after(ms(400)));
    // A shorter one is in force at once.
    let actions = machine.lengthen(sent, Duration::ZERO);
    let until = sent.after(ms(250));
    assert_eq!(actions[0], Action::RenewLease { until });
    assert_eq!(machine.next_deadline(), sent.after(ms(100)));
    machine.lengthen(sent, Duration::from_secs(1000));
    assert_eq!(machine.interval(), Centiseconds::MAX);
}

#[test]
fn configured_interval_changes_as_a_lengthened_one_and_backups_keep_the_owners() {
    let ms = Duration::from_millis;
    let timers = |interval_ms| Timers {
        interval: interval(interval_ms),
        preempt: false,
        preempt_delay: Duration::ZERO,
    };
    let (mut owner, now) = active(0, 128);
    assert_eq!(owner.tune(now, timers(100), Duration::ZERO), []);
    let actions = owner.tune(now.after(ms(50)), timers(1000), Duration::ZERO);
    let until = now.after(ms(300));
    assert_eq!(actions[0], Action::RenewLease { until });
    assert_eq!(owner.next_deadline(), now.after(ms(150)));
    let actions = owner.tune(now.after(ms(60)), timers(20), Duration::ZERO);
    let until = now.after(ms(110));
    assert_eq!(actions[0], Action::RenewLease { until });

    let mut backup = machine(1, 128, false);
    backup.on_start(at(0), BootNanos::ZERO);
    let meeting = Meeting::default();
    backup.on_advert(at(100), address(0), &advert(250, interval(200)), meeting);
    let deadline = backup.next_deadline();
    assert_eq!(backup.tune(at(150), timers(1000), Duration::ZERO), []);
    assert_eq!(backup.next_deadline(), deadline);
    // Other backups know the former owner's interval until they hear this one.
    for sent in [0, 200].map(|after| deadline.after(ms(after))) {
        assert_eq!(
            backup.on_timer(sent)[0],
            Action::RenewLease {
                until: sent.after(ms(500)),
            }
        );
    }
    assert_eq!(backup.interval(), interval(1000));
}

#[test]
fn preemption_can_be_switched_on_and_its_delay_counts_from_the_start() {
    let mut backup = machine(0, 250, false);
    backup.on_start(at(0), BootNanos::ZERO);
    let timers = Timers {
        interval: interval(100),
        preempt: true,
        preempt_delay: Duration::from_secs(10),
    };
    backup.tune(at(100), timers, Duration::ZERO);
    for (heard, follows) in [(200, true), (9_900, true), (10_000, false)] {
        let (lesser, meeting) = (advert(100, interval(100)), Meeting::default());
        let before = backup.next_deadline();
        backup.on_advert(at(heard), address(1), &lesser, meeting);
        assert_eq!(backup.next_deadline() > before, follows, "{heard}");
    }
}

#[test]
fn resignation_of_another_than_the_owner_means_nothing() {
    let mut machine = machine(0, 128, false);
    machine.on_start(at(0), BootNanos::ZERO);
    machine.on_advert(
        at(200),
        address(1),
        &advert(250, interval(100)),
        Meeting::default(),
    );
    machine.on_advert(
        at(210),
        address(2),
        &advert(0, interval(100)),
        Meeting::default(),
    );
    assert_eq!(machine.next_deadline(), at(550));
}

#[test]
fn only_a_preempting_backup_ignores_an_owner_of_lower_priority() {
    for (preempt, priority, deadline) in [
        (false, 100, 550),
        (true, 100, 350),
        (true, 128, 550),
        (true, 200, 550),
    ] {
        let mut machine = machine(0, 128, preempt);
        machine.on_start(at(0), BootNanos::ZERO);
        machine.on_advert(
            at(200),
            address(1),
            &advert(priority, interval(100)),
            Meeting::default(),
        );
        assert_eq!(
            machine.next_deadline(),
            at(deadline),
            "{preempt} {priority}"
        );
    }
}

#[test]
fn owner_that_may_be_preempted_yields_to_higher_priority_and_to_higher_address_at_equal_priority() {
    for (source, priority, yields) in [
        (0, 129, true),
        (2, 128, true),
        (0, 128, false),
        (2, 127, false),
        (2, 0, false),
    ] {
        let (mut machine, now) = active(1, 128);
        let meeting = Meeting {
            own_unfit: true,
            ..Meeting::default()
        };
        let actions = machine.on_advert(
            now,
            address(source),
            &advert(priority, interval(50)),
            meeting,
        );
        if yields {
            assert_eq!(actions, [Action::EndLease, Action::BecomeBackup]);
            assert_eq!(
                machine.next_deadline(),
                now.after(Duration::from_millis(175))
            );
        } else {
            let until = now.after(Duration::from_millis(250));
            assert_eq!(
                actions,
                [
                    Action::RenewLease { until },
                    Action::SendAdvert { priority: 128 }
                ]
            );
            assert_eq!(machine.state(), State::Active);
        }
    }
}

/// A node that has been the owner for three intervals, with this priority, hears another one every
/// 100 ms. Returns after how many milliseconds it yields.
fn yields_after(own: u8, priority: u8) -> Option<u64> {
    let (mut machine, mut now) = active(1, 128);
    machine.set_priority(own);
    for _ in 0..3 {
        now = now.after(Duration::from_millis(100));
        machine.on_timer(now);
    }
    for ms in (0..1000).step_by(100) {
        let meeting = Meeting::default();
        machine.on_advert(now, address(2), &advert(priority, interval(100)), meeting);
        if machine.state() == State::Backup {
            return Some(ms);
        }
        now = now.after(Duration::from_millis(100));
        machine.on_timer(now);
    }
    None
}

#[test]
fn owner_that_was_alone_yields_at_once_and_another_one_after_three_intervals() {
    assert_eq!(yields_after(128, 200), Some(300), "the other one may yield");
    assert_eq!(yields_after(128, 100), None);
    for own in [PRIORITY_CLAIMED_ALONE, PRIORITY_ALONE] {
        assert_eq!(yields_after(own, 100), Some(0));
        assert_eq!(yields_after(128, own), None);
        assert_eq!(yields_after(own, PRIORITY_RESIGNED), None);
    }
    assert_eq!(
        yields_after(PRIORITY_CLAIMED_ALONE, PRIORITY_ALONE),
        Some(0)
    );
    assert_eq!(yields_after(PRIORITY_ALONE, PRIORITY_CLAIMED_ALONE), None);
}

#[test]
fn new_owner_yields_to_the_one_before_and_to_a_better_one() {
    for (source, priority, unfit, intervals, yields) in [
        (1, 100, false, 0, true),
        (1, 100, true, 0, false),
        (2, 100, false, 0, false),
        // Both have taken over at the same time.
        (2, 200, false, 0, true),
        (2, 200, false, 3, false),
        (1, PRIORITY_ALONE, false, 0, false),
        (1, PRIORITY_RESIGNED, false, 0, false),
        (1, 100, false, 3, false),
    ] {
        let mut machine = machine(0, 128, false);
        machine.on_start(at(0), BootNanos::ZERO);
        let (first, meeting) = (advert(100, interval(100)), Meeting::default());
        machine.on_advert(at(200), address(1), &first, meeting);
        let mut now = machine.next_deadline();
        machine.on_timer(now);
        for _ in 0..intervals {
            now = machine.next_deadline();
            machine.on_timer(now);
        }
        let meeting = Meeting { unfit, ..meeting };
        machine.on_advert(
            now,
            address(source),
            &advert(priority, interval(100)),
            meeting,
        );
        let what = (source, priority, unfit, intervals);
        assert_eq!(machine.state() == State::Backup, yields, "{what:?}");
    }
}

#[test]
fn own_advertisements_mean_nothing() {
    let (mut machine, now) = active(1, 128);
    assert_eq!(
        machine.on_advert(
            now,
            address(1),
            &advert(200, interval(10)),
            Meeting::default()
        ),
        []
    );
    assert_eq!(machine.state(), State::Active);
}

#[test]
fn owner_that_overslept_its_lease_steps_down_whatever_comes_first() {
    for by_timer in [true, false] {
        let (mut machine, now) = active(1, 128);
        let late = now.after(Duration::from_millis(250));
        let actions = if by_timer {
            machine.on_timer(late)
        } else {
            machine.on_advert(
                late,
                address(2),
                &advert(100, interval(100)),
                Meeting::default(),
            )
        };
        assert_eq!(
            actions,
            [
                Action::EndLease,
                Action::SendAdvert { priority: 0 },
                Action::BecomeBackup
            ]
        );
        assert_eq!(
            machine.next_deadline(),
            late.after(Duration::from_millis(350))
        );
    }
}

#[test]
fn shutdown_lowers_the_lease_before_it_resigns() {
    let (mut machine, now) = active(1, 128);
    assert_eq!(
        machine.on_shutdown(),
        [
            Action::EndLease,
            Action::SendAdvert { priority: 0 },
            Action::BecomeBackup
        ]
    );
    assert_eq!(machine.state(), State::Initialize);
    assert_eq!(machine.on_shutdown(), []);
    assert_eq!(
        machine.on_advert(
            now,
            address(2),
            &advert(1, interval(10)),
            Meeting::default()
        ),
        []
    );
}

#[test]
fn lease_is_the_earlier_of_two_promises() {
    let (mut machine, now) = active(1, 128);
    let until = now.after(Duration::from_millis(250));
    assert_eq!(machine.answer_until(), Some(until));
    machine.limit_lease(now.after(Duration::from_millis(100)));
    assert_eq!(
        machine.answer_until(),
        Some(now.after(Duration::from_millis(100)))
    );
    machine.limit_lease(now.after(Duration::from_millis(300)));
    assert_eq!(machine.answer_until(), Some(until));
    machine.limit_lease(now);
    assert_eq!(machine.on_timer(now)[0], Action::EndLease);
    assert_eq!(machine.answer_until(), None);
}

#[test]
fn backup_that_knows_the_owner_gone_waits_no_longer_than_told() {
    let mut machine = machine(0, 128, false);
    machine.on_start(at(0), BootNanos::ZERO);
    machine.on_advert(
        at(200),
        address(1),
        &advert(250, interval(1000)),
        Meeting::default(),
    );
    machine.shorten_active_down_timer(at(500));
    machine.shorten_active_down_timer(at(600));
    assert_eq!(machine.next_deadline(), at(500));
    // It was not gone.
    machine.on_advert(
        at(400),
        address(1),
        &advert(250, interval(1000)),
        Meeting::default(),
    );
    assert_eq!(machine.next_deadline(), at(400 + 3000 + 500));
}

#[test]
fn vip_is_taken_from_an_unfit_owner_only_if_its_priority_says_so_too() {
    for (unfit, priority, deadline) in [
        (true, 100, 350),
        (true, 128, 550),
        (true, 200, 550),
        (false, 100, 550),
    ] {
        let meeting = Meeting {
            unfit,
            ..Meeting::default()
        };
        let mut machine = machine(0, 128, false);
        machine.on_start(at(0), BootNanos::ZERO);
        machine.on_advert(
            at(200),
            address(1),
            &advert(priority, interval(100)),
            meeting,
        );
        assert_eq!(machine.next_deadline(), at(deadline), "{unfit} {priority}");
    }
}

#[test]
fn preemption_waits_for_its_delay() {
    let mut machine = Machine::new(Params {
        preempt_delay: Duration::from_millis(300),
        ..machine(0, 128, true).params
    });
    machine.on_start(at(0), BootNanos::ZERO);
    machine.on_advert(
        at(290),
        address(1),
        &advert(100, interval(100)),
        Meeting::default(),
    );
    assert_eq!(machine.next_deadline(), at(640));
    machine.on_advert(
        at(310),
        address(1),
        &advert(100, interval(100)),
        Meeting::default(),
    );
    assert_eq!(machine.next_deadline(), at(640), "left unheard");
}

#[test]
fn owner_goes_on_where_its_lease_still_stands_and_priority_255_does_not_wait() {
    let mut before = machine(0, 128, false);
    let mut address_owner = machine(0, PRIORITY_ADDRESS_OWNER, false);
    for actions in [
        before.on_start(at(100), at(101)),
        address_owner.on_start(at(100), BootNanos::ZERO),
    ] {
        assert_eq!(actions[0], Action::RenewLease { until: at(350) });
        assert_eq!(actions[2], Action::BecomeActive);
    }
    let mut late = machine(0, 128, false);
    late.on_start(at(100), at(100));
    assert_eq!(late.state(), State::Backup);
}

#[test]
fn priority_changes_take_effect_at_once_and_stay_in_range() {
    let mut machine = machine(0, 128, false);
    machine.on_start(at(0), BootNanos::ZERO);
    machine.set_priority(64);
    assert_eq!(machine.next_deadline(), at(375));
    machine.set_priority(0);
    assert_eq!(machine.priority(), 1);
    machine.set_priority(255);
    assert_eq!(machine.priority(), 255);
}

/// A node of the simulation.
#[derive(Debug)]
struct Node {
    machine: Machine,
    answer_until: BootNanos,
    awake: bool,
    dead: bool,
}

/// Nodes on one segment, where nothing is lost and all takes up to `latency` to arrive.
#[derive(Debug)]
struct Segment {
    now: BootNanos,
    nodes: Vec<Node>,
    /// When, from whom, to whom, what.
    flying: Vec<(BootNanos, usize, usize, Advertisement)>,
    latency: u64,
    random: u64,
    interval: Centiseconds,
    /// Set once overlapping leases are a fault.
    one_owner: bool,
}

impl Segment {
    fn new(priorities: &[u8], interval: Centiseconds, preempt: bool, seed: u64) -> Self {
        let nodes = priorities.iter().enumerate().map(|(node, &priority)| Node {
            machine: Machine::new(Params {
                address: address(node),
                priority,
                interval,
                preempt,
                preempt_delay: Duration::ZERO,
            }),
            answer_until: BootNanos::ZERO,
            awake: true,
            dead: false,
        });
        Self {
            now: at(1000),
            nodes: nodes.collect(),
            flying: vec![],
            // Less than the skew times of neighbouring priorities differ by.
            latency: interval.duration().as_nanos() as u64 / 100,
            random: seed,
            interval,
            one_owner: false,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below.max(1)
    }

    fn carry_out(&mut self, node: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::RenewLease { until } => {
                    assert!(until > self.now);
                    self.nodes[node].answer_until = until;
                    let others = self.nodes.iter().enumerate();
                    let answering: Vec<usize> = others
                        .filter(|(_, other)| other.answer_until > self.now)
                        .map(|(other, _)| other)
                        .collect();
                    assert!(!self.one_owner || answering == [node], "{answering:?}");
                }
                Action::EndLease => self.nodes[node].answer_until = BootNanos::ZERO,
                Action::SendAdvert { priority } => {
                    for to in (0..self.nodes.len()).filter(|&to| to != node) {
                        let delay = self.random(self.latency) + 1;
                        // Nothing overtakes on a wire.
                        let wire = self.flying.iter().filter(|f| (f.1, f.2) == (node, to));
                        let before = wire.map(|f| f.0.0 + 1).max().unwrap_or(0);
                        let arrival = BootNanos(before.max(self.now.0 + delay));
                        let advert = advert(priority, self.interval);
                        self.flying.push((arrival, node, to, advert));
                    }
                }
                Action::BecomeActive | Action::BecomeBackup => {}
            }
        }
    }

    fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            let spread = self.random(self.latency);
            self.run(Duration::from_nanos(spread));
            let actions = self.nodes[node].machine.on_start(self.now, BootNanos::ZERO);
            self.carry_out(node, actions);
        }
    }

    /// Lets time pass. Packets for a node that sleeps are kept until it wakes.
    fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            let runs = |node: usize| self.nodes[node].awake && !self.nodes[node].dead;
            let arrival = (0..self.flying.len())
                .filter(|&n| runs(self.flying[n].2))
                .min_by_key(|&n| self.flying[n].0);
            let arrives = arrival.map_or(BootNanos(u64::MAX), |n| self.flying[n].0);
            let node = (0..self.nodes.len())
                .filter(|&node| runs(node))
                .min_by_key(|&node| self.nodes[node].machine.next_deadline());
            let fires = node.map_or(BootNanos(u64::MAX), |node| {
                self.nodes[node].machine.next_deadline()
            });
            if arrives.min(fires) > end {
                break;
            }
            // Some of it may be overdue, at a node that was asleep.
            self.now = self.now.max(arrives.min(fires));
            if fires <= arrives {
                let node = node.unwrap();
                let actions = self.nodes[node].machine.on_timer(self.now);
                self.carry_out(node, actions);
            } else {
                let (_, from, to, advert) = self.flying.swap_remove(arrival.unwrap());
                let machine = &mut self.nodes[to].machine;
                let actions =
                    machine.on_advert(self.now, address(from), &advert, Meeting::default());
                self.carry_out(to, actions);
            }
        }
        self.now = end;
    }

    /// Greatest time between packets of owners: 3 intervals, skew and delivery.
    fn takeover(&self) -> Duration {
        let living = self.nodes.iter().filter(|node| !node.dead && node.awake);
        let skew = living
            .map(|node| node.machine.skew(self.interval))
            .min()
            .unwrap();
        self.interval.duration() * 3 + skew + Duration::from_nanos(2 * self.latency)
    }

    fn settle(&mut self) {
        self.run(self.interval.duration() * 20);
    }

    fn owners(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|&node| {
                !self.nodes[node].dead
                    && self.nodes[node].machine.state() == State::Active
                    && self.nodes[node].answer_until > self.now
            })
            .collect()
    }
}

prop_compose! {
    /// Three to seven nodes with priorities that differ enough, in any order.
    fn any_segment(preempt: bool)(
        priorities in Just(vec![250_u8, 220, 190, 160, 130, 100, 70]).prop_shuffle(),
        count in 3_usize..=7,
        centiseconds in prop::sample::select(vec![1_u16, 2, 10, 100, 4095]),
        seed: u64,
        warm_up in 0_u64..1000,
    ) -> Segment {
        let interval = Centiseconds::new(centiseconds).unwrap();
        let mut segment = Segment::new(&priorities[..count], interval, preempt, seed);
        segment.start_all();
        segment.settle();
        // To any point between two advertisements.
        segment.run(interval.duration() * warm_up as u32 / 1000);
        segment.one_owner = true;
        segment
    }
}

proptest! {
    #[test]
    fn one_node_owns_the_vip_and_it_is_the_best(segment in any_segment(true)) {
        let priority = |node: &usize| segment.nodes[*node].machine.priority();
        let best = (0..segment.nodes.len()).max_by_key(priority).unwrap();
        prop_assert_eq!(segment.owners(), [best]);
    }

    #[test]
    fn dead_owner_is_followed_by_one_other_in_time(mut segment in any_segment(false)) {
        let [owner] = segment.owners()[..] else { panic!("{:?}", segment.owners()) };
        segment.nodes[owner].dead = true;
        segment.run(segment.takeover());
        prop_assert_eq!(segment.owners().len(), 1);
        segment.settle();
        prop_assert_eq!(segment.owners().len(), 1);
    }

    #[test]
    fn owner_that_freezes_has_fallen_silent_before_the_next_speaks(
        mut segment in any_segment(false), frozen_for in 0_u64..3000,
    ) {
        // Overlapping leases fail the simulation, also after the owner wakes.
        let [owner] = segment.owners()[..] else { panic!("{:?}", segment.owners()) };
        segment.nodes[owner].awake = false;
        segment.run(segment.interval.duration() * frozen_for as u32 / 100);
        segment.nodes[owner].awake = true;
        segment.settle();
        prop_assert_eq!(segment.owners().len(), 1);
    }

    #[test]
    fn shutdown_hands_over_within_skew_time(mut segment in any_segment(false)) {
        let [owner] = segment.owners()[..] else { panic!("{:?}", segment.owners()) };
        let actions = segment.nodes[owner].machine.on_shutdown();
        segment.carry_out(owner, actions);
        segment.nodes[owner].dead = true;
        let limit = segment.takeover() - segment.interval.duration() * 3;
        segment.run(limit);
        prop_assert_eq!(segment.owners().len(), 1);
    }

    #[test]
    fn returning_node_of_higher_priority_takes_the_vip_only_if_it_preempts(
        mut segment in any_segment(false), preempt: bool,
    ) {
        let [owner] = segment.owners()[..] else { panic!("{:?}", segment.owners()) };
        segment.nodes[owner].dead = true;
        segment.settle();
        let heir = segment.owners();
        // Taking the VIP away overlaps for as long as the news takes.
        segment.one_owner = !preempt;
        segment.nodes[owner].dead = false;
        segment.nodes[owner].answer_until = BootNanos::ZERO;
        segment.flying.retain(|&(_, _, to, _)| to != owner);
        let params = Params { preempt, ..segment.nodes[owner].machine.params };
        segment.nodes[owner].machine = Machine::new(params);
        let actions = segment.nodes[owner].machine.on_start(segment.now, BootNanos::ZERO);
        segment.carry_out(owner, actions);
        segment.settle();
        prop_assert_eq!(segment.owners(), if preempt { vec![owner] } else { heir });
    }

    #[test]
    fn lease_ends_before_any_backup_that_heard_the_last_advertisement_takes_over(
        own in 1_u16..=4095, backups in 1_u16..=4095, priority in 1_u8..=254,
        late in 0_u64..1_000_000_000,
    ) {
        let sent = at(5000);
        let mut owner = Machine::new(Params {
            address: address(0), priority: 100, interval: Centiseconds::new(own).unwrap(),
            preempt: false,
            preempt_delay: Duration::ZERO,
        });
        let [Action::RenewLease { until }, _] = owner.advertise(sent) else { panic!() };
        let mut backup = Machine::new(Params {
            address: address(1), priority, interval: Centiseconds::new(backups).unwrap(),
            preempt: false,
            preempt_delay: Duration::ZERO,
        });
        backup.on_start(at(4990), BootNanos::ZERO);
        let heard = sent.after(Duration::from_nanos(late));
        backup.on_advert(heard, address(0), &advert(100, owner.params.interval), Meeting::default());
        prop_assert!(until < backup.next_deadline());
    }
}

#[test]
fn advertisement_is_sent_early_where_it_saves_a_wake_up_and_never_much() {
    let (mut machine, now) = active(0, 128);
    let after = |ms: u64| now.after(Duration::from_millis(ms));
    assert_eq!(
        machine.advertise_before(after(40), after(200)),
        [],
        "60 ms early"
    );
    assert_eq!(
        machine.advertise_before(after(60), after(99)),
        [],
        "the node runs before it is due"
    );
    let until = after(60 + 250);
    assert_eq!(
        machine.advertise_before(after(60), after(100)),
        [
            Action::RenewLease { until },
            Action::SendAdvert { priority: 128 }
        ]
    );
    assert_eq!(machine.next_deadline(), after(160));
    // One whose lease has ended resigns instead, by its timer.
    assert_eq!(machine.advertise_before(until, until.after(MINUTE)), []);
}
