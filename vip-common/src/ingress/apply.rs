//! How a verdict is carried out on the frame it was given for.

use super::hops;
use crate::env::Tables;
use crate::verdict::{Kind, Verdict};
use crate::wire::addr::Mac;
use crate::wire::{FrameMut, arp, ethernet, ipv4, ipv6, ndp};

/// What is to happen to the frame once it is rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Up the stack (`XDP_PASS`).
    Pass,
    /// Away (`XDP_DROP`).
    Drop,
    /// Out of the NIC it came in by (`XDP_TX`).
    Transmit,
}

/// Carries a verdict out on the frame it was given for.
#[inline(always)]
pub fn apply<F, T>(verdict: Verdict, frame: &mut F, tables: &T) -> Action
where
    F: FrameMut + ?Sized,
    T: Tables,
{
    match verdict.kind {
        Kind::Pass | Kind::Local => {
            let (word, checksum) = (verdict.word as usize, verdict.checksum as usize);
            if word != 0 && !frame.replace(word, checksum, verdict.port) {
                return Action::Drop;
            }
            Action::Pass
        }
        Kind::Drop => Action::Drop,
        Kind::Forward => forward(verdict.mac, verdict.ipv6, frame),
        Kind::AnswerArp => answer_arp(frame, tables),
        Kind::AnswerNdp => answer_ndp(frame, tables),
    }
}

#[inline(always)]
fn forward<F: FrameMut + ?Sized>(mac: Mac, ipv6: bool, frame: &mut F) -> Action {
    // It had the header when it was decided about.
    if lower_ttl(ipv6, frame).is_none() {
        return Action::Drop;
    }
    let Some(ethernet) = frame.view_mut::<ethernet::Header>(0) else {
        return Action::Drop;
    };
    // Only frames to this node's own address come this far.
    let own_mac = ethernet.destination();
    ethernet.readdress(mac, own_mac);
    Action::Transmit
}

/// One hop more. `None` if the frame has no IP header.
#[inline(always)]
fn lower_ttl<F: FrameMut + ?Sized>(ipv6: bool, frame: &mut F) -> Option<()> {
    if ipv6 {
        let ip = frame.view_mut::<ipv6::Header>(ethernet::LENGTH)?;
        ip.set_hop_limit(hops::lowered(ip.hop_limit()));
    } else {
        let ip = frame.view_mut::<ipv4::Header>(ethernet::LENGTH)?;
        ip.lower_ttl(hops::lowered(ip.ttl()));
    }
    Some(())
}

#[inline(always)]
fn answer_arp<F: FrameMut + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Action {
    let own_mac = tables.state().config.own_mac;
    let Some(packet) = frame.view_mut::<arp::Packet>(ethernet::LENGTH) else {
        return Action::Drop;
    };
    let asker = packet.sender_mac();
    packet.answer(own_mac);
    let Some(ethernet) = frame.view_mut::<ethernet::Header>(0) else {
        return Action::Drop;
    };
    ethernet.readdress(asker, own_mac);
    Action::Transmit
}

/// RFC 4861, section 7.2.4. A host that asks whether the address is free (RFC 4862, section
/// 5.4.2) has none itself, and all are told.
#[inline(always)]
fn answer_ndp<F: FrameMut + ?Sized, T: Tables>(frame: &mut F, tables: &T) -> Action {
    let own_mac = tables.state().config.own_mac;
    let behind = ethernet::LENGTH + ipv6::LENGTH;
    if !frame.grow(behind + ndp::WITH_OPTION) {
        return Action::Drop;
    }
    let Some(target) = frame.view::<ndp::Message>(behind).map(ndp::Message::target) else {
        return Action::Drop;
    };
    let Some(ip) = frame.view_mut::<ipv6::Header>(ethernet::LENGTH) else {
        return Action::Drop;
    };
    let asker = ip.source();
    let free = asker.is_unspecified();
    let (to, flags) = if free {
        (ipv6::ALL_NODES, ndp::flag::OVERRIDE)
    } else {
        (asker, ndp::flag::OVERRIDE | ndp::flag::SOLICITED)
    };
    let icmp = ipv6::next_header::ICMP;
    *ip = ipv6::Header::new(target, to, icmp, ndp::HOP_LIMIT, ndp::WITH_OPTION as u16);
    let Some(message) = frame.view_mut::<ndp::Advertisement>(behind) else {
        return Action::Drop;
    };
    *message = ndp::Advertisement::new(target, own_mac, flags, target, to);
    let Some(ethernet) = frame.view_mut::<ethernet::Header>(0) else {
        return Action::Drop;
    };
    let to_mac = if free {
        ndp::group_mac(to)
    } else {
        ethernet.source()
    };
    ethernet.readdress(to_mac, own_mac);
    Action::Transmit
}
