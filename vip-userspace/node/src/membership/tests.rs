//! Tests of joining, and of members that exchange hellos.

use super::*;
use crate::hello::Hello;
use crate::testing::{at, index, params};

fn settle(members: &mut Membership, ms: u64, hears: impl Fn(BackendIndex) -> bool) {
    members.settle(at(ms), BackendMask::ALL, hears, &mut Vec::new());
}

#[test]
fn joining_ends_with_the_last_node_that_is_located_and_hears_this_one() {
    let mut members = Membership::new(&params(0, true));
    members.on_start(at(0), BackendMask::EMPTY);
    members.locate(index(1));
    settle(&mut members, 1, |_| true);
    assert!(members.is_joining(), "the third node is not located");
    members.locate(index(2));
    settle(&mut members, 2, |index| index.get() == 1);
    assert!(
        members.is_joining(),
        "the third node does not hear this one"
    );
    settle(&mut members, 3, |_| true);
    assert!(!members.is_joining());
}

#[test]
fn joining_ends_with_its_time_and_an_agent_that_goes_on_does_not_join() {
    let mut members = Membership::new(&params(0, true));
    members.on_start(at(0), BackendMask::EMPTY);
    settle(&mut members, 499, |_| false);
    assert!(members.is_joining());
    settle(&mut members, 500, |_| false);
    assert!(!members.is_joining());

    let mut members = Membership::new(&params(0, true));
    members.on_start(at(0), BackendMask::first(2));
    assert!(!members.is_joining());
}

/// Members of a cluster that exchange hellos, and nothing else.
#[derive(Clone)]
struct Cluster {
    now: BootNanos,
    members: Vec<Membership>,
    /// Hellos prove that their senders may be members.
    admits: bool,
}

impl Cluster {
    /// The first `count` of the three nodes, each of which knows itself alone.
    fn new(count: usize) -> Self {
        let now = at(0);
        let members = (0..count).map(|node| Self::start(now, node)).collect();
        Self::of(now, members)
    }

    fn of(now: BootNanos, members: Vec<Membership>) -> Self {
        Self {
            now,
            members,
            admits: true,
        }
    }

    fn start(now: BootNanos, node: usize) -> Membership {
        let mut params = params(node, true);
        let own = params.nodes[index(node)];
        params.nodes = [own].into_iter().collect();
        params.own = index(0);
        params.open = Some(OpenCluster {
            forget_after: Duration::from_secs(3600),
        });
        Self::start_with(now, node, params)
    }

    /// The three nodes of a closed list.
    fn closed() -> Self {
        let now = at(0);
        let start = |node| Self::start_with(now, node, params(node, true));
        Self::of(now, (0..3).map(start).collect())
    }

    fn start_with(now: BootNanos, node: usize, mut params: Params) -> Membership {
        params.seed = now.0 + node as u64;
        let mut members = Membership::new(&params);
        members.on_start(now, BackendMask::EMPTY);
        members
    }

    /// Lets time pass. `hears(a, b)`: what `b` sends arrives at `a`.
    fn run(&mut self, ms: u64, hears: impl Fn(usize, usize) -> bool) {
        for _ in 0..ms {
            self.now = self.now.after(Duration::from_millis(1));
            for node in 0..self.members.len() {
                let mut events = Vec::new();
                let members = &mut self.members[node];
                members.settle(self.now, BackendMask::ALL, |_| true, &mut events);
                for event in events {
                    if let Event::Install(installation) = event {
                        members.on_installed(self.now, installation.number);
                    }
                }
                for slot in members.all() {
                    members.locate(slot);
                }
                let Some((hello, _)) = members.take_hello(self.now, false, |_| None) else {
                    continue;
                };
                for to in (0..self.members.len()).filter(|to| *to != node && hears(*to, node)) {
                    self.tell(to, &hello);
                }
            }
        }
    }

    /// A hello arrives.
    fn tell(&mut self, to: usize, hello: &Hello) -> Vec<Event> {
        let (source, all, mut out) = (hello.sender().address, BackendMask::ALL, Vec::new());
        self.members[to].on_hello(self.now, source, hello, self.admits, all, &mut out);
        out
    }

    /// The next hello of a node, made now.
    fn hello(&mut self, node: usize) -> Hello {
        let hello = self.members[node].make_hello(self.now, false, |_| None);
        hello.expect("it is a member").0
    }

