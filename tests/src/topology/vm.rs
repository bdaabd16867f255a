//! Nodes and client as virtual machines on the same bridge as the other hosts, which remain
//! namespaces: router, remote client, etcd.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::netns::{BRIDGE, Seat, Segment, Switch, addresses, quiet};
use super::{Host, Link, NIC, Topology};
use crate::process::{Process, output};
use crate::vm::Kernel;
use crate::vm::machine::{Hardware, Machine, Nic};

/// What the machines' network is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wiring {
    /// virtio-net, as QEMU makes it: XDP in the driver.
    #[default]
    Virtio,
    /// virtio-net whose offloads the guest cannot switch off: its driver refuses XDP.
    VirtioFixedOffloads,
    /// virtio-net without mergeable buffers: its driver takes a program, and some versions never
    /// run it.
    VirtioUnmerged,
    /// A card whose driver knows no XDP.
    E1000e,
    /// A VLAN over virtio-net.
    Vlan,
    /// Two virtio-nets as a bond.
    Bond(Bonding),
}

/// How a bond uses its two ports (Documentation/networking/bonding.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bonding {
    /// One at a time, both with the bond's Ethernet address.
    ActiveBackup,
    /// One at a time, and the bond has the Ethernet address of the one in use.
    FailOverMac,
    /// Sends by both, each with its own Ethernet address (mode 5).
    BalanceTlb,
    /// The same, and tells different hosts different addresses by ARP (mode 6).
    BalanceAlb,
}

impl Bonding {
    /// As `ip link` has it.
    const fn options(self) -> &'static str {
        match self {
            Self::ActiveBackup => "mode active-backup",
            Self::FailOverMac => "mode active-backup fail_over_mac active",
            Self::BalanceTlb => "mode balance-tlb",
            Self::BalanceAlb => "mode balance-alb",
        }
    }
}

impl Wiring {
    const fn device(self) -> &'static str {
        match self {
            Self::Virtio | Self::Vlan | Self::Bond(_) => "virtio-net-pci",
            Self::VirtioFixedOffloads => "virtio-net-pci,ctrl_guest_offloads=off",
            Self::VirtioUnmerged => "virtio-net-pci,mrg_rxbuf=off",
            Self::E1000e => "e1000e",
        }
    }

    /// The cards of a machine. Their taps are named after it.
    fn nics(self, seat: &Seat) -> Vec<Nic> {
        let nic = |number: u8| Nic {
            tap: format!("{}-{number}", seat.name),
            mac: format!("02:00:0a:00:{number:02x}:{:02x}", seat.number),
            device: self.device(),
        };
        let count = if matches!(self, Self::Bond(_)) { 2 } else { 1 };
        (0..count).map(nic).collect()
    }

    /// What makes [`NIC`] of the cards `port0`, `port1` in a machine.
    fn script(self) -> String {
        match self {
            Self::Vlan => format!(
                "ip link set port0 up\n\
                 ip link add link port0 name {NIC} type vlan id 42\n"
            ),
            Self::Bond(bonding) => format!(
                "modprobe bonding max_bonds=0\n\
                 ip link add {NIC} type bond {} miimon 100\n\
                 for port in port0 port1; do ip link set $port down; ip link set $port master {NIC}; done\n",
                bonding.options()
            ),
            _ => format!("ip link set port0 name {NIC}\n"),
        }
    }
}

/// What the machines are.
#[derive(Debug, Clone)]
pub struct Machines {
    /// The nodes' kernels, in turn: with fewer kernels than nodes they begin again.
    pub kernels: Vec<Kernel>,
    /// What their network is made of.
    pub wiring: Wiring,
    /// Memory of a node in MiB.
    pub memory: u32,
}

impl Machines {
    /// Machines with virtio-net cards and so much memory as stand-ins for API servers need.
    #[must_use]
    pub fn new(kernels: Vec<Kernel>) -> Self {
        Self {
            kernels,
            wiring: Wiring::Virtio,
            memory: 384,
        }
    }
}

/// Memory of the client in MiB.
const CLIENT_MEMORY: u32 = 384;

/// The switch with the capture of what passes it.
#[derive(Debug)]
struct Lan {
    // Dropped before the switch it listens at.
    _capture: Process,
    _switch: Arc<Switch>,
}

/// A virtual machine as a host.
#[derive(Debug)]
pub struct VmHost {
    // Dropped before its network.
    machine: Machine,
    seat: Seat,
    wiring: Wiring,
    dual_stack: bool,
    _lan: Arc<Lan>,
}

