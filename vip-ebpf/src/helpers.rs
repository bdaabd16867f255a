//! Calls into the kernel that need more than one line.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::helpers::generated::{
    bpf_sk_release, bpf_skb_pull_data, bpf_skc_lookup_tcp, bpf_skc_to_tcp_timewait_sock,
    bpf_tcp_check_syncookie,
};
use aya_ebpf::programs::{SockAddrContext, TcContext};
use vip_common::connect::Target;
use vip_common::env::{Address, Socket};
use vip_common::hash::Flow;
use vip_common::wire::addr::{Be16, Be128};
use vip_common::wire::{ethernet, ipv4, ipv6, tcp};

/// `BPF_TCP_TIME_WAIT` and `BPF_TCP_LISTEN` (include/uapi/linux/bpf.h).
const TIME_WAIT: u32 = 6;
pub(crate) const LISTEN: u32 = 10;

/// The IP header of a packet.
pub(crate) enum Ip<'f> {
    V4(&'f ipv4::Header),
    V6(&'f ipv6::Header),
}

/// The headers of a TCP segment.
pub(crate) struct Headers<'f> {
    pub(crate) ip: Ip<'f>,
    pub(crate) tcp: &'f tcp::Header,
}

/// The addresses and ports of a flow as the kernel wants them, and their length, which says of
/// which family they are.
#[inline(always)]
fn tuple<A: Address>(flow: &Flow<A>) -> (bpf_sock_tuple, u32) {
    let (source, destination): (Be128, Be128) = (flow.source.into(), flow.destination.into());
    let (source, destination) = (source.to_raw(), destination.to_raw());
    let (sport, dport) = (flow.source_port.raw(), flow.destination_port.raw());
    if A::IPV6 {
        let ipv6 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
            saddr: source,
            daddr: destination,
            sport,
            dport,
        };
        let tuple = bpf_sock_tuple {
            __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv6 },
        };
        (tuple, size_of_val(&ipv6) as u32)
    } else {
        let ipv4 = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
            saddr: source[3],
            daddr: destination[3],
            sport,
            dport,
        };
        let tuple = bpf_sock_tuple {
            __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 { ipv4 },
        };
        (tuple, size_of_val(&ipv4) as u32)
    }
}

/// What this node's TCP stack knows of the flow (`bpf_skc_lookup_tcp`, since Linux 5.2), asked
/// by a program with this context. The headers are asked for only if there is a listener to
/// check a SYN cookie against.
#[inline(always)]
pub(crate) fn lookup<'f, A: Address>(
    context: *mut c_void,
    flow: &Flow<A>,
    headers: impl FnOnce() -> Option<Headers<'f>>,
) -> Socket {
    look(context, flow, headers, expected)
}

/// As [`lookup`]; `expected` says what the remains of a connection expect, for programs that want
/// to know it. Those for local sockets do not, and are not let.
#[inline(always)]
fn look<'f, A: Address>(
    context: *mut c_void,
    flow: &Flow<A>,
    headers: impl FnOnce() -> Option<Headers<'f>>,
    expected: impl FnOnce(*mut c_void) -> Option<u32>,
) -> Socket {
    let (mut tuple, length) = tuple(flow);
    let netns = i64::from(BPF_F_CURRENT_NETNS) as u64;
    // SAFETY: the tuple lives on the stack and is as long as said.
    let socket = unsafe { bpf_skc_lookup_tcp(context, &raw mut tuple, length, netns, 0) };
    if socket.is_null() {
        return Socket::None;
    }
    // SAFETY: not null, and held until the release below.
    let state = unsafe { (*socket).state };
    let answer = if state == TIME_WAIT {
        Socket::TimeWait {
            expects: expected(socket.cast()),
        }
    } else if state != LISTEN {
        Socket::Connection
    } else if let Some(Headers { ip, tcp }) = headers() {
        let (ip, length): (*const c_void, usize) = match ip {
            Ip::V4(ip) => (core::ptr::from_ref(ip).cast(), ipv4::LENGTH),
            Ip::V6(ip) => (core::ptr::from_ref(ip).cast(), ipv6::LENGTH),
        };
        // SAFETY: the socket is held, the headers lie in the packet with their full length.
        let valid = unsafe {
            bpf_tcp_check_syncookie(
                socket.cast(),
                ip.cast_mut(),
                length as u32,
                core::ptr::from_ref(tcp).cast_mut().cast(),
                tcp::LENGTH as u32,
            )
        };
        if valid == 0 {
            Socket::Cookie
        } else {
            Socket::Listener
        }
    } else {
        Socket::Listener
    };
    // SAFETY: gives back what the lookup took.
    unsafe { bpf_sk_release(socket.cast()) };
    answer
}

