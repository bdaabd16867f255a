//! A control plane on a topology: API servers, agents, and the folder with their files.

mod agents;
mod machines;
mod pace;
pub mod plan;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::agent::{Agent, Programs};
use crate::clock::{boot_now, until};
use crate::isolation::WORK_ROOT;
use crate::kube;
use crate::outcome::Timeline;
use crate::pki::Pki;
use crate::process::{Process, output};
use crate::topology::{Host, NEXT_VIP, PORT, TWIN_VIP, Topology, VIP, VIP6, moved, netns, vm};

/// Ends a wait that would last for ever. Machines under load are slow: no figure of a test.
pub const PATIENCE: Duration = Duration::from_secs(240);

pub use pace::{PACE, Pace};
pub use plan::{Flavour, Plan};

/// A running control plane. Dropped, it is gone with all its files.
#[derive(Debug)]
pub struct Cluster {
    // Fields are dropped in this order: processes before the hosts they run on.
    servers: Vec<Option<Process>>,
    /// etcd's members on the nodes, if they are there.
    members: Vec<Option<Process>>,
    agents: Vec<Option<Agent>>,
    /// etcd and what keeps real watches busy.
    helpers: Vec<Process>,
    /// The machines.
    pub topology: Topology,
    programs: Programs,
    plan: Plan,
    pki: Pki,
    off: Vec<bool>,
    work: PathBuf,
}

impl Cluster {
    /// The start of a command line: one of the client programs on a host, against `ADDRESS:PORT`.
    pub(crate) fn client(&self, host: &dyn Host, command: &str, target: &str) -> Command {
        let mut line = host.command(self.programs.testbed.as_os_str());
        self.aim(&mut line, command, target);
        line
    }

    /// The same for a command line that comes to the program in another way.
    pub(crate) fn aim(&self, line: &mut Command, command: &str, target: &str) {
        line.args([command, "--target", target, "--pki"])
            .arg(self.pki.directory());
        if let Some(token) = self.token() {
            line.args(["--token", token]);
        }
    }

    /// Makes one request from a host, and returns the answer.
    ///
    /// # Errors
    /// There is none, or it is not a 200.
    pub fn get(&self, host: &dyn Host, path: &str, target: &str) -> Result<String> {
        let mut line = self.client(host, "get", target);
        output(line.args(["--path", path]))
    }

    /// Lays out the network and starts API servers and agents. Returns when all servers are
    /// ready, one node owns the VIP and all agents see all nodes ready.
    ///
    /// # Errors
    /// Something does not start, or not in time; logs are in the [work folder](Self::work).
    pub fn start(programs: &Programs, plan: Plan, timeline: &mut Timeline) -> Result<Self> {
        let mut cluster = Self::lay_out(programs, plan)?;
        if let Err(error) = cluster.bring_up(timeline) {
            let logs = cluster.save_logs("start")?;
            return Err(error.context(format!("logs are in {}", logs.display())));
        }
        Ok(cluster)
    }

