//! VRRP's raw socket: advertisements to each peer, one by one, or to the group.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Protocol, Socket, Type};
use vip_common::wire::vrrp::{PROTOCOL, TTL};
use vip_common::wire::{Frame as _, ipv4};

use super::datagram::{Datagram, group, join};
use super::filter::{At, Filter};
use super::{NetError, datagram};

/// Room for any IP packet.
pub const BUFFER: usize = 65_536;

/// Where advertisements go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// To each peer.
    Unicast,
    /// To the group of all VRRP routers, which this one joins.
    Multicast,
}

/// An IP packet of protocol 112, as it came. Of it only its lengths are checked, and what the
/// kernel's filter let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'a> {
    /// Source address of the packet.
    pub source: IpAddr,
    /// Whom it was sent to; part of the checksum's pseudo-header.
    pub destination: IpAddr,
    /// TTL or hop limit: must be 255.
    pub ttl: u8,
    /// The VRRP packet.
    pub payload: &'a [u8],
}

/// Sends and receives VRRP on one NIC.
#[derive(Debug)]
pub struct VrrpSocket {
    sender: Socket,
    receiver: Socket,
    address: IpAddr,
    delivery: Delivery,
}

/// What peers send to a node's address, or to the group if advertisements go there.
fn wanted(address: IpAddr, peers: &[IpAddr], delivery: Delivery) -> Filter {
    let v4 = address.is_ipv4();
    let destination = At::Network(if v4 { 16 } else { 24 });
    let destinations = [address, group(address)];
    let destinations = match delivery {
        Delivery::Unicast => &destinations[..1],
        Delivery::Multicast => &destinations,
    };
    Filter::neighbours(v4, peers).address(destination, v4, destinations)
}

impl VrrpSocket {
    /// Opens it on an interface, for packets from the node's address. It receives what these
    /// peers send to that address, and with [`Delivery::Multicast`] also what they send to the
    /// group, unless a router has passed it on.
    ///
    /// # Errors
    /// No `CAP_NET_RAW`; the interface or the address is not there.
    pub fn open(
        interface: &str,
        address: IpAddr,
        peers: &[IpAddr],
        delivery: Delivery,
    ) -> Result<Self, NetError> {
        Self::try_open(interface, address, peers, delivery).map_err(NetError::io(format!(
            "open a VRRP socket on {interface} ({address})"
        )))
    }

    fn try_open(
        interface: &str,
        address: IpAddr,
        peers: &[IpAddr],
        delivery: Delivery,
    ) -> io::Result<Self> {
        let open = |filter: Filter| {
            let protocol = Protocol::from(i32::from(PROTOCOL));
            let socket = datagram::socket(address, Type::RAW, Some(protocol))?;
            // At once: it receives from the moment that it is there.
            filter.attach(&socket)?;
            socket.bind_device(Some(interface.as_bytes()))?;
            io::Result::Ok(socket)
        };
        let bind = |socket: &Socket| {
            socket.bind(&SocketAddr::new(address, 0).into())?;
            datagram::mark(socket, address, TTL)
        };
        let wanted = || wanted(address, peers, delivery);
        let (sender, receiver) = match delivery {
            Delivery::Unicast => {
                let sender = open(wanted())?;
                bind(&sender)?;
                let receiver = sender.try_clone()?;
                (sender, receiver)
            }
            // One that is bound to an address would not get what goes to the group. One that is
            // not also gets what is sent to the node's other addresses and to all.
            Delivery::Multicast => {
                let sender = open(Filter::nothing())?;
                bind(&sender)?;
                let receiver = open(wanted())?;
                join(&sender, &receiver, interface, address)?;
                (sender, receiver)
            }
        };
        datagram::tell_origin(&receiver, address)?;
        Ok(Self {
            sender,
            receiver,
            address,
            delivery,
        })
    }

    /// Receives what these peers send from now on.
    ///
    /// # Errors
    /// The kernel's: no memory.
    pub fn set_peers(&self, peers: &[IpAddr]) -> io::Result<()> {
        wanted(self.address, peers, self.delivery).attach(&self.receiver)
    }

