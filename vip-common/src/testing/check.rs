//! The rules that no frame may break.

use core::num::NonZeroU32;
use std::vec::Vec;

use super::addresses::{PORT, node_address, node_address6, node_mac};
use super::segment::{ACKNOWLEDGEMENT, SEQUENCE, checksums_are_right};
use super::world::{NOW, World, backend};
use crate::abi::{BackendMask, Counter, flag};
use crate::egress;
use crate::env::Socket;
use crate::ingress::{Action, passage, untag};
use crate::verdict::Kind;
use crate::wire::addr::{Be32, Be128};
use crate::wire::bfd::{self, ControlPacket};
use crate::wire::tcp::{self, ACK, RST, SYN};

/// Checks the rules for the input of a fuzzer: three bytes that set the node's state, then a frame.
///
/// # Panics
/// If the packet logic breaks a rule.
pub fn check_input(input: &[u8]) {
    let [how, health, sockets, frame @ ..] = input else {
        return;
    };
    let mut world = World::new(3, 0).owning(how & 1 != 0);
    if how & 2 != 0 {
        world = world.mapping(443, PORT);
    }
    world = world.refusing(how >> 2 & (flag::ALLOW_LIST | flag::SYN_LIMIT));
    for node in 0..3 {
        let bit = |shift: usize| health >> (node + shift) & 1 != 0;
        // Two bits for each of the others, of which a node that is alive has no use.
        let (suspect, gone) = match how >> (2 * node + 2) & 3 {
            _ if node == 0 || bit(0) => (false, false),
            0 => (false, true),
            1 => (true, false),
            _ => (false, false),
        };
        let masks = &mut world.state.masks;
        masks.alive = masks.alive.with(backend(node), bit(0));
        masks.suspect = masks.suspect.with(backend(node), suspect);
        masks.not_gone = masks.not_gone.with(backend(node), !gone);
        masks.new_connections[0] = masks.new_connections[0].with(backend(node), bit(3));
    }
    world.socket = match sockets & 7 {
        0 | 1 => Socket::None,
        2 | 3 => Socket::Listener,
        4 => Socket::Cookie,
        5 => Socket::TimeWait {
            expects: NonZeroU32::new(SEQUENCE).filter(|_| sockets & 16 != 0),
        },
        6 => Socket::Request {
            expects: NonZeroU32::new(ACKNOWLEDGEMENT).filter(|_| sockets & 16 != 0),
        },
        _ => Socket::Connection,
    };
    world.listens = sockets & 8 != 0;
    if sockets & 32 != 0 {
        world.state.masks.no_forward = BackendMask::ALL;
    }
    if sockets & 64 != 0 {
        world.state.resets_until = NOW;
    }
    check_bfd(frame);
    let mut frame = Vec::from(frame);
    assert!(untag(&mut frame, &world), "the tag is there");
    check_ingress(&world, &frame);
    check_egress(&world, &frame);
}

/// Checks that bytes are refused as a BFD packet, or emitted as they were parsed.
pub fn check_bfd(bytes: &[u8]) {
    let Ok(packet) = ControlPacket::parse(bytes) else {
        return;
    };
    let mut emitted = [0; bfd::MAX_LENGTH];
    let emitted = packet.emit(&mut emitted);
    assert_eq!(ControlPacket::parse(emitted), Ok(packet));
    // A packet without authentication may tell a greater length than it has.
    if packet.authentication.is_some() || usize::from(bytes[3]) == bfd::LENGTH {
        assert_eq!(emitted, &bytes[..emitted.len()], "{packet:?}");
    }
}

/// Checks the ingress decision.
fn check_ingress(world: &World, frame: &[u8]) {
    let mut after = Vec::from(frame);
    let (verdict, action) = world.run(&mut after);
    let mut without = Vec::from(frame);
    let other = world.run_without_straight_path(&mut without);
    assert_eq!((verdict, action), other, "with and without straight path");
    assert_eq!(after, without, "with and without straight path");
    let masks = &world.state.masks;
    match verdict.kind() {
        Kind::Pass | Kind::Local => {
            assert_eq!(action, Action::Pass);
            if verdict.counter() == Counter::NoSocket && !may_be_final(world, frame) {
                panic!("reset, and another node may have the socket: {frame:x?} {world:?}");
            }
            // At most a port and the checksum that covers it.
            let changed = after.iter().zip(frame).filter(|(a, b)| a != b).count();
            assert!(changed <= 4, "{changed} bytes changed: {verdict:?}");
        }
        Kind::EndTimeWait => {
            assert_eq!(action, Action::Pass);
            assert!(may_be_final(world, frame), "{frame:x?} {world:?}");
            // Sequence number, flags, port and the checksum that covers them.
            let changed = after.iter().zip(frame).filter(|(a, b)| a != b).count();
            assert!(changed <= 9, "{changed} bytes changed: {verdict:?}");
        }
        Kind::Drop => assert_eq!(action, Action::Drop),
        Kind::Forward => {
            assert_eq!(action, Action::Transmit);
            // The frame leaves with a smaller TTL, and at most that of the first hop.
            let (came, left) = (ttl(frame), ttl(&after));
            let fewer = left < came && left <= passage::FIRST;
            assert!(fewer, "TTL {came}, then {left}");
            let to = verdict.backend() as usize;
            assert!((1..3).contains(&to), "to no other node: {verdict:?}");
            assert_eq!(after[..6], node_mac(to).to_wire());
            assert_eq!(after[6..12], node_mac(0).to_wire());
            let wanted = if left == passage::LAST_RESORT {
                masks.suspect
            } else {
                masks.alive
            };
            let gets = wanted.without(masks.no_forward).contains(backend(to));
            assert!(gets, "to a peer that gets nothing: {verdict:?}");
        }
        Kind::AnswerArp | Kind::AnswerNdp => {
            assert_eq!(action, Action::Transmit);
            assert!(
                world.state.vips[0].answer_until > NOW,
                "answers, and is not the owner"
            );
            assert_eq!(after[6..12], node_mac(0).to_wire());
        }
    }
    if verdict.kind() != Kind::AnswerNdp {
        assert_eq!(after.len(), frame.len());
    }
}

