//! Programs for `cargo xtask bench steer` and `live`: the least time that a packet can take.
//!
//! `BPF_PROG_TEST_RUN` gives the packet that a program has rewritten to its next run. Each run
//! therefore begins with [`bench_feed`] or [`bench_tc_feed`], which writes the headers of the next
//! flow. It then calls the program under test: the unchanged product, or one of the floors. All XDP
//! programs take frames in several buffers (`frags`), because the product does: the kernel allows
//! no other program to call it.
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

/// The headers that are written for each run, with IPv4.
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

/// The headers that are written for each run, with IPv6.
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

/// The start and end pointer of a packet.
type Packet = (usize, usize);

/// The headers of a packet; `None` if it is too short.
#[inline(always)]
fn headers<'p, T>((start, end): Packet) -> Option<&'p mut T> {
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: within the packet, which nothing else writes meanwhile; made of bytes.
    Some(unsafe { &mut *(start as *mut T) })
}

/// Writes the headers of the next flow. False if the packet is too short.
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
    let client = (feed.clients + flow / 1000).to_be_bytes();
    let port = (1024 + (flow % 1000) as u16).to_be_bytes();
    // Written in the words that the product loads. A load that spans two stores stalls, which does
    // not happen with a packet from a NIC.
    if feed.ipv6 == 0 {
        let Some(headers) = headers::<Headers4>(packet) else {
            return false;
        };
        headers.ethernet.readdress(feed.destination, feed.source);
        // The product lowers it. The checksum is wrong then, but no program here checks it.
        headers.ttl = feed.ttl;
        headers.source = client;
        headers.source_port = port;
        // The product may have replaced it.
        headers.destination_port = feed.port.raw().to_ne_bytes();
    } else {
        let Some(headers) = headers::<Headers6>(packet) else {
            return false;
        };
        headers.ethernet.readdress(feed.destination, feed.source);
        let [a, b, c, d] = client;
        headers.hop_limit = feed.ttl;
        headers.source = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d];
        headers.source_port = port;
        headers.destination_port = feed.port.raw().to_ne_bytes();
    }
    true
}

/// Parses up to the protocol, and swaps the Ethernet addresses. False if it is not TCP.
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

/// Writes the headers of the next flow and calls the program under test.
#[xdp(frags)]
fn bench_feed(context: XdpContext) -> u32 {
    if renew((context.data(), context.data_end())) {
        // SAFETY: the context is this program's own.
        unsafe { BENCH_TARGET.tail_call(&context, 0) };
    }
    // The call has failed: there is no program under test.
    xdp_action::XDP_ABORTED
}

/// The floor of all programs: `XDP_PASS` without a look at the packet.
#[xdp(frags)]
fn bench_pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The floor of programs that send a packet back: parse up to the protocol, swap the Ethernet
/// addresses, `XDP_TX`.
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
