//! A stand-in for an API server, for machines without kube-apiserver: real TLS and HTTP/1.1,
//! `/readyz`, an endless watch.
//!
//! SIGUSR1 makes `/readyz` answer 503, SIGUSR2 makes it answer 200 again: draining, as a
//! server does it that ends with a delay. From SIGHUP on `/readyz` answers 401 to requests without
//! the bearer token, as a server with `--anonymous-auth=false` does.

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use hyper::header::AUTHORIZATION;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::task::{Poll, ready};
use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Interval;
use tokio_rustls::TlsAcceptor;

use crate::pki::Pki;

/// Arguments of `testbed serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// The server's name, which is also that of its certificate
    #[arg(long)]
    pub name: String,
    /// Port to listen on, on all addresses
    #[arg(long, default_value_t = crate::topology::PORT)]
    pub port: u16,
    /// Folder with the certificates
    #[arg(long)]
    pub pki: PathBuf,
    /// File with the bearer token that is asked for from SIGHUP on; read for each request
    #[arg(long)]
    pub token_file: Option<PathBuf>,
}

/// What the signals have set.
#[derive(Debug, Default)]
struct Mode {
    /// `/readyz` answers 503.
    draining: AtomicBool,
    /// `/readyz` demands the token.
    locked: AtomicBool,
}

/// Time between two events of a watch.
const EVENT_INTERVAL: Duration = Duration::from_millis(100);

/// The same of a watch of things that seldom change: thousands of them keep no processor busy.
const RARE_INTERVAL: Duration = Duration::from_secs(10);

/// An endless body: a line of JSON at each interval.
struct Events {
    server: Arc<str>,
    sequence: u64,
    interval: Interval,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.interval.poll_tick(context));
        self.sequence += 1;
        let event = serde_json::json!({ "server": &*self.server, "sequence": self.sequence });
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(format!("{event}\n"))))))
    }
}

/// Whether a request carries the token in the file.
fn is_authorized<B>(request: &Request<B>, token_file: Option<&PathBuf>) -> bool {
    let token = token_file.and_then(|path| std::fs::read_to_string(path).ok());
    let sent = request.headers().get(AUTHORIZATION);
    token.is_some_and(|token| {
        sent.is_some_and(|sent| sent.as_bytes() == format!("Bearer {}", token.trim()).as_bytes())
    })
}

fn events(name: &Arc<str>, interval: Duration) -> Response<BoxBody<Bytes, Infallible>> {
    let events = Events {
        server: Arc::clone(name),
        sequence: 0,
        interval: tokio::time::interval(interval),
    };
    Response::new(events.boxed())
}

fn answer(path: &str, name: &Arc<str>, readyz: StatusCode) -> Response<BoxBody<Bytes, Infallible>> {
    let text = |status, text: &str| {
        let mut response = Response::new(Full::new(Bytes::from(text.to_owned())).boxed());
        *response.status_mut() = status;
        response
    };
    match path {
        "/readyz" if readyz == StatusCode::OK => text(readyz, "ok"),
        "/readyz" => text(readyz, "no"),
        "/whoami" => text(StatusCode::OK, name),
        // Some dozens of full segments.
        "/big" => text(StatusCode::OK, &"x".repeat(64 << 10)),
        "/watch" => events(name, EVENT_INTERVAL),
        "/watch/rare" => events(name, RARE_INTERVAL),
        _ => text(StatusCode::NOT_FOUND, "not found"),
    }
}

/// Serves until the process is ended.
///
/// # Errors
/// The certificates cannot be read or the port is taken.
pub async fn run(args: ServeArgs) -> Result<()> {
    let tls = TlsAcceptor::from(Arc::new(Pki::at(&args.pki).server_config(&args.name)?));
    let name: Arc<str> = args.name.into();
    let mode = Arc::new(Mode::default());
    for kind in [
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::hangup(),
    ] {
        let mut stream = signal(kind).context("handle a signal")?;
        let mode = Arc::clone(&mode);
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if kind == SignalKind::hangup() {
                    mode.locked.store(true, Ordering::Relaxed);
                } else {
                    let draining = kind == SignalKind::user_defined1();
                    mode.draining.store(draining, Ordering::Relaxed);
                }
            }
        });
    }
    let token_file = Arc::new(args.token_file);

    // All addresses of both families, as a Go program would.
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, args.port));
    let socket = TcpSocket::new_v6().context("make a socket")?;
    socket.set_reuseaddr(true).context("set SO_REUSEADDR")?;
    // Beside it, a server by plain TCP may listen at the VIP alone (`testbed accept`).
    socket.set_reuseport(true).context("set SO_REUSEPORT")?;
    socket
        .bind(address)
        .with_context(|| format!("bind to {address}"))?;
    let listener = socket.listen(1024).context("listen")?;
    loop {
        let (stream, _) = listener.accept().await.context("accept a connection")?;
        let (tls, name) = (tls.clone(), Arc::clone(&name));
        let (mode, token_file) = (Arc::clone(&mode), Arc::clone(&token_file));
        tokio::spawn(async move {
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                let locked = mode.locked.load(Ordering::Relaxed);
                let readyz = if locked && !is_authorized(&request, token_file.as_ref().as_ref()) {
                    StatusCode::UNAUTHORIZED
                } else if mode.draining.load(Ordering::Relaxed) {
                    StatusCode::SERVICE_UNAVAILABLE
                } else {
                    StatusCode::OK
                };
                let response = answer(request.uri().path(), &name, readyz);
                async move { Ok::<_, Infallible>(response) }
            });
            // A client that goes away is no event for a server.
            let _ = stream.set_nodelay(true);
            if let Ok(stream) = tls.accept(stream).await {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        });
    }
}
