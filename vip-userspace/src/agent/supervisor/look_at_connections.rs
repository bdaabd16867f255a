//! Counts the connections to the VIPs that this node's servers have open, now and then.

use std::io;

use tokio::spawn;
use tokio::task::spawn_blocking;

use super::Supervisor;
use crate::agent::probes::Outcome;
use crate::clock::now;
use crate::net::diag::SocketDiag;

impl Supervisor {
    /// Counts in another thread, if that is due.
    pub(super) fn count_connections(&mut self) {
        let now = now();
        let own = self.peers.get(self.cluster.own());
        let got = own.map(|own| own.counted).unwrap_or_default();
        if !self.connections.begin(now, got) {
            return;
        }
        let ends = self.config.ends(|_| true);
        let outcomes = self.checking.outcomes();
        drop(spawn(async move {
            let count = spawn_blocking(move || {
                let found = SocketDiag::open()?.connections_to(&ends)?;
                Ok(found.len())
            });
            if let Ok(counted) = count.await {
                // The agent is ending.
                let _gone = outcomes.send(Outcome::Connections(counted)).await;
            }
        }));
    }

    /// They were counted.
    pub(in crate::agent) fn on_connections(&mut self, counted: io::Result<usize>) {
        if let Err(error) = &counted {
            tracing::debug!(%error, "cannot count open connections");
        }
        self.connections.end(counted.ok().map(|open| open as u32));
    }
}
