//! The real programs in the real kernel, against the packet logic on the host: each verdict
//! through `BPF_PROG_TEST_RUN`, with real sockets behind `bpf_skc_lookup_tcp`.
//!
//! Each test runs on a thread with a network namespace of its own, which holds the VIP and
//! nothing else.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;

use aya::programs::{TestRun as _, TestRunOptions};
use nix::sched::{CloneFlags, unshare};
use vip_common::guard;
use vip_common::layout::{Counter, MAX_BACKENDS, Mac};
use vip_common::node::Socket;
use vip_common::steer::{Action, Kind, Verdict};
use vip_common::testing::{
    CLIENT, PORT, Random, Segment, VIP, World, arp_frame, arp_request, backend, node_address,
    node_mac,
};
use vip_common::wire::{arp, tcp};
use vip_userspace::datapath::{Datapath, Plan, StateMap};

/// Runs `test` in an empty network namespace with the VIP on `lo`.
fn in_namespace(test: fn()) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "programs are loaded into the kernel: run as root (`cargo xtask test`)"
    );
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may unshare");
        ip(&["link", "set", "lo", "up"]);
        ip(&[
            "address",
            "add",
            &format!("{}/32", Ipv4Addr::from(VIP)),
            "dev",
            "lo",
        ]);
        ip(&[
            "address",
            "add",
            &format!("{}/32", Ipv4Addr::from(CLIENT)),
            "dev",
            "lo",
        ]);
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

/// The programs, with the tables of a world.
struct Kernel(Datapath, StateMap);

impl Kernel {
    fn new(world: &World) -> Self {
        let plan = Plan::of(&world.state, world.rows.clone());
        let (datapath, mut state) =
            Datapath::load(None, &plan, 0).expect("the kernel takes the programs");
        for (index, node) in world.state.backends().iter().enumerate() {
            state
                .set_mac(backend(index), node.mac)
                .expect("the map is writable");
        }
        let mut kernel = Self(datapath, state);
        kernel.follow(world);
        kernel
    }

    /// Health and ownership as in the world.
    fn follow(&mut self, world: &World) {
        let until = world.state.vips[0].owner_until;
        self.1
            .set_masks(world.state.masks)
            .expect("the map is writable");
        self.1.set_fence(0, until).expect("the map is writable");
    }

