//! The kernel side: thin shells around the decisions in `vip_common`.
//!
//! Each program makes a view of its packet, asks for a verdict, counts it and carries it out.
#![no_std]
#![no_main]

mod context;
mod helpers;
mod maps;

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use aya_log_ebpf::debug;
use vip_common::guard;
use vip_common::layout::{Be16, Counter};
use vip_common::node::Tables as _;
use vip_common::steer::{self, Action};
use vip_common::wire::{Frame as _, ethernet};

use crate::context::{TcFrame, XdpFrame};
use crate::maps::Maps;

/// Everything that comes in by the NIC.
#[xdp]
fn vip_ingress(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&context);
    let verdict = steer::decide(&frame, &Maps, &frame);
    if verdict.counter() == Counter::Untouched {
        return xdp_action::XDP_PASS;
    }
    let Some(config) = Maps.config() else {
        return xdp_action::XDP_PASS;
    };
    // Beyond the end of that map for all that goes to no backend.
    maps::count_backend(verdict.backend(), frame.length(), verdict.opens());
    let counter = verdict.counter();
    maps::count(counter);
    explain(&context, counter);
    match steer::apply(verdict, config.own_mac, &mut frame) {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Transmit => xdp_action::XDP_TX,
    }
}

/// Everything that leaves by the NIC, announcements of the agent included. What `XDP_TX`
/// sends does not pass here.
#[classifier]
fn vip_egress(context: TcContext) -> i32 {
    // One load for all that is not ARP.
    if Be16::from_wire((context.skb.protocol() as u16).to_ne_bytes()) != ethernet::ether_type::ARP {
        return TC_ACT_OK;
    }
    let mut frame = TcFrame::new(&context);
    let verdict = guard::decide(&frame, &Maps);
    if let Some(counter) = verdict.counter() {
        maps::count(counter);
    }
    match verdict {
        guard::Verdict::Pass => TC_ACT_OK,
        guard::Verdict::Rewrite if guard::rewrite(&mut frame, &Maps) => TC_ACT_OK,
        guard::Verdict::Rewrite | guard::Verdict::Drop => TC_ACT_SHOT,
    }
}

/// For the operator who wants to see single verdicts (`vip run --log vip_ebpf=debug`). The
/// level is a constant by the time the verifier sees it, so it costs nothing while off.
#[inline(always)]
fn explain(context: &XdpContext, counter: Counter) {
    debug!(context, "frame counter={}", counter.index());
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses programs that can get here.
    loop {}
}

/// `bpf_tcp_check_syncookie` is for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
