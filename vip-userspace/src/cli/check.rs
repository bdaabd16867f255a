//! `vip check`: whether the agent would run here, and what would be in its way. Changes nothing.

mod nics;
mod segment;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use aya::programs::ProgramType;
use aya::sys::is_program_supported;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};
use vip_common::wire::addr::Mac;
use vip_common::wire::bfd::PORT;

use super::output::print_line;
use crate::agent;
use crate::config::{Check, Config, Flags, Listen, Local, XdpMode};
use crate::datapath::Features;
use crate::kernel::cgroup;
use crate::net::bfd::is_port_taken;
use crate::net::bond::{self, Bond};
use crate::net::netlink::Netlink;
use crate::net::{Heard, Neighbours, Nic};
use crate::probe::{self, Authority, Credentials, Trust};

/// Largest MTU with which drivers take a program that is not for frames in several buffers: a
/// page, less the headroom of 256 bytes, the shared info of 320 and the Ethernet header
/// (virtio-net, veth).
const NATIVE_MTU: u32 = 4096 - 256 - 320 - 14;

/// Drivers that are known to run XDP natively (Documentation/networking, and the drivers'
/// `ndo_bpf` in Linux 6.12).
const NATIVE_DRIVERS: &[&str] = &[
    "bnxt_en",
    "bonding",
    "dpaa2-eth",
    "ena",
    "enetc",
    "fsl_dpa",
    "gve",
    "hns3",
    "hv_netvsc",
    "i40e",
    "iavf",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "lan966x-switch",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mtk_soc_eth",
    "mvneta",
    "mvpp2",
    "nfp",
    "nicvf",
    "qede",
    "sfc",
    "st_gmac",
    "stmmac",
    "tsnep",
    "tun",
    "veth",
    "virtio_net",
    "vmxnet3",
    "xen-netfront",
];

/// How long to wait for answers to an ARP request. Hosts on a segment answer within a few
/// milliseconds.
const ANSWER: Duration = Duration::from_millis(300);

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Grade {
    Ok,
    Warning,
    Failure,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warn",
            Self::Failure => "FAIL",
        })
    }
}

/// One line of the report.
struct Finding {
    grade: Grade,
    what: &'static str,
    text: String,
}

fn finding(grade: Grade, what: &'static str, text: impl Into<String>) -> Finding {
    Finding {
        grade,
        what,
        text: text.into(),
    }
}

