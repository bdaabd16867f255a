//! `vip manifest`: what puts the agent on a node. It is printed from flags alone, and is the same
//! for all nodes of a cluster.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::BadInput;
use super::output::print;
use crate::config::{Config, Flags, Listen, Overrides, RUN_DIR, STATE_DIR};
use crate::files;
use crate::probe::{Ask, Credentials, Trust};

/// Where a configuration file is to lie on the nodes.
const FILE: &str = "/etc/vip/vip.toml";

/// Where the binary is to lie on the nodes, for the unit.
const BINARY: &str = "/usr/local/bin/vip";

/// What to print, and for whom.
#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    overrides: Overrides,
    /// Let the agent read the configuration that is in this file now; copy it to
    /// /etc/vip/vip.toml on all nodes
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// How the cluster is installed
    #[arg(long, value_enum, default_value_t = Distribution::Kubeadm)]
    distribution: Distribution,
    /// Image of the container
    #[arg(long, default_value = concat!("localhost/vip:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// Give the container all privileges; needed where the container runtime's seccomp profile
    /// knows nothing of CAP_BPF
    #[arg(long)]
    privileged: bool,
    /// Print a systemd unit instead, for agents outside of Kubernetes
    #[arg(long, conflicts_with_all = ["image", "privileged", "config"])]
    systemd: bool,
    /// Write it to this file instead of printing it: whole or not at all
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the configuration file that says the same as the flags, to be extended
    #[arg(long, conflicts_with_all = ["image", "privileged", "from"])]
    config: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Distribution {
    Kubeadm,
    K3s,
    Rke2,
}

impl Distribution {
    /// Where the kubelet looks for static pods.
    const fn manifests(self) -> &'static str {
        match self {
            Self::Kubeadm => "/etc/kubernetes/manifests",
            Self::K3s => "/var/lib/rancher/k3s/agent/pod-manifests",
            Self::Rke2 => "/var/lib/rancher/rke2/agent/pod-manifests",
        }
    }

    /// Where the CA of the API servers is, or will be.
    const fn tls(self) -> &'static str {
        match self {
            Self::Kubeadm => "/etc/kubernetes/pki",
            Self::K3s => "/var/lib/rancher/k3s/server/tls",
            Self::Rke2 => "/var/lib/rancher/rke2/server/tls",
        }
    }
}

pub(super) fn run(options: Options) -> anyhow::Result<ExitCode> {
    let flags = Flags {
        config: options.from.clone(),
        overrides: options.overrides.clone(),
    };
    let config = flags.into_config()?;
    check(&options, &config)?;
    let text = if options.config {
        file(&config)
    } else if options.systemd {
        unit(&options, &config)
    } else {
        pod(&options, &config)
    };
    match &options.output {
        None => print(text)?,
        Some(path) if path == Path::new("-") => print(text)?,
        // Units are read by all, and kubeadm's manifests by root alone.
        Some(path) => write(path, &text, if options.systemd { 0o644 } else { 0o600 })?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a file whole or not at all: the kubelet acts on what it reads in between.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let shown = path.display();
    let bad = |message: &str| BadInput(format!("--output {shown}: {message}"));
    // A file behind an open descriptor would be replaced for all who have it.
    if ["/dev", "/proc"].iter().any(|of| path.starts_with(of)) {
        return Err(bad("name a file, or leave --output out and redirect the output").into());
    }
    // What a link leads to is replaced, not the link.
    let path = match fs::canonicalize(path) {
        Ok(path) if path.is_file() => path,
        Ok(_) => return Err(bad("this is no file; name one, or leave --output out").into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(bad(&error.to_string()).into()),
    };
    if path.file_name().is_none() {
        return Err(bad("this is no file; name one").into());
    }
    files::replace(&path, text, mode).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => bad("there is no such directory; make it first").into(),
        _ => anyhow::Error::from(error).context(format!("cannot write {shown}")),
    })
}

