//! VLAN tags (IEEE 802.1Q, clause 9), as they lie in frames.

use bytemuck::{Pod, Zeroable};

use super::ethernet;
use crate::wire::addr::Be16;

/// Length of a tag in bytes.
pub const LENGTH: usize = 4;

/// Offset of the first tag in the frame, in bytes.
pub const OFFSET: usize = ethernet::LENGTH - size_of::<[u8; 2]>();

/// Customers' tags.
const C_TAG: Be16 = Be16::new(0x8100);
/// Providers' tags (802.1ad).
const S_TAG: Be16 = Be16::new(0x88a8);

/// The bits of the number of a VLAN.
const VID: Be16 = Be16::new(0x0fff);

/// Whether what follows is a tag.
#[inline(always)]
#[must_use]
pub fn is_tag(ether_type: Be16) -> bool {
    ether_type == C_TAG || ether_type == S_TAG
}

/// Whether a tag with this control information, in network byte order, says only a priority. Such
/// a frame belongs to no VLAN (clause 9.6, VID 0), and the kernel reads it as if it had no tag.
#[inline(always)]
#[must_use]
pub fn says_priority_only(control: Be16) -> bool {
    control.raw() & VID.raw() == 0
}

/// A tag, and the type of what it is before.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Tag {
    kind: [u8; 2],
    control: [u8; 2],
    ether_type: [u8; 2],
}

impl Tag {
    /// Whether it is one, and says only a priority.
    #[inline(always)]
    #[must_use]
    pub fn says_priority_only(&self) -> bool {
        is_tag(Be16::from_wire(self.kind)) && says_priority_only(Be16::from_wire(self.control))
    }

    /// What follows.
    #[inline(always)]
    #[must_use]
    pub fn ether_type(&self) -> Be16 {
        Be16::from_wire(self.ether_type)
    }
}

/// The beginning of a tagged frame, in words as long as the tag.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Head {
    addresses: [[u8; LENGTH]; 3],
    tag: [u8; LENGTH],
}

impl Head {
    /// Writes the Ethernet addresses over the tag: the frame without it begins so much later.
    #[inline(always)]
    pub fn close_up(&mut self) {
        let [a, b, c] = self.addresses;
        self.tag = c;
        self.addresses = [a, a, b];
    }
}

/// The frame with this tag, for tests.
#[cfg(any(test, feature = "testing"))]
#[must_use]
pub fn tagged(frame: &[u8], kind: u16, control: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(OFFSET.min(frame.len()));
    [addresses, &kind.to_be_bytes(), &control.to_be_bytes(), rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_without_its_tag_begins_so_much_later() {
        let frame: Vec<u8> = (1..=40).collect();
        let mut with = tagged(&frame, 0x8100, 0x6000);
        let head: &mut Head = bytemuck::from_bytes_mut(&mut with[..size_of::<Head>()]);
        head.close_up();
        assert_eq!(with[LENGTH..], frame);
    }

    #[test]
    fn only_vlan_0_says_priority_only() {
        for (kind, control, expected) in [
            (0x8100, 0, true),
            (0x8100, 0xf000, true),
            (0x88a8, 0x6000, true),
            (0x8100, 1, false),
            (0x8100, 0x6fff, false),
            (0x9100, 0, false),
            (0x0800, 0, false),
        ] {
            let frame = tagged(&[0; 20], kind, control);
            let tag: &Tag = bytemuck::from_bytes(&frame[OFFSET..OFFSET + size_of::<Tag>()]);
            assert_eq!(
                tag.says_priority_only(),
                expected,
                "{kind:04x} {control:04x}"
            );
            assert_eq!(tag.ether_type(), Be16::new(0));
        }
    }
}
