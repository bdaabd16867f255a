//! The NIC of the VIPs.

use std::path::Path;

use super::finding::{Finding, Grade, finding};
use crate::agent;
use crate::config::{Config, XdpMode};
use crate::net::Nic;
use crate::net::bond::{self, Bond};

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

pub(super) fn findings(config: &Config, nic: &Nic) -> Vec<Finding> {
    let node = if config.is_open() {
        agent::own_node(config, nic.address).name
    } else {
        config.name(nic.address)
    };
    let driver = nic.driver.as_deref().unwrap_or("unknown");
    let mut findings = vec![finding(
        Grade::Ok,
        "node",
        format!("{node}, {} on {}", nic.address, nic.name),
    )];
    if !nic.up {
        findings.push(
            finding(
                Grade::Failure,
                "link",
                format!("{} has no carrier", nic.name),
            )
            .code("no_carrier")
            .remedy("connect it, or set it up with `ip link`"),
        );
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
        (_, true) if driver == "veth" => finding(
            Grade::Warning,
            "XDP",
            "driver veth drops what native XDP sends, unless its other end has an XDP program, too",
        )
        .code("xdp_veth")
        .remedy("set `mode = \"generic\"` in [datapath]"),
        (_, true) => finding(Grade::Ok, "XDP", format!("driver {driver} runs XDP natively")),
        (XdpMode::Native, false) => finding(
            Grade::Failure,
            "XDP",
            format!("driver {driver} is not known to run XDP natively, as configured"),
        )
        .code("xdp_not_native")
        .remedy("set `mode = \"auto\"` in [datapath]"),
        (XdpMode::Auto, false) => finding(
            Grade::Warning,
            "XDP",
            format!("driver {driver} is not known to run XDP natively: generic XDP costs several times the CPU a packet"),
        )
        .code("xdp_generic"),
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
            .code("mtu_large")
            .remedy("without it, packets cost more CPU time; lower the MTU if that matters")
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
                "{name} is in mode balance-tlb (5): frames leave with the MACs of all ports, and other \
                 nodes learn only two of them: with more ports, connections break"
            ),
        )
        .code("bond_tlb")
        .remedy(remedy),
        "balance-alb" => finding(
            Grade::Failure,
            "bond",
            format!(
                "{name} is in mode balance-alb (6): it tells clients the MACs of other ports; frames to \
                 at most four of these are steered, and none that come by a VLAN"
            ),
        )
        .code("bond_alb")
        .remedy(remedy),
        _ => finding(Grade::Ok, "bond", format!("{name} is in mode {mode}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
