//! The promises of the walk: in the product for every state of three nodes, in its model for every
//! walk of four nodes; and the counterexamples for which the rules exist.

use std::vec::Vec;

use super::model::{Bound, Carried, End, Rules, Set, Step, View, Walk};
use super::*;
use crate::abi::RankRow;

use Seen::{Away, Gone, Suspect, Up};

const STATES: [Seen; 4] = [Up, Suspect, Away, Gone];

/// The view of node `me` that sees the node `other` in this state.
fn view(nodes: usize, me: usize, seen: impl Fn(usize) -> Seen) -> View {
    let mut view = View::default();
    for node in 0..nodes {
        let seen = if node == me { Up } else { seen(node) };
        let add = |set: &mut Set, member: bool| *set |= Set::from(member) << node;
        add(&mut view.alive, seen == Up);
        add(&mut view.suspect, seen == Suspect);
        add(&mut view.not_gone, seen != Gone);
    }
    view
}

/// The views of three nodes that a number codes: two bits for each node and each other one.
fn views_of(number: usize) -> [[Seen; 3]; 3] {
    let seen = |me: usize, node: usize| match (node + 3 - me) % 3 {
        0 => Up,
        distance => STATES[number >> (4 * me + 2 * (distance - 1)) & 3],
    };
    [0, 1, 2].map(|me| [0, 1, 2].map(|node| seen(me, node)))
}

