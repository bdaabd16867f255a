//! The static pod by the real kubelet, on all nodes, without an API server: it starts the agents,
//! starts one anew that hangs, and ends them when their manifest goes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::container::{image, manifest};
use super::first_start;
use crate::clock::until;
use crate::cluster::plan::{Missing, Planned};
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::kube;
use crate::kubelet::{self, Containerd};
use crate::outcome::{Outcome, Timeline};
use crate::process::{Process, output};
use crate::scenario::{Scenario, Test};
use crate::topology::Host;
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "static_pod",
    promise: "static_pod_is_started_restarted_and_ended_by_the_kubelet",
    tests: &[Test::netns_if(with_a_kubelet).alone()],
    run,
};

/// Where the kubelet looks for static pods, as kubeadm has it.
const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// The image that holds a pod's namespaces, of which ours has none of its own.
const PAUSE: &str = "localhost/pause:1";

/// What the kubelet writes into these settings of the whole machine when it starts, unless they
/// have that value. Here they have, as far as it sees.
const TUNABLES: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Which control groups there are: a line for each hierarchy, `ID:CONTROLLERS:PATH`
/// (cgroups(7)).
const HIERARCHIES: &str = "/proc/self/cgroup";

/// The controllers that this machine has in version 1 of control groups. A kubelet looks at all
/// of them.
fn controllers() -> Result<Vec<String>> {
    let text = fs::read_to_string(HIERARCHIES).with_context(|| format!("read {HIERARCHIES}"))?;
    let names = text.lines().filter_map(|line| line.split(':').nth(1));
    let is_old = |name: &&str| !name.is_empty() && !name.contains('=');
    Ok(names.filter(is_old).map(str::to_owned).collect())
}

fn with_a_kubelet() -> Planned {
    let reason = if controllers().map_or(true, |list| list.is_empty()) {
        "no control groups of version 1, which the test knows"
    } else if kube::find("kubelet").is_none() {
        "no kubelet on the PATH or in KUBEBUILDER_ASSETS: cargo xtask kubelet"
    } else {
        return Ok(Plan::bare());
    };
    Err(Missing(reason.to_owned()))
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let outcome = with_kubelets(cluster, timeline);
    // First, or they start what ends next.
    for node in cluster.nodes() {
        cluster.kill_agent(node);
    }
    let removed = end_containers(cluster);
    if outcome.is_err() {
        for node in cluster.nodes() {
            keep_pod_log(cluster.host(node), cluster.work());
        }
    }
    outcome.and_then(|outcome| removed.map(|()| outcome))
}

/// Copies what a node's agents wrote to where logs are kept from.
fn keep_pod_log(host: &dyn Host, work: &Path) {
    let copy = work.join(format!("{}-agent.log", host.name()));
    let script = format!("cat /var/log/pods/*/vip/*.log > {}", copy.display());
    // There may be none.
    let _ = host.command("sh".as_ref()).args(["-c", &script]).output();
}

fn with_kubelets(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let program = kube::find("kubelet").context("no kubelet")?;
    let image = image().context("no image: run cargo xtask test")?;
    let pause = pause(cluster.work())?;
    let mut outcome = Outcome::new("static_pod");
    let mut daemons = Vec::new();
    let last = cluster.nodes().len() - 1;
    for node in cluster.nodes() {
        let host = cluster.host(node);
        kubelet::boot(host, cluster.work(), &["/etc", "/var/lib", "/var/log"])?;
        ground(host, cluster.work())?;
        if daemons.is_empty() {
            nobody_else_has_containers(host)?;
        }
        let containerd = Containerd::start_for_kubelet(host, cluster.work(), PAUSE)?;
        containerd.import(host, &image)?;
        containerd.import(host, &pause)?;
        install(host, &cluster.pki().ca(), "/etc/kubernetes/pki/ca.crt")?;
        let pod = cluster.work().join(format!("{}-pod.yaml", host.name()));
        // The file is the same on all nodes, and each is heard at its own address.
        let manifest = manifest(cluster, node, &["--http", "node:9643"])?;
        fs::write(&pod, manifest).context("write a manifest")?;
        install(host, &pod, &format!("{MANIFESTS}/vip.yaml"))?;
        let boot = |cluster: &mut Cluster| {
            let host = cluster.host(node);
            let kubelet = start(host, cluster.work(), &program, &containerd)?;
            // This pod ends with it, and its end is noticed.
            cluster.adopt_agent(node, kubelet);
            Ok(())
        };
        if node < last {
            boot(cluster)?;
        } else {
            for node in 0..last {
                wait_for_pod(cluster, node, 0)?;
            }
            let pod = first_start::observe(cluster, node, timeline, &mut outcome, boot)?;
            wait_for_pod(cluster, node, 0)?;
            first_start::kill_beside(cluster, node, &pod, timeline, &mut outcome)?;
            cluster.start_server(node)?;
            cluster.wait_for_server(node)?;
        }
        daemons.push(containerd);
    }
    cluster.wait_until_settled()?;
    timeline.event("three kubelets have started the agents, and find them ready");
    for node in cluster.nodes() {
        let host = cluster.host(node);
        let url = format!("http://{}:9643/healthz", host.address());
        output(
            host.command("curl".as_ref())
                .args(["--silent", "--fail", &url]),
        )?;
    }

    let owner = cluster.owner()?;
    let name = cluster.name(owner);
    let traffic = Traffic::start(cluster, timeline)?;
    let pid = kubelet::agent_pid(&daemons[owner], cluster.host(owner))?;
    kill(Pid::from_raw(pid), Signal::SIGSTOP).context("stop the agent")?;
    timeline.event(format!("SIGSTOP of the agent on {name}, the owner"));
    cluster.owner_among(&super::steps::others_than(cluster, owner))?;
    wait_for_pod(cluster, owner, 1)?;
    cluster.wait_until_settled()?;
    timeline.event(format!("the kubelet on {name} has started it anew"));

    let successor = cluster.owner()?;
    let mut remove = cluster.host(successor).command("rm".as_ref());
    output(remove.arg(format!("{MANIFESTS}/vip.yaml")))?;
    until("the pod is gone", PATIENCE, || {
        Ok(pods(cluster, successor)?.is_empty().then_some(()))
    })?;
    cluster.owner_among(&super::steps::others_than(cluster, successor))?;
    timeline.event(format!(
        "{}'s manifest is gone: its agent has ended, and handed the VIP over",
        cluster.name(successor)
    ));
    traffic.finish(&mut outcome, None)?;
    Ok(outcome)
}

