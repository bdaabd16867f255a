mod chain;
mod neighbours;

use super::*;
use crate::abi::{BackendMask, Counter, flag};
use crate::env::Socket;
use crate::testing::{
    BANNED, CLIENT, PORT, Random, SEQUENCE, Segment as Tcp, VIP, World, backend,
    checksums_are_right, node_mac,
};
use crate::verdict::{Kind, Verdict};
use crate::wire::addr::{Be128, Mac};
use crate::wire::vlan::tagged;
use crate::wire::{ipv6, tcp};

fn forward(to: usize, syn: bool) -> Verdict {
    Verdict::forward(to as u32, node_mac(to), syn, false)
}

/// The same verdict about a frame of IPv6.
fn about_ipv6(verdict: Verdict) -> Verdict {
    Verdict {
        ipv6: verdict.kind == Kind::Forward,
        ..verdict
    }
}

/// What frames of a node come from where something rewrites that.
const REWRITTEN: Mac = Mac::from_wire([2, 7, 7, 7, 7, 7]);

fn local(counter: Counter, syn: bool) -> Verdict {
    Verdict::local(counter, 0, syn)
}

/// A node's world, changed for one row of the table.
fn world(change: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(3, 0);
    change(&mut world);
    world
}

/// What is left of a connection whose client sends this number next.
fn remains(expects: u32) -> Socket {
    Socket::TimeWait {
        expects: Some(expects),
    }
}

/// Flows that have node 0 (this one), 1 or 2 first; the order goes round from there.
fn to(first: usize, flags: u8) -> Tcp {
    Tcp::new(0, 0, flags).first_at(&World::new(3, 0), first)
}

fn unready(node: usize) -> impl FnOnce(&mut World) {
    move |world| {
        let ready = &mut world.state.masks.new_connections[0];
        *ready = ready.with(backend(node), false);
    }
}

fn dead(node: usize) -> impl FnOnce(&mut World) {
    move |world| world.state.masks.alive = world.state.masks.alive.with(backend(node), false)
}

/// The same segment by IPv6, with the same node first.
fn by_ipv6(segment: Tcp) -> Tcp {
    let world = World::new(3, 0);
    let first = world.rows[segment.bucket(&world)].first().get();
    segment.ipv6().first_at(&world, first)
}

fn socket(socket: Socket) -> impl FnOnce(&mut World) {
    move |world| world.socket = socket
}

