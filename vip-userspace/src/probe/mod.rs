//! Asks a server whether it is ready: `GET /readyz` over TLS, by a new connection or by that of the
//! probe before; or only whether it takes connections.

mod answer;
mod credentials;
mod expiry;
mod insecure;
mod late;
pub mod proof;
mod trust;

pub use answer::Failure;
pub use credentials::{Credentials, News};
pub use trust::{Authority, Trust};

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use vip_node::health::Probe;
use vip_node::patience::Patience;

use crate::clock::now;
use answer::{Answer, Failed};
use credentials::{Secret, Store};
use expiry::Expiries;
use late::Late;
use trust::Verification;

/// What a server is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// A path like `/readyz`, by HTTPS.
    Http(String),
    /// Nothing: it is enough that it proves by TLS who it is.
    Tls,
    /// Nothing: it is enough that it takes the connection.
    Tcp,
}

/// What to ask, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is asked.
    pub ask: Ask,
    /// TCP port of the servers.
    pub port: u16,
    /// For a whole probe, from the first SYN to the end of the answer. An answer over an open
    /// connection may be waited for less long, by what the server usually takes.
    pub timeout: Duration,
    /// Whether to leave a connection open for [`Prober::probe_again`].
    pub keep_open: bool,
    /// What the servers' certificates are checked by.
    pub trust: Trust,
    /// What is shown to servers whose certificates were checked.
    pub credentials: Option<Credentials>,
}

/// What a probe found, and how long the answer took.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// What was found.
    pub probe: Probe,
    /// From the first SYN to the answer, of a server that serves.
    pub rtt: Option<Duration>,
    /// Why the probe failed; `None` if the server serves.
    pub failure: Option<Failure>,
    /// Until when the certificate that the server showed last is valid, in seconds since 1970; `None`
    /// while it has shown none.
    pub certificate_not_after: Option<i64>,
}

/// Longest answer that is read, in bytes. `/readyz` lists its checks in about 2,000.
const MAX_BODY: usize = 64 << 10;

/// Probes API servers.
#[derive(Debug)]
pub struct Prober {
    asker: Arc<Asker>,
    /// What came of probes that were not answered in time.
    late: Late,
    patience: Mutex<HashMap<IpAddr, Patience>>,
}

/// Asks servers.
#[derive(Debug)]
struct Asker {
    settings: Settings,
    verification: Verification,
    store: Option<Store>,
    /// The connection of the last probe.
    kept: Mutex<Option<Open>>,
    expiries: Expiries,
}

/// An open connection to a server. Its task ends with it.
#[derive(Debug)]
struct Open {
    sender: http1::SendRequest<Empty<Bytes>>,
    _tasks: JoinSet<hyper::Result<()>>,
}

impl Prober {
    /// Makes one. The CA file is read when it is needed and again when it changes, so it may
    /// come later: the agent starts before `kubeadm init` makes it.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        if settings.trust == Trust::Insecure && settings.ask != Ask::Tcp {
            tracing::warn!(
                "certificates of API servers are not checked (`insecure` in [health]): any host that \
                 answers counts as one"
            );
        }
        let asker = Asker {
            verification: Verification::new(settings.trust.clone()),
            store: settings.credentials.clone().map(Store::new),
            kept: Mutex::default(),
            expiries: Expiries::default(),
            settings,
        };
        Self {
            asker: Arc::new(asker),
            late: Late::default(),
            patience: Mutex::default(),
        }
    }

    /// What the credentials' last change brought, once.
    pub fn news(&self) -> Option<News> {
        self.asker.store.as_ref()?.news()
    }

    /// Probes the API server on a node. Ends within the time-out; what a server says later than
    /// that is told with the time-outs that follow, and never counts as an answer.
    ///
    /// The server's certificate must hold for the node's address (as an IP subject alternative
    /// name), as those that kubeadm makes do.
    pub async fn probe(&self, address: IpAddr) -> Found {
        let start = Instant::now();
        let Settings { timeout, port, .. } = self.asker.settings;
        let deadline = start + timeout;
        let connect = TcpStream::connect((address, port));
        let tcp = match timeout_at(deadline, connect).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(error)) if answered(&error) => {
                return self.failed(address, Failure::Refused, Probe::Refused);
            }
            Ok(Err(error)) => {
                let found = Probe::Silent(format!("no connection: {error}"));
                return self.failed(address, Failure::Unreachable, found);
            }
            Err(_) => {
                let found = Probe::Silent(format!("no answer within {timeout:?}"));
                return self.failed(address, Failure::ConnectTimeout, found);
            }
        };
        let asker = Arc::clone(&self.asker);
        let asking = async move { asker.ask(address, tcp).await };
        self.conclude(address, start, asking).await
    }

    /// Probes the API server on a node by the connection that the last probe has left open, which
    /// costs both sides little; by a new one if there is none.
    pub async fn probe_again(&self, address: IpAddr) -> Found {
        let asker = Arc::clone(&self.asker);
        let (Ask::Http(path), Some(open)) = (asker.settings.ask.clone(), asker.take_kept()) else {
            return self.probe(address).await;
        };
        let asking = async move { asker.request(address, &path, open).await };
        let found = self.conclude(address, Instant::now(), asking).await;
        Found { rtt: None, ..found }
    }

    /// Waits for the answer over a connection.
    async fn conclude(
        &self,
        address: IpAddr,
        start: Instant,
        asking: impl Future<Output = Result<Answer, Failed>> + Send + 'static,
    ) -> Found {
        let connected = now();
        let limit = self.asker.settings.timeout;
        let wait = self.patience(address, |patience| patience.wait(limit));
        let deadline = (Instant::now() + wait).min(start + limit);
        let mut asking = Box::pin(asking);
        let Ok(answer) = timeout_at(deadline, &mut asking).await else {
            self.patience(address, Patience::on_time_out);
            let mut reason = format!("timed out after {wait:?}");
            if let Some(late) = self.late.of(address) {
                reason = format!("{reason}; {late}");
            }
            self.late.wait(address, start, wait, asking);
            let found = Probe::Hung { reason, connected };
            return self.failed(address, Failure::AnswerTimeout, found);
        };
        self.late.forget(address);
        let took = start.elapsed();
        self.patience(address, |patience| patience.on_answer(took));
        let probe = match answer {
            Ok(Answer::Ready) => Probe::Ready,
            Ok(Answer::Unknown(reason)) => Probe::Unknown(reason),
            Err(Failed { why, text }) => return self.failed(address, why, Probe::NotReady(text)),
        };
        Found {
            probe,
            rtt: Some(took),
            failure: None,
            certificate_not_after: self.asker.expiries.of(address),
        }
    }

    fn failed(&self, address: IpAddr, why: Failure, probe: Probe) -> Found {
        Found {
            probe,
            rtt: None,
            failure: Some(why),
            certificate_not_after: self.asker.expiries.of(address),
        }
    }

    fn patience<T>(&self, address: IpAddr, with: impl FnOnce(&mut Patience) -> T) -> T {
        // A thread that panicked left a whole value.
        let mut all = self.patience.lock().unwrap_or_else(PoisonError::into_inner);
        with(all.entry(address).or_default())
    }
}