pub(super) fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let config = flags.into_config()?;
    let mut findings = vec![finding(
        Grade::Ok,
        "config",
        format!(
            "{}, {} nodes",
            list(&config.vips, |vip| vip.endpoint()),
            config.nodes.len()
        ),
    )];
    findings.extend(kernel());
    findings.extend([
        btf(),
        cgroup2(config.local.as_ref()),
        bpffs(&config.datapath.bpffs),
    ]);
    findings.extend(selinux(Path::new("/sys/fs/selinux/enforce")));
    findings.extend(hypervisor(Path::new("/sys/class/dmi/id/sys_vendor")));
    findings.extend(config.health.credentials.as_ref().map(credentials));
    findings.extend(authority(&config));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let netlink = Netlink::connect()?;
        let (vip, nodes) = (config.vip().address, config.addresses());
        match netlink
            .find_nic(vip, &nodes, config.interface.as_deref())
            .await
        {
            Err(error) => findings.push(finding(Grade::Failure, "node", error.to_string())),
            Ok(nic) => {
                findings.extend(nic_findings(&config, &nic));
                findings.extend(config.bfd.map(|_| bfd_port(nic.address)));
                if let Err(taken) = agent::refuse_taken(&config, &nic, &netlink).await {
                    findings.push(finding(Grade::Failure, "agent", taken.to_string()));
                }
                findings.extend(state_dir(&config));
                let runs = agent::lock::Lock::look(&config.run_dir).is_err();
                findings.extend(config.http.and_then(|place| http(place, runs)));
                findings.extend(segment::findings(&config, &nic, &netlink).await);
                findings.extend(nics::findings(&config, &nic, &netlink).await);
                let vips = config.vips.iter().map(|vip| vip.address);
                let refused = netlink.refuse_no_hosts(&nic, vips, config.addresses());
                findings.extend(
                    refused
                        .await
                        .err()
                        .map(|error| finding(Grade::Failure, "address", error.to_string())),
                );
                for vip in &config.vips {
                    findings.push(claimants(&config, vip.address, &nic, &netlink).await);
                }
            }
        }
        for vip in &config.vips {
            let places = netlink.places_of(vip.address).await?;
            findings.push(vip_in_use(vip.address, &places));
        }
        anyhow::Ok(())
    })?;
    let targets: BTreeSet<(u16, bool)> = config
        .vips
        .iter()
        .flat_map(|vip| {
            vip.services
                .iter()
                .map(|service| (service.target, vip.address.is_ipv6()))
        })
        .collect();
    findings.extend(targets.into_iter().map(|(port, ipv6)| listener(port, ipv6)));
    for Finding { grade, what, text } in &findings {
        match print_line(format_args!("{grade:4}  {what:9}  {text}")) {
            // The exit code is about all findings, also about those that nobody reads.
            Err(error) if error.is_unread() => break,
            other => other?,
        }
    }
    let worst = findings.iter().map(|finding| finding.grade).max();
    Ok(if worst == Some(Grade::Failure) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Whether the agent can listen for HTTP. It runs without.
fn http(place: Listen, runs: bool) -> Option<Finding> {
    // Of the others `node:PORT` has one that is always there.
    let address = *place.on(IpAddr::V4(Ipv4Addr::LOCALHOST)).first()?;
    let refused = TcpListener::bind(address).err()?;
    let remedy = match refused.kind() {
        io::ErrorKind::AddrNotAvailable => format!(
            "{} is no address of this node; write `listen = \"node:{}\"` in [http]",
            address.ip(),
            address.port()
        ),
        // An agent that runs has it.
        io::ErrorKind::AddrInUse if !runs => {
            format!("another program has {address}; end it, or set another `listen` in [http]")
        }
        _ => return None,
    };
    let text = format!("no metrics, probes and status page here: {remedy}");
    Some(finding(Grade::Warning, "HTTP", text))
}

/// Whether state can be kept. Where the agent itself runs, it has the directory.
fn state_dir(config: &Config) -> Option<Finding> {
    let runs = agent::lock::Lock::look(&config.run_dir).is_err();
    let shared = agent::state::refuse_shared(&config.state_dir).err();
    if let Some(shared) = shared.filter(|_| !runs) {
        return Some(finding(Grade::Failure, "state", shared.to_string()));
    }
    // It is made if it is not there.
    let there = config.state_dir.ancestors().find(|path| path.exists())?;
    let refused = access(there, AccessFlags::W_OK | AccessFlags::X_OK).err()?;
    let text = format!(
        "{} cannot be written ({refused}): events and `vip drain` will not outlive a reboot; \
         name another `state_dir`",
        there.display()
    );
    Some(finding(Grade::Warning, "state", text))
}

/// Things with commas between them.
fn list<T, D: fmt::Display>(things: &[T], show: impl Fn(&T) -> D) -> String {
    let things: Vec<String> = things.iter().map(|thing| show(thing).to_string()).collect();
    things.join(", ")
}

/// Loads the programs, without attaching them or leaving them anywhere: features are found by
/// trying, since distributions bring them to kernels with older numbers.
fn kernel() -> Vec<Finding> {
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    match Features::probe() {
        Ok(features) => kernel_findings(&release, features),
        Err(error) => vec![finding(
            Grade::Failure,
            "kernel",
            format!("Linux {release}: {error}"),
        )],
    }
}

fn kernel_findings(release: &str, features: Features) -> Vec<Finding> {
    let Features {
        frags,
        tcx,
        redirection,
    } = features;
    let lacks: Vec<&str> = [
        (!tcx).then_some("without tcx: clsact is used"),
        (!frags).then_some("native XDP only for frames that fit one buffer"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut text = format!("Linux {release} takes the programs");
    if !lacks.is_empty() {
        text = format!("{text} ({})", lacks.join("; "));
    }
    let mut findings = vec![finding(Grade::Ok, "kernel", text)];
    if !redirection {
        findings.push(finding(
            Grade::Warning,
            "kernel",
            "refuses the programs for local sockets: connections of this node and its pods to \
             the VIP go to this node's own server",
        ));
    }
    findings
}

fn btf() -> Finding {
    match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => finding(Grade::Ok, "BTF", "the kernel describes its types"),
        false => finding(
            Grade::Warning,
            "BTF",
            "no /sys/kernel/btf/vmlinux: the programs load, bpftool shows less of them",
        ),
    }
}

fn cgroup2(local: Option<&Local>) -> Finding {
    let Some(local) = local else {
        let text = "local connections are not redirected, as configured";
        return finding(Grade::Ok, "cgroup2", text);
    };
    let fallback = "connections of this node and its pods go to its own server";
    match local.cgroup.clone().or_else(cgroup::root) {
        Some(path) if cgroup::is_cgroup2(&path) => finding(
            Grade::Ok,
            "cgroup2",
            format!("local connections are redirected for {}", path.display()),
        ),
        Some(path) => finding(
            Grade::Warning,
            "cgroup2",
            format!("{} is not of cgroup2: {fallback}", path.display()),
        ),
        None => finding(
            Grade::Warning,
            "cgroup2",
            format!("not mounted: {fallback}"),
        ),
    }
}

/// BFD's port, which FRR's bfdd or BIRD on this node may have.
fn bfd_port(own: IpAddr) -> Finding {
    let taken = is_port_taken(own);
    let shares = is_program_supported(ProgramType::SkLookup);
    let (grade, text) = match (taken, shares) {
        (Err(error), _) => (
            Grade::Warning,
            format!("cannot look who has UDP port {PORT}: {error}"),
        ),
        (Ok(false), Ok(true)) => (Grade::Ok, format!("no other program has UDP port {PORT}")),
        (Ok(true), Ok(true)) => (
            Grade::Ok,
            format!("another program has UDP port {PORT}: the agent shares it"),
        ),
        (Ok(false), _) => (
            Grade::Warning,
            format!(
                "the kernel has no socket lookup programs (Linux 5.9): while the agent runs, no \
                 other BFD program can have UDP port {PORT}"
            ),
        ),
        (Ok(true), _) => (
            Grade::Failure,
            format!(
                "a program has UDP port {PORT}, and the kernel has no socket lookup programs \
                 (Linux 5.9) to share it by: end that program (FRR's bfdd, BIRD) unless it is the \
                 agent, or set `enabled = false` in [bfd]"
            ),
        ),
    };
    finding(grade, "BFD", text)
}

fn bpffs(path: &Path) -> Finding {
    match is(path, BPF_FS_MAGIC) {
        true => finding(Grade::Ok, "bpffs", format!("mounted at {}", path.display())),
        false => finding(
            Grade::Ok,
            "bpffs",
            format!("not mounted at {}: `vip run` mounts it", path.display()),
        ),
    }
}

/// Vendors that virtual machines name in their DMI tables, and what filters their ports may have.
const HYPERVISORS: &[(&str, &str)] = &[
    ("VMware", "NSX SpoofGuard"),
    ("QEMU", "Proxmox's or libvirt's IP filter"),
    ("OpenStack", "port security"),
    ("Red Hat", "libvirt's or OpenStack's IP filter"),
    ("Nutanix", "its IP address filter"),
    ("Microsoft Corporation", "Hyper-V's port ACLs"),
    ("Xen", "its locking mode"),
];

/// A virtual machine cannot see the filter of the port that it is connected to: it is named.
/// `vendor` holds who made the machine.
fn hypervisor(vendor: &Path) -> Option<Finding> {
    let vendor = fs::read_to_string(vendor).ok()?;
    let vendor = vendor.trim();
    let (_, filter) = HYPERVISORS
        .iter()
        .find(|(name, _)| vendor.starts_with(name))?;
    Some(finding(
        Grade::Ok,
        "network",
        format!(
            "a virtual machine ({vendor}): {filter} must let pass what docs/network.md lists; \
             that cannot be seen from here"
        ),
    ))
}

/// What SELinux means for the agent; `None` where the kernel has none. `enforce` holds `1` or `0`.
fn selinux(enforce: &Path) -> Option<Finding> {
    let enforces = fs::read_to_string(enforce).ok()?.trim() == "1";
    let text = if enforces {
        "enforces: the static pod must run as spc_t, as `vip manifest` says"
    } else {
        "permissive"
    };
    Some(finding(Grade::Ok, "SELinux", text))
}

/// The files by which API servers are to know who asks. They may come later than the agent.
fn credentials(credentials: &Credentials) -> Finding {
    let missing = credentials.files().into_iter().find(|file| !file.exists());
    match (missing, credentials.check()) {
        (Some(file), _) => finding(
            Grade::Warning,
            "health",
            format!(
                "{} is not there yet: /readyz is asked without credentials",
                file.display()
            ),
        ),
        (None, Err(why)) => finding(Grade::Failure, "health", why),
        (None, Ok(())) => finding(Grade::Ok, "health", "the credentials for /readyz were read"),
    }
}

/// The CA that API servers are checked by. It may come later than the agent: with `kubeadm init`.
fn authority(config: &Config) -> Option<Finding> {
    let asks_tls = |check: &Check| check.ask != probe::Ask::Tcp;
    if !config.checks.iter().any(asks_tls) {
        return None;
    }
    Some(match Trust::from(&config.health.tls).check()? {
        Authority::Read(path) => {
            let text = format!("the CA in {} was read", path.display());
            finding(Grade::Ok, "health", text)
        }
        Authority::Missing(why) => {
            let text = format!("{why}; no API server counts as ready until it is there");
            finding(Grade::Warning, "health", text)
        }
        Authority::Wrong(why) => finding(Grade::Failure, "health", why),
    })
}

fn is(path: &Path, magic: nix::sys::statfs::FsType) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == magic)
}

