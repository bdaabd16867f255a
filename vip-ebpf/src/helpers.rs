//! Kernel helpers that need more than one line to call.

use core::ffi::c_void;
use core::num::NonZeroU32;

use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::helpers::generated::{
    bpf_sk_release, bpf_skb_pull_data, bpf_skc_lookup_tcp, bpf_skc_to_tcp_request_sock,
    bpf_skc_to_tcp_timewait_sock, bpf_tcp_check_syncookie,
};
use aya_ebpf::programs::{SockAddrContext, TcContext};
use vip_common::connect::Target;
use vip_common::env::{Address, Socket};
use vip_common::hash::Flow;
use vip_common::wire::addr::{Be16, Be128};
use vip_common::wire::{ethernet, ipv4, ipv6, tcp};

/// `BPF_TCP_TIME_WAIT` (include/uapi/linux/bpf.h).
const TIME_WAIT: u32 = 6;
/// `BPF_TCP_LISTEN` (include/uapi/linux/bpf.h).
pub(crate) const LISTEN: u32 = 10;
/// `BPF_TCP_NEW_SYN_RECV` (include/uapi/linux/bpf.h).
const NEW_SYN_RECV: u32 = 12;

/// The IP header of a packet.
pub(crate) enum Ip<'f> {
    V4(&'f ipv4::Header),
    V6(&'f ipv6::Header),
}

/// The headers of a TCP segment that a SYN cookie is checked against.
pub(crate) struct Headers<'f> {
    pub(crate) ip: Ip<'f>,
    pub(crate) tcp: &'f tcp::Header,
}

/// A flow for the kernel's lookup. It is aligned for words of eight bytes, in which LLVM writes
/// addresses: the verifier wants such words aligned on the stack.
#[repr(C, align(8))]
struct Tuple(bpf_sock_tuple);

/// The addresses and ports of a flow as the kernel's lookup takes them, and their length in bytes,
/// which tells the kernel their family.
#[inline(always)]
fn tuple<A: Address>(flow: &Flow<A>) -> (Tuple, u32) {
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
        (Tuple(tuple), size_of_val(&ipv6) as u32)
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
        (Tuple(tuple), size_of_val(&ipv4) as u32)
    }
}

/// Looks up this node's socket for a flow (`bpf_skc_lookup_tcp`, since Linux 5.2) in a program with
/// this context. `headers` is called only for a listener; if it returns headers, the segment is
/// checked for a SYN cookie.
#[inline(always)]
pub(crate) fn lookup<'f, A: Address>(
    context: *mut c_void,
    flow: &Flow<A>,
    headers: impl FnOnce() -> Option<Headers<'f>>,
) -> Socket {
    lookup_with(context, flow, headers, expects)
}

/// As [`lookup`], without a check for a SYN cookie and without the numbers that sockets expect.
#[inline(always)]
pub(crate) fn peek<A: Address>(context: *mut c_void, flow: &Flow<A>) -> Socket {
    lookup_with(context, flow, || None, |_, _| None)
}