    /// The members that a node finds confirmed, by the last bytes of their addresses.
    fn confirmed(&self, node: usize) -> Vec<u8> {
        let members = &self.members[node];
        let confirmed = members.confirmed();
        let mut found: Vec<u8> = confirmed
            .iter()
            .filter_map(|slot| match members.member(slot)?.address {
                IpAddr::V4(address) => Some(address.octets()[3]),
                IpAddr::V6(_) => None,
            })
            .collect();
        found.sort_unstable();
        found
    }
}

#[test]
fn agents_that_hear_each_other_confirm_each_other() {
    let mut cluster = Cluster::new(3);
    cluster.run(3000, |_, _| true);
    for node in 0..3 {
        assert_eq!(cluster.confirmed(node), [11, 12, 13]);
        assert!(cluster.members[node].may_own(cluster.now));
        assert!(cluster.members[node].may_reset(cluster.now.after(Duration::from_secs(10))));
    }
}

#[test]
fn one_broken_link_keeps_nobody_out_and_nobody_sends_over_it() {
    let mut cluster = Cluster::new(3);
    let broken = |a: usize, b: usize| (a, b) != (0, 2) && (a, b) != (2, 0);
    cluster.run(3000, broken);
    // The second node has told the others of each other.
    assert_eq!(cluster.confirmed(1), [11, 12, 13]);
    assert_eq!(cluster.confirmed(0), [11, 12]);
    assert_eq!(cluster.confirmed(2), [12, 13]);
    for node in 0..3 {
        assert!(cluster.members[node].may_own(cluster.now), "{node}");
    }
}

#[test]
fn agent_that_starts_with_an_empty_view_is_not_confirmed_until_it_knows_all() {
    let mut cluster = Cluster::new(3);
    cluster.run(3000, |_, _| true);
    cluster.members[2] = Cluster::start(cluster.now, 2);
    // It hears the first node alone, which tells it of the second.
    let late = |a: usize, b: usize| (a, b) != (1, 2);
    cluster.run(300, late);
    assert_eq!(cluster.confirmed(0), [11, 12], "it is joining");
    assert_eq!(cluster.confirmed(1), [11, 12, 13], "its old run was");
    cluster.run(700, late);
    assert_eq!(cluster.confirmed(0), [11, 12, 13]);
    cluster.run(3000, |_, _| true);
    assert_eq!(cluster.confirmed(1), [11, 12, 13]);
    assert!(cluster.members[2].may_own(cluster.now));
}

#[test]
fn the_last_agent_that_runs_owns_the_vip_though_nobody_confirms_it() {
    // It boots, and has stored who the others are. They are not gone.
    let mut params = params(0, true);
    params.open = Some(OpenCluster {
        forget_after: Duration::from_secs(3600),
    });
    let members = Cluster::start_with(at(0), 0, params);
    let mut cluster = Cluster::of(at(0), vec![members]);
    cluster.run(10_000, |_, _| false);
    assert!(!cluster.members[0].may_own(cluster.now));
    cluster.members[0].on_last();
    assert!(cluster.members[0].may_own(cluster.now));
    assert!(!cluster.members[0].may_reset(cluster.now));
}

#[test]
fn hello_that_answers_nothing_is_not_believed() {
    let mut cluster = Cluster::new(2);
    // The second node hears nothing, so that its hellos answer nothing.
    cluster.run(5000, |a, _| a == 0);
    assert_eq!(cluster.confirmed(0), [11]);
    assert_eq!(cluster.members[0].all().count(), 1);
    assert!(
        !cluster.members[0].may_reset(cluster.now),
        "it may have connections"
    );
}

#[test]
fn member_that_says_good_bye_is_forgotten_and_may_come_back_as_a_new_one() {
    let mut cluster = Cluster::new(3);
    cluster.run(3000, |_, _| true);
    cluster.members[2].leave();
    let good_bye = cluster.members[2].take_good_bye(cluster.now);
    let (hello, _) = good_bye.expect("it leaves");
    let source = hello.sender().address;
    // The second node misses it, and is told by the first one.
    let out = cluster.tell(0, &hello);
    assert!(matches!(out[..], [Event::Removed(_, address)] if address == source));
    cluster.run(8000, |a, b| a != 2 && b != 2);
    assert_eq!(cluster.confirmed(1), [11, 12]);
    cluster.members[2] = Cluster::start(cluster.now, 2);
    cluster.run(3000, |_, _| true);
    assert_eq!(cluster.confirmed(0), [11, 12, 13]);
}

