//! `vip version`: which build this is, and what this machine's kernel offers to it.

use std::fmt;
use std::process::ExitCode;

use aya::programs::ProgramType;
use aya::sys::is_program_supported;
use serde::Serialize;
use vip_common::abi::LAYOUT_VERSION;

use super::output::{Format, Output, json, print, yaml};
use crate::datapath::Features;
use crate::kernel::{btf, cgroup};

/// The version, and the commit if it is known.
pub(super) const VERSION: &str = env!("VIP_VERSION");

/// This build and this machine.
#[derive(Serialize)]
struct Version {
    version: &'static str,
    /// `None` where the sources were no checkout.
    commit: Option<&'static str>,
    target: &'static str,
    /// Agents adopt the maps of others with the same one.
    map_layout: u32,
    kernel: Kernel,
}

/// What the kernel offers. `None`: it could not be found out.
#[derive(Serialize)]
struct Kernel {
    release: Option<String>,
    btf: bool,
    /// Where cgroup2 is mounted.
    cgroup2: Option<String>,
    /// Whether it takes the programs that steer.
    programs: Option<bool>,
    xdp_frags: Option<bool>,
    tcx: Option<bool>,
    local_connections: Option<bool>,
    connection_lists: Option<bool>,
    socket_lookup: Option<bool>,
    /// Why something could not be found out.
    unknown_because: Option<String>,
}

impl Kernel {
    /// Asks the kernel. Loads the programs, if this is root, and leaves nothing behind.
    fn probe() -> Self {
        let release = nix::sys::utsname::uname();
        let release = release.map(|name| name.release().to_string_lossy().into_owned());
        let is_root = nix::unistd::geteuid().is_root();
        let (features, unknown_because) = match is_root.then(Features::probe) {
            Some(Ok(features)) => (Some(features), None),
            Some(Err(error)) => (None, Some(error.to_string())),
            None => (None, Some("the kernel tells only root".to_owned())),
        };
        let lookup = is_root.then(|| is_program_supported(ProgramType::SkLookup).ok());
        Self {
            release: release.ok(),
            btf: btf::is_there(),
            cgroup2: cgroup::root().map(|path| path.display().to_string()),
            programs: is_root.then_some(features.is_some()),
            xdp_frags: features.map(|features| features.frags),
            tcx: features.map(|features| features.tcx),
            local_connections: features.map(|features| features.redirection),
            connection_lists: features.map(|features| features.roster),
            socket_lookup: lookup.flatten(),
            unknown_because,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            commit,
            target,
            map_layout,
            kernel,
        } = self;
        let told = |known: Option<bool>, without: &str| match known {
            Some(true) => "yes".to_owned(),
            Some(false) => format!("no: {without}"),
            None => "unknown".to_owned(),
        };
        let release = kernel.release.as_deref().unwrap_or("unknown");
        let cgroup2 = kernel.cgroup2.as_deref();
        let lines = [
            ("version", (*version).to_owned()),
            ("commit", commit.unwrap_or("unknown").to_owned()),
            ("target", (*target).to_owned()),
            ("map layout", map_layout.to_string()),
            ("kernel", format!("Linux {release}")),
            (
                "eBPF programs",
                told(kernel.programs, "`vip run` cannot start here"),
            ),
            (
                "XDP, large MTU",
                told(
                    kernel.xdp_frags,
                    "native only for frames that fit one buffer",
                ),
            ),
            ("tcx", told(kernel.tcx, "clsact filters are used")),
            (
                "connect hooks",
                told(
                    kernel.local_connections,
                    "this node's own connections go to its own server",
                ),
            ),
            (
                "socket iterators",
                told(
                    kernel.connection_lists,
                    "clients that only wait are not told when this node dies",
                ),
            ),
            (
                "socket lookup",
                told(
                    kernel.socket_lookup,
                    "no other BFD program can run beside the agent",
                ),
            ),
            ("BTF", told(Some(kernel.btf), "no /sys/kernel/btf/vmlinux")),
            ("cgroup2", cgroup2.unwrap_or("not mounted").to_owned()),
        ];
        for (name, value) in lines {
            writeln!(f, "{name:16}  {value}")?;
        }
        if let Some(why) = &kernel.unknown_because {
            writeln!(f, "\nunknown: {why}")?;
        }
        Ok(())
    }
}

pub(super) fn run(output: Output) -> anyhow::Result<ExitCode> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("VIP_COMMIT"),
        target: env!("VIP_TARGET"),
        map_layout: LAYOUT_VERSION,
        kernel: Kernel::probe(),
    };
    print(match output.format() {
        Format::Text | Format::Wide => version.to_string(),
        Format::Json => json(&version)?,
        Format::Yaml => yaml(&version)?,
    })?;
    Ok(ExitCode::SUCCESS)
}
