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
use vip_common::steer::{self, Action, Kind, Next, Verdict};
use vip_common::wire::{Frame as _, ethernet};

use crate::context::{TcFrame, XdpFrame};
use crate::maps::Maps;

/// Everything that comes in by the NIC.
#[xdp]
fn vip_ingress(context: XdpContext) -> u32 {
    let frame = XdpFrame::new(&context);
    steer::decide_and(&frame, &Maps, &frame, CarryOut(&context))
}

/// Counts a verdict and does what it says. Inlined where each verdict is found, and there most
/// of this is known at compile time.
#[derive(Clone, Copy)]
struct CarryOut<'a>(&'a XdpContext);

impl Next for CarryOut<'_> {
    /// An XDP action.
    type Outcome = u32;

    #[inline(always)]
    fn found(self, verdict: Verdict) -> u32 {
        let counter = verdict.counter();
        if counter == Counter::Untouched {
            return xdp_action::XDP_PASS;
        }
        let mut frame = XdpFrame::new(self.0);
        if verdict.kind() == Kind::Forward || verdict.kind() == Kind::Local {
            maps::count_backend(verdict.backend(), frame.length(), verdict.opens());
        }
        // What goes to other nodes is the sum over them, so the agent adds it up.
        if verdict.kind() != Kind::Forward {
            maps::count(counter);
        }
        if counter == Counter::ArpConflict {
            maps::note_claimant(verdict.mac());
        }
        explain(self.0, counter);
        match steer::apply(verdict, &mut frame, &Maps) {
            Action::Pass => xdp_action::XDP_PASS,
            Action::Drop => xdp_action::XDP_DROP,
            Action::Transmit => xdp_action::XDP_TX,
        }
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

/// For the operator who wants to see single verdicts (`vip run --log vip=debug`). The
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
