//! The eBPF programs: thin shells around the decisions of `vip_common`. Its documentation has the
//! glossary.
//!
//! Each program makes a view of its packet, gets a verdict, counts it and carries it out. The
//! ingress decision runs in an XDP program or in a tcx program (or clsact filter). The agent
//! chooses which of them it attaches.
#![no_std]
#![no_main]

mod context;
mod helpers;
mod maps;
mod object;
mod sock_addr;

use core::ops::ControlFlow;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action, xdp_md,
};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, classifier, xdp};
use aya_ebpf::programs::{SockAddrContext, SockContext, TcContext, XdpContext};
use aya_log_ebpf::debug;
use vip_common::abi::Counter;
use vip_common::egress;
use vip_common::env::Tables as _;
use vip_common::ingress::{self, Action, Known, untag};
use vip_common::verdict::{Kind, Steered, Verdict, VerdictHandler};
use vip_common::wire::addr::Be16;
use vip_common::wire::{FrameMut as _, ethernet, vlan};

use crate::context::{TcFrame, TcSockets, XdpFrame, XdpSockets};
use crate::maps::Maps;

/// The ingress program for frames before the kernel makes a socket buffer of them. A frame may be
/// larger than a page (`frags`): the program reads only headers.
///
/// This function and the others are inlined into the one that the macro makes. LLVM would not
/// inline a large one, and the call would take a quarter of the time that a passed frame needs.
#[xdp(frags)]
#[inline(always)]
fn vip_ingress(context: XdpContext) -> u32 {
    ingress::<true>(&context)
}

/// The same for kernels before Linux 5.18, where every frame lies in one buffer: they have neither
/// `frags` nor the helper for the length of such a frame. The agent loads one of the two.
#[xdp]
#[inline(always)]
fn vip_ingress_sb(context: XdpContext) -> u32 {
    ingress::<false>(&context)
}

#[inline(always)]
fn ingress<const FRAGS: bool>(context: &XdpContext) -> u32 {
    let mut frame = XdpFrame::<FRAGS>::new(context);
    let by_xdp = ByXdp::<FRAGS>(context);
    match ingress::straight(&mut frame, &Maps, &XdpSockets(context), by_xdp) {
        ControlFlow::Break(action) => action,
        ControlFlow::Continue(known) => decide::<FRAGS>(context.ctx, known.to_bits()),
    }
}

/// The longer way. A function of its own in the object, too, so that the straight path has all
/// registers and the verifier follows this once, wherever the straight path ends.
#[inline(never)]
fn decide<const FRAGS: bool>(context: *mut xdp_md, known: u32) -> u32 {
    let context = XdpContext::new(context);
    let mut frame = XdpFrame::<FRAGS>::new(&context);
    if !untag(&mut frame, &Maps) {
        return xdp_action::XDP_DROP;
    }
    let by_xdp = ByXdp::<FRAGS>(&context);
    let known = Known::from_bits(known);
    ingress::decide(&frame, &Maps, &XdpSockets(&context), known, by_xdp)
}

/// The ingress program for socket buffers. The agent uses it where the NIC has no XDP, or where
/// another program occupies its XDP hook.
#[classifier]
#[inline(always)]
fn vip_tc_ingress(mut context: TcContext) -> i32 {
    if is_of_vlan(&context) {
        return TC_ACT_UNSPEC;
    }
    helpers::pull_headers(&mut context);
    let mut frame = TcFrame::new(&context);
    match ingress::straight(&mut frame, &Maps, &TcSockets(&context), ByTc(&context)) {
        ControlFlow::Break(action) => action,
        ControlFlow::Continue(known) => tc_decide(context.skb.skb, known.to_bits()),
    }
}

/// Whether the frame belongs to a VLAN interface above this one: a tag with a VLAN lies beside it,
/// which the NIC has taken off, or will put on.
#[inline(always)]
fn is_of_vlan(context: &TcContext) -> bool {
    helpers::tag_beside(context).is_some_and(|control| !vlan::says_priority_only(control))
}

/// As [`decide`].
#[inline(never)]
fn tc_decide(context: *mut __sk_buff, known: u32) -> i32 {
    let context = TcContext::new(context);
    let mut frame = TcFrame::new(&context);
    if !untag(&mut frame, &Maps) {
        return TC_ACT_SHOT;
    }
    let (by_tc, sockets) = (ByTc(&context), TcSockets(&context));
    ingress::decide(&frame, &Maps, &sockets, Known::from_bits(known), by_tc)
}

