//! What the kernel and the machine offer.

use std::fs;
use std::path::Path;

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::finding::{Finding, Grade, finding};
use crate::config::{Config, Health, Local};
use crate::datapath::Features;
use crate::kernel::{btf, cgroup};
use crate::net::diag::SocketDiag;

pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = kernel();
    findings.extend([
        btf(),
        cgroup2(config.local.as_ref()),
        bpffs(&config.datapath.bpffs),
    ]);
    findings.extend(reset_on_hang(&config.health));
    findings.extend(selinux(Path::new("/sys/fs/selinux/enforce")));
    findings.extend(hypervisor(Path::new("/sys/class/dmi/id/sys_vendor")));
    findings
}

/// Loads the programs, without attaching them or leaving them anywhere: features are found by
/// trying, since distributions bring them to kernels with older numbers.
fn kernel() -> Vec<Finding> {
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    if !nix::unistd::geteuid().is_root() {
        let text = format!("Linux {release} tells only root what it takes");
        let found = finding(Grade::Failure, "kernel", text).code("not_root");
        return vec![found.remedy("run `vip check` as root, or with --config-only")];
    }
    match Features::probe() {
        Ok(features) => kernel_findings(&release, features),
        Err(error) => vec![
            finding(
                Grade::Failure,
                "kernel",
                format!("Linux {release}: {error}"),
            )
            .code("kernel_refuses"),
        ],
    }
}

fn kernel_findings(release: &str, features: Features) -> Vec<Finding> {
    let Features {
        frags,
        tcx,
        redirection,
        roster,
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
        findings.push(
            finding(
                Grade::Warning,
                "kernel",
                "refuses the programs for local sockets: connections of this node and its pods to \
             the VIP go to this node's own server",
            )
            .code("kernel_no_connect_hooks"),
        );
    }
    if !roster {
        findings.push(finding(
            Grade::Warning,
            "kernel",
            "refuses the program that reads connections (it needs Linux 5.9 with BTF): clients that \
             wait for something are not told when this node dies, before they send",
        )
        .code("kernel_no_socket_iterators"));
    }
    findings
}

fn btf() -> Finding {
    match btf::is_there() {
        true => finding(Grade::Ok, "BTF", "the kernel describes its types"),
        false => finding(
            Grade::Warning,
            "BTF",
            "no /sys/kernel/btf/vmlinux: bpftool shows less of the programs, and this node's connections \
             are not known to the others",
        )
        .code("kernel_no_btf"),
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
        )
        .code("cgroup2_wrong"),
        None => finding(
            Grade::Warning,
            "cgroup2",
            format!("not mounted: {fallback}"),
        )
        .code("cgroup2_missing"),
    }
}

/// Whether the kernel can do what `reset_on_hang` needs; `None` if that is not configured.
fn reset_on_hang(health: &Health) -> Option<Finding> {
    if !health.reset_on_hang {
        return None;
    }
    let can = SocketDiag::open().and_then(|diag| diag.can_reset());
    Some(match can {
        Ok(()) => finding(Grade::Ok, "reset_on_hang", "the kernel resets connections"),
        Err(error) => finding(
            Grade::Warning,
            "reset_on_hang",
            format!("connections of a server that hangs cannot be reset: {error}"),
        )
        .code("cannot_reset"),
    })
}

fn bpffs(path: &Path) -> Finding {
    let is_bpffs = statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    match is_bpffs {
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

#[cfg(test)]
mod tests {
    use super::*;

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
            roster: true,
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
            roster: false,
        };
        let [first, second, third] = &text(old)[..] else {
            panic!("three findings");
        };
        assert!(first.contains("clsact") && first.contains("one buffer"));
        assert!(second.contains("local sockets"));
        assert!(third.contains("wait"));
    }
}
