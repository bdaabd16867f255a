//! Frames: access to their headers.

use bytemuck::Pod;

use super::addr::Be16;
use super::checksum::{Sum, adjusted};

#[cfg(any(test, feature = "testing"))]
use super::vlan;

/// A frame that can be read: a packet under XDP or tcx in the kernel, a slice on the host.
///
/// All reads use [`view`](Self::view). Its bounds check satisfies the verifier, and keeps the host
/// from panicking.
pub trait Frame {
    /// The header at `offset` bytes from the start of the frame; `None` if the frame ends before
    /// the header does. `T` must have an alignment of 1.
    fn view<T: Pod>(&self, offset: usize) -> Option<&T>;

    /// Length in bytes of the part of the frame that can be viewed, FCS not included. It holds all
    /// headers, but perhaps not all data of a large frame.
    fn length(&self) -> usize;

    /// A length in bytes that the whole frame has at least, FCS not included: the longest that is
    /// known at no cost.
    fn least_length(&self) -> usize {
        self.length()
    }

    /// Length of the whole frame in bytes, FCS not included. It costs more time than
    /// [`length`](Self::length).
    fn whole_length(&self) -> usize {
        self.length()
    }
}

/// A frame that can be rewritten in place.
pub trait FrameMut: Frame {
    /// The header at `offset`, for writing: see [`Frame::view`].
    fn view_mut<T: Pod>(&mut self, offset: usize) -> Option<&mut T>;

    /// Extends the frame to at least `length` bytes. The new bytes are undefined. False on failure.
    fn grow(&mut self, length: usize) -> bool;

    /// Removes the VLAN tag, four bytes after the Ethernet addresses. False on failure: the frame
    /// may be damaged then.
    fn remove_tag(&mut self) -> bool;

    /// Writes `value` at offset `word`, and updates the checksum at offset `checksum` that covers
    /// it. Both offsets are in bytes from the start of the frame. False if the frame ends before
    /// one of the two; it may be damaged then.
    #[inline(always)]
    fn replace(&mut self, word: usize, checksum: usize, value: Be16) -> bool {
        let Some(place) = self.view_mut::<[u8; 2]>(word) else {
            return false;
        };
        let old = Be16::from_wire(*place);
        *place = value.raw().to_ne_bytes();
        let Some(sum) = self.view_mut::<[u8; 2]>(checksum) else {
            return false;
        };
        *sum = adjusted(Be16::from_wire(*sum), old, value)
            .raw()
            .to_ne_bytes();
        true
    }
}

/// A frame that can be shortened.
pub trait Shorten: FrameMut {
    /// Cuts the frame off behind its first `length` bytes, which it has at least. False on failure:
    /// it is as long as before then.
    fn shorten(&mut self, length: usize) -> bool;
}

/// The sum of `length` bytes at `offset` in the frame. `None` if `length` is above `8 * BLOCKS` or
/// no multiple of eight, or if the frame ends before.
#[inline(always)]
pub fn blocks<F: Frame + ?Sized, const BLOCKS: usize>(
    frame: &F,
    offset: usize,
    length: usize,
) -> Option<Sum> {
    if length > 8 * BLOCKS || !length.is_multiple_of(8) {
        return None;
    }
    let mut sum = Sum::default();
    let mut block = 0;
    while block < BLOCKS {
        if 8 * block < length {
            sum = sum.eight(*frame.view::<[u8; 8]>(offset + 8 * block)?);
        }
        block += 1;
    }
    Some(sum)
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

    fn grow(&mut self, length: usize) -> bool {
        self.len() >= length
    }

    fn remove_tag(&mut self) -> bool {
        false
    }
}

#[cfg(any(test, feature = "testing"))]
impl Frame for Vec<u8> {
    fn view<T: Pod>(&self, offset: usize) -> Option<&T> {
        self.as_slice().view(offset)
    }

    fn length(&self) -> usize {
        self.len()
    }
}

#[cfg(any(test, feature = "testing"))]
impl FrameMut for Vec<u8> {
    fn view_mut<T: Pod>(&mut self, offset: usize) -> Option<&mut T> {
        self.as_mut_slice().view_mut(offset)
    }

    fn grow(&mut self, length: usize) -> bool {
        if self.len() < length {
            self.resize(length, 0);
        }
        true
    }

    fn remove_tag(&mut self) -> bool {
        let there = self.len() >= vlan::OFFSET + vlan::LENGTH;
        if there {
            self.drain(vlan::OFFSET..vlan::OFFSET + vlan::LENGTH);
        }
        there
    }
}

#[cfg(any(test, feature = "testing"))]
impl Shorten for Vec<u8> {
    fn shorten(&mut self, length: usize) -> bool {
        self.truncate(length);
        self.len() == length
    }
}
