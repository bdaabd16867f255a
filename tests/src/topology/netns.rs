//! Hosts as pairs of a network and a mount namespace. A sleeping child holds each pair, and
//! dies with the harness: nothing has a name in `/run/netns`, nothing is left behind.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Host, Link, NIC, Topology};
use crate::isolation::CGROUPS;
use crate::process::{Process, output};
use crate::sys::{self, Namespaces};

/// Name of the bridge in the switch's namespace.
const BRIDGE: &str = "br0";

/// Name of the cable's end on a node whose NIC is a bridge.
const BRIDGE_PORT: &str = "port0";

/// The bridge between the hosts, and what must live as long as it.
#[derive(Debug)]
struct Switch {
    place: Place,
    /// Holds `XDP_PASS` at every port: a frame that a host sends with `XDP_TX` reaches the
    /// other end of a veth only if that end runs NAPI.
    _links: Vec<OwnedFd>,
}

/// A host made of namespaces.
#[derive(Debug)]
struct NetnsHost {
    name: String,
    address: Ipv4Addr,
    ipv6: Ipv6Addr,
    place: Place,
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

    fn id(&self) -> i32 {
        self.place.holder.pid().as_raw()
    }

    fn command(&self, program: &OsStr) -> Command {
        self.place.command(program)
    }

    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.place.holder.pid()))
    }

    fn hooks(&self, interface: &str) -> Result<Vec<String>> {
        let link = output(
            self.command("ip".as_ref())
                .args(["-details", "-json", "link", "show", "dev", interface]),
        )?;
        let link: serde_json::Value =
            serde_json::from_str(&link).context("ip writes JSON of another form")?;
        let mut found = Vec::new();
        if !link[0]["xdp"].is_null() {
            found.push(format!("xdp {}", link[0]["xdp"]));
        }
        for (name, hook) in sys::TCX_HOOKS {
            let count = sys::in_network(&self.place.namespaces, || {
                sys::attached_programs(interface, hook)
            })
            .with_context(|| format!("ask {} for programs at {name}", self.name))?;
            if count > 0 {
                found.push(format!("{name}: {count} programs"));
            }
        }
        let qdiscs = output(
            self.command("tc".as_ref())
                .args(["qdisc", "show", "dev", interface]),
        )?;
        if qdiscs.contains("clsact") {
            found.push("clsact".to_owned());
        }
        Ok(found)
    }

    fn power_off(&mut self) -> Result<()> {
        // First the wire, so that the deaths that follow send no farewell.
        self.switch
            .place
            .ip(&format!("link set {} down\n", self.name))?;
        let own = network_of("self")?;
        let doomed = network_of(&self.place.holder.pid().to_string())?;
        ensure!(own != doomed, "{} is not a namespace of its own", self.name);
        for entry in std::fs::read_dir("/proc").context("read /proc")? {
            let name = entry.context("read /proc")?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A process may have ended meanwhile: then it has no namespace any more.
            let inside = network_of(&format!("{pid}")).is_ok_and(|network| network == doomed);
            // The holder stays: the machine is off, but its files can still be read.
            if inside && Pid::from_raw(pid) != self.place.holder.pid() {
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

/// What a host is before it is made.
struct Plan {
    name: String,
    address: Ipv4Addr,
    /// Last byte of its Ethernet address.
    mac: u8,
}

impl Plan {
    /// Its address of IPv6, on the same segment.
    fn ipv6(&self) -> Ipv6Addr {
        ipv6(0, self.mac)
    }
}

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
    if !(1..=16).contains(&node_count) {
        bail!("a topology has 1 to 16 nodes, not {node_count}");
    }
    let segment = |name: &str, last: u8| Plan {
        name: name.to_owned(),
        address: Ipv4Addr::new(10, 0, 0, last),
        mac: last,
    };
    let mut plans: Vec<Plan> = (1..=node_count)
        .map(|n| segment(&format!("n{n}"), 10 + n))
        .collect();
    plans.extend([
        segment("etcd", 50),
        segment("client", 100),
        segment("router", 1),
    ]);

    let switch = Place::new("switch")?;
    // No address but those we give, and at once: without IPv6 if nobody asks for it, since it
    // would only add noise to the segment.
    let off = if dual_stack { "0" } else { "1" };
    let quiet = [
        ("ipv6/conf/all/disable_ipv6", off),
        ("ipv6/conf/default/disable_ipv6", off),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
    ];
    switch.sysctl(&quiet)?;
    let mut places = Vec::new();
    let mut wiring = format!(
        "link set lo up\n\
         link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link set {BRIDGE} up\n"
    );
    for (number, plan) in plans.iter().enumerate() {
        let place = Place::new(&plan.name)?;
        place.sysctl(&quiet)?;
        let bridged = link == Link::Bridge && number < usize::from(node_count);
        let end = if bridged { BRIDGE_PORT } else { NIC };
        wiring += &cable(&plan.name, end, plan.mac, &place, mtu(link));
        wiring += &format!("link set {} master {BRIDGE}\n", plan.name);
        places.push(place);
    }
    switch.ip(&wiring)?;
    switch.sysctl(&[
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-ip6tables", "0"),
        ("bridge/bridge-nf-call-arptables", "0"),
    ])?;
    let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
    let mut links = prepare_ports(&switch, &names)?;
    for place in &places[..usize::from(node_count)] {
        match link {
            Link::Plain | Link::Jumbo => {}
            Link::Bridge => {
                no_offload(place, &[BRIDGE_PORT])?;
                place.ip(&format!(
                    "link add {NIC} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                     link set {BRIDGE_PORT} master {NIC}\nlink set {BRIDGE_PORT} up\n"
                ))?;
            }
            Link::Occupied => links.extend(attach_pass(place, &[NIC])?),
        }
    }
    for (plan, place) in plans.iter().zip(&places) {
        place.ip(&format!(
            "link set lo up\naddr add {}/24 dev {NIC}\nlink set {NIC} up\n",
            plan.address
        ))?;
        if dual_stack {
            place.ip(&format!("addr add {}/64 dev {NIC} nodad\n", plan.ipv6()))?;
        }
        no_offload(place, &[NIC])?;
    }

    // The router is the last of the plans. Its second cable goes straight to the remote client.
    let router = places.last().context("no router was planned")?;
    let remote = Place::new("remote")?;
    remote.sysctl(&quiet)?;
    router.ip(&cable("eth1", NIC, 200, &remote, mtu(Link::Plain)))?;
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
    links.extend(prepare_ports(router, &["eth1"])?);
    for (plan, place) in plans.iter().zip(&places) {
        if plan.name == "router" {
            continue;
        }
        place.ip("route add default via 10.0.0.1\n")?;
        if dual_stack {
            place.ip(&format!("route add ::/0 via {}\n", ipv6(0, 1)))?;
        }
    }

    let switch = Arc::new(Switch {
        place: switch,
        _links: links,
    });
    let mut hosts: Vec<Box<dyn Host>> = plans
        .into_iter()
        .zip(places)
        .map(|(plan, place)| {
            Box::new(NetnsHost {
                ipv6: plan.ipv6(),
                name: plan.name,
                address: plan.address,
                place,
                switch: Arc::clone(&switch),
            }) as Box<dyn Host>
        })
        .collect();
    let mut last = || hosts.pop().context("a host was not planned");
    let (router, client, etcd) = (last()?, last()?, last()?);
    Ok(Topology {
        nodes: hosts,
        client,
        router,
        etcd,
        remote: Box::new(NetnsHost {
            name: "remote".to_owned(),
            address: Ipv4Addr::new(10, 1, 0, 100),
            ipv6: ipv6(1, 100),
            place: remote,
            switch,
        }),
    })
}

/// The largest packets on the nodes' segment, in bytes.
const fn mtu(link: Link) -> u16 {
    match link {
        Link::Jumbo => 9000,
        Link::Plain | Link::Bridge | Link::Occupied => 1500,
    }
}

/// The line that makes a veth from `port` here to `interface` there.
fn cable(port: &str, interface: &str, mac: u8, there: &Place, mtu: u16) -> String {
    format!(
        "link add {port} mtu {mtu} type veth peer name {interface} mtu {mtu} address 02:00:0a:00:00:{mac:02x} netns {}\n\
         link set {port} up\n",
        there.holder.pid()
    )
}

/// Partial checksums would leave as they are when a program sends the frame on, and receivers
/// would drop it.
fn no_offload(place: &Place, interfaces: &[&str]) -> Result<()> {
    sys::in_network(&place.namespaces, || {
        interfaces
            .iter()
            .try_for_each(|interface| sys::checksum_offload_off(interface))
    })
    .with_context(|| format!("switch checksum offload off on {}", place.holder.name()))
}

/// Makes the near ends of cables fit for hosts that answer by `XDP_TX`.
fn prepare_ports(place: &Place, ports: &[&str]) -> Result<Vec<OwnedFd>> {
    no_offload(place, ports)?;
    attach_pass(place, ports)
}

/// Attaches a program that lets everything pass.
fn attach_pass(place: &Place, interfaces: &[&str]) -> Result<Vec<OwnedFd>> {
    sys::in_network(&place.namespaces, || {
        let pass = sys::load_xdp_pass()?;
        interfaces
            .iter()
            .map(|interface| sys::attach_xdp(&pass, interface))
            .collect()
    })
    .with_context(|| {
        format!(
            "attach XDP_PASS to {interfaces:?} of {}",
            place.holder.name()
        )
    })
}
