//! A load client: requests at a fixed rate, whatever became of those before (open loop), each
//! on a new TLS connection, and some on connections that are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::MissedTickBehavior;

use crate::clock::boot_now;
use crate::http::{Connection, Failure, Progress, RESET, Target, TargetArgs};

/// Time between two requests on a connection that is kept, unless new connections come more
/// slowly.
const KEPT_INTERVAL: Duration = Duration::from_millis(50);

/// The kernel counts the time since a connection was open in ticks of its timer, of at most 10 ms.
/// In nanoseconds.
const TICK: u64 = 10_000_000;

/// Arguments of `testbed load`.
#[derive(Args, Debug)]
pub struct LoadArgs {
    /// The server
    #[command(flatten)]
    pub target: TargetArgs,
    /// Path to GET
    #[arg(long, default_value = "/whoami")]
    pub path: String,
    /// Milliseconds between two requests on new connections
    #[arg(long, default_value_t = 5)]
    pub every_ms: u64,
    /// Requests under way at once; more count as failed
    #[arg(long, default_value_t = 2000)]
    pub in_flight: usize,
    /// Milliseconds after which a request has failed
    #[arg(long, default_value_t = 5000)]
    pub timeout_ms: u64,
    /// Connections that are kept, each with a request every 50 ms, or as often as new ones
    #[arg(long, default_value_t = 0)]
    pub keepalive: usize,
    /// Seconds to run; without it until SIGTERM
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Also writes a summary to this file at the end
    #[arg(long)]
    pub summary: Option<PathBuf>,
}

/// What became of one request. Times are boot-time nanoseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// When it was begun, before connecting.
    pub start: u64,
    /// When its TCP connection was there; before `start` on a connection that is kept.
    pub connected: Option<u64>,
    /// When it was over.
    pub end: u64,
    /// The server it reached, as far as it came to know.
    pub server: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// On a connection that is kept.
    pub kept: bool,
}

impl Request {
    /// True if the answer came.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.error.is_none()
    }

    /// True if its connection may have been held by a server that went down at `fault`
    /// (boot-time nanoseconds): it was open by then, and to that server or not known to which. Such
    /// a request cannot be saved by anybody. A connection that was begun by then and reset before the
    /// client found it open counts, too: what the kernel has not opened is refused, not reset.
    #[must_use]
    pub fn was_held_by(&self, server: &str, fault: u64) -> bool {
        let begun = self.start <= fault;
        let open = self
            .connected
            .is_some_and(|connected| connected <= fault || begun && connected <= fault + TICK);
        match &self.server {
            Some(name) => name == server && (begun || open),
            None => open || begun && self.connected.is_none() && self.was_reset(),
        }
    }

    fn was_reset(&self) -> bool {
        self.error.as_deref() == Some(RESET)
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connection = if self.kept { "kept" } else { "new" };
        let since_start = |time: u64| time.saturating_sub(self.start) / 1_000_000;
        write!(
            f,
            "at {} ms, {connection} connection",
            self.start / 1_000_000
        )?;
        match self.connected {
            Some(connected) => write!(f, ", open after {} ms", since_start(connected))?,
            None => f.write_str(", never open")?,
        }
        let server = self.server.as_deref().unwrap_or("unknown");
        write!(
            f,
            ", server {server}, over after {} ms",
            since_start(self.end)
        )
    }
}

/// What became of many.
#[derive(Debug, Clone, Default, Serialize, PartialEq, Eq)]
pub struct Summary {
    /// All of them.
    pub requests: usize,
    /// Those that failed.
    pub failed: usize,
    /// The longest time between two consecutive answers, in ms.
    pub gap_ms: u64,
    /// Answers by server.
    pub servers: BTreeMap<String, usize>,
    /// Failures by kind.
    pub errors: BTreeMap<String, usize>,
    /// The first few failures in full, for whoever has to find out why.
    #[serde(skip)]
    pub first_failures: String,
}

impl Summary {
    /// Sums up.
    pub fn of<'a>(requests: impl IntoIterator<Item = &'a Request>) -> Self {
        let mut summary = Self::default();
        let mut answers = Vec::new();
        for request in requests {
            summary.requests += 1;
            if let Some(error) = &request.error {
                summary.failed += 1;
                if summary.failed <= 5 {
                    summary.first_failures += &format!("\n  {request}");
                }
                *summary.errors.entry(error.clone()).or_default() += 1;
            } else {
                answers.push(request.end);
                let server = request.server.clone().unwrap_or_else(|| "unknown".into());
                *summary.servers.entry(server).or_default() += 1;
            }
        }
        answers.sort_unstable();
        summary.gap_ms = answers
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) / 1_000_000)
            .max()
            .unwrap_or(0);
        summary
    }
}

/// One request on a new connection.
async fn fresh(target: &Target, path: &str, timeout: Duration) -> Request {
    let start = boot_now();
    let mut progress = Progress::default();
    let work = async {
        let mut connection = target.connect(None, &mut progress).await?;
        connection.get(path).await
    };
    let result = tokio::time::timeout(timeout, work)
        .await
        .unwrap_or_else(|_| Err(Failure::timeout()));
    Request {
        start,
        connected: progress.connected,
        end: boot_now(),
        server: progress.server,
        error: result.err().map(|error| error.to_string()),
        kept: false,
    }
}

