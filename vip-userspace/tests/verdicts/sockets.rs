//! What is decided by the sockets of the node: listeners, connections, what is left of them, and
//! SYN cookies.

use std::net::Shutdown;
use std::num::NonZeroU32;

use super::*;

#[test]
fn sockets_are_those_of_the_kernel() {
    in_namespace(|| sockets_of(|segment| segment, Ipv4Addr::UNSPECIFIED.into()));
}

#[test]
fn sockets_of_ipv6_are_those_of_the_kernel() {
    in_namespace(|| sockets_of(Segment::ipv6, Ipv6Addr::UNSPECIFIED.into()));
}

/// Which segments are kept, as connections to one of the VIPs come and go. `family` makes one of
/// IPv4 into one of that family.
fn sockets_of(family: fn(Segment) -> Segment, any: IpAddr) {
    {
        let template = family(Segment::new(0, 0, 0));
        let vip = IpAddr::from(template.destination);
        let mut world = World::new(3, 0);
        let mut kernel = Kernel::new(&world);
        let mine = |flags| {
            Segment { flags, ..template }
                .first_at(&World::new(3, 0), 0)
                .build()
        };

        world.socket = Socket::None;
        let verdict = agree(&mut kernel, &world, &mine(tcp::SYN), "no listener");
        assert!(verdict.kind() == Kind::Forward, "goes on: {verdict:?}");

        let listener = TcpListener::bind((any, PORT)).expect("a free port");
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
            .find(|stream| first_rank_is(&World::new(3, 0), &template, stream, 0))
            .expect("one of 64 flows has this node first");
        let (server, peer) = accepted(&listener, &client);
        let source = local_address(&client);
        let segment = |flags| Segment {
            source,
            source_port: peer,
            flags,
            ..template
        };
        let segment = |flags| segment(flags).build();
        world.socket = Socket::Connection;
        let verdict = agree(&mut kernel, &world, &segment(tcp::ACK), "connection");
        assert!(
            verdict.kind() == Kind::Local && verdict.counter() == Counter::LocalSegment,
            "{verdict:?}"
        );
        agree(
            &mut kernel,
            &world,
            &segment(tcp::SYN),
            "SYN for a connection",
        );

        // The server closes first. What is left keeps what belongs to it, and a new connection.
        let next = number_of(&client, SEND_QUEUE);
        for end in [&server, &client] {
            end.shutdown(Shutdown::Both).expect("a connection");
        }
        world.listens = true;
        for (flags, number, kind) in [
            (tcp::ACK | tcp::FIN, next, Kind::Local),
            (tcp::ACK, next + 1, Kind::Local),
            (tcp::ACK | tcp::RST, next + 1, Kind::Local),
            (tcp::SYN, next ^ 1 << 31, Kind::Local),
            (tcp::ACK, next ^ 1 << 31, Kind::Forward),
            (tcp::ACK | tcp::FIN, next ^ 1 << 31, Kind::Forward),
        ] {
            world.socket = Socket::TimeWait {
                expects: NonZeroU32::new(next + 1),
            };
            let mut frame = segment(flags);
            let tcp = tcp_offset(&template);
            frame[tcp + 4..tcp + 8].copy_from_slice(&number.to_be_bytes());
            let verdict = agree(&mut kernel, &world, &frame, "time-wait");
            assert_eq!(verdict.kind(), kind, "{verdict:?}");
        }

        // No other node is left: the segment of a new connection becomes the reset that ends what is
        // left of the old one.
        let alone = world.clone().seeing(1, Seen::Gone).seeing(2, Seen::Gone);
        let mut frame = segment(tcp::ACK);
        let tcp = tcp_offset(&template);
        frame[tcp + 4..tcp + 8].copy_from_slice(&(next ^ 1 << 31).to_be_bytes());
        let verdict = agree(&mut kernel, &alone, &frame, "time-wait, nobody else");
        assert_eq!(verdict.kind(), Kind::EndTimeWait, "{verdict:?}");

        // The server is gone: the next SYN goes to another node at once.
        stop_listening(&listener);
        world.listens = false;
        let frame = segment(tcp::SYN);
        let verdict = agree(&mut kernel, &world, &frame, "time-wait, crashed");
        assert!(verdict.kind() == Kind::Forward, "{verdict:?}");
        world.socket = Socket::None;
        let verdict = agree(&mut kernel, &world, &mine(tcp::SYN), "crashed");
        assert!(
            verdict.kind() == Kind::Forward && verdict.opens(),
            "{verdict:?}"
        );
    }
}

