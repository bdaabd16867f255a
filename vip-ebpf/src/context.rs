//! Packets as [`Frame`]s. All pointer arithmetic on packets is here.

use aya_ebpf::programs::{TcContext, XdpContext};
use bytemuck::Pod;
use vip_common::hash::Flow;
use vip_common::node::{Socket, Sockets};
use vip_common::wire::{Frame, FrameMut, ethernet, ipv4, tcp};

use crate::helpers;

/// The bytes between two pointers of a packet.
struct Bytes {
    start: usize,
    end: usize,
}

impl Bytes {
    /// The one place where an offset becomes a pointer. The comparison is what the verifier
    /// looks for before it allows the access.
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
        // SAFETY: within the packet, which nothing else writes while the program runs; any
        // bytes are a `T`, at any address.
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

/// The packet of an XDP program, and the sockets of the node it came to: the helper that looks
/// them up takes the context.
pub(crate) struct XdpFrame<'a> {
    bytes: Bytes,
    context: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
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

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn view<T: Pod>(&self, offset: usize) -> Option<&T> {
        self.bytes.view(offset)
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.bytes.length()
    }
}

impl FrameMut for XdpFrame<'_> {
    #[inline(always)]
    fn view_mut<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        self.bytes.view_mut(offset)
    }
}

impl Sockets for XdpFrame<'_> {
    #[inline(always)]
    fn listens(&self, flow: &Flow) -> bool {
        helpers::listens(self.context, flow)
    }

    #[inline(always)]
    fn lookup(&self, flow: &Flow, cookie: bool, tcp: usize) -> Socket {
        helpers::lookup(self.context, flow, || {
            if !cookie {
                return None;
            }
            Some((
                self.view::<ipv4::Header>(ethernet::LENGTH)?,
                self.view::<tcp::Header>(tcp)?,
            ))
        })
    }
}

/// The packet of a tcx program, or of a clsact filter.
pub(crate) struct TcFrame {
    bytes: Bytes,
}

impl TcFrame {
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self {
            bytes: Bytes {
                start: context.data(),
                end: context.data_end(),
            },
        }
    }
}

impl Frame for TcFrame {
    #[inline(always)]
    fn view<T: Pod>(&self, offset: usize) -> Option<&T> {
        self.bytes.view(offset)
    }

    #[inline(always)]
    fn length(&self) -> usize {
        self.bytes.length()
    }
}

impl FrameMut for TcFrame {
    #[inline(always)]
    fn view_mut<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        self.bytes.view_mut(offset)
    }
}
