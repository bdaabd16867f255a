//! The program that reads this node's connections for the agent: an iterator over the kernel's TCP
//! sockets (Documentation/bpf/bpf_iterators.rst). It has an object of its own, because the agent also
//! works without it.
//!
//! Nothing runs when a connection comes or goes. The agent reads as often as it likes, so that a
//! flood of connections costs no more than a scan.
#![no_std]
#![no_main]

mod object;

use core::ffi::c_void;

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_skc_to_tcp_sock};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use vip_common::roster::{Connection, Layout, PORTS, Ports};

/// The ports of the servers.
#[map]
static VIP_ROSTER_PORTS: Array<Ports> = Array::with_max_entries(1, 0);

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

/// Connection states (include/net/tcp_states.h): ESTABLISHED, and CLOSE-WAIT.
const OPEN: [u8; 2] = [1, 8];

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
    if socket.is_null() {
        return 0;
    }
    // SAFETY: a helper that takes the context's socket. It returns null for one that is no whole
    // socket, such as one in TIME-WAIT.
    let socket: *const c_void = unsafe { bpf_skc_to_tcp_sock(socket.cast_mut()) }.cast();
    if socket.is_null() {
        return 0;
    }
    // SAFETY: a global. The read is volatile, because the agent sets the value after compilation.
    let layout = unsafe { core::ptr::read_volatile(&raw const VIP_ROSTER_LAYOUT) };
    let state: u8 = read(socket, layout.state);
    let port: u16 = read(socket, layout.port);
    if !OPEN.contains(&state) || !is_wanted(port) {
        return 0;
    }
    let connection = Connection {
        client: read_ipv6(socket, layout.client),
        server: read_ipv6(socket, layout.server),
        client_v4: read(socket, layout.client_v4),
        server_v4: read(socket, layout.server_v4),
        unacknowledged: read(socket, layout.unacknowledged),
        expected: read(socket, layout.expected),
        client_port: read(socket, layout.client_port),
        port,
        family: read(socket, layout.family),
        reserved: 0,
    };
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

/// Whether a server of this node listens at a port.
#[inline(always)]
fn is_wanted(port: u16) -> bool {
    let Some(ports) = VIP_ROSTER_PORTS.get(0) else {
        return false;
    };
    // The verifier follows each way out, and not each combination of comparisons.
    for place in 0..PORTS {
        if ports.0[place] == port {
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