    /// Sends a VRRP packet to a peer. Never waits: one that the queue has no room for would be
    /// late anyway.
    ///
    /// # Errors
    /// The kernel's: no route, link down, queue full.
    pub fn send(&self, peer: IpAddr, payload: &[u8]) -> io::Result<()> {
        let peer = SocketAddr::new(peer, 0).into();
        self.sender.send_to(payload, &peer).map(drop)
    }

    /// Sends a VRRP packet to the group. Never waits.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_group(&self, payload: &[u8]) -> io::Result<()> {
        self.send(group(self.address), payload)
    }

    /// The next packet; `None` if there is none now. `buffer` should be [`BUFFER`] bytes long.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
        let Some(datagram) = datagram::receive(&self.receiver, buffer)? else {
            return Ok(None);
        };
        received(&datagram, &buffer[..datagram.length]).map(Some)
    }
}

fn received<'a>(datagram: &Datagram, packet: &'a [u8]) -> io::Result<Received<'a>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "an IP packet cut short");
    // The kernel hands raw packets over with their header for IPv4, and without for IPv6.
    match datagram.source {
        IpAddr::V4(_) => parse(packet).ok_or_else(malformed),
        IpAddr::V6(source) => Ok(Received {
            source: source.into(),
            destination: datagram.destination.ok_or_else(malformed)?,
            ttl: datagram.ttl.ok_or_else(malformed)?,
            payload: packet,
        }),
    }
}

impl AsFd for VrrpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

