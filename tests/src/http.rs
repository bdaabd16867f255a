//! The client side that load, watches and background writes share: one TLS connection, HTTP/1.1 on it.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clock::boot_now;
use crate::pki::Pki;
use crate::sys;

/// Where to connect to, and what to trust.
#[derive(Args, Debug, Clone)]
pub struct TargetArgs {
    /// Address and port of the server or the VIP
    #[arg(long)]
    pub target: SocketAddr,
    /// Folder with ca.crt and the servers' certificates
    #[arg(long)]
    pub pki: PathBuf,
    /// Bearer token to send
    #[arg(long)]
    pub token: Option<String>,
}

/// How a [`Failure`] says that the connection was reset.
pub(crate) const RESET: &str = "reset";

/// Why a request or a stream failed, in the words of the records.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    /// The name of an error; what happened to the connection, if anything has.
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                match io.kind() {
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Self::reset(),
                    ErrorKind::ConnectionRefused => return Self("refused".to_owned()),
                    ErrorKind::UnexpectedEof => return Self::eof(),
                    ErrorKind::TimedOut => return Self::timeout(),
                    _ => {}
                }
            }
            if let Some(hyper) = error.downcast_ref::<hyper::Error>()
                && (hyper.is_incomplete_message() || hyper.is_closed() || hyper.is_canceled())
            {
                return Self::eof();
            }
            cause = error.source();
        }
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self(text)
    }

    /// The peer, or whoever answered for it, reset the connection.
    #[must_use]
    pub fn reset() -> Self {
        Self(RESET.to_owned())
    }

    /// The connection ended in the middle of an answer.
    #[must_use]
    pub fn eof() -> Self {
        Self("eof".to_owned())
    }

    /// Nothing came in time.
    #[must_use]
    pub fn timeout() -> Self {
        Self("timeout".to_owned())
    }

    /// The server said something other than 200.
    #[must_use]
    pub fn status(status: hyper::StatusCode) -> Self {
        Self(format!("status {}", status.as_u16()))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::of(&error)
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self::of(&error)
    }
}

/// A server or the VIP, ready to be connected to.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: TlsConnector,
    servers: Arc<HashMap<Vec<u8>, String>>,
    token: Option<String>,
}

/// How far a connection has come; filled in as it goes, so that a failure shows it too.
#[derive(Debug, Default, Clone)]
pub struct Progress {
    /// When the kernel had TCP connected, boot-time nanoseconds.
    pub connected: Option<u64>,
    /// The client's port.
    pub local_port: u16,
    /// The server that showed its certificate.
    pub server: Option<String>,
}

/// An open connection. Dropped, it is closed by the client.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    token: Option<String>,
}

impl Target {
    /// Reads the certificates.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn new(args: &TargetArgs) -> Result<Self> {
        let pki = Pki::at(&args.pki);
        Ok(Self {
            address: args.target,
            tls: TlsConnector::from(pki.client_config()?),
            servers: Arc::new(pki.servers()?),
            token: args.token.clone(),
        })
    }

    /// Connects. With `keepalive`, TCP asks after the peer at that interval, as Go does.
    ///
    /// # Errors
    /// TCP, TLS or HTTP could not be set up; `progress` tells how far it came.
    pub async fn connect(
        &self,
        keepalive: Option<Duration>,
        progress: &mut Progress,
    ) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(self.address).await?;
        self.speak_http(stream, keepalive, progress).await
    }

    /// The same from a port of one's own (of IPv4).
    ///
    /// # Errors
    /// As [`connect`](Self::connect); or the port is not free.
    pub async fn connect_from(
        &self,
        port: u16,
        keepalive: Option<Duration>,
        progress: &mut Progress,
    ) -> Result<Connection, Failure> {
        let stream = self.dial_from(port).await?;
        self.speak_http(stream, keepalive, progress).await
    }

    async fn speak_http(
        &self,
        stream: TcpStream,
        keepalive: Option<Duration>,
        progress: &mut Progress,
    ) -> Result<Connection, Failure> {
        let stream = self.secure(stream, keepalive, progress).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // Requests on it report its failures.
            let _ = connection.await;
        });
        Ok(Connection {
            sender,
            host: self.address.to_string(),
            token: self.token.clone(),
        })
    }

    /// Makes one request from a port of one's own (of IPv4), and closes only after the server
    /// has. Returns the server's name.
    ///
    /// # Errors
    /// The port is not free, the connection failed, or the answer is not a 200.
    pub async fn visit(&self, from: u16, path: &str) -> Result<String, Failure> {
        let stream = self.dial_from(from).await?;
        let mut progress = Progress::default();
        let mut stream = self.secure(stream, None, &mut progress).await?;
        let authorization = self.token.as_ref().map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\n{authorization}Connection: close\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        if answer.starts_with(b"HTTP/1.1 200 ") {
            Ok(progress.server.unwrap_or_else(|| "unknown".to_owned()))
        } else {
            Err(Failure("status other than 200".to_owned()))
        }
    }

    async fn dial_from(&self, port: u16) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        socket.connect(self.address).await
    }

    /// TLS on a TCP connection.
    async fn secure(
        &self,
        stream: TcpStream,
        keepalive: Option<Duration>,
        progress: &mut Progress,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        // A client on a busy machine looks later than its kernel is connected: a third of a second
        // has been seen, and the server had lost its power meanwhile.
        let ago = sys::last_received(stream.as_fd())?;
        let ago = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
        progress.connected = Some(boot_now().saturating_sub(ago));
        progress.local_port = stream.local_addr()?.port();
        stream.set_nodelay(true)?;
        if let Some(interval) = keepalive {
            let keepalive = TcpKeepalive::new()
                .with_time(interval)
                .with_interval(interval);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        }
        let ip: IpAddr = self.address.ip();
        let stream = self
            .tls
            .connect(ServerName::IpAddress(ip.into()), stream)
            .await?;
        progress.server = stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first())
            .and_then(|certificate| self.servers.get(certificate.as_ref()).cloned());
        Ok(stream)
    }
}

impl Connection {
    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host)
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::of(&error))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// GET, and reads the whole answer, which must be a 200.
    ///
    /// # Errors
    /// The connection failed, or the answer is another.
    pub async fn get(&mut self, path: &str) -> Result<Bytes, Failure> {
        use http_body_util::BodyExt as _;
        let response = self.send(Method::GET, path, String::new()).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status == hyper::StatusCode::OK {
            Ok(body)
        } else {
            Err(Failure::status(status))
        }
    }
}
