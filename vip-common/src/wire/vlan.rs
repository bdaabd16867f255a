//! VLAN tags (IEEE 802.1Q, clause 9) in frames.

use bytemuck::{Pod, Zeroable};

use super::ethernet;
use crate::wire::addr::Be16;

/// Length of a tag in bytes.
pub const LENGTH: usize = 4;

/// Offset of the first tag in the frame, in bytes.
pub const OFFSET: usize = ethernet::LENGTH - size_of::<[u8; 2]>();

/// EtherType of a customer's tag.
const C_TAG: Be16 = Be16::new(0x8100);
/// EtherType of a provider's tag (IEEE 802.1ad).
const S_TAG: Be16 = Be16::new(0x88a8);

/// Mask of the VLAN identifier (VID) in the control information.
const VID: Be16 = Be16::new(0x0fff);

/// Whether the EtherType is that of a tag.
#[inline(always)]
#[must_use]
pub fn is_tag(ether_type: Be16) -> bool {
    ether_type == C_TAG || ether_type == S_TAG
}

/// Whether a tag with this control information has the VID 0: it gives a priority and no VLAN
/// (clause 9.6). The kernel reads such a frame as if it had no tag.
#[inline(always)]
#[must_use]
pub fn says_priority_only(control: Be16) -> bool {
    control.raw() & VID.raw() == 0
}

/// A tag, and the EtherType after it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Tag {
    kind: [u8; 2],
    control: [u8; 2],
    ether_type: [u8; 2],
}

impl Tag {
    /// Whether it is a tag, with a priority and no VLAN.
    #[inline(always)]
    #[must_use]
    pub fn says_priority_only(&self) -> bool {
        is_tag(Be16::from_wire(self.kind)) && says_priority_only(Be16::from_wire(self.control))
    }

    /// The EtherType of the payload, or of another tag.
    #[inline(always)]
    #[must_use]
    pub fn ether_type(&self) -> Be16 {
        Be16::from_wire(self.ether_type)
    }
}

/// The beginning of a tagged frame, in words of the length of a tag.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Head {
    addresses: [[u8; LENGTH]; 3],
    tag: [u8; LENGTH],
}

impl Head {
    /// Moves the Ethernet addresses over the tag. The frame without the tag begins [`LENGTH`] bytes
    /// later.
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
    fn a_frame_without_its_tag_begins_one_tag_later() {
        let frame: Vec<u8> = (1..=40).collect();
        let mut with = tagged(&frame, 0x8100, 0x6000);
        let head: &mut Head = bytemuck::from_bytes_mut(&mut with[..size_of::<Head>()]);
        head.close_up();
        assert_eq!(with[LENGTH..], frame);
    }

    #[test]
    fn a_tag_gives_only_a_priority_if_its_vlan_is_0() {
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
