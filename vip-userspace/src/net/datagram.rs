//! Receiving with what proves where a packet came from.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, cmsg_space, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, InterfaceIndexOrAddress, Socket};
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::{GROUP_V4, GROUP_V6, TTL};

use crate::clock::now;

/// A packet that was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Datagram {
    /// Bytes of it in the buffer.
    pub(super) length: usize,
    /// Source address of the packet.
    pub(super) source: IpAddr,
    /// Where it was sent to, if the socket was asked to tell.
    pub(super) destination: Option<IpAddr>,
    /// Its TTL or hop limit, if the socket was asked to tell.
    pub(super) ttl: Option<u8>,
    /// When the kernel got it, if the socket was asked to tell; otherwise when it was read.
    pub(super) at: BootNanos,
}

/// Room for what [`tell_origin`] and [`tell_time`] ask for, where the kernel's `cmsghdr` may lie.
#[repr(align(8))]
struct Control([u8; ORIGIN_SPACE + cmsg_space::<libc::timespec>()]);

const ORIGIN_SPACE: usize = cmsg_space::<libc::in6_pktinfo>() + cmsg_space::<libc::c_int>();

const _: () = assert!(align_of::<Control>() >= align_of::<libc::cmsghdr>());

/// Opens a socket that does not block.
pub(super) fn socket(
    address: IpAddr,
    kind: socket2::Type,
    protocol: Option<socket2::Protocol>,
) -> io::Result<Socket> {
    let domain = if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, kind, protocol)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Makes it send with this TTL or hop limit, and ahead of other traffic: precedence
/// "internetwork control" (RFC 791, section 3.1) and the priority that keepalived sets.
pub(super) fn mark(socket: &Socket, address: IpAddr, ttl: u8) -> io::Result<()> {
    const TOS: u32 = 0xc0;
    const PRIORITY: u32 = 6;
    if address.is_ipv4() {
        socket.set_ttl_v4(u32::from(ttl))?;
        socket.set_tos_v4(TOS)?;
    } else {
        socket.set_unicast_hops_v6(u32::from(ttl))?;
        socket.set_tclass_v6(TOS)?;
    }
    // The TOS sets a priority too, so ours comes after it.
    socket.set_priority(PRIORITY)
}

/// The group of all VRRP routers, of the address' family.
pub(super) fn group(address: IpAddr) -> IpAddr {
    if address.is_ipv4() {
        GROUP_V4.into()
    } else {
        GROUP_V6.into()
    }
}

/// Joins that group by one socket, and makes another one send there.
pub(super) fn join(
    sender: &Socket,
    receiver: &Socket,
    interface: &str,
    address: IpAddr,
) -> io::Result<()> {
    let index = if_nametoindex(interface)?;
    let ttl = u32::from(TTL);
    match address {
        IpAddr::V4(address) => {
            receiver.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))?;
            sender.set_multicast_if_v4(&address)?;
            sender.set_multicast_ttl_v4(ttl)?;
            sender.set_multicast_loop_v4(false)?;
        }
        IpAddr::V6(_) => {
            receiver.join_multicast_v6(&GROUP_V6, index)?;
            sender.set_multicast_if_v6(index)?;
            sender.set_multicast_hops_v6(ttl)?;
            sender.set_multicast_loop_v6(false)?;
        }
    }
    Ok(())
}

/// Makes [`receive`] tell the TTL and the destination.
pub(super) fn tell_origin(socket: &Socket, address: IpAddr) -> io::Result<()> {
    if address.is_ipv4() {
        setsockopt(socket, sockopt::Ipv4RecvTtl, &true)?;
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv6RecvHopLimit, &true)?;
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    Ok(())
}

/// Makes [`receive`] tell when a packet came, however late it is read.
pub(super) fn tell_time(socket: &Socket) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::ReceiveTimestampns, &true)?)
}

/// A time of the wall clock, by that of the leases. A step of the wall clock makes it wrong by as
/// much.
fn by_boot_clock(time: TimeSpec) -> io::Result<BootNanos> {
    // The thread may lose its processor between the readings of the two clocks, and all packets
    // would seem to be younger by as much.
    const TOGETHER: Duration = Duration::from_micros(50);
    const TRIES: usize = 4;
    let mut tries = 0;
    let (wall, boot) = loop {
        let before = now();
        let wall = clock_gettime(ClockId::CLOCK_REALTIME)?;
        let boot = now();
        tries += 1;
        if boot.since(before) < TOGETHER || tries == TRIES {
            break (wall, boot);
        }
    };
    let age = wall - time;
    // Negative after a step back.
    let age = u64::try_from(age.num_nanoseconds()).unwrap_or(0);
    Ok(boot.before(Duration::from_nanos(age)))
}

/// The next packet; `None` if there is none now.
pub(super) fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<Datagram>> {
    let mut control = Control([0; _]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = match recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control.0),
        MsgFlags::empty(),
    ) {
        Ok(message) => message,
        Err(Errno::EAGAIN) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let source = message.address.as_ref().and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    });
    let Some(source) = source else {
        return Err(io::Error::other("a packet without a sender"));
    };
    let mut datagram = Datagram {
        length: message.bytes,
        source,
        destination: None,
        ttl: None,
        at: now(),
    };
    for message in message.cmsgs()? {
        match message {
            ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => {
                datagram.ttl = u8::try_from(ttl).ok();
            }
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let address = info.ipi_addr.s_addr.to_ne_bytes();
                datagram.destination = Some(address.into());
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                datagram.destination = Some(info.ipi6_addr.s6_addr.into());
            }
            ControlMessageOwned::ScmTimestampns(time) => datagram.at = by_boot_clock(time)?,
            _ => {}
        }
    }
    Ok(Some(datagram))
}
