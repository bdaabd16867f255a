//! BFD's port, shared with other programs of the node: a thin shell around
//! [`vip_common::bfd_port`]. An object of its own, since the agent can do without it.
#![no_std]
#![no_main]

mod object;

use aya_ebpf::bindings::{bpf_sk_lookup, sk_action};
use aya_ebpf::macros::{map, sk_lookup};
use aya_ebpf::maps::{Array, SockMap};
use aya_ebpf::programs::SkLookupContext;
use vip_common::bfd_port::{BfdPort, Receiver};
use vip_common::wire::addr::{Be16, Be32, Be128};
use vip_common::wire::bfd::PORT;

#[map]
static VIP_BFD_PORT: Array<BfdPort> = Array::with_max_entries(1, 0);

#[map]
static VIP_BFD_SOCKET: SockMap = SockMap::with_max_entries(1, 0);

/// `IPPROTO_UDP`.
const UDP: u32 = 17;

/// `AF_INET`.
const IPV4: u32 = 2;

/// Which socket of the network namespace gets a datagram. It runs for each TCP connection and
/// for each datagram that no connected socket takes, so what is not BFD's leaves first.
#[sk_lookup]
#[inline(always)]
fn vip_bfd_port(context: SkLookupContext) -> u32 {
    // SAFETY: the kernel's context, which lives as long as the program runs.
    let fields = unsafe { &*context.lookup };
    if fields.local_port != u32::from(PORT) || fields.protocol != UDP {
        return sk_action::SK_PASS;
    }
    let Some(port) = VIP_BFD_PORT.get(0) else {
        return sk_action::SK_PASS;
    };
    let (source, destination) = addresses(fields);
    let from = Be16::from_raw(fields.remote_port);
    let receiver = port.receiver((source, from), (destination, PORT));
    if receiver == Receiver::Others {
        return sk_action::SK_PASS;
    }
    let given = VIP_BFD_SOCKET.redirect_sk_lookup(&context, 0, 0).is_ok();
    if given || receiver == Receiver::AgentFirst {
        sk_action::SK_PASS
    } else {
        sk_action::SK_DROP
    }
}

/// Where a datagram comes from and goes to.
#[inline(always)]
fn addresses(fields: &bpf_sk_lookup) -> (Be128, Be128) {
    if fields.family == IPV4 {
        let source = Be32::from_raw(fields.remote_ip4);
        let destination = Be32::from_raw(fields.local_ip4);
        return (source.into(), destination.into());
    }
    // The verifier allows accesses of a field, and not of several at once.
    let word = |field: &u32| {
        // SAFETY: a field of the context.
        unsafe { core::ptr::from_ref(field).read_volatile() }
    };
    let address = |words: &[u32; 4]| Be128::from_raw(words.each_ref().map(word));
    (address(&fields.remote_ip6), address(&fields.local_ip6))
}
