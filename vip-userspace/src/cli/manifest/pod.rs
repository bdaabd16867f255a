//! The static pod.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::options::{FILE, Options, who_may_join};
use super::quoted::quoted;
use crate::config::{Config, Listen};
use crate::probe::Trust;

const PRIVILEGED: &str = "      securityContext:\n        \
           privileged: true\n        \
           readOnlyRootFilesystem: true\n        \
           runAsUser: 0\n        \
           # With SELinux, as container_t may not call bpf(2). Ignored without it.\n        \
           seLinuxOptions:\n          \
             type: spc_t\n";

const CAPABILITIES: &str = "      # BPF, PERFMON: programs and maps. NET_ADMIN: attaching them, and the VIP on lo.\n      \
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
               type: RuntimeDefault\n";

const RESOURCES: &str = "      # No limit of the CPU: an owner that is throttled loses the VIP.\n      \
           resources:\n        \
             requests:\n          \
               cpu: 50m\n          \
               memory: 96Mi\n        \
             limits:\n          \
               memory: 256Mi\n";

/// A directory of the host, mounted where it is on the host.
struct Mount {
    name: &'static str,
    path: String,
    kind: Kind,
    read_only: bool,
}

/// What the kubelet expects of a path on the host (`HostPathVolumeSource.type`).
#[derive(Debug)]
enum Kind {
    Directory,
    DirectoryOrCreate,
}

pub(super) fn pod(options: &Options, config: &Config) -> String {
    let mut pod = head(options, config);
    for word in options.words() {
        pod += &format!("        - {}\n", quoted(&word));
    }
    pod += if options.privileged {
        PRIVILEGED
    } else {
        CAPABILITIES
    };
    pod += RESOURCES;
    if let Some(listen) = config.http {
        pod += &probes(listen);
    }
    pod += &volumes(&mounts(options, config));
    pod
}

fn head(options: &Options, config: &Config) -> String {
    format!(
        "# One stable address for the Kubernetes API: {}\n\
         # Put this on every control-plane node, as {}/vip.yaml\n\
         {}apiVersion: v1\n\
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
                 - run\n",
        config.vip().endpoint(),
        options.distribution.manifests(),
        who_may_join(config),
        quoted(&options.image),
    )
}

/// Probes of the kubelet, which asks from the node itself. Its own idea of the node's address may be
/// another one, or come late.
fn probes(listen: Listen) -> String {
    let asked = match listen {
        Listen::Node(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        Listen::At(SocketAddr::V4(at)) if at.ip().is_unspecified() => {
            SocketAddr::from((Ipv4Addr::LOCALHOST, at.port()))
        }
        Listen::At(SocketAddr::V6(at)) if at.ip().is_unspecified() => {
            SocketAddr::from((Ipv6Addr::LOCALHOST, at.port()))
        }
        Listen::At(address) => address,
    };
    let probe = |name: &str, path: &str, more: &str| {
        format!(
            "      {name}:\n        \
               httpGet:\n          \
                 host: {}\n          \
                 port: {}\n          \
                 path: {path}\n        \
               timeoutSeconds: 2\n        \
               {more}\n",
            quoted(&asked.ip().to_string()),
            asked.port(),
        )
    };
    [
        probe(
            "startupProbe",
            "/healthz",
            "periodSeconds: 1\n        failureThreshold: 60",
        ),
        probe(
            "livenessProbe",
            "/healthz",
            "periodSeconds: 10\n        failureThreshold: 3",
        ),
        probe("readinessProbe", "/readyz", "periodSeconds: 5"),
    ]
    .concat()
}

/// What the agent needs of the host.
fn mounts(options: &Options, config: &Config) -> Vec<Mount> {
    let mount = |name, path: &Path, kind, read_only| Mount {
        name,
        path: path.to_str().unwrap_or_default().to_owned(),
        kind,
        read_only,
    };
    let tls = match &config.health.tls {
        Trust::WellKnownCa => Some(Path::new(options.distribution.tls())),
        Trust::Ca(path) => path.parent(),
        Trust::Insecure => None,
    };
    // Whole directories, so that files that are replaced are seen.
    let credentials = config.health.credentials.iter();
    let files: Vec<_> = credentials.flat_map(|them| them.files()).collect();
    let files = files.into_iter().chain(config.key_file.as_deref());
    let from = options.from.as_ref().and_then(|_| Path::new(FILE).parent());
    let mut folders: Vec<&Path> = files.filter_map(Path::parent).collect();
    folders.retain(|folder| tls != Some(*folder) && from != Some(*folder));
    folders.sort_unstable();
    folders.dedup();
    let mut mounts = vec![
        mount("bpf", &config.datapath.bpffs, Kind::Directory, false),
        mount("run", config.run_dir.path(), Kind::DirectoryOrCreate, false),
        mount("state", &config.state_dir, Kind::DirectoryOrCreate, false),
        mount("cgroup", Path::new("/sys/fs/cgroup"), Kind::Directory, true),
    ];
    mounts.extend(tls.map(|tls| mount("pki", tls, Kind::DirectoryOrCreate, true)));
    let names = ["credentials", "credentials-key", "credentials-more"];
    for (name, folder) in names.into_iter().zip(folders) {
        mounts.push(mount(name, folder, Kind::DirectoryOrCreate, true));
    }
    let from = from.filter(|folder| tls != Some(*folder));
    mounts.extend(from.map(|folder| mount("config", folder, Kind::Directory, true)));
    mounts
}

fn volumes(mounts: &[Mount]) -> String {
    let mut text = "      volumeMounts:\n".to_owned();
    for mount in mounts {
        let path = quoted(&mount.path);
        text += &format!(
            "        - name: {}\n          mountPath: {path}\n",
            mount.name
        );
        if mount.read_only {
            text += "          readOnly: true\n";
        }
    }
    text += "  volumes:\n";
    for mount in mounts {
        text += &format!(
            "    - name: {}\n      hostPath:\n        path: {}\n        type: {:?}\n",
            mount.name,
            quoted(&mount.path),
            mount.kind,
        );
    }
    text
}
