//! The tasks that probe the nodes' servers.

use std::sync::Arc;
use vip_common::abi::CheckIndex;

use tokio::spawn;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use vip_common::wire::time::BootNanos;

use crate::clock::now;
use crate::config::Config;
use crate::probe::{Found, News, Prober, Settings};

/// What the tasks that probe have to tell.
pub(super) enum Outcome {
    /// A probe has ended.
    Probe(Probed),
    /// The credentials' files have changed.
    Credentials(News),
}

/// A probe that has ended.
pub(super) struct Probed {
    /// Place of the node in the configuration.
    pub(super) node: usize,
    /// Number of the check.
    pub(super) check: CheckIndex,
    /// When it began.
    pub(super) began: BootNanos,
    /// What it found.
    pub(super) found: Found,
}

/// A task for each check of a node, so that a server that hangs delays only its own probes.
pub(super) fn start_probes(config: &Config, outcomes: &mpsc::Sender<Outcome>) {
    let health = &config.health;
    let trust = health.tls.clone();
    let checks = CheckIndex::first(config.checks.len());
    for (number, check) in checks.zip(&config.checks) {
        let prober = Arc::new(Prober::new(Settings {
            ask: check.ask.clone(),
            port: check.port,
            timeout: health.timeout,
            trust: trust.clone(),
            // They are for API servers, and for nobody else.
            credentials: health
                .credentials
                .clone()
                .filter(|_| number == CheckIndex::API),
        }));
        for (index, node) in config.nodes.iter().enumerate() {
            let (prober, outcomes) = (prober.clone(), outcomes.clone());
            let (node, address, pause) = (index, node.address, health.interval);
            spawn(async move {
                let mut ticks = interval(pause);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let began = now();
                    let probed = Probed {
                        found: prober.probe(address).await,
                        node,
                        check: number,
                        began,
                    };
                    let news = prober.news().map(Outcome::Credentials);
                    for outcome in news.into_iter().chain([Outcome::Probe(probed)]) {
                        if outcomes.send(outcome).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    }
}
