//! VRRP's raw socket: advertisements to each peer, one by one.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vip_common::wire::{Frame as _, ipv4};

use super::{NetError, raw};

/// IP protocol number (RFC 9568 section 5.1.1.4).
const VRRP: i32 = 112;

/// Advertisements are sent with this TTL, and those that come with another one were sent from
/// beyond a router (RFC 9568 section 5.1.1.3).
pub const TTL: u8 = 255;

/// Precedence "internetwork control" (RFC 791 section 3.1), as keepalived sends.
const TOS: u32 = 0xc0;

/// Priority of the frames in queueing and VLAN tags, as keepalived sets.
const PRIORITY: u32 = 6;

/// Room for any IP packet.
pub const BUFFER: usize = 65_536;

/// An IP packet of protocol 112, as it came. Nothing of it is checked but its lengths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'a> {
    /// Who says that he sent it.
    pub source: Ipv4Addr,
    /// Whom it was sent to; part of the checksum's pseudo-header.
    pub destination: Ipv4Addr,
    /// Must be [`TTL`].
    pub ttl: u8,
    /// The VRRP packet.
    pub payload: &'a [u8],
}

/// Sends and receives VRRP on one NIC.
#[derive(Debug)]
pub struct VrrpSocket {
    socket: AsyncFd<Socket>,
}

impl VrrpSocket {
    /// Opens it on an interface, for packets from and to the node's address. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// No `CAP_NET_RAW`; the interface or the address is not there.
    pub fn open(interface: &str, address: Ipv4Addr) -> Result<Self, NetError> {
        Self::try_open(interface, address).map_err(NetError::io(format!(
            "open a VRRP socket on {interface} ({address})"
        )))
    }

    fn try_open(interface: &str, address: Ipv4Addr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(VRRP)))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.bind(&SocketAddrV4::new(address, 0).into())?;
        socket.set_ttl_v4(u32::from(TTL))?;
        // The TOS sets a priority too, so ours comes after it.
        socket.set_tos_v4(TOS)?;
        socket.set_priority(PRIORITY)?;
        let socket = raw::readable(socket)?;
        Ok(Self { socket })
    }

    /// Sends a VRRP packet to a peer. Never waits: one that the queue has no room for would be
    /// late anyway.
    ///
    /// # Errors
    /// The kernel's: no route, link down, queue full.
    pub fn send(&self, peer: Ipv4Addr, payload: &[u8]) -> io::Result<()> {
        let peer = SocketAddrV4::new(peer, 0).into();
        self.socket.get_ref().send_to(payload, &peer).map(drop)
    }

    /// The next packet. `buffer` should be [`BUFFER`] bytes long. Cancel-safe.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        let length = self
            .socket
            .async_io(Interest::READABLE, |mut socket| socket.read(buffer))
            .await?;
        parse(&buffer[..length]).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "an IP packet without its header",
            )
        })
    }
}

fn parse(packet: &[u8]) -> Option<Received<'_>> {
    let header: &ipv4::Header = packet.view(0)?;
    Some(Received {
        source: Ipv4Addr::from(header.source().to_wire()),
        destination: Ipv4Addr::from(header.destination().to_wire()),
        ttl: header.ttl(),
        payload: packet.get(header.header_length()..)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{self, A, B, Side, within_reach};

    #[test]
    fn a_peer_gets_the_packet_with_what_proves_its_origin() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let a = VrrpSocket::open("a0", A).unwrap();
            pair.enter(Side::B);
            let b = VrrpSocket::open("b0", B).unwrap();

            let mut buffer = vec![0; BUFFER];
            for (from, to, source, destination) in [(&a, &b, A, B), (&b, &a, B, A)] {
                from.send(destination, b"advertisement").unwrap();
                let received = within_reach(to.receive(&mut buffer)).await.unwrap();
                let expected = Received {
                    source,
                    destination,
                    ttl: TTL,
                    payload: b"advertisement",
                };
                assert_eq!(received, expected);
            }
        });
    }

    #[test]
    fn an_address_that_is_not_here_is_refused_by_name() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let error = VrrpSocket::open("a0", B).unwrap_err().to_string();
            assert!(error.contains("a0 (10.9.0.2)"), "{error}");
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