#[test]
fn member_that_was_forgotten_and_goes_on_comes_back() {
    let mut cluster = Cluster::new(3);
    cluster.run(3000, |_, _| true);
    let mut forged = cluster.clone();
    // Without a key, a host that hears the hellos can say good-bye in the name of a member.
    let mut hello = forged.hello(2);
    (hello.leaves, hello.number) = (true, u32::MAX);
    let address = hello.sender().address;
    for node in 0..2 {
        let out = forged.tell(node, &hello);
        assert!(matches!(out[..], [Event::Removed(_, removed)] if removed == address));
    }
    forged.run(3000, |_, _| true);
    // It was cut off, and an operator had it forgotten.
    let cut_off = |a: usize, b: usize| (a == 2) == (b == 2);
    cluster.run(8000, cut_off);
    let none = BackendMask::EMPTY;
    assert!(cluster.members[0].forget(cluster.now, address, none, &mut Vec::new()));
    cluster.run(3000, |_, _| true);
    for cluster in [forged, cluster] {
        for node in 0..3 {
            assert_eq!(cluster.confirmed(node), [11, 12, 13], "{node}");
        }
    }
}

#[test]
fn hellos_of_another_cluster_are_ignored() {
    let mut cluster = Cluster::new(2);
    let mut params = params(1, true);
    params.vips = vec![2];
    params.open = Some(OpenCluster {
        forget_after: Duration::from_secs(1),
    });
    cluster.members[1] = Membership::new(&params);
    cluster.members[1].on_start(cluster.now, BackendMask::EMPTY);
    cluster.run(3000, |_, _| true);
    assert_eq!(cluster.confirmed(0), [11]);
    assert!(cluster.members[0].may_reset(cluster.now));
}

#[test]
fn newcomer_that_proves_nothing_takes_the_vip_from_no_established_node() {
    // The first node has the lowest address. Its server, say, does not run yet.
    for established in [2..3, 1..3] {
        let mut cluster = Cluster::new(3);
        let are_there = |a: usize, b: usize| established.contains(&a) && established.contains(&b);
        cluster.run(3000, are_there);
        cluster.members[2].on_owned();
        cluster.admits = false;
        cluster.run(3000, |a, b| are_there(a, b) || a == 0 || b == 0);
        assert!(!cluster.members[0].may_own(cluster.now), "it gives way");
        for node in established.clone() {
            assert!(cluster.members[node].may_own(cluster.now), "{node}");
        }
        // It may have been a member of others: no reset for as long as it may take to prove it.
        assert!(!cluster.members[2].may_reset(cluster.now));
        cluster.run(35_000, |a, b| are_there(a, b) || a == 0 || b == 0);
        assert!(cluster.members[2].may_reset(cluster.now));
        // They are gone: it is the first of a new cluster.
        cluster.run(6000, |_, _| false);
        assert!(cluster.members[0].may_own(cluster.now));
    }
}

#[test]
fn of_nodes_that_start_together_and_prove_nothing_the_lowest_address_owns() {
    let mut cluster = Cluster::new(3);
    cluster.admits = false;
    cluster.run(3000, |_, _| true);
    let may_own = cluster.members.iter().map(|one| one.may_own(cluster.now));
    assert_eq!(may_own.collect::<Vec<_>>(), [true, false, false]);
    // Each of two has owned the VIP while it heard nobody.
    let mut cluster = Cluster::new(2);
    cluster.run(3000, |_, _| false);
    for member in &mut cluster.members {
        member.on_owned();
    }
    cluster.admits = false;
    cluster.run(3000, |_, _| true);
    let may_own = cluster.members.iter().map(|one| one.may_own(cluster.now));
    assert_eq!(may_own.collect::<Vec<_>>(), [true, false]);
}

#[test]
fn node_that_was_forgotten_and_goes_on_is_a_member_again() {
    let address = |node: u8| IpAddr::from([10, 0, 0, 11 + node]);
    let forget = |cluster: &mut Cluster, by: usize, node: u8| {
        let living = BackendMask::first(1);
        cluster.members[by].forget(cluster.now, address(node), living, &mut Vec::new());
    };
    for both in [false, true] {
        let mut cluster = Cluster::new(3);
        cluster.run(3000, |_, _| true);
        let split = |a: usize, b: usize| (a == 2) == (b == 2);
        cluster.run(3000, split);
        forget(&mut cluster, 0, 2);
        if both {
            forget(&mut cluster, 2, 0);
            forget(&mut cluster, 2, 1);
        }
        cluster.run(3000, split);
        assert_eq!(cluster.confirmed(1), [11, 12], "it is told");
        // The second node hears the third one through the first alone.
        cluster.run(8000, |a, b| (a, b) != (1, 2) && (a, b) != (2, 1));
        assert_eq!(cluster.confirmed(0), [11, 12, 13]);
        cluster.run(3000, |_, _| true);
        for node in 0..3 {
            assert_eq!(cluster.confirmed(node), [11, 12, 13], "{both} {node}");
        }
    }
}

