//! Plain TCP that costs as little as it can, on both ends: what lies between them is to be seen
//! in the CPU time. Each thread has one connection at a time.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use clap::Args;

/// Bytes of a request, and of its answer.
const SIZE: usize = 100;

/// Arguments of `testbed echo`.
#[derive(Args, Debug)]
pub struct EchoArgs {
    /// Address to listen on
    #[arg(long, default_value_t = Ipv6Addr::UNSPECIFIED.into())]
    pub address: IpAddr,
    /// Port to listen on
    #[arg(long)]
    pub port: u16,
}

/// Arguments of `testbed churn`.
#[derive(Args, Debug)]
pub struct ChurnArgs {
    /// Servers, which take turns
    #[arg(long, value_delimiter = ',', required = true)]
    pub target: Vec<SocketAddr>,
    /// Connections of each thread, one after the other
    #[arg(long)]
    pub connections: u32,
    /// Threads
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Requests on each
    #[arg(long)]
    pub requests: u32,
}

/// Sends back what comes, until the process is ended.
///
/// # Errors
/// The port is taken.
pub fn echo(args: &EchoArgs) -> Result<()> {
    let address = SocketAddr::from((args.address, args.port));
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    let mut buffer = [0; SIZE];
    loop {
        let (mut stream, _) = listener.accept().context("accept a connection")?;
        stream.set_nodelay(true)?;
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                // A client that goes away is no event for a server.
                Ok(length) if stream.write_all(&buffer[..length]).is_err() => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }
}

/// Makes all connections and requests.
///
/// # Errors
/// One of them failed.
pub fn churn(args: &ChurnArgs) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|first| scope.spawn(move || one_after_the_other(args, first)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            let done = thread.join();
            done.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
        })
    })
}

/// What one thread does, beginning with the target in place `first`.
fn one_after_the_other(args: &ChurnArgs, first: usize) -> Result<()> {
    let request = [b'x'; SIZE];
    let targets = args.target.iter().cycle().skip(first);
    for (number, target) in (0..args.connections).zip(targets) {
        let context = || format!("connection {number} to {target}");
        let mut stream = TcpStream::connect(target).with_context(context)?;
        stream.set_nodelay(true)?;
        let mut answer = [0; SIZE];
        for _ in 0..args.requests {
            stream.write_all(&request).with_context(context)?;
            stream.read_exact(&mut answer).with_context(context)?;
            ensure!(answer == request, "{}: another answer", context());
        }
        // Closed in order, so that nobody on the way must guess.
        stream.shutdown(Shutdown::Write).with_context(context)?;
        let rest = stream.read(&mut answer).with_context(context)?;
        ensure!(rest == 0, "{}: more than was asked for", context());
    }
    Ok(())
}
