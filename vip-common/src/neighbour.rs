//! The ARP decision: who may say where the VIP is, and who hears it.

use crate::layout::Counter;
use crate::node::{Tables, find_vip, is_peer};
use crate::steer::Verdict;
use crate::wire::{Frame, arp, ethernet};

/// Decides about an ARP frame that came in.
///
/// Requests for the VIP never reach the kernel, which has the VIP on `lo` and would answer on
/// every node. The owner answers from here, for as long as its fence holds.
#[inline(always)]
pub(crate) fn decide<F: Frame + ?Sized, T: Tables>(
    frame: &F,
    ethernet: &ethernet::Header,
    tables: &T,
) -> Verdict {
    let Some(packet) = frame.view::<arp::Packet>(ethernet::LENGTH) else {
        return Verdict::pass(Counter::Short);
    };
    let state = tables.state();
    if state.config.vip_count == 0 {
        return Verdict::UNTOUCHED;
    }
    if !packet.is_ipv4_over_ethernet() {
        return Verdict::pass(Counter::ArpPassed);
    }
    let asked = find_vip(state, packet.target_address());
    // The sender claims to have the VIP: a node of ours announces it, or a stranger took it.
    if find_vip(state, packet.sender_address()).is_some() {
        let mac = packet.sender_mac();
        let ours = mac == state.config.own_mac || is_peer(state, mac);
        return match (asked.is_some(), ours) {
            (true, true) => Verdict::drop(Counter::ArpAnnouncement),
            // If he asks for someone else, let him have his answer, but count the claim.
            (to_vip, false) => Verdict::conflict(mac, to_vip),
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
    if destination != state.config.own_mac && !destination.is_multicast() {
        Verdict::pass(Counter::OtherHost)
    } else if tables.now() < vip.owner_until {
        Verdict::answer_arp()
    } else {
        Verdict::drop(Counter::ArpNotOwner)
    }
}
