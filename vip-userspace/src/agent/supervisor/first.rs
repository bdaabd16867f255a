//! The first probes, of an agent where none was before: it turns no connection of its node to a
//! server that was not asked.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use vip_common::abi::{BackendIndex, MAX_CHECKS, Masks};

use crate::agent::probes::{Outcome, Probed};
use crate::clock::now;
use crate::probe::News;
use vip_node::Input;
use vip_node::health::Probe;

/// How long the agent waits for the first server that may be used. One that serves answers within
/// some milliseconds; there may be none yet.
const PATIENCE: Duration = Duration::from_millis(300);

/// What the tasks that probe told first.
#[derive(Default)]
pub(super) struct First {
    pub(super) probed: Vec<Probed>,
    /// Of credentials.
    pub(super) news: Vec<News>,
}

/// Waits until by each check some server was found that may be used, or until all were asked, or
/// for [`PATIENCE`].
pub(super) async fn wait(
    outcomes: &mut mpsc::Receiver<Outcome>,
    nodes: usize,
    checks: usize,
) -> First {
    let end = Instant::now() + PATIENCE;
    let all = nodes * checks;
    let mut first = First::default();
    let mut served = [false; MAX_CHECKS];
    let mut asked = 0;
    while asked < all && !served[..checks].iter().all(|served| *served) {
        match timeout_at(end, outcomes.recv()).await {
            Ok(Some(Outcome::Probe(one))) => {
                served[one.check.get()] |= one.found.probe.is_usable();
                asked += usize::from(one.connected);
                first.probed.push(one);
            }
            Ok(Some(Outcome::Credentials(news))) => first.news.push(news),
            // Accept queues are not looked at yet, and nobody listens to other agents.
            Ok(Some(
                Outcome::Queue { .. }
                | Outcome::NoQueues(_)
                | Outcome::Connections(_)
                | Outcome::Table(_)
                | Outcome::Differs(..)
                | Outcome::Refused(..)
                | Outcome::Cut(_)
                | Outcome::Rosters(_)
                | Outcome::Asked(..)
                | Outcome::Proof(..),
            )) => {}
            Ok(None) | Err(_) => break,
        }
    }
    first
}

/// The masks of a node whose agent knows no more than that.
pub(super) fn masks(probed: &[Probed], mut masks: Masks) -> Masks {
    for one in probed.iter().filter(|one| one.found.probe.is_usable()) {
        let local = &mut masks.connect[one.check.get()];
        *local = local.with(one.node, true);
    }
    masks
}

/// What the probes mean.
pub(super) fn inputs(probed: &[Probed], own: BackendIndex) -> Vec<Input> {
    let mean = |one: &Probed| Input::Probe {
        node: one.node,
        check: one.check,
        found: meaning(one, one.node == own),
    };
    probed.iter().map(mean).collect()
}

/// What a probe means, of this node's `own` server or of another one's.
pub(super) fn meaning(probed: &Probed, own: bool) -> Probe {
    match &probed.found.probe {
        // This node lives: silence is its server's, or its firewall's.
        Probe::Silent(reason) if own => Probe::Hung {
            reason: reason.clone(),
            connected: now(),
        },
        found => found.clone(),
    }
}
