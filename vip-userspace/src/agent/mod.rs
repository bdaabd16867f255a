//! The supervisor around the decisions.
//!
//! Nothing here decides. One thread keeps time: it drives the [`Node`](vip_node::node) with
//! what its sockets bring and its deadlines, and is the only writer of what the programs read.
//! Everything that may be slow runs in a loop on tokio: the outcome of a probe, a change of the
//! node's network, an ARP frame, a question from `vip status`, a signal.

pub mod clock;
mod late;
pub mod lock;
mod memory;
mod node_thread;
pub mod notes;
mod privileges;
mod realtime;
mod signals;
pub mod state;
mod supervisor;
pub mod survey;
pub mod traces;

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use socket2::SockRef;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::spawn;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use vip_common::wire::time::BootNanos;

use self::signals::{Asked, Signals};
use self::state::StateDir;
use self::supervisor::Supervisor;
use self::traces::How;
use crate::config::Config;
use crate::datapath::{self, Claim, Turn};
use crate::net::Nic;
use crate::net::netlink::Netlink;
use crate::observe::event::Event;
use crate::observe::http::{Question, Server};
use crate::observe::metrics::ProbeTimes;
use crate::observe::socket::{Reply, Request};
use crate::probe::{News, ProbeResult, Prober, Settings, Trust};

/// Between looks at whether everything is as it should be.
const RECONCILE: Duration = Duration::from_secs(2);

/// Between looks at where the frames of other nodes come from.
const LOOK: Duration = Duration::from_millis(250);

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
    let mut signals = Signals::catch()?;
    privileges::check()?;
    let locked = memory::lock();
    let netlink = Netlink::connect()?;
    let probe_times = ProbeTimes::default();
    let (mut http, mut read) = Server::new(config.http, probe_times.clone());
    let http_ends = (&mut http, &mut read);
    let found = late::find_nic(&config, &netlink, &mut signals, http_ends).await?;
    let Some((nic, lock)) = found else {
        return Ok(());
    };
    let vips = config.vips.iter().map(|vip| vip.address);
    let hosts = config.addresses();
    netlink.refuse_no_hosts(&nic, vips, hosts).await?;
    let mut peers = config.addresses();
    peers.remove(nic.node_index);
    survey::is_on_their_link(&netlink, &nic, &peers).await?;

    let turn = Turn::take(&config.datapath.bpffs).await;
    refuse_taken(&config, &nic, &netlink).await?;
    let mut lock = match lock {
        Some(lock) => lock,
        None => lock::Lock::take(&config.run_dir)?,
    };
    let state = StateDir::take(&config)?;
    let is_first = traces::are_none(&config.datapath.bpffs, &config.run_dir);

    let mut watched = nic.index;
    let mut network = netlink.watch(watched)?;
    let (probes, mut outcomes) = mpsc::channel(64);
    let (surveys, mut surveyed) = mpsc::channel(1);
    // Whatever cannot be had comes before anything is changed.
    let mut questions = listen(&config)?;
    let started = Supervisor::start(
        config.clone(),
        nic,
        netlink.clone(),
        probe_times,
        surveys,
        state,
        (probes, &mut outcomes),
    );
    let (mut supervisor, mut notices) = match started.await {
        Ok(started) => started,
        Err(error) => {
            remove_socket(&config);
            if is_first {
                undo(&config).await;
            }
            return Err(error);
        }
    };
    lock.keep();
    drop(turn);
    let _log = forward_program_log(&mut supervisor);
    let (requests, mut asked) = mpsc::channel(16);
    privileges::drop_surplus().context("cannot give up capabilities")?;
    if let Err(error) = locked {
        supervisor.note(Event::Failed {
            what: "memory is not locked: a machine short of memory may lose the VIP for a moment"
                .into(),
            cause: memory::explain(&error),
        });
    }

    let mut mute = false;
    let mut tick = interval(RECONCILE);
    let mut look = interval(LOOK);
    for ticks in [&mut tick, &mut look] {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        let neighbours = supervisor.neighbours();
        if watched != supervisor.nic() {
            watched = supervisor.nic();
            network = netlink.watch(watched)?;
        }
        tokio::select! {
            biased;
            notice = notices.recv() => match notice {
                Some(notice) => supervisor.on_notice(notice),
                // The thread has ended: it was told to, and another node has the VIP now.
                None => break,
            },
            asked = signals.next() => match asked {
                Asked::End => supervisor.resign(),
                Asked::Nothing(signal) => supervisor.note(Event::SignalIgnored { signal }),
            },
            Some(outcome) = outcomes.recv() => match outcome {
                Outcome::Probe(probed) => supervisor.on_probe(&probed),
                Outcome::Credentials(news) => supervisor.on_credentials(news),
            },
            Some(event) = network.next() => supervisor.on_network(event).await?,
            Ok(heard) = neighbours.receive() => supervisor.on_neighbour(heard),
            Some(found) = surveyed.recv() => supervisor.on_survey(found),
            Ok((stream, _)) = questions.accept() => drop(spawn(hear(stream, requests.clone()))),
            Some((request, stream)) = asked.recv() => answer(request, stream, &mut supervisor).await,
            Some(question) = read.recv() => tell(question, &supervisor).await,
            stream = http.accept() => http.serve(stream),
            _ = look.tick() => supervisor.look_at_sources(),
            _ = tick.tick() => {
                supervisor.reconcile().await?;
                listen_http(&mut http, &mut mute, &mut supervisor).await;
                // Somebody may have tidied up.
                if !config.run_dir.join(SOCKET).exists()
                    && let Ok(again) = listen(&config)
                {
                    questions = again;
                }
            }
        }
    }
    remove_socket(&config);
    supervisor.end()
}