    /// Runs the program on the way in: its action, and the frame afterwards.
    fn run(&mut self, frame: &[u8]) -> (Action, Vec<u8>) {
        let mut out = vec![0; frame.len() + 256];
        let result = self
            .0
            .ingress()
            .expect("loaded")
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ..TestRunOptions::new()
            })
            .expect("BPF_PROG_TEST_RUN runs");
        out.truncate(result.data_size_out as usize);
        let action = match result.return_value {
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

/// Runs the frame through both, and wants the same action, frame and count.
#[track_caller]
fn agree(kernel: &mut Kernel, world: &World, frame: &[u8], what: &str) -> Verdict {
    let mut expected = frame.to_vec();
    let (verdict, action) = world.run(&mut expected);
    let counter = verdict.counter();
    let before = kernel.count(counter);
    let (found, out) = kernel.run(frame);
    assert_eq!(found, action, "{what}: {verdict:?} of {frame:02x?}");
    assert_eq!(out, expected, "{what}: {verdict:?} of {frame:02x?}");
    let counted = u64::from(counter != Counter::Untouched);
    assert_eq!(
        kernel.count(counter),
        before + counted,
        "{what}: counted as {counter:?}"
    );
    verdict
}

/// Somebody who is no node.
const STRANGER: Mac = Mac::from_wire([2, 9, 9, 9, 9, 9]);

/// A gratuitous ARP request: this address has the VIP.
fn announcement(mac: Mac) -> Vec<u8> {
    let packet = arp::Packet::new(arp::operation::REQUEST, (mac, VIP), (Mac::default(), VIP));
    arp_frame(Mac::BROADCAST, mac, packet)
}

#[test]
fn every_verdict_is_the_same_in_the_kernel() {
    in_namespace(|| {
        let world = World::new(3, 0);
        let mut kernel = Kernel::new(&world);
        let to = |first, flags| Segment::new(0, 0, flags).first_at(&world, first);
        let good = to(1, tcp::SYN).build();
        let with = |place: usize, value: u8| {
            let mut frame = good.clone();
            frame[place] = value;
            frame
        };
        let chained = Segment {
            from: node_mac(2),
            ..to(2, tcp::ACK)
        };
        let frames = [
            ("SYN on", good.clone()),
            ("data on", to(1, tcp::ACK).build()),
            ("chained on", chained.build()),
            (
                "chained, last",
                Segment {
                    from: node_mac(2),
                    ..to(1, tcp::ACK)
                }
                .build(),
            ),
            ("TTL", Segment { ttl: 1, ..chained }.build()),
            (
                "options",
                Segment {
                    options: 10,
                    ..to(1, tcp::SYN)
                }
                .build(),
            ),
            (
                "port",
                Segment {
                    port: 22,
                    ..to(1, tcp::SYN)
                }
                .build(),
            ),
            (
                "other host",
                Segment {
                    to: node_mac(1),
                    ..to(1, tcp::SYN)
                }
                .build(),
            ),
            (
                "other address",
                Segment {
                    destination: CLIENT,
                    ..to(1, tcp::SYN)
                }
                .build(),
            ),
            ("UDP", with(23, 17)),
            ("ICMP", with(23, 1)),
            ("fragment", with(20, 0x20)),
            ("malformed", with(14, 0x44)),
            ("short", good[..30].to_vec()),
            ("TCP short", good[..53].to_vec()),
            ("another EtherType", with(12, 0x86)),
            ("ARP, not the owner", arp_request(VIP)),
            ("ARP for a node", arp_request(node_address(0))),
            ("announcement", announcement(node_mac(1))),
            ("claim", announcement(STRANGER)),
        ];
        let mut seen = std::collections::HashSet::new();
        for (what, frame) in frames {
            seen.insert(agree(&mut kernel, &world, &frame, what).counter());
        }
        assert!(
            seen.len() >= 15,
            "the table reaches most verdicts: {seen:?}"
        );

        assert_eq!(kernel.0.claimant().expect("the map is readable"), STRANGER);

        let owner = world.owning(true);
        kernel.follow(&owner);
        let verdict = agree(&mut kernel, &owner, &arp_request(VIP), "ARP, the owner");
        assert_eq!(verdict, Verdict::answer_arp());
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
                    world.state.masks.ready = world
                        .state
                        .masks
                        .ready
                        .with(backend(node), ready >> node & 1 == 1);
                }
                kernel.follow(&world);
                for flags in [tcp::SYN, tcp::ACK] {
                    let segment = Segment::new(0, (alive * 32 + ready) as u16 + 1024, flags);
                    agree(&mut kernel, &world, &segment.build(), "masks");
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
fn sockets_are_those_of_the_kernel() {
    in_namespace(|| {
        let vip = Ipv4Addr::from(VIP);
        let mut world = World::new(3, 0);
        let mut kernel = Kernel::new(&world);
        let mine = |flags| {
            Segment::new(0, 0, flags)
                .first_at(&World::new(3, 0), 0)
                .build()
        };

        world.socket = Socket::None;
        let verdict = agree(&mut kernel, &world, &mine(tcp::SYN), "no listener");
        assert!(verdict.kind() == Kind::Forward, "goes on: {verdict:?}");

        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("a free port");
        world.socket = Socket::Listener;
        let verdict = agree(&mut kernel, &world, &mine(tcp::SYN), "listener");
        assert!(
            verdict.kind() == Kind::Local && verdict.counter() == Counter::LocalSyn,
            "{verdict:?}"
        );
        let verdict = agree(
            &mut kernel,
            &world,
            &mine(tcp::ACK),
            "ACK without a connection",
        );
        assert!(verdict.kind() == Kind::Forward, "goes on: {verdict:?}");

        // A real connection from the client's address: its segments are kept, SYNs included.
        let client = (0..64)
            .map(|_| TcpStream::connect((vip, PORT)).expect("the listener accepts"))
            .find(|stream| first_rank_is(&World::new(3, 0), stream, 0))
            .expect("one of 64 flows has this node first");
        let (server, peer) = accepted(&listener, &client);
        let source = local_address(&client).into();
        let segment = |flags| Segment {
            source,
            ..Segment::new(0, peer, flags)
        };
        world.socket = Socket::Connection;
        let verdict = agree(
            &mut kernel,
            &world,
            &segment(tcp::ACK).build(),
            "connection",
        );
        assert!(
            verdict.kind() == Kind::Local && verdict.counter() == Counter::LocalSegment,
            "{verdict:?}"
        );
        agree(
            &mut kernel,
            &world,
            &segment(tcp::SYN).build(),
            "SYN for a connection",
        );

        // The server closes first. What is left keeps a FIN and a new connection, no more.
        drop(server);
        drop(client);
        world.socket = Socket::TimeWait;
        world.listens = true;
        for (flags, kind) in [
            (tcp::ACK | tcp::FIN, Kind::Local),
            (tcp::SYN, Kind::Local),
            (tcp::ACK, Kind::Forward),
        ] {
            let frame = segment(flags).build();
            let verdict = agree(&mut kernel, &world, &frame, "time-wait");
            assert_eq!(verdict.kind(), kind, "{verdict:?}");
        }

        // The server is gone: the next SYN goes to another node at once.
        drop(listener);
        world.listens = false;
        let frame = segment(tcp::SYN).build();
        let verdict = agree(&mut kernel, &world, &frame, "time-wait, crashed");
        assert!(verdict.kind() == Kind::Forward, "{verdict:?}");
        world.socket = Socket::None;
        let verdict = agree(&mut kernel, &world, &mine(tcp::SYN), "crashed");
        assert!(
            verdict.kind() == Kind::Forward && verdict.opens(),
            "{verdict:?}"
        );
    });
}

fn local_address(stream: &TcpStream) -> Ipv4Addr {
    match stream.local_addr().expect("connected").ip() {
        std::net::IpAddr::V4(address) => address,
        std::net::IpAddr::V6(address) => panic!("{address}"),
    }
}

fn first_rank_is(world: &World, stream: &TcpStream, node: usize) -> bool {
    let port = stream.local_addr().expect("connected").port();
    let segment = Segment {
        source: local_address(stream).into(),
        ..Segment::new(0, port, tcp::ACK)
    };
    world.rows[segment.bucket(world)].first().get() == node
}

/// The server's end of a connection, and the client's port.
fn accepted(listener: &TcpListener, client: &TcpStream) -> (TcpStream, u16) {
    let wanted = client.local_addr().expect("connected");
    loop {
        let (stream, peer) = listener.accept().expect("a connection waits");
        if peer == wanted {
            return (stream, peer.port());
        }
    }
}

#[test]
fn syn_cookies_are_known_to_the_node_that_gave_them() {
    in_namespace(|| {
        // Cookies for every SYN, and a raw client that never lets the kernel answer for it.
        std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").expect("own namespace");
        let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("a free port");
        let world = World {
            socket: Socket::Cookie,
            ..World::new(3, 0)
        };
        let mut kernel = Kernel::new(&world);
        let template = Segment::new(0, 0, tcp::SYN).first_at(&world, 0);
        let (sequence, acknowledgement) = cookie(&template);
        let mut frame = Segment {
            flags: tcp::ACK,
            ..template
        }
        .build();
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        frame[42..46].copy_from_slice(&acknowledgement.to_be_bytes());
        let verdict = agree(&mut kernel, &world, &frame, "a cookie of ours");
        assert!(
            verdict.kind() == Kind::Local && verdict.counter() == Counter::LocalCookie,
            "{verdict:?}"
        );

        // One that was made up is not ours, and goes on to the next node.
        let other = World {
            socket: Socket::Listener,
            ..world
        };
        frame[42..46].copy_from_slice(&acknowledgement.wrapping_add(1 << 20).to_be_bytes());
        let verdict = agree(&mut kernel, &other, &frame, "somebody else's cookie");
        assert!(verdict.kind() == Kind::Forward, "{verdict:?}");
    });
}

/// Sends a SYN by a raw socket and returns what the client's ACK has to say: its sequence
/// number and the acknowledgement of the cookie.
fn cookie(syn: &Segment) -> (u32, u32) {
    use socket2::{Domain, Protocol, Socket as Raw, Type};
    let raw = Raw::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).expect("root");
    raw.bind(&std::net::SocketAddr::from((Ipv4Addr::from(CLIENT), 0)).into())
        .expect("own address");
    raw.set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .expect("a socket");
    let frame = syn.build();
    let target = std::net::SocketAddr::from((Ipv4Addr::from(VIP), 0));
    raw.send_to(&frame[34..], &target.into()).expect("loopback");
    let mut buffer = [std::mem::MaybeUninit::uninit(); 256];
    loop {
        let (length, _) = raw.recv_from(&mut buffer).expect("an answer within 10 s");
        // SAFETY: the kernel has written `length` bytes.
        let packet: Vec<u8> = buffer[..length]
            .iter()
            .map(|byte| unsafe { byte.assume_init() })
            .collect();
        let tcp = &packet[20..];
        if tcp[13] == tcp::SYN | tcp::ACK && tcp[2..4] == syn.source_port.to_be_bytes() {
            let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four"));
            return (number(8), number(4).wrapping_add(1));
        }
    }
}

#[test]
fn ten_thousand_random_frames_get_the_same_verdict_in_the_kernel() {
    in_namespace(|| {
        let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("a free port");
        let mut random = Random(0x5eed);
        let mut world = World {
            socket: Socket::Listener,
            ..World::new(3, 0)
        };
        let mut kernel = Kernel::new(&world);
        let mut seen = std::collections::HashSet::new();
        for round in 0..10_000 {
            if round % 100 == 0 {
                world = world.owning(random.below(2) == 0);
                for node in 0..3 {
                    let alive = random.below(4) != 0;
                    world.state.masks.alive = world.state.masks.alive.with(backend(node), alive);
                    let ready = random.below(4) != 0;
                    world.state.masks.ready = world.state.masks.ready.with(backend(node), ready);
                }
                kernel.follow(&world);
            }
            let frame = random.frame(3, 0, false);
            let verdict = agree(&mut kernel, &world, &frame, &format!("frame {round}"));
            seen.insert(verdict.counter());
        }
        assert!(seen.len() >= 15, "the frames reach most verdicts: {seen:?}");
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
            kernel.follow(&world);
            for frame in [
                request(VIP, CLIENT),
                request(VIP, VIP),
                request(node_address(0), CLIENT),
                Segment::new(0, 1, tcp::SYN).build(),
            ] {
                let mut expected = frame.clone();
                let verdict = guard::decide(expected.as_slice(), &world);
                if verdict == guard::Verdict::Rewrite {
                    assert!(guard::rewrite(expected.as_mut_slice(), &world));
                }
                let mut out = vec![0; frame.len() + 64];
                let result = kernel
                    .0
                    .egress()
                    .expect("loaded")
                    .test_run(TestRunOptions {
                        data_in: Some(&frame),
                        data_out: Some(&mut out),
                        ..TestRunOptions::new()
                    })
                    .expect("BPF_PROG_TEST_RUN runs");
                out.truncate(result.data_size_out as usize);
                let dropped = result.return_value == 2;
                assert_eq!(dropped, verdict == guard::Verdict::Drop, "{verdict:?}");
                assert_eq!(out, expected, "{verdict:?}");
            }
        }
        assert_eq!(kernel.count(Counter::GuardRewritten), 2);
        assert_eq!(kernel.count(Counter::GuardDropped), 1);
    });
}