/// Puts a file on a host.
fn install(host: &dyn Host, from: &Path, to: &str) -> Result<()> {
    let mut install = host.command("install".as_ref());
    output(install.args(["-D", "-m", "644"]).arg(from).arg(to)).map(drop)
}

/// The control groups of version 1 are the machine's, and so is the name of those with
/// containers: neither kubelet nor containerd takes another one. If the machine has containers of
/// its own, they must not get among ours.
fn nobody_else_has_containers(host: &dyn Host) -> Result<()> {
    let list = "cat /sys/fs/cgroup/*/k8s.io/*/cgroup.procs 2>/dev/null || true";
    let processes = output(host.command("sh".as_ref()).args(["-c", list]))?;
    ensure!(
        processes.trim().is_empty(),
        "this machine runs containers of Kubernetes, in the control groups k8s.io: end them first"
    );
    Ok(())
}

/// Ends all containers, and removes their control groups: those of version 1 are the machine's,
/// and go with no host.
fn end_containers(cluster: &Cluster) -> Result<()> {
    const KILL: &str = "echo 1 > /sys/fs/cgroup/unified/k8s.io/cgroup.kill";
    const REMOVE: &str = "set -e
                          for group in /sys/fs/cgroup/*/k8s.io; do
                            [ ! -d \"$group\" ] || find \"$group\" -depth -type d -exec rmdir {} +
                          done";
    for node in cluster.nodes() {
        // There is none if the containers never came so far.
        let mut kill = cluster.host(node).command("sh".as_ref());
        let _ = kill.args(["-c", KILL]).output();
    }
    for node in cluster.nodes() {
        // Those that were killed take a moment to be gone.
        until("the containers' control groups are gone", PATIENCE, || {
            let mut remove = cluster.host(node).command("sh".as_ref());
            let done = remove.args(["-c", REMOVE]).output();
            Ok(done.is_ok_and(|done| done.status.success()).then_some(()))
        })?;
    }
    Ok(())
}

/// Makes a host a place for a kubelet: control groups of both versions, as this machine has them,
/// and no way to the machine's settings.
fn ground(host: &dyn Host, work: &Path) -> Result<()> {
    let mut script = String::from("set -e\n");
    for (name, value) in TUNABLES {
        let file = work.join(format!("tunable-{}", name.replace('/', "-")));
        fs::write(&file, value).context("write a setting")?;
        script += &format!("mount --bind {} /proc/sys/{name}\n", file.display());
    }
    // Of version 2, what the host sees as the root of all: not the machine's, which hooks for
    // sockets would be put on.
    script += "mkdir -p /run/unified\nmount --move /sys/fs/cgroup /run/unified\n\
               mount -t tmpfs tmpfs /sys/fs/cgroup\nmkdir /sys/fs/cgroup/unified\n\
               mount --move /run/unified /sys/fs/cgroup/unified\n\
               ln -s unified/cgroup.procs /sys/fs/cgroup/cgroup.procs\n";
    for name in controllers()? {
        script += &format!(
            "mkdir /sys/fs/cgroup/{name}\nmount -t cgroup -o {name} cgroup /sys/fs/cgroup/{name}\n"
        );
    }
    output(host.command("sh".as_ref()).args(["-c", &script])).map(drop)
}

/// Starts a kubelet that knows no API server.
fn start(host: &dyn Host, work: &Path, program: &Path, containerd: &Containerd) -> Result<Process> {
    let config = work.join("kubelet.json");
    let text = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "staticPodPath": MANIFESTS,
        "fileCheckFrequency": "1s",
        "address": "127.0.0.1",
        "readOnlyPort": READ_ONLY_PORT,
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        // Not of this machine's disks.
        "evictionHard": { "memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%" },
        "imageGCHighThresholdPercent": 100,
    });
    fs::write(&config, text.to_string()).context("write the kubelet's configuration")?;
    let mut kubelet = host.command(program.as_os_str());
    kubelet
        .arg("--config")
        .arg(&config)
        .args(["--hostname-override", host.name()])
        .arg(format!(
            "--container-runtime-endpoint=unix://{}",
            containerd.socket().display()
        ));
    // Until 1.26 it has to be told that there is no other kind.
    if output(std::process::Command::new(program).arg("--help"))?
        .contains("--container-runtime string")
    {
        kubelet.arg("--container-runtime=remote");
    }
    let log = work.join(format!("{}-kubelet.log", host.name()));
    Process::daemon(&format!("kubelet on {}", host.name()), &mut kubelet, &log)
}

/// Where it tells about its pods.
const READ_ONLY_PORT: u16 = 10255;

/// A node's pods, as its kubelet sees them.
fn pods(cluster: &Cluster, node: usize) -> Result<Vec<Value>> {
    let mut curl = cluster.host(node).command("curl".as_ref());
    let url = format!("http://127.0.0.1:{READ_ONLY_PORT}/pods");
    let text = output(curl.args(["--silent", "--show-error", "--max-time", "20", &url]))?;
    let list: Value = serde_json::from_str(&text).context("the kubelet answers in JSON")?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// Waits until the kubelet calls a node's pod ready, and has restarted it so many times.
fn wait_for_pod(cluster: &mut Cluster, node: usize, restarts: u64) -> Result<()> {
    let what = format!("the pod on {} is ready", cluster.name(node));
    let mut last = Vec::new();
    let waited = until(&what, PATIENCE * 2, || {
        let dead = cluster.dead_agents();
        ensure!(
            dead.is_empty(),
            "the kubelet on {dead:?} has ended by itself"
        );
        // It takes some seconds to listen.
        last = pods(cluster, node).unwrap_or_default();
        let [pod] = &last[..] else {
            return Ok(None);
        };
        let container = &pod["status"]["containerStatuses"][0];
        let ready = container["ready"] == true && container["restartCount"] == restarts;
        Ok(ready.then_some(()))
    });
    waited.with_context(|| format!("the kubelet says: {last:?}"))
}

/// An image with a program that waits for ever, as an archive of Docker's kind: sleep(1), and the
/// libraries that it needs.
fn pause(work: &Path) -> Result<PathBuf> {
    let folder = work.join("pause");
    let root = folder.join("root");
    let sleep = Path::new("/usr/bin/sleep");
    let libraries = output(std::process::Command::new("ldd").arg(sleep))?;
    let libraries = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for path in libraries.map(Path::new).chain([sleep]) {
        let to = root.join(path.strip_prefix("/").context("a whole path")?);
        fs::create_dir_all(to.parent().context("a path in a folder")?)
            .context("make a folder for an image")?;
        fs::copy(path, &to).with_context(|| format!("copy {}", path.display()))?;
    }
    let tar = |archive: &str, from: &Path, what: &[&str]| {
        let mut tar = std::process::Command::new("tar");
        output(
            tar.arg("-cf")
                .arg(folder.join(archive))
                .arg("-C")
                .arg(from)
                .args(what),
        )
    };
    tar("layer.tar", &root, &["."])?;
    let sum = output(std::process::Command::new("sha256sum").arg(folder.join("layer.tar")))?;
    let sum = sum
        .split_whitespace()
        .next()
        .context("sha256sum writes a sum")?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": [sleep, "infinity"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
    });
    let index = json!([{ "Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"] }]);
    for (name, content) in [("config.json", config), ("manifest.json", index)] {
        fs::write(folder.join(name), content.to_string()).context("write an image")?;
    }
    tar(
        "pause.tar",
        &folder,
        &["manifest.json", "config.json", "layer.tar"],
    )?;
    let archive = folder.join("pause.tar");
    ensure!(archive.is_file(), "no image was made");
    Ok(archive)
}
