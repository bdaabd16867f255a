//! Programs for `cargo xtask bench steer` and `live`: what a packet costs at the very least.
//!
//! `BPF_PROG_TEST_RUN` hands the packet that a program has rewritten to its next run. So each
//! run begins with [`bench_feed`] or [`bench_tc_feed`], which makes the packet anew, with the
//! next flow, and then calls the program under test: the product's own, unchanged, or one of the
//! floors. All take frames in several buffers, because the product does: the kernel lets no
//! other program call it.
#![no_std]
#![no_main]

mod object;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::{Array, ProgramArray};
use aya_ebpf::programs::{TcContext, XdpContext};
use vip_common::abi::bench::Feed;
use vip_common::wire::{ethernet, ipv4, ipv6};

#[map]
static BENCH_FEED: Array<Feed> = Array::with_max_entries(1, 0);

#[map]
static BENCH_TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[map]
static BENCH_TC_TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Frames that [`bench_drop`] has seen.
#[map]
static BENCH_DROPPED: Array<u64> = Array::with_max_entries(1, 0);

/// The headers that are made anew, with IPv4.
#[repr(C)]
struct Headers4 {
    ethernet: ethernet::Header,
    ip: [u8; 8],
    ttl: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
    source_port: [u8; 2],
    destination_port: [u8; 2],
}

const _: () = assert!(size_of::<Headers4>() == ethernet::LENGTH + ipv4::LENGTH + 4);

/// The same with IPv6.
#[repr(C)]
struct Headers6 {
    ethernet: ethernet::Header,
    ip: [u8; 6],
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
    source_port: [u8; 2],
    destination_port: [u8; 2],
}

const _: () = assert!(size_of::<Headers6>() == ethernet::LENGTH + ipv6::LENGTH + 4);

/// Hops that a client's packet has left.
const HOPS: u8 = 64;

/// The bytes between the two pointers of a packet.
type Packet = (usize, usize);

/// Its headers, if it has them.
#[inline(always)]
fn headers<'p, T>((start, end): Packet) -> Option<&'p mut T> {
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: within the packet, which nothing else writes meanwhile; made of bytes.
    Some(unsafe { &mut *(start as *mut T) })
}

/// Makes the packet anew. False if it is too short.
#[inline(always)]
fn renew(packet: Packet) -> bool {
    let Some(feed) = BENCH_FEED.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: benchmarks run on one thread.
    let feed = unsafe { &mut *feed };
    let flow = feed.next;
    feed.next = if flow + 1 < feed.flows { flow + 1 } else { 0 };
    // 1,000 ports each: a million flows are a thousand clients.
    let client = (0x0a01_0000 + flow / 1000).to_be_bytes();
    let port = (1024 + (flow % 1000) as u16).to_be_bytes();
    // Stored in the words that it will be loaded in: a load that spans two stores stalls, as it
    // never does on a packet that came by DMA.
    if feed.ipv6 == 0 {
        let Some(headers) = headers::<Headers4>(packet) else {
            return false;
        };
        headers.ethernet.readdress(feed.destination, feed.source);
        // The product lowers it. That the checksum is wrong then is nobody's affair here.
        headers.ttl = HOPS;
        headers.source = client;
        headers.source_port = port;
        // The product may have written another one.
        headers.destination_port = feed.port.raw().to_ne_bytes();
    } else {
        let Some(headers) = headers::<Headers6>(packet) else {
            return false;
        };
        headers.ethernet.readdress(feed.destination, feed.source);
        let [a, b, c, d] = client;
        headers.hop_limit = HOPS;
        headers.source = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d];
        headers.source_port = port;
        headers.destination_port = feed.port.raw().to_ne_bytes();
    }
    true
}

/// Parses as far as the protocol, and swaps the Ethernet addresses. False if it is not TCP.
#[inline(always)]
fn swap(packet: Packet) -> bool {
    let Some(headers) = headers::<Headers4>(packet) else {
        return false;
    };
    let ethernet = &mut headers.ethernet;
    let tcp = match ethernet.ether_type() {
        ethernet::ether_type::IPV4 => headers.protocol == ipv4::protocol::TCP,
        ethernet::ether_type::IPV6 => headers.ip[6] == ipv6::next_header::TCP,
        _ => false,
    };
    if tcp {
        let (destination, source) = (ethernet.destination(), ethernet.source());
        ethernet.readdress(source, destination);
    }
    tcp
}

/// Makes the packet anew and calls the program under test.
#[xdp(frags)]
fn bench_feed(context: XdpContext) -> u32 {
    if renew((context.data(), context.data_end())) {
        // SAFETY: the context is this program's own.
        unsafe { BENCH_TARGET.tail_call(&context, 0) };
    }
    // Still here: there is no program to call.
    xdp_action::XDP_ABORTED
}

/// The floor of all programs.
#[xdp(frags)]
fn bench_pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The floor of programs that send a packet back: parse as far as the protocol, swap the
/// Ethernet addresses, `XDP_TX`.
#[xdp(frags)]
fn bench_tx(context: XdpContext) -> u32 {
    if swap((context.data(), context.data_end())) {
        xdp_action::XDP_TX
    } else {
        xdp_action::XDP_PASS
    }
}

/// The far end of `cargo xtask bench live`: counts and drops.
#[xdp(frags)]
fn bench_drop(_context: XdpContext) -> u32 {
    if let Some(dropped) = BENCH_DROPPED.get_ptr_mut(0) {
        // SAFETY: benchmarks run on one thread.
        unsafe { *dropped += 1 };
    }
    xdp_action::XDP_DROP
}

/// As [`bench_feed`], for socket buffers.
#[classifier]
fn bench_tc_feed(context: TcContext) -> i32 {
    if renew((context.data(), context.data_end())) {
        // SAFETY: the context is this program's own.
        unsafe { BENCH_TC_TARGET.tail_call(&context, 0) };
    }
    TC_ACT_SHOT
}

/// As [`bench_pass`], for socket buffers.
#[classifier]
fn bench_tc_pass(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// As [`bench_tx`], for socket buffers.
#[classifier]
fn bench_tc_redirect(context: TcContext) -> i32 {
    if swap((context.data(), context.data_end())) {
        // SAFETY: a field of the program's own context.
        let interface = unsafe { (*context.skb.skb).ifindex };
        // SAFETY: a helper without pointers.
        unsafe { bpf_redirect(interface, 0) as i32 }
    } else {
        TC_ACT_UNSPEC
    }
}
