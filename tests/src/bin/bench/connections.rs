//! `cargo xtask bench connections`: what a connection, and a request on one that is kept, costs
//! more when it goes by the VIP than when it goes to the server at once.
//!
//! All hosts are network namespaces of one machine, so that its CPU time is that of clients,
//! servers and whatever lies between them; what direct connections take is subtracted, and what
//! a cluster takes at rest. Plain TCP, with as little work on both ends as there can be. Each
//! measurement has a cluster of its own, since daemons at rest would disturb the others':
//!
//! - `direct`: the client goes to the three servers in turn.
//! - `vip`: ours.
//! - `haproxy`: HAProxy in TCP mode on the VIP's owner.
//! - `nftables`: the owner's kernel translates addresses (DNAT, and masquerading for the way
//!   back).
//! - `ipvs`: the owner's kernel sends packets on to servers, which answer at once (direct server
//!   return), as keepalived tells it. Not every kernel has it: see `vm.rs`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use vip_tests::agent::Programs;
use vip_tests::clock::until;
use vip_tests::cluster::{Cluster, PATIENCE, Plan};
use vip_tests::outcome::Timeline;
use vip_tests::peers::keepalived;
use vip_tests::process::{Process, output};
use vip_tests::topology::{NIC, VIP, vip_by_hand};

use crate::report::{Better, Column, Figure, Goal, Label, Report, Row, median};

/// Port of the echo servers and of the VIP's service.
const ECHO: u16 = 7000;

/// Threads of the client: enough to keep all cores busy. With one, cores sleep and wake between
/// any two packets, and that costs more than the packets do.
const THREADS: u32 = 8;

/// How long a cluster is watched that does nothing.
const REST: Duration = Duration::from_secs(2);

/// The most that a connection may cost more, in what it costs more with HAProxy.
const GOAL: f64 = 0.25;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Balancer {
    /// To the servers in turn
    Direct,
    /// Ours
    Vip,
    /// HAProxy in TCP mode
    Haproxy,
    /// Address translation
    Nftables,
    /// Direct server return, by keepalived
    Ipvs,
}

impl Balancer {
    /// Those that every kernel has.
    pub(crate) const USUAL: &[Self] = &[Self::Direct, Self::Vip, Self::Haproxy, Self::Nftables];

    const COUNT: usize = 5;

    /// The head of a column with ratios to it.
    fn ratio(self) -> &'static str {
        match self {
            Self::Direct => "of direct",
            Self::Vip => "of vip",
            Self::Haproxy => "of HAProxy's",
            Self::Nftables => "of nftables",
            Self::Ipvs => "of IPVS",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Vip => "vip",
            Self::Haproxy => "haproxy",
            Self::Nftables => "nftables",
            Self::Ipvs => "ipvs",
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unit {
    /// A connection with one request.
    Connection,
    /// A request on a connection with many.
    Request,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection with one request",
            Self::Request => "request on a kept connection",
        }
    }
}

const LABELS: &[Label] = &[Label::new("unit", 28), Label::new("balancer", 8)];

/// With clients and servers.
const TOTAL: Column = Column {
    name: "",
    unit: "µs",
    better: Better::Lower,
    ratio: None,
    decimals: 1,
};

/// What it took more than `direct` in the same round.
const ADDED: Column = Column {
    name: "added",
    unit: "µs",
    better: Better::Lower,
    ratio: None,
    decimals: 1,
};

pub(super) fn run(
    json: Option<PathBuf>,
    rounds: usize,
    connections: u32,
    balancers: &[Balancer],
) -> Result<()> {
    let report = measure(rounds, connections, balancers)?;
    report.print();
    report.write_json(json)
}

/// The last one is what the others are compared with, unless HAProxy is among them.
pub(super) fn measure(rounds: usize, connections: u32, balancers: &[Balancer]) -> Result<Report> {
    ensure!(
        rounds > 0 && connections > 0,
        "--rounds and --connections must be at least 1"
    );
    let (Some(&last), true) = (balancers.last(), balancers.contains(&Balancer::Direct)) else {
        bail!("--balancers must contain direct, which is subtracted from the others");
    };
    let has_haproxy = balancers.contains(&Balancer::Haproxy);
    let reference = if has_haproxy { Balancer::Haproxy } else { last };
    let programs = Programs::find()?;
    let units = [Unit::Connection, Unit::Request];
    // By unit and balancer.
    let mut times = [const { [const { Vec::new() }; Balancer::COUNT] }; 2];
    for _ in 0..rounds {
        for &balancer in balancers {
            let setup = Setup::new(&programs, balancer)?;
            for (unit, times) in units.into_iter().zip(&mut times) {
                times[balancer as usize].push(setup.measure(unit, connections)?);
            }
        }
    }
    let title = format!("CPU time of all cores, median of {rounds} rounds");
    let compared = Column {
        ratio: Some(reference.ratio()),
        ..ADDED
    };
    let mut report = Report::new(title, LABELS, vec![TOTAL, compared]);
    for (unit, times) in units.into_iter().zip(&times) {
        let added = |balancer: Balancer| -> Vec<f64> {
            let direct = &times[Balancer::Direct as usize];
            let pairs = times[balancer as usize].iter().zip(direct);
            pairs.map(|(own, direct)| own - direct).collect()
        };
        let compared = median(&added(reference));
        for &balancer in balancers {
            let own = added(balancer);
            let ratio = median(&own) / compared;
            let has_goal = has_haproxy && balancer == Balancer::Vip && unit == Unit::Connection;
            let goal = has_goal.then(|| Goal::ratio(GOAL, ratio, ADDED.better));
            let total = median(&times[balancer as usize]);
            report.add(Row {
                labels: vec![unit.name().to_owned(), balancer.name().to_owned()],
                figures: vec![Figure::new(total), Figure::median(&own).ratio(ratio)],
                goals: goal.into_iter().collect(),
            });
        }
    }
    Ok(report)
}

