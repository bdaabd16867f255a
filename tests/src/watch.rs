//! A client that holds watches open, and says how each of them is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use http_body_util::BodyExt as _;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::clock::boot_now;
use crate::http::{Failure, Progress, Target, TargetArgs};

/// Watches being opened at once.
const OPENING: usize = 16;

/// Arguments of `testbed watch`.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// The server
    #[command(flatten)]
    pub target: TargetArgs,
    /// Path of the stream
    #[arg(long, default_value = "/watch")]
    pub path: String,
    /// Streams to open
    #[arg(long, default_value_t = 200)]
    pub count: usize,
    /// Idle time before TCP asks after the peer, and time between two such questions (Go: 15)
    #[arg(long, default_value_t = 15)]
    pub keepalive_secs: u64,
    /// Port of the first stream, of IPv4; the others come from the ports after it
    #[arg(long)]
    pub from: Option<u16>,
}

/// One watch. Times are boot-time nanoseconds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Watch {
    /// The server it is on.
    pub server: Option<String>,
    /// The client's port.
    pub local_port: u16,
    /// When the stream began.
    pub opened: Option<u64>,
    /// The last event.
    pub last_event: Option<u64>,
    /// Longest time between two events, in nanoseconds.
    pub longest_silence: u64,
    /// How it ended: `reset`, `eof`, `timeout` or another error.
    pub ended: Option<String>,
    /// When it ended.
    pub ended_at: Option<u64>,
}

/// All watches at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    /// When, boot-time nanoseconds.
    pub at: u64,
    /// One entry a watch, always in the same order.
    pub watches: Vec<Watch>,
}

impl Snapshot {
    /// True if all streams have begun and none has ended.
    #[must_use]
    pub fn all_open(&self) -> bool {
        self.watches
            .iter()
            .all(|watch| watch.opened.is_some() && watch.ended.is_none())
    }

    /// Watches on a server.
    pub fn on<'a>(&'a self, server: &'a str) -> impl Iterator<Item = &'a Watch> {
        self.watches
            .iter()
            .filter(move |watch| watch.server.as_deref() == Some(server))
    }

    /// Watches not on any of these servers.
    pub fn not_on<'a>(&'a self, servers: &'a [String]) -> impl Iterator<Item = &'a Watch> {
        self.watches.iter().filter(move |watch| {
            !watch
                .server
                .as_ref()
                .is_some_and(|name| servers.contains(name))
        })
    }
}

/// The state of all watches, shared with their tasks.
type Board = Arc<Mutex<Vec<Watch>>>;

fn update(board: &Board, index: usize, change: impl FnOnce(&mut Watch)) {
    change(&mut board.lock().unwrap_or_else(PoisonError::into_inner)[index]);
}

async fn follow(
    target: &Target,
    args: &WatchArgs,
    board: &Board,
    index: usize,
    opening: &Semaphore,
) -> Result<(), Failure> {
    let permit = opening.acquire().await;
    let mut progress = Progress::default();
    let keepalive = Duration::from_secs(args.keepalive_secs);
    let connected = match args.from {
        Some(first) => {
            let port = first + index as u16;
            target
                .connect_from(port, Some(keepalive), &mut progress)
                .await
        }
        None => target.connect(Some(keepalive), &mut progress).await,
    };
    update(board, index, |watch| {
        watch.server = progress.server;
        watch.local_port = progress.local_port;
    });
    let mut connection = connected?;
    let response = connection
        .send(Method::GET, &args.path, String::new())
        .await?;
    if response.status() != StatusCode::OK {
        return Err(Failure::status(response.status()));
    }
    update(board, index, |watch| watch.opened = Some(boot_now()));
    drop(permit);
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
        let now = boot_now();
        update(board, index, |watch| {
            if let Some(before) = watch.last_event.or(watch.opened) {
                watch.longest_silence = watch.longest_silence.max(now - before);
            }
            watch.last_event = Some(now);
        });
    }
    Err(Failure::eof())
}

/// Opens the watches. Writes a snapshot for each line on standard input, and a last one at
/// SIGTERM.
///
/// # Errors
/// The certificates cannot be read or the output is closed.
pub async fn run(args: WatchArgs) -> Result<()> {
    let target = Target::new(&args.target)?;
    let mut stop = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let board: Board = Arc::new(Mutex::new(vec![Watch::default(); args.count]));
    let opening = Arc::new(Semaphore::new(OPENING));
    let args = Arc::new(args);
    for index in 0..args.count {
        let (target, args) = (target.clone(), Arc::clone(&args));
        let (board, opening) = (Arc::clone(&board), Arc::clone(&opening));
        tokio::spawn(async move {
            if let Err(error) = follow(&target, &args, &board, index, &opening).await {
                update(&board, index, |watch| {
                    watch.ended = Some(error.to_string());
                    watch.ended_at = Some(boot_now());
                });
            }
        });
    }
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    let mut out = tokio::io::stdout();
    loop {
        let more = tokio::select! {
            line = commands.next_line() => line.context("read a command")?.is_some(),
            _ = stop.recv() => false,
        };
        let snapshot = Snapshot {
            at: boot_now(),
            watches: board.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let mut line = serde_json::to_string(&snapshot).context("write a snapshot")?;
        line.push('\n');
        out.write_all(line.as_bytes()).await.context("write")?;
        out.flush().await.context("write")?;
        if !more {
            // Tokio's standard input cannot be interrupted while it waits.
            std::process::exit(0);
        }
    }
}