impl Asker {
    /// The connection that was left open, unless the server has closed it.
    fn take_kept(&self) -> Option<Open> {
        let open = self.kept().take();
        open.filter(|open| !open.sender.is_closed())
    }

    fn kept(&self) -> MutexGuard<'_, Option<Open>> {
        // A thread that panicked left a whole value or none.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Over an open connection. The error says why the server is not ready.
    async fn ask(&self, address: IpAddr, tcp: TcpStream) -> Result<Answer, Failed> {
        let path = match &self.settings.ask {
            Ask::Http(path) => Some(path),
            Ask::Tls => None,
            Ask::Tcp => return Ok(Answer::Unknown("takes connections".to_owned())),
        };
        let name = ServerName::IpAddress(address.into());
        let (secret, version) = self.secret();
        let certificate = match &secret {
            Some(Secret::Certificate(certificate)) => Some((certificate, version)),
            _ => None,
        };
        let config = match self.verification.config(certificate) {
            Ok(config) => config,
            Err(reason) => {
                // Whether it hangs can be seen all the same. It is told nothing.
                let unverified = trust::unverified().map_err(|error| Failure::Ca.because(error))?;
                let _whatever = TlsConnector::from(unverified).connect(name, tcp).await;
                return Err(Failure::Ca.because(reason));
            }
        };
        let connector = TlsConnector::from(config);
        let tls = connector.connect(name, tcp).await.map_err(|error| {
            let how = self.verification.describe();
            Failure::Tls.because(format!("TLS: {error} ({how})"))
        })?;
        let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
        if let Some(leaf) = shown.first() {
            self.expiries.note(address, leaf);
        }
        let Some(path) = path else {
            return Ok(Answer::Unknown("serves TLS".to_owned()));
        };
        let (sender, connection) = http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| http_error(&error))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let open = Open {
            sender,
            _tasks: tasks,
        };
        self.request(address, path, open).await
    }

    /// The credentials, and their version.
    fn secret(&self) -> (Option<Secret>, u64) {
        self.store.as_ref().map(Store::secret).unwrap_or_default()
    }

    /// Asks for a path. Leaves the connection open afterwards, if that is wanted.
    async fn request(&self, address: IpAddr, path: &str, mut open: Open) -> Result<Answer, Failed> {
        let (secret, _) = self.secret();
        let host = SocketAddr::new(address, self.settings.port);
        let mut request = Request::get(path)
            .header(HOST, host.to_string())
            .header(USER_AGENT, concat!("vip/", env!("CARGO_PKG_VERSION")));
        if let Some(Secret::Token(token)) = &secret {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| Failure::Http.because(format!("path {path:?}: {error}")))?;
        let response = open
            .sender
            .send_request(request)
            .await
            .map_err(|error| http_error(&error))?;
        let (status, body) = (response.status(), read(response).await);
        if self.settings.keep_open && body.is_some() {
            *self.kept() = Some(open);
        }
        match status {
            StatusCode::OK => Ok(Answer::Ready),
            // It serves; nothing follows for etcd and the rest.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let shown = self.store.as_ref().filter(|_| secret.is_some());
                let how = shown.map_or("without credentials".to_owned(), |store| {
                    store.credentials().describe()
                });
                Ok(Answer::Unknown(format!("{status} {how}")))
            }
            _ => Err(Failure::Status.because(refusal(status, &body.unwrap_or_default()))),
        }
    }
}

/// Whether the error of a connect proves that the node's kernel answered.
fn answered(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

fn http_error(error: &hyper::Error) -> Failed {
    Failure::Http.because(format!("HTTP: {error}"))
}

/// The whole answer; `None` if it is too long, or breaks off.
async fn read(response: Response<hyper::body::Incoming>) -> Option<Bytes> {
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
    Some(body.ok()?.to_bytes())
}

/// The status, and the checks that failed: `/readyz` lists them as `[-]name failed: …`.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let failed: Vec<_> = String::from_utf8_lossy(body)
        .lines()
        .filter_map(|line| line.strip_prefix("[-]")?.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    if failed.is_empty() {
        return status.to_string();
    }
    format!("{status}, failed: {}", failed.join(", "))
}

#[cfg(test)]
mod tests;