fn nic_findings(config: &Config, nic: &Nic) -> Vec<Finding> {
    let node = &config.nodes[nic.node_index].name;
    let driver = nic.driver.as_deref().unwrap_or("unknown");
    let mut findings = vec![finding(
        Grade::Ok,
        "node",
        format!("{node}, {} on {}", nic.address, nic.name),
    )];
    if !nic.up {
        findings.push(finding(
            Grade::Failure,
            "link",
            format!("{} has no carrier", nic.name),
        ));
    }
    findings.extend(
        bond::below(Path::new(bond::NICS), &nic.name)
            .iter()
            .map(bond_finding),
    );
    let native = NATIVE_DRIVERS.contains(&driver);
    findings.push(match (config.datapath.mode, native) {
        (XdpMode::Generic, _) => finding(Grade::Ok, "XDP", "generic, as configured"),
        (XdpMode::Tc, _) => finding(Grade::Ok, "XDP", "not used, but tc, as configured"),
        (_, true) => finding(Grade::Ok, "XDP", format!("driver {driver} runs XDP natively")),
        (XdpMode::Native, false) => finding(
            Grade::Failure,
            "XDP",
            format!("driver {driver} is not known to run XDP natively, as configured: set mode = \"auto\""),
        ),
        (XdpMode::Auto, false) => finding(
            Grade::Warning,
            "XDP",
            format!("driver {driver} is not known to run XDP natively: generic XDP costs several times the CPU a packet"),
        ),
    });
    findings.push(
        if nic.mtu <= NATIVE_MTU || config.datapath.mode == XdpMode::Generic {
            finding(Grade::Ok, "MTU", format!("{} bytes", nic.mtu))
        } else {
            finding(
                Grade::Warning,
                "MTU",
                format!(
                    "{} bytes: over {NATIVE_MTU} most drivers refuse native XDP",
                    nic.mtu
                ),
            )
        },
    );
    findings
}

