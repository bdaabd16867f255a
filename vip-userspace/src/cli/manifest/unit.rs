//! The systemd unit.

use std::path::Path;

use super::options::{Options, who_may_join};
use crate::config::Config;

pub(super) fn unit(options: &Options, config: &Config) -> String {
    let binary = systemd_word(&options.binary.display().to_string());
    let mut command = format!("{binary} run");
    for word in options.words() {
        command.push(' ');
        command += &systemd_word(&word);
    }
    let run_dir = config.run_dir.path().display().to_string();
    let reload = format!("{binary} reload --run-dir {}", systemd_word(&run_dir));
    // systemd makes them below /run and /var/lib, and keeps them over restarts; others are the
    // agent's own.
    let below = |path: &Path, parent: &str| {
        let name = path.strip_prefix(parent).ok()?;
        Some(systemd_word(&name.display().to_string()))
    };
    let run = below(config.run_dir.path(), "/run").map_or_else(String::new, |name| {
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
         {}[Unit]\n\
         Description=Stable address for the Kubernetes API\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         Before=kubelet.service k3s.service rke2-server.service\n\
         # It is started again however often it fails.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStart={command}\n\
         # After a change of the configuration file: `systemctl reload vip`.\n\
         ExecReload={reload}\n\
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
         ProtectHome=read-only\n\
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
        who_may_join(config),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_systemd_mean_what_they_say() {
        assert_eq!(systemd_word("10.0.0.10:6443"), "10.0.0.10:6443");
        assert_eq!(systemd_word("a b\"%$\\"), "\"a b\\\"%%$$\\\\\"");
        assert_eq!(systemd_word(""), "\"\"");
    }
}
