//! Sends frames to clients.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::segment::ether_type;
use super::{Hop, Segment};
use crate::net::{NetError, Nic, raw};

/// Bytes of frames that may wait in queues, by the kernel's account: about 1 kB for a short frame.
/// The kernel's default has room for 250 frames.
const QUEUED: usize = 4 << 20;

/// Sends segments through a packet socket, past the node's packet filter.
///
/// The frames pass the interface's queueing discipline and egress program
/// (`PACKET_QDISC_BYPASS` is not set), because the program maps ports.
#[derive(Debug)]
pub struct Sender(Socket);

impl Sender {
    /// Opens the socket.
    ///
    /// # Errors
    /// No `CAP_NET_RAW` or no `CAP_NET_ADMIN` (for the size of the queue).
    pub fn open() -> Result<Self, NetError> {
        Self::try_open().map_err(NetError::io("open a packet socket to send nudges"))
    }

    fn try_open() -> io::Result<Self> {
        // Protocol 0, so it receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::SndBufForce, &QUEUED)?;
        Ok(Self(socket))
    }

    /// Sends a segment to the next hop. Does not wait.
    ///
    /// # Errors
    /// - `WouldBlock`: too many frames wait. Poll the socket ([`AsFd`]) until it can be written.
    /// - `ENOBUFS`: the queueing discipline is full, or the egress program has dropped the frame. The
    ///   caller may try again.
    /// - `ENETDOWN`, `ENXIO`: the interface is down or gone.
    /// - `InvalidInput`: the ends of the segment are of different families.
    pub fn send(&self, segment: &Segment, hop: &Hop) -> io::Result<()> {
        let frame = segment.frame(hop)?;
        let to = raw::link_layer(hop.interface, ether_type(segment.source.ip()))?;
        self.0.send_to(frame.as_slice(), &to).map(drop)
    }

    /// Sends a segment for this host itself or for one of its pods: from the NIC's Ethernet address to
    /// the same address. The egress program puts such a frame into the NIC's ingress, as if the
    /// segment's source had sent it. Without the program, it goes out, and no switch sends it on.
    ///
    /// The source must not be a VIP: the kernel drops incoming packets from its own addresses
    /// (`fib_validate_source`, net/ipv4/fib_frontend.c).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_here(&self, segment: &Segment, nic: &Nic) -> io::Result<()> {
        let hop = Hop {
            interface: nic.index,
            source: nic.mac,
            destination: nic.mac,
        };
        self.send(segment, &hop)
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
