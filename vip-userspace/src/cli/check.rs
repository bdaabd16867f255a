//! `vip check`: whether the agent would run here, and what would be in its way. Changes nothing.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use vip_common::layout::Mac;
use vip_common::wire::{Frame as _, arp, ethernet};

use crate::config::{Config, Flags, XdpMode};
use crate::net::Nic;
use crate::net::announce::ArpSocket;
use crate::net::netlink::Netlink;

/// First kernel with `bpf_link` for XDP.
const OLDEST_KERNEL: (u32, u32) = (5, 9);

/// Largest MTU with which drivers take a program that has no `xdp.frags`: a page, less the
/// headroom of 256 bytes, the shared info of 320 and the Ethernet header (virtio-net, veth).
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
    let mut findings = vec![
        finding(
            Grade::Ok,
            "config",
            format!(
                "{}:{}, {} nodes",
                config.vip.address,
                config.vip.port,
                config.nodes.len()
            ),
        ),
        kernel(),
        btf(),
        cgroup2(),
        bpffs(&config.datapath.bpffs),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let netlink = Netlink::connect()?;
        let addresses: Vec<Ipv4Addr> = config.nodes.iter().map(|node| node.address).collect();
        match netlink
            .find_nic(config.vip.address, &addresses, config.interface.as_deref())
            .await
        {
            Err(error) => findings.push(finding(Grade::Failure, "node", error.to_string())),
            Ok(nic) => {
                findings.extend(nic_findings(&config, &nic));
                findings.push(claimants(&config, &nic, &netlink).await);
            }
        }
        findings.push(vip_in_use(
            config.vip.address,
            &netlink.has_vip(config.vip.address).await?,
        ));
        anyhow::Ok(())
    })?;
    findings.push(listener(config.vip.port));
    for Finding { grade, what, text } in &findings {
        println!("{grade:4}  {what:9}  {text}");
    }
    let worst = findings.iter().map(|finding| finding.grade).max();
    Ok(if worst == Some(Grade::Failure) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn kernel() -> Finding {
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut numbers = release
        .split(['.', '-', '+'])
        .map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST_KERNEL {
        finding(
            Grade::Failure,
            "kernel",
            format!("Linux {release}: 5.9 or newer is needed"),
        )
    } else if version < (6, 6) {
        finding(
            Grade::Ok,
            "kernel",
            format!("Linux {release}, without tcx: clsact is used"),
        )
    } else {
        finding(Grade::Ok, "kernel", format!("Linux {release}"))
    }
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

fn cgroup2() -> Finding {
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    match places
        .into_iter()
        .find(|path| is(path.as_ref(), CGROUP2_SUPER_MAGIC))
    {
        Some(path) => finding(Grade::Ok, "cgroup2", format!("mounted at {path}")),
        None => finding(
            Grade::Ok,
            "cgroup2",
            format!(
                "not mounted at {}; nothing needs it yet",
                places.join(" or ")
            ),
        ),
    }
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
    let native = NATIVE_DRIVERS.contains(&driver);
    findings.push(match (config.datapath.mode, native) {
        (XdpMode::Generic, _) => finding(Grade::Ok, "XDP", "generic, as configured"),
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

fn vip_in_use(vip: Ipv4Addr, places: &[String]) -> Finding {
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
async fn claimants(config: &Config, nic: &Nic, netlink: &Netlink) -> Finding {
    let vip = config.vip.address;
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

/// The Ethernet addresses that ARP gives for the VIP.
async fn answers(vip: Ipv4Addr, nic: &Nic) -> anyhow::Result<Vec<Mac>> {
    let socket = ArpSocket::open(nic)?;
    let mut found = Vec::new();
    let mut buffer = [0; 128];
    for _ask in 0..2 {
        socket.ask(vip)?;
        let pause = tokio::time::sleep(ANSWER);
        tokio::pin!(pause);
        loop {
            let frame = tokio::select! {
                () = &mut pause => break,
                frame = socket.receive(&mut buffer) => frame?,
            };
            let Some(packet) = frame.view::<arp::Packet>(ethernet::LENGTH) else {
                continue;
            };
            let mac = packet.sender_mac();
            let claims = packet.is_ipv4_over_ethernet()
                && packet.sender_address() == vip.into()
                && mac != Mac::from_wire(nic.mac);
            if claims && !found.contains(&mac) {
                found.push(mac);
            }
        }
    }
    Ok(found)
}

/// The API server must listen on all addresses, for the VIP is one of them.
fn listener(port: u16) -> Finding {
    let addresses: Vec<Listener> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
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