#[test]
fn every_segment_goes_where_the_table_says() {
    use Counter::*;
    use tcp::{ACK, FIN, RST, SYN};
    let same = |_: &mut World| {};
    let peer = |first, flags| Tcp {
        from: node_mac(2),
        ttl: hops::FIRST,
        ..to(first, flags)
    };
    let with_ttl = |ttl, segment: Tcp| Tcp { ttl, ..segment };
    let banned = |flags| {
        let segment = Tcp {
            source: BANNED.into(),
            ..to(1, flags)
        };
        segment.first_at(&World::new(3, 0), 1)
    };
    let rows: Vec<(&str, World, Tcp, Verdict)> = vec![
        // From a client: from the first rank on.
        (
            "SYN to the first",
            world(same),
            to(1, SYN),
            forward(1, true),
        ),
        (
            "data to the first",
            world(same),
            to(1, ACK),
            forward(1, false),
        ),
        (
            "SYN past an unready one",
            world(unready(1)),
            to(1, SYN),
            forward(2, true),
        ),
        (
            "data to an unready one",
            world(unready(1)),
            to(1, ACK),
            forward(1, false),
        ),
        (
            "data past a dead one",
            world(dead(1)),
            to(1, ACK),
            forward(2, false),
        ),
        (
            "SYN past a dead one",
            world(dead(1)),
            to(1, SYN),
            forward(2, true),
        ),
        (
            "past one whose Ethernet address nobody knows",
            world(|w| w.state.backends[1].mac = Mac::default()),
            to(1, SYN),
            forward(2, true),
        ),
        (
            "nobody is to have new connections",
            world(|w| w.state.masks.new_connections[0] = BackendMask::EMPTY),
            to(1, SYN),
            Verdict::pass(NoSocket),
        ),
        // At its own rank the node asks its stack.
        (
            "SYN, listener",
            world(socket(Socket::Listener)),
            to(0, SYN),
            local(LocalSyn, true),
        ),
        ("SYN, none", world(same), to(0, SYN), forward(1, true)),
        (
            "SYN, listener that takes no new ones",
            world(|w| {
                w.socket = Socket::Listener;
                unready(0)(w);
            }),
            to(0, SYN),
            forward(1, true),
        ),
        (
            "SYN sent again while this node drains",
            world(|w| {
                w.socket = Socket::Connection;
                unready(0)(w);
            }),
            to(0, SYN),
            local(LocalSyn, true),
        ),
        (
            "data, connection",
            world(socket(Socket::Connection)),
            to(0, ACK),
            local(LocalSegment, false),
        ),
        ("data, none", world(same), to(0, ACK), forward(1, false)),
        // What is left of a connection takes what belongs to it, and a new connection if it may.
        (
            "the last FIN, sent again",
            world(socket(remains(SEQUENCE + 1))),
            to(0, ACK | FIN),
            local(LocalSegment, false),
        ),
        (
            "a reset of a client that closed with something unread",
            world(socket(remains(SEQUENCE))),
            to(0, ACK | RST),
            local(LocalSegment, false),
        ),
        (
            "SYN from a port that was used before",
            world(|w| {
                w.socket = remains(0);
                w.listens = true;
            }),
            to(0, SYN),
            local(LocalSyn, true),
        ),
        (
            "the same, but the server has crashed",
            world(socket(remains(0))),
            to(0, SYN),
            forward(1, true),
        ),
        (
            "the same, but this node takes no new ones",
            world(|w| {
                w.socket = remains(0);
                w.listens = true;
                unready(0)(w);
            }),
            to(0, SYN),
            forward(1, true),
        ),
        (
            "data of the new connection at another node",
            world(socket(remains(SEQUENCE ^ 1 << 31))),
            to(0, ACK),
            forward(1, false),
        ),
        (
            "the same, and the new one was opened at once",
            world(socket(remains(SEQUENCE - 1))),
            to(0, ACK),
            forward(1, false),
        ),
        (
            "its FIN",
            world(socket(remains(SEQUENCE ^ 1 << 31))),
            to(0, ACK | FIN),
            forward(1, false),
        ),
        (
            "its reset",
            world(socket(remains(SEQUENCE + (1 << 17)))),
            to(0, ACK | RST),
            forward(1, false),
        ),
        (
            "a kernel that does not tell what the remains expect",
            world(socket(Socket::TimeWait { expects: None })),
            to(0, ACK | FIN),
            forward(1, false),
        ),
        (
            "data, only a listener",
            world(socket(Socket::Listener)),
            to(0, ACK),
            forward(1, false),
        ),
        (
            "cookie",
            world(socket(Socket::Cookie)),
            to(0, ACK),
            local(LocalCookie, false),
        ),
        (
            "cookie with FIN",
            world(socket(Socket::Cookie)),
            to(0, ACK | FIN),
            local(LocalCookie, false),
        ),
        (
            "a reset is no cookie",
            world(socket(Socket::Cookie)),
            to(0, ACK | RST),
            forward(1, false),
        ),
        // From a peer: from the own rank on, never back up.
        (
            "from_peer, mine",
            world(socket(Socket::Connection)),
            peer(2, ACK),
            local(LocalSegment, false),
        ),
        (
            "from_peer, not mine",
            world(same),
            peer(2, ACK),
            forward(1, false),
        ),
        (
            "from_peer, nobody is left",
            world(same),
            peer(1, ACK),
            Verdict::pass(NoSocket),
        ),
        (
            "from_peer so often that only one hop is left",
            world(same),
            with_ttl(32, peer(2, ACK)),
            forward(1, false),
        ),
        (
            "from_peer once too often",
            world(same),
            with_ttl(31, peer(2, ACK)),
            Verdict::drop(TtlExceeded),
        ),
        (
            "the same, but it has arrived",
            world(socket(Socket::Connection)),
            with_ttl(31, peer(2, ACK)),
            local(LocalSegment, false),
        ),
        (
            "from_peer once too often, nobody is left: still no reset",
            world(same),
            with_ttl(31, peer(1, ACK)),
            Verdict::drop(TtlExceeded),
        ),
        // A node that sends or routes what is no hand-over is a client.
        (
            "a node's own or routed segment",
            world(same),
            with_ttl(hops::FIRST + 1, peer(2, ACK)),
            forward(2, false),
        ),
        // Handed over, but nobody knows it: from the first rank on, and it costs hops.
        (
            "from_peer by a node whose source is rewritten",
            world(same),
            Tcp {
                from: REWRITTEN,
                ..peer(2, ACK)
            },
            forward(2, false),
        ),
        (
            "the same, and its source was learned",
            World::new(3, 0).knowing_source(2, REWRITTEN),
            Tcp {
                from: REWRITTEN,
                ..peer(2, ACK)
            },
            forward(1, false),
        ),
        (
            "another node's ARP address is still its own",
            World::new(3, 0).knowing_source(2, REWRITTEN),
            peer(2, ACK),
            forward(1, false),
        ),
        // A client with few hops left: as if they had been made between nodes.
        (
            "a client with three hops made",
            world(same),
            with_ttl(32, to(1, ACK)),
            forward(1, false),
        ),
        (
            "a client with all hops made",
            world(same),
            with_ttl(31, to(1, ACK)),
            Verdict::drop(TtlExceeded),
        ),
        (
            "the same, and it is this node's",
            world(socket(Socket::Connection)),
            with_ttl(1, to(1, ACK)),
            local(LocalSegment, false),
        ),
        (
            "the same, and this node may have it",
            world(socket(Socket::Listener)),
            with_ttl(0, to(1, SYN)),
            local(LocalSyn, true),
        ),
        // End of the order.
        (
            "nobody else lives and no socket",
            world(|w| {
                dead(1)(w);
                dead(2)(w);
            }),
            to(0, ACK),
            Verdict::pass(NoSocket),
        ),
        // A node that has just come keeps what is its own, and sends nothing on.
        (
            "joining, a connection of its own",
            world(|w| {
                w.state.masks.no_forward = BackendMask::ALL;
                socket(Socket::Connection)(w);
            }),
            to(1, ACK),
            local(LocalSegment, false),
        ),
        (
            "joining, a new one",
            world(|w| {
                w.state.masks.no_forward = BackendMask::ALL;
                socket(Socket::Listener)(w);
            }),
            to(1, SYN),
            local(LocalSyn, true),
        ),
        (
            "joining, somebody's connection",
            world(|w| w.state.masks.no_forward = BackendMask::ALL),
            to(1, ACK),
            Verdict::drop(Joining),
        ),
        (
            "joining, a new one, and no server",
            world(|w| w.state.masks.no_forward = BackendMask::ALL),
            to(1, SYN),
            Verdict::drop(Joining),
        ),
        // Not for the VIP, or not so that we want it.
        (
            "another address",
            world(same),
            Tcp {
                destination: CLIENT.into(),
                ..to(1, SYN)
            },
            Verdict::UNTOUCHED,
        ),
        (
            "another host's frame",
            world(same),
            Tcp {
                to: node_mac(1),
                ..to(1, SYN)
            },
            Verdict::pass(OtherHost),
        ),
        (
            "broadcast, of which the stack takes what is not TCP",
            world(same),
            Tcp {
                to: Mac::BROADCAST,
                ..to(1, SYN)
            },
            Verdict::drop(OtherHost),
        ),
        (
            "another port",
            world(same),
            Tcp {
                port: 22,
                ..to(1, SYN)
            },
            Verdict::drop(UndeclaredPort),
        ),
        (
            "options",
            world(same),
            Tcp {
                options: 6,
                ..to(1, SYN)
            },
            forward(1, true),
        ),
        // Not everybody may use a service with an allow list or a limit.
        (
            "on the list",
            World::new(3, 0).refusing(flag::ALLOW_LIST | flag::SYN_LIMIT),
            to(1, SYN),
            forward(1, true),
        ),
        (
            "not on the list",
            World::new(3, 0).refusing(flag::ALLOW_LIST),
            banned(ACK),
            Verdict::drop(NotAllowed),
        ),
        (
            "too many connections",
            World::new(3, 0).refusing(flag::SYN_LIMIT),
            banned(SYN),
            Verdict::drop(SynLimited),
        ),
        (
            "of too many connections those that are open",
            World::new(3, 0).refusing(flag::SYN_LIMIT),
            banned(ACK),
            forward(1, false),
        ),
        (
            "counted by the first node already",
            World::new(3, 0).refusing(flag::SYN_LIMIT),
            Tcp {
                from: node_mac(2),
                ttl: hops::FIRST,
                ..banned(SYN)
            },
            Verdict::pass(NoSocket),
        ),
        (
            "a TTL is no proof that it was counted",
            World::new(3, 0).refusing(flag::SYN_LIMIT),
            with_ttl(1, banned(SYN)),
            Verdict::drop(SynLimited),
        ),
        (
            "not counted, as no node has handed it over",
            World::new(3, 0).refusing(flag::SYN_LIMIT),
            with_ttl(hops::FIRST, banned(SYN)),
            Verdict::drop(SynLimited),
        ),
    ];
    for (name, world, segment, expected) in rows {
        for segment in [segment, by_ipv6(segment)] {
            let mut frame = segment.build();
            let before = frame.clone();
            let (verdict, action) = world.run(&mut frame);
            let bytes = match expected.kind {
                Kind::Forward | Kind::Local => frame.len() as u32,
                _ => 0,
            };
            let expected = if segment.source.ipv4().is_some() {
                expected
            } else {
                about_ipv6(expected)
            };
            assert_eq!(verdict, expected.of(bytes), "{name}: {segment:?}");
            if expected.kind != Kind::Forward {
                assert_eq!(frame, before, "{name}: untouched");
                continue;
            }
            assert_eq!(action, Action::Transmit, "{name}");
            assert_eq!(frame[..6], expected.mac.to_wire(), "{name}: destination");
            assert_eq!(frame[6..12], node_mac(0).to_wire(), "{name}: source");
            assert!(checksums_are_right(&frame), "{name}: checksum");
            // Where the hops are, and what follows their header's checksum.
            let (hops, rest) = if segment.source.ipv4().is_some() {
                (22, 26)
            } else {
                (21, 22)
            };
            let left = hops::lowered(segment.ttl);
            assert_eq!(frame[hops], left, "{name}: hops");
            assert_eq!(frame[rest..], before[rest..], "{name}: the rest");
        }
    }
}

