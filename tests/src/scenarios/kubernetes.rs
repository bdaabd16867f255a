//! A control plane as kubeadm lays it out, used as its users do: three API servers, each with its
//! own member of etcd, kubectl and watches through the VIP.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::clock::until;
use crate::cluster::plan::{Missing, Planned};
use crate::cluster::{Cluster, Flavour, PATIENCE, Plan};
use crate::kube::{self, Layout};
use crate::outcome::{Down, Outcome, Timeline};
use crate::process::{Process, output};
use crate::scenario::{Scenario, Test};
use crate::topology::VIP;
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kubernetes",
    promise: "kubernetes_is_upgraded_and_loses_its_quorum_and_the_vip_stays",
    tests: &[Test::netns_if(with_kubectl).alone()],
    run,
};

/// What the Helm chart renders. The test `shipped` compares it with the chart.
const CHART: &str = include_str!("chart.yaml");

/// Calls of kubectl between one fault and the next.
const CALLS: usize = 5;

fn with_kubectl() -> Planned {
    let plan = Plan::kubernetes(Layout::Stacked)?;
    match kube::find("kubectl") {
        Some(_) => Ok(plan),
        None => Err(Missing("no kubectl beside kube-apiserver".to_owned())),
    }
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("kubernetes");
    let kubectl = Kubectl::new(cluster)?;
    manifest(cluster, &kubectl, &mut outcome)?;
    timeline.event("the API server takes manifest and chart, and refuses them with a slip");
    rolling_restart(cluster, &kubectl, &mut outcome, timeline)?;
    quorum_lost(cluster, &kubectl, &mut outcome, timeline)?;
    Ok(outcome)
}

/// kubectl on the client, which knows the VIP and nothing else.
struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    fn new(cluster: &Cluster) -> Result<Self> {
        let Flavour::Kubernetes(binaries, _) = &cluster.plan().flavour else {
            anyhow::bail!("stand-ins have no kubectl");
        };
        let program = binaries
            .kubectl
            .clone()
            .context("no kubectl beside kube-apiserver")?;
        let kubeconfig = cluster.work().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: vip\n\
             clusters:\n- name: vip\n  cluster:\n    server: https://{VIP}:6443\n    \
             certificate-authority: {}\n\
             users:\n- name: admin\n  user:\n    token: {}\n\
             contexts:\n- name: vip\n  context:\n    cluster: vip\n    user: admin\n",
            cluster.pki().ca().display(),
            kube::TOKEN
        );
        std::fs::write(&kubeconfig, text).context("write a kubeconfig")?;
        Ok(Self {
            program,
            kubeconfig,
        })
    }

    fn command(&self, cluster: &Cluster) -> Command {
        let mut command = cluster.topology.client.command(self.program.as_os_str());
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        // It keeps what it finds out about the server in the home directory.
        command
            .arg("--cache-dir")
            .arg(cluster.work().join("kube-cache"));
        command.arg("--request-timeout=30s");
        command
    }

    /// Calls it again and again, from now on until it is dropped.
    fn begin(&self, cluster: &Cluster) -> Result<Calls> {
        let calls = self.command(cluster);
        let words = std::iter::once(calls.get_program()).chain(calls.get_args());
        let mut shell = cluster.topology.client.command("sh".as_ref());
        shell.args([
            "-c",
            "while :; do \
               if error=$(\"$@\" get configmaps --output name 2>&1 >/dev/null); \
               then echo ok; else echo \"failed: $error\"; fi; \
             done",
            "sh",
        ]);
        shell.args(words);
        let log = cluster.work().join("kubectl.log");
        // From here on is counted.
        std::fs::write(&log, "").context("empty a log")?;
        let process = Process::daemon("kubectl", &mut shell, &log)?;
        Ok(Calls { process, log })
    }
}

/// Calls of kubectl, one after the other.
struct Calls {
    process: Process,
    log: PathBuf,
}

