//! Malformed, unusual and random frames.

use super::*;

#[test]
fn malformed_frames_are_dropped() {
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

/// Padding, large frames, priority tags and atomic fragments.
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
        // The length of the frame does not include padding.
        let mut padded = [&good[..], &[0; 30]].concat();
        assert_eq!(bytes(&mut padded, "padding"), good.len());
        // BIG TCP: longer than the header's field can hold.
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
        // This node's own Ethernet address as the source counts as a client's.
        let mut own = Tcp {
            from: node_mac(0),
            ..segment
        }
        .build();
        bytes(&mut own, "from its own address");
    }
    // An atomic fragment (RFC 6946): a fragment header, but no other fragments.
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
fn a_million_random_frames_reach_every_verdict_and_keep_their_length() {
    let mut random = Random(0x5eed);
    let mut seen = std::collections::HashSet::new();
    let sockets = [
        Socket::None,
        Socket::Listener,
        Socket::Cookie,
        Socket::Connection,
        request(ACKNOWLEDGEMENT),
        request(ACKNOWLEDGEMENT + 1),
        time_wait(SEQUENCE),
        time_wait(SEQUENCE ^ 1 << 31),
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
        // Only an advertisement may be longer than its solicitation. Tags may be removed.
        let removed = before.saturating_sub(frame.len());
        let same = frame.len() == before - removed && [0, 4, 8].contains(&removed);
        assert!(same || verdict.kind() == Kind::AnswerNdp);
    }
    // Every counter of the ingress program is reached.
    let not_ingress = [
        Counter::GuardRewritten,
        Counter::GuardDropped,
        Counter::Redirected,
        Counter::GuardTested,
        Counter::ConnectTested,
        Counter::GoneReset,
    ];
    for counter in Counter::ALL
        .iter()
        .filter(|counter| !not_ingress.contains(counter))
    {
        assert!(
            seen.contains(counter),
            "no frame was counted as {counter:?}"
        );
    }
}
