//! The clock that the agent and the programs share.

use core::time::Duration;

use bytemuck::{Pod, Zeroable};

/// Nanoseconds since boot, suspend included (`CLOCK_BOOTTIME`, `bpf_ktime_get_boot_ns`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct BootNanos(pub u64);

impl BootNanos {
    /// The time of boot. A lease that ends then does not stand.
    pub const ZERO: Self = Self(0);

    /// This time plus a duration, at most `u64::MAX`.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_nanos() as u64))
    }

    /// This time less a duration, at least 0.
    #[must_use]
    pub const fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_nanos() as u64))
    }

    /// The duration from `earlier` to this time; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