/// What is no fault of a configuration, but one of a manifest.
fn check(options: &Options, config: &Config) -> Result<(), BadInput> {
    let bad = |message: &str| Err(BadInput(message.to_owned()));
    if options.image.is_empty() || options.image.contains(char::is_whitespace) {
        return bad("--image: must be a name like localhost/vip:0.1.0");
    }
    if let Some(Listen::At(address)) = config.http
        && !address.ip().is_loopback()
        && !address.ip().is_unspecified()
    {
        let (ip, port) = (address.ip(), address.port());
        return bad(&format!(
            "--http {address}: {ip} is not an address of every node, and this is for all of them; give \
             --http node:{port} (`listen` in [http])"
        ));
    }
    if let Some(path) = paths(config)
        .into_iter()
        .find(|path| path.to_str().is_none())
    {
        let path = path.display();
        return bad(&format!(
            "{path}: must be UTF-8, to be written into a manifest"
        ));
    }
    if let Some(path) = paths(config).into_iter().find(|path| path.is_relative()) {
        let path = path.display();
        return bad(&format!(
            "{path}: must be an absolute path, since the agent does not run in this directory"
        ));
    }
    Ok(())
}

/// The paths that a manifest names.
fn paths(config: &Config) -> Vec<&Path> {
    let mut paths = vec![
        &*config.run_dir,
        &*config.state_dir,
        &*config.datapath.bpffs,
    ];
    if let Trust::Ca(path) = &config.health.tls {
        paths.push(path);
    }
    paths.extend(
        config
            .health
            .credentials
            .iter()
            .flat_map(|them| them.files()),
    );
    paths
}

/// What the agent is called with.
fn words(options: &Options) -> Vec<String> {
    let file = options.from.as_ref().map(|_| ["--config", FILE]);
    let file = file.into_iter().flatten().map(str::to_owned);
    file.chain(options.overrides.words()).collect()
}

/// A string as YAML writes it, which reads those of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A directory of the host, mounted where it is on the host.
struct Mount<'a> {
    name: &'static str,
    path: &'a str,
    /// What the kubelet expects there (`HostPathVolumeSource.type`).
    kind: &'static str,
    read_only: bool,
}

