//! `connect` and `getpeername` of local sockets: the fields of their context, in and out; and the
//! end of those that listened.

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

/// The address that a socket connects to, or is connected to, with its port.
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

/// The context's fields. The verifier turns each access into one of the field behind it.
#[inline(always)]
fn fields(context: &SockAddrContext) -> &bpf_sock_addr {
    // SAFETY: the kernel's context, which nothing else has while the program runs.
    unsafe { &*context.sock_addr }
}

/// The same, to change them.
#[inline(always)]
fn fields_mut(context: &mut SockAddrContext) -> &mut bpf_sock_addr {
    // SAFETY: as above.
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
    // An IPv4 address as IPv6 has it is the same here as one of IPv4.
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

/// The socket's own number, for as long as the machine is up.
#[inline(always)]
fn cookie(context: &SockAddrContext) -> u64 {
    // SAFETY: the program's own context.
    unsafe { bpf_get_socket_cookie(context.sock_addr.cast()) }
}

/// Whether the socket of a program's context is in another network namespace than the agent, whose
/// number is `agent`. Before Linux 5.14 the agent cannot know that: 0. Then it counts as being in
/// the first one, where agents run.
#[inline(always)]
fn is_pod(context: *mut c_void, agent: u64) -> bool {
    // SAFETY: a helper that takes the program's own context, or nothing for the first one.
    let number = |of| unsafe { bpf_get_netns_cookie(of) };
    let agent = if agent == 0 {
        number(core::ptr::null_mut())
    } else {
        agent
    };
    number(context) != agent
}

/// Where a connection goes, if not where it says; noted for `getpeername`.
#[inline(always)]
fn connect(context: &SockAddrContext, vip: Be128, port: Be16) -> Option<Target> {
    let state = Maps.state();
    if fields(context).protocol != TCP {
        if fields(context).protocol == UDP && connect::is_self_test(state, vip, port) {
            maps::count(Counter::ConnectTested);
        }
        return None;
    }
    // SAFETY: helpers that take the program's own context, or nothing.
    let random = unsafe { bpf_get_prandom_u32() };
    let to = connect::redirect(
        state,
        vip,
        port,
        |own, check| {
            // A pod's namespace does not have the node's listeners.
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

/// The VIP that the socket believes to be connected to, if it really is connected to this node.
#[inline(always)]
fn peername(context: &SockAddrContext, node: Be128, port: Be16) -> Option<(Be128, Be16)> {
    let known = maps::redirected(cookie(context))?;
    // The socket may have been connected to something else since.
    (known.node == node && known.target == port).then_some((known.vip, known.port))
}

/// A socket of this node or of a pod is closed by its last holder; a process that is killed closes
/// all that it has. Which port it had, a program here may not know. So any that listened counts,
/// and the agent's next probe tells whether it was the API server's.
#[inline(always)]
pub(crate) fn release(context: &SockContext) {
    // SAFETY: the kernel's context, which nothing else has while the program runs.
    let socket = unsafe { &*context.sock };
    if socket.protocol == TCP
        && socket.state == helpers::LISTEN
        && !is_pod(context.as_ptr(), Maps.state().config.netns)
    {
        maps::note_closed();
    }
}
