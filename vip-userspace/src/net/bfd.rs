//! BFD's sockets (RFC 5881), and who else on the node has its port.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use nix::net::if_::if_nametoindex;
use socket2::{Protocol, Socket, Type};
use vip_common::wire::addr::Be128;
use vip_common::wire::bfd::{AGENT_PORT, PORT, TTL};
use vip_common::wire::time::BootNanos;

use super::filter::{At, Filter};
use super::{NetError, datagram};

/// A datagram as it came. Of its origin only what the kernel's filter let through is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'a> {
    /// Source address of the packet.
    pub source: IpAddr,
    /// TTL or hop limit: must be 255.
    pub ttl: u8,
    /// When it came, which may be long before it is read.
    pub at: BootNanos,
    /// The BFD packet.
    pub payload: &'a [u8],
}

/// Sends and receives BFD on one NIC.
#[derive(Debug)]
pub struct BfdSocket {
    sender: Socket,
    receiver: Socket,
    v4: bool,
    /// The interface whose packets a program hands to it; `None` if it has the port itself.
    shared: Option<u32>,
}

impl BfdSocket {
    /// Opens one socket for both ways, which is not bound to BFD's port: what comes to that port
    /// must be handed to it (see [`BfdPort`](crate::datapath::BfdPort)). It receives what these
    /// peers send by this interface.
    ///
    /// # Errors
    /// Another program has [`AGENT_PORT`], such as another agent; the interface or the address is not there.
    pub fn open_shared(
        interface: &str,
        address: IpAddr,
        peers: &[IpAddr],
    ) -> Result<Self, NetError> {
        let open = || {
            let shared = Some(if_nametoindex(interface)?);
            let v4 = address.is_ipv4();
            let filter = wanted(v4, peers, shared);
            let sender = open_sender(interface, address, filter)?;
            datagram::tell_origin(&sender, address)?;
            datagram::tell_time(&sender)?;
            let receiver = sender.try_clone()?;
            Ok(Self {
                sender,
                receiver,
                v4,
                shared,
            })
        };
        open().map_err(NetError::io(format!(
            "open UDP port {AGENT_PORT} to send BFD by {interface} ({address})"
        )))
    }

    /// Opens a socket that is bound to BFD's port, so that no other program of the node has it, and
    /// one to send by.
    ///
    /// # Errors
    /// Another BFD program has the port; the interface or the address is not there.
    pub fn open_alone(
        interface: &str,
        address: IpAddr,
        peers: &[IpAddr],
    ) -> Result<Self, NetError> {
        let open = || {
            let (v4, shared) = (address.is_ipv4(), None);
            let receiver = open(interface, address)?;
            wanted(v4, peers, shared).attach(&receiver)?;
            receiver.bind(&SocketAddr::new(address, PORT).into())?;
            datagram::tell_origin(&receiver, address)?;
            datagram::tell_time(&receiver)?;
            // What comes to its port is not BFD.
            let sender = open_sender(interface, address, Filter::nothing())?;
            Ok(Self {
                sender,
                receiver,
                v4,
                shared,
            })
        };
        open().map_err(NetError::io(format!(
            "open UDP ports {PORT} and {AGENT_PORT} for BFD on {interface} ({address})"
        )))
    }

    /// Receives what these peers send from now on.
    ///
    /// # Errors
    /// The kernel's: no memory.
    pub fn set_peers(&self, peers: &[IpAddr]) -> io::Result<()> {
        wanted(self.v4, peers, self.shared).attach(&self.receiver)
    }

    /// Sends a packet to a peer. Never waits.
    ///
    /// # Errors
    /// The kernel's: no route, link down, queue full. That nobody listens there is none.
    pub fn send(&self, peer: IpAddr, packet: &[u8]) -> io::Result<()> {
        let peer = SocketAddr::new(peer, PORT).into();
        self.sender.send_to(packet, &peer).map(drop)
    }

