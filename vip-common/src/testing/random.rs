//! Random frames.

use std::vec::Vec;

use super::addresses::{
    BANNED, CLIENT, CLIENT_MAC, CLIENT6, PORT, VIP, VIP6, node_address, node_address6, node_mac,
};
use super::neighbor::{arp_frame, ndp_frame, solicitation};
use super::segment::{SEQUENCE, Segment};
use crate::wire::addr::{Be16, Be32, Mac};
use crate::wire::{arp, ethernet, ipv6, ndp, tcp, vlan};

/// A small deterministic generator (SplitMix64; G. Steele, D. Lea, C. Flood, 2014). The seed is
/// enough to reproduce a failure.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number in `0..end`. `end` must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    /// One of the values, of which there must be at least one.
    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// A frame for node `me` of `nodes`. Many frames get far into the packet logic. Others have a
    /// few changed bytes, another length or one or two tags, and some are noise. Unless
    /// `any_length`, it has at least the 14 bytes that `BPF_PROG_TEST_RUN` requires.
    pub fn frame(&mut self, nodes: usize, me: usize, any_length: bool) -> Vec<u8> {
        let mut frame = match self.below(10) {
            0 => (0..self.below(128)).map(|_| self.word() as u8).collect(),
            3 => self.neighbor_discovery(me),
            1 | 2 => self.arp(me),
            _ => self.tcp(nodes, me),
        };
        for _ in 0..self.pick(&[0, 0, 0, 1, 2, 8]) {
            if !frame.is_empty() {
                // Mostly in the headers, where it matters.
                let place = self.below(frame.len().min(90));
                frame[place] = self.word() as u8;
            }
        }
        for _ in 0..self.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 2]) {
            let kind = self.pick(&[0x8100, 0x8100, 0x88a8]);
            frame = vlan::tagged(&frame, kind, self.pick(&[0, 0, 0x6000, 5]));
        }
        match self.below(6) {
            0 => frame.truncate(self.below(frame.len() + 1)),
            1 => frame.extend((0..self.below(64)).map(|_| 0)),
            _ => {}
        }
        if !any_length && frame.len() < ethernet::LENGTH {
            frame.resize(ethernet::LENGTH, 0);
        }
        frame
    }

    /// An ARP packet, often about a VIP.
    fn arp(&mut self, me: usize) -> Vec<u8> {
        let address = |r: &mut Self| r.pick(&[VIP, CLIENT, node_address(0), Be32::default()]);
        let macs = [
            CLIENT_MAC,
            node_mac(0),
            node_mac(1),
            Mac::BROADCAST,
            Mac::default(),
        ];
        let packet = arp::Packet::new(
            Be16::new(self.pick(&[1, 1, 1, 2, 3])),
            (self.pick(&macs), address(self)),
            (self.pick(&macs), address(self)),
        );
        arp_frame(
            self.pick(&[Mac::BROADCAST, node_mac(me)]),
            self.pick(&macs),
            packet,
        )
    }

    /// A TCP segment or an ICMP error that quotes one, often for a VIP.
    fn tcp(&mut self, nodes: usize, me: usize) -> Vec<u8> {
        let macs = [
            node_mac(me),
            node_mac(me),
            node_mac(me),
            CLIENT_MAC,
            Mac::BROADCAST,
        ];
        let from = [CLIENT_MAC, node_mac(self.below(nodes)), Mac::default()];
        let flags = [
            tcp::SYN,
            tcp::ACK,
            tcp::SYN | tcp::ACK,
            tcp::RST,
            tcp::FIN | tcp::ACK,
        ];
        let random = Be32::from_wire((self.word() as u32).to_ne_bytes());
        let segment = Segment {
            to: self.pick(&macs),
            from: self.pick(&from),
            source: self.pick(&[random, random, CLIENT, BANNED]).into(),
            destination: self.pick(&[VIP, VIP, VIP, CLIENT]).into(),
            source_port: self.word() as u16,
            port: self.pick(&[PORT, PORT, PORT, 22]),
            flags: if self.below(4) == 0 {
                self.word() as u8
            } else {
                self.pick(&flags)
            },
            sequence: SEQUENCE,
            ttl: self.pick(&[64, 64, 255, 35, 34, 33, 32, 31, 18, 1, 0]),
            options: self.pick(&[0, 0, 0, 1, 6, 10]),
        };
        let ipv6 = self.below(2) == 0;
        let segment = if ipv6 { segment.ipv6() } else { segment };
        if self.below(4) == 0 {
            let answer = Segment {
                source: segment.destination,
                destination: segment.source,
                source_port: segment.port,
                port: segment.source_port,
                options: 0,
                ..segment
            };
            let kind = self.pick(&[1, 2, 3, 3, 11, 128]);
            let mut frame = answer.quoted_by_router(me, kind);
            frame[..6].copy_from_slice(&segment.to.to_wire());
            frame[6..12].copy_from_slice(&segment.from.to_wire());
            frame
        } else {
            segment.build()
        }
    }

    /// A solicitation or an advertisement, often for a VIP.
    fn neighbor_discovery(&mut self, me: usize) -> Vec<u8> {
        let target = self.pick(&[VIP6, VIP6, VIP6, CLIENT6, node_address6(0)]);
        match self.below(4) {
            0 => solicitation(target, false),
            1 => solicitation(target, true),
            2 => {
                let mut frame = solicitation(target, false);
                frame[..6].copy_from_slice(&self.pick(&[node_mac(me), CLIENT_MAC]).to_wire());
                frame
            }
            _ => {
                let from = self.pick(&[CLIENT_MAC, node_mac(1), node_mac(me)]);
                let source = self.pick(&[CLIENT6, VIP6]);
                let to = ipv6::ALL_NODES;
                let message = ndp::Advertisement::new(target, from, 0x20, source, to);
                let to = (ndp::group_mac(to), to);
                ndp_frame((from, source), to, bytemuck::bytes_of(&message))
            }
        }
    }
}
