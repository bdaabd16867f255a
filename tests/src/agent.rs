//! The program under test: `vip run` on a node, and what `vip status --json` says.
//!
//! The names of states in that JSON are compared here and nowhere else.

use std::net::IpAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::Deserialize;
use vip_node::alarm::Kind;
use vip_node::bfd;
use vip_node::election::State;
use vip_node::hooks::{Hook, Running};
use vip_userspace::datapath::Mode;
use vip_userspace::observe::status;
use vip_userspace::observe::status::BfdPort;
pub use vip_userspace::observe::status::Node as NodeStatus;

use crate::process::{Process, output};
use crate::topology::Host;

/// Where the programs are that run on the hosts.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The program under test.
    pub vip: PathBuf,
    /// Load, watches, stand-in servers: this crate's own binary.
    pub testbed: PathBuf,
}

impl Programs {
    /// `VIP_BIN` or else `vip` beside this executable, or in the folder above (where cargo
    /// puts test executables one level deeper); the same with `TESTBED_BIN` and `testbed`.
    /// `vip` need not exist until an agent is started.
    ///
    /// # Errors
    /// `testbed` is not there.
    pub fn find() -> Result<Self> {
        let own = std::env::current_exe().context("find the path of this program")?;
        let folders: Vec<&Path> = own.ancestors().skip(1).take(2).collect();
        let find = |variable: &str, name: &str| {
            std::env::var_os(variable).map(PathBuf::from).or_else(|| {
                folders
                    .iter()
                    .map(|folder| folder.join(name))
                    .find(|path| path.is_file())
            })
        };
        let Some(testbed) = find("TESTBED_BIN", "testbed") else {
            bail!(
                "no program testbed beside {}: run cargo build -p vip-tests",
                own.display()
            );
        };
        let vip = find("VIP_BIN", "vip").unwrap_or_else(|| PathBuf::from("vip"));
        Ok(Self { vip, testbed })
    }
}

/// What `vip status --json` writes, in the agent's own types.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Status(status::Status);

impl Deref for Status {
    type Target = status::Status;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Status {
    /// Reads it.
    ///
    /// # Errors
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).with_context(|| format!("vip status --json wrote: {text}"))
    }

    /// The entry of a node.
    #[must_use]
    pub fn node(&self, host: &dyn Host) -> Option<&NodeStatus> {
        let address = IpAddr::from(host.address());
        self.nodes.iter().find(|node| node.address == address)
    }

    /// The node owns the VIP.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == State::Active
    }

    /// The node waits for the owner to fail.
    #[must_use]
    pub fn is_backup(&self) -> bool {
        self.state == State::Backup
    }

    /// The node cannot own the VIP now, and names a fault.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.state == State::Initialize && !self.faults.is_empty()
    }

    /// The node names this fault, and no other one.
    #[must_use]
    pub fn has_only_fault(&self, text: &str) -> bool {
        self.faults == [text]
    }

    /// How the program on the way in runs.
    #[must_use]
    pub fn xdp_mode(&self) -> Mode {
        self.xdp.mode
    }

    /// How the agent has BFD's port.
    #[must_use]
    pub fn has_bfd_port(&self, how: BfdPort) -> bool {
        self.bfd_port == Some(how)
    }

    /// Whether all hooks are proved to run.
    #[must_use]
    pub fn hooks_run(&self) -> bool {
        !self.hooks.is_empty() && self.hooks.iter().all(|hook| hook.runs == Running::Yes)
    }

    /// Why a hook does not run, if it does not and the cause is known.
    #[must_use]
    pub fn why_not_run(&self, hook: Hook) -> Option<&str> {
        let mut hooks = self.hooks.iter();
        let hook = hooks.find(|found| found.name == hook && found.runs == Running::No)?;
        hook.cause.as_deref()
    }

    /// Frames that the node sent on to others, and their bytes.
    #[must_use]
    pub fn forwarded(&self) -> (u64, u64) {
        let others = self.nodes.iter().filter(|node| !node.own);
        others.fold((0, 0), |(packets, bytes), node| {
            (packets + node.packets, bytes + node.bytes)
        })
    }

    /// The text of an alarm about a node's name or an address.
    #[must_use]
    pub fn alarm(&self, alarm: Kind, about: &str) -> Option<&str> {
        let mut alarms = self.alarms.iter();
        let found = alarms.find(|there| there.alarm == alarm && there.about == about);
        found.map(|there| there.text.as_str())
    }

    /// A counter; 0 if the agent does not have it.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// How often an event happened since the agent started.
    #[must_use]
    pub fn event_count(&self, name: &str) -> u64 {
        self.events.get(name).copied().unwrap_or(0)
    }
}

/// Whether there is a BFD session with a node, and it is in this state.
#[must_use]
pub fn session_is(node: &NodeStatus, state: bfd::State) -> bool {
    node.bfd.as_ref().is_some_and(|bfd| bfd.state == state)
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// `vip run`.
    pub process: Process,
}

impl Agent {
    /// Starts `vip run` on a node.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(programs: &Programs, host: &dyn Host, config: &Path, log: &Path) -> Result<Self> {
        let mut command = host.command(programs.vip.as_os_str());
        command.arg("run").arg("--config").arg(config);
        let process = Process::daemon(&format!("vip run on {}", host.name()), &mut command, log)
            .context("set VIP_BIN, or run cargo build -p vip-userspace")?;
        Ok(Self { process })
    }

    /// Ends the agent as systemd or the kubelet would.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.process.stop()?;
        // Ended by the signal, or cleanly because of it.
        if status.success()
            || std::os::unix::process::ExitStatusExt::signal(&status)
                == Some(Signal::SIGTERM as i32)
        {
            Ok(())
        } else {
            bail!("{}: {status}", self.process.name())
        }
    }
}

/// Asks the agent of a node.
///
/// # Errors
/// It does not answer, or its answer has another form.
pub fn status(programs: &Programs, host: &dyn Host) -> Result<Status> {
    let text = output(
        host.command(programs.vip.as_os_str())
            .args(["status", "--json"]),
    )?;
    Status::parse(&text).with_context(|| format!("ask the agent on {}", host.name()))
}

/// Removes what an agent left on a node.
///
/// # Errors
/// `vip cleanup` fails.
pub fn cleanup(programs: &Programs, host: &dyn Host) -> Result<String> {
    output(host.command(programs.vip.as_os_str()).arg("cleanup"))
}
