//! Time, and waiting for something to become true.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since boot (`CLOCK_BOOTTIME`): the clock of the BPF programs, and the same in
/// every process here, so that their records can be compared.
#[must_use]
pub fn boot_now() -> u64 {
    let now =
        clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
    now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
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