/// Requests on one connection, made anew when it fails.
async fn kept(
    target: Target,
    path: Arc<str>,
    pause: Duration,
    timeout: Duration,
    results: mpsc::UnboundedSender<Request>,
) {
    let mut interval = tokio::time::interval(pause);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open: Option<Connection> = None;
    let mut progress = Progress::default();
    while !results.is_closed() {
        interval.tick().await;
        let start = boot_now();
        let work = async {
            let mut connection = match open.take() {
                Some(connection) => connection,
                None => {
                    progress = Progress::default();
                    target.connect(None, &mut progress).await?
                }
            };
            connection.get(&path).await?;
            Ok::<_, Failure>(connection)
        };
        let result = tokio::time::timeout(timeout, work)
            .await
            .unwrap_or_else(|_| Err(Failure::timeout()));
        let request = Request {
            start,
            connected: progress.connected,
            end: boot_now(),
            server: progress.server.clone(),
            error: result.as_ref().err().map(ToString::to_string),
            kept: true,
        };
        open = result.ok();
        let _ = results.send(request);
    }
}

/// Runs until SIGTERM or the time is over, and writes one line of JSON a request.
///
/// # Errors
/// The certificates cannot be read or the output is closed.
pub async fn run(args: LoadArgs) -> Result<()> {
    let target = Target::new(&args.target)?;
    let path: Arc<str> = args.path.into();
    let timeout = Duration::from_millis(args.timeout_ms);
    let pause = KEPT_INTERVAL.max(Duration::from_millis(args.every_ms));
    let (results, mut finished) = mpsc::unbounded_channel();
    let permits = Arc::new(Semaphore::new(args.in_flight));
    let mut stop = signal(SignalKind::terminate()).context("handle SIGTERM")?;

    let issue = async {
        let mut keepers = Vec::new();
        for _ in 0..args.keepalive {
            let (target, path, results) = (target.clone(), Arc::clone(&path), results.clone());
            keepers.push(tokio::spawn(kept(target, path, pause, timeout, results)));
        }
        let end = async {
            match args.seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        let mut interval = tokio::time::interval(Duration::from_millis(args.every_ms.max(1)));
        interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                _ = stop.recv() => break,
                () = &mut end => break,
            }
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                let now = boot_now();
                let _ = results.send(Request {
                    start: now,
                    connected: None,
                    end: now,
                    server: None,
                    error: Some("not sent: too many under way".to_owned()),
                    kept: false,
                });
                continue;
            };
            let (target, path, results) = (target.clone(), Arc::clone(&path), results.clone());
            tokio::spawn(async move {
                let _ = results.send(fresh(&target, &path, timeout).await);
                drop(permit);
            });
        }
        for keeper in keepers {
            keeper.abort();
        }
        // The last request under way drops the last sender, which ends the writer.
        drop(results);
        anyhow::Ok(())
    };
    let write = async {
        let mut out = tokio::io::stdout();
        let mut requests = Vec::new();
        let mut batch = Vec::new();
        while finished.recv_many(&mut batch, 256).await > 0 {
            let mut text = String::new();
            for request in &batch {
                text += &serde_json::to_string(request).context("write a record")?;
                text.push('\n');
            }
            out.write_all(text.as_bytes()).await.context("write")?;
            out.flush().await.context("write")?;
            requests.append(&mut batch);
        }
        anyhow::Ok(requests)
    };
    let ((), requests) = tokio::try_join!(issue, write)?;
    if let Some(path) = args.summary {
        let summary = serde_json::to_string(&Summary::of(&requests)).context("sum up")?;
        std::fs::write(&path, summary).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(end_ms: u64, server: &str, error: Option<&str>) -> Request {
        Request {
            start: 9,
            connected: Some(10),
            end: end_ms * 1_000_000,
            server: (!server.is_empty()).then(|| server.to_owned()),
            error: error.map(str::to_owned),
            kept: false,
        }
    }

    #[test]
    fn gap_is_between_answers_in_the_order_of_their_end_and_failures_do_not_fill_it() {
        let requests = [
            request(900, "n1", None),
            request(100, "n2", None),
            request(500, "", Some("reset")),
        ];
        let summary = Summary::of(&requests);
        assert_eq!((summary.requests, summary.failed), (3, 1));
        assert_eq!(summary.gap_ms, 800);
        assert_eq!(summary.servers.len(), 2);
        assert_eq!(summary.errors["reset"], 1);
    }

    #[test]
    fn only_what_reached_the_server_or_was_open_at_the_fault_can_have_been_held() {
        assert!(request(1, "n1", Some("reset")).was_held_by("n1", 10));
        assert!(request(1, "", Some("reset")).was_held_by("n1", 10));
        assert!(request(1, "n1", Some("reset")).was_held_by("n1", 9));
        assert!(!request(1, "n2", Some("reset")).was_held_by("n1", 10));
        assert!(request(1, "", Some("reset")).was_held_by("n1", 9));
        assert!(!request(1, "", Some("reset")).was_held_by("n1", 8));
        let never_open = |error| Request {
            connected: None,
            ..request(1, "", Some(error))
        };
        assert!(never_open("reset").was_held_by("n1", 9));
        assert!(!never_open("reset").was_held_by("n1", 8));
        assert!(!never_open("timeout").was_held_by("n1", 9));
    }
}
