//! The clock of the answer lease.

use nix::time::{ClockId, clock_gettime};
use vip_common::wire::time::BootNanos;

/// Now, by the clock that `bpf_ktime_get_boot_ns` reads.
///
/// # Panics
/// Never: Linux has the clock since 2.6.39.
#[must_use]
pub fn now() -> BootNanos {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME is always there");
    BootNanos(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
