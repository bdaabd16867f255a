//! Time, and waiting for something to become true.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::time::{ClockId, clock_gettime};

/// In the environment of a program in a virtual machine: nanoseconds to be added to the clock
/// there to have the one of the host.
pub const OFFSET: &str = "VIP_TESTS_CLOCK_OFFSET";

/// Nanoseconds since boot (`CLOCK_BOOTTIME`): the clock of the BPF programs, and the same in
/// every process here, so that their records can be compared. In a virtual machine it is the
/// host's, to a millisecond or so.
#[must_use]
pub fn boot_now() -> u64 {
    static ADDED: LazyLock<i64> = LazyLock::new(|| {
        let offset = std::env::var(OFFSET).ok();
        offset.and_then(|text| text.parse().ok()).unwrap_or(0)
    });
    let now =
        clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
    let own = now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned();
    own.saturating_add_signed(*ADDED)
}

/// Polls until `probe` gives something. The limit is there to end a run that hangs, not to
/// measure: choose it generously.
///
/// # Errors
/// The limit passed (the message names `what`), or the probe failed.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if start.elapsed() > limit {
            bail!("waited {} s in vain: {what}", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}
