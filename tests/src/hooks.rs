//! What hangs at the hooks of a network interface and its network namespace.

use std::process::Command;

use anyhow::{Context, Result};

use vip_userspace::datapath::socket_lookup_programs;

use crate::agent::Programs;
use crate::process::output;
use crate::sys;
use crate::topology::Host;

/// XDP and tcx programs, clsact's queueing discipline and its filters, socket lookup programs; one
/// line each. Of an interface of the calling thread's network namespace, and of that.
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
    let lookups = socket_lookup_programs().context("ask for socket lookup programs")?;
    if !lookups.is_empty() {
        found.push(format!("socket lookup: {} programs", lookups.len()));
    }
    Ok(found)
}

/// Fills the network namespace of the calling thread with socket lookup programs that do nothing,
/// until the kernel takes no more, says how many, and waits to be ended.
///
/// # Errors
/// The kernel takes none.
pub fn crowd() -> Result<()> {
    let program = sys::load_lookup_pass().context("load a socket lookup program")?;
    let mut links = vec![sys::attach_lookup(&program).context("attach it")?];
    while let Ok(link) = sys::attach_lookup(&program) {
        links.push(link);
    }
    println!("{}", links.len());
    loop {
        std::thread::park();
    }
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
