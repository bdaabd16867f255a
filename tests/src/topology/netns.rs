//! Hosts as [namespaces](NetNs): pairs of a network and a mount namespace, and the bridge between
//! them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Host, Link, Mangle, NIC, Segment as Wire, Topology};
use crate::netns::NetNs;
use crate::process::output;
use crate::sys;

/// Name of the bridge in the switch's namespace.
pub(super) const BRIDGE: &str = "br0";

/// Name of the bridge of the second segment, there.
const SECOND_BRIDGE: &str = "br1";

/// Name of the cable's end on a node whose NIC is a bridge.
const BRIDGE_PORT: &str = "port0";

/// Drops frames on their way from one port to another.
const CUT: &str = "table bridge cut { set ways { type ifname . ifname; }; \
     chain forward { type filter hook forward priority 0; iifname . oifname @ways drop; }; }";

/// The bridge between the hosts, and what must live as long as it.
#[derive(Debug)]
pub(super) struct Switch {
    pub(super) netns: Arc<NetNs>,
    /// By the hosts' names, the programs at their ports.
    ports: BTreeMap<String, OwnedFd>,
    /// Hold `XDP_PASS` at every other port: a frame that a host sends with `XDP_TX` reaches the
    /// other end of a veth only if that end runs NAPI.
    _links: Vec<OwnedFd>,
}

/// A host made of namespaces.
#[derive(Debug)]
struct NetnsHost {
    name: String,
    address: Ipv4Addr,
    ipv6: Ipv6Addr,
    netns: NetNs,
    switch: Arc<Switch>,
}

impl Host for NetnsHost {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> Ipv4Addr {
        self.address
    }

    fn ipv6(&self) -> Ipv6Addr {
        self.ipv6
    }

    fn command(&self, program: &OsStr) -> Command {
        self.netns.command(program)
    }

    fn way_in(&self) -> String {
        self.netns.way_in()
    }

    fn mangle(&self, how: Mangle) -> Result<()> {
        let port = self.switch.ports.get(&self.name);
        let port = port.with_context(|| format!("{} has no port at the switch", self.name))?;
        sys::load_mangler(how)
            .and_then(|program| sys::replace_program(port, &program))
            .with_context(|| format!("{how:?} at the port of {}", self.name))
    }

    fn port_forwards(&self, forwards: bool) -> Result<()> {
        // BR_STATE_FORWARDING and BR_STATE_DISABLED of linux/if_bridge.h.
        let state = if forwards { "3" } else { "0" };
        let mut bridge = self.switch.netns.command("bridge".as_ref());
        output(bridge.args(["link", "set", "dev", &self.name, "state", state])).map(drop)
    }

    fn hears(&self, other: &dyn Host, hears: bool) -> Result<()> {
        let verb = if hears { "delete" } else { "add" };
        let (to, from) = (self.name(), other.name());
        let line = format!(
            "nft list table bridge cut >/dev/null 2>&1 || nft '{CUT}'\n\
             nft '{verb} element bridge cut ways {{ \"{from}\" . \"{to}\" }}'"
        );
        let mut shell = self.switch.netns.command("sh".as_ref());
        output(shell.args(["-ec", &line])).map(drop)
    }

    fn plug(&self, interface: &str, segment: Wire) -> Result<Vec<OwnedFd>> {
        let switch = &self.switch.netns;
        let bridge = match segment {
            Wire::Nodes => BRIDGE,
            Wire::Second => SECOND_BRIDGE,
        };
        let mut there = switch.command("ip".as_ref());
        if output(there.args(["link", "show", "dev", bridge])).is_err() {
            switch.ip(&bridge_lines(bridge))?;
        }
        let port = format!("{}-{interface}", self.name);
        let number = interface.bytes().last().unwrap_or_default() - b'0';
        let mac = [number, self.address.octets()[3]];
        switch.ip(&cable(&port, interface, mac, &self.netns, mtu(Link::Plain)))?;
        switch.ip(&format!("link set {port} master {bridge}\n"))?;
        no_offload(&self.netns, &[interface])?;
        prepare_ports(switch, &[&port], Link::Plain)
    }

