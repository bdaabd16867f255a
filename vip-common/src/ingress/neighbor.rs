//! The decision about ARP and Neighbour Discovery: who may say where the VIP is, and who hears
//! it.

use crate::abi::lookup::{find, find_ipv4, is_living_peer};
use crate::abi::{Counter, Vip, lease_stands};
use crate::env::Tables;
use crate::verdict::Verdict;
use crate::wire::{Frame, arp, blocks, ethernet, ipv6, ndp};

/// Longest solicitation that is answered, in units of eight bytes: four options of that size.
const LONGEST_SOLICITATION: usize = ndp::LENGTH / 8 + 4;

/// Decides about an ARP frame that came in.
///
/// Requests for the VIP never reach the kernel, which has the VIP on `lo` and would answer on
/// every node. The owner answers from here, for as long as its lease holds.
#[inline(always)]
pub(crate) fn decide_arp<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    ethernet: &ethernet::Header,
    tables: &T,
) -> Verdict {
    let Some(packet) = frame.view::<arp::Packet>(ethernet::LENGTH) else {
        return Verdict::pass(Counter::Short);
    };
    let state = tables.state();
    if state.config.ipv4_count == 0 {
        return Verdict::UNTOUCHED;
    }
    if !packet.is_ipv4_over_ethernet() {
        return Verdict::pass(Counter::ArpPassed);
    }
    let asked = find_ipv4(state, packet.target_address());
    // The sender claims to have the VIP: a node of ours announces it, or somebody else took it,
    // who may be on a node whose agent is not there.
    if find_ipv4(state, packet.sender_address()).is_some() {
        let mac = packet.sender_mac();
        let ours = state.config.is_own(mac) || is_living_peer(state, mac);
        return match (asked.is_some(), ours) {
            (true, true) => Verdict::drop(Counter::ArpAnnouncement),
            // If it asks for someone else, let it have its answer, but count the claim.
            (to_vip, false) => Verdict::conflict(Counter::ArpConflict, mac, to_vip),
            (false, true) => Verdict::pass(Counter::ArpPassed),
        };
    }
    let Some(vip) = asked else {
        return Verdict::pass(Counter::ArpPassed);
    };
    if packet.operation() != arp::operation::REQUEST {
        return Verdict::pass(Counter::ArpPassed);
    }
    let destination = ethernet.destination();
    if !state.config.is_own(destination) && !destination.is_multicast() {
        Verdict::pass(Counter::OtherHost)
    } else if lease_stands(vip.answer_until, tables.now()) {
        Verdict::answer_arp()
    } else {
        Verdict::drop(Counter::ArpNotOwner)
    }
}

/// Decides about an ICMPv6 packet, as far as it is Neighbour Discovery; `None` for all else.
///
/// Solicitations for the VIP come by multicast, so that they are not for the VIP by their
/// destination. As with ARP, the owner answers from here and all others are silent. What others
/// claim is passed on, unlike with ARP: the kernel, which has the VIP on another interface, makes
/// nothing of it (`ndisc_recv_na` in net/ipv6/ndisc.c asks for an address of the NIC), and the
/// agent and `vip check` see who answers their questions. An answer to a question that does not
/// say who asks looks like an announcement.
#[inline(always)]
pub(crate) fn decide_ndp<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    ethernet: &ethernet::Header,
    ip: &ipv6::Header,
    tables: &T,
) -> Option<Verdict> {
    let state = tables.state();
    let message = frame.view::<ndp::Message>(ethernet::LENGTH + ipv6::LENGTH)?;
    let solicits = match message.kind() {
        ndp::kind::SOLICITATION => true,
        ndp::kind::ADVERTISEMENT => false,
        _ => return None,
    };
    let target = find(state, message.target());
    let claims = !solicits && target.is_some() || find(state, ip.source()).is_some();
    if claims {
        let mac = ethernet.source();
        return Some(if state.config.is_own(mac) || is_living_peer(state, mac) {
            Verdict::pass(Counter::NdpAnnouncement)
        } else {
            Verdict::conflict(Counter::NdpConflict, mac, false)
        });
    }
    Some(match target {
        Some(vip) => solicited(frame, ethernet, ip, message, vip, tables),
        None => Verdict::pass(Counter::NdpPassed),
    })
}

/// Decides about a solicitation for a VIP.
#[inline(always)]
fn solicited<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    ethernet: &ethernet::Header,
    ip: &ipv6::Header,
    message: &ndp::Message,
    vip: &Vip,
    tables: &T,
) -> Verdict {
    let destination = ethernet.destination();
    if !tables.state().config.is_own(destination) && !destination.is_multicast() {
        return Verdict::pass(Counter::OtherHost);
    }
    // RFC 4861, section 7.1.1.
    let length = ip.payload_length();
    let sum = blocks::<F, LONGEST_SOLICITATION>(frame, ethernet::LENGTH + ipv6::LENGTH, length);
    let valid = ip.hop_limit() == ndp::HOP_LIMIT
        && message.code() == 0
        && length >= ndp::LENGTH
        && sum.is_some_and(|sum| {
            let (from, to) = (ip.source(), ip.destination());
            sum.pseudo_header(from, to, length as u16, ipv6::next_header::ICMP)
                .is_right()
        });
    if !valid {
        Verdict::drop(Counter::Malformed)
    } else if lease_stands(vip.answer_until, tables.now()) {
        Verdict::answer_ndp()
    } else {
        Verdict::drop(Counter::NdpNotOwner)
    }
}
