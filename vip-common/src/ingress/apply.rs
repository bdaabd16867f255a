//! The rewriting of a frame by its verdict.

use crate::env::Tables;
use crate::verdict::{Kind, Verdict};
use crate::wire::{FrameMut, arp, ethernet, ipv4, ipv6, ndp, tcp};

/// The destination of a frame once it is rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// This node's stack (`XDP_PASS`).
    Pass,
    /// None: the frame is discarded (`XDP_DROP`).
    Drop,
    /// The NIC at which it arrived (`XDP_TX`).
    Transmit,
}

/// Rewrites the frame for which the verdict was given. A frame that no longer has the headers
/// which the verdict needs is dropped.
#[inline(always)]
pub fn apply<F, T>(verdict: Verdict, frame: &mut F, tables: &T) -> Action
where
    F: FrameMut + ?Sized,
    T: Tables,
{
    match verdict.kind {
        Kind::Pass | Kind::Local => rewrite_port(&verdict, frame),
        Kind::EndTimeWait => {
            let Some(segment) = frame.view_mut::<tcp::Header>(verdict.tcp_offset as usize) else {
                return Action::Drop;
            };
            segment.become_reset(verdict.sequence);
            rewrite_port(&verdict, frame)
        }
        Kind::Drop => Action::Drop,
        Kind::Forward => forward(&verdict, frame),
        Kind::AnswerArp => answer_arp(frame, tables),
        Kind::AnswerNdp => answer_ndp(frame, tables),
    }
}

/// Writes the port that the verdict names, if it names one, for the stack.
#[inline(always)]
fn rewrite_port<F: FrameMut + ?Sized>(verdict: &Verdict, frame: &mut F) -> Action {
    let port = verdict.port_offset as usize;
    let checksum = verdict.checksum_offset as usize;
    if port != 0 && !frame.replace(port, checksum, verdict.port) {
        return Action::Drop;
    }
    Action::Pass
}

#[inline(always)]
fn forward<F: FrameMut + ?Sized>(verdict: &Verdict, frame: &mut F) -> Action {
    // The decision has seen this header, but the verifier requires a check here.
    if lower_ttl(verdict, frame).is_none() {
        return Action::Drop;
    }
    let Some(ethernet) = frame.view_mut::<ethernet::Header>(0) else {
        return Action::Drop;
    };
    // Only frames to this node's own address are forwarded.
    let own_mac = ethernet.destination();
    ethernet.readdress(verdict.mac, own_mac);
    Action::Transmit
}

/// Writes the TTL or hop limit for one more hop. `None` if the frame has no IP header.
#[inline(always)]
fn lower_ttl<F: FrameMut + ?Sized>(verdict: &Verdict, frame: &mut F) -> Option<()> {
    if verdict.ipv6 {
        let ip = frame.view_mut::<ipv6::Header>(ethernet::LENGTH)?;
        ip.set_hop_limit(verdict.ttl);
    } else {
        let ip = frame.view_mut::<ipv4::Header>(ethernet::LENGTH)?;
        ip.lower_ttl(verdict.ttl);
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

/// Answers a neighbor solicitation (RFC 4861, section 7.2.4). A host that does duplicate address
/// detection (RFC 4862, section 5.4.2) has no source address yet: the answer goes to all nodes.
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
    let detects_duplicates = asker.is_unspecified();
    let (to, flags) = if detects_duplicates {
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
    let to_mac = if detects_duplicates {
        ndp::group_mac(to)
    } else {
        ethernet.source()
    };
    ethernet.readdress(to_mac, own_mac);
    Action::Transmit
}
