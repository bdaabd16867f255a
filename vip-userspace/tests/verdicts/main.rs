//! The real programs in the real kernel, against the packet logic on the host: each verdict
//! through `BPF_PROG_TEST_RUN`, with real sockets behind `bpf_skc_lookup_tcp`.
//!
//! Each test runs on a thread with a network namespace of its own, which holds the VIP and
//! nothing else.

mod sockets;

use std::iter::zip;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::Command;

use aya::TestRunResult;
use aya::programs::{TestRun, TestRunOptions};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use vip_common::abi::{BUCKETS, Counter, MAX_BACKENDS, RankRow, flag, lease_stands};
use vip_common::egress;
use vip_common::env::Socket;
use vip_common::ingress::Action;
use vip_common::ingress::untag;
use vip_common::testing::{
    BANNED, BANNED6, CLIENT, CLIENT_MAC, CLIENT6, NOW, PORT, Random, Seen, Segment, VIP, VIP6,
    World, arp_frame, arp_request, backend, ndp_frame, node_address, node_address6, node_mac,
    solicitation,
};
use vip_common::verdict::{Kind, Verdict};
use vip_common::wire::addr::{Be128, Mac};
use vip_common::wire::time::BootNanos;
use vip_common::wire::vlan::tagged;
use vip_common::wire::{arp, ethernet, ipv4, ipv6, ndp, tcp};
use vip_node::allow::Prefix;
use vip_userspace::clock;
use vip_userspace::datapath::{Datapath, DesiredState, EGRESS, Features, StateMap, TC_INGRESS};

/// Runs `test` in an empty network namespace with the VIP on `lo`.
fn in_namespace(test: fn()) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "programs are loaded into the kernel: run as root (`cargo xtask test`)"
    );
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may unshare");
        ip(&["link", "set", "lo", "up"]);
        for address in [VIP.into(), CLIENT.into(), VIP6, CLIENT6] {
            let whole = if address.ipv4().is_some() { 32 } else { 128 };
            let address = format!("{}/{whole}", IpAddr::from(address));
            ip(&["address", "add", &address, "dev", "lo"]);
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip")
        .args(arguments)
        .status()
        .expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments:?}");
}

/// The rows of all buckets, which repeat those of a world.
fn rows(world: &World) -> Vec<RankRow> {
    world.rows.iter().copied().cycle().take(BUCKETS).collect()
}

/// The programs, with the tables of a world.
struct Kernel(Datapath, StateMap);

impl Kernel {
    fn new(world: &World) -> Self {
        let mut desired = DesiredState::of(&world.state, rows(world));
        let banned = [BANNED.into(), BANNED6].map(|address: Be128| number(address));
        let root = desired.allowed.add(&all_but(&banned, 0, 0));
        for vip in &mut desired.vips {
            vip.services[0].allowed = root;
        }
        let (datapath, mut state) =
            Datapath::load(None, &desired).expect("the kernel takes the programs");
        for (index, node) in world.state.backends() {
            state.set_mac(index, node.mac).expect("the map is writable");
            if !node.source.is_unknown() {
                state
                    .set_source(index, node.source)
                    .expect("the map is writable");
            }
        }
        let mut kernel = Self(datapath, state);
        kernel.follow(world);
        kernel
    }

    /// Health and ownership as in the world, whose clock is another one.
    fn follow(&mut self, world: &World) {
        let ahead = clock::now().0.wrapping_sub(NOW.0);
        self.1
            .update(|state| {
                state.masks = world.state.masks;
                state.resets_until = BootNanos(world.state.resets_until.0.saturating_add(ahead));
                for (vip, wanted) in zip(&mut state.vips, world.state.vips) {
                    let root = vip.services[0].allowed;
                    *vip = wanted;
                    vip.services[0].allowed = root;
                    if lease_stands(vip.answer_until, NOW) {
                        vip.answer_until.0 += ahead;
                    }
                }
                state.config.maps_ports = world.state.config.maps_ports;
            })
            .expect("the map is writable");
    }

