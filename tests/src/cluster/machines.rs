//! What can be done to a cluster of virtual machines only.

use anyhow::{Context, Result};

use super::Cluster;
use crate::outcome::Timeline;
use crate::topology::vm::VmHost;

impl Cluster {
    /// A node's virtual machine.
    ///
    /// # Errors
    /// It is none.
    pub fn vm(&mut self, node: usize) -> Result<&mut VmHost> {
        let vm = self.topology.nodes[node].vm();
        vm.context("the cluster is not made of virtual machines")
    }

    /// Notes which node runs which kernel, if these are machines of their own.
    pub(super) fn tell_kernels(&mut self, timeline: &mut Timeline) {
        for host in &mut self.topology.nodes {
            if let Some(vm) = host.vm() {
                let machine = vm.machine();
                let (name, kernel) = (machine.name(), machine.kernel());
                timeline.event(format!("{name} runs Linux {}", kernel.version));
            }
        }
    }

    /// Boots nodes whose power was cut, all at once, and starts their API servers and agents as
    /// soon as they are up. Nobody waits for these.
    ///
    /// # Errors
    /// A machine does not boot, or something cannot be started.
    pub fn power_on(&mut self, nodes: &[usize]) -> Result<()> {
        for &node in nodes {
            self.vm(node)?.machine().switch_on()?;
        }
        for &node in nodes {
            self.vm(node)?.wait_until_up()?;
            self.off[node] = false;
            self.start_server(node)?;
            self.start_agent(node)?;
        }
        Ok(())
    }

    /// Gives power back to all nodes that lost it, and waits until the cluster is as it was.
    ///
    /// # Errors
    /// It does not become so.
    pub fn heal(&mut self) -> Result<()> {
        let off: Vec<usize> = (0..self.off.len()).filter(|&node| self.off[node]).collect();
        if !off.is_empty() {
            self.power_on(&off)?;
            for node in off {
                self.wait_for_server(node)?;
            }
        }
        self.wait_until_settled()
    }
}