impl Calls {
    fn lines(log: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until some more have ended.
    fn go_on(&self) -> Result<()> {
        let before = Self::lines(&self.log).len();
        until("kubectl is called", PATIENCE, || {
            Ok((Self::lines(&self.log).len() >= before + CALLS).then_some(()))
        })?;
        Ok(())
    }

    /// Ends them, and returns how many there were, and what those that failed said.
    fn end(mut self) -> (usize, Vec<String>) {
        self.process.kill_and_reap();
        let lines = Self::lines(&self.log);
        let failed = lines.iter().filter(|line| *line != "ok").cloned().collect();
        (lines.len(), failed)
    }
}

/// The API server's own schema, and its admission, find nothing wrong with the static pod.
fn manifest(cluster: &Cluster, kubectl: &Kubectl, outcome: &mut Outcome) -> Result<()> {
    // A controller manager would have made these.
    let mut account = kubectl.command(cluster);
    output(account.args([
        "--namespace=kube-system",
        "create",
        "serviceaccount",
        "default",
    ]))?;
    let flags = [
        "--vip",
        "10.0.0.10:6443",
        "--nodes",
        "10.0.0.11,10.0.0.12,10.0.0.13",
    ];
    for more in [
        &[][..],
        &["--privileged", "--distribution", "k3s"],
        &["--distribution", "rke2", "--http", "0.0.0.0:9000"],
    ] {
        let text = cluster.vip(0, &[&["manifest"], &flags[..], more].concat())?;
        let taken = create(cluster, kubectl, &text)?;
        outcome.promise(taken.is_ok(), || format!("{more:?}: {taken:?}\n{text}"));
        let slip = text.replace("hostNetwork:", "hostNetworks:");
        let refused = create(cluster, kubectl, &slip)?;
        let named = refused
            .as_ref()
            .is_err_and(|why| why.contains("hostNetworks"));
        outcome.promise(named, || format!("a slip is not found: {refused:?}"));
    }
    let taken = create(cluster, kubectl, CHART)?;
    outcome.promise(taken.is_ok(), || format!("the chart: {taken:?}"));
    let refused = create(
        cluster,
        kubectl,
        &CHART.replace("updateStrategy:", "updates:"),
    )?;
    let named = refused.as_ref().is_err_and(|why| why.contains("updates"));
    outcome.promise(named, || format!("a slip is not found: {refused:?}"));
    Ok(())
}

/// Lets the API server look at a manifest, without keeping it.
fn create(cluster: &Cluster, kubectl: &Kubectl, manifest: &str) -> Result<Result<String, String>> {
    let file = cluster.work().join("manifest.yaml");
    std::fs::write(&file, manifest).context("write a manifest")?;
    let mut create = kubectl.command(cluster);
    create
        .args([
            "create",
            "--dry-run=server",
            "--validate=true",
            "--filename",
        ])
        .arg(&file)
        .stdin(Stdio::null());
    let done = create.output().context("start kubectl")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if done.status.success() {
        Ok(text(&done.stdout))
    } else {
        Err(text(&done.stderr))
    })
}

/// Each API server is ended and started again, as an upgrade of the control plane does it.
fn rolling_restart(
    cluster: &mut Cluster,
    kubectl: &Kubectl,
    outcome: &mut Outcome,
    timeline: &mut Timeline,
) -> Result<()> {
    let calls = kubectl.begin(cluster)?;
    calls.go_on()?;
    for node in cluster.nodes() {
        let name = cluster.name(node);
        let mut traffic = Traffic::start(cluster, timeline)?;
        let told = crate::clock::boot_now();
        cluster.stop_server(node)?;
        traffic.load.go_on(20)?;
        // Watches end with their server, whatever is in front of it; others do not.
        let down = Down {
            server: &name,
            at: crate::clock::boot_now().max(told),
        };
        cluster.start_server(node)?;
        cluster.wait_for_server(node)?;
        cluster.wait_until_settled()?;
        calls.go_on()?;
        traffic.finish(outcome, Some(down))?;
        timeline.event(format!("{name}: API server restarted"));
    }
    let (count, failed) = calls.end();
    outcome.promise(failed.is_empty(), || {
        format!(
            "{} of {count} calls of kubectl failed: {failed:?}",
            failed.len()
        )
    });
    timeline.event(format!("{count} calls of kubectl, {} failed", failed.len()));
    Ok(())
}

/// Two of three members of etcd are gone: no API server is ready, and the VIP stays where it is
/// and leads to them all the same.
fn quorum_lost(
    cluster: &mut Cluster,
    kubectl: &Kubectl,
    outcome: &mut Outcome,
    timeline: &mut Timeline,
) -> Result<()> {
    let owner = cluster.owner()?;
    let takeovers = |cluster: &Cluster| -> Result<Vec<u64>> {
        let nodes = cluster.nodes().into_iter();
        nodes
            .map(|node| Ok(cluster.status(node)?.takeovers))
            .collect()
    };
    let before = takeovers(cluster)?;
    let lost = super::steps::others_than(cluster, owner);
    for &node in &lost {
        cluster.kill_member(node);
    }
    let nodes = cluster.nodes();
    cluster.wait_for_status("no API server is ready", &nodes, |_, _, status| {
        status.nodes.iter().all(|node| node.alive && !node.ready)
    })?;
    timeline.event("etcd has lost its quorum, no API server is ready");
    // They serve what needs no etcd, and say so by the VIP.
    let client = cluster.topology.client.as_ref();
    for _ in 0..20 {
        let mut curl = client.command("curl".as_ref());
        let answer = output(
            curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"])
                .arg(cluster.pki().ca())
                .args([
                    "--header",
                    &format!("Authorization: Bearer {}", kube::TOKEN),
                ])
                .arg(format!("https://{VIP}:6443/version")),
        );
        outcome.promise(
            answer
                .as_ref()
                .is_ok_and(|text| text.contains("gitVersion")),
            || format!("no answer by the VIP while etcd has no quorum: {answer:?}"),
        );
    }
    let still = cluster.owner()?;
    for node in lost {
        cluster.start_member(node)?;
    }
    cluster.wait_until_settled()?;
    let after = takeovers(cluster)?;
    outcome.promise(still == owner && before == after, || {
        format!("the VIP moved: takeovers were {before:?}, are {after:?}")
    });
    until("kubectl writes again", Duration::from_secs(120), || {
        let mut create = kubectl.command(cluster);
        Ok(output(create.args(["create", "namespace", "after"])).ok())
    })?;
    let calls = kubectl.begin(cluster)?;
    calls.go_on()?;
    let (count, failed) = calls.end();
    ensure!(count > 0, "kubectl was not called");
    outcome.promise(failed.is_empty(), || format!("with etcd back: {failed:?}"));
    timeline.event("etcd is back, the VIP never moved");
    Ok(())
}