const ROWS_OF_THREE: [[u8; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// Every view of each of three nodes, every row, entry and set of nodes with the socket: the
/// product takes the same way as the model, with the same TTLs.
#[test]
fn the_product_walks_as_its_model_does() {
    let mut walks = 0;
    for number in 0..1 << 12 {
        let seen = views_of(number);
        let views = [0, 1, 2].map(|me| view(3, me, |node| seen[me][node]));
        let mut worlds = [0, 1, 2].map(|me| {
            (0..3).fold(World::new(3, me), |world, node| {
                world.seeing(node, seen[me][node])
            })
        });
        for row in ROWS_OF_THREE {
            for world in &mut worlds {
                world.rows.truncate(1);
                world.rows[0] = RankRow::new(row.map(|node| backend(node.into())));
            }
            for flags in [tcp::ACK, tcp::SYN] {
                let syn = flags == tcp::SYN;
                let sent = Tcp::new(0, 1, flags).build();
                for case in 0..24 {
                    let (entry, holders) = (case / 8, (case % 8) as Set);
                    let rewritten = if case % 2 == 0 { 0 } else { number as Set & 7 };
                    for (node, world) in worlds.iter_mut().enumerate() {
                        world.socket = match holders >> node & 1 {
                            0 => Socket::None,
                            _ if syn => Socket::Listener,
                            _ => Socket::Connection,
                        };
                    }
                    let walk = Walk {
                        rules: &Rules::ALL,
                        views: &views,
                        row: &row,
                        holders,
                        rewritten,
                        syn,
                    };
                    same_way(&walk, &worlds, sent.clone(), entry as u8);
                    walks += 1;
                }
            }
        }
    }
    assert_eq!(walks, 4096 * 6 * 2 * 24);
}

/// Follows the frame in the product, and wants each step to be the model's.
#[track_caller]
fn same_way(walk: &Walk<'_>, worlds: &[World; 3], mut frame: Vec<u8>, entry: u8) {
    let (mut me, mut carried): (u8, Option<Carried>) = (entry, None);
    loop {
        frame[..6].copy_from_slice(&node_mac(me.into()).to_wire());
        let verdict = worlds[usize::from(me)].run(&mut frame).0;
        let step = walk.step(me, carried);
        let same = match step {
            Step::Keep => verdict.kind == Kind::Local,
            Step::Reset => verdict.counter == Counter::NoSocket,
            Step::Drop => verdict.kind == Kind::Drop,
            Step::To(node, next) => {
                verdict.kind == Kind::Forward
                    && (verdict.backend, verdict.ttl) == (node.into(), next.ttl())
            }
        };
        assert!(same, "{verdict:?}, {step:?} of {me}, {carried:?}: {walk:?}");
        let Step::To(node, next) = step else { return };
        if walk.rewritten >> me & 1 == 1 {
            frame[6..12].copy_from_slice(&REWRITTEN.to_wire());
        }
        (me, carried) = (node, Some(next));
    }
}

/// Nodes of the largest cluster of which every walk is made.
const MOST: usize = 4;

const ROW: [u8; MOST] = [0, 1, 2, 3];

/// The end of the segment's walk, and whether it breaks a promise: a connection whose node is gone
/// to nobody is not reset, and no frame makes more than N + 1 hops.
fn broken(walk: &Walk<'_>, entry: u8) -> Option<End> {
    let nodes = walk.row.len();
    let end = walk.follow(entry, nodes + 1);
    let gone_to_some = |view: &View| walk.holders & !view.not_gone != 0;
    let living = !walk.syn && walk.holders != 0 && !walk.views.iter().any(gone_to_some);
    let reset = living && end.step == Step::Reset;
    (reset || end.hops > nodes + 1).then_some(end)
}

/// Every view of each of four nodes, every entry, every holder of the connection.
#[test]
fn no_connection_of_a_member_is_reset_whatever_the_views() {
    let views: [Vec<View>; MOST] = [0, 1, 2, 3].map(|me| {
        (0..64)
            .map(|number| {
                view(MOST, me, |node| {
                    STATES[number >> (2 * ((node + MOST - me) % MOST - 1)) & 3]
                })
            })
            .collect()
    });
    let mut walks = 0_u64;
    for holder in 0..MOST {
        // In the views of the others the holder is not gone.
        let [a, b, c, d] = [0, 1, 2, 3].map(|me: usize| {
            let knows = |view: &&View| view.not_gone >> holder & 1 == 1;
            views[me]
                .iter()
                .filter(knows)
                .copied()
                .collect::<Vec<View>>()
        });
        for &a in &a {
            for &b in &b {
                for &c in &c {
                    for &d in &d {
                        let walk = Walk {
                            rules: &Rules::ALL,
                            views: &[a, b, c, d],
                            row: &ROW,
                            holders: 1 << holder,
                            rewritten: 0,
                            syn: false,
                        };
                        for entry in 0..MOST as u8 {
                            let end = broken(&walk, entry);
                            assert!(end.is_none(), "{end:?} from {entry}: {walk:?}");
                            walks += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(walks, 64 * 48_u64.pow(3) * 16);
}

/// A random cluster: the views of its nodes, and one of its rows.
fn cluster(random: &mut Random) -> (Vec<View>, Vec<u8>) {
    let nodes = 2 + random.below(6);
    let views = (0..nodes).map(|me| {
        let word = random.word();
        view(nodes, me, |node| STATES[(word >> (2 * node) & 3) as usize])
    });
    let views = views.collect();
    let mut row: Vec<u8> = (0..nodes as u8).collect();
    for end in (1..nodes).rev() {
        row.swap(end, random.below(end + 1));
    }
    (views, row)
}

/// Random views of up to seven nodes, rows, sets of holders and of nodes whose MAC is rewritten.
#[test]
fn no_connection_of_a_member_is_reset_whatever_sources_are_rewritten() {
    let mut random = Random(0x5a1c);
    let mut longest = [0; 8];
    for _ in 0..5_000_000 {
        let (views, row) = cluster(&mut random);
        let (word, one) = (random.word(), 1 << random.below(row.len()));
        let walk = Walk {
            rules: &Rules::ALL,
            views: &views,
            row: &row,
            holders: random.pick(&[0, one, word as Set]) & ((1_u16 << row.len()) - 1) as Set,
            rewritten: random.pick(&[0, (word >> 8) as Set, Set::MAX]),
            syn: random.below(4) == 0,
        };
        let entry = random.below(row.len()) as u8;
        let end = broken(&walk, entry);
        assert!(end.is_none(), "{end:?} from {entry}: {walk:?}");
        let end = walk.follow(entry, row.len() + 1);
        longest[row.len()] = end.hops.max(longest[row.len()]);
    }
    assert_eq!(longest[2..], [3, 4, 5, 6, 7, 8], "the bound is reached");
}

/// All nodes see the same states. A segment reaches its connection on a node that is up, or on the
/// first suspect: `true` if the rules keep all these paths.
fn all_paths_hold(rules: &Rules) -> bool {
    let walk_holds = |nodes: usize, number: usize, row: &[u8]| {
        let seen = |node: usize| STATES[number >> (2 * node) & 3];
        let views: Vec<View> = (0..nodes).map(|me| view(nodes, me, seen)).collect();
        let runs = |node: &usize| matches!(seen(*node), Up | Suspect);
        let suspect = (0..nodes).find(|node| seen(*node) == Suspect);
        let gets = |node: &usize| seen(*node) == Up || suspect == Some(*node);
        let entries = || (0..nodes).filter(runs);
        (0..nodes).filter(gets).all(|holder| {
            entries().all(|entry| {
                let walk = Walk {
                    rules,
                    views: &views,
                    row,
                    holders: 1 << holder,
                    rewritten: 0,
                    syn: false,
                };
                let end = walk.follow(entry as u8, nodes + 1);
                (usize::from(end.node), end.step) == (holder, Step::Keep)
            })
        })
    };
    ROWS_OF_THREE
        .iter()
        .all(|row| (0..1 << 6).all(|number| walk_holds(3, number, row)))
        && (0..1 << 8).all(|number| walk_holds(4, number, &ROW))
        && (0..1 << 10).all(|number| walk_holds(5, number, &[0, 1, 2, 3, 4]))
}

#[test]
fn no_path_is_cut_while_all_nodes_see_the_same() {
    assert!(all_paths_hold(&Rules::ALL));
}

/// What three nodes see of each other: each row of the table is a node's view.
fn see(table: [[Seen; 3]; 3]) -> [View; 3] {
    [0, 1, 2].map(|me| view(3, me, |node| table[me][node]))
}

/// The end of a segment of the connection at `holder`, from node `entry` on, in row 0, 1, 2.
fn end(rules: &Rules, views: &[View], holder: u8, entry: u8, rewritten: Set) -> End {
    let walk = Walk {
        rules,
        views,
        row: &[0, 1, 2],
        holders: 1 << holder,
        rewritten,
        syn: false,
    };
    walk.follow(entry, 100)
}

#[test]
fn a_first_hop_may_go_backward() {
    // An owner whose rank is not the first makes it, in the healthy state.
    let views = see([[Up; 3]; 3]);
    let found = end(&Rules::ALL, &views, 1, 1, 0);
    assert_eq!((found.node, found.hops, found.step), (1, 2, Step::Keep));
    let inferring = Rules {
        later_peer_goes_on: false,
        ..Rules::ALL
    };
    let found = end(&inferring, &views, 1, 1, 0);
    assert_eq!((found.node, found.step), (0, Step::Reset));
}

#[test]
fn the_last_node_does_not_decide_by_its_own_view() {
    // 0 passes over 1, which it suspects; 2 sees all up.
    let views = see([[Up, Suspect, Up], [Up; 3], [Up; 3]]);
    let end = |rules| end(&rules, &views, 1, 0, 0).step;
    assert_eq!(end(Rules::ALL), Step::Drop);
    let own_view = Rules {
        sender_doubts: false,
        receiver_doubts: false,
        all_are_asked: false,
        ..Rules::ALL
    };
    assert_eq!(end(own_view), Step::Reset);
    // Each of the three is enough here.
    for rules in [
        Rules {
            sender_doubts: true,
            ..own_view
        },
        Rules {
            receiver_doubts: true,
            ..own_view
        },
        Rules {
            all_are_asked: true,
            ..own_view
        },
    ] {
        assert_eq!(end(rules), Step::Drop, "{rules:?}");
    }
}

#[test]
fn a_sender_that_passes_over_a_member_doubts() {
    // 0 and 1 were asked. To 1, node 0 is gone, so that two members remain; it passes over 2.
    let views = see([[Up, Up, Up], [Gone, Up, Away], [Up; 3]]);
    let end = |rules| end(&rules, &views, 2, 0, 0).step;
    assert_eq!(end(Rules::ALL), Step::Drop);
    let silent = Rules {
        sender_doubts: false,
        ..Rules::ALL
    };
    assert_eq!(end(silent), Step::Reset);
}

#[test]
fn a_last_resort_is_never_reset() {
    // The frame comes round through 1, which is counted twice: 1, 2, 1. The holder is 0.
    let views = see([[Up, Suspect, Away], [Away, Up, Up], [Up, Suspect, Up]]);
    let end = |rules| {
        let mut found = None;
        for entry in 0..3 {
            let last = end(&rules, &views, 0, entry, 0);
            if last.step == Step::Reset {
                found = Some((entry, last.node));
            }
        }
        found
    };
    assert_eq!(end(Rules::ALL), None);
    let resets = Rules {
        last_resort_is_kept_or_dropped: false,
        ..Rules::ALL
    };
    assert_eq!(end(resets), Some((1, 1)));
}

#[test]
fn a_bound_stops_the_storm_of_rewritten_sources() {
    // All up, all sources rewritten: 0, 1, 0, 1 and so on; 2 has the connection.
    let views = see([[Up; 3]; 3]);
    let bound = |bound| Rules {
        bound,
        ..Rules::ALL
    };
    let found = end(&bound(Bound::Asked), &views, 2, 0, 7);
    assert_eq!((found.hops, found.step), (3, Step::Drop));
    let found = end(&bound(Bound::None), &views, 2, 0, 7);
    assert_eq!(found.hops, 101, "for ever");
}

#[test]
fn the_ranks_that_are_left_are_too_few_hops() {
    // A suspect may stand above the last rank.
    let views = see([[Up, Suspect, Up]; 3]);
    let ranks_left = Rules {
        bound: Bound::RanksLeft,
        ..Rules::ALL
    };
    assert_eq!(end(&Rules::ALL, &views, 1, 0, 0).step, Step::Keep);
    assert_eq!(end(&ranks_left, &views, 1, 0, 0).step, Step::Drop);
    assert!(!all_paths_hold(&ranks_left));
}