/// As [`lookup`]. `expects` reads a number from a socket. The connect programs do not need it, and
/// the kernel does not allow them the helpers for it.
#[inline(always)]
fn lookup_with<'f, A: Address>(
    context: *mut c_void,
    flow: &Flow<A>,
    headers: impl FnOnce() -> Option<Headers<'f>>,
    expects: impl Fn(*mut c_void, Expected) -> Option<NonZeroU32>,
) -> Socket {
    let (mut tuple, length) = tuple(flow);
    let netns = i64::from(BPF_F_CURRENT_NETNS) as u64;
    // SAFETY: the tuple lies on the stack and has this length.
    let socket = unsafe { bpf_skc_lookup_tcp(context, &raw mut tuple.0, length, netns, 0) };
    if socket.is_null() {
        return Socket::None;
    }
    // SAFETY: not null, and held until the release below.
    let state = unsafe { (*socket).state };
    let answer = if state == TIME_WAIT {
        Socket::TimeWait {
            expects: expects(socket.cast(), Expected::Sequence),
        }
    } else if state == NEW_SYN_RECV {
        Socket::Request {
            expects: expects(socket.cast(), Expected::Acknowledgement),
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
    // SAFETY: releases the reference that the lookup took.
    unsafe { bpf_sk_release(socket.cast()) };
    answer
}

/// Offset of `skc_tw_rcv_nxt` in `struct sock_common` (include/net/sock.h), in bytes: the next
/// sequence number that a TIME-WAIT socket expects. The agent takes it from the kernel's BTF when
/// it loads the programs; 0 if the BTF does not have the field.
#[unsafe(no_mangle)]
static VIP_TW_RCV_NXT: u32 = 0;

/// Offset of `snt_isn` in `struct tcp_request_sock` (include/linux/tcp.h), in bytes: the sequence
/// number of the SYN-ACK. As above.
#[unsafe(no_mangle)]
static VIP_SNT_ISN: u32 = 0;

/// A number that a socket expects of the client's next segment.
#[derive(Clone, Copy)]
enum Expected {
    /// The sequence number, of a TIME-WAIT socket.
    Sequence,
    /// The acknowledgement number, of a request.
    Acknowledgement,
}

/// The number that a socket expects, in host byte order; `None` if the offset of its field is not
/// known.
#[inline(always)]
fn expects(socket: *mut c_void, number: Expected) -> Option<NonZeroU32> {
    let number = match number {
        Expected::Sequence => {
            // SAFETY: the socket is held. `struct tcp_timewait_sock` begins with a
            // `struct sock_common`.
            unsafe {
                field(&VIP_TW_RCV_NXT, || {
                    bpf_skc_to_tcp_timewait_sock(socket).cast()
                })
            }
        }
        Expected::Acknowledgement => {
            // SAFETY: the socket is held.
            let sent =
                unsafe { field(&VIP_SNT_ISN, || bpf_skc_to_tcp_request_sock(socket).cast()) };
            sent.map(|number| number.wrapping_add(1))
        }
    };
    // Zero instead of `None`'s number that is not there: LLVM reads that one and does not use it,
    // and the verifier refuses.
    NonZeroU32::new(number.unwrap_or(0))
}

/// Reads a number from the structure that `of` returns; `None` if its offset is not known, or the
/// structure is null.
///
/// # Safety
/// `offset` is a global of this object, and the structure has a `u32` there. The verifier checks
/// that the kernel's type has a field there.
#[inline(always)]
unsafe fn field(offset: &'static u32, of: impl FnOnce() -> *const u8) -> Option<u32> {
    // SAFETY: a reference. The read is volatile, because the agent sets the value after
    // compilation.
    let offset = unsafe { core::ptr::read_volatile(offset) };
    if offset == 0 {
        return None;
    }
    let structure = of();
    if structure.is_null() {
        return None;
    }
    // SAFETY: not null, and as the caller promises.
    let number = unsafe { structure.add(offset as usize).cast::<u32>() };
    // SAFETY: the same.
    Some(unsafe { core::ptr::read_volatile(number) })
}

/// Whether a socket listens at the flow's destination, whether or not the flow has a connection.
#[inline(always)]
pub(crate) fn listens<A: Address>(context: *mut c_void, flow: &Flow<A>) -> bool {
    // No connection has the source 0.0.0.0 or ::, so that the lookup finds only listeners.
    let without_source = Flow {
        source: A::default(),
        source_port: Be16::new(0),
        ..*flow
    };
    peek(context, &without_source) == Socket::Listener
}

/// Whether a socket listens at this address and port, in the network namespace of the caller of
/// `connect`.
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

/// Control information of a VLAN tag that the NIC took off; `None` if there was none.
#[inline(always)]
pub(crate) fn tag_beside(context: &TcContext) -> Option<Be16> {
    // SAFETY: fields of the context, which lives as long as the program runs.
    let (present, control) = unsafe {
        let buffer = context.skb.skb;
        ((*buffer).vlan_present, (*buffer).vlan_tci)
    };
    (present != 0).then(|| Be16::new(control as u16))
}

/// Number of bytes that hold all headers which a decision reads, in a packet of at least that
/// length.
const HEADERS: u32 = (ethernet::LENGTH + ipv6::LENGTH + 256) as u32;

/// Copies the headers of a socket buffer to its linear part, the only one that a program can view.
#[inline(always)]
pub(crate) fn pull_headers(context: &mut TcContext) {
    let wanted = if context.len() < HEADERS {
        context.len()
    } else {
        HEADERS
    };
    if context.data_end() - context.data() < wanted as usize {
        // SAFETY: the program's own context; no pointer into its packet exists. On failure the
        // decision sees a short frame.
        let _pulled = unsafe { bpf_skb_pull_data(context.skb.skb, wanted) };
    }
}
