//! Load, watches and the ARP monitor, as a scenario holds them: child processes on a client.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::arp::{ArpEvent, ArpReport};
use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE};
use crate::load::Request;
use crate::outcome::{Down, Outcome, Timeline};
use crate::process::Process;
use crate::topology::{Host, PORT, VIP, VIP6};
use crate::watch::Snapshot;

/// The address clients use: the VIP and its port.
#[must_use]
pub fn vip() -> String {
    format!("{VIP}:{PORT}")
}

/// The same by IPv6.
#[must_use]
pub fn vip6() -> String {
    format!("[{VIP6}]:{PORT}")
}

/// A load client at work.
#[derive(Debug)]
pub struct Load(Process);

impl Load {
    /// Starts one on a host, against `ADDRESS:PORT`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(cluster: &Cluster, host: &dyn Host, target: &str) -> Result<Self> {
        let pace = cluster.pace();
        Self::start_at(cluster, host, target, pace.every_ms, pace.kept)
    }

    /// Starts one with so many milliseconds between two requests on new connections, and so many
    /// connections that are kept.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_at(
        cluster: &Cluster,
        host: &dyn Host,
        target: &str,
        every_ms: u64,
        kept: usize,
    ) -> Result<Self> {
        let timeout_ms = cluster.pace().timeout_secs * 1000;
        Self::launch(cluster, host, target, every_ms, kept, timeout_ms)
    }

    /// Starts one with new connections only, whose requests have failed after so many milliseconds.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn probe(
        cluster: &Cluster,
        host: &dyn Host,
        target: &str,
        every_ms: u64,
        timeout_ms: u64,
    ) -> Result<Self> {
        Self::launch(cluster, host, target, every_ms, 0, timeout_ms)
    }

    fn launch(
        cluster: &Cluster,
        host: &dyn Host,
        target: &str,
        every_ms: u64,
        kept: usize,
        timeout_ms: u64,
    ) -> Result<Self> {
        let mut command = cluster.client(host, "load", target);
        command
            .args(["--path", cluster.load_path()])
            .args(["--every-ms", &every_ms.to_string()])
            .args(["--keepalive", &kept.to_string()])
            .args(["--timeout-ms", &timeout_ms.to_string()]);
        let name = format!("load on {}", host.name());
        let log = cluster.work().join(format!("{}-load.log", host.name()));
        Ok(Self(Process::reporter(&name, &mut command, &log)?))
    }

    /// Waits until that many more requests are over, whatever became of them.
    ///
    /// # Errors
    /// They do not come to an end.
    pub fn go_on(&mut self, requests: usize) -> Result<()> {
        let goal = self.0.line_count() + requests;
        until("more requests end", PATIENCE, || {
            ensure!(self.0.is_running(), "{} has ended", self.0.name());
            Ok((self.0.line_count() >= goal).then_some(()))
        })
    }

    /// The requests that are over.
    ///
    /// # Errors
    /// It writes something else.
    pub fn requests(&self) -> Result<Vec<Request>> {
        self.0.records(0)
    }

    /// Waits for requests under way, ends it, returns all requests.
    ///
    /// # Errors
    /// It does not end cleanly.
    pub fn stop(mut self) -> Result<Vec<Request>> {
        let status = self.0.stop()?;
        ensure!(status.success(), "{}: {status}", self.0.name());
        self.0.records(0)
    }
}

/// Watches held open.
#[derive(Debug)]
pub struct Watches(Process);

impl Watches {
    /// Opens them from a host, against `ADDRESS:PORT`, and returns when all are open.
    ///
    /// # Errors
    /// Not all of them open.
    pub fn open(
        cluster: &Cluster,
        host: &dyn Host,
        target: &str,
        count: usize,
    ) -> Result<(Self, Snapshot)> {
        // As Go does, and so kubelet and kubectl.
        Self::open_with(cluster, host, target, count, 15)
    }