#[test]
fn a_service_with_another_port_gets_it_where_the_segment_stays() {
    let listening = |socket| {
        let mut world = World::new(3, 0).mapping(443, PORT);
        world.socket = socket;
        world
    };
    let mine = |flags| {
        let segment = Tcp {
            port: 443,
            ..Tcp::new(0, 0, flags)
        };
        [segment, segment.ipv6()].map(|segment| segment.first_at(&listening(Socket::None), 0))
    };
    for segment in mine(tcp::SYN) {
        let mut frame = segment.build();
        let (verdict, action) = listening(Socket::Listener).run(&mut frame);
        assert_eq!((verdict.kind, action), (Kind::Local, Action::Pass));
        let mapped = Tcp {
            port: PORT,
            ..segment
        };
        assert_eq!(frame, mapped.build());
        // Another node does it for itself.
        let mut frame = segment.build();
        let (verdict, _) = listening(Socket::None).run(&mut frame);
        assert_eq!(verdict.kind, Kind::Forward);
        let handed_on = Tcp {
            ttl: hops::FIRST,
            ..segment
        };
        assert_eq!(frame[14..], handed_on.build()[14..]);
    }
    // What no node has is reset from the port that the client knows.
    let mut alone = listening(Socket::None);
    alone.state.masks.alive = BackendMask::EMPTY;
    for segment in mine(tcp::ACK) {
        let mut frame = segment.build();
        assert_eq!(alone.run(&mut frame).0.counter, Counter::NoSocket);
        let mapped = Tcp {
            port: PORT,
            ..segment
        };
        assert_eq!(frame, mapped.build());
    }
}

