//! The agent's Unix socket: a request is one line of JSON, its reply all that comes until the end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Changes;
use crate::run_dir::RunDir;

/// The agent answers in well under a millisecond, or at the end of a handover, unless it hangs.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A request to the agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// For its [`Status`](super::status::Status).
    Status,
    /// For what the agent of another node answers to this.
    At {
        /// Its name or address.
        node: String,
        /// One of those that an agent takes from others; see [`Request::is_for_others`].
        request: Box<Request>,
    },
    /// Let another node own the VIP. Answered with its name, once it does.
    ///
    /// If another node is the owner, its agent is asked, unless that was another agent's request.
    Handover {
        /// Its name or address; whichever is best if `None`.
        to: Option<String>,
    },
    /// Whether this node may leave the cluster, once it has drained.
    MayLeave {
        /// Also if no other node takes new connections.
        force: bool,
    },
    /// Leave the cluster, and take everything off this machine. Answered with this node's name, once
    /// that begins. A node must drain before it leaves.
    Leave {
        /// Also if no other node takes new connections.
        force: bool,
    },
    /// Forget a member that does not come back. Answered with its name.
    Forget {
        /// Its name or address.
        node: String,
    },
    /// Read the configuration again. Answered with [`Reloaded`].
    Reload,
    /// Bring no new connections to this node, or bring them again. Answered with [`Drained`],
    /// once the other nodes were told.
    Drain {
        /// Whether it is to take none.
        draining: bool,
        /// Also if nobody as good is left for them.
        force: bool,
    },
    /// For the number of connections that [`Cut`](Self::Cut) would reset. No node answers that does
    /// not drain.
    Clients,
    /// Reset the connections of other hosts and of pods to this node's servers, so that those that came
    /// by a VIP go to other nodes. Answered with their number. Nothing is reset on a node that does not
    /// drain.
    Cut,
}

impl Request {
    /// Whether an agent carries it out for the agent of another node. What takes a node off the cluster,
    /// or works on files, must be asked for on that node.
    #[must_use]
    pub const fn is_for_others(&self) -> bool {
        match self {
            Self::Handover { .. } | Self::Drain { .. } | Self::Clients | Self::Cut => true,
            Self::Status
            | Self::At { .. }
            | Self::MayLeave { .. }
            | Self::Leave { .. }
            | Self::Forget { .. }
            | Self::Reload => false,
        }
    }
}

/// Which agent a command asks.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The run directory of this machine's agent.
    pub run_dir: &'a RunDir,
    /// Name or address of the node whose agent that one asks; `None`: it answers itself.
    pub node: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// The agent of this machine.
    #[must_use]
    pub const fn here(run_dir: &'a RunDir) -> Self {
        Self {
            run_dir,
            node: None,
        }
    }

    /// Asks it.
    ///
    /// # Errors
    /// As [`ask`]; or the other agent cannot be asked, does not answer, or says no.
    pub fn ask<T: DeserializeOwned>(self, request: Request) -> anyhow::Result<T> {
        let request = match self.node {
            None => request,
            Some(node) => Request::At {
                node: node.to_owned(),
                request: Box::new(request),
            },
        };
        ask(self.run_dir, &request)
    }
}

/// The configuration was read again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reloaded {
    /// What has changed.
    Done(Changes),
    /// What is wrong in it, so that nothing has.
    Refused(String),
}

/// A node drains, or does no more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drained {
    /// Its name.
    pub node: String,
    /// Where new connections go for want of better nodes; `None` if there are some.
    pub instead: Option<String>,
    /// Why that could not be noted, if it could not: a drain ends with the next boot then, and
    /// what ended one holds until the next start of the agent.
    #[serde(default)]
    pub not_noted: Option<String>,
}

/// The agent's reply.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// What was asked for.
    Ok(T),
    /// The reason why there is none.
    Error(String),
}

impl<T> From<anyhow::Result<T>> for Reply<T> {
    fn from(result: anyhow::Result<T>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(error) => Self::Error(format!("{error:#}")),
        }
    }
}

/// Asks the agent of this machine.
///
/// # Errors
/// There is none, it does not answer, or it says no.
pub fn ask<T: DeserializeOwned>(run_dir: &RunDir, request: &Request) -> anyhow::Result<T> {
    let path = run_dir.socket();
    let mut stream = UnixStream::connect(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => anyhow::anyhow!(
            "no agent at {}: is `vip run` running on this node? See `crictl ps -a --name vip` or \
             `systemctl status vip`",
            path.display()
        ),
        ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{} is for root only: try again as root", path.display())
        }
        _ => anyhow::Error::from(error).context(format!("cannot connect to {}", path.display())),
    })?;
    stream
        .set_read_timeout(Some(TIMEOUT))
        .context("cannot set a time-out")?;
    let mut request = serde_json::to_string(request)?;
    request.push('\n');
    let mut text = String::new();
    stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.read_to_string(&mut text))
        .map_err(|error| match error.kind() {
            // As the kernel says that the time is over.
            ErrorKind::WouldBlock => {
                anyhow::anyhow!(
                    "the agent does not answer within {TIMEOUT:?}: it hangs. Its programs go on; \
                     `vip events` has the last events. Restart it"
                )
            }
            _ => anyhow::Error::from(error).context("cannot ask the agent"),
        })?;
    let reply: Reply<T> = serde_json::from_str(&text)
        .context("the agent's answer makes no sense: is it of another version?")?;
    match reply {
        Reply::Ok(value) => Ok(value),
        Reply::Error(why) => anyhow::bail!(why),
    }
}
