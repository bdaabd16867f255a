//! Static pods without a kubelet: what `vip manifest` prints is read as strictly as can be, and
//! what it describes is run by containerd and runc, one daemon a node.
//!
//! It knows the fields that the manifest uses. A field it does not know is an error, and
//! not left out: whoever adds one has to say here what it means.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::clock::until;
use crate::process::{Process, output};
use crate::topology::Host;

/// A pod, as far as it is known here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pod {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
    namespace: String,
    #[serde(rename = "labels")]
    _labels: serde_json::Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    host_network: bool,
    #[serde(rename = "dnsPolicy")]
    _dns_policy: String,
    enable_service_links: bool,
    automount_service_account_token: bool,
    priority_class_name: String,
    #[serde(rename = "terminationGracePeriodSeconds")]
    _grace: u32,
    #[serde(rename = "tolerations")]
    _tolerations: Vec<serde_json::Value>,
    containers: Vec<Container>,
    volumes: Vec<Volume>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Container {
    name: String,
    image: String,
    image_pull_policy: String,
    args: Vec<String>,
    security_context: SecurityContext,
    #[serde(rename = "resources")]
    _resources: serde_json::Value,
    startup_probe: Probe,
    liveness_probe: Probe,
    readiness_probe: Probe,
    volume_mounts: Vec<VolumeMount>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SecurityContext {
    allow_privilege_escalation: bool,
    read_only_root_filesystem: bool,
    run_as_user: u32,
    se_linux_options: SeLinuxOptions,
    capabilities: Capabilities,
    seccomp_profile: SeccompProfile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeLinuxOptions {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Capabilities {
    drop: Vec<String>,
    add: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeccompProfile {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Probe {
    http_get: HttpGet,
    #[serde(rename = "timeoutSeconds")]
    _timeout: u32,
    #[serde(rename = "periodSeconds")]
    _period: u32,
    #[serde(rename = "failureThreshold", default)]
    _threshold: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpGet {
    host: String,
    port: u16,
    path: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VolumeMount {
    name: String,
    mount_path: String,
    #[serde(default)]
    read_only: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Volume {
    name: String,
    host_path: HostPath,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostPath {
    path: PathBuf,
    #[serde(rename = "type")]
    kind: String,
}

/// What containerd gives a container that asks for nothing, for `drop: [ALL]` to take away.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

impl Pod {
    /// Reads a manifest.
    ///
    /// # Errors
    /// It is no pod, or has a field that is not known here.
    pub fn parse(manifest: &str) -> Result<Self> {
        let pod: Self = serde_yaml_ng::from_str(manifest).context("read a manifest")?;
        ensure!(pod.api_version == "v1" && pod.kind == "Pod", "it is no pod");
        let spec = &pod.spec;
        // A pod that waits for the API server cannot come before it.
        ensure!(
            spec.host_network
                && !spec.enable_service_links
                && !spec.automount_service_account_token
                && spec.priority_class_name == "system-node-critical",
            "it is no pod that can come before the API server"
        );
        ensure!(spec.containers.len() == 1, "it has one container");
        Ok(pod)
    }

    fn container(&self) -> &Container {
        &self.spec.containers[0]
    }

    /// What the kubelet asks, `ADDRESS:PORT` and path: at the start, while it runs, before it
    /// counts as ready.
    #[must_use]
    pub fn probes(&self) -> [(String, &str); 3] {
        let container = self.container();
        [
            &container.startup_probe,
            &container.liveness_probe,
            &container.readiness_probe,
        ]
        .map(|probe| {
            let get = &probe.http_get;
            (format!("{}:{}", get.host, get.port), get.path.as_str())
        })
    }

    /// The image's name.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.container().image
    }

    /// Arguments of `ctr run`, from the options on. Makes and looks for directories on the host
    /// as the kubelet would.
    fn arguments(&self, host: &dyn Host) -> Result<Vec<String>> {
        let container = self.container();
        ensure!(
            container.image_pull_policy == "IfNotPresent",
            "the image is imported"
        );
        let security = &container.security_context;
        let mut arguments = vec!["--net-host".to_owned()];
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
        ensure!(
            security.capabilities.drop == ["ALL"],
            "it begins with no capability"
        );
        for name in DEFAULT_CAPABILITIES {
            if !security.capabilities.add.iter().any(|added| added == name) {
                add(&["--cap-drop", &format!("CAP_{name}")]);
            }
        }
        for name in &security.capabilities.add {
            add(&["--cap-add", &format!("CAP_{name}")]);
        }
        match security.seccomp_profile.kind.as_str() {
            "RuntimeDefault" => add(&["--seccomp"]),
            other => bail!("seccomp profile {other} is not known here"),
        }
        if security.read_only_root_filesystem {
            add(&["--read-only"]);
        }
        if security.allow_privilege_escalation {
            add(&["--allow-new-privs"]);
        }
        // As who it runs if nobody says anything else, the image neither.
        ensure!(security.run_as_user == 0, "it is root");
        // Nothing to do for it: no machine of ours has SELinux.
        ensure!(
            security.se_linux_options.kind == "spc_t",
            "the type that may call bpf(2)"
        );
        for mount in &container.volume_mounts {
            let mut volumes = self.spec.volumes.iter();
            let volume = volumes
                .find(|volume| volume.name == mount.name)
                .with_context(|| format!("no volume {}", mount.name))?;
            let path = volume.host_path.path.to_str().context("a plain path")?;
            let (program, words) = match volume.host_path.kind.as_str() {
                "Directory" => ("test", ["-d", path]),
                "DirectoryOrCreate" => ("mkdir", ["-p", path]),
                "File" => ("test", ["-f", path]),
                other => bail!("volume type {other} is not known here"),
            };
            output(host.command(program.as_ref()).args(words))
                .with_context(|| format!("volume {} at {path}", volume.name))?;
            let access = if mount.read_only { "ro" } else { "rw" };
            let to = &mount.mount_path;
            add(&[
                "--mount",
                &format!("type=bind,src={path},dst={to},options=rbind:rprivate:{access}"),
            ]);
        }
        let volumes = self.spec.volumes.len();
        ensure!(
            volumes == container.volume_mounts.len(),
            "a volume is not mounted"
        );
        Ok(arguments)
    }
}

/// containerd on a node. Dropped, it is gone, and what it ran with it.
#[derive(Debug)]
pub struct Containerd {
    _process: Process,
    socket: PathBuf,
}

/// Where Kubernetes keeps its images.
const NAMESPACE: &str = "k8s.io";

impl Containerd {
    /// Starts it. Its files lie in a folder of their own in `work`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(host: &dyn Host, work: &Path) -> Result<Self> {
        // Its part that a kubelet talks to wants networks and images of its own.
        Self::start_with(
            host,
            work,
            "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
        )
    }

    /// Starts it for a kubelet, with this image to hold a pod's namespaces.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_for_kubelet(host: &dyn Host, work: &Path, pause: &str) -> Result<Self> {
        let plugin = "[plugins.\"io.containerd.grpc.v1.cri\"]";
        // The kubelet wants its pods spared when memory runs out. Who may not say so of a process
        // (no CAP_SYS_RESOURCE, as on machines that are containers) says the least that it may.
        let text = format!("{plugin}\nsandbox_image = {pause:?}\nrestrict_oom_score_adj = true\n");
        Self::start_with(host, work, &text)
    }

    fn start_with(host: &dyn Host, work: &Path, more: &str) -> Result<Self> {
        let folder = work.join(format!("{}-containerd", host.name()));
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let socket = folder.join("containerd.sock");
        let config = folder.join("config.toml");
        // Tables come last in TOML.
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n{more}[grpc]\naddress = {socket:?}\n",
            folder.join("root"),
            folder.join("state"),
        );
        std::fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let mut command = host.command("containerd".as_ref());
        command.arg("--config").arg(&config);
        let name = format!("containerd on {}", host.name());
        let log = work.join(format!("{}-containerd.log", host.name()));
        let process = Process::daemon(&name, &mut command, &log)?;
        let own = Self {
            _process: process,
            socket,
        };
        until(&format!("{name} answers"), Duration::from_secs(60), || {
            Ok(output(own.ctr(host).arg("version")).ok())
        })?;
        Ok(own)
    }

    /// Its command line.
    #[must_use]
    pub fn ctr(&self, host: &dyn Host) -> Command {
        let mut command = host.command("ctr".as_ref());
        command.arg("--address").arg(&self.socket);
        command.args(["--namespace", NAMESPACE]);
        command
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads an archive of images.
    ///
    /// # Errors
    /// It is none.
    pub fn import(&self, host: &dyn Host, archive: &Path) -> Result<()> {
        let mut ctr = self.ctr(host);
        output(ctr.args(["images", "import"]).arg(archive)).map(drop)
    }

    /// Runs a pod's container. Signals to the process are handed on to it.
    ///
    /// # Errors
    /// It asks for what is not there.
    pub fn run(&self, host: &dyn Host, pod: &Pod, log: &Path) -> Result<Process> {
        let container = pod.container();
        let id = format!(
            "{}-{}-{}",
            pod.metadata.namespace, pod.metadata.name, container.name
        );
        // One that was killed is still known.
        for verb in [&["task", "rm", "--force"][..], &["container", "rm"]] {
            let _unknown = output(self.ctr(host).args(verb).arg(&id));
        }
        let mut ctr = self.ctr(host);
        // The control groups of machines with both versions have no share of the CPU to give.
        ctr.args(["run", "--rm", "--cpu-shares", "0"])
            .args(pod.arguments(host)?)
            // The image's entry point, which ctr leaves out where there are arguments.
            .args([pod.image(), &id, "/vip"])
            .args(&container.args);
        Process::daemon(&format!("{id} on {}", host.name()), &mut ctr, log)
    }
}

/// The process id of the agent among a node's containers.
///
/// # Errors
/// It does not run.
pub fn agent_pid(containerd: &Containerd, host: &dyn Host) -> Result<i32> {
    let tasks = output(containerd.ctr(host).args(["task", "list"]))?;
    let running = tasks.lines().filter(|line| line.contains("RUNNING"));
    let pids = running.filter_map(|line| line.split_whitespace().nth(1));
    let is_agent = |pid: &&str| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name == "vip\n")
    };
    let pid = pids.into_iter().find(is_agent);
    let pid = pid.with_context(|| format!("no agent runs: {tasks}"))?;
    pid.parse().context("a process id")
}

/// What the kernel says of the agent's threads: the text of each one's `/proc/PID/task/TID/status`.
///
/// # Errors
/// It does not run.
pub fn threads(containerd: &Containerd, host: &dyn Host) -> Result<Vec<String>> {
    let pid = agent_pid(containerd, host)?.to_string();
    let folder = Path::new("/proc").join(pid).join("task");
    let list = std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    list.map(|entry| {
        let path = entry.context("list threads")?.path().join("status");
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    })
    .collect()
}

/// Makes a host look like one that systemd has booted: with a bpffs, and with its own version of
/// some directories. What is written there goes to `work`, and no other host sees it.
///
/// # Errors
/// The kernel has no overlay file system.
pub fn boot(host: &dyn Host, work: &Path, directories: &[&str]) -> Result<()> {
    let mut bpffs = host.command(OsStr::new("mount"));
    output(bpffs.args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))?;
    for directory in directories {
        let own = work.join(format!("{}{}", host.name(), directory.replace('/', "-")));
        let (upper, workdir) = (own.join("upper"), own.join("work"));
        for path in [&upper, &workdir] {
            std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        }
        let options = format!(
            "lowerdir={directory},upperdir={},workdir={}",
            upper.display(),
            workdir.display()
        );
        let mut mount = host.command(OsStr::new("mount"));
        output(mount.args(["-t", "overlay", "-o", &options, "overlay", directory]))?;
    }
    Ok(())
}