#[test]
fn an_icmp_error_goes_where_its_connection_is() {
    use Counter::*;
    // What a server sent to a client whose segments have node `first` first.
    let answer = |first| {
        let segment = to(first, tcp::ACK);
        [segment, by_ipv6(segment)].map(|segment| Tcp {
            source: segment.destination,
            destination: segment.source,
            source_port: segment.port,
            port: segment.source_port,
            ..segment
        })
    };
    let run = |world: &World, frame: &mut Vec<u8>| {
        let verdict = world.run(frame).0.of(0);
        Verdict {
            ipv6: false,
            ..verdict
        }
    };
    for (ipv6, kinds) in [(0, &[3, 11, 12][..]), (1, &[1, 2, 3, 4])] {
        for &kind in kinds {
            let error = |first: usize| answer(first)[ipv6].quoted_by_router(0, kind);
            let none = World::new(3, 0);
            assert_eq!(run(&none, &mut error(1)), forward(1, false));
            assert_eq!(run(&none, &mut error(0)), forward(1, false));
            let mine = world(socket(Socket::Connection));
            assert_eq!(run(&mine, &mut error(0)), local(LocalError, false));
            let listens = world(socket(Socket::Cookie));
            assert_eq!(run(&listens, &mut error(0)), forward(1, false));
            let mut alone = World::new(3, 0);
            alone.state.masks.alive = BackendMask::EMPTY;
            assert_eq!(run(&alone, &mut error(0)), Verdict::pass(NoSocket));
            // It makes no more hops than a segment.
            let mut spent = error(1);
            spent[[22, 21][ipv6]] = 31;
            assert_eq!(run(&none, &mut spent), Verdict::drop(TtlExceeded));
            if ipv6 == 0 {
                // What a later fragment holds is nobody's header, whatever it looks like.
                let mut fragment = error(1);
                fragment[21] = 1;
                assert_eq!(run(&none, &mut fragment), Verdict::pass(Icmp));
            }
        }
        // Echo, and errors about something else.
        let other = answer(1)[ipv6];
        for frame in [
            other.quoted_by_router(0, [8, 128][ipv6]),
            Tcp {
                source_port: 22,
                ..other
            }
            .quoted_by_router(0, [3, 2][ipv6]),
        ] {
            let mut frame = frame;
            assert_eq!(run(&World::new(3, 0), &mut frame), Verdict::pass(Icmp));
        }
    }
    // The stack knows the segment by the port that it sent it from.
    let mut world = World::new(3, 0).mapping(443, PORT);
    world.socket = Socket::Connection;
    for answer in answer(0) {
        let quoted = Tcp {
            source_port: 443,
            ..answer
        };
        let port = (20_000..60_000).find(|&port| {
            let segment = Tcp {
                source: quoted.destination,
                destination: quoted.source,
                source_port: port,
                port: 443,
                ..quoted
            };
            world.rows[segment.bucket(&world)].first().get() == 0
        });
        let quoted = Tcp {
            port: port.expect("some port has node 0 first"),
            ..quoted
        };
        let kind = if quoted.source.ipv4().is_some() { 3 } else { 2 };
        let mut frame = quoted.quoted_by_router(0, kind);
        assert_eq!(world.run(&mut frame).0.counter, LocalError);
        // The quoted checksum is the client's affair; the message's own is right.
        let mut expected = Tcp {
            source_port: PORT,
            ..quoted
        }
        .quoted_by_router(0, kind);
        let sums = |frame: &mut Vec<u8>| {
            let end = frame.len();
            frame[end - 4..end - 2].fill(0);
            let message = if quoted.source.ipv4().is_some() {
                34
            } else {
                54
            };
            frame[message + 2..message + 4].fill(0);
        };
        sums(&mut frame);
        sums(&mut expected);
        assert_eq!(frame, expected);
    }
}

