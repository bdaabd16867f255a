//! Is a host there? ICMP echo (RFC 792, RFC 4443), which its kernel answers whatever has become
//! of its programs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Protocol, Socket, Type};
use vip_common::wire::{Frame as _, ipv4};

use super::filter::{At, Filter};
use super::{NetError, datagram};
use crate::random;

/// Sends echo requests, and receives the answers to them.
#[derive(Debug)]
pub struct EchoSocket {
    socket: Socket,
    mark: Mark,
    v4: bool,
}

/// What requests carry and answers bring back. It tells them from those to others, who may ping as
/// well, and from answers to nothing: a host that is dead must not look alive by them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    /// ICMP's own field.
    identifier: u16,
    /// The request's data.
    data: u32,
}

impl Mark {
    /// One that nobody can guess.
    fn new() -> Self {
        let secret = random::secret();
        Self {
            identifier: secret as u16,
            data: (secret >> 32) as u32,
        }
    }
}

/// Length of a request and of its answer.
const LENGTH: usize = 12;

/// Types of request and reply.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);

impl EchoSocket {
    /// Opens it on an interface, for the node's address, to ask these hosts.
    ///
    /// # Errors
    /// No `CAP_NET_RAW`; the interface or the address is not there.
    pub fn open(interface: &str, address: IpAddr, hosts: &[IpAddr]) -> Result<Self, NetError> {
        Self::try_open(interface, address, hosts, Mark::new()).map_err(NetError::io(format!(
            "open an ICMP socket on {interface} ({address})"
        )))
    }

    fn try_open(
        interface: &str,
        address: IpAddr,
        hosts: &[IpAddr],
        mark: Mark,
    ) -> io::Result<Self> {
        let v4 = address.is_ipv4();
        let protocol = if v4 {
            Protocol::ICMPV4
        } else {
            Protocol::ICMPV6
        };
        let socket = datagram::socket(address, Type::RAW, Some(protocol))?;
        only_replies(v4, hosts, mark).attach(&socket)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.bind(&SocketAddr::new(address, 0).into())?;
        Ok(Self { socket, mark, v4 })
    }

    /// Receives the answers of these hosts from now on.
    ///
    /// # Errors
    /// The kernel's: no memory.
    pub fn set_hosts(&self, hosts: &[IpAddr]) -> io::Result<()> {
        only_replies(self.v4, hosts, self.mark).attach(&self.socket)
    }

    /// Asks a host. Never waits.
    ///
    /// # Errors
    /// The kernel's: no route, link down, queue full.
    pub fn ask(&self, host: IpAddr, sequence: u16) -> io::Result<()> {
        let mut request = [0; LENGTH];
        request[0] = if self.v4 { V4.0 } else { V6.0 };
        request[4..6].copy_from_slice(&self.mark.identifier.to_be_bytes());
        request[6..8].copy_from_slice(&sequence.to_be_bytes());
        request[8..].copy_from_slice(&self.mark.data.to_be_bytes());
        // For IPv6 the kernel fills it in (RFC 3542, section 3.1).
        if self.v4 {
            let sum: u32 = request
                .chunks_exact(2)
                .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
                .sum();
            let sum = (sum & 0xffff) + (sum >> 16);
            request[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        }
        self.socket
            .send_to(&request, &SocketAddr::new(host, 0).into())
            .map(drop)
    }

    /// The next host that answered, and the sequence number it answered to; `None` if nobody
    /// has. `buffer` may be short: only headers are looked at.
    ///
    /// # Errors
    /// The kernel's.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(IpAddr, u16)>> {
        let Some(datagram) = datagram::receive(&self.socket, buffer)? else {
            return Ok(None);
        };
        // Anything else can only have come before the filter was there.
        let sequence = self.reply(&buffer[..datagram.length]);
        Ok(sequence.map(|sequence| (datagram.source, sequence)))
    }