    fn power_off(&mut self) -> Result<()> {
        // First the cable, so that the processes that end next send no last frame.
        self.switch
            .netns
            .ip(&format!("link set {} down\n", self.name))?;
        let own = network_of("self")?;
        let doomed = network_of(&self.netns.holder.pid().to_string())?;
        ensure!(own != doomed, "{} is not a namespace of its own", self.name);
        for entry in std::fs::read_dir("/proc").context("read /proc")? {
            let name = entry.context("read /proc")?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A process may have ended meanwhile: then it has no namespace any more.
            let inside = network_of(&format!("{pid}")).is_ok_and(|network| network == doomed);
            // The holder stays: the machine is off, but its files can still be read.
            if inside && Pid::from_raw(pid) != self.netns.holder.pid() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        Ok(())
    }
}

/// Identifies the network namespace of a process.
fn network_of(pid: &str) -> Result<PathBuf> {
    let path = format!("/proc/{pid}/ns/net");
    std::fs::read_link(&path).with_context(|| format!("read {path}"))
}

/// What a host on the nodes' segment is before it is made.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) name: String,
    /// Last byte of its addresses.
    pub(super) number: u8,
    /// A control-plane node, whose NIC is what the plan says.
    is_node: bool,
}

impl Seat {
    /// The nodes.
    pub(super) fn nodes(count: u8) -> Result<Vec<Self>> {
        if !(1..=17).contains(&count) {
            bail!("a topology has 1 to 17 nodes, not {count}");
        }
        let node = |number| Self {
            is_node: true,
            ..Self::new(&format!("n{number}"), 10 + number)
        };
        Ok((1..=count).map(node).collect())
    }

    /// Any other host.
    pub(super) fn new(name: &str, number: u8) -> Self {
        Self {
            name: name.to_owned(),
            number,
            is_node: false,
        }
    }

    /// The client.
    pub(super) fn client() -> Self {
        Self::new("client", 100)
    }

    /// Its address.
    pub(super) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, self.number)
    }

    /// Its address of IPv6.
    pub(super) fn ipv6(&self) -> Ipv6Addr {
        ipv6(0, self.number)
    }
}

/// No address but those we give, and at once: without IPv6 if nobody asks for it, since it would
/// only add noise to the segment.
pub(super) fn quiet(dual_stack: bool) -> [(&'static str, &'static str); 6] {
    let off = if dual_stack { "0" } else { "1" };
    [
        ("ipv6/conf/all/disable_ipv6", off),
        ("ipv6/conf/default/disable_ipv6", off),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
    ]
}

/// The lines of `ip -batch` that give a host its addresses and its way to other segments.
pub(super) fn addresses(seat: &Seat, dual_stack: bool) -> String {
    let mut lines = format!(
        "link set lo up\naddr add {}/24 dev {NIC}\nlink set {NIC} up\n",
        seat.address()
    );
    if dual_stack {
        lines += &format!("addr add {}/64 dev {NIC} nodad\n", seat.ipv6());
    }
    if seat.name != ROUTER {
        lines += "route add default via 10.0.0.1\n";
        if dual_stack {
            lines += &format!("route add ::/0 via {}\n", ipv6(0, 1));
        }
    }
    lines
}

/// Name of the host between the segments.
const ROUTER: &str = "router";

/// The host with this number on segment 0 (the nodes') or 1 (behind the router).
fn ipv6(segment: u16, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, segment, 0, 0, 0, host.into())
}

/// Makes the topology with that many nodes, in the current network namespace's company: it
/// must be an empty one, see [`enter_empty_netns`](crate::isolation::enter_empty_netns). With
/// `dual_stack` all hosts have addresses of IPv6, too: fd00::/64 and fd00:0:0:1::/64, the last
/// bytes as those of their IPv4 addresses in decimal; the remote client's is `::64`. The nodes'
/// NICs are what `link` says.
///
/// # Errors
/// Too many nodes, or the kernel or `ip` refuses something; the message says what.
pub fn build(node_count: u8, dual_stack: bool, link: Link) -> Result<Topology> {
    let mut seats = Seat::nodes(node_count)?;
    seats.push(Seat::client());
    let mut segment = Segment::build(seats, dual_stack, link)?;
    let client = segment.hosts.pop().context("a client was planned")?;
    Ok(segment.into_topology(client))
}

