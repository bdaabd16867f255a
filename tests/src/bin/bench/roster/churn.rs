//! Short connections on all nodes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::sys::{Stats, enable_stats};
use vip_tests::agent::Programs;
use vip_tests::cluster::Cluster;
use vip_tests::idle::Visits;
use vip_tests::process::Process;
use vip_tests::topology::{VIP, sh};

use super::agents::{THREAD, agent_time, cluster, program_time};
use super::clients::{self, Clients};
use crate::report::{Better, Column, Figure, Goal, Label, Report, Row};

/// Idle connections beside.
const IDLE: usize = 1000;

/// Short connections in a second.
const RATE: u32 = 2000;

/// SYNs of the flood in a second, about.
const FLOOD: u32 = 10_000;

/// The thread that keeps time.
const KEEPS_TIME: &str = "vip-node";

/// Events that a calm cluster has none of.
const EVENTS: [&str; 3] = ["slow", "bfd_down", "became_owner"];

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Rest,
    Churn,
    Flood,
}

/// What all agents together have done so far.
struct Reading {
    at: Instant,
    /// Nanoseconds of the threads that keep rosters, and of all threads.
    thread: u64,
    agents: u64,
    /// Nanoseconds of the programs in the kernel.
    programs: u64,
    /// For how long the threads that keep time have waited for a processor, in nanoseconds, and how
    /// often.
    waited: u64,
    waits: u64,
    /// How often each of [`EVENTS`] happened.
    events: [u64; 3],
}

impl Reading {
    fn new(cluster: &Cluster) -> Result<Self> {
        let mut all = Self {
            at: Instant::now(),
            thread: 0,
            agents: 0,
            programs: program_time()?,
            waited: 0,
            waits: 0,
            events: [0; 3],
        };
        for node in cluster.nodes() {
            all.thread += cluster.agent_thread_time(node, THREAD)?;
            all.agents += agent_time(cluster, node)?;
            let [_, waited, waits] = cluster.agent_thread(node, KEEPS_TIME)?;
            all.waited += waited;
            all.waits += waits;
            let status = cluster.status(node)?;
            for (count, name) in all.events.iter_mut().zip(EVENTS) {
                *count += status.event_count(name);
            }
        }
        Ok(all)
    }
}

/// What all agents have done in a phase.
struct Spent {
    visits: Visits,
    /// Nanoseconds a second.
    thread: f64,
    agents: f64,
    programs: f64,
    /// Mean wait in microseconds.
    wait: f64,
    events: [u64; 3],
    seconds: f64,
}

/// Sends SYNs to the owner until it is dropped.
fn flood(cluster: &mut Cluster, seconds: u32) -> Result<Process> {
    /// SYNs at once (`testbed flood`).
    const BURST: u32 = 64;
    let owner = cluster.owner()?;
    let status = cluster.status(owner)?;
    let entry = status.node(cluster.host(owner));
    let mac = entry.and_then(|entry| entry.mac.clone());
    let sender = cluster.topology.etcd.as_ref();
    let mut command = sender.command(cluster.programs().testbed.as_os_str());
    command.args(["flood", "--only", "syn", "--node", &VIP.to_string()]);
    command.args(["--mac", &mac.context("the owner's Ethernet address")?]);
    command.args(["--member", &VIP.to_string()]);
    command.args(["--own", &sender.address().to_string()]);
    command.args(["--pause-us", &(BURST * 1_000_000 / FLOOD).to_string()]);
    // It is ended before it has sent all.
    command.args(["--count", &(2 * FLOOD * seconds).to_string()]);
    let log = cluster.work().join("flood.log");
    Process::daemon("flood", &mut command, &log)
}