#[test]
fn frames_that_contradict_themselves_are_dropped() {
    use Counter::*;
    let good = to(1, tcp::SYN).build();
    let with = |place: usize, value: u8| {
        let mut frame = good.clone();
        frame[place] = value;
        frame
    };
    let rows = [
        ("version 6", with(14, 0x65), Verdict::drop(Malformed)),
        (
            "header of 16 bytes",
            with(14, 0x44),
            Verdict::drop(Malformed),
        ),
        (
            "header longer than the datagram",
            with(14, 0x4f),
            Verdict::drop(Malformed),
        ),
        (
            "datagram longer than the frame",
            with(17, 0xff),
            Verdict::drop(Malformed),
        ),
        (
            "datagram shorter than its header",
            with(17, 10),
            Verdict::drop(Malformed),
        ),
        (
            "datagram shorter than TCP",
            with(17, 39),
            Verdict::drop(Malformed),
        ),
        (
            "a length of 0 in a frame that is not large",
            with(17, 0),
            Verdict::drop(Malformed),
        ),
        (
            "TCP header of 16 bytes",
            with(46, 0x40),
            Verdict::drop(Malformed),
        ),
        (
            "TCP header longer than the datagram",
            with(46, 0x60),
            Verdict::drop(Malformed),
        ),
        ("more fragments", with(20, 0x20), Verdict::drop(Fragment)),
        ("a later fragment", with(21, 0x01), Verdict::drop(Fragment)),
        ("UDP", with(23, 17), Verdict::drop(OtherProtocol)),
        ("ICMP", with(23, 1), Verdict::pass(Icmp)),
        ("another EtherType", with(12, 0x86), Verdict::UNTOUCHED),
        ("IPv4 cut short", good[..33].to_vec(), Verdict::pass(Short)),
        (
            "TCP cut short",
            good[..53].to_vec(),
            Verdict::drop(Malformed),
        ),
        (
            "Ethernet cut short",
            good[..13].to_vec(),
            Verdict::pass(Short),
        ),
        ("nothing", vec![], Verdict::pass(Short)),
    ];
    for (name, mut frame, expected) in rows {
        assert_eq!(World::new(3, 0).run(&mut frame).0, expected, "{name}");
    }

    let good = by_ipv6(to(1, tcp::SYN)).build();
    let with = |place: usize, value: u8| {
        let mut frame = good.clone();
        frame[place] = value;
        frame
    };
    let extended = |options, place: usize, value: u8| {
        let mut frame = Tcp {
            options,
            ..by_ipv6(to(1, tcp::SYN))
        }
        .build();
        frame[place] = value;
        frame
    };
    let rows = [
        ("version 4", with(14, 0x45), Verdict::drop(Malformed)),
        (
            "packet longer than the frame",
            with(19, 21),
            Verdict::drop(Malformed),
        ),
        (
            "packet shorter than TCP",
            with(19, 19),
            Verdict::drop(Malformed),
        ),
        (
            "TCP header of 16 bytes",
            with(66, 0x40),
            Verdict::drop(Malformed),
        ),
        (
            "TCP header longer than the packet",
            with(66, 0x60),
            Verdict::drop(Malformed),
        ),
        ("a fragment", with(20, 44), Verdict::drop(Fragment)),
        (
            "a fragment behind options",
            extended(1, 54, 44),
            Verdict::drop(Fragment),
        ),
        ("UDP", with(20, 17), Verdict::drop(OtherProtocol)),
        ("ICMPv6 echo", with(20, 58), Verdict::pass(Icmp)),
        (
            "extension header past the end",
            extended(1, 55, 200),
            Verdict::drop(Malformed),
        ),
        (
            "too many extension headers",
            extended(7, 14, 0x60),
            Verdict::drop(Malformed),
        ),
        ("cut short", good[..53].to_vec(), Verdict::pass(Short)),
        (
            "TCP cut short",
            good[..73].to_vec(),
            Verdict::drop(Malformed),
        ),
    ];
    for (name, mut frame, expected) in rows {
        assert_eq!(World::new(3, 0).run(&mut frame).0, expected, "IPv6: {name}");
    }
}