/// The segments without what makes them a topology.
#[derive(Debug)]
pub(super) struct Segment {
    /// In the order of the seats.
    pub(super) hosts: Vec<Box<dyn Host>>,
    etcd: Box<dyn Host>,
    router: Box<dyn Host>,
    remote: Box<dyn Host>,
    pub(super) switch: Arc<Switch>,
}

impl Segment {
    /// The topology with this client and all other hosts as nodes.
    pub(super) fn into_topology(self, client: Box<dyn Host>) -> Topology {
        Topology {
            nodes: self.hosts,
            client,
            router: self.router,
            etcd: self.etcd,
            remote: self.remote,
        }
    }

    /// Makes the bridge, the hosts of these seats, etcd's, the router and what is behind it.
    pub(super) fn build(mut seats: Vec<Seat>, dual_stack: bool, link: Link) -> Result<Self> {
        seats.extend([Seat::new("etcd", 50), Seat::new(ROUTER, 1)]);
        let switch = Arc::new(NetNs::new("switch")?);
        let quiet = quiet(dual_stack);
        switch.sysctl(&quiet)?;
        let mut namespaces = Vec::new();
        let mut wiring = format!("link set lo up\n{}", bridge_lines(BRIDGE));
        for seat in &seats {
            let netns = NetNs::new(&seat.name)?;
            netns.sysctl(&quiet)?;
            let bridged = link == Link::Bridge && seat.is_node;
            let end = if bridged { BRIDGE_PORT } else { NIC };
            wiring += &cable(&seat.name, end, [0, seat.number], &netns, mtu(link));
            wiring += &format!("link set {} master {BRIDGE}\n", seat.name);
            namespaces.push(netns);
        }
        switch.ip(&wiring)?;
        switch.sysctl(&[
            ("bridge/bridge-nf-call-iptables", "0"),
            ("bridge/bridge-nf-call-ip6tables", "0"),
            ("bridge/bridge-nf-call-arptables", "0"),
        ])?;
        let names: Vec<&str> = seats.iter().map(|seat| seat.name.as_str()).collect();
        let ports = prepare_ports(&switch, &names, link)?;
        sys::in_network(&switch.namespaces, || {
            names.iter().try_for_each(|port| sys::tags_in_band(port))
        })
        .context("let the switch send tags in band")?;
        let ports = names.iter().map(|name| (*name).to_owned()).zip(ports);
        let ports = ports.collect();
        let mut links = Vec::new();
        for (seat, netns) in seats.iter().zip(&namespaces) {
            match link {
                Link::Bridge if seat.is_node => {
                    no_offload(netns, &[BRIDGE_PORT])?;
                    netns.ip(&format!(
                        "link add {NIC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                         link set {BRIDGE_PORT} master {NIC}\nlink set {BRIDGE_PORT} up\n"
                    ))?;
                }
                Link::Occupied if seat.is_node => links.extend(attach_pass(netns, &[NIC])?),
                Link::Plain | Link::Jumbo | Link::Bridge | Link::Occupied => {}
            }
            netns.ip(&addresses(seat, dual_stack))?;
            no_offload(netns, &[NIC])?;
        }

        let router = namespaces.last().context("no router was planned")?;
        let (remote, port) = behind(router, dual_stack)?;
        links.extend(port);

        let switch = Arc::new(Switch {
            netns: switch,
            ports,
            _links: links,
        });
        let host = |name: &str, address, ipv6, netns| {
            Box::new(NetnsHost {
                name: name.to_owned(),
                address,
                ipv6,
                netns,
                switch: Arc::clone(&switch),
            }) as Box<dyn Host>
        };
        let remote = host("remote", Ipv4Addr::new(10, 1, 0, 100), ipv6(1, 100), remote);
        let mut hosts: Vec<Box<dyn Host>> = seats
            .iter()
            .zip(namespaces)
            .map(|(seat, netns)| host(&seat.name, seat.address(), seat.ipv6(), netns))
            .collect();
        let mut last = || hosts.pop().context("a host was not planned");
        let (router, etcd) = (last()?, last()?);
        Ok(Self {
            hosts,
            etcd,
            router,
            remote,
            switch,
        })
    }
}

