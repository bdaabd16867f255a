//! What the tests of the parts share: three nodes on one segment.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use vip_common::abi::BackendIndex;
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::Centiseconds;

use crate::bfd;
use crate::election::MAX_LEASE;
use crate::health::Thresholds;
use crate::input::{Member, Params, VrrpParams};

/// Nanoseconds in a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// So many milliseconds after a node was started.
pub(crate) fn at(ms: u64) -> BootNanos {
    BootNanos(1_000_000 * MS + ms * MS)
}

/// A node's index.
pub(crate) fn index(node: usize) -> BackendIndex {
    BackendIndex::new(node).unwrap()
}

/// Of the node `own`, with or without BFD: packets each 50 ms, advertisements each 100 ms.
pub(crate) fn params(own: usize, bfd: bool) -> Params {
    Params {
        own: index(own),
        nodes: [250, 220, 190]
            .iter()
            .enumerate()
            .map(|(node, &priority)| Member {
                address: IpAddr::from([10, 0, 0, 11 + node as u8]),
                priority,
            })
            .collect(),
        vrrp: VrrpParams {
            interval: Centiseconds::new(10).unwrap(),
            preempt: false,
            preempt_delay: Duration::ZERO,
        },
        bfd: bfd.then(|| bfd::Params {
            detect_mult: NonZeroU8::new(3).unwrap(),
            interval: Duration::from_millis(50),
        }),
        checks: 1,
        thresholds: Thresholds { rise: 1, fall: 1 },
        probe_address: false,
        max_lease: MAX_LEASE,
        seed: 1,
    }
}
