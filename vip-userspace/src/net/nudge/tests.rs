//! Real connections between two namespaces: the client is in A, the server and the VIP are in B.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::segment::ether_type;
use super::{Hop, Kind, ResetTap, Segment, Sender, Way, Ways};
use vip_common::wire::addr::Be16;

use crate::net::netlink::Netlink;
use crate::net::testing::{self, A, A6, B, B6, Pair, Side, VIP, VIP6, arrives, ip, within_reach};
use crate::net::{Nic, raw};

/// Sets an option of a socket that no library knows.
fn set_option(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: &[u8]) {
    let length = value.len() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel only reads, and no more than it is told to.
    let result = unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), length) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// The next sequence number of a queue of a socket in repair.
fn sequence(socket: &TcpStream, queue: u32) -> u32 {
    let queue = queue.to_ne_bytes();
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, &queue);
    let mut sequence = 0_u32;
    let mut length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the value and its length lie on the stack, and the kernel writes no more than it is
    // told to.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_QUEUE_SEQ,
            (&raw mut sequence).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    sequence
}

/// `TCP_RECV_QUEUE`, `TCP_SEND_QUEUE`.
const RECEIVE_QUEUE: u32 = 1;
const SEND_QUEUE: u32 = 2;

/// The VIPs with the addresses of both sides.
const FAMILIES: [(IpAddr, IpAddr, IpAddr); 2] = [
    (IpAddr::V4(VIP), IpAddr::V4(A), IpAddr::V4(B)),
    (IpAddr::V6(VIP6), IpAddr::V6(A6), IpAddr::V6(B6)),
];

/// Random numbers, as a sender would choose them.
const RANDOM: u64 = 0x1234_5678_9abc_def0;

/// Enters B.
async fn server_side(pair: &Pair) -> (Netlink, Nic) {
    pair.enter(Side::B);
    let netlink = Netlink::connect().unwrap();
    let nic = netlink.find_nic(VIP.into(), &[B.into()], None).await;
    (netlink, nic.unwrap())
}

/// Both ends of a connection.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    /// A new one to `vip`, by which data went in both directions. This thread is in B then.
    async fn new(pair: &Pair, netlink: &Netlink, vip: IpAddr, server: IpAddr) -> Self {
        pair.enter(Side::B);
        netlink.add_vip(vip).await.unwrap();
        let listener = TcpListener::bind((vip, 6443)).unwrap();
        pair.enter(Side::A);
        ip(&format!("route replace {vip} via {server}"));
        let client = testing::connect_soon(vip);
        pair.enter(Side::B);
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            end.set_nodelay(true).unwrap();
        }
        let mut connection = Self { client, server };
        connection.carry_data();
        connection
    }

    /// The last segment is the client's, so the server's data is acknowledged afterwards.
    fn carry_data(&mut self) {
        for (from, to) in [
            (&self.client, &self.server),
            (&self.server, &self.client),
            (&self.client, &self.server),
        ] {
            let (mut from, mut to) = (from, to);
            from.write_all(b"data").unwrap();
            let mut read = [0; 4];
            to.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"data");
        }
    }

    /// The server's end and the client's.
    fn ends(&self) -> (SocketAddr, SocketAddr) {
        let server = self.server.local_addr().unwrap();
        (server, self.server.peer_addr().unwrap())
    }

    /// A nudge with the numbers of the server's socket.
    fn ack(&self) -> Kind {
        setsockopt(&self.server, sockopt::TcpRepair, &1).unwrap();
        let numbers = [SEND_QUEUE, RECEIVE_QUEUE].map(|queue| sequence(&self.server, queue));
        // `TCP_REPAIR_OFF_NO_WP`: on the way out the kernel would send a window probe.
        setsockopt(&self.server, sockopt::TcpRepair, &u32::MAX).unwrap();
        Kind::Ack {
            sequence: numbers[0].wrapping_sub(1),
            acknowledgement: numbers[1],
        }
    }

    fn nudge(&self, kind: Kind) -> Segment {
        let (source, client) = self.ends();
        Segment {
            source,
            client,
            kind,
        }
    }

    /// Removes the server's socket without a packet: so does the kernel with a socket in repair.
    fn lose_server(self) -> TcpStream {
        setsockopt(&self.server, sockopt::TcpRepair, &1).unwrap();
        self.client
    }
}