fn measure_phase(
    cluster: &mut Cluster,
    clients: &mut Clients,
    phase: Phase,
    seconds: u32,
) -> Result<Spent> {
    let flood = (phase == Phase::Flood).then(|| flood(cluster, seconds));
    let flood = flood.transpose()?;
    let before = Reading::new(cluster)?;
    let visits = if phase == Phase::Rest {
        std::thread::sleep(Duration::from_secs(seconds.into()));
        Visits::default()
    } else {
        clients.come_and_go(cluster, RATE, seconds)?
    };
    // Those that have gone are seen and told, too.
    std::thread::sleep(Duration::from_secs(2));
    let after = Reading::new(cluster)?;
    drop(flood);
    let seconds = (after.at - before.at).as_secs_f64();
    let waits = (after.waits - before.waits) as f64;
    Ok(Spent {
        visits,
        thread: (after.thread - before.thread) as f64 / seconds,
        agents: (after.agents - before.agents) as f64 / seconds,
        programs: (after.programs - before.programs) as f64 / seconds,
        wait: (after.waited - before.waited) as f64 / waits / 1e3,
        events: std::array::from_fn(|event| after.events[event] - before.events[event]),
        seconds,
    })
}

const LABELS: &[Label] = &[Label::new("", 24)];

fn row(phase: Phase, spent: &Spent, rest: &Spent) -> Row {
    let label = match phase {
        Phase::Rest => "at rest".to_owned(),
        Phase::Churn => format!("{RATE} connections/s"),
        Phase::Flood => format!("and {FLOOD} SYNs/s"),
    };
    let done = f64::from(spent.visits.done);
    // Microseconds more than at rest: not a number at rest.
    let more = |now: f64, rest: f64| (now - rest) * spent.seconds / 1e3 / done;
    let thread = more(spent.thread, rest.thread);
    let programs = more(spent.programs, rest.programs);
    let mut goals = vec![Goal::new(
        format!("no event {}", EVENTS.join(", ")),
        spent.events == [0; 3],
    )];
    if phase != Phase::Rest {
        // The other two run for connections of other machines.
        let sum = thread + programs / 3.0;
        let name = "threads and one program within 3 us".to_owned();
        goals.push(Goal::new(name, sum <= 3.0));
    }
    let mut figures = vec![
        Figure::new(done),
        Figure::new(f64::from(spent.visits.failed)),
        Figure::new(spent.thread / 1e6),
        Figure::new(thread),
        Figure::new(programs),
        Figure::new(spent.agents / 1e6),
        Figure::new(more(spent.agents, rest.agents)),
        Figure::new(spent.wait),
    ];
    figures.extend(spent.events.map(|count| Figure::new(count as f64)));
    Row {
        labels: vec![label],
        figures,
        goals,
    }
}

pub(super) fn measure(programs: &Programs, seconds: u32) -> Result<Report> {
    let column = |name, unit, decimals| Column::new(name, unit, Better::Lower, decimals);
    let mut columns = vec![
        Column::new("done", "", Better::Neither, 0),
        column("failed", "", 0),
        column("threads", "per mille", 2),
        column("threads", "us", 2),
        column("programs", "us", 2),
        column("agents", "per mille", 1),
        column("agents", "us", 1),
        column("wait", "us", 0),
    ];
    columns.extend(EVENTS.map(|name| column(name, "", 0)));
    let title = format!(
        "short connections on three nodes beside {IDLE} idle ones, {seconds} s each; us: of CPU a \
         connection, on all nodes, more than at rest"
    );
    let mut report = Report::new(title, LABELS, columns);
    report.print_head();
    let _counted = enable_stats(Stats::RunTime).context("count the time of programs")?;
    let mut cluster = cluster(programs, "")?;
    // The flood's addresses are nobody's, and no router says so.
    sh(
        cluster.topology.router.as_ref(),
        "ip route add blackhole 198.18.0.0/15",
    )?;
    let mut servers = Vec::new();
    for node in cluster.nodes() {
        servers.extend(clients::accept(&cluster, node, IDLE)?);
    }
    let mut clients = Clients::default();
    clients.hold(&cluster, IDLE)?;
    std::thread::sleep(Duration::from_secs(3));
    let rest = measure_phase(&mut cluster, &mut clients, Phase::Rest, seconds)?;
    for phase in [Phase::Rest, Phase::Churn, Phase::Flood] {
        let spent = match phase {
            Phase::Rest => None,
            _ => Some(measure_phase(&mut cluster, &mut clients, phase, seconds)?),
        };
        let row = row(phase, spent.as_ref().unwrap_or(&rest), &rest);
        report.print_row(&row);
        report.add(row);
    }
    Ok(report)
}