/// A cluster with echo servers, reached by one of the balancers.
struct Setup {
    // Dropped before the hosts they run on.
    processes: Vec<Process>,
    cluster: Cluster,
    targets: String,
}

impl Setup {
    fn new(programs: &Programs, balancer: Balancer) -> Result<Self> {
        let plan = Plan {
            more: format!("\n[[services]]\nport = {ECHO}\n"),
            bare: balancer != Balancer::Vip,
            ..Plan::default()
        };
        let mut cluster = Cluster::start(programs, plan, &mut Timeline::new(false))?;
        let mut processes = Vec::new();
        for node in cluster.nodes() {
            let host = cluster.host(node);
            let mut echo = host.command(programs.testbed.as_os_str());
            echo.args(["echo", "--port", &ECHO.to_string()]);
            if !matches!(balancer, Balancer::Vip | Balancer::Ipvs) {
                // Else the first node's would answer for the VIP, and HAProxy could not.
                echo.args(["--address", &host.address().to_string()]);
            }
            processes.push(Process::daemon("echo", &mut echo, "/dev/null".as_ref())?);
        }
        for host in cluster.topology.hosts() {
            // Ports of connections that have ended are free again after a second.
            let reuse = "echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse";
            output(host.command("sh".as_ref()).args(["-c", reuse]))?;
        }
        let servers: Vec<String> = cluster
            .nodes()
            .iter()
            .map(|node| format!("{}:{ECHO}", cluster.host(*node).address()))
            .collect();
        let vip = format!("{VIP}:{ECHO}");
        let targets = match balancer {
            Balancer::Direct => servers.join(","),
            Balancer::Vip => {
                let nodes = cluster.nodes();
                cluster.wait_for_status("the echo servers are ready", &nodes, |_, _, status| {
                    let service = status
                        .services
                        .iter()
                        .find(|one| one.endpoint.to_string() == vip);
                    service.is_some_and(|service| service.usable.len() == 3)
                })?;
                vip
            }
            Balancer::Haproxy => {
                processes.push(haproxy(&cluster, &servers)?);
                vip
            }
            Balancer::Nftables => {
                nftables(&cluster)?;
                vip
            }
            Balancer::Ipvs => {
                processes.push(ipvs(&cluster)?);
                vip
            }
        };
        let mut setup = Self {
            processes,
            cluster,
            targets,
        };
        until("the servers answer", PATIENCE, || {
            for process in &mut setup.processes {
                ensure!(process.is_running(), "{} has ended", process.name());
            }
            Ok(setup.churn(1, 1).is_ok().then_some(()))
        })?;
        Ok(setup)
    }

    /// Connections of each thread, and requests on each of those.
    fn churn(&self, connections: u32, requests: u32) -> Result<()> {
        let client = self.cluster.topology.client.as_ref();
        let mut churn = client.command(self.cluster.programs().testbed.as_os_str());
        churn.args(["churn", "--target", &self.targets]);
        churn.args(["--connections", &connections.to_string()]);
        churn.args(["--requests", &requests.to_string()]);
        churn.args(["--threads", &THREADS.to_string()]);
        output(&mut churn).map(drop)
    }

    /// CPU time of one unit, in microseconds.
    fn measure(&self, unit: Unit, connections: u32) -> Result<f64> {
        // As many packets, roughly: a request is two of them, a connection with one is nine.
        let (connections, requests) = match unit {
            Unit::Connection => (connections / THREADS, 1),
            Unit::Request => (3, connections / THREADS * 2),
        };
        // The time that agents and HAProxy take at rest is not caused by connections.
        let rest = busy(|| {
            std::thread::sleep(REST);
            Ok(())
        })?;
        let share = rest.as_secs_f64() / REST.as_secs_f64();
        let begin = Instant::now();
        let busy = busy(|| self.churn(connections, requests))?.as_secs_f64();
        let spent = busy - share * begin.elapsed().as_secs_f64();
        let count = THREADS * connections * requests;
        Ok(spent * 1e6 / f64::from(count))
    }
}