    /// The sequence number, if it is an answer to this socket.
    fn reply(&self, packet: &[u8]) -> Option<u16> {
        let start = if self.v4 {
            packet.view::<ipv4::Header>(0)?.header_length()
        } else {
            0
        };
        let message: &[u8; LENGTH] = packet.get(start..)?.first_chunk()?;
        let kind = if self.v4 { V4.1 } else { V6.1 };
        let ours = message[0] == kind
            && message[4..6] == self.mark.identifier.to_be_bytes()
            && message[8..] == self.mark.data.to_be_bytes();
        ours.then(|| u16::from_be_bytes([message[6], message[7]]))
    }
}

/// A raw socket gets all the ICMP that comes to the node. This filter, run by the kernel, leaves
/// it the answers to its own questions, so that others' pings do not wake whoever waits.
fn only_replies(v4: bool, hosts: &[IpAddr], mark: Mark) -> Filter {
    let (kind, source) = if v4 { (V4.1, 12) } else { (V6.1, 8) };
    // The data of a raw socket of IPv4 begin with the IP header, those of IPv6 behind it.
    let at = |offset| {
        if v4 {
            At::BehindIpv4(offset)
        } else {
            At::Data(offset)
        }
    };
    Filter::default()
        .byte(at(0), kind)
        .half(at(4), mark.identifier)
        .word(at(8), mark.data)
        .address(At::Network(source), v4, hosts)
}

impl AsFd for EchoSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{self, A, A6, B, B6, Side, arrives};

    #[test]
    fn a_host_answers_whoever_asks() {
        testing::in_two_namespaces(async |pair| {
            for (a, b) in [(IpAddr::from(A), IpAddr::from(B)), (A6.into(), B6.into())] {
                pair.enter(Side::A);
                let socket = EchoSocket::open("a0", a, &[b]).unwrap();
                let mut buffer = [0; 128];
                assert_eq!(socket.receive(&mut buffer).unwrap(), None, "nothing yet");
                socket.ask(b, 7).unwrap();
                arrives(&socket).await;
                assert_eq!(socket.receive(&mut buffer).unwrap(), Some((b, 7)));
                assert_eq!(socket.receive(&mut buffer).unwrap(), None, "no more");
            }
        });
    }

    #[test]
    fn other_icmp_does_not_wake_who_waits_for_an_answer() {
        testing::in_two_namespaces(async |pair| {
            for (a, b) in [(IpAddr::from(A), IpAddr::from(B)), (A6.into(), B6.into())] {
                pair.enter(Side::A);
                let open = |identifier, data, hosts: &[IpAddr]| {
                    let mark = Mark { identifier, data };
                    EchoSocket::try_open("a0", a, hosts, mark).unwrap()
                };
                let ours = open(1, 1, &[b]);
                let others = [open(2, 1, &[b]), open(1, 2, &[b])];
                let elsewhere = open(1, 1, &[a]);
                pair.enter(Side::B);
                let mark = Mark {
                    identifier: 1,
                    data: 1,
                };
                let there = EchoSocket::try_open("b0", b, &[a], mark).unwrap();
                let mut buffer = [0; 128];
                // A's kernel has handed out all of these before it sees the answer below.
                for (asks, who) in [(&others[0], b), (&others[1], b), (&there, a)] {
                    asks.ask(who, 7).unwrap();
                    arrives(asks).await;
                    assert_eq!(asks.receive(&mut buffer).unwrap(), Some((who, 7)));
                }
                ours.ask(b, 8).unwrap();
                arrives(&ours).await;
                // Below the check of `receive`: the first that the kernel queued.
                let first = datagram::receive(&ours.socket, &mut buffer)
                    .unwrap()
                    .unwrap();
                assert_eq!(ours.reply(&buffer[..first.length]), Some(8));
                let none = elsewhere.receive(&mut buffer).unwrap();
                assert_eq!(none, None, "from a host that it does not ask");
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
                let error = EchoSocket::open("a0", b, &[]).unwrap_err().to_string();
                assert!(error.contains(name), "{error}");
            }
        });
    }
}