#[test]
fn requests_of_connections_to_another_node_do_not_keep_their_segments() {
    in_namespace(|| {
        // The kernel holds requests until the client has sent something.
        let any = Ipv6Addr::UNSPECIFIED;
        let listener = TcpListener::bind((any, PORT)).expect("a free port");
        set_tcp(listener.as_raw_fd(), libc::TCP_DEFER_ACCEPT, 60);
        let world = World::new(3, 0);
        let mut kernel = Kernel::new(&world);
        let ack = Segment::new(0, 0, tcp::ACK);
        for template in [ack, ack.ipv6()] {
            let template = template.first_at(&world, 0);
            let vip = IpAddr::from(template.destination);
            let client = (0..64)
                .map(|_| TcpStream::connect((vip, PORT)).expect("the kernel answers"))
                .find(|stream| first_rank_is(&world, &template, stream, 0))
                .expect("one of 64 flows has this node first");
            let expects = number_of(&client, RECEIVE_QUEUE);
            let world = World {
                socket: Socket::Request {
                    expects: NonZeroU32::new(expects),
                },
                ..world.clone()
            };
            for (flags, acknowledges, kind) in [
                (tcp::ACK, expects, Kind::Local),
                (tcp::ACK, expects.wrapping_add(1), Kind::Forward),
                (tcp::ACK | tcp::RST, expects ^ 1 << 31, Kind::Forward),
                (tcp::RST, 0, Kind::Local),
                (tcp::SYN, 0, Kind::Local),
            ] {
                let mut frame = Segment {
                    source: local_address(&client),
                    source_port: client.local_addr().expect("connected").port(),
                    flags,
                    ..template
                }
                .build();
                let tcp = tcp_offset(&template);
                frame[tcp + 8..tcp + 12].copy_from_slice(&acknowledges.to_be_bytes());
                let verdict = agree(&mut kernel, &world, &frame, "request");
                assert_eq!(verdict.kind(), kind, "{verdict:?}");
            }
        }
    });
}

/// `TCP_RECV_QUEUE`, `TCP_SEND_QUEUE` (include/uapi/linux/tcp.h).
const RECEIVE_QUEUE: libc::c_int = 1;
const SEND_QUEUE: libc::c_int = 2;