#[test]
fn hello_from_before_the_good_bye_brings_nobody_back() {
    let mut cluster = Cluster::new(3);
    cluster.run(3000, |_, _| true);
    let late = cluster.hello(2);
    cluster.members[2].leave();
    let (hello, _) = cluster.members[2]
        .take_good_bye(cluster.now)
        .expect("it leaves");
    cluster.tell(0, &hello);
    cluster.tell(0, &late);
    cluster.run(8000, |a, b| a != 2 && b != 2);
    assert_eq!(cluster.confirmed(0), [11, 12]);
    assert_eq!(cluster.members[0].all().count(), 2);
}

#[test]
fn members_of_a_closed_list_exchange_hellos_and_one_that_leaves_stays_in_the_list() {
    let mut cluster = Cluster::closed();
    cluster.run(3000, |_, _| true);
    cluster.members[2].leave();
    let (hello, _) = cluster.members[2]
        .take_good_bye(cluster.now)
        .expect("it leaves");
    let out = cluster.tell(0, &hello);
    let is_told = |event: &Event| matches!(event, Event::Believed { slot, leaves: true, .. } if *slot == index(2));
    assert!(out.iter().any(is_told), "{out:?}");
    assert_eq!(cluster.tell(0, &hello), [], "it comes three times");
    cluster.run(8000, |a, b| a != 2 && b != 2);
    assert_eq!(cluster.confirmed(0), [11, 12, 13]);
    assert!(cluster.members[0].may_own(cluster.now));
}

#[test]
fn stranger_does_not_keep_members_of_a_closed_list_from_owning_the_vip() {
    let mut cluster = Cluster::closed();
    cluster.run(3000, |_, _| true);
    let mut hello = Cluster::new(1).hello(0);
    let address = IpAddr::from([10, 0, 0, 1]);
    hello.members[0].address = address;
    let (all, out) = (BackendMask::ALL, &mut Vec::new());
    let now = cluster.now;
    cluster.members[0].on_hello(now, address, &hello, false, all, out);
    assert_eq!(out[..], [Event::Stranger(address)]);
    assert!(cluster.members[0].may_own(now));
    assert!(
        !cluster.members[0].may_reset(now),
        "it may have connections"
    );
}

/// The list of the first `count` of the three nodes.
fn list(count: usize) -> Vec<Identity> {
    let nodes = params(0, true).nodes;
    nodes.values().copied().take(count).collect()
}

/// A node of a closed list of the first `count` nodes.
fn start_listed(now: BootNanos, node: usize, count: usize) -> Membership {
    let mut params = params(node, true);
    params.nodes = list(count).into_iter().collect();
    Cluster::start_with(now, node, params)
}

/// The members that may get segments.
fn complete(cluster: &Cluster, node: usize) -> usize {
    cluster.members[node].complete().iter().count()
}

