//! What hangs at the hooks of a network interface and of its network namespace, and programs of
//! somebody else there.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use vip_userspace::kernel::bpf::{self, Kind};

use vip_userspace::datapath::socket_lookup_programs;

use crate::agent::Programs;
use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE};
use crate::process::{Process, output};
use crate::sys;
use crate::topology::{Host, NIC};

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
            .with_context(|| format!("ask for programs at {name} of {interface}"))?
            .len();
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

/// Where a program of somebody else hangs.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// As XDP in the driver.
    Xdp,
    /// On the way in, as a tcx program.
    TcxIngress,
    /// On the way out.
    TcxEgress,
}

/// What it does with each frame.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Lets it pass; no program behind it runs (`TC_ACT_OK`).
    End,
    /// Lets it pass to the next program (`TC_ACT_UNSPEC`; as XDP, to the stack).
    Next,
    /// Drops ARP, which is for XDP only.
    DropArp,
}

/// Arguments of `testbed foreign`.
#[derive(Args, Debug)]
pub struct ForeignArgs {
    /// The interface
    #[arg(long, default_value = NIC)]
    pub interface: String,
    /// The hook
    #[arg(long)]
    pub hook: Hook,
    /// What becomes of frames
    #[arg(long)]
    pub verdict: Verdict,
    /// Put it before all others again whenever it is not, so many milliseconds after
    #[arg(long)]
    pub insist_ms: Option<u64>,
}

/// The name of the programs.
const FOREIGN: &str = "foreign";

/// Attaches a program, before all others that are there, and keeps it there until ended.
///
/// # Errors
/// The kernel refuses.
pub fn foreign(args: &ForeignArgs) -> Result<()> {
    let kind = if args.hook == Hook::Xdp {
        Kind::Xdp
    } else {
        Kind::Classifier
    };
    let instructions = match (args.verdict, kind) {
        (Verdict::DropArp, Kind::Xdp) => sys::without_arp(),
        (Verdict::Next, Kind::Xdp) => bpf::returning(2).to_vec(),
        (Verdict::Next, Kind::Classifier) => bpf::returning(-1).to_vec(),
        (Verdict::End, Kind::Classifier) => bpf::returning(0).to_vec(),
        (verdict, kind) => bail!("a program of kind {kind:?} has no verdict {verdict:?}"),
    };
    let program = bpf::load(kind, FOREIGN, &instructions).context("load the program")?;
    let hook = match args.hook {
        Hook::Xdp => None,
        Hook::TcxIngress => Some(sys::TCX_HOOKS[0].1),
        Hook::TcxEgress => Some(sys::TCX_HOOKS[1].1),
    };
    let attach = || {
        match hook {
            None => sys::attach_xdp(&program, &args.interface),
            Some(hook) => sys::attach_tcx(&program, &args.interface, hook, true),
        }
        .context("attach the program")
    };
    let mut link = Some(attach()?);
    let own = sys::program_id(&program).context("ask for the program's number")?;
    println!("{own}");
    loop {
        std::thread::sleep(Duration::from_millis(args.insist_ms.unwrap_or(1000)));
        if let (Some(hook), Some(_)) = (hook, args.insist_ms) {
            let there =
                sys::attached_programs(&args.interface, hook).context("ask for programs")?;
            if there.first() != Some(&own) {
                // A program can be in the list once only.
                drop(link.take());
                link = Some(attach()?);
            }
        }
    }
}

/// How an agent names the program of [`occupy`]: by its number, all that the kernel tells an agent
/// that has given up what it needs at its start only.
///
/// # Errors
/// It has not said its number.
pub fn identity(process: &Process) -> Result<String> {
    let numbers: Vec<u32> = process.records(0)?;
    let number = numbers.first().context("it has not said its number")?;
    Ok(format!("(id {number}"))
}

/// Lets a host run [`foreign`], and waits until the program is attached.
///
/// # Errors
/// It is not.
pub fn occupy(cluster: &Cluster, node: usize, arguments: &[&str]) -> Result<Process> {
    let host = cluster.host(node);
    let mut command = host.command(cluster.programs().testbed.as_os_str());
    command.arg("foreign").args(arguments);
    let log = cluster.work().join(format!("{}-foreign.log", host.name()));
    let mut process = Process::reporter("somebody else's program", &mut command, &log)?;
    until("somebody else's program is attached", PATIENCE, || {
        if !process.is_running() {
            bail!("it ended: {}", crate::process::tail(&log, 3));
        }
        Ok((process.line_count() > 0).then_some(()))
    })?;
    Ok(process)
}