    /// The next packet; `None` if there is none now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
        let Some(datagram) = datagram::receive(&self.receiver, buffer)? else {
            return Ok(None);
        };
        Ok(Some(Received {
            source: datagram.source,
            // One of which nothing is known is from elsewhere.
            ttl: datagram.ttl.unwrap_or(0),
            at: datagram.at,
            payload: &buffer[..datagram.length],
        }))
    }
}

/// What these peers send to BFD's port; to a socket that shares it, by this interface.
fn wanted(v4: bool, peers: &[IpAddr], shared: Option<u32>) -> Filter {
    /// Where UDP has the destination port, from its header on.
    const DESTINATION_PORT: At = At::Data(2);
    let filter = Filter::neighbours(v4, peers);
    match shared {
        None => filter,
        Some(interface) => filter
            // What is sent to its own port was not sent to BFD's.
            .half(DESTINATION_PORT, PORT)
            // A socket that is looked up by a program gets what comes by any NIC.
            .interface(interface),
    }
}

impl AsFd for BfdSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

fn open(interface: &str, address: IpAddr) -> io::Result<Socket> {
    let socket = datagram::socket(address, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    datagram::mark(&socket, address, TTL)?;
    Ok(socket)
}

fn open_sender(interface: &str, address: IpAddr, filter: Filter) -> io::Result<Socket> {
    let socket = open(interface, address)?;
    filter.attach(&socket)?;
    socket.bind(&SocketAddr::new(address, AGENT_PORT).into())?;
    Ok(socket)
}

/// Whether any socket of this network namespace is bound to BFD's port for this address, or for
/// all addresses. The agent's own is not, unless it was [opened alone](BfdSocket::open_alone).
///
/// # Errors
/// The kernel's table of sockets cannot be read.
pub fn is_port_taken(address: IpAddr) -> io::Result<bool> {
    // One that is bound to all addresses of IPv6 mostly takes those of IPv4, too.
    for table in ["udp", "udp6"] {
        let text = match fs::read_to_string(format!("/proc/thread-self/net/{table}")) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        if holds_port(&text, address) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same of the text of such a table (Documentation/networking/proc_net_tcp.rst).
fn holds_port(table: &str, address: IpAddr) -> bool {
    table.lines().skip(1).any(|line| {
        let local = line.split_whitespace().nth(1);
        local.and_then(local_address).is_some_and(|(bound, port)| {
            port == PORT && (bound == Be128::from(address) || is_any(bound))
        })
    })
}

/// All addresses of IPv4, or of IPv6.
fn is_any(address: Be128) -> bool {
    address == Be128::UNSPECIFIED || address.ipv4().is_some_and(|v4| v4.raw() == 0)
}

/// `0B00000A:0EC8`: words as they lie in memory, and the port.
fn local_address(text: &str) -> Option<(Be128, u16)> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok();
    let address = match address.len() {
        8 => vip_common::wire::addr::Be32::from_raw(word(0)?).into(),
        _ => Be128::from_raw([word(0)?, word(8)?, word(16)?, word(24)?]),
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod bird;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vip_common::wire::bfd::{LENGTH, MAX_LENGTH};

    use super::*;
    use crate::clock::now;
    use crate::net::testing::{self, A, A6, B, B6, Side, arrives};

    const PAIRS: [(IpAddr, IpAddr); 2] = [
        (IpAddr::V4(A), IpAddr::V4(B)),
        (IpAddr::V6(A6), IpAddr::V6(B6)),
    ];

    /// With and without authentication.
    const PACKETS: [&[u8]; 2] = [&[7; LENGTH], &[7; MAX_LENGTH]];

    #[test]
    fn a_peer_gets_the_packet_with_what_proves_its_origin() {
        const LATE: Duration = Duration::from_millis(500);
        testing::in_two_namespaces(async |pair| {
            for ((a, b), packet) in PAIRS.into_iter().zip(PACKETS) {
                pair.enter(Side::A);
                let here = BfdSocket::open_alone("a0", a, &[b]).unwrap();
                pair.enter(Side::B);
                let there = BfdSocket::open_alone("b0", b, &[a]).unwrap();
                let mut buffer = [0; 64];
                assert_eq!(there.receive(&mut buffer).unwrap(), None, "nothing yet");
                let sent = now();
                here.send(b, packet).unwrap();
                arrives(&there).await;
                let arrived = now();
                std::thread::sleep(LATE);
                let received = there.receive(&mut buffer).unwrap().unwrap();
                let wanted = Received {
                    source: a,
                    ttl: TTL,
                    at: received.at,
                    payload: packet,
                };
                assert_eq!(received, wanted);
                // Nearer to its arrival than to its reading.
                assert!(received.at <= arrived.after(LATE / 2));
                assert!(received.at >= sent);
            }
        });
    }

    #[test]
    fn packets_from_beyond_a_router_and_from_strangers_are_not_read() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::B);
            testing::ip("address add 10.9.0.3/24 dev b0");
            testing::ip("address add fd00:9::3/64 dev b0 nodad");
            for ((a, b), stranger) in PAIRS.into_iter().zip(["10.9.0.3", "fd00:9::3"]) {
                pair.enter(Side::A);
                let here = BfdSocket::open_alone("a0", a, &[b]).unwrap();
                pair.enter(Side::B);
                let send = |from: IpAddr, ttl, text: &[u8]| {
                    let socket = datagram::socket(from, Type::DGRAM, None).unwrap();
                    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
                    datagram::mark(&socket, from, ttl).unwrap();
                    let to = SocketAddr::new(a, PORT);
                    socket.send_to(text, &to.into()).unwrap();
                };
                send(b, 254, b"far away");
                send(stranger.parse().unwrap(), TTL, b"a stranger");
                send(b, TTL, b"good");
                arrives(&here).await;
                let mut buffer = [0; 64];
                let received = here.receive(&mut buffer).unwrap().unwrap();
                assert_eq!((received.source, received.payload), (b, &b"good"[..]));
                assert_eq!(here.receive(&mut buffer).unwrap(), None);
            }
        });
    }

    #[test]
    fn an_address_that_is_not_here_is_refused_by_name() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            for (b, name) in [
                (IpAddr::from(B), "a0 (10.9.0.2)"),
                (B6.into(), "a0 (fd00:9::2)"),
            ] {
                for open in [BfdSocket::open_alone, BfdSocket::open_shared] {
                    let error = open("a0", b, &[]).unwrap_err().to_string();
                    assert!(error.contains(name), "{error}");
                }
            }
        });
    }

    #[test]
    fn the_second_on_a_port_is_told_which() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            assert!(!is_port_taken(A.into()).unwrap());
            let _first = BfdSocket::open_alone("a0", A.into(), &[]).unwrap();
            let error = BfdSocket::open_alone("a0", A.into(), &[]).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("3784") && error.contains("a0"), "{error}");
            assert!(is_port_taken(A.into()).unwrap());
            assert!(!is_port_taken(B.into()).unwrap(), "another address");
        });
    }

    #[test]
    fn whoever_holds_the_port_is_found_in_the_kernels_table() {
        const V4: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref
 1: 0B00000A:0EC8 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 3 0
 2: 00000000:0EC9 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 3 0
";
        const V6: &str = "\
  sl  local_address                         remote_address                        st tx_queue
 1: 000000FD000000000000000011000000:0EC8 00000000000000000000000000000000:0000 07 00000000
";
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(holds_port(V4, address("10.0.0.11")));
        assert!(!holds_port(V4, address("10.0.0.12")));
        assert!(holds_port(V6, address("fd00::11")));
        for any in ["00000000", "00000000000000000000000000000000"] {
            let line = format!("head\n 1: {any}:0EC8 0:0000 07");
            assert!(holds_port(&line, address("10.0.0.12")), "{any}");
        }
    }
}
