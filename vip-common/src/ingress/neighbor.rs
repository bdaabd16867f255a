//! The decision about ARP (RFC 826) and Neighbor Discovery (RFC 4861): only the owner answers for a
//! VIP, and a claim by any host that is not a living node is a conflict.

use crate::abi::lookup::{find_ipv4, find_ipv6, is_living_peer};
use crate::abi::{Counter, Vip, lease_stands};
use crate::env::Tables;
use crate::verdict::Verdict;
use crate::wire::{Frame, arp, blocks, ethernet, ipv6, ndp};

/// Length of the longest solicitation that is answered, in units of eight bytes: the message and
/// four options of one unit each.
const LONGEST_SOLICITATION: usize = ndp::LENGTH / 8 + 4;

/// Decides about an ARP frame that arrived.
///
/// The kernel has the VIP on `lo` of every node and would answer everywhere, so that requests for
/// the VIP never reach it. The owner answers from here while its answer lease stands.
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
    // The sender says that the VIP is its own. A living node announces it; any other host is a
    // claimant, even one on a node whose agent does not run.
    if find_ipv4(state, packet.sender_address()).is_some() {
        let mac = packet.sender_mac();
        let ours = state.config.is_own(mac) || is_living_peer(state, mac);
        return match (asked.is_some(), ours) {
            (true, true) => Verdict::drop(Counter::ArpAnnouncement),
            // A claimant's request for another address is counted, but may be answered.
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

/// Decides about neighbor solicitations and advertisements; `None` for all other ICMPv6.
///
/// Solicitations for the VIP have a multicast group as their destination, not the VIP. As with ARP,
/// only the owner answers, from here.
///
/// Unlike with ARP, claims are passed to the kernel. It ignores them, because it has the VIP on
/// another interface (`ndisc_recv_na` in net/ipv6/ndisc.c looks for an address of the NIC). The
/// agent and `vip check` need them: they send address probes (duplicate address detection, RFC
/// 4862, section 5.4) and see the advertisements that answer. Such an answer goes to all nodes, so
/// it looks like an announcement.
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
    let target = find_ipv6(state, message.target());
    let claims = !solicits && target.is_some() || find_ipv6(state, ip.source()).is_some();
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

/// Decides about a solicitation for a VIP: only a valid one (RFC 4861, section 7.1.1) is answered.
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
