//! The agent's socket: requests of `vip status` and other commands, and the replies.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::observe::socket::{Reply, Request};
use crate::run_dir::RunDir;

/// Longest wait for a request on the socket, and for its reader.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest request, in bytes.
const LONGEST: u64 = 4096;

/// Opens the socket for `vip status`. The run directory lets only root in.
pub(super) fn listen(run_dir: &RunDir) -> anyhow::Result<UnixListener> {
    let directory = run_dir.path();
    fs::set_permissions(directory, Permissions::from_mode(0o700))
        .with_context(|| format!("cannot close {} to others", directory.display()))?;
    let path = run_dir.socket();
    // Left by an agent that was killed; the lock says that it does not live.
    let _old = fs::remove_file(&path);
    UnixListener::bind(&path).with_context(|| format!("cannot listen at {}", path.display()))
}

/// Removes the socket, so that commands see that no agent runs.
pub(super) fn remove_socket(run_dir: &RunDir) {
    let _gone = fs::remove_file(run_dir.socket());
}

/// Reads what somebody asks, in a task of its own: it may be slow.
pub(super) async fn hear(stream: UnixStream, requests: mpsc::Sender<(Request, UnixStream)>) {
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

/// Sends a reply, unless its reader is too slow.
pub(super) async fn reply<T: Serialize>(stream: &mut UnixStream, reply: &Reply<T>) {
    match serde_json::to_string(reply) {
        // The asker may have gone.
        Ok(text) => drop(timeout(PATIENCE, stream.write_all(text.as_bytes())).await),
        Err(error) => tracing::warn!(%error, "cannot answer"),
    }
}

/// Refuses a request, whatever it is.
pub(super) async fn refuse(mut stream: UnixStream, why: String) {
    reply(&mut stream, &Reply::<()>::Error(why)).await;
}