    /// Opens them with another time between two questions after the peer, in seconds.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        cluster: &Cluster,
        host: &dyn Host,
        target: &str,
        count: usize,
        keepalive: u64,
    ) -> Result<(Self, Snapshot)> {
        let keepalive = ["--keepalive-secs", &keepalive.to_string()];
        Self::open_by(cluster, host, target, count, &keepalive)
    }

    /// Opens them from given ports: this one and those after it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_from(
        cluster: &Cluster,
        host: &dyn Host,
        target: &str,
        ports: &Range<u16>,
    ) -> Result<(Self, Snapshot)> {
        let from = &ports.start.to_string();
        let options = ["--keepalive-secs", "15", "--from", from];
        Self::open_by(cluster, host, target, ports.len(), &options)
    }

    /// Opens them for things that seldom change, on stand-ins: thousands of them. TCP asks after the
    /// peer as in [`open_with`](Self::open_with).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_rare(
        cluster: &Cluster,
        host: &dyn Host,
        target: &str,
        count: usize,
        keepalive: u64,
    ) -> Result<(Self, Snapshot)> {
        let keepalive = ["--keepalive-secs", &keepalive.to_string()];
        Self::open_path(cluster, host, target, count, "/watch/rare", &keepalive)
    }

    fn open_by(
        cluster: &Cluster,
        host: &dyn Host,
        target: &str,
        count: usize,
        options: &[&str],
    ) -> Result<(Self, Snapshot)> {
        let path = cluster.watch_path();
        Self::open_path(cluster, host, target, count, path, options)
    }

    fn open_path(
        cluster: &Cluster,
        host: &dyn Host,
        target: &str,
        count: usize,
        path: &str,
        options: &[&str],
    ) -> Result<(Self, Snapshot)> {
        let mut command = cluster.client(host, "watch", target);
        command
            .args(["--path", path])
            .args(["--count", &count.to_string()])
            .args(options);
        let name = format!("watches on {}", host.name());
        let log = cluster.work().join(format!("{}-watch.log", host.name()));
        let mut watches = Self(Process::reporter(&name, &mut command, &log)?);
        let snapshot = watches.wait("all watches are open and have events", |snapshot| {
            snapshot.all_open()
                && snapshot
                    .watches
                    .iter()
                    .all(|watch| watch.last_event.is_some())
        })?;
        Ok((watches, snapshot))
    }

    /// How they are now.
    ///
    /// # Errors
    /// The client does not answer.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let known = self.0.line_count();
        self.0.tell("now")?;
        let snapshots = until("the watch client answers", PATIENCE, || {
            ensure!(self.0.is_running(), "{} has ended", self.0.name());
            let new: Vec<Snapshot> = self.0.records(known)?;
            Ok((!new.is_empty()).then_some(new))
        })?;
        snapshots
            .into_iter()
            .next_back()
            .context("the watch client answered nothing")
    }

    /// Waits until they satisfy a condition.
    ///
    /// # Errors
    /// They do not in time; the message says how they are.
    pub fn wait(&mut self, what: &str, condition: impl Fn(&Snapshot) -> bool) -> Result<Snapshot> {
        let mut last = None;
        let waited = until(what, PATIENCE, || {
            let snapshot = self.snapshot()?;
            if condition(&snapshot) {
                return Ok(Some(snapshot));
            }
            last = Some(snapshot);
            std::thread::sleep(Duration::from_millis(100));
            Ok(None)
        });
        waited.with_context(|| {
            let watches = last.map(|snapshot| snapshot.watches).unwrap_or_default();
            let open = watches.iter().filter(|w| w.opened.is_some()).count();
            let mut ended: Vec<&String> = watches.iter().filter_map(|w| w.ended.as_ref()).collect();
            let count = ended.len();
            ended.sort_unstable();
            ended.dedup();
            format!(
                "{} watches, {open} opened, {count} ended: {ended:?}",
                watches.len()
            )
        })
    }

    /// Waits until every watch on a living server has had an event after a time (boot-time
    /// nanoseconds) or has ended, and every one on the server that went down has ended.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_for_verdict(&mut self, after: u64, down: Option<&str>) -> Result<Snapshot> {
        self.wait("every watch goes on or has ended", |snapshot| {
            snapshot.watches.iter().all(|watch| {
                let goes_on = watch.last_event.is_some_and(|event| event > after);
                let on_dead = down.is_some() && watch.server.as_deref() == down;
                watch.ended.is_some() || (goes_on && !on_dead)
            })
        })
    }
}

