//! The programs that tell the agent of this node's connections. They have an object of their own,
//! because the agent also works without them.
//!
//! - An iterator over the kernel's TCP sockets (Documentation/bpf/bpf_iterators.rst): all of them, with
//!   their numbers, whenever the agent reads.
//! - A program at the tracepoint `inet_sock_set_state`, at which a connection comes or goes. It costs a
//!   comparison or two for sockets of other programs and namespaces.
#![no_std]
#![no_main]

mod object;

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_RB_NO_WAKEUP, seq_file};
use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_skc_to_tcp_sock};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, RingBuf};
use vip_common::roster::{Connection, Layout, PORTS, Wanted};

/// Which connections are looked for.
#[map]
static VIP_ROSTER_WANTED: Array<Wanted> = Array::with_max_entries(1, 0);

/// Connections that have come or gone, for the agent to read: some 4,000.
#[map]
static VIP_ROSTER_CHANGES: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

/// Changes that had no room there.
#[map]
static VIP_ROSTER_LOST: Array<u64> = Array::with_max_entries(1, 0);

/// Where the kernel keeps what is read here. The agent takes it from the kernel's BTF when it loads
/// the program.
#[unsafe(no_mangle)]
static VIP_ROSTER_LAYOUT: Layout = Layout::UNKNOWN;

/// `struct bpf_iter__tcp` (net/ipv4/tcp_ipv4.c).
#[repr(C)]
struct Context {
    meta: *const Meta,
    /// `struct sock_common`; null at the end.
    socket: *const c_void,
    uid: u32,
}

/// `struct bpf_iter_meta` (include/linux/bpf.h).
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
    session_id: u64,
    seq_num: u64,
}

/// Arguments of the tracepoint `inet_sock_set_state` (include/trace/events/sock.h).
#[repr(C)]
struct StateChange {
    /// `struct sock`.
    socket: *const c_void,
    before: u64,
    after: u64,
}

/// Whether a connection is open in a state: ESTABLISHED and CLOSE-WAIT (include/net/tcp_states.h).
#[inline(always)]
const fn is_open(state: u64) -> bool {
    state == 1 || state == 8
}

/// Writes one connection. The kernel calls it for each TCP socket of the reader's network namespace.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
extern "C" fn vip_roster(context: *const Context) -> i32 {
    // SAFETY: the kernel's context. Its fields are read one by one, as the verifier wants it.
    let (meta, socket) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*context).meta),
            core::ptr::read_volatile(&raw const (*context).socket),
        )
    };
    let layout = layout();
    let Some(socket) = tcp_socket(socket) else {
        return 0;
    };
    let state: u8 = read(socket, layout.state);
    let port: u16 = read(socket, layout.port);
    let Some(wanted) = VIP_ROSTER_WANTED.get(0) else {
        return 0;
    };
    if !is_open(state.into()) || !is_wanted(port, wanted) {
        return 0;
    }
    let connection = connection(socket, &layout, port);
    // SAFETY: the kernel's `seq_file`, and a value on the stack of this length.
    unsafe {
        let seq = core::ptr::read_volatile(&raw const (*meta).seq);
        bpf_seq_write(
            seq,
            (&raw const connection).cast(),
            size_of::<Connection>() as u32,
        );
    }
    0
}

/// Tells of a connection that has come or gone. The kernel calls it for each TCP socket of the machine
/// whose state changes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "tp_btf/inet_sock_set_state")]
extern "C" fn vip_roster_changes(context: *const StateChange) -> i32 {
    // SAFETY: as in `vip_roster`.
    let (socket, before, after) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*context).socket),
            core::ptr::read_volatile(&raw const (*context).before),
            core::ptr::read_volatile(&raw const (*context).after),
        )
    };
    if is_open(before) == is_open(after) {
        return 0;
    }
    let layout = layout();
    let Some(socket) = tcp_socket(socket) else {
        return 0;
    };
    let port: u16 = read(socket, layout.port);
    let net: *const c_void = read(socket, layout.net);
    let netns: u32 = read(net, layout.netns);
    let Some(wanted) = VIP_ROSTER_WANTED.get(0) else {
        return 0;
    };
    if netns != wanted.netns || !is_wanted(port, wanted) {
        return 0;
    }
    let change = Connection {
        ended: is_open(before).into(),
        ..connection(socket, &layout, port)
    };
    // The agent looks by itself.
    let told = VIP_ROSTER_CHANGES.output::<Connection>(&change, u64::from(BPF_RB_NO_WAKEUP));
    if told.is_err()
        && let Some(lost) = VIP_ROSTER_LOST.get_ptr_mut(0)
    {
        // SAFETY: a value of the map. That it grows tells the agent enough, so two CPUs may count one.
        unsafe { *lost += 1 };
    }
    0
}

#[inline(always)]
fn layout() -> Layout {
    // SAFETY: a global. The read is volatile, because the agent sets the value after compilation.
    unsafe { core::ptr::read_volatile(&raw const VIP_ROSTER_LAYOUT) }
}

/// The whole socket; `None` for one in TIME-WAIT, of another protocol, and at the end of an iteration.
#[inline(always)]
fn tcp_socket(socket: *const c_void) -> Option<*const c_void> {
    if socket.is_null() {
        return None;
    }
    // SAFETY: a helper that takes the context's socket, which is not null.
    let socket: *const c_void = unsafe { bpf_skc_to_tcp_sock(socket.cast_mut()) }.cast();
    (!socket.is_null()).then_some(socket)
}

#[inline(always)]
fn connection(socket: *const c_void, layout: &Layout, port: u16) -> Connection {
    Connection {
        client: read_ipv6(socket, layout.client),
        server: read_ipv6(socket, layout.server),
        client_v4: read(socket, layout.client_v4),
        server_v4: read(socket, layout.server_v4),
        unacknowledged: read(socket, layout.unacknowledged),
        expected: read(socket, layout.expected),
        client_port: read(socket, layout.client_port),
        port,
        family: read(socket, layout.family),
        ended: 0,
    }
}

/// Whether a server of this node listens at a port.
#[inline(always)]
fn is_wanted(port: u16, wanted: &Wanted) -> bool {
    // The verifier follows each way out, and not each combination of comparisons.
    for place in 0..PORTS {
        if wanted.ports[place] == port {
            return port != 0;
        }
    }
    false
}

/// Reads a field of a socket. The verifier knows the offset, as a part of the program's read-only
/// data, and looks it up in the kernel's types. A bad address reads as zero.
#[inline(always)]
fn read<T: Copy>(socket: *const c_void, offset: u32) -> T {
    // SAFETY: as the verifier has seen. Volatile: one load of this width.
    unsafe { core::ptr::read_volatile(socket.byte_add(offset as usize).cast()) }
}

/// Reads an IPv6 address, word by word as the kernel's type has it.
#[inline(always)]
fn read_ipv6(socket: *const c_void, offset: u32) -> [u32; 4] {
    [
        read(socket, offset),
        read(socket, offset + 4),
        read(socket, offset + 8),
        read(socket, offset + 12),
    ]
}