/// HAProxy on the first node, which has the VIP.
fn haproxy(cluster: &Cluster, servers: &[String]) -> Result<Process> {
    vip_by_hand(cluster.host(0), "add")?;
    let servers: String = servers
        .iter()
        .enumerate()
        .map(|(number, server)| format!("    server s{number} {server} check\n"))
        .collect();
    let text = format!(
        "global\n    maxconn 4000\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 35s\n    \
         timeout server 35s\n\
         frontend echo\n    bind {VIP}:{ECHO}\n    default_backend servers\n\
         backend servers\n    balance roundrobin\n{servers}"
    );
    let config = cluster.work().join("haproxy.cfg");
    std::fs::write(&config, text).context("write haproxy.cfg")?;
    let mut command = cluster.host(0).command("haproxy".as_ref());
    command.arg("-db").arg("-f").arg(&config);
    Process::daemon("haproxy", &mut command, &cluster.work().join("haproxy.log"))
}

/// Address translation on the first node, which has the VIP.
fn nftables(cluster: &Cluster) -> Result<()> {
    vip_by_hand(cluster.host(0), "add")?;
    let map: Vec<String> = cluster
        .nodes()
        .into_iter()
        .map(|node| format!("{node} : {}", cluster.host(node).address()))
        .collect();
    let rules = format!(
        "table ip bench {{\n\
         chain pre {{ type nat hook prerouting priority dstnat; \
         ip daddr {VIP} tcp dport {ECHO} dnat to numgen inc mod {} map {{ {} }}; }}\n\
         chain post {{ type nat hook postrouting priority srcnat; \
         tcp dport {ECHO} masquerade; }}\n}}\n",
        map.len(),
        map.join(", ")
    );
    let file = cluster.work().join("bench.nft");
    std::fs::write(&file, rules).context("write bench.nft")?;
    let host = cluster.host(0);
    output(host.command("nft".as_ref()).arg("-f").arg(&file)).context("nft")?;
    let settings = "echo 1 >/proc/sys/net/ipv4/ip_forward";
    output(host.command("sh".as_ref()).args(["-c", settings])).map(drop)
}

/// Direct server return from the first node, whose keepalived has the VIP and tells IPVS which
/// servers there are; the other nodes have it on `lo`, and say nothing about it.
fn ipvs(cluster: &Cluster) -> Result<Process> {
    let mut servers = String::new();
    for node in cluster.nodes() {
        let host = cluster.host(node);
        servers += &format!(
            "\treal_server {} {ECHO} {{\n\t\tweight 1\n\t\tTCP_CHECK {{\n\t\t\tconnect_timeout 3\n\t\t}}\n\t}}\n",
            host.address()
        );
        if node > 0 {
            let script = format!(
                "set -e; cd /proc/sys/net/ipv4/conf/all; echo 1 >arp_ignore; echo 2 >arp_announce; \
                 ip address add {VIP}/32 dev lo"
            );
            output(host.command("sh".as_ref()).args(["-c", &script]))?;
        }
    }
    let text = format!(
        "vrrp_instance vip {{\n\tstate MASTER\n\tinterface {NIC}\n\tvirtual_router_id {}\n\
         \tpriority 100\n\tvirtual_ipaddress {{\n\t\t{VIP}/32 dev {NIC}\n\t}}\n}}\n\
         virtual_server {VIP} {ECHO} {{\n\tdelay_loop 2\n\tlb_algo rr\n\tlb_kind DR\n\
         \tprotocol TCP\n{servers}}}\n",
        keepalived::ROUTER_ID
    );
    let file = |name: &str| cluster.work().join(format!("keepalived{name}"));
    let config = file(".conf");
    std::fs::write(&config, text).context("write keepalived.conf")?;
    let mut command = cluster.host(0).command("keepalived".as_ref());
    command.args(["--dont-fork", "--log-console"]);
    for (option, path) in [
        ("--use-file", &config),
        ("--pid", &file(".pid")),
        ("--vrrp_pid", &file("-vrrp.pid")),
        ("--checkers_pid", &file("-checkers.pid")),
    ] {
        command.arg(option).arg(path);
    }
    Process::daemon("keepalived", &mut command, &file(".log"))
}

/// CPU time that all cores together spend while something is done.
///
/// It is what is left when idle time is taken off: the kernel measures how long a core idles,
/// and only samples what it does else, a hundred times a second (`get_idle_time`,
/// fs/proc/stat.c).
fn busy(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let (begin, before) = (Instant::now(), idle_time()?);
    work()?;
    let (idle, passed) = (idle_time()? - before, begin.elapsed());
    let cores = u32::try_from(std::thread::available_parallelism()?.get())?;
    Ok((passed * cores).saturating_sub(idle))
}

/// Time since the start in which cores had nothing to do, or the hypervisor did not let them
/// (proc_stat(5)).
fn idle_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    let [
        _user,
        _nice,
        _system,
        idle,
        iowait,
        _irq,
        _softirq,
        steal,
        ..,
    ] = fields[..]
    else {
        anyhow::bail!("/proc/stat has another form: {line}");
    };
    let ticks = u32::try_from(idle + iowait + steal).context("a machine this old")?;
    Ok(Duration::from_millis(10) * ticks)
}