fn pod(options: &Options, config: &Config) -> String {
    let text = |path: &'_ Path| path.to_str().unwrap_or_default().to_owned();
    let (run_dir, bpffs) = (text(&config.run_dir), text(&config.datapath.bpffs));
    let state_dir = text(&config.state_dir);
    let tls = match &config.health.tls {
        Trust::WellKnownCa => Some(options.distribution.tls().to_owned()),
        Trust::Ca(path) => path.parent().map(text),
        Trust::Insecure => None,
    };
    let mut mounts = vec![
        Mount {
            name: "bpf",
            path: &bpffs,
            kind: "Directory",
            read_only: false,
        },
        Mount {
            name: "run",
            path: &run_dir,
            kind: "DirectoryOrCreate",
            read_only: false,
        },
        Mount {
            name: "state",
            path: &state_dir,
            kind: "DirectoryOrCreate",
            read_only: false,
        },
        Mount {
            name: "cgroup",
            path: "/sys/fs/cgroup",
            kind: "Directory",
            read_only: true,
        },
    ];
    if let Some(tls) = &tls {
        mounts.push(Mount {
            name: "pki",
            path: tls,
            kind: "DirectoryOrCreate",
            read_only: true,
        });
    }
    // Whole directories, so that files that are replaced are seen.
    let credentials = config.health.credentials.iter();
    let mut folders: Vec<String> = credentials
        .flat_map(|credentials| credentials.files())
        .filter_map(|file| file.parent().map(text))
        .filter(|folder| tls.as_ref() != Some(folder))
        .collect();
    folders.dedup();
    for (name, path) in ["credentials", "credentials-key"].into_iter().zip(&folders) {
        mounts.push(Mount {
            name,
            path,
            kind: "DirectoryOrCreate",
            read_only: true,
        });
    }
    if options.from.is_some() {
        mounts.push(Mount {
            name: "config",
            path: FILE,
            kind: "File",
            read_only: true,
        });
    }

    let mut pod = String::new();
    let mut line = |text: &str| {
        pod += text;
        pod.push('\n');
    };
    line(&format!(
        "# One stable address for the Kubernetes API: {}\n\
         # Put this on every control-plane node, as {}/vip.yaml\n\
         apiVersion: v1\n\
         kind: Pod\n\
         metadata:\n  \
           name: vip\n  \
           namespace: kube-system\n  \
           labels:\n    \
             app.kubernetes.io/name: vip\n    \
             app.kubernetes.io/component: control-plane-endpoint\n\
         spec:\n  \
           # The VIP is there before Kubernetes is, and needs nothing of it.\n  \
           hostNetwork: true\n  \
           dnsPolicy: Default\n  \
           enableServiceLinks: false\n  \
           automountServiceAccountToken: false\n  \
           priorityClassName: system-node-critical\n  \
           terminationGracePeriodSeconds: 10\n  \
           tolerations:\n    \
             - operator: Exists\n  \
           containers:\n    \
             - name: vip\n      \
               image: {}\n      \
               imagePullPolicy: IfNotPresent\n      \
               args:\n        \
                 - run",
        config.vip().endpoint(),
        options.distribution.manifests(),
        quoted(&options.image),
    ));
    for word in words(options) {
        line(&format!("        - {}", quoted(&word)));
    }
    line(if options.privileged {
        "      securityContext:\n        \
           privileged: true\n        \
           readOnlyRootFilesystem: true\n        \
           runAsUser: 0\n        \
           # With SELinux, as container_t may not call bpf(2). Ignored without it.\n        \
           seLinuxOptions:\n          \
             type: spc_t"
    } else {
        "      # BPF, PERFMON: programs and maps. NET_ADMIN: attaching them, and the VIP on lo.\n      \
           # NET_RAW: ARP, VRRP, ICMP. IPC_LOCK: memory that stays where it is.\n      \
           # SYS_NICE: real-time priority, given up after the start.\n      \
           securityContext:\n        \
             allowPrivilegeEscalation: false\n        \
             readOnlyRootFilesystem: true\n        \
             runAsUser: 0\n        \
             # With SELinux, as container_t may not call bpf(2). Ignored without it.\n        \
             seLinuxOptions:\n          \
               type: spc_t\n        \
             capabilities:\n          \
               drop: [ALL]\n          \
               add: [BPF, IPC_LOCK, NET_ADMIN, NET_RAW, PERFMON, SYS_NICE]\n        \
             seccompProfile:\n          \
               type: RuntimeDefault"
    });
    line(
        "      # No limit of the CPU: an owner that is throttled loses the VIP.\n      \
           resources:\n        \
             requests:\n          \
               cpu: 50m\n          \
               memory: 64Mi\n        \
             limits:\n          \
               memory: 256Mi",
    );
    if let Some(http) = config.http {
        for (probe, path, more) in [
            (
                "startupProbe",
                "/healthz",
                "periodSeconds: 1\n        failureThreshold: 60",
            ),
            (
                "livenessProbe",
                "/healthz",
                "periodSeconds: 10\n        failureThreshold: 3",
            ),
            ("readinessProbe", "/readyz", "periodSeconds: 5"),
        ] {
            // The kubelet asks from the node itself. Its own idea of the node's address may be
            // another one, or come late.
            let asked = match http {
                Listen::Node(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                Listen::At(SocketAddr::V4(at)) if at.ip().is_unspecified() => {
                    SocketAddr::from((Ipv4Addr::LOCALHOST, at.port()))
                }
                Listen::At(SocketAddr::V6(at)) if at.ip().is_unspecified() => {
                    SocketAddr::from((Ipv6Addr::LOCALHOST, at.port()))
                }
                Listen::At(address) => address,
            };
            line(&format!(
                "      {probe}:\n        \
                   httpGet:\n          \
                     host: {}\n          \
                     port: {}\n          \
                     path: {path}\n        \
                   timeoutSeconds: 2\n        \
                   {more}",
                quoted(&asked.ip().to_string()),
                asked.port(),
            ));
        }
    }
    line("      volumeMounts:");
    for mount in &mounts {
        line(&format!(
            "        - name: {}\n          mountPath: {}",
            mount.name,
            quoted(mount.path)
        ));
        if mount.read_only {
            line("          readOnly: true");
        }
    }
    line("  volumes:");
    for mount in &mounts {
        line(&format!(
            "    - name: {}\n      hostPath:\n        path: {}\n        type: {}",
            mount.name,
            quoted(mount.path),
            mount.kind,
        ));
    }
    pod
}

fn unit(options: &Options, config: &Config) -> String {
    let mut command = BINARY.to_owned() + " run";
    for word in words(options) {
        command.push(' ');
        command += &systemd_word(&word);
    }
    // systemd makes them below /run and /var/lib, and keeps them over restarts; others are the
    // agent's own.
    let below = |path: &Path, parent: &str| {
        let name = path.strip_prefix(parent).ok()?;
        Some(systemd_word(&name.display().to_string()))
    };
    let run = below(&config.run_dir, "/run").map_or_else(String::new, |name| {
        format!(
            "RuntimeDirectory={name}\nRuntimeDirectoryMode=0700\nRuntimeDirectoryPreserve=yes\n"
        )
    });
    let state = below(&config.state_dir, "/var/lib").map_or_else(String::new, |name| {
        format!("StateDirectory={name}\nStateDirectoryMode=0700\n")
    });
    format!(
        "# One stable address for the Kubernetes API: {}\n\
         # Put this on every control-plane node, as /etc/systemd/system/vip.service\n\
         [Unit]\n\
         Description=Stable address for the Kubernetes API\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         Before=kubelet.service k3s.service rke2-server.service\n\
         # It is started again however often it fails.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStart={command}\n\
         Restart=always\n\
         RestartSec=1\n\
         # Stopping hands the VIP over; programs and maps stay until `vip cleanup`.\n\
         TimeoutStopSec=10\n\
         {run}\
         {state}\
         CapabilityBoundingSet=CAP_BPF CAP_NET_ADMIN CAP_NET_RAW CAP_PERFMON CAP_SYS_NICE\n\
         # Memory that stays where it is; before Linux 5.11 also that of eBPF maps.\n\
         LimitMEMLOCK=infinity\n\
         NoNewPrivileges=yes\n\
         PrivateTmp=yes\n\
         ProtectHome=yes\n\
         ProtectClock=yes\n\
         ProtectKernelLogs=yes\n\
         ProtectKernelModules=yes\n\
         RestrictNamespaces=yes\n\
         RestrictSUIDSGID=yes\n\
         LockPersonality=yes\n\
         MemoryDenyWriteExecute=yes\n\
         SystemCallArchitectures=native\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        config.vip().endpoint(),
    )
}

/// A word of a command line, or a value (systemd.service(5), "Command lines").
fn systemd_word(word: &str) -> String {
    let word = word.replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:[]%$=+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word
    } else {
        let escaped = word.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\"")
    }
}

