//! A cluster whose VIP is served by our agents, or by keepalived and HAProxy, and its faults.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use vip_tests::agent::Programs;
use vip_tests::clock::{boot_now, until};
use vip_tests::cluster::{Cluster, PATIENCE, Plan};
use vip_tests::outcome::Timeline;
use vip_tests::peers::haproxy::{self, FRONT_PORT};
use vip_tests::peers::keepalived::{self, Keepalived, Settings};
use vip_tests::process::Process;
use vip_tests::topology::VIP;
use vip_tests::traffic::vip;
use vip_userspace::observe::event::{Event, Record};

use super::kinds::Profile;

/// The software that owns the VIP.
enum Side {
    Ours,
    Rival {
        keepalived: Vec<Option<Keepalived>>,
        haproxy: Vec<Option<Process>>,
    },
}

/// An event of an agent.
pub(crate) struct Told {
    /// Boot-time nanoseconds.
    pub(crate) at: u64,
    /// Counts up by one.
    pub(crate) sequence: u64,
    pub(crate) event: Event,
}

/// A cluster with a profile.
pub(crate) struct Setup {
    pub(crate) cluster: Cluster,
    side: Side,
}

impl Setup {
    pub(crate) fn new(programs: &Programs, profile: Profile) -> Result<Self> {
        let (interval, more) = match profile {
            Profile::Fast => {
                let (bfd, reset) = (profile.bfd_interval(), profile.reset_after());
                let bfd = format!("\n[bfd]\ninterval = \"{bfd:?}\"\n");
                (
                    "10ms",
                    format!("{bfd}\n[datapath]\nreset_after = \"{reset:?}\"\n"),
                )
            }
            _ => ("100ms", String::new()),
        };
        let plan = Plan {
            interval: interval.to_owned(),
            more,
            bare: !profile.is_ours(),
            ..Plan::default()
        };
        let cluster = Cluster::start(programs, plan, &mut Timeline::new(false))?;
        let mut setup = Self {
            cluster,
            side: Side::Ours,
        };
        if !profile.is_ours() {
            setup.start_rival(profile)?;
        }
        Ok(setup)
    }

    fn start_rival(&mut self, profile: Profile) -> Result<()> {
        let cluster = &self.cluster;
        let (advert_int, check) = match profile {
            Profile::Tuned => (0.01, "inter 200ms fastinter 50ms fall 2 rise 1"),
            // HAProxy's and keepalived's defaults, which the guide leaves as they are.
            _ => (1.0, "inter 2s fall 3 rise 2"),
        };
        let testbed = cluster.programs().testbed.display();
        let script = format!(
            "vrrp_script check_apiserver {{\n\tscript \"{testbed} reach 127.0.0.1:{FRONT_PORT}\"\n\
             \tinterval 3\n\tweight -2\n\tfall 10\n\trise 2\n}}"
        );
        let track = "\ttrack_script {\n\t\tcheck_apiserver\n\t}".to_owned();
        let nodes = cluster.nodes();
        let mut haproxy = Vec::new();
        let mut keepalived = Vec::new();
        for &node in &nodes {
            haproxy.push(Some(haproxy::start(cluster, node, check)?));
            let settings = Settings {
                priority: if node == 0 { 101 } else { 100 },
                advert_int,
                peers: Vec::new(),
                scripts: (script.clone(), track.clone()),
            };
            keepalived.push(Some(keepalived::start(cluster, node, &settings)?));
        }
        self.side = Side::Rival {
            keepalived,
            haproxy,
        };
        let client = self.cluster.topology.client.as_ref();
        until("HAProxy answers at the VIP", PATIENCE, || {
            Ok(self.cluster.get(client, "/readyz", &self.target()).ok())
        })?;
        // Until nobody preempts anybody any more, and all servers are known to be up.
        std::thread::sleep(Duration::from_secs(8));
        Ok(())
    }

    pub(crate) fn target(&self) -> String {
        match self.side {
            Side::Ours => vip(),
            Side::Rival { .. } => format!("{VIP}:{FRONT_PORT}"),
        }
    }