/// Sets an option of a TCP socket.
fn set_tcp(socket: std::os::fd::RawFd, option: libc::c_int, value: libc::c_int) {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: reads the value, which is as long as said.
    let result = unsafe {
        libc::setsockopt(
            socket,
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// The number of the next byte that a connection sends or receives, by the interface for
/// checkpoints (`TCP_REPAIR`, include/uapi/linux/tcp.h).
fn number_of(stream: &TcpStream, queue: libc::c_int) -> u32 {
    let set = |option, value| set_tcp(stream.as_raw_fd(), option, value);
    set(libc::TCP_REPAIR, 1);
    set(libc::TCP_REPAIR_QUEUE, queue);
    let mut number = 0_u32;
    let mut length = size_of_val(&number) as libc::socklen_t;
    // SAFETY: writes to the number, which is as long as said.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_QUEUE_SEQ,
            (&raw mut number).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // Without a probe of the window: nothing is to be sent.
    set(libc::TCP_REPAIR, -1);
    number
}

fn local_address(stream: &TcpStream) -> Be128 {
    stream.local_addr().expect("connected").ip().into()
}

fn first_rank_is(world: &World, template: &Segment, stream: &TcpStream, node: usize) -> bool {
    let segment = Segment {
        source: local_address(stream),
        source_port: stream.local_addr().expect("connected").port(),
        ..*template
    };
    world.rows[segment.bucket(world)].first().get() == node
}

/// Ends listening at once. To close the socket is not enough: a child process that another test
/// starts at this moment has it, too, until it executes its program.
fn stop_listening(listener: &TcpListener) {
    socket2::SockRef::from(listener)
        .shutdown(Shutdown::Both)
        .expect("a listener");
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
        let _listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("a free port");
        let world = World {
            socket: Socket::Cookie,
            ..World::new(3, 0)
        };
        let other = World {
            socket: Socket::Listener,
            ..World::new(3, 0)
        };
        let mut kernel = Kernel::new(&world);
        let syn = Segment::new(0, 0, tcp::SYN);
        for template in [syn, syn.ipv6()] {
            let template = template.first_at(&world, 0);
            let (sequence, acknowledgement) = cookie(&template);
            let mut frame = Segment {
                flags: tcp::ACK,
                ..template
            }
            .build();
            let tcp = tcp_offset(&template);
            frame[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
            frame[tcp + 8..tcp + 12].copy_from_slice(&acknowledgement.to_be_bytes());
            let verdict = agree(&mut kernel, &world, &frame, "a cookie of ours");
            assert!(
                verdict.kind() == Kind::Local && verdict.counter() == Counter::LocalCookie,
                "{verdict:?}"
            );

            // One that was made up is not ours, and goes on to the next node.
            let wrong = acknowledgement.wrapping_add(1 << 20);
            frame[tcp + 8..tcp + 12].copy_from_slice(&wrong.to_be_bytes());
            let verdict = agree(&mut kernel, &other, &frame, "somebody else's cookie");
            assert!(verdict.kind() == Kind::Forward, "{verdict:?}");
        }
    });
}

/// Where the TCP header of a segment without options is in its frame.
fn tcp_offset(segment: &Segment) -> usize {
    if segment.source.ipv4().is_some() {
        34
    } else {
        54
    }
}

/// Sends a SYN by a raw socket and returns what the client's ACK has to say: its sequence
/// number and the acknowledgement of the cookie.
fn cookie(syn: &Segment) -> (u32, u32) {
    use socket2::{Domain, Protocol, Socket as Raw, Type};
    let ipv4 = syn.source.ipv4().is_some();
    let domain = if ipv4 { Domain::IPV4 } else { Domain::IPV6 };
    let raw = Raw::new(domain, Type::RAW, Some(Protocol::TCP)).expect("root");
    raw.bind(&SocketAddr::new(syn.source.into(), 0).into())
        .expect("own address");
    raw.set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .expect("a socket");
    let frame = syn.build();
    let target = SocketAddr::new(syn.destination.into(), 0);
    raw.send_to(&frame[tcp_offset(syn)..], &target.into())
        .expect("loopback");
    let mut buffer = [std::mem::MaybeUninit::uninit(); 256];
    loop {
        let (length, _) = raw.recv_from(&mut buffer).expect("an answer within 10 s");
        // SAFETY: the kernel has written `length` bytes.
        let packet: Vec<u8> = buffer[..length]
            .iter()
            .map(|byte| unsafe { byte.assume_init() })
            .collect();
        // A raw socket of IPv6 hands out what is behind the header (RFC 3542, section 3).
        let tcp = if ipv4 { &packet[20..] } else { &packet };
        if tcp[13] == tcp::SYN | tcp::ACK && tcp[2..4] == syn.source_port.to_be_bytes() {
            let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four"));
            return (number(8), number(4).wrapping_add(1));
        }
    }
}