    /// Runs the program on the way in that is a classifier: its action, and the frame afterwards.
    fn run_classifier(&mut self, frame: &[u8]) -> (Action, Vec<u8>) {
        let (result, out) = self.classify(TC_INGRESS, frame);
        let action = match result {
            u32::MAX => Action::Pass,
            2 => Action::Drop,
            7 => Action::Transmit,
            other => panic!("tc action {other}"),
        };
        (action, out)
    }

    /// Runs a classifier: what it returns, and the frame afterwards.
    fn classify(&mut self, name: &'static str, frame: &[u8]) -> (u32, Vec<u8>) {
        test_run(self.0.classifier(name).expect("loaded"), frame)
    }

    /// Runs the XDP program: its action, and the frame afterwards.
    fn run(&mut self, frame: &[u8]) -> (Action, Vec<u8>) {
        let (result, out) = test_run(self.0.ingress().expect("loaded"), frame);
        let action = match result {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Transmit,
            other => panic!("XDP action {other}"),
        };
        (action, out)
    }

    fn count(&self, counter: Counter) -> u64 {
        self.0.counter(counter).expect("the map is readable")
    }
}

/// What a program returns for a frame, and the frame afterwards.
fn test_run<P>(program: &P, frame: &[u8]) -> (u32, Vec<u8>)
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    let mut out = vec![0; frame.len() + 256];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..TestRunOptions::new()
    };
    let result = program.test_run(options).expect("BPF_PROG_TEST_RUN runs");
    out.truncate(result.data_size_out as usize);
    (result.return_value, out)
}

fn number(address: Be128) -> u128 {
    u128::from_be_bytes(address.to_wire())
}

/// An allow list of all addresses that begin with `bits` bits as `prefix` does, but for some.
fn all_but(some: &[u128], prefix: u128, bits: u32) -> Vec<Prefix> {
    let inside = |address: &u128| {
        let differ = address ^ prefix;
        differ.checked_shr(128 - bits).unwrap_or(0) == 0
    };
    if !some.iter().any(inside) {
        return vec![Prefix::new(prefix, bits)];
    }
    if bits == 128 {
        return vec![];
    }
    let one = prefix | 1 << (127 - bits);
    [
        all_but(some, prefix, bits + 1),
        all_but(some, one, bits + 1),
    ]
    .concat()
}

/// Whether the kernel makes a socket buffer of a frame for `BPF_PROG_TEST_RUN`, which it does
/// not if it ends before the network header does (net/bpf/test_run.c).
fn is_buffered(frame: &[u8]) -> bool {
    let network = match frame.get(12..14) {
        Some([0x08, 0x00]) => ipv4::LENGTH,
        Some([0x86, 0xdd]) => ipv6::LENGTH,
        _ => 1,
    };
    frame.len() >= ethernet::LENGTH + network
}

/// Runs the frame through host logic and both programs, and wants the same action, frame and
/// count.
///
/// The kernel follows the world before each frame, because leases last for 5 s of its clock, and a
/// busy machine may need longer for the frames of one test.
#[track_caller]
fn agree(kernel: &mut Kernel, world: &World, frame: &[u8], what: &str) -> Verdict {
    kernel.follow(world);
    let mut expected = frame.to_vec();
    let (verdict, action) = world.run(&mut expected);
    let counter = verdict.counter();
    let before = kernel.count(counter);
    let mut runs = vec![("XDP", kernel.run(frame))];
    if is_buffered(frame) {
        runs.push(("tc", kernel.run_classifier(frame)));
    }
    let counted = runs.len() as u64 * u64::from(counter != Counter::Untouched);
    for (how, (found, out)) in runs {
        assert_eq!(found, action, "{what}, {how}: {verdict:?} of {frame:02x?}");
        assert_eq!(out, expected, "{what}, {how}: {verdict:?} of {frame:02x?}");
    }
    assert_eq!(
        kernel.count(counter),
        before + counted,
        "{what}: counted as {counter:?}"
    );
    verdict
}