impl VmHost {
    /// The machine.
    #[must_use]
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Waits until it has booted, and gives it its addresses.
    ///
    /// # Errors
    /// It does not boot in time.
    pub fn wait_until_up(&mut self) -> Result<()> {
        self.machine.wait_until_up()?;
        let mut script =
            "set -e\nfor driver in virtio_net e1000e; do modprobe $driver; done\n".to_owned();
        for (number, nic) in self.wiring.nics(&self.seat).iter().enumerate() {
            script += &format!(
                "for nic in /sys/class/net/*; do\n\
                 if [ \"$(cat $nic/address)\" = {} ]; then ip link set ${{nic##*/}} name port{number}; fi\n\
                 done\n",
                nic.mac
            );
        }
        for (key, value) in quiet(self.dual_stack) {
            script += &format!("echo {value} >/proc/sys/net/{key}\n");
        }
        script += &self.wiring.script();
        script += &format!(
            "ip -batch - <<END\n{}END\n",
            addresses(&self.seat, self.dual_stack)
        );
        output(self.machine.command("sh".as_ref()).args(["-c", &script]))
            .with_context(|| format!("give {} its addresses", self.seat.name))
            .map(drop)
    }
}

impl Host for VmHost {
    fn name(&self) -> &str {
        &self.seat.name
    }

    fn address(&self) -> Ipv4Addr {
        self.seat.address()
    }

    fn ipv6(&self) -> Ipv6Addr {
        self.seat.ipv6()
    }

    fn command(&self, program: &OsStr) -> Command {
        self.machine.command(program)
    }

    fn way_in(&self) -> String {
        self.machine.way_in()
    }

    fn power_off(&mut self) -> Result<()> {
        self.machine.switch_off();
        Ok(())
    }

    fn vm(&mut self) -> Option<&mut VmHost> {
        Some(self)
    }
}

/// Makes the topology of [`netns::build`](super::netns::build) with virtual machines as nodes
/// and client, and boots them all at once. `testbed` is their first process; their logs, and a
/// capture of the segment, go to `work`.
///
/// # Errors
/// Too many nodes, no kernel, or one that does not boot.
pub fn build(
    node_count: u8,
    dual_stack: bool,
    machines: &Machines,
    testbed: &Path,
    work: &Path,
) -> Result<Topology> {
    ensure!(!machines.kernels.is_empty(), "no kernel for the machines");
    let mut seats = Seat::nodes(node_count)?;
    seats.push(Seat::client());
    let mut segment = Segment::build(Vec::new(), dual_stack, Link::Plain)?;
    let netns = &segment.switch.netns;
    let mut taps = String::new();
    for nic in seats.iter().flat_map(|seat| machines.wiring.nics(seat)) {
        let tap = nic.tap;
        taps += &format!(
            "tuntap add dev {tap} mode tap\nlink set {tap} master {BRIDGE}\nlink set {tap} up\n"
        );
    }
    netns.ip(&taps)?;
    let mut capture = netns.command("tcpdump".as_ref());
    capture
        .args(["-i", BRIDGE, "-n", "-U", "-Z", "root", "-s", "192", "-w"])
        .arg(work.join("segment.pcap"));
    let lan = Arc::new(Lan {
        _capture: Process::daemon("capture", &mut capture, &work.join("tcpdump.log"))?,
        _switch: Arc::clone(&segment.switch),
    });

    let mut hosts = Vec::new();
    let kernels = machines.kernels.iter().cycle();
    for (seat, kernel) in seats.into_iter().zip(kernels) {
        let is_client = seat.name == Seat::client().name;
        let hardware = Hardware {
            name: seat.name.clone(),
            memory: if is_client {
                CLIENT_MEMORY
            } else {
                machines.memory
            },
            cpus: 1,
            nics: machines.wiring.nics(&seat),
            counts_instructions: false,
        };
        let mut machine = Machine::new(hardware, kernel.clone(), Arc::clone(netns), testbed, work);
        machine.switch_on()?;
        hosts.push(VmHost {
            machine,
            seat,
            wiring: machines.wiring,
            dual_stack,
            _lan: Arc::clone(&lan),
        });
    }
    for host in &mut hosts {
        host.wait_until_up()?;
    }
    let client = Box::new(hosts.pop().context("a client was planned")?);
    segment.hosts = hosts
        .into_iter()
        .map(|host| Box::new(host) as Box<dyn Host>)
        .collect();
    Ok(segment.into_topology(client))
}
