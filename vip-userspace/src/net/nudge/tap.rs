//! Tells which connections this node has reset.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vip_common::wire::addr::Be16;
use vip_common::wire::{Frame as _, ethernet, ipv4, ipv6, tcp};

use crate::net::filter::{At, Filter};
use crate::net::frames::untagged;
use crate::net::{NetError, Nic, raw};

/// As much of a frame as is looked at, in bytes. An IPv4 header has at most 60.
const FRAME: usize = ethernet::LENGTH + 60 + size_of::<tcp::Ports>();

/// Bytes of frames that may wait to be read, by the kernel's account: about 1 kB for a reset. The
/// kernel's default has room for 250 resets, and thousands may leave in a moment.
const QUEUED: usize = 8 << 20;

/// Receives copies of the resets that leave a NIC from the VIPs.
///
/// While it is open, the kernel runs its filter for each frame in both directions, so it should be
/// open for seconds only.
///
/// Not seen:
/// - resets that the XDP program makes (`XDP_TX`): no packet socket sees them;
/// - packets with IPv6 extension headers, which Linux does not put into resets.
///
/// The kernel copies a frame after the egress program, so where that maps ports, the VIP's port is the
/// one that the client knows.
#[derive(Debug)]
pub struct ResetTap(AsyncFd<Socket>);

impl ResetTap {
    /// Opens it.
    ///
    /// # Errors
    /// No `CAP_NET_RAW` or no `CAP_NET_ADMIN` (for the size of the queue), or the NIC is gone.
    pub fn open(nic: &Nic, vips: &[IpAddr]) -> Result<Self, NetError> {
        let what = format!("open a packet socket for resets on {}", nic.name);
        Self::try_open(nic.index, vips).map_err(NetError::io(what))
    }

    fn try_open(interface: u32, vips: &[IpAddr]) -> io::Result<Self> {
        // Outgoing frames come only to sockets of all protocols (`dev_queue_xmit_nit`,
        // net/core/dev.c).
        const ALL: Be16 = Be16::new(libc::ETH_P_ALL as u16);
        // Protocol 0 gets nothing until it is bound; else it would get that of all NICs.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::RcvBufForce, &QUEUED)?;
        let filter = resets_from(vips).finish();
        let filter: Vec<SockFilter> = untagged().into_iter().chain(filter).collect();
        socket.attach_filter(&filter)?;
        socket.bind(&raw::link_layer(interface, ALL)?)?;
        Ok(Self(raw::readable(socket)?))
    }

    /// The ends of the next connection that is reset: the VIP's end and the client's. A connection may
    /// come more than once. Cancel-safe.
    ///
    /// # Errors
    /// The kernel's: link down.
    pub async fn receive(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        self.0.async_io(Interest::READABLE, read).await
    }

    /// The same, if there is one now.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn try_receive(&self) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
        match self.0.try_io(Interest::READABLE, read) {
            Ok(ends) => Ok(Some(ends)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn read(mut socket: &Socket) -> io::Result<(SocketAddr, SocketAddr)> {
    let mut buffer = [0; FRAME];
    loop {
        let length = socket.read(&mut buffer)?;
        if let Some(ends) = ends(&buffer[..length]) {
            return Ok(ends);
        }
    }
}

/// Lets through outgoing TCP segments from these addresses that have the flag RST.
fn resets_from(vips: &[IpAddr]) -> Filter {
    const ETHERNET: u32 = ethernet::LENGTH as u32;
    /// Where a TCP header has its flags.
    const FLAGS: u32 = 13;
    let v4 = Filter::default()
        .byte(At::Data(ETHERNET + 9), ipv4::protocol::TCP)
        .any_bit(At::BehindIpv4InFrame(FLAGS), tcp::RST)
        .address(At::Data(ETHERNET + 12), true, vips);
    let v6 = Filter::default()
        .byte(At::Data(ETHERNET + 6), ipv6::next_header::TCP)
        .any_bit(At::Data(ETHERNET + ipv6::LENGTH as u32 + FLAGS), tcp::RST)
        .address(At::Data(ETHERNET + 8), false, vips);
    Filter::default().outgoing().of_family(v4, v6)
}

/// Source and destination of a TCP segment; `None` if the frame has none, or ends before the ports.
fn ends(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let ether_type = frame.view::<ethernet::Header>(0)?.ether_type();
    let (source, destination, length): (IpAddr, IpAddr, _) =
        if ether_type == ethernet::ether_type::IPV4 {
            let ip = frame.view::<ipv4::Header>(ethernet::LENGTH)?;
            // Only the first fragment has the ports, and TCP sends none.
            if ip.is_fragment() {
                return None;
            }
            let [source, destination] = [ip.source(), ip.destination()];
            (
                IpAddr::V4(source.into()),
                IpAddr::V4(destination.into()),
                ip.header_length(),
            )
        } else {
            let ip = frame.view::<ipv6::Header>(ethernet::LENGTH)?;
            let [source, destination] = [ip.source(), ip.destination()];
            let [source, destination] = [source, destination].map(|end| end.to_wire());
            (source.into(), destination.into(), ipv6::LENGTH)
        };
    let ports = frame.view::<tcp::Ports>(ethernet::LENGTH + length)?;
    Some((
        SocketAddr::new(source, ports.source().get()),
        SocketAddr::new(destination, ports.destination().get()),
    ))
}