/// Counts a verdict. Inlined at each place where a verdict is found, where the compiler knows most
/// of its fields.
#[inline(always)]
fn count(verdict: &Verdict) {
    let counter = verdict.counter();
    if verdict.kind() == Kind::Forward || verdict.kind() == Kind::Local {
        maps::count_backend(verdict);
    }
    // The agent computes these from the counters of the backends.
    let by_backend = matches!(
        counter,
        Counter::ForwardedSyn
            | Counter::ForwardedSegment
            | Counter::LocalSyn
            | Counter::LocalSegment
    );
    if !by_backend {
        maps::count(counter);
    }
    if counter == Counter::ArpConflict || counter == Counter::NdpConflict {
        maps::note_claimant(verdict.mac());
    }
}

/// Counts a verdict and carries it out in an XDP program.
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

    #[inline(always)]
    fn forward(self, verdict: Verdict, headers: &mut impl Steered) -> u32 {
        count(&verdict);
        headers.forward_to(verdict.mac());
        xdp_action::XDP_TX
    }
}

/// Counts a verdict and carries it out in a tcx program.
#[derive(Clone, Copy)]
struct ByTc<'a>(&'a TcContext);

impl VerdictHandler for ByTc<'_> {
    /// A tcx action. [`TC_ACT_UNSPEC`] passes the frame to the next program of the hook.
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
            Action::Transmit => self.transmit(),
        }
    }

    #[inline(always)]
    fn forward(self, verdict: Verdict, headers: &mut impl Steered) -> i32 {
        count(&verdict);
        headers.forward_to(verdict.mac());
        self.transmit()
    }
}

impl ByTc<'_> {
    /// Sends the frame by the NIC at which it arrived.
    #[inline(always)]
    fn transmit(self) -> i32 {
        // The priority was for the path to this node.
        if helpers::tag_beside(self.0).is_some() && !TcFrame::new(self.0).remove_tag() {
            return TC_ACT_SHOT;
        }
        redirect(self.0, 0)
    }
}

/// The egress program, for all frames that leave by the NIC, those of the agent included. Frames
/// that `XDP_TX` sends do not pass it.
#[classifier]
#[inline(always)]
fn vip_egress(context: TcContext) -> i32 {
    // IPv4 needs no more than this, unless a service has another target or a member is gone.
    // SAFETY: a field of the context, which lives as long as the program runs.
    let protocol = Be16::from_raw(unsafe { (*context.skb.skb).protocol } as u16);
    if protocol == ethernet::ether_type::IPV4 && egress::skips_ipv4(Maps.state()) {
        return TC_ACT_UNSPEC;
    }
    let mut frame = TcFrame::new(&context);
    if !untag(&mut frame, &Maps) {
        return TC_ACT_SHOT;
    }
    let verdict = egress::decide(&frame, &Maps);
    // In a VLAN, the address of a member may be another host's.
    if verdict.comes_in() && is_of_vlan(&context) {
        return TC_ACT_UNSPEC;
    }
    if let Some(counter) = verdict.counter() {
        maps::count(counter);
    }
    match egress::apply(verdict, &mut frame, &Maps) {
        egress::Action::Leave => TC_ACT_UNSPEC,
        egress::Action::Drop => TC_ACT_SHOT,
        egress::Action::ComeIn => redirect(&context, BPF_F_INGRESS),
    }
}

/// Sends the frame by the NIC that the program runs at, or with [`BPF_F_INGRESS`] lets it come in by
/// that.
#[inline(always)]
fn redirect(context: &TcContext, flags: u32) -> i32 {
    // SAFETY: a field of the context, which lives as long as the program runs.
    let interface = unsafe { (*context.skb.skb).ifindex };
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(interface, u64::from(flags)) as i32 }
}

/// Return value of the connect programs: the call proceeds.
const PROCEED: i32 = 1;

/// The connect program for IPv4 sockets of this node and of its pods.
#[cgroup_sock_addr(connect4)]
fn vip_connect4(mut context: SockAddrContext) -> i32 {
    sock_addr::connect4(&mut context);
    PROCEED
}

/// The connect program for IPv6 sockets.
#[cgroup_sock_addr(connect6)]
fn vip_connect6(mut context: SockAddrContext) -> i32 {
    sock_addr::connect6(&mut context);
    PROCEED
}

/// `getpeername` of an IPv4 socket returns the VIP.
#[cgroup_sock_addr(getpeername4)]
fn vip_peername4(mut context: SockAddrContext) -> i32 {
    sock_addr::getpeername4(&mut context);
    PROCEED
}

/// `getpeername` of an IPv6 socket returns the VIP.
#[cgroup_sock_addr(getpeername6)]
fn vip_peername6(mut context: SockAddrContext) -> i32 {
    sock_addr::getpeername6(&mut context);
    PROCEED
}

/// A socket of this node or of a pod is closed.
#[cgroup_sock(sock_release)]
fn vip_release(context: SockContext) -> i32 {
    sock_addr::release(&context);
    PROCEED
}
