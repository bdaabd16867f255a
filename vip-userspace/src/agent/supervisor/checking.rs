//! The tasks that look at servers, which a reload ends and starts anew.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::agent::cluster::Cluster;
use crate::agent::probes::{Outcome, start_probes};
use crate::agent::queues::watch_queues;
use crate::config::Config;

/// The tasks that look at servers.
pub(super) struct Checking {
    /// Counts up with the tasks: what earlier ones found is about other checks.
    pub(super) generation: u32,
    tasks: Vec<AbortHandle>,
    /// Where they tell what they find.
    outcomes: mpsc::Sender<Outcome>,
}

impl Checking {
    /// Begins to probe.
    pub(super) fn probe(config: &Config, cluster: &Cluster, outcomes: mpsc::Sender<Outcome>) -> Self {
        let generation = 0;
        Self {
            generation,
            tasks: start_probes(config, cluster, generation, &outcomes),
            outcomes,
        }
    }

    /// Looks at accept queues too; see [`watch_queues`].
    pub(super) fn watch(&mut self, config: &Config, longest: Arc<AtomicU32>) {
        let outcomes = self.outcomes.clone();
        let task = watch_queues(config, self.generation, outcomes, longest);
        self.tasks.push(task);
    }

    /// Ends the tasks. What they have told already is of no meaning any more.
    pub(super) fn stop(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
        self.generation += 1;
    }

    /// Starts them again.
    pub(super) fn start(&mut self, config: &Config, cluster: &Cluster, longest: Arc<AtomicU32>) {
        self.tasks = start_probes(config, cluster, self.generation, &self.outcomes);
        self.watch(config, longest);
    }
}