/// The ARP monitor at work.
#[derive(Debug)]
pub struct ArpMonitor(Process);

impl ArpMonitor {
    /// Starts one on the client, which asks for the VIP.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(cluster: &Cluster, interval_ms: u64) -> Result<Self> {
        Self::start_for(cluster, VIP, interval_ms)
    }

    /// The same for another address.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_for(cluster: &Cluster, address: Ipv4Addr, interval_ms: u64) -> Result<Self> {
        let host = cluster.topology.client.as_ref();
        let mut command = host.command(cluster.programs().testbed.as_os_str());
        command.args(["arp", "--vip", &address.to_string()]);
        command.args(["--interval-ms", &interval_ms.to_string()]);
        let log = cluster.work().join("client-arp.log");
        Ok(Self(Process::reporter("ARP monitor", &mut command, &log)?))
    }

    /// What it has seen so far.
    ///
    /// # Errors
    /// It has ended, or writes something else.
    pub fn report(&mut self) -> Result<ArpReport> {
        if !self.0.is_running() {
            bail!("the ARP monitor has ended");
        }
        let events: Vec<ArpEvent> = self.0.records(0)?;
        Ok(ArpReport::of(&events))
    }

    /// Waits until what it has seen satisfies a condition.
    ///
    /// # Errors
    /// It does not in time; the message holds what was seen.
    pub fn wait(
        &mut self,
        what: &str,
        condition: impl Fn(&ArpReport) -> bool,
    ) -> Result<ArpReport> {
        let mut last = ArpReport::default();
        until(what, PATIENCE, || {
            last = self.report()?;
            Ok(condition(&last).then(|| last.clone()))
        })
        .with_context(|| {
            let answerers = &last.answerers[last.answerers.len().saturating_sub(4)..];
            format!(
                "{} questions; who answered last: {answerers:?}",
                last.questions
            )
        })
    }
}

/// What most scenarios hold: load and watches from the client through the VIP.
#[derive(Debug)]
pub struct Traffic {
    /// The load.
    pub load: Load,
    /// The watches.
    pub watches: Watches,
    /// How the watches were when all were open.
    pub before: Snapshot,
}

impl Traffic {
    /// Opens the watches, checks that every server has some, and starts the load.
    ///
    /// # Errors
    /// Not all watches open, or a server has none.
    pub fn start(cluster: &Cluster, timeline: &mut Timeline) -> Result<Self> {
        Self::start_to(cluster, &vip(), timeline)
    }

    /// The same to another `ADDRESS:PORT`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_to(cluster: &Cluster, target: &str, timeline: &mut Timeline) -> Result<Self> {
        let client = cluster.topology.client.as_ref();
        let count = cluster.pace().watches;
        let (watches, before) = Watches::open(cluster, client, target, count)?;
        let shares = cluster.nodes().into_iter().map(|node| {
            let name = cluster.name(node);
            let share = before.on(&name).count();
            (name, share)
        });
        let shares: Vec<_> = shares.collect();
        let text: Vec<_> = shares
            .iter()
            .map(|(name, n)| format!("{name} {n}"))
            .collect();
        timeline.event(format!("{count} watches are open: {}", text.join(", ")));
        for (name, share) in shares {
            ensure!(share > 0, "no watch of {count} is on {name}");
        }
        let mut load = Load::start(cluster, client, target)?;
        load.go_on(100)?;
        Ok(Self {
            load,
            watches,
            before,
        })
    }

    /// Waits for the verdict on every watch, ends the load, and fills in the outcome.
    ///
    /// # Errors
    /// A watch neither goes on nor ends, or a client fails.
    pub fn finish(mut self, outcome: &mut Outcome, down: Option<Down<'_>>) -> Result<Vec<Request>> {
        let now = crate::clock::boot_now();
        let after = self
            .watches
            .wait_for_verdict(now, down.map(|down| down.server))?;
        let requests = self.load.stop()?;
        let summary = outcome.take_requests(&requests, down);
        outcome.take_watches(&self.before, &after, down);
        outcome.promise_nothing_lost(&summary);
        Ok(requests)
    }
}
