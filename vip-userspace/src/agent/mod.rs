//! The shell around the decisions: one loop that tells them the time and what happened, and
//! carries out what they say.
//!
//! Nothing here decides. The loop waits for the first of: a VRRP packet, a deadline of the
//! state machine, the outcome of a probe, a change of the node's network, an ARP frame, a
//! question from `vip status`, a signal.

pub mod clock;
pub mod lock;
mod proof;
mod shell;

use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use vip_common::layout::BootNanos;

use self::shell::Shell;
use crate::config::{self, Config};
use crate::net::announce::ArpSocket;
use crate::net::netlink::Netlink;
use crate::net::vrrp::{self, VrrpSocket};
use crate::probe::{ProbeResult, Prober, Settings, Trust};

/// Between looks at whether everything is as it should be.
const RECONCILE: Duration = Duration::from_secs(2);

/// Name of the socket for `vip status`, below the run directory.
pub const SOCKET: &str = "vip.sock";

/// Runs the agent until a signal ends it.
///
/// What it put into the kernel stays: the node goes on steering, and the next agent takes over.
///
/// # Errors
/// If the agent cannot start. Once it runs, it goes on and says what is wrong.
pub async fn run(config: Config) -> anyhow::Result<()> {
    // Signals first, so that none ends the agent half-way up.
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let _lock = lock::Lock::take(&config.run_dir)?;
    let netlink = Netlink::connect()?;
    let addresses: Vec<Ipv4Addr> = config.nodes.iter().map(|node| node.address).collect();
    let nic = netlink
        .find_nic(config.vip.address, &addresses, config.interface.as_deref())
        .await?;

    let mut network = netlink.watch(nic.index)?;
    let (probes, mut outcomes) = mpsc::channel(64);
    let mut shell = Shell::start(config.clone(), nic.clone(), netlink).await?;
    let _log = forward_program_log(&mut shell);
    let arp = ArpSocket::open(&nic)?;
    let packets = VrrpSocket::open(&nic.name, nic.address)?;
    let questions = listen(&config)?;
    start_probes(&config, &probes);
    shell.elect(&packets, &arp);

    let mut tick = interval(RECONCILE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut packet = vec![0; vrrp::BUFFER];
    let mut frame = [0; 128];
    loop {
        tokio::select! {
            // The state machine's time comes first, then what others say, then the rest.
            biased;
            () = until(shell.deadline()) => shell.on_time(&packets, &arp),
            received = packets.receive(&mut packet) => match received {
                Ok(received) => shell.on_packet(&received, &packets, &arp),
                Err(error) => tracing::warn!(%error, "cannot receive VRRP"),
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some((node, outcome)) = outcomes.recv() => shell.on_probe(node, &outcome),
            Some(event) = network.next() => shell.on_network(event).await,
            Ok(_) = arp.receive(&mut frame) => shell.on_arp(),
            Ok((stream, _)) = questions.accept() => answer(stream, shell.status()),
            _ = tick.tick() => shell.reconcile(&arp).await,
        }
    }
    shell.resign(&packets);
    // A socket without its agent would only puzzle `vip status`.
    let _gone = std::fs::remove_file(config.run_dir.join(SOCKET));
    Ok(())
}

/// Waits until the boot-time clock says `deadline`; for ever without one.
async fn until(deadline: Option<BootNanos>) {
    match deadline {
        Some(deadline) => sleep(deadline.since(clock::now())).await,
        None => pending().await,
    }
}

/// A task a node, so that a server that hangs delays only its own probes.
fn start_probes(config: &Config, outcomes: &mpsc::Sender<(usize, ProbeResult)>) {
    let health = &config.health;
    let prober = Arc::new(Prober::new(Settings {
        path: health.path.clone(),
        port: health.port.unwrap_or(config.vip.port),
        timeout: health.timeout,
        trust: match &health.tls {
            config::Tls::WellKnownCa => Trust::WellKnownCa,
            config::Tls::Ca(path) => Trust::Ca(path.clone()),
            config::Tls::Insecure => Trust::Insecure,
        },
    }));
    for (index, node) in config.nodes.iter().enumerate() {
        let (prober, outcomes) = (prober.clone(), outcomes.clone());
        let (address, pause) = (node.address, health.interval);
        tokio::spawn(async move {
            let mut ticks = interval(pause);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let outcome = prober.probe(address).await;
                if outcomes.send((index, outcome)).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Opens the socket for `vip status`. The run directory lets only root in.
fn listen(config: &Config) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = &config.run_dir;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close {} to others", directory.display()))?;
    let path = directory.join(SOCKET);
    // Left by an agent that was killed; the lock says that it does not live.
    let _old = std::fs::remove_file(&path);
    UnixListener::bind(&path).with_context(|| format!("cannot listen at {}", path.display()))
}

/// Writes the status to whoever asked, in a task of its own: he may be slow.
fn answer(mut stream: UnixStream, status: anyhow::Result<crate::observe::status::Status>) {
    tokio::spawn(async move {
        let text = status.and_then(|status| Ok(serde_json::to_string(&status)?));
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "cannot tell the status");
                return;
            }
        };
        // Whoever asked may have gone.
        let _gone = stream.write_all(text.as_bytes()).await;
    });
}

/// Reads the log of the eBPF programs, if it is wanted (`--log vip=debug`).
fn forward_program_log(shell: &mut Shell) -> Option<tokio::task::JoinHandle<()>> {
    let mut log = shell.program_log()?;
    Some(tokio::spawn(async move {
        // For a person who watches: often enough.
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            log.flush();
        }
    }))
}
