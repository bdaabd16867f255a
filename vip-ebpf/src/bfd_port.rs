//! The program that shares BFD's port with other BFD programs of the node: a thin shell around
//! [`vip_common::bfd_port`]. It has an object of its own, because the agent also works without it.
#![no_std]
#![no_main]

mod object;

use aya_ebpf::bindings::{bpf_sk_lookup, sk_action};
use aya_ebpf::macros::{map, sk_lookup};
use aya_ebpf::maps::{Array, SockMap};
use aya_ebpf::programs::SkLookupContext;
use vip_common::bfd_port::{BfdPort, Endpoint, Receiver};
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

/// Selects the socket that gets a datagram. It runs in the network namespace for each TCP
/// connection and for each datagram without a connected socket, so that it first returns for those
/// not of BFD.
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
    let source = Endpoint {
        address: source,
        port: Be16::from_raw(fields.remote_port),
    };
    let destination = Endpoint {
        address: destination,
        port: Be16::new(PORT),
    };
    let receiver = port.receiver(source, destination);
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

/// The source and destination address of a datagram.
#[inline(always)]
fn addresses(fields: &bpf_sk_lookup) -> (Be128, Be128) {
    if fields.family == IPV4 {
        let source = Be32::from_raw(fields.remote_ip4);
        let destination = Be32::from_raw(fields.local_ip4);
        return (source.into(), destination.into());
    }
    // The verifier allows an access to one field, not to several at once.
    let word = |field: &u32| {
        // SAFETY: a field of the context.
        unsafe { core::ptr::from_ref(field).read_volatile() }
    };
    let address = |words: &[u32; 4]| Be128::from_raw(words.each_ref().map(word));
    (address(&fields.remote_ip6), address(&fields.local_ip6))
}