/// What the kernel reads in another way than one would think.
#[test]
fn frames_are_read_as_the_kernel_reads_them() {
    let world = World::new(3, 0);
    let bytes = |frame: &mut Vec<u8>, name: &str| {
        let (verdict, action) = world.run(frame);
        assert_eq!(
            (verdict.kind, action),
            (Kind::Forward, Action::Transmit),
            "{name}"
        );
        verdict.bytes as usize
    };
    for segment in [to(1, tcp::ACK), by_ipv6(to(1, tcp::ACK))] {
        let good = segment.build();
        let length = if segment.source.ipv4().is_some() {
            16
        } else {
            18
        };
        // Padding is no data.
        let mut padded = [&good[..], &[0; 30]].concat();
        assert_eq!(bytes(&mut padded, "padding"), good.len());
        // BIG TCP: more than the field can say.
        let mut large = good.clone();
        large.resize(70_000, 0);
        large[length..length + 2].fill(0);
        let before = if length == 16 { 14 } else { 54 };
        let longest = before + 0xffff;
        assert_eq!(bytes(&mut large, "length of 0"), longest);
        // Priority tags.
        for kind in [0x8100, 0x88a8] {
            let mut once = tagged(&good, kind, 0x6000);
            let mut twice = tagged(&once, 0x88a8, 0);
            for frame in [&mut once, &mut twice] {
                assert_eq!(bytes(frame, "priority-tagged"), good.len());
                assert_eq!(frame[14..20], good[14..20]);
            }
            let mut other = tagged(&good, kind, 0x6001);
            assert_eq!(world.run(&mut other).0, Verdict::UNTOUCHED);
        }
        // Its own address as the source is a client's like any other.
        let mut own = Tcp {
            from: node_mac(0),
            ..segment
        }
        .build();
        bytes(&mut own, "from its own address");
    }
    // A packet in one piece that has a fragment header all the same (RFC 6946).
    let mut atomic = Tcp {
        options: 1,
        ..by_ipv6(to(1, tcp::ACK))
    }
    .build();
    atomic[20] = 44;
    atomic[54..62].copy_from_slice(&[6, 0, 0, 0, 1, 2, 3, 4]);
    let whole = atomic.len();
    assert_eq!(bytes(&mut atomic, "an atomic fragment"), whole);
}

