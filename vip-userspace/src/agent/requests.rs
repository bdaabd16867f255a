//! The agent's socket: requests of `vip status` and other commands, and the replies; and who else asks.

use std::fs::{self, Permissions};
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use socket2::SockRef;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::remote::Caller;
use crate::observe::socket::{Reply, Request};
use crate::run_dir::RunDir;

/// Longest wait for a request on the socket, and for its reader.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest request, in bytes.
const LONGEST: u64 = 4096;

/// Who has asked, and gets the reply.
pub(super) enum Asker {
    /// A command on this machine.
    Command(UnixStream),
    /// The agent of another node.
    Agent(Caller),
}

impl Asker {
    /// Whether it waits no more. It has told the operator that it failed: it must not be done later.
    pub(super) fn has_gone(&self) -> bool {
        match self {
            Self::Command(stream) => SockRef::from(stream)
                .peek(&mut [MaybeUninit::uninit()])
                .is_ok_and(|read| read == 0),
            Self::Agent(_) => false,
        }
    }

    /// Refuses the request, whatever it is.
    pub(super) async fn refuse(self, why: String) {
        self.reply(Reply::<()>::Error(why)).await;
    }

    /// Sends the reply.
    pub(super) async fn reply<T: Serialize>(self, said: Reply<T>) {
        match self {
            Self::Command(mut stream) => reply(&mut stream, &said).await,
            Self::Agent(caller) => caller.reply(&said),
        }
    }
}

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
pub(super) async fn hear(stream: UnixStream, requests: mpsc::Sender<(Request, Asker)>) {
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
            let _gone = requests.send((request, Asker::Command(stream))).await;
        }
        Err(error) => reply(&mut stream, &Reply::<()>::Error(error.to_string())).await,
    }
}

/// Sends a reply, unless its reader is too slow.
async fn reply<T: Serialize>(stream: &mut UnixStream, reply: &Reply<T>) {
    match serde_json::to_string(reply) {
        // The asker may have gone.
        Ok(text) => drop(timeout(PATIENCE, stream.write_all(text.as_bytes())).await),
        Err(error) => tracing::warn!(%error, "cannot answer"),
    }
}