fn parse(packet: &[u8]) -> Option<Received<'_>> {
    let header: &ipv4::Header = packet.view(0)?;
    Some(Received {
        source: header.source().to_wire().into(),
        destination: header.destination().to_wire().into(),
        ttl: header.ttl(),
        payload: packet.get(header.header_length()..)?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::net::testing::{self, A, A6, B, B6, Side, VIP, arrives};

    fn pair(
        pair: &testing::Pair,
        addresses: (IpAddr, IpAddr),
        delivery: Delivery,
    ) -> [VrrpSocket; 2] {
        let (a, b) = addresses;
        [(Side::A, "a0", a, b), (Side::B, "b0", b, a)].map(|(side, interface, address, peer)| {
            pair.enter(side);
            VrrpSocket::open(interface, address, &[peer], delivery).unwrap()
        })
    }

    #[test]
    fn a_peer_gets_the_packet_with_what_proves_its_origin() {
        testing::in_two_namespaces(async |namespaces| {
            let mut buffer = vec![0; BUFFER];
            for (a, b) in [(A.into(), B.into()), (A6.into(), B6.into())] {
                for delivery in [Delivery::Unicast, Delivery::Multicast] {
                    let [here, there] = pair(namespaces, (a, b), delivery);
                    assert_eq!(there.receive(&mut buffer).unwrap(), None, "nothing yet");
                    here.send(b, b"to you").unwrap();
                    let wanted = |destination, payload| Received {
                        source: a,
                        destination,
                        ttl: TTL,
                        payload,
                    };
                    arrives(&there).await;
                    let received = there.receive(&mut buffer).unwrap();
                    assert_eq!(received, Some(wanted(b, b"to you")), "{delivery:?}");
                    if delivery == Delivery::Multicast {
                        here.send_group(b"to all").unwrap();
                        arrives(&there).await;
                        let received = there.receive(&mut buffer).unwrap();
                        assert_eq!(received, Some(wanted(group(a), b"to all")));
                        assert_eq!(here.receive(&mut buffer).unwrap(), None, "not to oneself");
                    }
                }
            }
        });
    }

    #[test]
    fn packets_from_beyond_a_router_and_from_strangers_are_not_read() {
        testing::in_two_namespaces(async |namespaces| {
            let mut buffer = vec![0; BUFFER];
            namespaces.enter(Side::A);
            testing::ip("address add 10.9.0.3/24 dev a0");
            testing::ip("address add fd00:9::3/64 dev a0 nodad");
            for (a, b, stranger) in [
                (IpAddr::from(A), IpAddr::from(B), "10.9.0.3"),
                (A6.into(), B6.into(), "fd00:9::3"),
            ] {
                for delivery in [Delivery::Unicast, Delivery::Multicast] {
                    let [here, there] = pair(namespaces, (a, b), delivery);
                    namespaces.enter(Side::A);
                    let stranger = stranger.parse().unwrap();
                    let stranger = VrrpSocket::open("a0", stranger, &[], delivery).unwrap();
                    datagram::mark(&here.sender, a, 254).unwrap();
                    here.send(b, b"far away").unwrap();
                    datagram::mark(&here.sender, a, TTL).unwrap();
                    stranger.send(b, b"a stranger").unwrap();
                    if delivery == Delivery::Multicast {
                        stranger.send_group(b"a stranger").unwrap();
                    }
                    here.send(b, b"good").unwrap();
                    arrives(&there).await;
                    let received = there.receive(&mut buffer).unwrap().unwrap();
                    assert_eq!((received.source, received.payload), (a, &b"good"[..]));
                    assert_eq!(there.receive(&mut buffer).unwrap(), None, "{delivery:?}");
                }
            }
        });
    }

    #[test]
    fn another_program_of_the_node_that_speaks_vrrp_takes_nothing_away() {
        testing::in_two_namespaces(async |namespaces| {
            let mut buffer = vec![0; BUFFER];
            let (a, b) = (IpAddr::from(A), IpAddr::from(B));
            let [here, there] = pair(namespaces, (a, b), Delivery::Multicast);
            let second = VrrpSocket::open("b0", b, &[a], Delivery::Multicast).unwrap();
            here.send_group(b"to all").unwrap();
            for socket in [&there, &second] {
                arrives(socket).await;
                let received = socket.receive(&mut buffer).unwrap().unwrap();
                assert_eq!(received.payload, b"to all");
            }
        });
    }

    #[test]
    fn own_packets_and_those_to_other_addresses_are_not_read() {
        testing::in_two_namespaces(async |namespaces| {
            let vip6 = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 0x10);
            namespaces.enter(Side::A);
            testing::ip(&format!("route add {VIP}/32 via {B} dev a0"));
            testing::ip(&format!("route add {vip6}/128 via {B6} dev a0"));
            namespaces.enter(Side::B);
            testing::ip(&format!("address add {VIP}/32 dev lo"));
            testing::ip(&format!("address add {vip6}/128 dev lo nodad"));
            let mut buffer = vec![0; BUFFER];
            for (a, b, vip) in [
                (IpAddr::from(A), IpAddr::from(B), IpAddr::from(VIP)),
                (A6.into(), B6.into(), vip6.into()),
            ] {
                let [here, there] = pair(namespaces, (a, b), Delivery::Multicast);
                here.send(vip, b"to the VIP").unwrap();
                match a {
                    IpAddr::V4(_) => there.sender.set_multicast_loop_v4(true).unwrap(),
                    IpAddr::V6(_) => there.sender.set_multicast_loop_v6(true).unwrap(),
                }
                there.send_group(b"to oneself").unwrap();
                here.send(b, b"to you").unwrap();
                arrives(&there).await;
                let received = there.receive(&mut buffer).unwrap().unwrap();
                assert_eq!(received.payload, b"to you");
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
                let error = VrrpSocket::open("a0", b, &[], Delivery::Multicast)
                    .unwrap_err()
                    .to_string();
                assert!(error.contains(name), "{error}");
            }
        });
    }

    #[test]
    fn options_of_the_ip_header_are_not_payload() {
        let mut packet = [0; 25];
        packet[0] = 0x46;
        packet[8] = 64;
        packet[24] = 7;
        let received = parse(&packet).unwrap();
        assert_eq!((received.ttl, received.payload), (64, &[7][..]));
        assert_eq!(parse(&packet[..22]), None);
    }
}
