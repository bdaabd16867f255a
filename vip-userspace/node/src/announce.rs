//! When to announce an address: a burst when it has moved, and for the VIP from then on now and
//! then for those who missed it.

use std::time::Duration;

use vip_common::wire::time::BootNanos;

/// After the takeover. Switches and hosts may drop the first ones while they are busy learning.
const BURST: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(1000),
];

/// Between announcements after the burst.
const INTERVAL: Duration = Duration::from_secs(60);

/// The announcements of one owner, or of a node's own address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    /// When the VIP was taken over, and the number of announcements since; `None` on a node
    /// that does not own the VIP.
    since: Option<(BootNanos, u32)>,
}

impl Schedule {
    /// The VIP was taken over.
    pub(crate) fn begin(&mut self, now: BootNanos) {
        self.since = Some((now, 0));
    }

    /// Hosts may have heard of another owner: begins again, unless it has only just begun.
    pub(crate) fn repeat(&mut self, now: BootNanos) {
        let last = BURST[BURST.len() - 1];
        if self
            .since
            .is_some_and(|(start, _)| now >= start.after(last))
        {
            self.begin(now);
        }
    }

    /// Whether the burst is over.
    pub(crate) fn is_past_burst(&self) -> bool {
        self.since
            .is_some_and(|(_, sent)| sent as usize >= BURST.len())
    }

    /// The VIP was given up.
    pub(crate) fn end(&mut self) {
        self.since = None;
    }

    /// When the next announcement is due; `None` if none is.
    pub(crate) fn deadline(&self) -> Option<BootNanos> {
        let (start, sent) = self.since?;
        let last = BURST[BURST.len() - 1];
        Some(match BURST.get(sent as usize) {
            Some(&delay) => start.after(delay),
            None => start.after(last + INTERVAL * (sent + 1 - BURST.len() as u32)),
        })
    }

    /// Whether to announce now. Says so once for each announcement that is due.
    pub(crate) fn due(&mut self, now: BootNanos) -> bool {
        let due = self.deadline().is_some_and(|deadline| deadline <= now);
        if due && let Some((_, sent)) = &mut self.since {
            *sent += 1;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announces_in_a_burst_and_then_once_a_minute_until_it_ends() {
        let mut schedule = Schedule::default();
        let at = |millis: u64| BootNanos(7).after(Duration::from_millis(millis));
        assert!(!schedule.due(at(0)) && schedule.deadline().is_none());
        schedule.begin(at(0));
        let mut sent = Vec::new();
        for millis in (0..200_000).step_by(10) {
            if schedule.due(at(millis)) {
                sent.push(millis);
            }
        }
        assert_eq!(sent, [0, 50, 200, 1000, 61_000, 121_000, 181_000]);
        schedule.repeat(at(200_000));
        assert!(schedule.due(at(200_000)));
        schedule.repeat(at(200_010));
        assert!(!schedule.due(at(200_010)), "it has only just begun");
        schedule.end();
        schedule.repeat(at(300_000));
        assert!(!schedule.due(at(1_000_000)));
    }
}
