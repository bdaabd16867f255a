//! What hangs at the hooks of a network interface.

use std::process::Command;

use anyhow::{Context, Result};

use crate::agent::Programs;
use crate::process::output;
use crate::sys;
use crate::topology::Host;

/// XDP and tcx programs, clsact's queueing discipline and its filters; one line each. Of an interface
/// of the calling thread's network namespace.
///
/// # Errors
/// There is no such interface, or the kernel does not say.
pub fn of(interface: &str) -> Result<Vec<String>> {
    let link =
        output(Command::new("ip").args(["-details", "-json", "link", "show", "dev", interface]))?;
    let link: serde_json::Value =
        serde_json::from_str(&link).context("ip writes JSON of another form")?;
    let mut found = Vec::new();
    if !link[0]["xdp"].is_null() {
        found.push(format!("xdp {}", link[0]["xdp"]));
    }
    for (name, hook) in sys::TCX_HOOKS {
        let count = sys::attached_programs(interface, hook)
            .with_context(|| format!("ask for programs at {name} of {interface}"))?;
        if count > 0 {
            found.push(format!("{name}: {count} programs"));
        }
    }
    let qdiscs = output(Command::new("tc").args(["qdisc", "show", "dev", interface]))?;
    if qdiscs.contains("clsact") {
        found.push("clsact".to_owned());
        for way in ["ingress", "egress"] {
            let filters =
                output(Command::new("tc").args(["filter", "show", "dev", interface, way]))?;
            if filters.contains("bpf") {
                found.push(format!("clsact {way}: a program"));
            }
        }
    }
    Ok(found)
}

/// The same of a host.
///
/// # Errors
/// As [`of`].
pub fn on(host: &dyn Host, programs: &Programs, interface: &str) -> Result<Vec<String>> {
    let mut command = host.command(programs.testbed.as_os_str());
    let text = output(command.args(["hooks", interface]))?;
    Ok(text.lines().map(str::to_owned).collect())
}
