//! Disturbances that hold for a while: begun, and ended.

use std::thread::available_parallelism;

use anyhow::{Context, Result};
use vip_tests::process::{Process, output};
use vip_tests::topology::Mangle;

use super::memory::Pressure;
use crate::failover::setup::Setup;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Condition {
    /// Ordinary processes that do nothing but work.
    Busy,
    /// The same with `SCHED_FIFO` and priority 1. The kernel leaves 5 % of the time to others.
    BusyAtRealtime,
    /// The daemons and a process that reads a large file share a limit of memory.
    Memory,
    /// So many percent of the frames that nodes send are lost.
    Loss(u8),
    /// Kernels limit echo replies to each host as they limit errors, to one a second.
    IcmpLimit,
}

/// Ordinary processes a core.
const BUSY_PER_CORE: usize = 3;

/// ICMP types that the kernel limits by default (icmp(7)).
const ICMP_DEFAULT: u32 = 6168;

/// The same with echo replies (type 0).
const ICMP_WITH_ECHO: u32 = ICMP_DEFAULT | 1;

/// A condition that holds until it is [ended](Self::end).
pub(super) struct Begun {
    condition: Condition,
    spinners: Vec<Process>,
    pressure: Option<Pressure>,
}

impl Begun {
    pub(super) fn new(condition: Condition, setup: &Setup) -> Result<Self> {
        let mut begun = Self {
            condition,
            spinners: Vec::new(),
            pressure: None,
        };
        let cores = available_parallelism()?.get();
        match condition {
            Condition::Busy => begun.spin(setup, BUSY_PER_CORE * cores, &[])?,
            Condition::BusyAtRealtime => begun.spin(setup, cores, &["chrt", "--fifo", "1"])?,
            Condition::Memory => begun.pressure = Some(Pressure::new(setup)?),
            Condition::Loss(percent) => mangle(setup, Mangle::Lose(percent))?,
            Condition::IcmpLimit => limit_icmp(setup, ICMP_WITH_ECHO)?,
        }
        Ok(begun)
    }

    pub(super) fn end(self, setup: &Setup) -> Result<()> {
        match self.condition {
            Condition::Busy | Condition::BusyAtRealtime | Condition::Memory => Ok(()),
            Condition::Loss(_) => mangle(setup, Mangle::Nothing),
            Condition::IcmpLimit => limit_icmp(setup, ICMP_DEFAULT),
        }
    }

    /// Starts so many processes that do nothing but work, on the nodes in turn.
    fn spin(&mut self, setup: &Setup, count: usize, launcher: &[&str]) -> Result<()> {
        let cluster = &setup.cluster;
        let log = cluster.work().join("busy.log");
        let words = [launcher, &["sh", "-c", "while :; do :; done"]].concat();
        for node in cluster.nodes().into_iter().cycle().take(count) {
            let mut command = cluster.host(node).command(words[0].as_ref());
            command.args(&words[1..]);
            let process = Process::daemon("a busy process", &mut command, &log)?;
            self.spinners.push(process);
        }
        Ok(())
    }
}

fn mangle(setup: &Setup, how: Mangle) -> Result<()> {
    let mut nodes = setup.cluster.nodes().into_iter();
    nodes.try_for_each(|node| setup.cluster.host(node).mangle(how))
}

fn limit_icmp(setup: &Setup, mask: u32) -> Result<()> {
    let script = format!("echo {mask} >/proc/sys/net/ipv4/icmp_ratemask");
    for node in setup.cluster.nodes() {
        let mut command = setup.cluster.host(node).command("sh".as_ref());
        output(command.args(["-c", &script])).context("limit ICMP")?;
    }
    Ok(())
}
