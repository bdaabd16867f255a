//! The network under test: one segment with nodes and a client, and a router to another
//! segment with a remote client.
//!
//! ```text
//!   n1 .11   n2 .12   n3 .13 …   etcd .50   client .100
//!    └────────┴───┬────┴───────────┴──────────┘          10.0.0.0/24
//!             router .1
//!                 │                                       10.1.0.0/24
//!             remote .100
//! ```
//!
//! Scenarios see [`Host`]s only, and not what these are made of.

pub mod netns;
pub mod vm;

use std::ffi::OsStr;
use std::fmt::Debug;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::process::Command;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use crate::process::{Process, output};
pub use crate::sys::Mangle;

/// The virtual address of all scenarios. No host has it unless the agent puts it there.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);

/// What the VIP is changed to. The servers' certificates name it, too.
pub const NEXT_VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 20);

/// The VIP of a second cluster, with the same last byte: its default VRRP router is the same. Only where
/// a segment is a /23.
pub const TWIN_VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);

/// The same as [`VIP`] of IPv6.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 10);

/// The port of the API servers and of the VIP.
pub const PORT: u16 = 6443;

/// Name of every host's interface on its segment.
pub const NIC: &str = "eth0";

/// What the nodes' NICs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Link {
    /// The end of a cable.
    #[default]
    Plain,
    /// A bridge, of which the cable's end is a port, as on hosts of virtual machines.
    Bridge,
    /// A plain one on a segment whose frames may have 9,000 bytes.
    Jumbo,
    /// A plain one to which somebody has attached an XDP program already.
    Occupied,
}

/// What another NIC of a host is plugged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// The segment that the nodes and the VIP are on.
    Nodes,
    /// One that begins with the first NIC plugged into it: 10.2.0.0/24 in scenarios.
    Second,
}

/// A machine of the topology.
pub trait Host: Debug {
    /// Its name: `n1`, `client`.
    fn name(&self) -> &str;

    /// Its address on its segment.
    fn address(&self) -> Ipv4Addr;

    /// Its other address there, if the topology has both families.
    fn ipv6(&self) -> Ipv6Addr;

    /// A command that will run on this host. Paths mean the same as here, except below `/sys`,
    /// `/run` and, in a virtual machine, `/tmp`. The working directory is `/`.
    fn command(&self, program: &OsStr) -> Command;

    /// For people: a command line that opens a shell there, or begins one that does.
    fn way_in(&self) -> String;

    /// Sends a signal to a process that was started on this host.
    fn signal(&self, process: &mut Process, signal: Signal) {
        process.signal(signal);
    }

    /// Stops a process in its tracks, as a hang of the machine would.
    fn freeze(&self, process: &mut Process) {
        self.signal(process, Signal::SIGSTOP);
    }

    /// Lets a frozen process go on.
    fn thaw(&self, process: &mut Process) {
        self.signal(process, Signal::SIGCONT);
    }

    /// Pulls the plug: no frame leaves from now on, not even a last one, and all processes end.
    ///
    /// # Errors
    /// The host cannot be cut off.
    fn power_off(&mut self) -> Result<()>;

    /// Changes the frames that this host sends from now on, at its port of the switch.
    ///
    /// # Errors
    /// The kernel refuses, or the host's switch cannot do it.
    fn mangle(&self, how: Mangle) -> Result<()> {
        bail!("{}: its switch cannot {how:?}", self.name())
    }

    /// Lets the host's port of the switch drop all frames (`false`), or forward them again. The carrier
    /// stays up, as when RSTP, LACP or a live migration disables a port.
    ///
    /// # Errors
    /// The kernel refuses, or the host's switch cannot do it.
    fn port_forwards(&self, forwards: bool) -> Result<()> {
        bail!("{}: its port cannot change ({forwards})", self.name())
    }

    /// Lets the switch drop all frames from another host to this one (`false`), or bring them again. Both
    /// still reach all others.
    ///
    /// # Errors
    /// The kernel refuses, or the host's switch cannot do it.
    fn hears(&self, other: &dyn Host, hears: bool) -> Result<()> {
        bail!(
            "{}: the way from {} cannot change ({hears})",
            self.name(),
            other.name()
        )
    }

    /// Gives the host another NIC, `eth1` to `eth9`. It is down and has no address. What is returned
    /// must be kept for as long as a program on it sends frames back (`XDP_TX`).
    ///
    /// # Errors
    /// The host is a virtual machine, or the kernel refuses.
    fn plug(&self, interface: &str, segment: Segment) -> Result<Vec<OwnedFd>> {
        bail!(
            "{} gets no {interface} on {segment:?}: it is a virtual machine",
            self.name()
        )
    }

    /// The virtual machine that it is, if it is one.
    fn vm(&mut self) -> Option<&mut vm::VmHost> {
        None
    }
}

/// Cuts the way between two hosts at the switch in both directions (`false`), or mends it.
///
/// # Errors
/// As [`Host::hears`].
pub fn reach(a: &dyn Host, b: &dyn Host, reaches: bool) -> Result<()> {
    a.hears(b, reaches)?;
    b.hears(a, reaches)
}

/// The address that a node gets when it moves to another one. Its server's certificate names both.
#[must_use]
pub fn moved(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, last] = address.octets();
    Ipv4Addr::new(a, b, c, last + 20)
}

/// Puts the VIP on a host's NIC (`add`) or takes it off (`del`), as no agent would.
///
/// # Errors
/// The kernel refuses.
pub fn vip_by_hand(host: &dyn Host, verb: &str) -> Result<()> {
    let address = format!("{VIP}/32");
    let mut ip = host.command("ip".as_ref());
    output(ip.args(["address", verb, &address, "dev", NIC])).map(drop)
}

/// The Ethernet address of a host's NIC.
///
/// # Errors
/// It cannot be read.
pub fn mac(host: &dyn Host) -> Result<String> {
    let path = format!("/sys/class/net/{NIC}/address");
    let text = output(host.command("cat".as_ref()).arg(path))?;
    Ok(text.trim().to_owned())
}

/// Runs a line of shell on a host.
///
/// # Errors
/// It fails; the message holds what it said.
pub fn sh(host: &dyn Host, line: &str) -> Result<String> {
    output(host.command("sh".as_ref()).args(["-ec", line]))
}

/// All hosts. Dropped, everything is gone.
#[derive(Debug)]
pub struct Topology {
    /// Control-plane nodes `n1`, `n2`, …: 10.0.0.11 and up.
    pub nodes: Vec<Box<dyn Host>>,
    /// 10.0.0.100, on the nodes' segment.
    pub client: Box<dyn Host>,
    /// 10.1.0.100, behind the router.
    pub remote: Box<dyn Host>,
    /// 10.0.0.1 and 10.1.0.1.
    pub router: Box<dyn Host>,
    /// 10.0.0.50: the data store of real API servers.
    pub etcd: Box<dyn Host>,
}

impl Topology {
    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &dyn Host> {
        let others = [&self.client, &self.remote, &self.router, &self.etcd];
        self.nodes.iter().chain(others).map(AsRef::as_ref)
    }
}
