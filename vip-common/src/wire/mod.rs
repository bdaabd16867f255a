//! Headers as they lie in a frame: checked views and in-place rewrites, one file a protocol.
//!
//! A header is a struct of byte arrays, so it has no alignment and no padding, and a reference
//! to it may point anywhere into a frame. Its methods give typed words.

pub mod arp;
pub mod bfd;
pub mod ethernet;
pub mod ipv4;
pub mod tcp;
pub mod vrrp;

use bytemuck::Pod;

/// A frame that can be read: a packet under XDP or tcx in the kernel, a slice on the host.
///
/// All reading goes through [`view`](Self::view), whose one bounds check is what the verifier
/// wants to see as well as what keeps the host from panicking.
pub trait Frame {
    /// The header at `offset` bytes from the start of the frame; `None` if the frame ends
    /// before the header does. `T` must have no alignment.
    fn view<T: Pod>(&self, offset: usize) -> Option<&T>;

    /// Length of the frame in bytes, FCS not included.
    fn length(&self) -> usize;
}

/// A frame that can be rewritten in place.
pub trait FrameMut: Frame {
    /// As [`Frame::view`], for writing.
    fn view_mut<T: Pod>(&mut self, offset: usize) -> Option<&mut T>;
}

impl Frame for [u8] {
    fn view<T: Pod>(&self, offset: usize) -> Option<&T> {
        const { assert!(align_of::<T>() == 1, "headers are made of bytes") };
        let end = offset.checked_add(size_of::<T>())?;
        bytemuck::try_from_bytes(self.get(offset..end)?).ok()
    }

    fn length(&self) -> usize {
        self.len()
    }
}

impl FrameMut for [u8] {
    fn view_mut<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        const { assert!(align_of::<T>() == 1, "headers are made of bytes") };
        let end = offset.checked_add(size_of::<T>())?;
        bytemuck::try_from_bytes_mut(self.get_mut(offset..end)?).ok()
    }
}
