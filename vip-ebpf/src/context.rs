//! The packets of programs as [`Frame`]s. This file has all pointer arithmetic on packets.

use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_store_bytes, bpf_skb_vlan_pop,
    bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
};
use aya_ebpf::programs::{TcContext, XdpContext};
use bytemuck::Pod;
use vip_common::env::{Address, Socket, Sockets};
use vip_common::hash::Flow;
use vip_common::wire::addr::Be16;
use vip_common::wire::{Frame, FrameMut, Shorten, ethernet, ipv4, ipv6, tcp, vlan};

use crate::helpers;

/// The bytes of a packet between two pointers.
struct Bytes {
    start: usize,
    end: usize,
}

impl Bytes {
    /// The pointer at an offset; no other code makes one. The verifier requires this comparison
    /// before it allows the access.
    #[inline(always)]
    fn at<T: Pod>(&self, offset: usize) -> Option<*mut T> {
        const { assert!(align_of::<T>() == 1, "headers are made of bytes") };
        let start = self.start + offset;
        if start + size_of::<T>() > self.end {
            return None;
        }
        Some(start as *mut T)
    }

    #[inline(always)]
    fn view<T: Pod>(&self, offset: usize) -> Option<&T> {
        // SAFETY: within the packet, which nothing else writes while the program runs; any bytes at
        // any address are a valid `T`.
        self.at(offset).map(|header| unsafe { &*header })
    }

    #[inline(always)]
    fn view_mut<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        // SAFETY: as in `view`, and `self` is borrowed for as long as the result lives.
        self.at(offset).map(|header| unsafe { &mut *header })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.start
    }
}

/// The packet of an XDP program. `FRAGS`: it may lie in several buffers, of which only the first
/// can be viewed.
pub(crate) struct XdpFrame<'a, const FRAGS: bool> {
    bytes: Bytes,
    context: &'a XdpContext,
}

impl<'a, const FRAGS: bool> XdpFrame<'a, FRAGS> {
    #[inline(always)]
    pub(crate) fn new(context: &'a XdpContext) -> Self {
        Self {
            bytes: Bytes {
                start: context.data(),
                end: context.data_end(),
            },
            context,
        }
    }
}

impl<const FRAGS: bool> Frame for XdpFrame<'_, FRAGS> {
    #[inline(always)]
    fn view<T: Pod>(&self, offset: usize) -> Option<&T> {
        self.bytes.view(offset)
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.bytes.length()
    }

    #[inline(always)]
    fn whole_length(&self) -> usize {
        if FRAGS {
            // SAFETY: the program's own context. The helper exists since Linux 5.18, as `frags`
            // does.
            unsafe { bpf_xdp_get_buff_len(self.context.ctx) as usize }
        } else {
            self.length()
        }
    }
}

impl<const FRAGS: bool> FrameMut for XdpFrame<'_, FRAGS> {
    #[inline(always)]
    fn view_mut<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        self.bytes.view_mut(offset)
    }

    #[inline(always)]
    fn grow(&mut self, length: usize) -> bool {
        let missing = length as i32 - self.length() as i32;
        if missing <= 0 {
            return true;
        }
        // SAFETY: the program's own context; all pointers into the packet are made anew.
        let grown = unsafe { bpf_xdp_adjust_tail(self.context.ctx, missing) } == 0;
        *self = Self::new(self.context);
        grown
    }

    #[inline(always)]
    fn remove_tag(&mut self) -> bool {
        let Some(head) = self.view_mut::<vlan::Head>(0) else {
            return false;
        };
        head.close_up();
        // SAFETY: the program's own context; all pointers into the packet are made anew.
        let cut = unsafe { bpf_xdp_adjust_head(self.context.ctx, vlan::LENGTH as i32) } == 0;
        *self = Self::new(self.context);
        cut
    }
}

/// The headers that a SYN cookie is checked against.
#[inline(always)]
fn headers<F: Frame + ?Sized, A: Address>(frame: &F, tcp: usize) -> Option<helpers::Headers<'_>> {
    let tcp = frame.view::<tcp::Header>(tcp)?;
    let ip = if A::IPV6 {
        helpers::Ip::V6(frame.view::<ipv6::Header>(ethernet::LENGTH)?)
    } else {
        helpers::Ip::V4(frame.view::<ipv4::Header>(ethernet::LENGTH)?)
    };
    Some(helpers::Headers { ip, tcp })
}

/// The sockets that an XDP program can look up.
pub(crate) struct XdpSockets<'a>(pub(crate) &'a XdpContext);