/// Makes the remote client, to which a second cable goes straight from the router. Returns it with
/// what holds the program at the router's end.
fn behind(router: &NetNs, dual_stack: bool) -> Result<(NetNs, Vec<OwnedFd>)> {
    let remote = NetNs::new("remote")?;
    remote.sysctl(&quiet(dual_stack))?;
    router.ip(&cable("eth1", NIC, [0, 200], &remote, mtu(Link::Plain)))?;
    router.ip("addr add 10.1.0.1/24 dev eth1\nlink set eth1 up\n")?;
    router.sysctl(&[
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/eth0/send_redirects", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
    ])?;
    remote.ip(&format!(
        "link set lo up\naddr add 10.1.0.100/24 dev {NIC}\nlink set {NIC} up\nroute add default via 10.1.0.1\n"
    ))?;
    if dual_stack {
        router.ip(&format!("addr add {}/64 dev eth1 nodad\n", ipv6(1, 1)))?;
        router.sysctl(&[("ipv6/conf/all/forwarding", "1")])?;
        remote.ip(&format!(
            "addr add {}/64 dev {NIC} nodad\nroute add ::/0 via {}\n",
            ipv6(1, 100),
            ipv6(1, 1)
        ))?;
    }
    no_offload(&remote, &[NIC])?;
    let port = prepare_ports(router, &["eth1"], Link::Plain)?;
    Ok((remote, port))
}

/// The largest packets on the nodes' segment, in bytes.
const fn mtu(link: Link) -> u16 {
    match link {
        Link::Jumbo => 9000,
        Link::Plain | Link::Bridge | Link::Occupied => 1500,
    }
}

/// The lines that make a bridge.
fn bridge_lines(name: &str) -> String {
    format!(
        "link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link set {name} up\n"
    )
}

/// The line that makes a veth from `port` here to `interface` there. `mac`: the last two bytes
/// of the Ethernet address there.
fn cable(port: &str, interface: &str, mac: [u8; 2], there: &NetNs, mtu: u16) -> String {
    let [high, low] = mac;
    format!(
        "link add {port} mtu {mtu} type veth peer name {interface} mtu {mtu} address 02:00:0a:00:{high:02x}:{low:02x} netns {}\n\
         link set {port} up\n",
        there.holder.pid()
    )
}

/// Partial checksums would leave as they are when a program sends the frame on, and receivers
/// would drop it.
fn no_offload(netns: &NetNs, interfaces: &[&str]) -> Result<()> {
    sys::in_network(&netns.namespaces, || {
        interfaces
            .iter()
            .try_for_each(|interface| sys::checksum_offload_off(interface))
    })
    .with_context(|| format!("switch checksum offload off on {}", netns.holder.name()))
}

/// Makes the near ends of cables fit for hosts that answer by `XDP_TX`.
fn prepare_ports(netns: &NetNs, ports: &[&str], link: Link) -> Result<Vec<OwnedFd>> {
    no_offload(netns, ports)?;
    // A driver takes no program for large frames from a kernel without `frags`. Then hosts have
    // theirs outside of the driver, and what they answer arrives anyway.
    if link == Link::Jumbo && !sys::has_xdp_frags().context("try an XDP program")? {
        return Ok(Vec::new());
    }
    attach_pass(netns, ports)
}

/// Attaches a program that lets everything pass.
fn attach_pass(netns: &NetNs, interfaces: &[&str]) -> Result<Vec<OwnedFd>> {
    sys::in_network(&netns.namespaces, || {
        let pass = sys::load_xdp_pass()?;
        interfaces
            .iter()
            .map(|interface| sys::attach_xdp(&pass, interface))
            .collect()
    })
    .with_context(|| {
        format!(
            "attach XDP_PASS to {interfaces:?} of {}",
            netns.holder.name()
        )
    })
}
