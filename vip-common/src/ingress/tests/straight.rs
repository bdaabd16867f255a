//! The straight path beside the longer way.

use core::num::NonZeroU32;
use std::vec::Vec;

use crate::abi::{BackendIndex, BackendMask, MAX_BACKENDS, NOT_A_BACKEND, RankRow, flag};
use crate::env::Socket;
use crate::ingress::passage;
use crate::testing::{
    ACKNOWLEDGEMENT, BANNED, CLIENT, CLIENT_MAC, PORT, Random, SEQUENCE, Segment, World, backend,
    node_mac,
};
use crate::verdict::Kind;
use crate::wire::addr::Mac;
use crate::wire::tcp;

/// Any set of the nodes, often all or none.
fn mask(random: &mut Random) -> BackendMask {
    let any = random.word();
    let bits = random.pick(&[0, u64::MAX, u64::MAX, any, any]);
    let nodes = (0..MAX_BACKENDS).filter(|node| bits >> node & 1 != 0);
    nodes.fold(BackendMask::EMPTY, |mask, node| {
        mask.with(backend(node), true)
    })
}

/// A node of a cluster with any tables that an agent may write.
fn world(random: &mut Random) -> World {
    let nodes = 1 + random.below(MAX_BACKENDS);
    let mut world = World::new(nodes, random.below(nodes));
    if random.below(2) == 0 {
        world = world.mapping(PORT, 443);
    }
    world = world.refusing(random.pick(&[0, 0, flag::ALLOW_LIST, flag::SYN_LIMIT, 3]));
    for row in &mut world.rows {
        let mut order: Vec<BackendIndex> = row.order(nodes).collect();
        for end in (1..nodes).rev() {
            order.swap(end, random.below(end + 1));
        }
        *row = RankRow::new(order);
    }
    let masks = &mut world.state.masks;
    masks.alive = mask(random);
    masks.new_connections[0] = mask(random);
    masks.suspect = mask(random).without(masks.alive);
    masks.not_gone = mask(random).or(masks.living());
    if random.below(8) == 0 {
        masks.no_forward = mask(random);
    }
    for node in &mut world.state.backends[..nodes] {
        if random.below(8) == 0 {
            node.mac = Mac::UNKNOWN;
        }
        if random.below(8) == 0 {
            node.source = CLIENT_MAC;
        }
    }
    world.state.config.peers = world.state.peers();
    if random.below(8) == 0 {
        world.state.config.own_index = NOT_A_BACKEND;
    }
    world.socket = random.pick(&[
        Socket::None,
        Socket::Listener,
        Socket::Cookie,
        Socket::Connection,
        Socket::Request {
            expects: NonZeroU32::new(ACKNOWLEDGEMENT),
        },
        Socket::Request {
            expects: NonZeroU32::new(!ACKNOWLEDGEMENT),
        },
        Socket::TimeWait { expects: None },
        Socket::TimeWait {
            expects: NonZeroU32::new(SEQUENCE),
        },
    ]);
    world.listens = random.below(2) == 0;
    world
}

/// A segment without anything unusual, from a client or a peer.
fn plain(random: &mut Random, nodes: usize, me: usize) -> Vec<u8> {
    let peer = node_mac(random.below(nodes));
    let (from, ttl) = random.pick(&[
        (CLIENT_MAC, 64),
        (CLIENT_MAC, 34),
        (peer, 64),
        (peer, 34),
        (peer, 33),
        (peer, 17),
    ]);
    let segment = Segment {
        from,
        ttl,
        source: random.pick(&[CLIENT, CLIENT, CLIENT, BANNED]).into(),
        ..Segment::new(me, random.word() as u16, random.pick(&[tcp::SYN, tcp::ACK]))
    };
    let family = random.pick(&[Segment::ipv6, |segment| segment]);
    family(segment).build()
}

#[test]
fn it_answers_as_the_longer_way_does() {
    let mut random = Random(0x57a1);
    let (mut forwarded, mut kept, mut refused, mut untouched) = (0, 0, 0, 0);
    for _ in 0..200_000 {
        let world = world(&mut random);
        let nodes = world.state.config.backend_count as usize;
        let me = (world.state.config.own_index as usize).min(nodes - 1);
        let frame = if random.below(2) == 0 {
            random.frame(nodes, me, true)
        } else {
            plain(&mut random, nodes, me)
        };
        let (mut straight, mut longer) = (frame.clone(), frame.clone());
        let expected = world.run_without_straight_path(&mut longer);
        let Some(answer) = world.run_straight(&mut straight) else {
            assert_eq!(straight, frame, "untouched: {frame:x?}");
            assert_eq!(world.run(&mut straight), expected, "{frame:x?} {world:?}");
            assert_eq!(straight, longer, "{frame:x?}");
            continue;
        };
        assert_eq!(answer, expected, "{frame:x?} {world:?}");
        assert_eq!(straight, longer, "{frame:x?}");
        match answer.0.kind() {
            Kind::Forward => forwarded += 1,
            Kind::Local => kept += 1,
            Kind::Drop => refused += 1,
            _ => untouched += 1,
        }
    }
    // It is about something.
    for count in [forwarded, kept, refused, untouched] {
        assert!(count > 1000, "{forwarded} {kept} {refused} {untouched}");
    }
}

#[test]
fn it_answers_what_it_is_for() {
    let cluster = World::new(3, 0);
    for ipv6 in [false, true] {
        for flags in [tcp::SYN, tcp::ACK] {
            let segment = Segment::new(0, 0, flags);
            let segment = if ipv6 { segment.ipv6() } else { segment };
            let answered = |segment: Segment, socket| {
                let world = World {
                    socket,
                    ..cluster.clone()
                };
                world.run_straight(&mut segment.build()).is_some()
            };
            let elsewhere = segment.first_at(&cluster, 1);
            assert!(answered(elsewhere, Socket::None));
            let here = segment.first_at(&cluster, 0);
            assert!(answered(here, Socket::Connection));
            assert!(!answered(here, Socket::None));
            let from_peer = Segment {
                from: node_mac(2),
                ttl: passage::FIRST,
                ..elsewhere
            };
            assert!(answered(from_peer, Socket::Connection));
            assert!(!answered(from_peer, Socket::None));
            assert_eq!(answered(here, Socket::Listener), flags == tcp::SYN);
        }
    }
}

#[test]
fn a_log_of_all_frames_turns_it_off() {
    let mut world = World::new(3, 0);
    world.state.config.straight_mac = Mac::UNKNOWN;
    let segment = Segment::new(0, 0, tcp::ACK).first_at(&world, 1);
    assert_eq!(world.run_straight(&mut segment.build()), None);
}
