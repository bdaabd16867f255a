//! Tests of the ingress decision.

mod end_of_row;
mod icmp;
mod loops;
mod malformed;
mod model;
mod neighbor;
mod promises;
mod ranks;
mod refused;
mod straight;
mod target;

use core::num::NonZeroU32;

use super::*;
use crate::abi::{BackendMask, Counter, flag};
use crate::env::Socket;
use crate::testing::{
    ACKNOWLEDGEMENT, BANNED, CLIENT, NOW, PORT, Random, SEQUENCE, Seen, Segment as Tcp, VIP, World,
    backend, checksums_are_right, node_mac,
};
use crate::verdict::{Kind, Verdict};
use crate::wire::addr::{Be128, Mac};
use crate::wire::vlan::tagged;
use crate::wire::{ipv6, tcp};

/// The verdict that forwards an IPv4 segment to this node, as the first one that is asked.
fn forward(to: usize, syn: bool) -> Verdict {
    Verdict::forward(to as u32, node_mac(to), passage::FIRST, syn, false)
}

/// The same after node 0 has looked for the socket.
fn next(to: usize, syn: bool) -> Verdict {
    leaving(passage::FIRST - 1, forward(to, syn))
}

/// The verdict that forwards with this TTL.
fn leaving(ttl: u8, verdict: Verdict) -> Verdict {
    Verdict { ttl, ..verdict }
}

/// The same verdict about an IPv6 frame.
fn about_ipv6(verdict: Verdict) -> Verdict {
    Verdict {
        ipv6: verdict.kind == Kind::Forward,
        ..verdict
    }
}

/// Ethernet source of a node's frames, if something on the path rewrites it.
const REWRITTEN: Mac = Mac::from_wire([2, 7, 7, 7, 7, 7]);

/// The verdict that keeps a segment at node 0.
fn local(counter: Counter, syn: bool) -> Verdict {
    Verdict::local(counter, 0, syn)
}

/// Node 0 of a cluster of three, with this change.
fn world(change: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(3, 0);
    change(&mut world);
    world
}

/// A request that an acknowledgement of this number completes.
fn request(expects: u32) -> Socket {
    Socket::Request {
        expects: NonZeroU32::new(expects),
    }
}

/// A TIME-WAIT socket whose client sends this sequence number next.
fn time_wait(expects: u32) -> Socket {
    Socket::TimeWait {
        expects: NonZeroU32::new(expects),
    }
}

/// A segment of a flow in whose row node `first` has the first rank; the order goes round from
/// there.
fn to(first: usize, flags: u8) -> Tcp {
    Tcp::new(0, 0, flags).first_at(&World::new(3, 0), first)
}

/// A change: the node is not chosen for new connections.
fn unready(node: usize) -> impl FnOnce(&mut World) {
    move |world| {
        let ready = &mut world.state.masks.new_connections[0];
        *ready = ready.with(backend(node), false);
    }
}

/// A change: the node is in this state.
fn sees(node: usize, seen: Seen) -> impl FnOnce(&mut World) {
    move |world| *world = world.clone().seeing(node, seen)
}

/// A change: the node is gone.
fn dead(node: usize) -> impl FnOnce(&mut World) {
    sees(node, Seen::Gone)
}

/// The same segment by IPv6, with the same node at the first rank.
fn by_ipv6(segment: Tcp) -> Tcp {
    let world = World::new(3, 0);
    let first = world.rows[segment.bucket(&world)].first().get();
    segment.ipv6().first_at(&world, first)
}

/// A change: this node has this socket.
fn socket(socket: Socket) -> impl FnOnce(&mut World) {
    move |world| world.socket = socket
}

/// A case: its name, the node, the segment that arrives, and the expected verdict.
type Row = (&'static str, World, Tcp, Verdict);

/// No change.
fn same(_: &mut World) {}

/// A segment that node 2 has forwarded once.
fn forwarded(first: usize, flags: u8) -> Tcp {
    Tcp {
        from: node_mac(2),
        ttl: passage::FIRST,
        ..to(first, flags)
    }
}

/// The segment with another TTL.
fn with_ttl(ttl: u8, segment: Tcp) -> Tcp {
    Tcp { ttl, ..segment }
}

/// A segment from a source that is refused, in whose row node 1 has the first rank.
fn banned(flags: u8) -> Tcp {
    let segment = Tcp {
        source: BANNED.into(),
        ..to(1, flags)
    };
    segment.first_at(&World::new(3, 0), 1)
}

/// Checks the verdict and the rewritten frame of each case, for both families.
fn check(rows: Vec<Row>) {
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
            // Offsets of the TTL, and of the first field after the IPv4 header checksum.
            let (ttl, rest) = if segment.source.ipv4().is_some() {
                (22, 26)
            } else {
                (21, 22)
            };
            assert!(verdict.ttl < segment.ttl, "{name}: the TTL falls");
            assert_eq!(frame[ttl], verdict.ttl, "{name}: TTL");
            assert_eq!(frame[rest..], before[rest..], "{name}: the rest");
        }
    }
}
