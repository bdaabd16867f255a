//! Headers as they lie in a frame: checked views and in-place rewrites, one file a protocol.
//!
//! A header is a struct of byte arrays, so it has no alignment and no padding, and a reference
//! to it may point anywhere into a frame. Its methods give typed words.

pub mod addr;
pub mod arp;
pub mod bfd;
pub mod checksum;
pub mod ethernet;
mod frame;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod tcp;
pub mod time;
pub mod vlan;
pub mod vrrp;

pub use self::frame::{Frame, FrameMut, blocks};
