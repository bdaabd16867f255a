//! The ARP decision: who may say where the VIP is, and who hears it.

use crate::layout::Counter;
use crate::node::{NO_VIP, Tables, find_vip, is_peer};
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
    let Some(config) = tables.config() else {
        return Verdict::UNTOUCHED;
    };
    if !packet.is_ipv4_over_ethernet() {
        return Verdict::pass(Counter::ArpPassed);
    }
    let asked = find_vip(tables, config, packet.target_address());
    // The sender claims to have the VIP: a node of ours announces it, or a stranger took it.
    if find_vip(tables, config, packet.sender_address()) != NO_VIP {
        let mac = packet.sender_mac();
        let ours = mac == config.own_mac || is_peer(tables, config, mac);
        return match (asked != NO_VIP, ours) {
            (true, true) => Verdict::drop(Counter::ArpAnnouncement),
            (true, false) => Verdict::drop(Counter::ArpConflict),
            // He asks for someone else. Let him have his answer, but count the claim.
            (false, false) => Verdict::pass(Counter::ArpConflict),
            (false, true) => Verdict::pass(Counter::ArpPassed),
        };
    }
    if asked == NO_VIP || packet.operation() != arp::operation::REQUEST {
        return Verdict::pass(Counter::ArpPassed);
    }
    let destination = ethernet.destination();
    if destination != config.own_mac && !destination.is_multicast() {
        Verdict::pass(Counter::OtherHost)
    } else if tables.fence_holds(asked) {
        Verdict::answer_arp()
    } else {
        Verdict::drop(Counter::ArpNotOwner)
    }
}