impl Sockets for XdpSockets<'_> {
    #[inline(always)]
    fn peek<A: Address>(&self, flow: &Flow<A>) -> Socket {
        helpers::peek(self.0.ctx.cast(), flow)
    }

    #[inline(always)]
    fn lookup<F, A>(&self, frame: &F, flow: &Flow<A>, cookie: bool, tcp: usize) -> Socket
    where
        F: Frame + ?Sized,
        A: Address,
    {
        helpers::lookup(self.0.ctx.cast(), flow, || {
            cookie.then(|| headers::<_, A>(frame, tcp)).flatten()
        })
    }

    #[inline(always)]
    fn listens<A: Address>(&self, flow: &Flow<A>) -> bool {
        helpers::listens(self.0.ctx.cast(), flow)
    }
}

/// The packet of a tcx program or of a clsact filter.
pub(crate) struct TcFrame<'a> {
    bytes: Bytes,
    context: &'a TcContext,
}

impl<'a> TcFrame<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a TcContext) -> Self {
        Self {
            bytes: Bytes {
                start: context.data(),
                end: context.data_end(),
            },
            context,
        }
    }
}

impl Frame for TcFrame<'_> {
    #[inline(always)]
    fn view<T: Pod>(&self, offset: usize) -> Option<&T> {
        self.bytes.view(offset)
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.bytes.length()
    }

    #[inline(always)]
    fn least_length(&self) -> usize {
        self.whole_length()
    }

    #[inline(always)]
    fn whole_length(&self) -> usize {
        self.context.len() as usize
    }
}

impl FrameMut for TcFrame<'_> {
    #[inline(always)]
    fn view_mut<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        self.bytes.view_mut(offset)
    }

    #[inline(always)]
    fn grow(&mut self, length: usize) -> bool {
        if length <= self.length() {
            return true;
        }
        // SAFETY: the program's own context; all pointers into the packet are made anew.
        let grown = unsafe { bpf_skb_change_tail(self.context.skb.skb, length as u32, 0) } == 0;
        *self = Self::new(self.context);
        grown
    }

    /// The kernel's helper also removes a tag that the NIC took off.
    #[inline(always)]
    fn remove_tag(&mut self) -> bool {
        // SAFETY: the program's own context; all pointers into the packet are made anew.
        let popped = unsafe { bpf_skb_vlan_pop(self.context.skb.skb) } == 0;
        *self = Self::new(self.context);
        popped
    }

    /// The kernel's helper knows whether the NIC will complete the checksum.
    #[inline(always)]
    fn replace(&mut self, word: usize, checksum: usize, value: Be16) -> bool {
        let Some(old) = self.view::<[u8; 2]>(word) else {
            return false;
        };
        let (old, new) = (Be16::from_wire(*old).raw(), value.raw());
        let skb = self.context.skb.skb;
        // SAFETY: the program's own context, and a value on the stack of this length; all pointers
        // into the packet are made anew.
        let done = unsafe {
            bpf_l4_csum_replace(skb, checksum as u32, u64::from(old), u64::from(new), 2) == 0
                && bpf_skb_store_bytes(
                    skb,
                    word as u32,
                    (&raw const new).cast(),
                    size_of::<u16>() as u32,
                    0,
                ) == 0
        };
        *self = Self::new(self.context);
        done
    }
}

impl Shorten for TcFrame<'_> {
    /// The kernel's helper also makes one buffer of a frame in several, and no GSO packet of one.
    #[inline(always)]
    fn shorten(&mut self, length: usize) -> bool {
        // SAFETY: the program's own context; all pointers into the packet are made anew.
        let cut = unsafe { bpf_skb_change_tail(self.context.skb.skb, length as u32, 0) } == 0;
        *self = Self::new(self.context);
        cut
    }
}

/// The sockets that a tcx program can look up.
pub(crate) struct TcSockets<'a>(pub(crate) &'a TcContext);

impl Sockets for TcSockets<'_> {
    #[inline(always)]
    fn peek<A: Address>(&self, flow: &Flow<A>) -> Socket {
        helpers::peek(self.0.skb.skb.cast(), flow)
    }

    #[inline(always)]
    fn lookup<F, A>(&self, frame: &F, flow: &Flow<A>, cookie: bool, tcp: usize) -> Socket
    where
        F: Frame + ?Sized,
        A: Address,
    {
        helpers::lookup(self.0.skb.skb.cast(), flow, || {
            cookie.then(|| headers::<_, A>(frame, tcp)).flatten()
        })
    }

    #[inline(always)]
    fn listens<A: Address>(&self, flow: &Flow<A>) -> bool {
        helpers::listens(self.0.skb.skb.cast(), flow)
    }
}