/// Bonds that balance what they send put the address of a port into it, as its source; one that
/// also balances what it receives tells each host another port's address.
fn bond_finding(bond: &Bond) -> Finding {
    let Bond { name, mode } = bond;
    let remedy = "use mode active-backup or 802.3ad";
    match mode.as_str() {
        "balance-tlb" => finding(
            Grade::Warning,
            "bond",
            format!(
                "{name} is in mode balance-tlb (5): frames leave with the MAC of either port, of \
                 which other nodes learn two, so with more ports connections are lost; {remedy}"
            ),
        ),
        "balance-alb" => finding(
            Grade::Failure,
            "bond",
            format!(
                "{name} is in mode balance-alb (6): it tells clients the MACs of other ports, and \
                 steered is what comes to four of them at most, and to none by way of a VLAN; {remedy}"
            ),
        ),
        _ => finding(Grade::Ok, "bond", format!("{name} is in mode {mode}")),
    }
}

fn vip_in_use(vip: IpAddr, places: &[String]) -> Finding {
    let elsewhere: Vec<_> = places
        .iter()
        .filter(|place| *place != "lo")
        .cloned()
        .collect();
    if elsewhere.is_empty() {
        let here = if places.is_empty() {
            "not on this machine yet"
        } else {
            "on lo"
        };
        return finding(Grade::Ok, "VIP", format!("{vip} is {here}"));
    }
    finding(
        Grade::Failure,
        "VIP",
        format!(
            "{vip} is on {}: remove it (`ip address del {vip} dev {}`), and stop what put it there \
             (keepalived, kube-vip)",
            elsewhere.join(", "),
            elsewhere[0],
        ),
    )
}

