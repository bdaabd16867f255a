//! What the thread has done, for status and metrics.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Counts since the agent started, and sizes as they are now. Public to the agent's status alone.
#[derive(Debug, Default)]
pub(in crate::agent) struct Stats {
    /// Connections of this node.
    pub(super) own: AtomicU64,
    /// Those that are too many to be told.
    pub(super) untold: AtomicU64,
    /// Nanoseconds that scans have taken.
    pub(super) scan_time: AtomicU64,
    pub(super) scans: AtomicU64,
    /// Messages of peers, by [`RECEIVED`].
    pub(super) received: [AtomicU64; RECEIVED.len()],
    pub(super) sent: AtomicU64,
    /// Segments that ask clients.
    pub(super) nudges: AtomicU64,
    /// Clients of nodes that are gone which have answered.
    pub(super) answered: AtomicU64,
    /// Connections that each peer has told.
    pub(super) told: Mutex<BTreeMap<IpAddr, u64>>,
}

/// What becomes of messages.
pub(super) const RECEIVED: [&str; 4] = ["taken", "stranger", "unbelieved", "old"];

/// A reading of [`Stats`].
pub(in crate::agent) struct Reading {
    pub(in crate::agent) own: u64,
    pub(in crate::agent) untold: u64,
    pub(in crate::agent) scans: u64,
    pub(in crate::agent) scan_time: Duration,
    pub(in crate::agent) sent: u64,
    /// With what became of them.
    pub(in crate::agent) received: [(&'static str, u64); RECEIVED.len()],
    pub(in crate::agent) nudges: u64,
    pub(in crate::agent) answered: u64,
    pub(in crate::agent) told: BTreeMap<IpAddr, u64>,
}

impl Stats {
    pub(in crate::agent) fn read(&self) -> Reading {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        // A thread that panicked left whole values.
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        Reading {
            own: get(&self.own),
            untold: get(&self.untold),
            scans: get(&self.scans),
            scan_time: Duration::from_nanos(get(&self.scan_time)),
            sent: get(&self.sent),
            received: std::array::from_fn(|place| (RECEIVED[place], get(&self.received[place]))),
            nudges: get(&self.nudges),
            answered: get(&self.answered),
            told: told.clone(),
        }
    }

    pub(super) fn add(count: &AtomicU64, more: u64) {
        count.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn set(count: &AtomicU64, value: u64) {
        count.store(value, Ordering::Relaxed);
    }
}
