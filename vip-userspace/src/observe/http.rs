//! The agent's HTTP server: metrics, probes for the kubelet, the status page.
//!
//! It only reads. Each request goes to the agent's loop as a [`Question`]; an agent that does not
//! answer is not healthy.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::event::Record;
use super::metrics::{self, Instruments};
use super::status::Status;
use crate::config::Listen;
use vip_node::Fault;
use vip_node::hooks::Hook;

/// A request to the loop.
#[derive(Debug)]
pub enum Question {
    /// For the status.
    Status(oneshot::Sender<anyhow::Result<Status>>),
    /// For the events from this number on.
    Events(u64, oneshot::Sender<Vec<Record>>),
}

/// The agent has not begun, since something that it needs is missing. It is healthy, and not
/// ready.
#[derive(Debug, thiserror::Error)]
#[error("the agent waits for its network: {0}")]
pub struct Waits(pub String);

/// An agent that runs answers within a millisecond or two.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longest wait for a request on a connection that was opened, or kept open.
const IDLE: Duration = Duration::from_secs(90);

/// Connections at a time to each address: kubelet, a scraper or two, some browsers. One more ends the
/// oldest: whoever holds many must not keep the kubelet's probe from being answered.
const CONNECTIONS: usize = 64;

/// The status page, which fetches the rest from here.
const PAGE: &str = include_str!("page.html");

/// It loads nothing from elsewhere, and nobody may frame it.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
     script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'";

/// The listening sockets, if there are any.
pub struct Server {
    place: Option<Listen>,
    /// Where it listens.
    listeners: Vec<(SocketAddr, TcpListener)>,
    state: Arc<State>,
    /// What is served at each of these addresses, the oldest first.
    served: Mutex<BTreeMap<SocketAddr, VecDeque<AbortHandle>>>,
}

struct State {
    questions: mpsc::Sender<Question>,
    instruments: Instruments,
}

impl Server {
    /// A server that does not listen yet, and never will without a place.
    #[must_use]
    pub fn new(
        place: Option<Listen>,
        instruments: Instruments,
    ) -> (Self, mpsc::Receiver<Question>) {
        let (questions, asked) = mpsc::channel(16);
        let server = Self {
            place,
            listeners: Vec::new(),
            state: Arc::new(State {
                questions,
                instruments,
            }),
            served: Mutex::default(),
        };
        (server, asked)
    }

    /// Where to listen from the next [`listen`](Self::listen) on.
    pub const fn place(&mut self, place: Option<Listen>) {
        self.place = place;
    }

