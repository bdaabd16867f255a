//! The beats of the agent's tasks.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// When the beats began.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Ticks now, and then at multiples of the period since the agent's start. So tasks whose periods
/// have a common measure wake up together. A tick that was missed is left out.
pub(super) fn ticks(period: Duration) -> Interval {
    let missed = BEGIN.elapsed().as_nanos() / period.as_nanos().max(1);
    let last = *BEGIN + period * u32::try_from(missed).unwrap_or(0);
    let mut ticks = interval_at(last, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}
