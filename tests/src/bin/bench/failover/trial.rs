//! One trial: traffic, a fault, and what became of the traffic.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, SysconfVar, sysconf};
use vip_tests::agent::Programs;
use vip_tests::clock::boot_now;
use vip_tests::load::{Request, Summary};
use vip_tests::outcome::Down;
use vip_tests::traffic::{ArpMonitor, Load, Watches};
use vip_tests::watch::Snapshot;

use super::kinds::{Profile, Scenario};
use super::setup::Setup;

/// What one trial found.
#[derive(Clone, Default)]
pub(super) struct Sample {
    /// The longest time that a client had no answer.
    pub(super) gap_ms: f64,
    /// The same in the second before the fault: what the machine does by itself.
    pub(super) quiet_gap_ms: f64,
    /// The VIP moved before anything happened.
    pub(super) moved: bool,
    /// Requests that ended after the fault.
    pub(super) requests: usize,
    pub(super) failed: usize,
    /// Failed in the second before the fault.
    pub(super) quiet_failed: usize,
    /// Failed, and begun after all agents had noticed by BFD that the node is silent.
    pub(super) late: Option<usize>,
    /// Watches on servers that live: ended or silent at the end, and their longest silence.
    pub(super) watches: usize,
    pub(super) watches_cut: usize,
    pub(super) stall_ms: f64,
    /// Questions for the VIP that two nodes answered.
    pub(super) two_answers: usize,
    /// CPU time of the daemons of one node, in percent of a core.
    pub(super) cpu_percent: f64,
}

/// Between requests of a client.
const EVERY_MS: u64 = 5;

/// When a request has failed.
const TIMEOUT_MS: u64 = 50;

/// How long daemons are watched at rest.
const REST: Duration = Duration::from_secs(10);

/// A second in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Two clients: on the nodes' segment, and behind a router.
struct Clients([Load; 2]);

impl Clients {
    fn start(setup: &Setup) -> Result<Self> {
        let (cluster, target) = (&setup.cluster, setup.target());
        let probe = |host| Load::probe(cluster, host, &target, EVERY_MS, TIMEOUT_MS);
        let topology = &cluster.topology;
        Ok(Self([
            probe(topology.client.as_ref())?,
            probe(topology.remote.as_ref())?,
        ]))
    }

    /// Waits until the first has made the requests of so many seconds. The other makes as many
    /// meanwhile.
    fn go_on(&mut self, seconds: u64) -> Result<()> {
        let requests = seconds * 1000 / EVERY_MS;
        self.0[0].go_on(requests as usize)
    }

    fn stop(self) -> Result<[Vec<Request>; 2]> {
        let [near, far] = self.0;
        Ok([near.stop()?, far.stop()?])
    }
}

pub(super) fn run(programs: &Programs, profile: Profile, scenario: Scenario) -> Result<Sample> {
    let mut setup = Setup::new(programs, profile)?;
    measure(&mut setup, scenario).or_else(|error| {
        let logs = setup.cluster.save_logs("bench")?;
        Err(error.context(format!("logs are in {}", logs.display())))
    })
}

fn measure(setup: &mut Setup, scenario: Scenario) -> Result<Sample> {
    let owner = setup.owner()?;
    if scenario == Scenario::Rest {
        return at_rest(setup, owner);
    }
    let cluster = &setup.cluster;
    let client = cluster.topology.client.as_ref();
    let (mut watches, opened) =
        Watches::open(cluster, client, &setup.target(), cluster.pace().watches)?;
    let mut clients = Clients::start(setup)?;
    let mut arp = ArpMonitor::start(cluster, EVERY_MS)?;
    clients.go_on(2)?;
    let found = setup.owner()?;
    let moved = found != owner;
    if moved {
        let logs = setup.cluster.save_logs("moved")?;
        eprintln!("the VIP moved by itself: logs are in {}", logs.display());
    }
    let node = if scenario.is_of_another_node() {
        let nodes = setup.cluster.nodes();
        let another = nodes.into_iter().find(|node| *node != found);
        another.context("the owner is the only node")?
    } else {
        found
    };
    // The silence of the watches until now is caused by the machine.
    let at = boot_now();
    let crashed = strike(setup, scenario, node, &mut clients)?;
    let two_answers = arp.report()?.contradictions.len();
    let after = watches.snapshot()?;
    let requests = clients.stop()?;
    let name = setup.cluster.name(node);
    let mut sample = Sample {
        moved,
        two_answers,
        ..Sample::default()
    };
    let dead = scenario.stops_server().then_some(name.as_str());
    sample.take_watches(&opened, &after, dead, at);
    let noticed = setup.bfd_down(node, at)?;
    let crashed = crashed.map(|at| Down { server: &name, at });
    for requests in &requests {
        sample.take_requests(requests, at, noticed, crashed);
    }
    Ok(sample)
}

