//! Programs for `cargo xtask bench steer`: what a packet costs at the very least.
//!
//! `BPF_PROG_TEST_RUN` hands the packet that a program has rewritten to its next run. So each
//! run begins with [`bench_feed`], which makes the packet anew, with the next flow, and then
//! calls the program under test: the product's own, unchanged, or one of the floors.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, ProgramArray};
use aya_ebpf::programs::XdpContext;
use vip_common::layout::bench::Feed;
use vip_common::wire::{ethernet, ipv4};

#[map]
static BENCH_FEED: Array<Feed> = Array::with_max_entries(1, 0);

#[map]
static BENCH_TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// The headers that are made anew.
#[repr(C)]
struct Headers {
    ethernet: ethernet::Header,
    ip: [u8; 12],
    source_address: [u8; 4],
    destination_address: [u8; 4],
    source_port: [u8; 2],
}

const _: () = assert!(size_of::<Headers>() == ethernet::LENGTH + ipv4::LENGTH + 2);

/// The headers, if the packet has them.
#[inline(always)]
fn headers(context: &mut XdpContext) -> Option<&mut Headers> {
    let start = context.data();
    if start + size_of::<Headers>() > context.data_end() {
        return None;
    }
    // SAFETY: within the packet, which nothing else writes meanwhile; made of bytes.
    Some(unsafe { &mut *(start as *mut Headers) })
}

/// Makes the packet anew and calls the program under test.
#[xdp]
fn bench_feed(mut context: XdpContext) -> u32 {
    let (Some(feed), Some(headers)) = (BENCH_FEED.get_ptr_mut(0), headers(&mut context)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: benchmarks run on one thread.
    let feed = unsafe { &mut *feed };
    let flow = feed.next;
    feed.next = if flow + 1 < feed.flows { flow + 1 } else { 0 };
    // Stored in the words that it will be loaded in: a load that spans two stores stalls, as it
    // never does on a packet that came by DMA.
    headers.ethernet.readdress(feed.destination, feed.source);
    // 1,000 ports each: a million flows are a thousand clients.
    headers.source_address = (0x0a01_0000 + flow / 1000).to_be_bytes();
    headers.source_port = (1024 + (flow % 1000) as u16).to_be_bytes();
    // SAFETY: the context is this program's own.
    unsafe { BENCH_TARGET.tail_call(&context, 0) };
    // Still here: there is no program to call.
    xdp_action::XDP_ABORTED
}

/// The floor of all programs.
#[xdp]
fn bench_pass(_context: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The floor of programs that send a packet back: parse as far as the protocol, swap the
/// Ethernet addresses, `XDP_TX`.
#[xdp]
fn bench_tx(mut context: XdpContext) -> u32 {
    let Some(headers) = headers(&mut context) else {
        return xdp_action::XDP_PASS;
    };
    let ethernet = &mut headers.ethernet;
    if ethernet.ether_type() != ethernet::ether_type::IPV4 || headers.ip[9] != ipv4::protocol::TCP {
        return xdp_action::XDP_PASS;
    }
    let (destination, source) = (ethernet.destination(), ethernet.source());
    ethernet.readdress(source, destination);
    xdp_action::XDP_TX
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses programs that can get here.
    loop {}
}

/// Not needed by any helper here; the same as the product's.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