    pub(super) fn owner(&mut self) -> Result<usize> {
        match self.side {
            Side::Ours => self.cluster.owner(),
            Side::Rival { .. } => {
                let cluster = &self.cluster;
                until("one node has the VIP", PATIENCE, || {
                    for node in cluster.nodes() {
                        if keepalived::owns(cluster, node)? {
                            return Ok(Some(node));
                        }
                    }
                    Ok(None)
                })
            }
        }
    }

    pub(super) fn power_cut(&mut self, node: usize) -> Result<()> {
        self.cluster.power_off(node)?;
        if let Side::Rival {
            keepalived,
            haproxy,
        } = &mut self.side
        {
            (keepalived[node], haproxy[node]) = (None, None);
        }
        Ok(())
    }

    pub(super) fn hand_over(&mut self, node: usize) -> Result<()> {
        match &mut self.side {
            Side::Ours => self.cluster.vip(node, &["handover"]).map(drop),
            Side::Rival { keepalived, .. } => match keepalived[node].take() {
                Some(mut keepalived) => keepalived.process.stop().map(drop),
                None => Ok(()),
            },
        }
    }

    pub(super) fn kill_agent(&mut self, node: usize) -> Result<()> {
        match &mut self.side {
            Side::Ours => self.cluster.kill_agent(node),
            Side::Rival { keepalived, .. } => {
                if let Some(mut keepalived) = keepalived[node].take() {
                    keepalived.kill()?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn kill_proxy(&mut self, node: usize) {
        if let Side::Rival { haproxy, .. } = &mut self.side {
            haproxy[node] = None;
        }
    }

    pub(super) fn freeze(&mut self, node: usize, frozen: bool) -> Result<()> {
        match &mut self.side {
            Side::Ours if frozen => self.cluster.freeze_agent(node),
            Side::Ours => self.cluster.thaw_agent(node),
            Side::Rival { keepalived, .. } => {
                let signal = if frozen {
                    Signal::SIGSTOP
                } else {
                    Signal::SIGCONT
                };
                if let Some(keepalived) = &mut keepalived[node] {
                    keepalived.signal(signal)?;
                }
            }
        }
        Ok(())
    }

    /// The daemons of a node.
    pub(crate) fn daemons(&self, node: usize) -> Result<Vec<Pid>> {
        Ok(match &self.side {
            Side::Ours => self.cluster.agent_pid(node).into_iter().collect(),
            Side::Rival {
                keepalived,
                haproxy,
            } => {
                let mut pids = Vec::new();
                if let Some(keepalived) = &keepalived[node] {
                    pids.extend([keepalived.process.pid(), keepalived.child()?]);
                }
                pids.extend(haproxy[node].as_ref().map(Process::pid));
                pids
            }
        })
    }

    /// When the last of our agents noticed that it no longer hears a node (boot-time nanoseconds), if
    /// one did since a time.
    pub(super) fn bfd_down(&self, node: usize, since: u64) -> Result<Option<u64>> {
        if matches!(self.side, Side::Rival { .. }) {
            return Ok(None);
        }
        let address = self.cluster.host(node).address().to_string();
        let mut last = None;
        for witness in self.cluster.nodes_with_agent() {
            let first = self.events(witness)?.into_iter().find(|told| {
                let event = &told.event;
                let is_it = event.name == "bfd_down" && event.node.as_ref() == Some(&address);
                is_it && told.at >= since
            });
            last = last.max(first.map(|told| told.at));
        }
        Ok(last)
    }

    /// The last events of our agent on a node, oldest first.
    pub(crate) fn events(&self, node: usize) -> Result<Vec<Told>> {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let booted = unix.cast_signed() - i128::from(boot_now());
        let text = self.cluster.vip(node, &["events", "--json"])?;
        let told = text.lines().map(|line| {
            let record: Record = serde_json::from_str(line).context("read an event")?;
            Ok(Told {
                at: u64::try_from(record.time.as_nanosecond() - booted)?,
                sequence: record.sequence,
                event: record.event,
            })
        });
        told.collect()
    }
}
