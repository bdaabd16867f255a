//! Calls into the kernel that need more than one line.

use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
};
use aya_ebpf::helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie};
use aya_ebpf::programs::XdpContext;
use vip_common::hash::Flow;
use vip_common::layout::{Be16, Be32};
use vip_common::node::Socket;
use vip_common::wire::{ipv4, tcp};

/// `BPF_TCP_TIME_WAIT` and `BPF_TCP_LISTEN` (include/uapi/linux/bpf.h).
const TIME_WAIT: u32 = 6;
const LISTEN: u32 = 10;

/// This node's socket for a flow (`bpf_skc_lookup_tcp`, since Linux 5.2), which the caller has
/// to release; or null. A listener, if there is nothing nearer.
#[inline(always)]
fn find(context: &XdpContext, flow: &Flow) -> *mut bpf_sock {
    let mut tuple = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv4: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: flow.source.raw(),
                daddr: flow.destination.raw(),
                sport: flow.source_port.raw(),
                dport: flow.destination_port.raw(),
            },
        },
    };
    // The length tells the helper that the tuple is one of IPv4.
    let length = size_of::<bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1>() as u32;
    // SAFETY: the tuple lives on the stack and is as long as said.
    unsafe {
        bpf_skc_lookup_tcp(
            context.ctx.cast(),
            &raw mut tuple,
            length,
            i64::from(BPF_F_CURRENT_NETNS) as u64,
            0,
        )
    }
}

/// Whether a socket listens where the flow goes.
#[inline(always)]
pub(crate) fn listens(context: &XdpContext, flow: &Flow) -> bool {
    // Nobody has a connection from nowhere.
    let socket = find(
        context,
        &Flow {
            source: Be32::from_wire([0; 4]),
            source_port: Be16::new(0),
            ..*flow
        },
    );
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, and held until the release below.
    let listens = unsafe { (*socket).state } == LISTEN;
    // SAFETY: gives back what the lookup took.
    unsafe { bpf_sk_release(socket.cast()) };
    listens
}

/// What this node's TCP stack knows of the flow. The headers are asked for only if there is a
/// listener to check a SYN cookie against.
#[inline(always)]
pub(crate) fn lookup<'f>(
    context: &XdpContext,
    flow: &Flow,
    headers: impl FnOnce() -> Option<(&'f ipv4::Header, &'f tcp::Header)>,
) -> Socket {
    let socket = find(context, flow);
    if socket.is_null() {
        return Socket::None;
    }
    // SAFETY: not null, and held until the release below.
    let state = unsafe { (*socket).state };
    let answer = if state == TIME_WAIT {
        Socket::TimeWait
    } else if state != LISTEN {
        Socket::Connection
    } else if let Some((ip, tcp)) = headers()
        // SAFETY: the socket is held, the headers lie in the packet with their full length.
        && unsafe {
            bpf_tcp_check_syncookie(
                socket.cast(),
                core::ptr::from_ref(ip).cast_mut().cast(),
                ipv4::LENGTH as u32,
                core::ptr::from_ref(tcp).cast_mut().cast(),
                tcp::LENGTH as u32,
            )
        } == 0
    {
        Socket::Cookie
    } else {
        Socket::Listener
    };
    // SAFETY: gives back what the lookup took.
    unsafe { bpf_sk_release(socket.cast()) };
    answer
}