/// Asks the segment for the VIP, as any client would: who answers must be one of the nodes.
async fn claimants(config: &Config, vip: IpAddr, nic: &Nic, netlink: &Netlink) -> Finding {
    let answers = match answers(vip, nic).await {
        Ok(answers) => answers,
        Err(error) => {
            let text = format!("cannot ask the segment for {vip}: {error:#}");
            return finding(Grade::Warning, "segment", text);
        }
    };
    let neighbours = netlink.neighbours(nic.index).await.unwrap_or_default();
    let node_of = |mac: Mac| {
        let address = neighbours
            .iter()
            .find(|neighbour| neighbour.mac.map(Mac::from_wire) == Some(mac))?
            .address;
        config.nodes.iter().find(|node| node.address == address)
    };
    if let Some(stranger) = answers.iter().find(|mac| node_of(**mac).is_none()) {
        if let Some(name) = nics::named(netlink, *stranger).await {
            let text = format!(
                "{name} of this node answers for {vip}, beside the owner: set \
                 net.ipv4.conf.{name}.arp_ignore to 1, as `vip run` does"
            );
            return finding(Grade::Failure, "segment", text);
        }
        return finding(
            Grade::Failure,
            "segment",
            format!(
                "{stranger}, which is none of the nodes, answers for {vip}: find that host and \
                 take the address off it (keepalived, kube-vip, a duplicate)"
            ),
        );
    }
    match answers.first().and_then(|mac| node_of(*mac)) {
        Some(node) => finding(
            Grade::Ok,
            "segment",
            format!("{} answers for {vip}", node.name),
        ),
        None => finding(
            Grade::Ok,
            "segment",
            format!("nobody else answers for {vip}"),
        ),
    }
}

