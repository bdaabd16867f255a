//! The programs for local sockets: `connect`, `getpeername`, and the release of listeners.

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie,
};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use vip_common::abi::{Counter, Redirected};
use vip_common::connect::{self, Target};
use vip_common::env::Tables as _;
use vip_common::wire::addr::{Be16, Be32, Be128};

use crate::helpers;
use crate::maps::{self, Maps};

/// `IPPROTO_TCP`.
const TCP: u32 = 6;
/// `IPPROTO_UDP`.
const UDP: u32 = 17;

/// The address and port that an IPv4 socket connects to, or is connected to.
#[inline(always)]
fn address4(context: &bpf_sock_addr) -> (Be128, Be16) {
    let address = Be32::from_raw(context.user_ip4);
    (address.into(), Be16::from_raw(context.user_port as u16))
}

#[inline(always)]
fn address6(context: &bpf_sock_addr) -> (Be128, Be16) {
    let address = [
        context.user_ip6[0],
        context.user_ip6[1],
        context.user_ip6[2],
        context.user_ip6[3],
    ];
    let port = Be16::from_raw(context.user_port as u16);
    (Be128::from_raw(address), port)
}

#[inline(always)]
fn set4(context: &mut bpf_sock_addr, address: Be128, port: Be16) {
    let [_, _, _, address] = address.to_raw();
    context.user_ip4 = address;
    context.user_port = u32::from(port.raw());
}

#[inline(always)]
fn set6(context: &mut bpf_sock_addr, address: Be128, port: Be16) {
    let [a, b, c, d] = address.to_raw();
    context.user_ip6[0] = a;
    context.user_ip6[1] = b;
    context.user_ip6[2] = c;
    context.user_ip6[3] = d;
    context.user_port = u32::from(port.raw());
}

/// The context's fields. The verifier rewrites each access to one of the kernel's own field.
#[inline(always)]
fn fields(context: &SockAddrContext) -> &bpf_sock_addr {
    // SAFETY: the kernel's context, which nothing else uses while the program runs.
    unsafe { &*context.sock_addr }
}

/// The context's fields, for writing.
#[inline(always)]
fn fields_mut(context: &mut SockAddrContext) -> &mut bpf_sock_addr {
    // SAFETY: as in `fields`, and the context is borrowed mutably.
    unsafe { &mut *context.sock_addr }
}

#[inline(always)]
pub(crate) fn connect4(context: &mut SockAddrContext) {
    let (address, port) = address4(fields(context));
    if let Some(to) = connect(context, address, port) {
        set4(fields_mut(context), to.address, to.port);
    }
}

#[inline(always)]
pub(crate) fn connect6(context: &mut SockAddrContext) {
    // An IPv4-mapped address and the IPv4 address are the same `Be128`.
    let (address, port) = address6(fields(context));
    if let Some(to) = connect(context, address, port) {
        set6(fields_mut(context), to.address, to.port);
    }
}

#[inline(always)]
pub(crate) fn getpeername4(context: &mut SockAddrContext) {
    let (address, port) = address4(fields(context));
    if let Some((vip, port)) = peername(context, address, port) {
        set4(fields_mut(context), vip, port);
    }
}

#[inline(always)]
pub(crate) fn getpeername6(context: &mut SockAddrContext) {
    let (address, port) = address6(fields(context));
    if let Some((vip, port)) = peername(context, address, port) {
        set6(fields_mut(context), vip, port);
    }
}

/// The socket's cookie: a number that no other socket gets until the machine is rebooted.
#[inline(always)]
fn cookie(context: &SockAddrContext) -> u64 {
    // SAFETY: the program's own context.
    unsafe { bpf_get_socket_cookie(context.sock_addr.cast()) }
}

/// Whether the context's socket is a pod's: in another network namespace than the agent's, whose
/// cookie is `agent`. Before Linux 5.14 the agent cannot read its cookie, and `agent` is 0. The
/// agent then counts as being in the initial namespace, where agents run.
#[inline(always)]
fn is_pod(context: *mut c_void, agent: u64) -> bool {
    // SAFETY: a helper that takes the program's own context, or null for the initial namespace.
    let netns = |of| unsafe { bpf_get_netns_cookie(of) };
    let agent = if agent == 0 {
        netns(core::ptr::null_mut())
    } else {
        agent
    };
    netns(context) != agent
}

/// The server that a connection is redirected to, if any. The redirection is stored for
/// `getpeername`.
#[inline(always)]
fn connect(context: &SockAddrContext, vip: Be128, port: Be16) -> Option<Target> {
    let state = Maps.state();
    if fields(context).protocol != TCP {
        if fields(context).protocol == UDP && connect::is_self_test(state, vip, port) {
            maps::count(Counter::ConnectTested);
        }
        return None;
    }
    // SAFETY: a helper without arguments.
    let random = unsafe { bpf_get_prandom_u32() };
    let to = connect::redirect(
        state,
        vip,
        port,
        |own, check| {
            // A lookup in a pod's namespace does not find the node's listeners.
            if is_pod(context.as_ptr(), state.config.netns) {
                maps::listens(check)
            } else {
                helpers::listens_at(context, own)
            }
        },
        random,
    )?;
    maps::note_redirected(
        cookie(context),
        &Redirected {
            vip,
            node: to.address,
            port,
            target: to.port,
            reserved: 0,
        },
    );
    maps::count(Counter::Redirected);
    Some(to)
}

/// The VIP and port that the socket connected to, if it was redirected to `node` and `port`.
#[inline(always)]
fn peername(context: &SockAddrContext, node: Be128, port: Be16) -> Option<(Be128, Be16)> {
    let known = maps::redirected(cookie(context))?;
    // The socket may have been connected to another address since.
    (known.node == node && known.target == port).then_some((known.vip, known.port))
}

/// Stores the time if a listener of this node is closed. The kernel closes the sockets of a killed
/// process too. A program of this type cannot read the port, so any listener counts. The agent's
/// next health probe tells whether it was the API server's.
#[inline(always)]
pub(crate) fn release(context: &SockContext) {
    // SAFETY: the kernel's context, which nothing else uses while the program runs.
    let socket = unsafe { &*context.sock };
    if socket.protocol == TCP
        && socket.state == helpers::LISTEN
        && !is_pod(context.as_ptr(), Maps.state().config.netns)
    {
        maps::note_closed();
    }
}
