//! BFD's sockets (RFC 5881): one for what peers send, one to send by.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Protocol, Socket, Type};
use vip_common::wire::bfd::{LENGTH, PORT, SOURCE_PORTS, TTL};

use super::{NetError, datagram};

/// A datagram as it came. Nothing of it is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'a> {
    /// Who says that he sent it.
    pub source: IpAddr,
    /// TTL or hop limit: must be 255.
    pub ttl: u8,
    /// The BFD packet.
    pub payload: &'a [u8],
}

/// Sends and receives BFD on one NIC.
#[derive(Debug)]
pub struct BfdSocket {
    sender: Socket,
    receiver: Socket,
}

impl BfdSocket {
    /// Opens both sockets on an interface, for the node's address.
    ///
    /// # Errors
    /// Another BFD program has the port; the interface or the address is not there.
    pub fn open(interface: &str, address: IpAddr) -> Result<Self, NetError> {
        Self::try_open(interface, address).map_err(NetError::io(format!(
            "open UDP port {PORT} for BFD on {interface} ({address})"
        )))
    }

    fn try_open(interface: &str, address: IpAddr) -> io::Result<Self> {
        let open = || {
            let socket = datagram::socket(address, Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind_device(Some(interface.as_bytes()))?;
            datagram::mark(&socket, address, TTL)?;
            io::Result::Ok(socket)
        };
        let receiver = open()?;
        receiver.bind(&SocketAddr::new(address, PORT).into())?;
        datagram::tell_origin(&receiver, address)?;
        let sender = open()?;
        bind_sender(&sender, address)?;
        // It is never read: what comes to its port is not BFD.
        sender.set_recv_buffer_size(1)?;
        Ok(Self { sender, receiver })
    }

    /// Sends a packet to a peer. Never waits.
    ///
    /// # Errors
    /// The kernel's: no route, link down, queue full. That nobody listens there is none.
    pub fn send(&self, peer: IpAddr, packet: &[u8; LENGTH]) -> io::Result<()> {
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
            payload: &buffer[..datagram.length],
        }))
    }
}

impl AsFd for BfdSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

/// A port of the range that the RFC wants, which may have gaps where others are.
fn bind_sender(socket: &Socket, address: IpAddr) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in SOURCE_PORTS {
        match socket.bind(&SocketAddr::new(address, port).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
            result => return result,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{self, A, A6, B, B6, Side, arrives};

    #[test]
    fn a_peer_gets_the_packet_with_what_proves_its_origin() {
        testing::in_two_namespaces(async |pair| {
            for (a, b) in [(IpAddr::from(A), IpAddr::from(B)), (A6.into(), B6.into())] {
                pair.enter(Side::A);
                let here = BfdSocket::open("a0", a).unwrap();
                pair.enter(Side::B);
                let there = BfdSocket::open("b0", b).unwrap();
                let mut buffer = [0; 64];
                assert_eq!(there.receive(&mut buffer).unwrap(), None, "nothing yet");
                here.send(b, &[7; LENGTH]).unwrap();
                arrives(&there).await;
                let received = there.receive(&mut buffer).unwrap();
                let wanted = Received {
                    source: a,
                    ttl: TTL,
                    payload: &[7; LENGTH],
                };
                assert_eq!(received, Some(wanted));

                // From beyond a router, as far as its TTL says.
                let socket = datagram::socket(b, Type::DGRAM, None).unwrap();
                socket.bind(&SocketAddr::new(b, 0).into()).unwrap();
                datagram::mark(&socket, b, 254).unwrap();
                socket
                    .send_to(b"far away", &SocketAddr::new(a, PORT).into())
                    .unwrap();
                arrives(&here).await;
                let received = here.receive(&mut buffer).unwrap().unwrap();
                assert_eq!((received.source, received.ttl), (b, 254));
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
                let error = BfdSocket::open("a0", b).unwrap_err().to_string();
                assert!(error.contains(name), "{error}");
            }
        });
    }

    #[test]
    fn the_second_on_a_port_is_told_which() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let _first = BfdSocket::open("a0", A.into()).unwrap();
            let error = BfdSocket::open("a0", A.into()).unwrap_err().to_string();
            assert!(error.contains("3784") && error.contains("a0"), "{error}");
        });
    }
}