/// The Ethernet addresses that ARP or Neighbour Discovery give for the VIP.
async fn answers(vip: IpAddr, nic: &Nic) -> anyhow::Result<Vec<Mac>> {
    // The kernel does not answer questions that seem to come from itself: its other NICs are only
    // heard by a question that does not say who asks. Of IPv6 there is no other: the node may have
    // no address.
    let ask = if vip.is_ipv4() {
        Neighbours::ask
    } else {
        Neighbours::probe
    };
    let mut found: Vec<Mac> = ask_all(&[vip], nic, [ask, Neighbours::probe])
        .await?
        .into_iter()
        .map(|heard| heard.mac)
        .collect();
    found.retain(|mac| *mac != Mac::from_wire(nic.mac));
    found.sort_unstable_by_key(|mac| mac.to_wire());
    found.dedup();
    Ok(found)
}

/// How to ask for an address.
type Ask = fn(&Neighbours, IpAddr) -> io::Result<()>;

/// Asks in two ways for each of these addresses, and collects what is said of them.
async fn ask_all(addresses: &[IpAddr], nic: &Nic, asks: [Ask; 2]) -> anyhow::Result<Vec<Heard>> {
    let neighbours = Neighbours::open(nic, addresses)?;
    let mut found = Vec::new();
    for ask in asks {
        for &address in addresses {
            ask(&neighbours, address)?;
        }
        let pause = tokio::time::sleep(ANSWER);
        tokio::pin!(pause);
        loop {
            let heard = tokio::select! {
                () = &mut pause => break,
                heard = neighbours.receive() => heard?,
            };
            found.extend(heard.filter(|heard| addresses.contains(&heard.address)));
        }
    }
    Ok(found)
}

