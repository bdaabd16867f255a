//! What raw sockets need `unsafe` for.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::libc;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vip_common::wire::addr::Be16;

/// Hands a non-blocking socket to tokio, to wait until it can be read. Must be called within
/// a tokio runtime.
pub(super) fn readable(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: `Socket` owns its descriptor, always tells the same one, and is only ever
    // borrowed from the `AsyncFd`, so it is closed after it is deregistered.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    Ok(registered?)
}

/// The kernel's number of this thread's network namespace (Linux 5.14).
///
/// # Errors
/// The kernel has none, or no socket can be had.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the value and its length lie on the stack, and the kernel writes no more than it
    // is told to.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Address of a packet socket: all frames of one EtherType on an interface.
pub(super) fn link_layer(interface: u32, ether_type: Be16) -> io::Result<SockAddr> {
    let interface = libc::c_int::try_from(interface).map_err(io::Error::other)?;
    // SAFETY: the storage is zeroed, large enough and aligned for any kind of address; all
    // zeros is a valid `sockaddr_ll`; the length is that of what was written.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = &mut *storage.cast::<libc::sockaddr_ll>();
            address.sll_family = libc::AF_PACKET as libc::sa_family_t;
            address.sll_protocol = ether_type.raw();
            address.sll_ifindex = interface;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}
