//! The task that looks at the accept queues of this node's servers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::spawn;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use vip_common::abi::{BackendIndex, CheckIndex, MAX_CHECKS, Masks};
use vip_node::backlog::{Backlog, Change, INTERVAL, Look, Moment, Queue};
use vip_node::health::Hang;

use super::probes::Outcome;
use super::ticks::ticks;
use crate::clock::now;
use crate::config::Config;
use crate::kernel::pressure::Pressure;
use crate::net::diag::{Connection, SocketDiag};

/// Until the next try, where the kernel could not be asked.
const RETRY: Duration = Duration::from_secs(2);

/// The accept queues of the services that share a check.
struct Queues {
    check: CheckIndex,
    /// The VIPs, with the ports at which servers listen.
    listeners: Vec<SocketAddr>,
    /// The connections that waited at the first look.
    watched: Vec<Connection>,
    backlog: Backlog,
}

/// The servers that hang, by check, as their queues show.
pub(super) type Hung = [bool; MAX_CHECKS];

/// The servers of this node that got no new connections from an earlier agent, as its `masks` say,
/// and have not accepted all connections. A restart of the agent is no sign of life of a server.
pub(super) fn hung_before(config: &Config, own: BackendIndex, masks: &Masks) -> io::Result<Hung> {
    let mut hung = Hung::default();
    if masks.draining.contains(own) {
        return Ok(hung);
    }
    let diag = SocketDiag::open()?;
    for check in CheckIndex::first(config.checks.len()) {
        let place = check.get();
        hung[place] = !masks.new_connections[place].contains(own)
            && Queues::of(config, check, false).length(&diag)? > 0;
    }
    Ok(hung)
}

/// Looks at all queues every 25 ms until the agent ends. `hung`: the servers that were found to hang
/// before. `longest` always holds the length of the longest queue. Returns what ends the task.
pub(super) fn watch_queues(
    config: &Config,
    generation: u32,
    hung: &Hung,
    outcomes: mpsc::Sender<Outcome>,
    longest: Arc<AtomicU32>,
) -> AbortHandle {
    let checks = CheckIndex::first(config.checks.len());
    let mut all: Vec<_> = checks
        .map(|check| Queues::of(config, check, hung[check.get()]))
        .collect();
    let watching = spawn(async move {
        let mut told = false;
        while let Err(error) = watch(&mut all, generation, &outcomes, &longest).await {
            if !std::mem::replace(&mut told, true)
                && outcomes.send(Outcome::NoQueues(error)).await.is_err()
            {
                return;
            }
            sleep(RETRY).await;
        }
    });
    watching.abort_handle()
}

/// Looks until the agent ends.
///
/// # Errors
/// The kernel cannot be asked.
async fn watch(
    all: &mut [Queues],
    generation: u32,
    outcomes: &mpsc::Sender<Outcome>,
    longest: &AtomicU32,
) -> io::Result<()> {
    let diag = SocketDiag::open()?;
    let pressure = Pressure::open();
    let mut ticks = ticks(INTERVAL);
    loop {
        ticks.tick().await;
        for (check, hang) in look(&diag, &pressure, all, longest)? {
            let outcome = Outcome::Queue {
                generation,
                check,
                hang,
            };
            if outcomes.send(outcome).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Looks at all queues once.
fn look(
    diag: &SocketDiag,
    pressure: &Pressure,
    all: &mut [Queues],
    longest: &AtomicU32,
) -> io::Result<Vec<(CheckIndex, Option<Hang>)>> {
    let mut found = Vec::new();
    let mut most = 0;
    for queues in all {
        let length = queues.length(diag)?;
        most = most.max(length);
        let hang = queues
            .look(diag, pressure, length)?
            .map(|change| match change {
                Change::Hangs { since } => Some(Hang::Queue {
                    waiting: length,
                    since,
                }),
                Change::Accepts => None,
            });
        found.extend(hang.map(|hang| (queues.check, hang)));
    }
    longest.store(most, Ordering::Relaxed);
    Ok(found)
}

impl Queues {
    /// `hung`: the server was found to hang before.
    fn of(config: &Config, check: CheckIndex, hung: bool) -> Self {
        let listeners = config.ends(|service| service.check == check);
        Self {
            check,
            listeners: listeners.into_iter().collect(),
            watched: Vec::new(),
            backlog: if hung {
                Backlog::of_hang()
            } else {
                Backlog::default()
            },
        }
    }

    /// Length of the longest queue.
    fn length(&self, diag: &SocketDiag) -> io::Result<u32> {
        // Among sockets that share a port, each look chooses another one.
        let guest = now().0 as u16;
        let mut listeners = self.listeners.iter();
        listeners.try_fold(0, |longest, listener| {
            Ok(longest.max(diag.queue_length(*listener, guest)?))
        })
    }

    /// Looks at the connections, if there are any.
    fn look(
        &mut self,
        diag: &SocketDiag,
        pressure: &Pressure,
        length: u32,
    ) -> io::Result<Option<Change>> {
        // Asked only while connections wait: mostly there are none.
        let stalled = if length > 0 || !self.watched.is_empty() {
            pressure.stalled()
        } else {
            Duration::ZERO
        };
        let moment = Moment {
            now: now(),
            stalled,
        };
        let mut change = None;
        if !self.watched.is_empty() {
            let fates = self.watched.iter().map(|one| diag.fate(one));
            let fates = fates.collect::<io::Result<Vec<_>>>()?;
            let look = Look::at(&fates);
            change = self.backlog.on_look(moment, look);
            if look == Look::Waiting {
                return Ok(change);
            }
            self.watched.clear();
        }
        // `length` may be that of another listener at the port than the one that hangs.
        if length == 0 && !self.backlog.hangs() {
            return Ok(change.or(self.backlog.on_look(moment, Look::Empty)));
        }
        let queues = self.list(diag)?;
        let look = if queues.iter().all(|queue| queue.length == 0) {
            Look::Empty
        } else if self.watched.is_empty() {
            Look::Unseen(&queues)
        } else {
            Look::First(&queues)
        };
        Ok(change.or(self.backlog.on_look(moment, look)))
    }

    /// Watches the connections that wait. Returns all accept queues.
    fn list(&mut self, diag: &SocketDiag) -> io::Result<Vec<Queue>> {
        let mut ports: Vec<u16> = self.listeners.iter().map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        let mut queues = Vec::new();
        for port in ports {
            let all = diag.connections(port)?;
            self.watched.extend(all.iter().filter(|one| one.waits));
            queues.extend(diag.accept_queues(port)?);
        }
        Ok(queues)
    }
}
