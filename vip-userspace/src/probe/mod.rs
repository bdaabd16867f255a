//! Asks a server whether it is ready: `GET /readyz` over TLS, a new connection each time; or only
//! whether it takes connections.

mod insecure;
mod trust;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use trust::Verification;

/// How an API server shows that it is one of the cluster's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// By the cluster's CA, where kubeadm, k0s, RKE2 or k3s keep it: the first that is there.
    WellKnownCa,
    /// By the CA certificates in a PEM file.
    Ca(PathBuf),
    /// Not at all: whatever answers is believed.
    Insecure,
}

/// What to ask, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Path of the request, `/readyz` say; `None` to ask nothing: it is enough that the server
    /// takes the connection.
    pub path: Option<String>,
    /// TCP port of the servers.
    pub port: u16,
    /// For a whole probe, from the first SYN to the end of the answer.
    pub timeout: Duration,
    /// What the servers' certificates are checked by.
    pub trust: Trust,
}

/// What became of a probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProbeResult {
    /// Status 200.
    Ready {
        /// From the first SYN to the answer.
        rtt: Duration,
    },
    /// The node answers, but its API server does not say that it is ready.
    NotReady {
        /// One line for people.
        reason: String,
    },
    /// The node answers, but nobody listens there.
    Refused,
    /// Nothing came back: the node, or the way to it, may be down.
    Silent {
        /// One line for people.
        reason: String,
    },
}

/// Longest answer that is read, in bytes. `/readyz` lists its checks in about 2,000.
const MAX_BODY: usize = 64 << 10;

/// Probes API servers.
#[derive(Debug)]
pub struct Prober {
    settings: Settings,
    verification: Verification,
}

impl Prober {
    /// Makes one. The CA file is read when it is needed and again when it changes, so it may
    /// come later: the agent starts before `kubeadm init` makes it.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        if settings.trust == Trust::Insecure && settings.path.is_some() {
            tracing::warn!(
                "API servers are probed without a check of their certificates: \
                 whatever answers is believed"
            );
        }
        let verification = Verification::new(settings.trust.clone());
        Self {
            settings,
            verification,
        }
    }

    /// Probes the API server on a node. Ends within the time-out.
    ///
    /// The server's certificate must hold for the node's address (as an IP subject alternative
    /// name), as those that kubeadm makes do.
    pub async fn probe(&self, address: IpAddr) -> ProbeResult {
        let start = Instant::now();
        let deadline = start + self.settings.timeout;
        let connect = TcpStream::connect((address, self.settings.port));
        let tcp = match timeout_at(deadline, connect).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) if answered(&error) => return ProbeResult::Refused,
            Ok(Err(error)) => {
                let reason = format!("no connection: {error}");
                return ProbeResult::Silent { reason };
            }
            Err(_) => {
                let reason = format!("no answer within {:?}", self.settings.timeout);
                return ProbeResult::Silent { reason };
            }
        };
        let Some(path) = &self.settings.path else {
            let rtt = start.elapsed();
            return ProbeResult::Ready { rtt };
        };
        match timeout_at(deadline, self.ask(address, path, tcp)).await {
            Ok(Ok(())) => ProbeResult::Ready {
                rtt: start.elapsed(),
            },
            Ok(Err(reason)) => ProbeResult::NotReady { reason },
            Err(_) => {
                let reason = format!("timed out after {:?}", self.settings.timeout);
                ProbeResult::NotReady { reason }
            }
        }
    }

    /// Over an open connection. The error says why the server is not ready.
    async fn ask(&self, address: IpAddr, path: &str, tcp: TcpStream) -> Result<(), String> {
        let connector = TlsConnector::from(self.verification.config()?);
        let name = ServerName::IpAddress(address.into());
        let tls = connector.connect(name, tcp).await.map_err(|error| {
            let how = self.verification.describe();
            format!("TLS: {error} ({how})")
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| http_error(&error))?;
        // Ends with this probe, also when that is cut short.
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let host = SocketAddr::new(address, self.settings.port);
        let request = Request::get(path)
            .header(HOST, host.to_string())
            .header(USER_AGENT, concat!("vip/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| format!("path {path:?}: {error}"))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| http_error(&error))?;
        if response.status() == StatusCode::OK {
            return Ok(());
        }
        Err(refusal(response).await)
    }
}

/// Whether the error of a connect proves that the node's kernel answered.
fn answered(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

fn http_error(error: &hyper::Error) -> String {
    format!("HTTP: {error}")
}

/// The status, and the checks that failed: `/readyz` lists them as `[-]name failed: …`.
async fn refusal(response: Response<hyper::body::Incoming>) -> String {
    let status = response.status().to_string();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
    let Ok(body) = body else {
        return status;
    };
    let body = body.to_bytes();
    let failed: Vec<_> = String::from_utf8_lossy(&body)
        .lines()
        .filter_map(|line| line.strip_prefix("[-]")?.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    if failed.is_empty() {
        return status;
    }
    format!("{status}, failed: {}", failed.join(", "))
}

#[cfg(test)]
mod tests;
