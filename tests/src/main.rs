//! `testbed`: the programs that run on the hosts of a topology, and the demo.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use vip_tests::http::{Failure, Progress, Target, TargetArgs};
use vip_tests::vm::{exec, guest};
use vip_tests::{
    arp, background_writes, churn, demo, flood, forge, hooks, idle, isolation, load, ping, server,
    stray, watch,
};

/// Programs for tests and the demo of vip
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the whole: three nodes, faults one after the other, a table and a verdict
    Demo {
        /// Also write table and verdict to this file
        #[arg(long)]
        json: Option<PathBuf>,
        /// Run the same faults with keepalived and HAProxy, and compare
        #[arg(long)]
        versus: bool,
    },
    /// Lay out the network and API servers without agents, and wait to be ended
    Up,
    /// Serve as an API server's stand-in
    Serve(server::ServeArgs),
    /// Make requests at a fixed rate
    Load(load::LoadArgs),
    /// Hold watches open
    Watch(watch::WatchArgs),
    /// Keep watches of a real API server busy
    BackgroundWrites(background_writes::BackgroundWritesArgs),
    /// Ask who has the VIP, again and again
    Arp(arp::ArpArgs),
    /// Send frames at the VIP that no kernel would send
    Stray(stray::StrayArgs),
    /// Claim an address by gratuitous ARP
    Claim(stray::ClaimArgs),
    /// Ask for an ICMP echo
    Ping(ping::PingArgs),
    /// Make one request and print the answer
    Get {
        /// The server
        #[command(flatten)]
        target: TargetArgs,
        /// Path to GET
        #[arg(long, default_value = "/readyz")]
        path: String,
    },
    /// Send back what comes, by plain TCP
    Echo(churn::EchoArgs),
    /// Make connections and requests as fast as one thread can
    Churn(churn::ChurnArgs),
    /// Hold connections that come by plain TCP
    Accept(idle::AcceptArgs),
    /// Hold connections open by plain TCP, and say how they end
    Hold(idle::HoldArgs),
    /// Open and end connections by plain TCP at a rate
    ComeAndGo(idle::ComeAndGoArgs),
    /// Make one request from a given port, wait until the server closes, print its name
    Visit {
        /// The server
        #[command(flatten)]
        target: TargetArgs,
        /// Port to connect from
        #[arg(long)]
        from: u16,
        /// Path to GET
        #[arg(long, default_value = "/readyz")]
        path: String,
    },
    /// Show what hangs at the hooks of a network interface, one line each
    Hooks {
        /// The interface
        interface: String,
    },
    /// Fill the network namespace with socket lookup programs, so that there is no room for more,
    /// and wait to be ended
    Crowd,
    /// Send packets at a node that its agent has no use for
    Flood(flood::FloodArgs),
    /// Send what `record` has printed again, and in forms that no agent has sent
    Forge(forge::ForgeArgs),
    /// Send messages about connections to a node, recorded and invented ones, until ended
    ForgeRosters(forge::ForgeRostersArgs),
    /// Answer hellos in the name of a host
    Pretend(forge::PretendArgs),
    /// Print packets of other agents that come to this host
    Record(forge::RecordArgs),
    /// Attach a program to a hook of a network interface, and keep it there until ended
    Foreign(hooks::ForeignArgs),
    /// Run a program in the virtual machine that VIP_TESTS_GUEST names
    Exec {
        /// Program and arguments
        #[arg(last = true, required = true)]
        arguments: Vec<String>,
    },
    /// Be the first process of a virtual machine
    Guest,
    /// Run commands in a virtual machine for those outside
    GuestServer,
    /// Succeed if a TCP connection can be made, and print the address of its peer
    Reach {
        /// Where to
        address: SocketAddr,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before any thread starts.
    if matches!(cli.command, Command::Demo { .. } | Command::Up) {
        isolation::enter_empty_netns();
    }
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo { json, versus } => return demo::run(json.as_deref(), versus),
        Command::Exec { arguments } => return exec::run(arguments),
        Command::Guest => guest::run()?,
        Command::GuestServer => guest::serve()?,
        Command::Hooks { interface } => {
            for line in hooks::of(&interface)? {
                println!("{line}");
            }
        }
        Command::Crowd => hooks::crowd()?,
        Command::Flood(args) => flood::run(&args)?,
        Command::Forge(args) => forge::forge(&args)?,
        Command::ForgeRosters(args) => forge::forge_rosters(&args)?,
        Command::Pretend(args) => forge::pretend(&args)?,
        Command::Record(args) => forge::record(&args)?,
        Command::Foreign(args) => hooks::foreign(&args)?,
        Command::Up => demo::up()?,
        Command::Serve(args) => block_on(server::run(args))?,
        Command::Load(args) => block_on(load::run(args))?,
        Command::Watch(args) => block_on(watch::run(args))?,
        Command::BackgroundWrites(args) => block_on(background_writes::run(args))?,
        Command::Arp(args) => arp::run(&args)?,
        Command::Stray(args) => stray::run(&args)?,
        Command::Claim(args) => stray::claim(&args)?,
        Command::Ping(args) => ping::run(&args)?,
        Command::Get { target, path } => block_on(get(target, path))?,
        Command::Echo(args) => churn::echo(&args)?,
        Command::Churn(args) => churn::churn(&args)?,
        Command::Accept(args) => block_on(idle::accept(args))?,
        Command::Hold(args) => block_on(idle::hold(args))?,
        Command::ComeAndGo(args) => block_on(idle::come_and_go(args))?,
        Command::Visit { target, from, path } => block_on(visit(target, from, path))?,
        Command::Reach { address } => {
            let stream = std::net::TcpStream::connect(address)
                .with_context(|| format!("connect to {address}"))?;
            println!("{}", stream.peer_addr().context("ask for the peer")?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One thread is enough, and leaves the other cores to the others.
fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(work)
}

/// A connection and an answer that take longer do not come.
const TIMEOUT: Duration = Duration::from_secs(20);

async fn in_time<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T> {
    let done = tokio::time::timeout(TIMEOUT, work).await;
    Ok(done.context("no answer in time")??)
}

async fn get(target: TargetArgs, path: String) -> Result<()> {
    let mut progress = Progress::default();
    let target = Target::new(&target)?;
    let body = in_time(async {
        let mut connection = target.connect(None, &mut progress).await?;
        connection.get(&path).await
    })
    .await?;
    println!("{}", String::from_utf8_lossy(&body));
    Ok(())
}

async fn visit(target: TargetArgs, from: u16, path: String) -> Result<()> {
    let target = Target::new(&target)?;
    let server = in_time(target.visit(from, &path)).await?;
    println!("{server}");
    Ok(())
}