/// CPU time of the daemons while nothing happens.
fn at_rest(setup: &Setup, owner: usize) -> Result<Sample> {
    let daemons = setup.daemons(owner)?;
    let total = || daemons.iter().map(|pid| ticks(*pid)).sum::<Result<u64>>();
    let (before, started) = (total()?, Instant::now());
    std::thread::sleep(REST);
    let used = (total()? - before) as f64;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")? as f64;
    Ok(Sample {
        cpu_percent: 100.0 * used / per_second / started.elapsed().as_secs_f64(),
        ..Sample::default()
    })
}

/// CPU time that a process has used (proc_pid_stat(5): utime and stime), in clock ticks.
fn ticks(pid: Pid) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The name, in parentheses, may hold spaces.
    let (_, rest) = text.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| -> Result<u64> { Ok(fields.get(index).context("short")?.parse()?) };
    Ok(number(11)? + number(12)?)
}

/// Does what the scenario says to a node, and returns when its consequences are over: with the time
/// when a server that was killed was gone (boot-time nanoseconds).
fn strike(
    setup: &mut Setup,
    scenario: Scenario,
    node: usize,
    clients: &mut Clients,
) -> Result<Option<u64>> {
    let mut crashed = None;
    match scenario {
        Scenario::PowerCut | Scenario::OtherPowerCut => {
            setup.power_cut(node)?;
            clients.go_on(6)?;
        }
        Scenario::Handover => {
            setup.hand_over(node)?;
            clients.go_on(3)?;
        }
        Scenario::AgentKilled => {
            setup.kill_agent(node)?;
            clients.go_on(4)?;
        }
        Scenario::ProxyKilled => {
            setup.kill_proxy(node);
            clients.go_on(40)?;
        }
        Scenario::AgentFrozen => {
            setup.freeze(node, true)?;
            clients.go_on(10)?;
            setup.freeze(node, false)?;
            clients.go_on(2)?;
        }
        Scenario::ServerHangs | Scenario::OtherServerHangs => {
            setup.cluster.signal_server(node, Signal::SIGSTOP);
            clients.go_on(5)?;
            setup.cluster.signal_server(node, Signal::SIGCONT);
            clients.go_on(2)?;
        }
        Scenario::ServerKilled => {
            crashed = Some(setup.cluster.kill_server(node));
            clients.go_on(4)?;
        }
        Scenario::Rest => {}
    }
    Ok(crashed)
}

impl Sample {
    /// Takes in a client's requests around a fault `at` a time. Nobody can save those that a crashed
    /// server had in hand.
    fn take_requests(
        &mut self,
        requests: &[Request],
        at: u64,
        noticed: Option<u64>,
        crashed: Option<Down<'_>>,
    ) {
        // From a moment before, so that the answer before the gap is among them.
        let gap = Summary::of(requests.iter().filter(|one| one.end >= at - SECOND / 2)).gap_ms;
        self.gap_ms = self.gap_ms.max(gap as f64);
        let before = |one: &&Request| (at - SECOND..at).contains(&one.end);
        let quiet = Summary::of(requests.iter().filter(before));
        self.quiet_gap_ms = self.quiet_gap_ms.max(quiet.gap_ms as f64);
        self.quiet_failed += quiet.failed;

        let in_hand =
            |one: &Request| crashed.is_some_and(|down| one.was_held_by(down.server, down.at));
        let after = requests.iter().filter(|one| one.end >= at);
        let failed: Vec<&Request> = after
            .clone()
            .filter(|one| !one.succeeded() && !in_hand(one))
            .collect();
        self.requests += after.count();
        self.failed += failed.len();
        if let Some(noticed) = noticed {
            let late = failed.iter().filter(|one| one.start > noticed).count();
            *self.late.get_or_insert(0) += late;
        }
    }

    /// Takes in all watches but those on a server that cannot go on.
    fn take_watches(&mut self, opened: &Snapshot, after: &Snapshot, dead: Option<&str>, at: u64) {
        for (before, after) in opened.watches.iter().zip(&after.watches) {
            if before.server.is_none() || before.server.as_deref() == dead {
                continue;
            }
            self.watches += 1;
            let last = after.last_event.unwrap_or(at);
            let silent_for = boot_now().saturating_sub(last);
            // An event comes several times a second.
            let cut = after.ended.is_some() || silent_for > 2 * SECOND;
            self.watches_cut += usize::from(cut);
            let stall = after.longest_silence.max(silent_for);
            self.stall_ms = self.stall_ms.max(stall as f64 / 1e6);
        }
    }
}
