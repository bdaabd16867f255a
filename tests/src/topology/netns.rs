//! Hosts as pairs of a network and a mount namespace. A sleeping child holds each pair, and
//! dies with the harness: nothing has a name in `/run/netns`, nothing is left behind.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Host, NIC, Topology};
use crate::process::{Process, output};
use crate::sys::{self, Namespaces};

/// Name of the bridge in the switch's namespace.
const BRIDGE: &str = "br0";

/// A pair of namespaces and the process that holds them.
#[derive(Debug)]
struct Place {
    namespaces: Arc<Namespaces>,
    holder: Process,
}

impl Place {
    fn new(name: &str) -> Result<Self> {
        let mut command = Command::new("sleep");
        command.arg("infinity");
        sys::run_in_new_namespaces(&mut command);
        // `spawn` returns when the child has called `exec`, and so has its namespaces.
        let holder = Process::daemon(name, &mut command, "/dev/null".as_ref())?;
        let open = |kind: &str| -> Result<OwnedFd> {
            let path = format!("/proc/{}/ns/{kind}", holder.pid());
            Ok(File::open(&path)
                .with_context(|| format!("open {path}"))?
                .into())
        };
        let namespaces = Arc::new(Namespaces {
            net: open("net")?,
            mount: open("mnt")?,
        });
        Ok(Self { namespaces, holder })
    }

    fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        sys::run_inside(&mut command, &self.namespaces);
        command
    }

    /// Runs lines of `ip -batch` here.
    fn ip(&self, lines: &str) -> Result<()> {
        let mut child = self
            .command("ip".as_ref())
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start ip (install iproute2)")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(lines.as_bytes())
                .context("give commands to ip")?;
        }
        let output = child.wait_with_output().context("wait for ip")?;
        ensure!(
            output.status.success(),
            "ip -batch failed on {}: {}",
            self.holder.name(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Writes settings below `/proc/sys/net`. Those that the kernel does not have are skipped.
    fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        sys::in_network(&self.namespaces, || {
            for (key, value) in settings {
                match std::fs::write(format!("/proc/sys/net/{key}"), value) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .with_context(|| format!("set sysctls on {}", self.holder.name()))
    }
}

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

/// Makes the topology with that many nodes, in the current network namespace's company: it
/// must be an empty one, see [`enter_empty_netns`](crate::isolation::enter_empty_netns).
///
/// # Errors
/// Too many nodes, or the kernel or `ip` refuses something; the message says what.
pub fn build(node_count: u8) -> Result<Topology> {
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
    // No address but those we give: IPv6 would only add noise to the segment.
    let quiet = [
        ("ipv6/conf/all/disable_ipv6", "1"),
        ("ipv6/conf/default/disable_ipv6", "1"),
    ];
    switch.sysctl(&quiet)?;
    let mut places = Vec::new();
    let mut wiring = format!(
        "link set lo up\n\
         link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         link set {BRIDGE} up\n"
    );
    for plan in &plans {
        let place = Place::new(&plan.name)?;
        place.sysctl(&quiet)?;
        wiring += &cable(&plan.name, NIC, plan.mac, &place);
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
    for (plan, place) in plans.iter().zip(&places) {
        place.ip(&format!(
            "link set lo up\naddr add {}/24 dev {NIC}\nlink set {NIC} up\n",
            plan.address
        ))?;
        no_offload(place, &[NIC])?;
    }

    // The router is the last of the plans. Its second cable goes straight to the remote client.
    let router = places.last().context("no router was planned")?;
    let remote = Place::new("remote")?;
    remote.sysctl(&quiet)?;
    router.ip(&cable("eth1", NIC, 200, &remote))?;
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
    no_offload(&remote, &[NIC])?;
    links.extend(prepare_ports(router, &["eth1"])?);
    for (plan, place) in plans.iter().zip(&places) {
        if plan.name != "router" {
            place.ip("route add default via 10.0.0.1\n")?;
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
            place: remote,
            switch,
        }),
    })
}

/// The line that makes a veth from `port` here to `interface` there.
fn cable(port: &str, interface: &str, mac: u8, there: &Place) -> String {
    format!(
        "link add {port} type veth peer name {interface} address 02:00:0a:00:00:{mac:02x} netns {}\n\
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
    sys::in_network(&place.namespaces, || {
        let pass = sys::load_xdp_pass()?;
        ports
            .iter()
            .map(|port| sys::attach_xdp(&pass, port))
            .collect()
    })
    .with_context(|| format!("attach XDP_PASS to the ports of {}", place.holder.name()))
}
