//! The sockets of the peer channel: datagrams between agents, to each of them and to the group of all
//! VRRP routers, which no switch filters (RFC 4541, section 2.1.2).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Protocol, Socket, Type};
use vip_common::wire::vrrp::TTL;

use super::NetError;
use super::datagram::{self, group};
use super::filter::{At, Filter};

/// A datagram of a host of the segment: no router has passed it on (RFC 5082).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received<'a> {
    /// Source address of the packet. Anybody on the segment can write any.
    pub source: IpAddr,
    /// The data.
    pub payload: &'a [u8],
}

/// Sends and receives datagrams of agents on one NIC.
#[derive(Debug)]
pub struct HelloSocket {
    sender: Socket,
    receiver: Socket,
    address: IpAddr,
    port: u16,
}

impl HelloSocket {
    /// Opens it on an interface, for datagrams from the node's address, at this UDP port.
    ///
    /// # Errors
    /// Another program has the port; the interface or the address is not there.
    pub fn open(interface: &str, address: IpAddr, port: u16) -> Result<Self, NetError> {
        Self::try_open(interface, address, port).map_err(NetError::io(format!(
            "open UDP port {port} for hellos on {interface} ({address})"
        )))
    }

    fn try_open(interface: &str, address: IpAddr, port: u16) -> io::Result<Self> {
        let v4 = address.is_ipv4();
        let open = || {
            let socket = datagram::socket(address, Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind_device(Some(interface.as_bytes()))?;
            io::Result::Ok(socket)
        };
        let receiver = open()?;
        // One that is bound to the node's address would not get what goes to the group.
        let (ttl, destination) = if v4 { (8, 16) } else { (7, 24) };
        Filter::default()
            .byte(At::Network(ttl), TTL)
            .address(At::Network(destination), v4, &[address, group(address)])
            .attach(&receiver)?;
        if !v4 {
            receiver.set_only_v6(true)?;
        }
        let any: IpAddr = if v4 {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        receiver.bind(&SocketAddr::new(any, port).into())?;
        // What is sent comes from the node's address, of its several ones.
        let sender = open()?;
        Filter::nothing().attach(&sender)?;
        sender.bind(&SocketAddr::new(address, 0).into())?;
        datagram::mark(&sender, address, TTL)?;
        datagram::join(&sender, &receiver, interface, address)?;
        Ok(Self {
            sender,
            receiver,
            address,
            port,
        })
    }

    /// Sends a datagram to a host. Never waits.
    ///
    /// # Errors
    /// The kernel's: no route, link down, queue full.
    pub fn send(&self, host: IpAddr, datagram: &[u8]) -> io::Result<()> {
        let to = SocketAddr::new(host, self.port).into();
        self.sender.send_to(datagram, &to).map(drop)
    }

    /// Sends a datagram to all agents of the segment. Never waits.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_group(&self, datagram: &[u8]) -> io::Result<()> {
        self.send(group(self.address), datagram)
    }

    /// The next datagram; `None` if there is none now. Of one that is longer than the buffer, as much
    /// as fits.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
        let Some(datagram) = datagram::receive(&self.receiver, buffer)? else {
            return Ok(None);
        };
        Ok(Some(Received {
            source: datagram.source,
            payload: &buffer[..datagram.length],
        }))
    }
}

impl AsFd for HelloSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{self, A, A6, B, B6, Side, arrives};

    const PORT: u16 = 9643;

    #[test]
    fn agents_of_the_segment_hear_what_is_for_one_or_all_of_them() {
        testing::in_two_namespaces(async |pair| {
            for (a, b) in [(IpAddr::from(A), IpAddr::from(B)), (A6.into(), B6.into())] {
                pair.enter(Side::A);
                let here = HelloSocket::open("a0", a, PORT).unwrap();
                pair.enter(Side::B);
                let there = HelloSocket::open("b0", b, PORT).unwrap();
                let mut buffer = [0; 64];
                for (text, sent) in [
                    (&b"one"[..], here.send(b, b"one")),
                    (b"all", here.send_group(b"all")),
                ] {
                    sent.unwrap();
                    arrives(&there).await;
                    let wanted = Received {
                        source: a,
                        payload: text,
                    };
                    assert_eq!(there.receive(&mut buffer).unwrap(), Some(wanted));
                }
                assert_eq!(here.receive(&mut buffer).unwrap(), None, "its own");
            }
        });
    }

    #[test]
    fn what_a_router_has_passed_on_is_not_read() {
        testing::in_two_namespaces(async |pair| {
            for (a, b) in [(IpAddr::from(A), IpAddr::from(B)), (A6.into(), B6.into())] {
                pair.enter(Side::A);
                let here = HelloSocket::open("a0", a, PORT).unwrap();
                pair.enter(Side::B);
                let sender = datagram::socket(b, Type::DGRAM, None).unwrap();
                sender.bind(&SocketAddr::new(b, 0).into()).unwrap();
                for (ttl, text) in [(254, "far"), (TTL, "near")] {
                    datagram::mark(&sender, b, ttl).unwrap();
                    let to = SocketAddr::new(a, PORT);
                    sender.send_to(text.as_bytes(), &to.into()).unwrap();
                }
                arrives(&here).await;
                let mut buffer = [0; 64];
                let received = here.receive(&mut buffer).unwrap().unwrap();
                assert_eq!(received.payload, b"near");
            }
        });
    }
}