#[test]
fn a_million_random_and_mutated_frames_do_no_harm() {
    let mut random = Random(0x5eed);
    let mut seen = std::collections::HashSet::new();
    let sockets = [
        Socket::None,
        Socket::Listener,
        Socket::Cookie,
        Socket::Connection,
        remains(SEQUENCE),
        remains(SEQUENCE ^ 1 << 31),
        Socket::TimeWait { expects: None },
    ];
    let mut world = World::new(3, 0);
    for _ in 0..1_000_000 {
        world = world.owning(random.below(2) == 0);
        world = world.refusing(random.pick(&[0, flag::ALLOW_LIST, flag::SYN_LIMIT]));
        world.socket = random.pick(&sockets);
        world.listens = random.below(2) == 0;
        world.state.masks.no_forward = random.pick(&[
            BackendMask::EMPTY,
            BackendMask::EMPTY,
            BackendMask::EMPTY,
            BackendMask::ALL,
        ]);
        let mut frame = random.frame(3, 0, true);
        let before = frame.len();
        let (verdict, _) = world.run(&mut frame);
        seen.insert(verdict.counter());
        // Only an answer may need room for the Ethernet address. Tags may be taken off.
        let taken = before.saturating_sub(frame.len());
        let same = frame.len() == before - taken && [0, 4, 8].contains(&taken);
        assert!(same || verdict.kind() == Kind::AnswerNdp);
    }
    // The generator reaches every verdict, so the run means something.
    let elsewhere = [
        Counter::GuardRewritten,
        Counter::GuardDropped,
        Counter::Redirected,
        Counter::GuardTested,
        Counter::ConnectTested,
    ];
    for counter in Counter::ALL
        .iter()
        .filter(|counter| !elsewhere.contains(counter))
    {
        assert!(
            seen.contains(counter),
            "no frame was counted as {counter:?}"
        );
    }
}
