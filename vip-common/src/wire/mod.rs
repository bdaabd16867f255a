//! Protocol headers in a frame: checked views and rewrites in place, one file for each protocol.
//!
//! A header is a struct of byte arrays. It has no alignment and no padding, so that a reference to
//! it may point anywhere into a frame. Its methods return typed words.

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

pub use self::frame::{Frame, FrameMut, Shorten, blocks};