/// The API server must listen on all addresses, for the VIP is one of them.
fn listener(port: u16, ipv6: bool) -> Finding {
    // One that listens on all addresses of IPv6 mostly does so for IPv4, too.
    let tables = if ipv6 {
        &["/proc/net/tcp6"][..]
    } else {
        &["/proc/net/tcp", "/proc/net/tcp6"]
    };
    let addresses: Vec<Listener> = tables
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listeners(&table, port))
        .collect();
    if addresses.contains(&Listener::All) {
        finding(
            Grade::Ok,
            "server",
            format!("port {port} is listened on, on all addresses"),
        )
    } else if addresses.is_empty() {
        finding(
            Grade::Warning,
            "server",
            format!("nobody listens on port {port} yet: connections go to other nodes"),
        )
    } else {
        finding(
            Grade::Failure,
            "server",
            format!(
                "port {port} is listened on, but not on all addresses: let the API server bind \
                 to 0.0.0.0 (`--bind-address`)"
            ),
        )
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Listener {
    All,
    One,
}

/// The listeners on a port, from the text of `/proc/net/tcp` (Documentation/networking/proc_net_tcp.rst).
fn listeners(table: &str, port: u16) -> Vec<Listener> {
    /// `TCP_LISTEN` (include/net/tcp_states.h), as the table shows it.
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (address, number) = words.nth(1)?.split_once(':')?;
            let state = words.nth(1)?;
            let ours = state == LISTEN && u16::from_str_radix(number, 16).ok()? == port;
            ours.then(|| {
                if address.bytes().all(|byte| byte == b'0') {
                    Listener::All
                } else {
                    Listener::One
                }
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_that_is_missing_or_wrong_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca.crt");
        let found = |check: &str| {
            let text = format!(
                "vip = \"10.0.0.10\"\nnodes = [\"10.0.0.11\"]\n[health]\nca = \"{}\"\ncheck = \"{check}\"",
                ca.display()
            );
            let config = Config::parse(&text, "vip.toml").expect("a configuration");
            authority(&config).map(|finding| (finding.grade, finding.text))
        };
        let (grade, text) = found("readyz").expect("a finding");
        assert_eq!(grade, Grade::Warning);
        assert!(
            text.contains("no CA file yet") && text.contains("ca.crt"),
            "{text}"
        );
        assert!(found("tcp").is_none(), "it is not needed");
        fs::write(&ca, "no certificate").expect("a file");
        let (grade, text) = found("tls").expect("a finding");
        assert_eq!(grade, Grade::Failure);
        assert!(text.contains("no certificate in PEM format"), "{text}");
        fs::remove_file(&ca).expect("gone");
        fs::create_dir(&ca).expect("a folder");
        assert_eq!(found("tls").expect("a finding").0, Grade::Failure);
    }

    #[test]
    fn selinux_is_named_where_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let enforce = folder.path().join("enforce");
        assert!(selinux(&enforce).is_none());
        fs::write(&enforce, "1").expect("a file");
        let text = selinux(&enforce).map(|finding| finding.text);
        assert!(text.is_some_and(|text| text.contains("spc_t")));
    }

    #[test]
    fn places_where_nobody_can_listen_are_named() {
        let text = |place, runs| http(place, runs).map(|finding| finding.text);
        let foreign = Listen::At(([192, 0, 2, 11], 9643).into());
        assert!(text(foreign, false).is_some_and(|text| text.contains("node:9643")));
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("it is bound").port();
        for place in [
            Listen::At((Ipv4Addr::LOCALHOST, port).into()),
            Listen::Node(port),
        ] {
            let said = text(place, false);
            assert!(said.is_some_and(|text| text.contains("another program has")));
            // It may be the agent.
            assert_eq!(text(place, true), None);
        }
        drop(taken);
        assert_eq!(text(Listen::Node(port), false), None);
    }

    #[test]
    fn filters_of_hypervisors_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let vendor = folder.path().join("sys_vendor");
        fs::write(&vendor, "VMware, Inc.\n").expect("a file");
        let text = hypervisor(&vendor).map(|finding| finding.text);
        assert!(text.is_some_and(|text| text.contains("SpoofGuard")));
        fs::write(&vendor, "Dell Inc.\n").expect("a file");
        assert!(hypervisor(&vendor).is_none());
    }

    #[test]
    fn kernels_without_features_say_what_is_used_instead() {
        let all = Features {
            frags: true,
            tcx: true,
            redirection: true,
        };
        let text = |features| {
            let findings = kernel_findings("5.10", features);
            findings
                .iter()
                .map(|one| one.text.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(text(all), ["Linux 5.10 takes the programs"]);
        let old = Features {
            frags: false,
            tcx: false,
            redirection: false,
        };
        let [first, second] = &text(old)[..] else {
            panic!("two findings");
        };
        assert!(first.contains("clsact") && first.contains("one buffer"));
        assert!(second.contains("local sockets"));
    }

    #[test]
    fn bonds_that_rewrite_addresses_are_named() {
        let grade = |mode: &str| {
            bond_finding(&Bond {
                name: "bond0".to_owned(),
                mode: mode.to_owned(),
            })
        };
        for (mode, expected) in [
            ("active-backup", Grade::Ok),
            ("802.3ad", Grade::Ok),
            ("balance-tlb", Grade::Warning),
            ("balance-alb", Grade::Failure),
        ] {
            let found = grade(mode);
            assert_eq!(found.grade, expected, "{mode}");
            assert!(found.text.contains("bond0") && found.text.contains(mode));
        }
    }

    #[test]
    fn listeners_are_found_by_port_and_told_by_address() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   3: 0100007F:192B 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 1 1
";
        assert_eq!(listeners(table, 6443), [Listener::All, Listener::One]);
        assert_eq!(listeners(table, 22), [Listener::All]);
        assert!(listeners(table, 80).is_empty());
    }
}
