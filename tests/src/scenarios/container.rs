//! The image, run as the manifest says, by containerd and runc, on all nodes, before there is
//! anything of Kubernetes; then a power cut of the owner.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::observed::ask;
use super::owner_killed;
use crate::clock::until;
use crate::cluster::plan::{Missing, Planned};
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::kubelet::{self, Containerd, Pod};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test};
use crate::topology::VIP;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "container",
    promise: "container_with_five_capabilities_survives_a_power_cut",
    tests: &[Test::netns_if(with_the_image)],
    run,
};

/// Names the archive with the image, which `cargo xtask test` has made.
const IMAGE: &str = "VIP_TESTS_IMAGE";

/// The archive, if there is one.
pub(super) fn image() -> Option<PathBuf> {
    std::env::var_os(IMAGE).map(PathBuf::from)
}

/// Capabilities of a container's processes once they run (capabilities(7), linux/capability.h). One of
/// it, `CAP_IPC_LOCK`, because how much memory may be locked is limited.
const CAPABILITIES: u64 = 1 << 12 | 1 << 13 | 1 << 14 | 1 << 38 | 1 << 39;

/// Without agents: containers start them.
pub(super) fn with_the_image() -> Planned {
    match image() {
        Some(_) => Ok(Plan::bare()),
        None => Err(Missing("no image: run cargo xtask test".to_owned())),
    }
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let image = image().with_context(|| format!("{IMAGE} names no image"))?;
    let mut daemons = Vec::new();
    let mut manifests = Vec::new();
    for node in cluster.nodes() {
        let host = cluster.host(node);
        kubelet::boot(host, cluster.work(), &["/etc"])?;
        let manifest = manifest(cluster, node, &[])?;
        let pod = Pod::parse(&manifest)?;
        let containerd = Containerd::start(host, cluster.work())?;
        containerd.import(host, &image)?;
        let log = cluster.agent_log(node);
        let process = containerd.run(host, &pod, &log)?;
        cluster.adopt_agent(node, process);
        daemons.push((containerd, pod));
        manifests.push(manifest);
    }
    let same = manifests.iter().all(|manifest| *manifest == manifests[0]);
    ensure!(
        same,
        "vip manifest says something else on each node: {manifests:?}"
    );
    timeline.event("containers run, and there is nothing of Kubernetes yet");

    // The agents elect an owner without a certificate authority to trust; then kubeadm makes one.
    let nodes = cluster.nodes();
    cluster.owner()?;
    for &node in &nodes {
        let mut copy = cluster.host(node).command("cp".as_ref());
        let ca = cluster.pki().ca();
        output(copy.arg(ca).arg("/etc/kubernetes/pki/ca.crt"))?;
    }
    cluster.wait_until_settled()?;
    timeline.event("the API servers are found ready by the CA that appeared");

    let mut outcome = Outcome::new("container");
    for &node in &nodes {
        let name = cluster.name(node);
        let (containerd, pod) = &daemons[node];
        for (address, path) in pod.probes() {
            ensure!(address == "127.0.0.1:9643", "probes are asked at {address}");
            until(&format!("{path} of {name}"), PATIENCE, || {
                Ok(ask(cluster, node, path)
                    .ok()
                    .filter(|(code, _)| *code == 200))
            })?;
        }
        confined(cluster, node, containerd, &mut outcome)?;
        // Without a `/proc/sys` that it may write to.
        let status = cluster.vip(node, &["status", "-o", "wide"])?;
        outcome.promise(status.contains("arp_ignore=1 on eth0"), || {
            format!("{name} cannot change settings of the kernel: {status}")
        });
    }
    timeline.event("five capabilities, memory that is locked, a seccomp profile, no way to more");

    let killed = owner_killed::run(cluster, timeline)?;
    drop(daemons);
    Ok(Outcome {
        violations: outcome
            .violations
            .into_iter()
            .chain(killed.violations.clone())
            .collect(),
        ..killed
    })
}

/// The output of `vip manifest` on a node, with the addresses and these words as arguments.
pub(super) fn manifest(cluster: &Cluster, node: usize, more: &[&str]) -> Result<String> {
    let addresses = cluster.nodes().into_iter();
    let addresses: Vec<String> = addresses
        .map(|node| cluster.host(node).address().to_string())
        .collect();
    let vip = format!("{VIP}:6443");
    let nodes = addresses.join(",");
    let words = ["manifest", "--vip", &vip, "--nodes", &nodes];
    cluster.vip(node, &[&words, more].concat())
}

/// The capabilities of the agent's threads.
fn confined(
    cluster: &Cluster,
    node: usize,
    containerd: &Containerd,
    outcome: &mut Outcome,
) -> Result<()> {
    let name = cluster.name(node);
    let threads = kubelet::threads(containerd, cluster.host(node))?;
    for text in &threads {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| rest.trim_start_matches(':').trim().to_owned())
        };
        for set in ["CapEff", "CapPrm"] {
            let found = field(set).and_then(|hex| u64::from_str_radix(&hex, 16).ok());
            outcome.promise(found == Some(CAPABILITIES), || {
                format!("{set} of a thread on {name} is {found:x?}, not {CAPABILITIES:x}")
            });
        }
        let locked = field("VmLck");
        outcome.promise(locked.as_deref().is_some_and(|size| size != "0 kB"), || {
            format!("{name} has locked {locked:?} of its memory")
        });
        for (what, wanted) in [("Seccomp", "2"), ("NoNewPrivs", "1")] {
            let found = field(what);
            outcome.promise(found.as_deref() == Some(wanted), || {
                format!("{what} of a thread on {name} is {found:?}")
            });
        }
    }
    outcome.promise(threads.len() >= 2, || {
        format!("{name} has {} threads", threads.len())
    });
    Ok(())
}
