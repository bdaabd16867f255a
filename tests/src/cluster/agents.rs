//! The agents of a cluster: start, faults, and waiting for what they say.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{Cluster, PATIENCE};
use vip_node::bfd::State;

use crate::agent::{self, Agent, Status, session_is};
use crate::clock::until;
use crate::process::{Process, output, tail};

impl Cluster {
    /// Starts a node's agent.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_agent(&mut self, node: usize) -> Result<()> {
        let config = self.work.join("vip.toml");
        self.launch_agent(node, &config)
    }

    /// Where a node's agent writes its log.
    #[must_use]
    pub fn agent_log(&self, node: usize) -> PathBuf {
        self.log_of(&self.name(node))
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}-vip.log"))
    }

    /// What the agents have logged.
    #[must_use]
    pub fn logs(&self) -> String {
        let log = |node| std::fs::read_to_string(self.agent_log(node)).unwrap_or_default();
        self.nodes().into_iter().map(log).collect()
    }

    fn launch_agent(&mut self, node: usize, config: &Path) -> Result<()> {
        let host = self.topology.nodes[node].as_ref();
        let log = self.agent_log(node);
        self.agents[node] = Some(Agent::start(&self.programs, host, config, &log)?);
        Ok(())
    }

    /// Starts a node's agent with another configuration than the cluster's.
    ///
    /// # Errors
    /// It cannot be written or started.
    pub fn start_agent_with(&mut self, node: usize, config: &str) -> Result<()> {
        let name = self.topology.nodes[node].name();
        let file = self.work.join(format!("{name}-vip.toml"));
        std::fs::write(&file, config).with_context(|| format!("write {}", file.display()))?;
        self.launch_agent(node, &file)
    }

    /// The configuration of all agents.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn config(&self) -> Result<String> {
        let file = self.work.join("vip.toml");
        std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    }

    /// Takes a process, by which a node's agent was started in another way, for that agent.
    pub fn adopt_agent(&mut self, node: usize, process: Process) {
        self.agents[node] = Some(Agent { process });
    }

    /// `kill -9` of a node's agent.
    pub fn kill_agent(&mut self, node: usize) {
        if let Some(mut agent) = self.agents[node].take() {
            agent.process.kill_and_reap();
        }
    }

    /// Ends a node's agent politely.
    ///
    /// # Errors
    /// It does not end, or with an error.
    pub fn stop_agent(&mut self, node: usize) -> Result<()> {
        match self.agents[node].take() {
            Some(mut agent) => agent.stop(),
            None => Ok(()),
        }
    }

    /// The process of a node's agent, if one was started.
    #[must_use]
    pub fn agent_pid(&self, node: usize) -> Option<Pid> {
        self.agents[node].as_ref().map(|agent| agent.process.pid())
    }

    /// For how long a thread of a node's agent has run, in nanoseconds.
    ///
    /// # Errors
    /// The node has no agent, or that has no such thread.
    pub fn agent_thread_time(&self, node: usize, thread: &str) -> Result<u64> {
        let [ran, ..] = self.agent_thread(node, thread)?;
        Ok(ran)
    }

    /// For how long a thread of a node's agent has run and has waited for a processor, in nanoseconds,
    /// and how often it has got one.
    ///
    /// # Errors
    /// The node has no agent, or that has no such thread.
    pub fn agent_thread(&self, node: usize, thread: &str) -> Result<[u64; 3]> {
        let pid = self.agent_pid(node).context("no agent was started")?;
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).context("list its threads")?;
        for found in threads {
            let found = found.context("list its threads")?.path();
            let name = std::fs::read_to_string(found.join("comm")).unwrap_or_default();
            if name.trim() == thread {
                let text =
                    std::fs::read_to_string(found.join("schedstat")).context("read its time")?;
                let numbers = text.split_whitespace().map(str::parse);
                let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().context("schedstat")?;
                let numbers = numbers.try_into().ok();
                return numbers.context("schedstat has three numbers");
            }
        }
        bail!("the agent has no thread {thread}")
    }

    /// Sends a node's agent a signal.
    pub fn signal_agent(&mut self, node: usize, signal: Signal) {
        if let Some(agent) = &mut self.agents[node] {
            agent.process.signal(signal);
        }
    }

    /// Stops a node's agent in its tracks.
    pub fn freeze_agent(&mut self, node: usize) {
        if let Some(agent) = &mut self.agents[node] {
            self.topology.nodes[node].freeze(&mut agent.process);
        }
    }

    /// Lets a frozen agent go on.
    pub fn thaw_agent(&mut self, node: usize) {
        if let Some(agent) = &mut self.agents[node] {
            self.topology.nodes[node].thaw(&mut agent.process);
        }
    }

    /// Nodes whose agent has ended without being told to.
    pub fn dead_agents(&mut self) -> Vec<String> {
        let mut dead = Vec::new();
        for node in self.nodes() {
            if self.agents[node]
                .as_mut()
                .is_some_and(|agent| !agent.process.is_running())
            {
                dead.push(self.name(node));
            }
        }
        dead
    }

    /// Runs `vip` on a node, and returns what it prints.
    ///
    /// # Errors
    /// It fails; the message holds what it said.
    pub fn vip(&self, node: usize, arguments: &[&str]) -> Result<String> {
        let vip = self.programs.vip.as_os_str();
        output(self.host(node).command(vip).args(arguments))
    }

    /// What a node's agent says.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self, node: usize) -> Result<Status> {
        agent::status(&self.programs, self.host(node))
    }

    /// Waits until the agents of these nodes all say something that satisfies the condition.
    ///
    /// # Errors
    /// An agent has ended, or the time was not enough; the message holds the last answers.
    pub fn wait_for_status(
        &mut self,
        what: &str,
        nodes: &[usize],
        condition: impl Fn(&Self, usize, &Status) -> bool,
    ) -> Result<()> {
        let mut last = String::new();
        let waited = until(what, PATIENCE, || {
            if let Some(name) = self.dead_agents().first() {
                let log = tail(&self.log_of(name), 10);
                bail!("the agent on {name} has ended by itself:\n{log}");
            }
            for &node in nodes {
                match self.status(node) {
                    Ok(status) if condition(self, node, &status) => {}
                    Ok(status) => {
                        last = format!("{} says {status:?}", self.name(node));
                        return Ok(None);
                    }
                    Err(error) => {
                        last = format!("{error:#}");
                        return Ok(None);
                    }
                }
            }
            Ok(Some(()))
        });
        waited.with_context(|| last)
    }

    /// Waits until all agents see that a node lives and its API server is not ready.
    ///
    /// # Errors
    /// As [`wait_for_status`](Self::wait_for_status).
    pub fn wait_until_not_ready(&mut self, node: usize) -> Result<()> {
        let nodes = self.nodes_with_agent();
        let what = format!("all agents see that {} is not ready", self.name(node));
        self.wait_for_status(&what, &nodes, |own, _, status| {
            let entry = status.node(own.host(node));
            entry.is_some_and(|entry| entry.alive && !entry.ready)
        })
    }

    /// Nodes with power whose agent was started.
    #[must_use]
    pub fn nodes_with_agent(&self) -> Vec<usize> {
        let mut nodes = self.nodes();
        nodes.retain(|node| self.agents[*node].is_some());
        nodes
    }

    /// Waits until all agents agree on an owner that has power, and see every node with power
    /// alive, ready and at a known Ethernet address, and no other node alive.
    ///
    /// # Errors
    /// As [`wait_for_status`](Self::wait_for_status).
    pub fn wait_until_settled(&mut self) -> Result<()> {
        let nodes = self.nodes_with_agent();
        self.wait_for_status(
            "all agents see the same healthy cluster",
            &nodes,
            |own, _, status| {
                (0..own.off.len()).all(|node| {
                    let entry = status.node(own.host(node));
                    if own.off[node] {
                        // One that has not come, or has left, is none that they know.
                        return entry.is_none_or(|entry| !entry.alive);
                    }
                    entry.is_some_and(|entry| {
                        let heard = entry.bfd.is_none() || session_is(entry, State::Up);
                        let served = entry.ready && entry.usable;
                        entry.alive && served && entry.mac.is_some() && heard
                    })
                })
            },
        )?;
        self.owner()?;
        Ok(())
    }

    /// Waits until all agents name the same owner, which has power and an agent, and says so
    /// itself. Returns its number.
    ///
    /// # Errors
    /// As [`wait_for_status`](Self::wait_for_status).
    pub fn owner(&mut self) -> Result<usize> {
        let nodes = self.nodes_with_agent();
        self.owner_among(&nodes)
    }

    /// As [`owner`](Self::owner), asking these nodes only and for one of them as owner.
    ///
    /// # Errors
    /// As [`wait_for_status`](Self::wait_for_status).
    pub fn owner_among(&mut self, nodes: &[usize]) -> Result<usize> {
        let addresses: Vec<IpAddr> = nodes
            .iter()
            .map(|node| self.host(*node).address().into())
            .collect();
        let found = std::cell::Cell::new(None);
        self.wait_for_status(
            "all agents name the same owner",
            nodes,
            |_, node, status| {
                let owner = status
                    .owner
                    .as_ref()
                    .and_then(|owner| {
                        addresses
                            .iter()
                            .position(|address| *address == owner.address)
                    })
                    .map(|index| nodes[index]);
                // The first one asked sets what the others must say.
                if node == nodes[0] {
                    found.set(owner);
                }
                let active = status.is_active();
                owner.is_some() && owner == found.get() && active == (owner == Some(node))
            },
        )?;
        found.get().context("no agent was asked for the owner")
    }
}