/// A socket without its agent would only puzzle `vip status`.
fn remove_socket(config: &Config) {
    let _gone = std::fs::remove_file(config.run_dir.join(SOCKET));
}

/// Removes what a start that failed has put into the kernel where nothing was before.
async fn undo(config: &Config) {
    let (bpffs, run_dir) = (&config.datapath.bpffs, &config.run_dir);
    let none = std::iter::empty();
    let done = traces::remove(bpffs, run_dir, none, How::Remove, &|_| {}).await;
    if let Err(error) = done {
        tracing::warn!("the failed start left something, see `vip cleanup`: {error:#}");
    }
}

/// Looks whether another agent on this machine has what this one wants. Changes nothing.
///
/// # Errors
/// One has.
pub async fn refuse_taken(config: &Config, nic: &Nic, netlink: &Netlink) -> anyhow::Result<()> {
    let link = netlink.link(nic.index).await?;
    let vips: Vec<_> = config.vips.iter().map(|vip| vip.address).collect();
    let claim = Claim {
        run_directory: &config.run_dir,
        interface: &nic.name,
        index: nic.index,
        xdp: link.and_then(|link| link.xdp),
        vips: &vips,
        netns: crate::net::netns_cookie().unwrap_or(0),
    };
    datapath::refuse_taken(&config.datapath.bpffs, &claim)?;
    Ok(())
}

/// What the tasks that probe have to tell.
enum Outcome {
    /// A probe has ended.
    Probe(Probed),
    /// The credentials' files have changed.
    Credentials(News),
}

/// A probe that has ended.
struct Probed {
    /// Place of the node in the configuration.
    node: usize,
    /// Number of the check.
    check: usize,
    /// When it began.
    began: BootNanos,
    /// What it found.
    found: ProbeResult,
}