    fn lay_out(programs: &Programs, plan: Plan) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let work = Path::new(WORK_ROOT).join(format!("cluster-{number}"));
        std::fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
        let topology = match &plan.machines {
            None => netns::build(plan.nodes, plan.dual_stack, plan.link)?,
            Some(machines) => {
                let testbed = &programs.testbed;
                vm::build(plan.nodes, plan.dual_stack, machines, testbed, &work)?
            }
        };
        let names: Vec<(&str, Vec<IpAddr>)> = topology
            .nodes
            .iter()
            .map(|node| {
                let (ipv4, ipv6) = (node.address(), node.ipv6());
                let addresses = vec![ipv4.into(), ipv6.into(), moved(ipv4).into()];
                (node.name(), addresses)
            })
            .collect();
        let pki = Pki::create(
            &work.join("pki"),
            &[VIP.into(), VIP6.into(), NEXT_VIP.into(), TWIN_VIP.into()],
            &names,
        )?;
        let count = topology.nodes.len();
        let nodes: Vec<String> = topology
            .nodes
            .iter()
            .map(|node| {
                let (ipv4, ipv6) = (node.address(), node.ipv6());
                if plan.dual_stack {
                    format!("{{ address = \"{ipv4}\", other_address = \"{ipv6}\" }}")
                } else {
                    format!("\"{ipv4}\"")
                }
            })
            .collect();
        let port = plan.port;
        let vips = if plan.dual_stack {
            format!("[\"{VIP}:{port}\", \"[{VIP6}]:{port}\"]")
        } else {
            format!("\"{VIP}:{port}\"")
        };
        let list = match plan.founders {
            Some(_) => String::new(),
            None => format!("nodes = [{}]", nodes.join(", ")),
        };
        let key = work.join("key");
        let key_file = if plan.keyed {
            let mut make = Command::new(&programs.vip);
            output(make.args(["key", "--output"]).arg(&key)).context("make a key")?;
            format!("key_file = \"{}\"", key.display())
        } else {
            String::new()
        };
        let config = format!(
            "vip = {vips}\n{list}\n{key_file}\n{}\n[health]\nca = \"{}\"\n{}\n[vrrp]\ninterval = \"{}\"\n{}",
            plan.top,
            pki.ca().display(),
            plan.pace.health,
            plan.interval,
            plan.more
        );
        std::fs::write(work.join("vip.toml"), config).context("write vip.toml")?;
        Ok(Self {
            servers: (0..count).map(|_| None).collect(),
            members: (0..count).map(|_| None).collect(),
            agents: (0..count).map(|_| None).collect(),
            helpers: Vec::new(),
            off: (0..count)
                .map(|node| {
                    plan.founders
                        .is_some_and(|there| node >= usize::from(there))
                })
                .collect(),
            topology,
            programs: programs.clone(),
            plan,
            pki,
            work,
        })
    }

    fn bring_up(&mut self, timeline: &mut Timeline) -> Result<()> {
        let there = self.nodes().len();
        timeline.event(format!("{there} nodes, a client, a router"));
        self.tell_kernels(timeline);
        match &self.plan.flavour {
            Flavour::StandIn => {}
            Flavour::Kubernetes(binaries, kube::Layout::Apart) => {
                let etcd = self.topology.etcd.as_ref();
                let started = kube::start_etcd(binaries, etcd, &[etcd], &self.work)?;
                self.helpers.push(started);
                kube::wait_for_etcd(etcd, &self.programs.testbed)?;
            }
            Flavour::Kubernetes(_, kube::Layout::Stacked) => {
                for node in self.nodes() {
                    self.start_member(node)?;
                }
                for node in self.nodes() {
                    kube::wait_for_etcd(self.host(node), &self.programs.testbed)?;
                }
            }
        }
        for node in self.nodes() {
            self.start_server(node)?;
        }
        for node in self.nodes() {
            self.wait_for_server(node)?;
        }
        timeline.event(format!("API servers are ready: {}", self.flavour()?));
        if matches!(self.plan.flavour, Flavour::Kubernetes(..)) {
            self.start_background_writes()?;
        }
        if self.plan.bare {
            return Ok(());
        }
        for node in self.nodes() {
            self.start_agent(node)?;
        }
        self.wait_until_settled()?;
        let owner = self.owner()?;
        timeline.event(format!("agents run, {} owns the VIP", self.name(owner)));
        Ok(())
    }

    /// A node comes to a cluster whose agents find each other: its API server and its agent start.
    ///
    /// # Errors
    /// They do not.
    pub fn arrive(&mut self, node: usize) -> Result<()> {
        self.start_server(node)?;
        self.wait_for_server(node)?;
        self.join(node)
    }

    /// A node whose API server runs comes to such a cluster.
    ///
    /// # Errors
    /// Its agent does not start.
    pub fn join(&mut self, node: usize) -> Result<()> {
        self.off[node] = false;
        self.start_agent(node)
    }

    /// A node has left the cluster: its agent has ended, and its API server ends now. Returns the time
    /// (boot-time nanoseconds) when it was gone.
    pub fn depart(&mut self, node: usize) -> u64 {
        self.agents[node] = None;
        self.off[node] = true;
        self.kill_server(node)
    }

    /// Changes the configuration that agents start with from now on.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_config(&self, config: &str) -> Result<()> {
        std::fs::write(self.work.join("vip.toml"), config).context("write vip.toml")
    }

    /// Starts a node's member of etcd.
    ///
    /// # Errors
    /// The API servers are stand-ins, or it cannot be started.
    pub fn start_member(&mut self, node: usize) -> Result<()> {
        let Flavour::Kubernetes(binaries, _) = &self.plan.flavour else {
            bail!("stand-ins have no etcd");
        };
        let members: Vec<&dyn Host> = self.topology.nodes.iter().map(AsRef::as_ref).collect();
        let started = kube::start_etcd(binaries, members[node], &members, &self.work)?;
        self.members[node] = Some(started);
        Ok(())
    }

    /// `kill -9` of a node's member of etcd.
    pub fn kill_member(&mut self, node: usize) {
        self.members[node] = None;
    }

    /// Ends a node's API server as the kubelet does, and waits until it has: it finishes what
    /// it has begun.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_server(&mut self, node: usize) -> Result<()> {
        match self.servers[node].take() {
            Some(mut server) => server.stop().map(drop),
            None => Ok(()),
        }
    }

    fn start_background_writes(&mut self) -> Result<()> {
        let servers: Vec<String> = self
            .topology
            .nodes
            .iter()
            .map(|node| format!("{}:{PORT}", node.address()))
            .collect();
        let mut command = self
            .topology
            .etcd
            .command(self.programs.testbed.as_os_str());
        command
            .args([
                "background-writes",
                "--servers",
                &servers.join(","),
                "--token",
            ])
            .arg(kube::TOKEN)
            .arg("--pki")
            .arg(self.pki.directory());
        let log = self.work.join("background-writes.log");
        let writes = Process::daemon("background writes", &mut command, &log)?;
        self.helpers.push(writes);
        Ok(())
    }

    /// What the API servers are, in words.
    ///
    /// # Errors
    /// kube-apiserver does not say its version.
    pub fn flavour(&self) -> Result<String> {
        match &self.plan.flavour {
            Flavour::StandIn => Ok("stand-ins (TLS, /readyz and watches)".to_owned()),
            Flavour::Kubernetes(binaries, _) => {
                Ok(format!("kube-apiserver, {}", binaries.version()?))
            }
        }
    }

    /// What it is made of.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How much happens.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.plan.pace
    }

    /// The folder with logs and certificates.
    #[must_use]
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The servers' certificates.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The programs that run on the hosts.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Numbers of the nodes that have power.
    #[must_use]
    pub fn nodes(&self) -> Vec<usize> {
        (0..self.off.len())
            .filter(|node| !self.off[*node])
            .collect()
    }

    /// A node's machine.
    #[must_use]
    pub fn host(&self, node: usize) -> &dyn Host {
        self.topology.nodes[node].as_ref()
    }

    /// A node's name, which is also that of its API server.
    #[must_use]
    pub fn name(&self, node: usize) -> String {
        self.host(node).name().to_owned()
    }

    /// The path that load asks for.
    #[must_use]
    pub fn load_path(&self) -> &'static str {
        match self.plan.flavour {
            Flavour::StandIn => "/whoami",
            // Not /readyz: a server that drains says no to that on purpose, and yes to the rest.
            Flavour::Kubernetes(..) => "/version",
        }
    }

    /// The path of a watch.
    #[must_use]
    pub fn watch_path(&self) -> &'static str {
        match self.plan.flavour {
            Flavour::StandIn => "/watch",
            Flavour::Kubernetes(..) => kube::WATCH_PATH,
        }
    }

    /// The token that clients send, if the servers demand one.
    #[must_use]
    pub fn token(&self) -> Option<&'static str> {
        matches!(self.plan.flavour, Flavour::Kubernetes(..)).then_some(kube::TOKEN)
    }

    /// Starts a node's API server.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_server(&mut self, node: usize) -> Result<()> {
        let host = self.topology.nodes[node].as_ref();
        let server = match &self.plan.flavour {
            Flavour::Kubernetes(binaries, layout) => {
                let etcd = match layout {
                    kube::Layout::Apart => self.topology.etcd.as_ref(),
                    kube::Layout::Stacked => host,
                };
                kube::start_apiserver(binaries, host, etcd, &self.pki, *layout, &self.work)?
            }
            Flavour::StandIn => {
                let mut command = host.command(self.programs.testbed.as_os_str());
                command
                    .args(["serve", "--name", host.name(), "--pki"])
                    .arg(self.pki.directory())
                    .arg("--token-file")
                    .arg(self.server_token());
                let log = self.work.join(format!("{}-apiserver.log", host.name()));
                Process::daemon(
                    &format!("API server on {}", host.name()),
                    &mut command,
                    &log,
                )?
            }
        };
        self.servers[node] = Some(server);
        Ok(())
    }

    /// Waits until a node's API server says that it is ready, asked from its own node.
    ///
    /// # Errors
    /// It ends, or is not ready in time.
    pub fn wait_for_server(&mut self, node: usize) -> Result<()> {
        let what = format!("the API server on {} is ready", self.name(node));
        until(&what, PATIENCE, || {
            let Some(server) = &mut self.servers[node] else {
                bail!("no API server was started on {}", self.name(node));
            };
            if !server.is_running() {
                bail!("{} has ended by itself", server.name());
            }
            let host = self.host(node);
            let target = format!("{}:{PORT}", host.address());
            Ok(self.get(host, "/readyz", &target).ok())
        })?;
        Ok(())
    }

    /// `kill -9` of a node's API server. Returns the time (boot-time nanoseconds) when it was
    /// gone with all its sockets.
    pub fn kill_server(&mut self, node: usize) -> u64 {
        if let Some(mut server) = self.servers[node].take() {
            server.kill_and_reap();
        }
        boot_now()
    }

    /// Makes a node's API server say that it is not ready, while it goes on serving.
    pub fn drain_server(&mut self, node: usize) {
        let signal = match self.plan.flavour {
            Flavour::StandIn => Signal::SIGUSR1,
            Flavour::Kubernetes(..) => Signal::SIGTERM,
        };
        self.signal_server(node, signal);
    }

    /// The file with the bearer token that the stand-ins take; there is none at first.
    #[must_use]
    pub fn server_token(&self) -> PathBuf {
        self.work.join("server-token")
    }

    /// Lets a stand-in's `/readyz` answer 401 to whoever does not know the
    /// [token](Self::server_token), from now on.
    pub fn lock_server(&mut self, node: usize) {
        self.signal_server(node, Signal::SIGHUP);
    }

    /// Sends a signal to a node's API server: SIGSTOP makes it hang.
    pub fn signal_server(&mut self, node: usize, signal: Signal) {
        if let Some(server) = &mut self.servers[node] {
            self.topology.nodes[node].signal(server, signal);
        }
    }

    /// Makes a drained server ready again. A kube-apiserver is ended and started for that, and
    /// its watches end with it.
    ///
    /// # Errors
    /// It does not start.
    pub fn restore_server(&mut self, node: usize) -> Result<()> {
        match (&self.plan.flavour, &mut self.servers[node]) {
            (Flavour::StandIn, Some(server)) => {
                self.topology.nodes[node].signal(server, Signal::SIGUSR2);
            }
            _ => {
                self.kill_server(node);
                self.start_server(node)?;
            }
        }
        self.wait_for_server(node)
    }

    /// Cuts a node's power. Returns the time (boot-time nanoseconds) when it was off.
    ///
    /// # Errors
    /// It cannot be cut off.
    pub fn power_off(&mut self, node: usize) -> Result<u64> {
        self.topology.nodes[node].power_off()?;
        let at = boot_now();
        self.off[node] = true;
        self.servers[node] = None;
        self.members[node] = None;
        self.agents[node] = None;
        Ok(at)
    }

    /// Copies logs and configuration to where they outlive the run. Returns the folder.
    ///
    /// # Errors
    /// They cannot be copied.
    pub fn save_logs(&self, name: &str) -> Result<PathBuf> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("vip-tests-{name}-"))
            .tempdir()
            .context("make a folder for logs")?
            .keep();
        copy_files(&self.work, &folder)?;
        Ok(folder)
    }
}

/// Copies the files in a folder, not those in folders below, to another one.
///
/// # Errors
/// One cannot be read or written.
pub fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from).context("read the folder of logs")? {
        let path = entry.context("read the folder of logs")?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            std::fs::copy(&path, to.join(name))
                .with_context(|| format!("copy {}", path.display()))?;
        }
    }
    Ok(())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Best effort: the folder lies on a tmpfs that ends with this process anyway.
        let _ = std::fs::remove_dir_all(&self.work);
    }
}
