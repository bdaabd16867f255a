//! What the product replaces: keepalived and HAProxy on every control-plane node, configured as
//! in kubeadm's guide to high availability, and their faults.
//!
//! Two things are not as in the guide: the check script connects to the local HAProxy instead of
//! calling curl, and HAProxy writes its log to a file of the cluster.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::haproxy::{self, FRONT_PORT};
use super::keepalived::{self, Keepalived, Settings};
use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE};
use crate::process::Process;
use crate::topology::VIP;

/// How soon it notices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timers {
    /// Between keepalived's advertisements, in seconds.
    advert_int: f64,
    /// How HAProxy checks servers, as in a `server` line.
    check: &'static str,
}

impl Timers {
    /// The guide's. It leaves those of HAProxy at their defaults.
    pub const GUIDE: Self = Self {
        advert_int: 1.0,
        check: "inter 2s fall 3 rise 2",
    };

    /// As short as both can be set without an owner that never comes to rest.
    pub const TUNED: Self = Self {
        advert_int: 0.01,
        check: "inter 200ms fastinter 50ms fall 2 rise 1",
    };
}

/// Both, on all nodes of a cluster without agents. The first node has the highest priority.
#[derive(Debug)]
pub struct Rival {
    keepalived: Vec<Option<Keepalived>>,
    haproxy: Vec<Option<Process>>,
    timers: Timers,
}

impl Rival {
    /// Starts both on all nodes, and waits until no owner preempts another any more.
    ///
    /// # Errors
    /// One cannot be started, or HAProxy does not answer at the VIP.
    pub fn start(cluster: &Cluster, timers: Timers) -> Result<Self> {
        let testbed = cluster.programs().testbed.display();
        let script = format!(
            "vrrp_script check_apiserver {{\n\tscript \"{testbed} reach 127.0.0.1:{FRONT_PORT}\"\n\
             \tinterval 3\n\tweight -2\n\tfall 10\n\trise 2\n}}"
        );
        let track = "\ttrack_script {\n\t\tcheck_apiserver\n\t}".to_owned();
        let mut rival = Self {
            keepalived: Vec::new(),
            haproxy: Vec::new(),
            timers,
        };
        for node in cluster.nodes() {
            let proxy = haproxy::start(cluster, node, timers.check)?;
            rival.haproxy.push(Some(proxy));
            let settings = Settings {
                priority: if node == 0 { 101 } else { 100 },
                advert_int: timers.advert_int,
                peers: Vec::new(),
                scripts: (script.clone(), track.clone()),
            };
            let started = keepalived::start(cluster, node, &settings)?;
            rival.keepalived.push(Some(started));
        }
        let client = cluster.topology.client.as_ref();
        until("HAProxy answers at the VIP", PATIENCE, || {
            Ok(cluster.get(client, "/readyz", &Self::target()).ok())
        })?;
        // Until nobody preempts anybody any more, and all servers are known to be up.
        std::thread::sleep(Duration::from_secs(8));
        Ok(rival)
    }

    /// The address that clients use.
    #[must_use]
    pub fn target() -> String {
        format!("{VIP}:{FRONT_PORT}")
    }

    /// Waits until a node has the VIP. Returns its number.
    ///
    /// # Errors
    /// None has it, or a node cannot be asked.
    pub fn owner(cluster: &Cluster) -> Result<usize> {
        until("one node has the VIP", PATIENCE, || {
            for node in cluster.nodes() {
                if keepalived::owns(cluster, node)? {
                    return Ok(Some(node));
                }
            }
            Ok(None)
        })
    }

    /// A node has lost its power, and its processes are gone.
    pub fn lose(&mut self, node: usize) {
        (self.keepalived[node], self.haproxy[node]) = (None, None);
    }

    /// Ends keepalived on a node, so that it gives the VIP away.
    ///
    /// # Errors
    /// It does not end.
    pub fn hand_over(&mut self, node: usize) -> Result<()> {
        match self.keepalived[node].take() {
            Some(mut keepalived) => keepalived.process.stop().map(drop),
            None => Ok(()),
        }
    }

    /// `kill -9` of keepalived on a node.
    ///
    /// # Errors
    /// It has no pid file.
    pub fn kill_keepalived(&mut self, node: usize) -> Result<()> {
        match self.keepalived[node].take() {
            Some(mut keepalived) => keepalived.kill(),
            None => Ok(()),
        }
    }

    /// `kill -9` of HAProxy on a node.
    pub fn kill_haproxy(&mut self, node: usize) {
        self.haproxy[node] = None;
    }

    /// Starts HAProxy on a node again.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart_haproxy(&mut self, cluster: &Cluster, node: usize) -> Result<()> {
        self.haproxy[node] = Some(haproxy::start(cluster, node, self.timers.check)?);
        Ok(())
    }

    /// Stops keepalived on a node in its tracks, or lets it go on.
    ///
    /// # Errors
    /// It is not there.
    pub fn freeze(&mut self, node: usize, frozen: bool) -> Result<()> {
        let signal = if frozen {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        match &mut self.keepalived[node] {
            Some(keepalived) => keepalived.signal(signal),
            None => Ok(()),
        }
    }

    /// The processes of a node.
    ///
    /// # Errors
    /// keepalived has no pid file.
    pub fn pids(&self, node: usize) -> Result<Vec<Pid>> {
        let mut pids = Vec::new();
        if let Some(keepalived) = &self.keepalived[node] {
            pids.extend([keepalived.process.pid(), keepalived.child()?]);
        }
        pids.extend(self.haproxy[node].as_ref().map(Process::pid));
        Ok(pids)
    }

    /// The versions of both: `keepalived 2.2.7 and HAProxy 2.6.12`.
    ///
    /// # Errors
    /// One cannot be started, or does not say it.
    pub fn versions() -> Result<String> {
        let keepalived = version("keepalived", "--version", "Keepalived v")?;
        let haproxy = version("haproxy", "-v", "HAProxy version ")?;
        Ok(format!("keepalived {keepalived} and HAProxy {haproxy}"))
    }
}

/// The word that follows `before` in what a program prints.
fn version(program: &str, flag: &str, before: &str) -> Result<String> {
    let output = Command::new(program).arg(flag).output();
    let output = output.with_context(|| format!("start {program}"))?;
    // keepalived writes it to stderr.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let rest = text.split_once(before).map(|(_, rest)| rest);
    let word = rest.and_then(|rest| rest.split([' ', '\n', '-']).next());
    let word = word.with_context(|| format!("{program} {flag} wrote: {text}"))?;
    Ok(word.to_owned())
}