    /// Listens wherever it does not yet, on the node that has this address now.
    ///
    /// # Errors
    /// A port is in use, say. The next call tries again.
    pub async fn listen(&mut self, node: IpAddr) -> io::Result<()> {
        let wanted = self.place.map_or_else(Vec::new, |place| place.on(node));
        self.listeners.retain(|(there, _)| wanted.contains(there));
        for address in wanted {
            if self.listeners.iter().any(|(there, _)| *there == address) {
                continue;
            }
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|error| unbound(address, &error))?;
            tracing::info!(%address, "metrics, probes and status page");
            self.listeners.push((address, listener));
        }
        Ok(())
    }

    /// The next connection. Never, if it does not listen.
    pub async fn accept(&self) -> TcpStream {
        loop {
            let accepted = poll_fn(|context| {
                let mut polled = self
                    .listeners
                    .iter()
                    .map(|(_, one)| one.poll_accept(context));
                polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
            });
            match accepted.await {
                Ok((stream, _)) => return stream,
                // Out of file descriptors, say: no reason to spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Serves a connection, in a task of its own.
    pub fn serve(&self, stream: TcpStream) {
        // It is broken already.
        let Ok(at) = stream.local_addr() else {
            return;
        };
        let state = self.state.clone();
        let task = tokio::spawn(async move {
            let service = service_fn(|request| {
                let state = state.clone();
                async move { Ok::<_, Infallible>(answer(&request, &state).await) }
            });
            // A client that breaks off, or sends something else than HTTP, is not the agent's problem.
            let _broken = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let served = served.entry(at).or_default();
        served.retain(|one| !one.is_finished());
        served.push_back(task.abort_handle());
        if served.len() > CONNECTIONS
            && let Some(oldest) = served.pop_front()
        {
            oldest.abort();
        }
    }
}

/// Why nobody listens at an address.
fn unbound(address: SocketAddr, error: &io::Error) -> io::Error {
    let ip = address.ip();
    let text = match error.kind() {
        ErrorKind::AddrNotAvailable => {
            format!("{ip} is no address of this node: write node:PORT for each node's own address")
        }
        _ => format!("{address}: {error}"),
    };
    io::Error::new(error.kind(), text)
}

type Answer = Response<Full<Bytes>>;

async fn answer(request: &Request<Incoming>, state: &State) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    match request.uri().path() {
        "/" => page(),
        "/metrics" => match status(state).await {
            Ok(status) => typed(
                metrics::CONTENT_TYPE,
                metrics::render(&status, &state.instruments),
            ),
            Err(error) => unavailable(&error),
        },
        "/healthz" | "/livez" => match status(state).await {
            Ok(_) => text(StatusCode::OK, "ok\n"),
            Err(error) if error.is::<Waits>() => text(StatusCode::OK, format!("ok, {error}\n")),
            Err(error) => unavailable(&error),
        },
        "/readyz" => match status(state).await {
            Ok(status) => readiness(&status),
            Err(error) => unavailable(&error),
        },
        "/status.json" => match status(state).await {
            Ok(status) => json(&status),
            Err(error) => unavailable(&error),
        },
        "/events.json" => {
            let since = match since(request.uri().query().unwrap_or_default()) {
                Ok(since) => since,
                Err(why) => return text(StatusCode::BAD_REQUEST, why),
            };
            match ask(state, |to| Question::Events(since, to)).await {
                Ok(events) => json(&events),
                Err(error) => unavailable(&error),
            }
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /, /metrics, /healthz, /readyz, /status.json, /events.json?since=N\n",
        ),
    }
}

/// From which event on; from the first one that is kept if the query does not say.
fn since(query: &str) -> Result<u64, &'static str> {
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
    match (pairs.next(), pairs.next()) {
        (None, _) => Ok(0),
        (Some(pair), None) => pair
            .strip_prefix("since=")
            .and_then(|number| number.parse().ok())
            .ok_or("the query must be since=NUMBER\n"),
        _ => Err("the query must be since=NUMBER\n"),
    }
}

async fn ask<T>(
    state: &State,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> anyhow::Result<T> {
    let (to, answered) = oneshot::channel();
    let asked = async {
        state.questions.send(question(to)).await.ok()?;
        answered.await.ok()
    };
    match timeout(PATIENCE, asked).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => anyhow::bail!("the agent is ending"),
        Err(_) => anyhow::bail!("the agent does not answer within {PATIENCE:?}"),
    }
}

async fn status(state: &State) -> anyhow::Result<Status> {
    ask(state, Question::Status).await?
}

/// Whether the node could own the VIP and hears other agents: a line for each condition, in the
/// form of the API server's own `/readyz`.
fn readiness(status: &Status) -> Answer {
    let mut ready = true;
    let mut lines = String::new();
    let mut add = |name: &str, failed: Option<&str>| {
        ready &= failed.is_none();
        lines += &match failed {
            None => format!("[+]{name} ok\n"),
            Some("") => format!("[-]{name} failed\n"),
            Some(cause) => format!("[-]{name} failed: {cause}\n"),
        };
    };
    for fault in Fault::ALL {
        let failed = status.fault_codes.contains(&fault);
        add(fault.name(), failed.then(|| cause(status, fault)));
    }
    add("peers", status.hears_nobody.as_deref());
    let (code, verdict) = if ready {
        (StatusCode::OK, "readyz check passed\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "readyz check failed\n")
    };
    text(code, lines + verdict)
}

/// Why a program does not run, if that is the fault; empty otherwise.
fn cause(status: &Status, fault: Fault) -> &str {
    let hook = match fault {
        Fault::Ingress => Hook::Ingress,
        Fault::Egress => Hook::Egress,
        Fault::Carrier
        | Fault::Programs
        | Fault::Vip
        | Fault::Address
        | Fault::BfdPort
        | Fault::Unconfirmed => return "",
    };
    let hook = status.hooks.iter().find(|there| there.name == hook);
    hook.and_then(|hook| hook.cause.as_deref()).unwrap_or("")
}

fn page() -> Answer {
    let mut response = typed("text/html; charset=utf-8", PAGE);
    let policy = hyper::header::HeaderValue::from_static(PAGE_POLICY);
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, policy);
    response
}

fn json(value: &impl serde::Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(text) => typed("application/json", text),
        Err(error) => unavailable(&error.into()),
    }
}

fn unavailable(error: &anyhow::Error) -> Answer {
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n"))
}

fn text(code: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut response = typed("text/plain; charset=utf-8", body);
    *response.status_mut() = code;
    response
}

fn typed(kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    // All of it is about now.
    let no_store = hyper::header::HeaderValue::from_static("no-store");
    headers.insert(CACHE_CONTROL, no_store);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_asked_for_by_number_and_by_nothing_else() {
        assert_eq!(since(""), Ok(0));
        assert_eq!(since("since=17"), Ok(17));
        for wrong in ["since=", "since=-1", "from=1", "since=1&since=2", "x"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn whoever_holds_many_connections_keeps_nobody_else_out() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .expect("a free port")
            .port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let (mut server, _asked) = Server::new(Some(Listen::At(address)), Instruments::default());
        server.listen(address.ip()).await.expect("listens");
        let server = Arc::new(server);
        let accepting = server.clone();
        tokio::spawn(async move {
            loop {
                let stream = accepting.accept().await;
                accepting.serve(stream);
            }
        });
        let mut held = Vec::new();
        for _ in 0..=CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream
                .write_all(b"GET / HTTP/1.1\r\n")
                .await
                .expect("it is read");
            held.push(stream);
        }
        let mut last = TcpStream::connect(address).await.expect("it listens");
        let request = b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n";
        last.write_all(request).await.expect("it is read");
        let mut answer = String::new();
        last.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[test]
    fn the_nodes_own_address_is_followed_and_that_of_another_is_named() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|free| free.local_addr())
                .expect("a free port")
                .port();
            let (mut server, _asked) =
                Server::new(Some(Listen::Node(port)), Instruments::default());
            let hears = async |server: &Server, last: u8| {
                let asked = TcpStream::connect((IpAddr::from([127, 0, 0, last]), port)).await;
                if asked.is_ok() {
                    server.accept().await;
                }
                asked.is_ok()
            };
            for own in [2, 3] {
                let address = [127, 0, 0, own].into();
                server.listen(address).await.expect("listens");
                for (last, wanted) in [(1, true), (own, true), (5 - own, false)] {
                    assert_eq!(hears(&server, last).await, wanted, "{last} on {own}");
                }
            }
            let place = Listen::At(([192, 0, 2, 11], port).into());
            let (mut server, _asked) = Server::new(Some(place), Instruments::default());
            let error = server.listen([127, 0, 0, 1].into()).await;
            let text = error.expect_err("another node's").to_string();
            assert!(text.contains("no address of this node") && text.contains("node:PORT"));
        });
    }
}