fn file(config: &Config) -> String {
    let list = |list: Vec<String>| {
        let quoted: Vec<String> = list.iter().map(|text| quoted(text)).collect();
        format!("[{}]", quoted.join(", "))
    };
    let vips = config.vips.iter().map(|vip| vip.endpoint().to_string());
    let nodes = config.nodes.iter().map(|node| node.address.to_string());
    let mut file = format!(
        "# Configuration of vip, the same on all nodes: {FILE}\n\
         # Every key is explained in docs/configuration.md\n\
         vip = {}\n\
         nodes = {}\n",
        list(vips.collect()),
        list(nodes.collect()),
    );
    if let Some(interface) = &config.interface {
        let _infallible = writeln!(file, "interface = {}", quoted(interface));
    }
    for (key, path, default) in [
        ("run_dir", &config.run_dir, RUN_DIR),
        ("state_dir", &config.state_dir, STATE_DIR),
    ] {
        if path != Path::new(default) {
            let path = quoted(path.to_str().unwrap_or_default());
            let _infallible = writeln!(file, "{key} = {path}");
        }
    }
    let _infallible = write!(
        file,
        "\n[vrrp]\nrouter_id = {}\ninterval = \"{}ms\"\n",
        config.router_id(),
        config.vrrp.interval.as_millis(),
    );
    let mut health = Vec::new();
    let mut line = |key: &str, path: &Path| {
        health.push(format!(
            "{key} = {}",
            quoted(path.to_str().unwrap_or_default())
        ));
    };
    if let Trust::Ca(path) = &config.health.tls {
        line("ca", path);
    }
    match &config.health.credentials {
        None => {}
        Some(Credentials::Token(path)) => line("token_file", path),
        Some(Credentials::Certificate { certificate, key }) => {
            line("client_certificate", certificate);
            line("client_key", key);
        }
    }
    if config.health.tls == Trust::Insecure {
        health.push("insecure = true".to_owned());
    }
    match config.checks.first().map(|check| &check.ask) {
        Some(Ask::Tls) => health.push("check = \"tls\"".to_owned()),
        Some(Ask::Tcp) => health.push("check = \"tcp\"".to_owned()),
        Some(Ask::Http(_)) | None => {}
    }
    if !health.is_empty() {
        let _infallible = write!(file, "\n[health]\n{}\n", health.join("\n"));
    }
    if let Some(http) = config.http {
        let _infallible = write!(file, "\n[http]\nlisten = \"{http}\"\n");
    }
    file
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    const CLUSTER: &str = "--vip 10.0.0.10:6443 --nodes 10.0.0.11,10.0.0.12,10.0.0.13";

    fn options(more: &str) -> (Options, Config) {
        let line = format!("manifest {CLUSTER} {more}");
        let line = Line::try_parse_from(line.split_whitespace()).expect("makes sense");
        let flags = Flags {
            config: None,
            overrides: line.options.overrides.clone(),
        };
        (line.options, flags.into_config().expect("makes sense"))
    }

    #[test]
    fn configuration_file_says_what_the_flags_say() {
        for more in [
            "",
            "--interface eth7 --vrid 9 --interval 250ms --insecure --http 0.0.0.0:1000",
            "--ca /etc/a\"b/ca.crt",
            "--check tls",
            "--http node:9700 --run-dir /run/vip-b --state-dir /var/lib/vip-b",
            "--check tcp --insecure",
            "--ca /etc/vip/ca.crt --token-file /etc/vip/token",
            "--client-certificate /etc/vip/vip.crt --client-key /etc/vip/vip.key",
        ] {
            let (_, mut config) = options(more);
            let text = file(&config);
            config.vrrp.router_id = Some(config.router_id());
            assert_eq!(Config::parse(&text, FILE).expect(&text), config);
        }
    }

    #[test]
    fn flags_reach_the_agent_as_they_were() {
        let more = "--interface eth7 --vrid 9 --interval 250ms --insecure --http [::]:1000";
        let (options, config) = options(more);
        let words = words(&options).join(" ");
        assert_eq!(words, format!("{CLUSTER} {more}"));
        let pod = pod(&options, &config);
        assert!(pod.contains("host: \"::1\"\n"), "{pod}");
        assert!(!pod.contains("pki"), "no CA is needed: {pod}");
    }

    #[test]
    fn probes_are_the_same_on_all_nodes_and_ask_each_its_own_agent() {
        for (http, host) in [
            ("9700", "127.0.0.1"),
            ("node:9700", "127.0.0.1"),
            ("0.0.0.0:9700", "127.0.0.1"),
            ("[::1]:9700", "::1"),
        ] {
            let (options, config) = options(&format!("--http {http}"));
            check(&options, &config).expect(http);
            let pod = pod(&options, &config);
            let probe = format!("          host: \"{host}\"\n          port: 9700\n");
            assert_eq!(pod.matches(&probe).count(), 3, "{http}: {pod}");
        }
        let (options, config) = options("--http 10.0.0.11:9700");
        let error = check(&options, &config)
            .expect_err("one node's")
            .to_string();
        assert!(error.contains("--http node:9700"), "{error}");
    }

    #[test]
    fn units_name_the_directories_that_systemd_makes() {
        let (options, config) = options("--state-dir /var/lib/vip-b");
        let text = unit(&options, &config);
        assert!(text.contains("\nRuntimeDirectory=vip\n"), "{text}");
        assert!(
            text.contains("\nStateDirectory=vip-b\nStateDirectoryMode=0700\n"),
            "{text}"
        );
    }

    #[test]
    fn directories_of_credentials_are_mounted_once() {
        for (more, mounted) in [
            ("--token-file /etc/vip/token", 1),
            ("--ca /etc/vip/ca.crt --token-file /etc/vip/token", 0),
            (
                "--client-certificate /etc/a/vip.crt --client-key /etc/b/vip.key",
                2,
            ),
        ] {
            let (options, config) = options(more);
            let pod = pod(&options, &config);
            let count = pod.matches("- name: credentials").count();
            assert_eq!(count, 2 * mounted, "{more}: {pod}");
        }
    }

    #[test]
    fn words_of_systemd_mean_what_they_say() {
        assert_eq!(systemd_word("10.0.0.10:6443"), "10.0.0.10:6443");
        assert_eq!(systemd_word("a b\"%$\\"), "\"a b\\\"%%$$\\\\\"");
        assert_eq!(systemd_word(""), "\"\"");
    }
}