/// Where `struct sock_common` has `skc_tw_rcv_nxt` (include/net/sock.h), in bytes. Set by the
/// agent from the kernel's description of its types; 0 where that does not say.
#[unsafe(no_mangle)]
static VIP_TW_RCV_NXT: u32 = 0;

/// The sequence number that the remains of a connection expect next.
#[inline(always)]
fn expected(socket: *mut c_void) -> Option<u32> {
    // SAFETY: a global; volatile, as the agent and not the compiler knows its value. The verifier
    // knows it too, and looks whether there is a field at that offset.
    let offset = unsafe { core::ptr::read_volatile(&raw const VIP_TW_RCV_NXT) };
    if offset == 0 {
        return None;
    }
    // SAFETY: the socket is held.
    let remains = unsafe { bpf_skc_to_tcp_timewait_sock(socket) };
    if remains.is_null() {
        return None;
    }
    // SAFETY: not null, and `struct tcp_timewait_sock` begins with a `struct sock_common`.
    let expects = unsafe { remains.cast::<u8>().add(offset as usize).cast::<u32>() };
    // SAFETY: the field's type is `u32`.
    Some(unsafe { core::ptr::read_volatile(expects) })
}

/// Whether a socket listens where the flow goes, whatever else there is for the flow.
#[inline(always)]
pub(crate) fn listens<A: Address>(context: *mut c_void, flow: &Flow<A>) -> bool {
    // Nobody has a connection from nowhere.
    let from_nowhere = Flow {
        source: A::default(),
        source_port: Be16::new(0),
        ..*flow
    };
    look(context, &from_nowhere, || None, |_| None) == Socket::Listener
}

/// Whether a socket listens at an address and port of the caller's network namespace.
#[inline(always)]
pub(crate) fn listens_at(context: &SockAddrContext, at: Target) -> bool {
    fn to<A: Address>(destination: A, at: Target) -> Flow<A> {
        Flow {
            source: A::default(),
            destination,
            source_port: Be16::new(0),
            destination_port: at.port,
        }
    }
    let context = context.sock_addr.cast();
    match at.address.ipv4() {
        Some(address) => listens(context, &to(address, at)),
        None => listens(context, &to(at.address, at)),
    }
}

/// Control information of a tag that lies beside the frame, in network byte order.
#[inline(always)]
pub(crate) fn tag_beside(context: &TcContext) -> Option<Be16> {
    // SAFETY: fields of the context, which lives as long as the program runs.
    let (present, control) = unsafe {
        let buffer = context.skb.skb;
        ((*buffer).vlan_present, (*buffer).vlan_tci)
    };
    (present != 0).then(|| Be16::new(control as u16))
}

/// Bytes that hold all headers that are looked at, if the packet has as many.
const HEADERS: u32 = (ethernet::LENGTH + ipv6::LENGTH + 256) as u32;

/// Makes the headers of a socket buffer lie in its first piece, where a program can see them.
#[inline(always)]
pub(crate) fn pull_headers(context: &mut TcContext) {
    let wanted = if context.len() < HEADERS {
        context.len()
    } else {
        HEADERS
    };
    if context.data_end() - context.data() < wanted as usize {
        // SAFETY: the program's own context, no pointer into whose packet exists. If it cannot
        // be, the decision sees a short frame.
        let _pulled = unsafe { bpf_skb_pull_data(context.skb.skb, wanted) };
    }
}
