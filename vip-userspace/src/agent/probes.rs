//! The tasks that probe the nodes' servers.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use vip_common::abi::{BackendIndex, CheckIndex};

use tokio::spawn;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use vip_common::wire::time::BootNanos;

use super::cluster::Cluster;
use super::ticks::ticks;
use crate::clock::now;
use crate::config::Config;
use crate::probe::{Ask, Found, News, Prober, Settings};
use vip_node::health::Hang;

/// Time between probes of the node's own API server, at most. Most of them use an open connection:
/// one at each interval of the configuration is a new one. A request for `/readyz` costs
/// kube-apiserver 2 ms.
const OWN_INTERVAL: Duration = Duration::from_millis(200);

/// What the tasks that probe have to tell.
pub(super) enum Outcome {
    /// A probe has ended.
    Probe(Probed),
    /// The credentials' files have changed.
    Credentials(News),
    /// A server of this node does not accept connections, or does again.
    Queue {
        /// As [`Probed::generation`].
        generation: u32,
        check: CheckIndex,
        hang: Option<Hang>,
    },
    /// Accept queues cannot be looked at.
    NoQueues(io::Error),
}

/// A probe that has ended.
pub(super) struct Probed {
    /// That of the task: checks have other numbers in another one.
    pub(super) generation: u32,
    /// The node.
    pub(super) node: BackendIndex,
    /// Number of the check.
    pub(super) check: CheckIndex,
    /// When it began.
    pub(super) began: BootNanos,
    /// It made a new connection.
    pub(super) connected: bool,
    /// What it found.
    pub(super) found: Found,
}

/// A task for each check of a node, so that a server that hangs delays only its own probes. Returns
/// what ends the tasks.
pub(super) fn start_probes(
    config: &Config,
    cluster: &Cluster,
    generation: u32,
    outcomes: &mpsc::Sender<Outcome>,
) -> Vec<AbortHandle> {
    let mut tasks = Vec::new();
    let health = &config.health;
    let checks = CheckIndex::first(config.checks.len());
    for (number, check) in checks.zip(&config.checks) {
        let prober = |keep_open| {
            Arc::new(Prober::new(Settings {
                ask: check.ask.clone(),
                port: check.port,
                timeout: health.timeout,
                keep_open,
                trust: health.tls.clone(),
                // They are for API servers, and for nobody else.
                credentials: health
                    .credentials
                    .clone()
                    .filter(|_| number == CheckIndex::API),
            }))
        };
        let others = prober(false);
        for (node, member) in cluster.nodes().iter() {
            let quick = node == cluster.own()
                && number == CheckIndex::API
                && matches!(check.ask, Ask::Http(_));
            let (prober, pause) = if quick {
                (prober(true), health.interval.min(OWN_INTERVAL))
            } else {
                (others.clone(), health.interval)
            };
            let task = Task {
                generation,
                node,
                check: number,
                pause,
                probes_per_connection: health.interval.div_duration_f64(pause).ceil() as u32,
            };
            let running = spawn(task.run(prober, member.address, outcomes.clone()));
            tasks.push(running.abort_handle());
        }
    }
    tasks
}

/// Probes one server of one node.
struct Task {
    generation: u32,
    node: BackendIndex,
    check: CheckIndex,
    /// Time between two probes.
    pause: Duration,
    probes_per_connection: u32,
}

impl Task {
    /// Runs until the agent ends.
    async fn run(self, prober: Arc<Prober>, address: IpAddr, outcomes: mpsc::Sender<Outcome>) {
        let mut ticks = ticks(self.pause);
        for number in (0..self.probes_per_connection).cycle() {
            ticks.tick().await;
            let (began, connected) = (now(), number == 0);
            let found = if connected {
                prober.probe(address).await
            } else {
                prober.probe_again(address).await
            };
            let probed = Probed {
                generation: self.generation,
                node: self.node,
                check: self.check,
                began,
                connected,
                found,
            };
            let news = prober.news().map(Outcome::Credentials);
            for outcome in news.into_iter().chain([Outcome::Probe(probed)]) {
                if outcomes.send(outcome).await.is_err() {
                    return;
                }
            }
        }
    }
}