/// The hop to a client, once the kernel knows it.
async fn hop(ways: &mut Ways, source: IpAddr, client: IpAddr) -> Hop {
    let pair = (source, client);
    within_reach(async {
        loop {
            let found = ways.look_up([pair]).await.unwrap();
            match found[&pair] {
                Way::By(hop) => return hop,
                Way::NoNeighbour { .. } => tokio::time::sleep(Duration::from_millis(20)).await,
                other => panic!("{other:?}"),
            }
        }
    })
    .await
}

#[test]
fn a_client_without_a_server_is_reset_after_one_nudge_of_either_kind() {
    testing::in_two_namespaces(async |pair| {
        let (netlink, nic) = server_side(pair).await;
        for (vip, client_address, node) in FAMILIES {
            let mut ways = Ways::open(&netlink).await.unwrap();
            let sender = Sender::open().unwrap();
            for syn_ack in [false, true] {
                let connection = Connection::new(pair, &netlink, vip, node).await;
                let kind = if syn_ack {
                    Kind::SynAck(RANDOM)
                } else {
                    connection.ack()
                };
                let (nudge, ends) = (connection.nudge(kind), connection.ends());
                let tap = ResetTap::open(&nic, &[VIP.into(), VIP6.into()]).unwrap();
                let mut client = connection.lose_server();
                assert_eq!(tap.try_receive().unwrap(), None, "nothing was sent");

                let hop = hop(&mut ways, vip, client_address).await;
                sender.send(&nudge, &hop).unwrap();
                let error = client.read(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{nudge:?}");
                let reset = within_reach(tap.receive()).await.unwrap();
                assert_eq!(reset, ends);
                assert_eq!(tap.try_receive().unwrap(), None);
            }
        }
    });
}

#[test]
fn a_living_connection_outlasts_nudges() {
    testing::in_two_namespaces(async |pair| {
        let (netlink, nic) = server_side(pair).await;
        for (vip, client_address, node) in FAMILIES {
            let mut ways = Ways::open(&netlink).await.unwrap();
            let sender = Sender::open().unwrap();
            let mut connection = Connection::new(pair, &netlink, vip, node).await;
            let tap = ResetTap::open(&nic, &[vip]).unwrap();
            let hop = hop(&mut ways, vip, client_address).await;
            for _ in 0..5 {
                for kind in [connection.ack(), Kind::SynAck(RANDOM)] {
                    sender.send(&connection.nudge(kind), &hop).unwrap();
                }
                connection.carry_data();
            }
            assert_eq!(tap.try_receive().unwrap(), None);
        }
    });
}

#[test]
fn the_tap_sees_only_outgoing_resets_of_its_vips() {
    testing::in_two_namespaces(async |pair| {
        let (netlink, nic) = server_side(pair).await;
        for (vip, _, node) in FAMILIES {
            netlink.add_vip(vip).await.unwrap();
            let tap = ResetTap::open(&nic, &[vip]).unwrap();
            // Nothing listens there, but it is not the VIP's address.
            pair.enter(Side::A);
            ip(&format!("route replace {vip} via {node}"));
            let refused = TcpStream::connect((node, 6443)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            pair.enter(Side::B);
            let connection = Connection::new(pair, &netlink, vip, node).await;
            let (_, client) = connection.ends();
            // The client's end is a reset, which comes in.
            let client_socket = SockRef::from(&connection.client);
            client_socket.set_linger(Some(Duration::ZERO)).unwrap();
            drop(connection.client);
            pair.enter(Side::A);
            let refused = TcpStream::connect((vip, 6444)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let (end, other) = within_reach(tap.receive()).await.unwrap();
            assert_eq!((end, other.ip()), (SocketAddr::new(vip, 6444), client.ip()));
            assert_eq!(tap.try_receive().unwrap(), None);
            pair.enter(Side::B);
        }
    });
}

#[test]
fn a_reset_with_ipv4_options_is_seen() {
    /// Record Route with room for one address, and the end of the options (RFC 791, section 3.1). The
    /// kernel answers with the same option (`__ip_options_echo`, net/ipv4/ip_options.c).
    const RECORD_ROUTE: [u8; 8] = [7, 7, 4, 0, 0, 0, 0, 0];
    testing::in_two_namespaces(async |pair| {
        let (netlink, nic) = server_side(pair).await;
        let (vip, client, node) = FAMILIES[0];
        netlink.add_vip(vip).await.unwrap();
        let tap = ResetTap::open(&nic, &[vip]).unwrap();
        pair.enter(Side::A);
        ip(&format!("route add {vip} via {node}"));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        set_option(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &RECORD_ROUTE);
        socket.bind(&SocketAddr::new(client, 0).into()).unwrap();
        let own = socket.local_addr().unwrap().as_socket().unwrap();
        let closed = SocketAddr::new(vip, 6444);
        let refused = socket.connect(&closed.into()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let reset = within_reach(tap.receive()).await.unwrap();
        assert_eq!(reset, (closed, own));
    });
}

#[test]
fn a_client_whose_ethernet_address_is_unknown_is_asked_for() {
    testing::in_two_namespaces(async |pair| {
        let (netlink, nic) = server_side(pair).await;
        for (vip, client, _) in FAMILIES {
            netlink.add_vip(vip).await.unwrap();
            let mut ways = Ways::open(&netlink).await.unwrap();
            let found = ways.look_up([(vip, client)]).await.unwrap();
            let interface = nic.index;
            assert_eq!(found[&(vip, client)], Way::NoNeighbour { interface });
            let expected = Hop {
                interface,
                source: Side::B.mac(),
                destination: Side::A.mac(),
            };
            assert_eq!(hop(&mut ways, vip, client).await, expected);
        }
    });
}

#[test]
fn clients_are_found_where_the_kernel_would_send_to() {
    testing::in_two_namespaces(async |pair| {
        let (netlink, nic) = server_side(pair).await;
        ip("link add pod0 type veth peer name pod1");
        ip("link set pod1 up");
        ip("link set pod0 up");
        ip("tuntap add dev tun0 mode tun");
        ip("link set tun0 up");
        let pod0 = nix::net::if_::if_nametoindex("pod0").unwrap();
        let tun0 = nix::net::if_::if_nametoindex("tun0").unwrap();
        for (vip, a, b) in FAMILIES {
            netlink.add_vip(vip).await.unwrap();
            let net = |number: u8| match vip {
                IpAddr::V4(_) => format!("10.{number}.0.0/24"),
                IpAddr::V6(_) => format!("fd{number}::/64"),
            };
            let host = |number: u8| match vip {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(10, number, 0, 5)),
                IpAddr::V6(_) => format!("fd{number}::5").parse().unwrap(),
            };
            let family = if vip.is_ipv4() { "-4" } else { "-6" };
            let add_route = |route: &str| ip(&format!("{family} route add {route}"));
            add_route(&format!("{} via {a}", net(77)));
            add_route(&format!("{} dev pod0", net(78)));
            add_route(&format!("{} dev tun0", net(79)));
            for (kind, number) in [("unreachable", 80), ("blackhole", 81), ("prohibit", 82)] {
                add_route(&format!("{kind} {}", net(number)));
            }
            let pod_mac = "02:00:00:00:00:99";
            ip(&format!(
                "neighbour add {} lladdr {pod_mac} dev pod0",
                host(78)
            ));
            let mut ways = Ways::open(&netlink).await.unwrap();
            let router = Way::By(hop(&mut ways, vip, a).await);
            assert!(!router.is_here(nic.index));

            // No interface of this host has it.
            let dead = host(9);
            let mut asked = vec![(vip, b), (vip, vip)];
            for number in 77..=83 {
                asked.extend([(vip, host(number)), (dead, host(number))]);
            }
            let found = ways.look_up(asked).await.unwrap();
            for source in [vip, dead] {
                let way = |number| found[&(source, host(number))];
                assert_eq!(way(77), router, "{source}");
                let pod = way(78);
                let by_pod0 = matches!(pod, Way::By(hop) if hop.interface == pod0
                    && hop.destination == [2, 0, 0, 0, 0, 0x99]);
                assert!(by_pod0 && pod.is_here(nic.index), "{pod:?}");
                assert_eq!(way(79), Way::NotEthernet { interface: tun0 });
                for number in 80..=83 {
                    assert_eq!(way(number), Way::NoRoute, "{}", host(number));
                }
            }
            assert_eq!(found[&(vip, b)], Way::Own);
            assert_eq!(found[&(vip, vip)], Way::Own);
        }
    });
}

/// Frames of one EtherType that come in by an interface of this thread's namespace.
fn frames_of(interface: &str, ether_type: Be16) -> Socket {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).unwrap();
    let index = nix::net::if_::if_nametoindex(interface).unwrap();
    let address = raw::link_layer(index, ether_type).unwrap();
    socket.bind(&address).unwrap();
    socket
}

#[test]
fn a_segment_for_this_host_goes_from_the_nic_to_itself() {
    testing::in_two_namespaces(async |pair| {
        let (_, nic) = server_side(pair).await;
        let sender = Sender::open().unwrap();
        for (_, client, source) in FAMILIES {
            let segment = Segment {
                source: SocketAddr::new(source, 6443),
                client: SocketAddr::new(client, 40_000),
                kind: Kind::SynAck(RANDOM),
            };
            pair.enter(Side::A);
            let frames = frames_of("a0", ether_type(source));
            sender.send_here(&segment, &nic).unwrap();
            let hop = Hop {
                interface: nic.index,
                source: Side::B.mac(),
                destination: Side::B.mac(),
            };
            let expected = segment.frame(&hop).unwrap();
            loop {
                // IPv6 has something of its own to say to all.
                arrives(&frames).await;
                let mut buffer = [0; 128];
                let length = (&frames).read(&mut buffer).unwrap();
                if &buffer[..length] == expected.as_slice() {
                    break;
                }
            }
        }
    });
}

/// `cargo test -p vip-userspace --release nudges_cost -- --ignored --nocapture`
#[test]
#[ignore = "prints figures"]
fn nudges_cost() {
    testing::in_two_namespaces(async |pair| {
        const CLIENTS: u128 = 10_000;
        let (netlink, _) = server_side(pair).await;
        for (vip, router, _) in FAMILIES {
            netlink.add_vip(vip).await.unwrap();
            let (net, first) = match vip {
                IpAddr::V4(_) => ("10.200.0.0/16", "::ffff:10.200.0.1"),
                IpAddr::V6(_) => ("fd99::/64", "fd99::1"),
            };
            ip(&format!("route add {net} via {router}"));
            let first: Ipv6Addr = first.parse().unwrap();
            let clients = (0..CLIENTS).map(|number| {
                IpAddr::from(Ipv6Addr::from(first.to_bits() + number)).to_canonical()
            });
            let pairs: Vec<_> = clients.map(|client| (vip, client)).collect();
            let sender = Sender::open().unwrap();
            let mut ways = Ways::open(&netlink).await.unwrap();
            hop(&mut ways, vip, router).await;
            for _ in 0..3 {
                let begin = Instant::now();
                let mut ways = Ways::open(&netlink).await.unwrap();
                let found = ways.look_up(pairs.iter().copied()).await.unwrap();
                let looked_up = begin.elapsed();
                let mut full = 0;
                for &(source, client) in &pairs {
                    let Way::By(hop) = found[&(source, client)] else {
                        panic!("{client}: {found:?}");
                    };
                    let segment = Segment {
                        source: SocketAddr::new(source, 6443),
                        client: SocketAddr::new(client, 40_000),
                        kind: Kind::SynAck(RANDOM),
                    };
                    full += usize::from(sender.send(&segment, &hop).is_err());
                }
                let sent = begin.elapsed() - looked_up;
                writeln!(
                    io::stderr(),
                    "{vip}: {CLIENTS} clients looked up in {looked_up:?}, sent to in {sent:?}; \
                     {full} frames refused"
                )
                .unwrap();
            }
        }
    });
}