/// A task for each check of a node, so that a server that hangs delays only its own probes.
fn start_probes(config: &Config, outcomes: &mpsc::Sender<Outcome>) {
    let health = &config.health;
    let trust = Trust::from(&health.tls);
    for (number, check) in config.checks.iter().enumerate() {
        let prober = Arc::new(Prober::new(Settings {
            ask: check.ask.clone(),
            port: check.port,
            timeout: health.timeout,
            trust: trust.clone(),
            // They are for API servers, and for nobody else.
            credentials: health.credentials.clone().filter(|_| number == 0),
        }));
        for (index, node) in config.nodes.iter().enumerate() {
            let (prober, outcomes) = (prober.clone(), outcomes.clone());
            let (node, address, pause) = (index, node.address, health.interval);
            spawn(async move {
                let mut ticks = interval(pause);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let began = clock::now();
                    let probed = Probed {
                        found: prober.probe(address).await,
                        node,
                        check: number,
                        began,
                    };
                    let news = prober.news().map(Outcome::Credentials);
                    for outcome in news.into_iter().chain([Outcome::Probe(probed)]) {
                        if outcomes.send(outcome).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
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

/// Listens for HTTP, unless it does. Nothing that matters to clients depends on it, so a port in
/// use is no reason to end; it is said once.
async fn listen_http(http: &mut Server, mute: &mut bool, supervisor: &mut Supervisor) {
    match http.listen(supervisor.address()).await {
        Ok(()) => *mute = false,
        Err(_) if *mute => {}
        Err(error) => {
            *mute = true;
            supervisor.note(Event::Failed {
                what: "cannot listen for HTTP (`listen` in [http]); trying again".into(),
                cause: error.to_string(),
            });
        }
    }
}

/// Answers what came by HTTP.
async fn tell(question: Question, supervisor: &Supervisor) {
    // Whoever asked may have gone.
    match question {
        Question::Status(to) => drop(to.send(supervisor.status().await)),
        Question::Events(since, to) => drop(to.send(supervisor.events(since))),
    }
}

/// Longest wait for a request on the socket, and for its reader.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest request, in bytes.
const LONGEST: u64 = 4096;

/// Reads what somebody asks, in a task of its own: it may be slow.
async fn hear(stream: UnixStream, requests: mpsc::Sender<(Request, UnixStream)>) {
    let mut line = String::new();
    let mut reader = BufReader::new(stream);
    let read = async { (&mut reader).take(LONGEST).read_line(&mut line).await };
    if !matches!(timeout(PATIENCE, read).await, Ok(Ok(_))) {
        return;
    }
    let mut stream = reader.into_inner();
    match serde_json::from_str(&line) {
        Ok(request) => {
            // The agent is ending.
            let _gone = requests.send((request, stream)).await;
        }
        Err(error) => reply(&mut stream, &Reply::<()>::Error(error.to_string())).await,
    }
}

/// Answers, where that takes time in a task of its own.
async fn answer(request: Request, mut stream: UnixStream, supervisor: &mut Supervisor) {
    // Whoever has given up was told that it failed, so it is not to be done later.
    if SockRef::from(&stream)
        .peek(&mut [MaybeUninit::uninit()])
        .is_ok_and(|read| read == 0)
    {
        return;
    }
    match request {
        Request::Status => {
            let status = supervisor.status().await;
            drop(spawn(async move {
                reply(&mut stream, &Reply::from(status)).await;
            }));
        }
        Request::Drain { draining, force } => {
            let done = supervisor.drain(draining, force).await;
            drop(spawn(async move {
                reply(&mut stream, &Reply::from(done)).await;
            }));
        }
        Request::Handover { to } => {
            let asked = supervisor.handover(to.as_deref());
            drop(spawn(async move {
                let result = match asked {
                    Ok(handover) => handover.end().await,
                    Err(error) => Err(error),
                };
                reply(&mut stream, &Reply::from(result)).await;
            }));
        }
    }
}

async fn reply<T: serde::Serialize>(stream: &mut UnixStream, reply: &Reply<T>) {
    match serde_json::to_string(reply) {
        // Whoever asked may have gone.
        Ok(text) => drop(timeout(PATIENCE, stream.write_all(text.as_bytes())).await),
        Err(error) => tracing::warn!(%error, "cannot answer"),
    }
}

/// Reads the log of the eBPF programs, if it is wanted (`--log vip=debug`).
fn forward_program_log(supervisor: &mut Supervisor) -> Option<tokio::task::JoinHandle<()>> {
    let mut log = supervisor.program_log()?;
    Some(spawn(async move {
        // For a person who watches: often enough.
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            log.flush();
        }
    }))
}