/// Whether this node may refuse or reset the segment of a frame. True also for what is no plain
/// segment.
fn may_be_final(world: &World, frame: &[u8]) -> bool {
    let (state, masks) = (&world.state, &world.state.masks);
    let (is_tcp, tcp) = if frame[12] == 8 {
        (frame[23] == 6, 14 + usize::from(frame[14] & 15) * 4)
    } else {
        (frame[20] == 6, 54)
    };
    let from_peer = (1..3).any(|node| frame[6..12] == node_mac(node).to_wire());
    let asked = match ttl(frame) {
        _ if !is_tcp => return true,
        19..=passage::FIRST if from_peer => passage::FIRST - ttl(frame),
        0..=passage::FIRST => return false,
        _ => 0,
    };
    let opens = frame[tcp + 13] & (SYN | ACK) == SYN;
    let all_asked = u32::from(asked) + 1 >= masks.not_gone.count() && NOW < state.resets_until;
    masks.no_forward.is_empty() && masks.suspect.is_empty() && (opens || all_asked)
}

/// The TTL or hop limit of an IP packet.
fn ttl(frame: &[u8]) -> u8 {
    frame[if frame[12] == 8 { 22 } else { 21 }]
}

/// Checks the egress decision.
fn check_egress(world: &World, frame: &[u8]) {
    let mut after = Vec::from(frame);
    let verdict = egress::decide(&after, world);
    let action = egress::apply(verdict, &mut after, world);
    let expected = match verdict.kind() {
        egress::Kind::Drop => egress::Action::Drop,
        egress::Kind::Reset | egress::Kind::Return => egress::Action::ComeIn,
        _ => egress::Action::Leave,
    };
    assert_eq!(action, expected, "{verdict:?}");
    if verdict.kind() == egress::Kind::Reset {
        check_reset(world, frame, &after);
        return;
    }
    assert_eq!(after.len(), frame.len());
    if action == egress::Action::Leave && !after.is_empty() {
        // A second decision finds nothing more to rewrite in ARP.
        let again = egress::decide(&after, world).kind();
        assert!(
            matches!(again, egress::Kind::Pass | egress::Kind::NamePort),
            "{verdict:?}, then {again:?}"
        );
    }
}

/// Checks a reset that answers an outgoing segment.
fn check_reset(world: &World, segment: &[u8], reset: &[u8]) {
    let masks = &world.state.masks;
    assert!(masks.no_forward.is_empty() && NOW < world.state.resets_until);
    let (addresses, length, tcp) = if segment[12] == 8 {
        (26, 4, 34)
    } else {
        (22, 16, 54)
    };
    let swapped = |at: usize, length: usize| {
        let [one, other] = [at, at + length];
        assert_eq!(reset[one..][..length], segment[other..][..length]);
        assert_eq!(reset[other..][..length], segment[one..][..length]);
    };
    swapped(0, 6);
    swapped(addresses, length);
    swapped(tcp, 2);
    assert_eq!(
        reset[tcp + 4..][..4],
        segment[tcp + 8..][..4],
        "acknowledged"
    );
    assert_eq!(reset[tcp + 12..][..2], [0x50, RST]);
    assert_eq!(reset.len(), tcp + tcp::LENGTH);
    assert!(checksums_are_right(reset), "{reset:x?}");
    let gone = (0..3).filter(|node| !masks.not_gone.contains(backend(*node)));
    let member = &segment[addresses + length..][..length];
    let member = match member.try_into() {
        Ok(ipv4) => Be32::from_wire(ipv4).into(),
        Err(_) => Be128::from_wire(member.try_into().expect("16 bytes")),
    };
    let mut own = gone.flat_map(|node| [node_address(node).into(), node_address6(node)]);
    assert!(own.any(|address| address == member), "{member:?}");
}
