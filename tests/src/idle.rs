//! Plain TCP connections on which nothing is sent: a server that holds them, a client that holds many
//! and counts how they end, and one that comes and goes.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::clock::boot_now;

/// Arguments of `testbed accept`.
#[derive(Args, Debug)]
pub struct AcceptArgs {
    /// Address to listen on; another program may listen on all addresses, and on this one, too
    #[arg(long)]
    pub address: SocketAddrV4,
    /// The server's name, which each client gets
    #[arg(long)]
    pub name: String,
}

/// Arguments of `testbed hold`.
#[derive(Args, Debug)]
pub struct HoldArgs {
    /// The server
    #[arg(long)]
    pub target: SocketAddrV4,
    /// Address to connect from
    #[arg(long)]
    pub from: Ipv4Addr,
    /// Port of the first connection; the others come from the ports after it
    #[arg(long)]
    pub first_port: u16,
    /// Connections
    #[arg(long)]
    pub count: u16,
}

/// Arguments of `testbed come-and-go`.
#[derive(Args, Debug)]
pub struct ComeAndGoArgs {
    /// The server
    #[arg(long)]
    pub target: SocketAddrV4,
    /// Addresses to connect from, which take turns
    #[arg(long, value_delimiter = ',', required = true)]
    pub from: Vec<Ipv4Addr>,
    /// Port of the first connection of each address; the others come from the ports after it
    #[arg(long)]
    pub first_port: u16,
    /// Connections in a second
    #[arg(long)]
    pub rate: u32,
    /// Connections
    #[arg(long)]
    pub count: u32,
}

/// The connections of a client to one server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Held {
    /// All that were opened.
    pub opened: usize,
    /// When those that were reset were, in boot-time nanoseconds, in no order.
    pub resets: Vec<u64>,
    /// Those that ended in another way.
    pub ended_otherwise: usize,
}

impl Held {
    /// Adds those of another client to the same server.
    pub fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.resets.extend(&other.resets);
        self.ended_otherwise += other.ended_otherwise;
    }

    /// Those that have ended.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.resets.len() + self.ended_otherwise
    }
}

/// The connections of a client, by their servers' names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Those that are or were open.
    pub servers: BTreeMap<String, Held>,
    /// Those that could not be opened.
    pub failed: usize,
}

/// What became of short connections.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Visits {
    /// Those that began and ended as they should.
    pub done: u32,
    /// The others.
    pub failed: u32,
    /// Seconds from the first to the last.
    pub seconds: f64,
}

/// Connections being opened at once.
const OPENING: usize = 64;

/// A short connection that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// As many open files as the machine allows a process.
fn lift_file_limit() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise the limit of open files")
}

/// Accepts connections, sends the name, and holds each until the client ends it.
///
/// # Errors
/// The address is taken, or there are too many connections.
pub async fn accept(args: AcceptArgs) -> Result<()> {
    lift_file_limit()?;
    let socket = TcpSocket::new_v4().context("make a socket")?;
    socket.set_reuseaddr(true).context("set SO_REUSEADDR")?;
    socket.set_reuseport(true).context("set SO_REUSEPORT")?;
    let address = args.address;
    socket
        .bind(address.into())
        .with_context(|| format!("bind to {address}"))?;
    let listener = socket.listen(4096).context("listen")?;
    let name: Arc<str> = args.name.into();
    loop {
        let (mut stream, _) = listener.accept().await.context("accept a connection")?;
        let name = Arc::clone(&name);
        tokio::spawn(async move {
            // A client that goes away is no event for a server.
            if stream.write_all(name.as_bytes()).await.is_ok() {
                wait_for_end(&mut stream).await;
            }
        });
    }
}

/// Waits until the other side ends the connection. Returns whether it was reset.
async fn wait_for_end(stream: &mut TcpStream) -> bool {
    let mut rest = [0; 16];
    loop {
        match stream.read(&mut rest).await {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// Connects from an address and a port. Returns the server's name, too.
async fn connect(from: SocketAddrV4, target: SocketAddrV4) -> Result<(TcpStream, String)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(from.into())?;
    let mut stream = socket.connect(target.into()).await?;
    let mut name = [0; 16];
    let length = stream.read(&mut name).await?;
    Ok((stream, std::str::from_utf8(&name[..length])?.to_owned()))
}

/// The tally, shared by the tasks of the connections.
type Board = Arc<Mutex<Tally>>;

fn update(board: &Board, change: impl FnOnce(&mut Tally)) {
    change(&mut board.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Opens a connection, and waits until it ends.
async fn hold_one(board: Board, opening: Arc<Semaphore>, from: SocketAddrV4, target: SocketAddrV4) {
    let permit = opening.acquire().await;
    let Ok((mut stream, name)) = connect(from, target).await else {
        update(&board, |tally| tally.failed += 1);
        return;
    };
    drop(permit);
    update(&board, |tally| {
        tally.servers.entry(name.clone()).or_default().opened += 1;
    });
    let was_reset = wait_for_end(&mut stream).await;
    let now = boot_now();
    update(&board, |tally| {
        let held = tally.servers.entry(name).or_default();
        if was_reset {
            held.resets.push(now);
        } else {
            held.ended_otherwise += 1;
        }
    });
}

/// Opens the connections and holds them. Writes a [`Tally`] for each line on standard input, and ends
/// with that.
///
/// # Errors
/// The output is closed.
pub async fn hold(args: HoldArgs) -> Result<()> {
    lift_file_limit()?;
    let board = Board::default();
    let opening = Arc::new(Semaphore::new(OPENING));
    for number in 0..args.count {
        let from = SocketAddrV4::new(args.from, args.first_port + number);
        let (board, opening) = (Arc::clone(&board), Arc::clone(&opening));
        tokio::spawn(hold_one(board, opening, from, args.target));
    }
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while commands.next_line().await?.is_some() {
        let tally = board.lock().unwrap_or_else(PoisonError::into_inner).clone();
        write(&tally).await?;
    }
    Ok(())
}

async fn write(value: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(value)? + "\n";
    let mut out = tokio::io::stdout();
    out.write_all(line.as_bytes()).await.context("write")?;
    out.flush().await.context("write")
}

/// Opens a connection, takes the name, and ends it in order.
async fn visit(from: SocketAddrV4, target: SocketAddrV4) -> Result<()> {
    let (mut stream, _) = connect(from, target).await?;
    stream.shutdown().await?;
    wait_for_end(&mut stream).await;
    Ok(())
}

/// Opens and ends connections at a rate. Writes [`Visits`] when all are over.
///
/// # Errors
/// The output is closed.
pub async fn come_and_go(args: ComeAndGoArgs) -> Result<()> {
    lift_file_limit()?;
    let begin = Instant::now();
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let addresses = args.from.len() as u32;
    let mut visits = JoinSet::new();
    let mut started = 0;
    while started < args.count {
        ticks.tick().await;
        let due = begin.elapsed().as_secs_f64() * f64::from(args.rate);
        while started < args.count && f64::from(started) <= due {
            let address = args.from[(started % addresses) as usize];
            let port = args.first_port + (started / addresses) as u16;
            let from = SocketAddrV4::new(address, port);
            visits.spawn(timeout(TIMEOUT, visit(from, args.target)));
            started += 1;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let ended = visits.join_all().await;
    let done = ended.iter().filter(|end| matches!(end, Ok(Ok(())))).count() as u32;
    write(&Visits {
        done,
        failed: args.count - done,
        seconds,
    })
    .await
}
