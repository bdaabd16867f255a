//! The kernel side: thin shells around the decisions in `vip_common`.
//!
//! Each program makes a view of its packet, asks for a verdict, counts it and carries it out.
//! What comes in by the NIC is decided by the same code in an XDP program and in a tcx program
//! (or clsact filter): which of them is attached is the agent's choice.
#![no_std]
#![no_main]

mod context;
mod helpers;
mod maps;
mod object;
mod sock_addr;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, classifier, xdp};
use aya_ebpf::programs::{SockAddrContext, SockContext, TcContext, XdpContext};
use aya_log_ebpf::debug;
use vip_common::abi::Counter;
use vip_common::egress;
use vip_common::ingress::untag::untag;
use vip_common::ingress::{self, Action};
use vip_common::verdict::{Kind, Verdict, VerdictHandler};
use vip_common::wire::addr::Be16;
use vip_common::wire::{FrameMut as _, ethernet, vlan};

use crate::context::{TcFrame, XdpFrame};
use crate::maps::Maps;

/// Everything that comes in by the NIC, before the kernel makes a socket buffer of it. Frames
/// that are larger than a page are welcome (`frags`): their headers are all it looks at.
///
/// Inlined into the function that the macro makes of it, as the others are: LLVM leaves large ones
/// out of line, and the call costs every frame a quarter of what it costs to let it pass.
#[xdp(frags)]
#[inline(always)]
fn vip_ingress(context: XdpContext) -> u32 {
    ingress::<true>(&context)
}

/// The same for kernels before Linux 5.18, which have neither `frags` nor the helper that tells
/// the length of such a frame: every frame lies in one buffer. The agent loads one of the two.
#[xdp]
#[inline(always)]
fn vip_ingress_sb(context: XdpContext) -> u32 {
    ingress::<false>(&context)
}

#[inline(always)]
fn ingress<const FRAGS: bool>(context: &XdpContext) -> u32 {
    let mut frame = XdpFrame::<FRAGS>::new(context);
    if !untag(&mut frame, &Maps) {
        return xdp_action::XDP_DROP;
    }
    ingress::decide_with(&frame, &Maps, &frame, ByXdp::<FRAGS>(context))
}

/// Everything that comes in by the NIC, as a socket buffer: where XDP is not to be had, or
/// somebody else has it.
#[classifier]
#[inline(always)]
fn vip_tc_ingress(mut context: TcContext) -> i32 {
    // A tag that was taken off belongs to a VLAN of this interface, and to nobody here, if it
    // says more than a priority.
    if let Some(control) = helpers::tag_beside(&context)
        && !vlan::says_priority_only(control)
    {
        return TC_ACT_UNSPEC;
    }
    helpers::pull_headers(&mut context);
    let mut frame = TcFrame::new(&context);
    if !untag(&mut frame, &Maps) {
        return TC_ACT_SHOT;
    }
    ingress::decide_with(&frame, &Maps, &frame, ByTc(&context))
}

/// Counts a verdict. Inlined where each verdict is found, and there most of this is known at
/// compile time.
#[inline(always)]
fn count(verdict: &Verdict) {
    let counter = verdict.counter();
    if verdict.kind() == Kind::Forward || verdict.kind() == Kind::Local {
        let bytes = u64::from(verdict.bytes());
        maps::count_backend(verdict.backend(), bytes, verdict.opens());
    }
    // What goes to other nodes is the sum over them, so the agent adds it up.
    if verdict.kind() != Kind::Forward {
        maps::count(counter);
    }
    if counter == Counter::ArpConflict || counter == Counter::NdpConflict {
        maps::note_claimant(verdict.mac());
    }
}

/// Counts a verdict and does what it says.
#[derive(Clone, Copy)]
struct ByXdp<'a, const FRAGS: bool>(&'a XdpContext);