#[test]
fn list_grows_and_shrinks_in_any_order_and_whoever_is_not_in_all_lists_claims_nothing() {
    for order in [[0, 1], [1, 0]] {
        let now = at(0);
        let listed = [(0, 2), (1, 2), (2, 3)];
        let start = |(node, count)| start_listed(now, node, count);
        let mut cluster = Cluster::of(now, listed.map(start).into());
        cluster.run(3000, |_, _| true);
        assert!(!cluster.members[2].may_own(cluster.now), "in no other list");
        let [first, last] = order;
        let set = |node: usize, count: usize, cluster: &mut Cluster| {
            let (now, mut out) = (cluster.now, Vec::new());
            cluster.members[node].set_list(now, list(count), &mut out);
            cluster.run(3000, |_, _| true);
            out
        };
        set(first, 3, &mut cluster);
        for node in 0..2 {
            assert_eq!(cluster.confirmed(node), [11, 12]);
            assert_eq!(complete(&cluster, node), 2, "a newcomer gets nothing yet");
            assert!(cluster.members[node].may_own(cluster.now));
        }
        assert!(!cluster.members[2].may_own(cluster.now), "not in all lists");
        set(last, 3, &mut cluster);
        for node in 0..3 {
            assert_eq!(cluster.confirmed(node), [11, 12, 13]);
            assert_eq!(complete(&cluster, node), 3);
            assert!(cluster.members[node].may_own(cluster.now));
        }
        cluster.run(10_000, |_, _| true);
        assert!((0..3).all(|node| cluster.members[node].may_reset(cluster.now)));
        let removed = set(last, 2, &mut cluster);
        assert!(matches!(removed[..], [Event::Removed(slot, _)] if slot == index(2)));
        assert_eq!(cluster.confirmed(first), [11, 12]);
        assert_eq!(complete(&cluster, first), 3, "it may have connections");
        set(first, 2, &mut cluster);
        assert!(!cluster.members[2].may_own(cluster.now));
        for node in 0..2 {
            assert!(cluster.members[node].may_own(cluster.now));
            assert!(
                !cluster.members[node].may_reset(cluster.now),
                "the third one may have connections"
            );
        }
        // Its agent ends.
        cluster.run(10_000, |a, b| a != 2 && b != 2);
        assert!((0..2).all(|node| cluster.members[node].may_reset(cluster.now)));
        set(first, 3, &mut cluster);
        set(last, 3, &mut cluster);
        assert_eq!(cluster.confirmed(2), [11, 12, 13], "it comes back");
    }
}

#[test]
fn member_of_a_list_waits_for_a_slot() {
    let identity = |last: u8| Identity {
        address: IpAddr::from([10, 0, 0, last]),
        weight: 1,
    };
    let mut params = params(0, true);
    params.nodes = (11..27).map(identity).collect();
    let mut members = Membership::new(&params);
    members.on_start(at(0), BackendMask::EMPTY);
    let other: Vec<Identity> = (11..26).chain([30]).map(identity).collect();
    let mut out = Vec::new();
    members.set_list(at(0), other, &mut out);
    assert!(matches!(out[..], [Event::Removed(..)]));
    let settle = |members: &mut Membership, ms| {
        let mut out = Vec::new();
        members.settle(at(ms), BackendMask::ALL, |_| true, &mut out);
        out
    };
    let out = settle(&mut members, 1);
    let [Event::Install(installation)] = &out[..] else {
        panic!("{out:?}");
    };
    members.on_installed(at(2), installation.number);
    assert_eq!(settle(&mut members, 500), []);
    let out = settle(&mut members, 1002);
    assert!(
        matches!(out[..], [Event::Admitted(_), Event::Install(_)]),
        "{out:?}"
    );
    assert!(members.slot([10, 0, 0, 30].into()).is_some());
}

#[test]
fn hello_of_a_run_that_is_over_changes_nothing() {
    let mut cluster = Cluster::new(2);
    cluster.run(3000, |_, _| true);
    // It is recorded, and does not arrive.
    let old = cluster.hello(1);
    cluster.members[1] = Cluster::start(cluster.now, 1);
    cluster.run(1000, |_, _| true);
    let before = format!("{:?}", cluster.members[0]);
    assert_eq!(cluster.tell(0, &old), []);
    assert_eq!(format!("{:?}", cluster.members[0]), before);
}

#[test]
fn agent_that_is_believed_answers_one_that_does_not_believe_it_yet() {
    let mut cluster = Cluster::closed();
    cluster.run(3000, |_, _| true);
    // The first node starts anew, and does not hear the second one, which hears it. The third one
    // tells it all that the second one would.
    cluster.members[0] = Cluster::start_with(cluster.now, 0, params(0, true));
    let broken = |a: usize, b: usize| (a, b) != (0, 1);
    cluster.run(10_000, broken);
    let believes = |cluster: &Cluster, node: usize, other: usize| {
        let known = cluster.members[node].members.get(index(other));
        let run = cluster.members[other].instance();
        let heard = known.is_some_and(|known| known.heard.is_some());
        heard && known.is_some_and(|known| known.instance == Some(run))
    };
    for phase in 0..10 {
        let mut healed = cluster.clone();
        healed.run(phase * 100, broken);
        assert!(!believes(&healed, 0, 1) && !believes(&healed, 1, 0));
        let one_does = |cluster: &Cluster| believes(cluster, 0, 1) || believes(cluster, 1, 0);
        while !one_does(&healed) {
            healed.run(1, |_, _| true);
        }
        healed.run(50, |_, _| true);
        assert!(
            believes(&healed, 0, 1) && believes(&healed, 1, 0),
            "{phase}"
        );
    }
}