/// What frames of a node come from where something rewrites that.
const REWRITTEN: Mac = Mac::from_wire([2, 7, 7, 7, 7, 7]);

/// Somebody who is no node.
const STRANGER: Mac = Mac::from_wire([2, 9, 9, 9, 9, 9]);

/// A gratuitous ARP request: this address has the VIP.
fn announcement(mac: Mac) -> Vec<u8> {
    let packet = arp::Packet::new(arp::operation::REQUEST, (mac, VIP), (Mac::default(), VIP));
    arp_frame(Mac::BROADCAST, mac, packet)
}

#[test]
fn the_verifier_is_far_from_giving_up() {
    in_namespace(|| {
        let mut kernel = Kernel::new(&World::new(3, 0));
        let ingress = kernel.0.ingress().expect("loaded").info();
        let tc = kernel.0.classifier(TC_INGRESS).expect("loaded").info();
        let egress = kernel.0.classifier(EGRESS).expect("loaded").info();
        for info in [ingress, tc, egress] {
            let info = info.expect("the kernel tells");
            let name = info.name_as_str().expect("a name").to_owned();
            let Some(count) = info.verified_instruction_count() else {
                println!("{name}: within the kernel's limit; Linux before 5.16 tells no number");
                continue;
            };
            println!("{name}: {count} instructions verified");
            // The limit is a million. Other kernels' verifiers may look twice as long.
            assert!(count < 400_000, "{name}: {count} instructions verified");
        }
    });
}

/// A segment of a flow whose first rank is `first`.
fn to(world: &World, first: usize, flags: u8) -> Segment {
    Segment::new(0, 0, flags).first_at(world, first)
}

/// Segments, each for both families.
fn segments(world: &World) -> Vec<(&'static str, Segment)> {
    let to = |first, flags| to(world, first, flags);
    let from_peer = Segment {
        from: node_mac(2),
        ttl: 34,
        ..to(2, tcp::ACK)
    };
    let rewritten = Segment {
        from: REWRITTEN,
        ..from_peer
    };
    vec![
        ("SYN on", to(1, tcp::SYN)),
        ("data on", to(1, tcp::ACK)),
        ("from_peer on", from_peer),
        (
            "from_peer, last",
            Segment {
                from: node_mac(2),
                ttl: 34,
                ..to(1, tcp::ACK)
            },
        ),
        ("its source was learned", rewritten),
        (
            "its source is unknown",
            Segment {
                from: STRANGER,
                ..from_peer
            },
        ),
        (
            "a node's own",
            Segment {
                ttl: 64,
                ..from_peer
            },
        ),
        (
            "one more hop",
            Segment {
                ttl: 32,
                ..from_peer
            },
        ),
        (
            "no more hop",
            Segment {
                ttl: 31,
                ..from_peer
            },
        ),
        (
            "TTL",
            Segment {
                ttl: 1,
                ..from_peer
            },
        ),
        (
            "a client's TTL",
            Segment {
                ttl: 1,
                ..to(1, tcp::ACK)
            },
        ),
        (
            "options",
            Segment {
                options: 6,
                ..to(1, tcp::SYN)
            },
        ),
        (
            "port",
            Segment {
                port: 22,
                ..to(1, tcp::SYN)
            },
        ),
        (
            "other host",
            Segment {
                to: node_mac(1),
                ..to(1, tcp::SYN)
            },
        ),
        (
            "other address",
            Segment {
                destination: CLIENT.into(),
                ..to(1, tcp::SYN)
            },
        ),
    ]
}

