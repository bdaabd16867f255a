//! A cluster whose VIP is served by our agents, or by keepalived and HAProxy, and its faults.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::unistd::Pid;
use vip_tests::agent::Programs;
use vip_tests::clock::boot_now;
use vip_tests::cluster::{Cluster, Plan};
use vip_tests::outcome::Timeline;
use vip_tests::peers::rival::{Rival, Timers};
use vip_tests::traffic::vip;
use vip_userspace::observe::event::{Event, Record};

use super::kinds::Profile;

/// The software that owns the VIP.
enum Side {
    Ours,
    Rival(Rival),
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
        let side = match profile {
            Profile::Default | Profile::Fast => Side::Ours,
            Profile::Guide => Side::Rival(Rival::start(&cluster, Timers::GUIDE)?),
            Profile::Tuned => Side::Rival(Rival::start(&cluster, Timers::TUNED)?),
        };
        Ok(Self { cluster, side })
    }

    pub(crate) fn target(&self) -> String {
        match self.side {
            Side::Ours => vip(),
            Side::Rival(_) => Rival::target(),
        }
    }

    pub(super) fn owner(&mut self) -> Result<usize> {
        match self.side {
            Side::Ours => self.cluster.owner(),
            Side::Rival(_) => Rival::owner(&self.cluster),
        }
    }

    pub(super) fn power_cut(&mut self, node: usize) -> Result<()> {
        self.cluster.power_off(node)?;
        if let Side::Rival(rival) = &mut self.side {
            rival.lose(node);
        }
        Ok(())
    }

    pub(super) fn hand_over(&mut self, node: usize) -> Result<()> {
        match &mut self.side {
            Side::Ours => self.cluster.vip(node, &["handover"]).map(drop),
            Side::Rival(rival) => rival.hand_over(node),
        }
    }

    pub(super) fn kill_agent(&mut self, node: usize) -> Result<()> {
        match &mut self.side {
            Side::Ours => {
                self.cluster.kill_agent(node);
                Ok(())
            }
            Side::Rival(rival) => rival.kill_keepalived(node),
        }
    }

    pub(super) fn kill_proxy(&mut self, node: usize) {
        if let Side::Rival(rival) = &mut self.side {
            rival.kill_haproxy(node);
        }
    }

    pub(super) fn freeze(&mut self, node: usize, frozen: bool) -> Result<()> {
        match &mut self.side {
            Side::Ours if frozen => self.cluster.freeze_agent(node),
            Side::Ours => self.cluster.thaw_agent(node),
            Side::Rival(rival) => rival.freeze(node, frozen)?,
        }
        Ok(())
    }

    /// The daemons of a node.
    pub(crate) fn daemons(&self, node: usize) -> Result<Vec<Pid>> {
        match &self.side {
            Side::Ours => Ok(self.cluster.agent_pid(node).into_iter().collect()),
            Side::Rival(rival) => rival.pids(node),
        }
    }

    /// When the last of our agents noticed that it no longer hears a node (boot-time nanoseconds), if
    /// one did since a time.
    pub(super) fn bfd_down(&self, node: usize, since: u64) -> Result<Option<u64>> {
        if matches!(self.side, Side::Rival(_)) {
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