impl<const FRAGS: bool> VerdictHandler for ByXdp<'_, FRAGS> {
    /// An XDP action.
    type Outcome = u32;

    #[inline(always)]
    fn handle(self, verdict: Verdict) -> u32 {
        let counter = verdict.counter();
        if counter == Counter::Untouched {
            return xdp_action::XDP_PASS;
        }
        count(&verdict);
        debug!(self.0, "frame counter={}", counter.index());
        let mut frame = XdpFrame::<FRAGS>::new(self.0);
        match ingress::apply(verdict, &mut frame, &Maps) {
            Action::Pass => xdp_action::XDP_PASS,
            Action::Drop => xdp_action::XDP_DROP,
            Action::Transmit => xdp_action::XDP_TX,
        }
    }
}

/// The same for a socket buffer.
#[derive(Clone, Copy)]
struct ByTc<'a>(&'a TcContext);

impl VerdictHandler for ByTc<'_> {
    /// A tcx action. [`TC_ACT_UNSPEC`] passes the frame on to the next program, whosever it is.
    type Outcome = i32;

    #[inline(always)]
    fn handle(self, verdict: Verdict) -> i32 {
        let counter = verdict.counter();
        if counter == Counter::Untouched {
            return TC_ACT_UNSPEC;
        }
        count(&verdict);
        debug!(self.0, "frame counter={}", counter.index());
        let mut frame = TcFrame::new(self.0);
        match ingress::apply(verdict, &mut frame, &Maps) {
            Action::Pass => TC_ACT_UNSPEC,
            Action::Drop => TC_ACT_SHOT,
            Action::Transmit => {
                // The priority was for the way here.
                if helpers::tag_beside(self.0).is_some() && !frame.remove_tag() {
                    return TC_ACT_SHOT;
                }
                // SAFETY: a field of the context, as above.
                let interface = unsafe { (*self.0.skb.skb).ifindex };
                // SAFETY: a helper without pointers. Out of where it came in by.
                unsafe { bpf_redirect(interface, 0) as i32 }
            }
        }
    }
}

/// Everything that leaves by the NIC, announcements of the agent included. What `XDP_TX`
/// sends does not pass here.
#[classifier]
#[inline(always)]
fn vip_egress(context: TcContext) -> i32 {
    // One load for what is neither ARP nor IPv6, unless services have other ports on the nodes.
    // SAFETY: a field of the context, which lives as long as the program runs.
    let protocol = Be16::from_raw(unsafe { (*context.skb.skb).protocol } as u16);
    if protocol == ethernet::ether_type::IPV4 && maps::leaves_ipv4_alone() {
        return TC_ACT_UNSPEC;
    }
    let mut frame = TcFrame::new(&context);
    if !untag(&mut frame, &Maps) {
        return TC_ACT_SHOT;
    }
    let verdict = egress::decide(&frame, &Maps);
    if let Some(counter) = verdict.counter() {
        maps::count(counter);
    }
    if egress::apply(verdict, &mut frame, &Maps) {
        TC_ACT_UNSPEC
    } else {
        TC_ACT_SHOT
    }
}

/// What programs for local sockets return: the call goes on.
const PROCEED: i32 = 1;

/// `connect` of an IPv4 socket, on this node and in its pods.
#[cgroup_sock_addr(connect4)]
fn vip_connect4(mut context: SockAddrContext) -> i32 {
    sock_addr::connect4(&mut context);
    PROCEED
}

/// `connect` of an IPv6 socket.
#[cgroup_sock_addr(connect6)]
fn vip_connect6(mut context: SockAddrContext) -> i32 {
    sock_addr::connect6(&mut context);
    PROCEED
}

/// `getpeername` of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
fn vip_peername4(mut context: SockAddrContext) -> i32 {
    sock_addr::getpeername4(&mut context);
    PROCEED
}

/// `getpeername` of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
fn vip_peername6(mut context: SockAddrContext) -> i32 {
    sock_addr::getpeername6(&mut context);
    PROCEED
}

/// A socket is closed, on this node or in one of its pods.
#[cgroup_sock(sock_release)]
fn vip_release(context: SockContext) -> i32 {
    sock_addr::release(&context);
    PROCEED
}
