//! What the supervisor knows of each node.

use std::net::IpAddr;
use std::time::Duration;

use vip_common::abi::{BackendCounters, BackendIndex, CheckIndex};
use vip_common::wire::addr::Mac;
use vip_common::wire::time::BootNanos;

use super::segment::Agent;
use crate::config::Node;
use crate::observe::summary::Summary;
use vip_node::health::{Hang, Probe};

/// A server that hangs.
#[derive(Clone, Copy)]
pub(super) struct Hanging {
    /// Why it counts as such.
    pub(super) hang: Hang,
    /// When that was found.
    pub(super) since: BootNanos,
    /// Its connections were reset.
    pub(super) was_reset: bool,
}

/// A node as this one sees it.
pub(super) struct Peer {
    pub(super) index: BackendIndex,
    pub(super) address: IpAddr,
    pub(super) name: String,
    /// Where its frames go, as the thread was told.
    pub(super) mac: Mac,
    /// What the last probe by each check found; `None` before the first one.
    pub(super) probes: Vec<Option<Probe>>,
    /// By check: why its server counts as one that hangs.
    pub(super) hangs: Vec<Option<Hanging>>,
    pub(super) rtt: Option<Duration>,
    /// Until when its API server's certificate is valid, in seconds since 1970.
    pub(super) certificate_not_after: Option<i64>,
    /// Its counters when rates were last computed.
    pub(super) counted: BackendCounters,
    pub(super) rates: Rates,
    /// What is known of its agent.
    pub(super) agent: Agent,
    /// What it tells of itself.
    pub(super) told: Option<Summary>,
}

/// What this node sent to another one of late.
#[derive(Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) packets_per_second: f64,
    pub(super) connections_per_second: f64,
}

impl Peer {
    /// A node, before it was probed by this many checks. `mac`: where its frames go.
    pub(super) fn new(index: BackendIndex, node: &Node, mac: Mac, checks: usize) -> Self {
        Self {
            index,
            address: node.address,
            name: node.name.clone(),
            mac,
            probes: vec![None; checks],
            hangs: vec![None; checks],
            rtt: None,
            certificate_not_after: None,
            counted: BackendCounters::default(),
            rates: Rates::default(),
            agent: Agent::default(),
            told: None,
        }
    }

    /// What the last probe by a check found, for people.
    pub(super) fn last_probe(&self, check: CheckIndex) -> &str {
        self.probes[check.get()]
            .as_ref()
            .map_or("not probed yet", Probe::text)
    }

    /// Takes the counters of what this node sent there, `seconds` after the last ones.
    pub(super) fn count(&mut self, counters: BackendCounters, seconds: f64) {
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        self.rates = Rates {
            packets_per_second: rate(counters.packets(), self.counted.packets()),
            connections_per_second: rate(counters.syns, self.counted.syns),
        };
        self.counted = counters;
    }
}
