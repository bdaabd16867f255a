//! The tasks that probe the nodes' servers.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use vip_common::abi::{BackendIndex, CheckIndex, RankRow};

use tokio::spawn;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use vip_common::wire::time::BootNanos;

use super::remote::Caller;
use super::roster::RosterNews;
use super::ticks::ticks;
use crate::clock::now;
use crate::config::Config;
use crate::probe::{Ask, Found, News, Prober, Settings};
use vip_node::Installation;
use vip_node::envelope::Refused;
use vip_node::health::Hang;
use vip_node::hello::Instance;
use vip_node::rank::RankError;

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
    /// Connections to the VIPs that this node's servers have open.
    Connections(io::Result<usize>),
    /// A rank table was made.
    Table(Box<Table>),
    /// An agent has another configuration, and would misroute, by this key.
    Differs(IpAddr, &'static str),
    /// A hello is sealed otherwise than this node's.
    Refused(IpAddr, Refused),
    /// So many connections of this node's servers were reset, as `vip drain` was asked to.
    Cut(usize),
    /// The thread that keeps rosters tells something.
    Rosters(RosterNews),
    /// The agent of another node asks for something.
    Asked(Vec<u8>, Caller),
    /// Whether a host has proved that it may be a member, and if not, why.
    Proof(IpAddr, Result<Instance, String>),
}

/// A rank table for a changed set of members.
pub(super) struct Table {
    /// What it was made for.
    pub(super) installation: Installation,
    /// Its rows, or why there are none.
    pub(super) rows: Result<Vec<RankRow>, RankError>,
}

/// A probe that has ended.
pub(super) struct Probed {
    /// That of the task: checks have other numbers in another one.
    pub(super) generation: u32,
    /// The node.
    pub(super) node: BackendIndex,
    /// Its address: another node may have its slot by now.
    pub(super) address: IpAddr,
    /// Number of the check.
    pub(super) check: CheckIndex,
    /// When it began.
    pub(super) began: BootNanos,
    /// It made a new connection.
    pub(super) connected: bool,
    /// What it found.
    pub(super) found: Found,
}

/// The probers of each check.
pub(super) struct Probers {
    generation: u32,
    interval: Duration,
    checks: Vec<Probing>,
    outcomes: mpsc::Sender<Outcome>,
}

/// How a check is made.
struct Probing {
    number: CheckIndex,
    /// Of a node's own API server, over an open connection.
    own: Option<Arc<Prober>>,
    others: Arc<Prober>,
}

impl Probers {
    /// Those of a configuration's checks.
    pub(super) fn new(config: &Config, generation: u32, outcomes: &mpsc::Sender<Outcome>) -> Self {
        let health = &config.health;
        let checks = CheckIndex::first(config.checks.len()).zip(&config.checks);
        let checks = checks.map(|(number, check)| {
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
            let quick = number == CheckIndex::API && matches!(check.ask, Ask::Http(_));
            Probing {
                number,
                own: quick.then(|| prober(true)),
                others: prober(false),
            }
        });
        Self {
            generation,
            interval: health.interval,
            checks: checks.collect(),
            outcomes: outcomes.clone(),
        }
    }

    /// Starts a task for each check of a node, so that a server that hangs delays only its own probes.
    /// `own`: it is this node. Returns what ends the tasks.
    pub(super) fn start(&self, node: BackendIndex, address: IpAddr, own: bool) -> Vec<AbortHandle> {
        let start = |probing: &Probing| {
            let quick = probing.own.clone().filter(|_| own);
            let pause = match quick {
                Some(_) => self.interval.min(OWN_INTERVAL),
                None => self.interval,
            };
            let task = Task {
                generation: self.generation,
                node,
                check: probing.number,
                pause,
                probes_per_connection: self.interval.div_duration_f64(pause).ceil() as u32,
            };
            let prober = quick.unwrap_or_else(|| probing.others.clone());
            spawn(task.run(prober, address, self.outcomes.clone())).abort_handle()
        };
        self.checks.iter().map(start).collect()
    }
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
                address,
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