/// Frames of those segments, and others that end at each check of the programs.
fn frames(world: &World) -> Vec<(&'static str, Vec<u8>)> {
    let to = |first, flags| to(world, first, flags);
    let good = to(1, tcp::SYN).build();
    let with = |place: usize, value: u8| {
        let mut frame = good.clone();
        frame[place] = value;
        frame
    };
    let mut frames: Vec<(&'static str, Vec<u8>)> = segments(world)
        .iter()
        .flat_map(|(what, segment)| {
            let ipv6 = segment.ipv6();
            [(*what, segment.build()), (*what, ipv6.build())]
        })
        .collect();
    let good6 = to(1, tcp::SYN).ipv6().build();
    let with6 = |place: usize, value: u8| {
        let mut frame = good6.clone();
        frame[place] = value;
        frame
    };
    let answer = Segment {
        source: VIP.into(),
        destination: CLIENT.into(),
        source_port: PORT,
        port: to(1, tcp::ACK).source_port,
        ..to(1, tcp::ACK)
    };
    let claim6 = |mac: Mac| {
        let all = ipv6::ALL_NODES;
        let message = ndp::Advertisement::new(VIP6, mac, 0x20, node_address6(1), all);
        let to = (ndp::group_mac(all), all);
        ndp_frame((mac, node_address6(1)), to, bytemuck::bytes_of(&message))
    };
    frames.extend([
        ("UDP", with(23, 17)),
        ("UDP by IPv6", with6(20, 17)),
        ("ICMP", with(23, 1)),
        ("ICMPv6", with6(20, 58)),
        ("ICMP error", answer.quoted_by_router(0, 3)),
        ("ICMPv6 error", answer.ipv6().quoted_by_router(0, 2)),
        ("fragment", with(20, 0x20)),
        ("padding", [&good[..], &[0; 20]].concat()),
        ("broadcast", [&[0xff; 6], &good[6..]].concat()),
        ("ARP of IEEE 802", {
            let mut frame = arp_request(VIP);
            frame[15] = 6;
            frame
        }),
        ("atomic fragment of IPv6", {
            let options = 1;
            let mut frame = Segment {
                options,
                ..to(1, tcp::SYN).ipv6()
            }
            .build();
            frame[20] = 44;
            frame[54..62].copy_from_slice(&[6, 0, 0, 0, 1, 2, 3, 4]);
            frame
        }),
        ("fragment of IPv6", with6(20, 44)),
        ("malformed", with(14, 0x44)),
        ("malformed IPv6", with6(14, 0x45)),
        ("short", good[..30].to_vec()),
        ("short IPv6", good6[..50].to_vec()),
        ("TCP short", good[..53].to_vec()),
        ("TCP short by IPv6", good6[..73].to_vec()),
        ("another EtherType", with(12, 0x88)),
        ("ARP, not the owner", arp_request(VIP)),
        ("ARP for a node", arp_request(node_address(0))),
        ("announcement", announcement(node_mac(1))),
        ("claim", announcement(STRANGER)),
        ("NDP, not the owner", solicitation(VIP6, false)),
        ("NDP for a node", solicitation(node_address6(0), false)),
        ("announcement by NDP", claim6(node_mac(1))),
        ("claim by NDP", claim6(STRANGER)),
    ]);
    frames
}

#[test]
fn every_verdict_is_the_same_in_the_kernel() {
    in_namespace(|| {
        let world = World::new(3, 0).knowing_source(2, REWRITTEN);
        let mut kernel = Kernel::new(&world);
        let mut seen = std::collections::HashSet::new();
        for (what, frame) in frames(&world) {
            let untagged = agree(&mut kernel, &world, &frame, what);
            seen.insert(untagged.counter());
            // In tags of VLAN 0 it is the same, of another one nothing.
            let once = tagged(&frame, 0x8100, 0x6000);
            let twice = tagged(&once, 0x88a8, 0);
            let about_vip = untagged != Verdict::UNTOUCHED
                && ![Counter::Short, Counter::ArpPassed, Counter::NdpPassed]
                    .contains(&untagged.counter());
            for with in [once, twice] {
                let verdict = agree(&mut kernel, &world, &with, &format!("{what}, tagged"));
                if about_vip {
                    assert_eq!(verdict, untagged, "{what}, tagged");
                }
            }
            let other = agree(&mut kernel, &world, &tagged(&frame, 0x8100, 7), what);
            assert_eq!(other, Verdict::UNTOUCHED, "{what}, of another VLAN");
        }
        assert!(
            seen.len() >= 18,
            "the table reaches most verdicts: {seen:?}"
        );

        assert_eq!(kernel.0.claimant().expect("the map is readable"), STRANGER);

        // A lease that no agent sets.
        let mut for_ever = world.clone();
        for vip in &mut for_ever.state.vips[..2] {
            vip.answer_until = BootNanos(u64::MAX);
        }
        for frame in [arp_request(VIP), solicitation(VIP6, false)] {
            let verdict = agree(&mut kernel, &for_ever, &frame, "a lease for ever");
            assert_eq!(verdict.kind(), Kind::Drop);
        }

        let owner = world.owning(true);
        for frame in [arp_request(VIP), tagged(&arp_request(VIP), 0x8100, 0)] {
            let verdict = agree(&mut kernel, &owner, &frame, "ARP, the owner");
            assert_eq!(verdict, Verdict::answer_arp());
        }
        for free in [false, true] {
            let frame = solicitation(VIP6, free);
            for frame in [tagged(&frame, 0x88a8, 0x2000), frame] {
                let verdict = agree(&mut kernel, &owner, &frame, "NDP, the owner");
                assert_eq!(verdict, Verdict::answer_ndp());
            }
        }
    });
}

#[test]
fn masks_choose_the_next_rank() {
    in_namespace(|| {
        let mut world = World::new(5, 0);
        let mut kernel = Kernel::new(&world);
        for alive in 0..32_usize {
            for ready in 0..32_usize {
                for node in 0..5 {
                    world.state.masks.alive = world
                        .state
                        .masks
                        .alive
                        .with(backend(node), alive >> node & 1 == 1);
                    let mask = &mut world.state.masks.new_connections[0];
                    *mask = mask.with(backend(node), ready >> node & 1 == 1);
                }
                for flags in [tcp::SYN, tcp::ACK] {
                    let segment = Segment::new(0, (alive * 32 + ready) as u16 + 1024, flags);
                    for segment in [segment, segment.ipv6()] {
                        agree(&mut kernel, &world, &segment.build(), "masks");
                    }
                }
            }
        }
    });
}

#[test]
fn a_full_table_of_backends_is_walked_to_its_end() {
    in_namespace(|| {
        let mut world = World::new(MAX_BACKENDS, 0);
        for node in 1..MAX_BACKENDS - 1 {
            world.state.masks.alive = world.state.masks.alive.with(backend(node), false);
        }
        let mut kernel = Kernel::new(&world);
        let segment = Segment::new(0, 0, tcp::ACK).first_at(&world, 1);
        let verdict = agree(&mut kernel, &world, &segment.build(), "far");
        assert!(
            verdict.kind() == Kind::Forward && verdict.backend() as usize == MAX_BACKENDS - 1,
            "{verdict:?}"
        );
    });
}

#[test]
fn a_service_with_another_port_is_the_same_in_the_kernel() {
    in_namespace(|| {
        let _listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("a free port");
        let mut world = World::new(3, 0).mapping(443, PORT);
        world.socket = Socket::Listener;
        let mut kernel = Kernel::new(&world);
        let syn = Segment {
            port: 443,
            ..Segment::new(0, 0, tcp::SYN)
        };
        for syn in [syn, syn.ipv6()] {
            for first in 0..3 {
                let syn = syn.first_at(&world, first);
                let verdict = agree(&mut kernel, &world, &syn.build(), "SYN");
                assert_eq!(verdict.kind() == Kind::Local, first == 0, "{verdict:?}");
            }
            let back = Segment {
                to: CLIENT_MAC,
                from: node_mac(0),
                source: syn.destination,
                destination: syn.source,
                source_port: PORT,
                port: 40_000,
                flags: tcp::ACK,
                ..syn
            };
            guard_agrees(&mut kernel, &world, &back.build());
        }
    });
}

#[test]
fn a_source_may_open_so_many_connections_and_no_more() {
    in_namespace(|| {
        let mut world = World::new(3, 0).refusing(flag::SYN_LIMIT);
        for vip in &mut world.state.vips[..2] {
            vip.services[0].syn_rate = 2;
        }
        let mut kernel = Kernel::new(&world);
        let syn = Segment::new(0, 1, tcp::SYN).first_at(&world, 1);
        for syn in [syn, syn.ipv6()] {
            let mut sent = [0; 2];
            for _ in 0..6 {
                let (action, _) = kernel.run(&syn.build());
                sent[usize::from(action == Action::Drop)] += 1;
            }
            assert_eq!(sent, [2, 4]);
            let data = Segment {
                flags: tcp::ACK,
                ..syn
            };
            assert_ne!(kernel.run(&data.build()).0, Action::Drop, "it is open");
        }
        assert_eq!(kernel.count(Counter::SynLimited), 8);
    });
}

#[test]
fn ten_thousand_random_frames_get_the_same_verdict_in_the_kernel() {
    in_namespace(|| {
        let _listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("a free port");
        let mut random = Random(0x5eed);
        let mut world = World {
            socket: Socket::Listener,
            ..World::new(3, 0)
        };
        let mut kernel = Kernel::new(&world);
        let mut seen = std::collections::HashSet::new();
        for round in 0..10_000 {
            if round % 20 == 0 {
                world = world.owning(random.below(2) == 0);
                world = world.refusing(random.pick(&[0, flag::ALLOW_LIST]));
                for node in 0..3 {
                    let seen = [Seen::Suspect, Seen::Away, Seen::Gone];
                    let seen = if random.below(4) != 0 {
                        Seen::Up
                    } else {
                        random.pick(&seen)
                    };
                    world = world.seeing(node, seen);
                    let ready = random.below(4) != 0;
                    let mask = &mut world.state.masks.new_connections[0];
                    *mask = mask.with(backend(node), ready);
                }
            }
            let frame = random.frame(3, 0, false);
            let verdict = agree(&mut kernel, &world, &frame, &format!("frame {round}"));
            seen.insert(verdict.counter());
        }
        assert!(seen.len() >= 22, "the frames reach most verdicts: {seen:?}");
    });
}

#[test]
fn the_guard_is_the_same_in_the_kernel() {
    in_namespace(|| {
        let mut world = World::new(3, 0);
        let mut kernel = Kernel::new(&world);
        let request = |sender, target| {
            let sender = (node_mac(0), sender);
            let packet = arp::Packet::new(
                arp::operation::REQUEST,
                sender,
                (Default::default(), target),
            );
            arp_frame(Mac::BROADCAST, node_mac(0), packet)
        };
        for owner in [false, true] {
            world = world.owning(owner);
            for frame in [
                request(VIP, CLIENT),
                request(VIP, VIP),
                request(node_address(0), CLIENT),
                Segment::new(0, 1, tcp::SYN).build(),
                Segment::new(0, 1, tcp::SYN).ipv6().build(),
                solicitation(CLIENT6, false),
            ] {
                guard_agrees(&mut kernel, &world, &frame);
                // What leaves with a tag in band.
                guard_agrees(&mut kernel, &world, &tagged(&frame, 0x8100, 0x6000));
                guard_agrees(&mut kernel, &world, &tagged(&frame, 0x8100, 7));
            }
        }
        assert_eq!(kernel.count(Counter::GuardRewritten), 4);
        assert_eq!(kernel.count(Counter::GuardDropped), 2);
    });
}

/// Runs the frame through both guards, and wants the same verdict and frame. The kernel follows the
/// world, as in [`agree`].
#[track_caller]
fn guard_agrees(kernel: &mut Kernel, world: &World, frame: &[u8]) -> egress::Verdict {
    kernel.follow(world);
    let mut expected = frame.to_vec();
    assert!(untag(&mut expected, world), "the tag is there");
    let verdict = egress::decide(&expected, world);
    let action = egress::apply(verdict, &mut expected, world);
    let (result, out) = kernel.classify(EGRESS, frame);
    let found = match result {
        u32::MAX => egress::Action::Leave,
        2 => egress::Action::Drop,
        7 => egress::Action::ComeIn,
        other => panic!("tc action {other}"),
    };
    assert_eq!(found, action, "{verdict:?}");
    assert_eq!(out, expected, "{verdict:?}");
    verdict
}

#[test]
fn a_segment_to_a_member_that_is_gone_is_answered_by_a_reset_in_the_kernel() {
    in_namespace(|| {
        let mut world = World::new(3, 0);
        let mut kernel = Kernel::new(&world);
        let to = |node: usize, flags| Segment {
            to: node_mac(node),
            from: node_mac(0),
            source: node_address(0).into(),
            destination: node_address(node).into(),
            ..Segment::new(0, 40_000, flags)
        };
        let in_the_name_of = |node: usize| Segment {
            to: node_mac(0),
            from: node_mac(0),
            source: node_address(node).into(),
            destination: node_address(0).into(),
            ..Segment::new(0, 40_000, tcp::ACK)
        };
        let mapped = [false, true];
        let states = [Seen::Up, Seen::Suspect, Seen::Away, Seen::Gone];
        for (mapped, seen) in mapped.iter().flat_map(|m| states.map(|seen| (*m, seen))) {
            world = world.seeing(1, seen);
            if mapped {
                world = world.mapping(443, PORT);
            }
            let before = kernel.count(Counter::GoneReset);
            for node in [1, 2] {
                let mut frames = Vec::new();
                for flags in [tcp::ACK, tcp::SYN, tcp::RST | tcp::ACK] {
                    for segment in [to(node, flags), to(node, flags).ipv6()] {
                        frames.extend([0, 1, 1400].map(|data| {
                            let mut frame = segment.build();
                            frame.resize(frame.len() + data, 0x17);
                            (frame, flags == tcp::ACK, egress::Kind::Reset)
                        }));
                    }
                }
                let own = in_the_name_of(node);
                let own = [own, own.ipv6()];
                frames.extend(own.map(|own| (own.build(), true, egress::Kind::Return)));
                for (frame, about, kind) in frames {
                    let verdict = guard_agrees(&mut kernel, &world, &frame);
                    let expected = if about && node == 1 && seen == Seen::Gone {
                        kind
                    } else {
                        egress::Kind::Pass
                    };
                    assert_eq!(verdict.kind(), expected, "{seen:?}");
                }
            }
            let counted = kernel.count(Counter::GoneReset) - before;
            assert_eq!(counted, if seen == Seen::Gone { 6 } else { 0 });
        }
        // The agent does not say any more that it is gone.
        world.state.resets_until = NOW;
        let verdict = guard_agrees(&mut kernel, &world, &to(1, tcp::ACK).build());
        assert_eq!(verdict.kind(), egress::Kind::Pass);
    });
}

#[test]
fn nothing_is_reset_before_anybody_has_written_who_lives() {
    in_namespace(|| {
        let world = World::new(3, 0);
        let desired = DesiredState::of(&world.state, rows(&world));
        let (datapath, state) = Datapath::load(None, &desired).expect("the kernel takes them");
        let mut kernel = Kernel(datapath, state);
        for segment in [
            Segment::new(0, 1, tcp::ACK),
            Segment::new(0, 1, tcp::ACK).ipv6(),
        ] {
            let frame = segment.build();
            assert_eq!(kernel.run(&frame).0, Action::Drop);
            assert_eq!(kernel.run_classifier(&frame).0, Action::Drop);
        }
        assert_eq!(kernel.count(Counter::Joining), 4);
    });
}

#[test]
fn frames_to_a_bonds_ports_are_its_own_in_the_kernel() {
    in_namespace(|| {
        let port = Mac::from_wire([0x02, 0, 0x0a, 0, 1, 0x0b]);
        for known in [false, true] {
            let mut world = World::new(3, 0).owning(true);
            if known {
                world.state.config.port_macs[1] = port;
            }
            let mut kernel = Kernel::new(&world);
            let segment = Segment::new(0, 0, tcp::ACK).first_at(&world, 1);
            for frame in [
                segment.build(),
                segment.ipv6().first_at(&world, 1).build(),
                arp_request(VIP),
            ] {
                let mut frame = frame;
                frame[..6].copy_from_slice(&port.to_wire());
                let verdict = agree(&mut kernel, &world, &frame, "to a port");
                let other = verdict.counter() == Counter::OtherHost;
                assert_eq!(other, !known, "{verdict:?}");
                // An address that is not known is nobody's.
                frame[..6].fill(0);
                let verdict = agree(&mut kernel, &world, &frame, "to nobody");
                assert_eq!(verdict.counter(), Counter::OtherHost, "{verdict:?}");
            }
        }
    });
}

#[test]
fn what_big_tcp_put_together_is_no_contradiction() {
    in_namespace(|| {
        // Such frames came with Linux 5.19; what has no frames in several buffers has none, and
        // gives a program a page at most to run on.
        if !Features::probe().expect("the kernel takes them").frags {
            println!("not run: this kernel builds no such frames");
            return;
        }
        let world = World::new(3, 0);
        let mut kernel = Kernel::new(&world);
        let segment = Segment::new(0, 0, tcp::ACK).first_at(&world, 1);
        for (segment, length) in [(segment, 16), (segment.ipv6().first_at(&world, 1), 18)] {
            // As much as a frame in several buffers may have, and more than a length can say.
            let mut frame = segment.build();
            frame.resize(66_000, 0);
            frame[length..length + 2].fill(0);
            let mut expected = frame.clone();
            let (verdict, action) = world.run(&mut expected);
            assert_eq!((verdict.kind(), action), (Kind::Forward, Action::Transmit));
            let (found, out) = kernel.run(&frame);
            assert_eq!(found, action);
            assert!(out == expected, "it is another frame");
        }
    });
}

#[test]
fn a_node_that_gets_a_slot_is_counted_from_0_and_the_sums_go_on() {
    in_namespace(|| {
        let world = World::new(3, 0);
        let mut kernel = Kernel::new(&world);
        let send = |kernel: &mut Kernel, flags, times| {
            let frame = Segment::new(0, 0, flags).first_at(&world, 1).build();
            for _ in 0..times {
                assert_eq!(kernel.run(&frame).0, Action::Transmit);
            }
        };
        send(&mut kernel, tcp::SYN, 2);
        send(&mut kernel, tcp::ACK, 3);
        let of_slot = |kernel: &Kernel| {
            let counters = kernel.0.backend_counters(backend(1));
            let counters = counters.expect("the map is readable");
            (counters.syns, counters.segments, counters.bytes > 0)
        };
        let sums = |kernel: &Kernel| {
            [Counter::ForwardedSyn, Counter::ForwardedSegment].map(|counter| kernel.count(counter))
        };
        assert_eq!((of_slot(&kernel), sums(&kernel)), ((2, 3, true), [2, 3]));
        for round in 1..3 {
            let restarted = kernel.0.restart_backend(backend(1));
            restarted.expect("the maps are writable");
            assert_eq!(of_slot(&kernel), (0, 0, false));
            assert_eq!(sums(&kernel), [1 + round, 3]);
            send(&mut kernel, tcp::SYN, 1);
            assert_eq!(of_slot(&kernel), (1, 0, true));
        }
    });
}
