//! The tasks that look at servers, which a reload ends and starts anew.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use vip_common::abi::BackendIndex;
use vip_node::slots::Slots;

use crate::agent::cluster::Cluster;
use crate::agent::probes::{Outcome, Probers};
use crate::agent::queues::{Hung, watch_queues};
use crate::config::Config;

/// The tasks that look at servers.
pub(super) struct Checking {
    /// Counts up with the tasks: what earlier ones found is about other checks.
    pub(super) generation: u32,
    probers: Probers,
    /// What ends the probes of each node.
    probes: Slots<Vec<AbortHandle>>,
    /// The servers of this node that hang by their accept queues, as the thread was told.
    pub(super) hung: Hung,
    /// What ends the look at accept queues.
    queues: Option<AbortHandle>,
    /// Where they tell what they find.
    outcomes: mpsc::Sender<Outcome>,
}

impl Checking {
    /// Begins to probe.
    pub(super) fn probe(
        config: &Config,
        cluster: &Cluster,
        outcomes: mpsc::Sender<Outcome>,
    ) -> Self {
        let generation = 0;
        let mut checking = Self {
            generation,
            probers: Probers::new(config, generation, &outcomes),
            probes: Slots::new(),
            hung: Hung::default(),
            queues: None,
            outcomes,
        };
        checking.probe_all(cluster);
        checking
    }

    fn probe_all(&mut self, cluster: &Cluster) {
        for (slot, node) in cluster.nodes().iter() {
            self.add(slot, node.address, slot == cluster.own());
        }
    }

    /// Begins to probe a node. `own`: it is this one.
    pub(super) fn add(&mut self, slot: BackendIndex, address: IpAddr, own: bool) {
        let tasks = self.probers.start(slot, address, own);
        self.probes.insert(slot, tasks);
    }

    /// Probes a node no more.
    pub(super) fn remove(&mut self, slot: BackendIndex) {
        for task in self.probes.remove(slot).into_iter().flatten() {
            task.abort();
        }
    }

    /// Where tasks tell what they find.
    pub(super) fn outcomes(&self) -> mpsc::Sender<Outcome> {
        self.outcomes.clone()
    }

    /// Looks at accept queues too; see [`watch_queues`].
    pub(super) fn watch(&mut self, config: &Config, longest: Arc<AtomicU32>) {
        let (outcomes, hung) = (self.outcomes(), &self.hung);
        let task = watch_queues(config, self.generation, hung, outcomes, longest);
        self.queues = Some(task);
    }

    /// Ends the tasks. What they have told already is of no meaning any more.
    pub(super) fn stop(&mut self) {
        for slot in self.probes.mask().iter() {
            self.remove(slot);
        }
        if let Some(task) = self.queues.take() {
            task.abort();
        }
        self.generation += 1;
    }

    /// Starts them again.
    pub(super) fn start(&mut self, config: &Config, cluster: &Cluster, longest: Arc<AtomicU32>) {
        self.probers = Probers::new(config, self.generation, &self.outcomes);
        self.probe_all(cluster);
        self.watch(config, longest);
    }
}
