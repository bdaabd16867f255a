//! `cargo xtask bench failover`: what clients notice when the owner of the VIP fails, beside
//! keepalived and HAProxy.
//!
//! Each run has a cluster of its own, in network namespaces, with TLS servers that stand in for
//! API servers. The profiles take turns. A probe starts a request on a new connection every 5 ms,
//! whatever became of those before; 200 watches are open. The gap is the longest time between
//! two answers.
//!
//! - `default`, `fast`: our agent as it is, and with 10 ms advertisements and 3 × 10 ms BFD.
//! - `guide`: keepalived and HAProxy as in the kubeadm guide to high availability. Its check
//!   script connects to the local HAProxy instead of calling curl.
//! - `tuned`: the same with VRRPv3 advertisements every 10 ms and a check every 200 ms.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, SysconfVar, sysconf};
use vip_tests::agent::Programs;
use vip_tests::clock::{boot_now, until};
use vip_tests::cluster::{Cluster, PATIENCE, Plan};
use vip_tests::load::{Request, Summary};
use vip_tests::outcome::Timeline;
use vip_tests::peers::haproxy::{self, FRONT_PORT};
use vip_tests::peers::keepalived::{self, Keepalived, Settings};
use vip_tests::process::Process;
use vip_tests::topology::VIP;
use vip_tests::traffic::{ArpMonitor, Load, Watches, vip};

use crate::report::{Better, Column, Figure, Goal, Label, Report, Row, median, quantile};

/// What to run.
#[derive(clap::Args)]
pub(super) struct Options {
    /// Runs of each profile in each scenario
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Only these scenarios
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Only these profiles
    #[arg(long, value_delimiter = ',')]
    profile: Vec<Profile>,
    /// Write the figures there too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
enum Scenario {
    /// The owner loses its power
    PowerCut,
    /// The owner is asked to hand over (keepalived: SIGTERM)
    Handover,
    /// `kill -9` of the owner's agent (keepalived: of it)
    AgentKilled,
    /// `kill -9` of the owner's HAProxy; ours has nothing like it
    ProxyKilled,
    /// The owner's agent is stopped for 10 s
    AgentFrozen,
    /// Nothing happens: CPU time of the daemons
    Rest,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
enum Profile {
    Default,
    Fast,
    Guide,
    Tuned,
}

impl Profile {
    fn is_ours(self) -> bool {
        matches!(self, Self::Default | Self::Fast)
    }
}

/// The software that owns the VIP.
enum Side {
    Ours,
    Rival {
        keepalived: Vec<Option<Keepalived>>,
        haproxy: Vec<Option<Process>>,
    },
}

/// A cluster with a profile.
struct Setup {
    cluster: Cluster,
    side: Side,
}

/// What one run found.
#[derive(Clone, Default)]
struct Sample {
    gap_ms: f64,
    /// The same in the second before the fault: what the machine does by itself.
    quiet_gap_ms: f64,
    /// The VIP moved before anything happened.
    moved: bool,
    requests: usize,
    failed: usize,
    /// Watches on servers that live: ended or silent at the end, and their longest silence.
    watches: usize,
    watches_cut: usize,
    stall_ms: f64,
    /// Questions for the VIP that two nodes answered.
    two_answers: usize,
    /// CPU time of the daemons of one node, in percent of a core.
    cpu_percent: f64,
}

/// Between requests of the probe.
const EVERY_MS: u64 = 5;

/// How long an agent is stopped.
const FROZEN: Duration = Duration::from_secs(10);

/// How long daemons are watched at rest.
const REST: Duration = Duration::from_secs(10);

impl Setup {
    fn new(programs: &Programs, profile: Profile) -> Result<Self> {
        let (interval, more) = match profile {
            Profile::Fast => ("10ms", "\n[bfd]\ninterval = \"10ms\"\n"),
            _ => ("100ms", ""),
        };
        let plan = Plan {
            interval: interval.to_owned(),
            more: more.to_owned(),
            bare: !profile.is_ours(),
            ..Plan::default()
        };
        let cluster = Cluster::start(programs, plan, &mut Timeline::new(false))?;
        let mut setup = Self {
            cluster,
            side: Side::Ours,
        };
        if !profile.is_ours() {
            setup.start_rival(profile)?;
        }
        Ok(setup)
    }

    fn start_rival(&mut self, profile: Profile) -> Result<()> {
        let cluster = &self.cluster;
        let (advert_int, check) = match profile {
            Profile::Tuned => (0.01, "inter 200ms fastinter 50ms fall 2 rise 1"),
            // HAProxy's and keepalived's defaults, which the guide leaves as they are.
            _ => (1.0, "inter 2s fall 3 rise 2"),
        };
        let testbed = cluster.programs().testbed.display();
        let script = format!(
            "vrrp_script check_apiserver {{\n\tscript \"{testbed} reach 127.0.0.1:{FRONT_PORT}\"\n\
             \tinterval 3\n\tweight -2\n\tfall 10\n\trise 2\n}}"
        );
        let track = "\ttrack_script {\n\t\tcheck_apiserver\n\t}".to_owned();
        let nodes = cluster.nodes();
        let mut haproxy = Vec::new();
        let mut keepalived = Vec::new();
        for &node in &nodes {
            haproxy.push(Some(haproxy::start(cluster, node, check)?));
            let settings = Settings {
                priority: if node == 0 { 101 } else { 100 },
                advert_int,
                peers: Vec::new(),
                scripts: (script.clone(), track.clone()),
            };
            keepalived.push(Some(keepalived::start(cluster, node, &settings)?));
        }
        self.side = Side::Rival {
            keepalived,
            haproxy,
        };
        let client = self.cluster.topology.client.as_ref();
        until("HAProxy answers at the VIP", PATIENCE, || {
            Ok(self.cluster.get(client, "/readyz", &self.target()).ok())
        })?;
        // Until nobody preempts anybody any more, and all servers are known to be up.
        std::thread::sleep(Duration::from_secs(8));
        Ok(())
    }

    fn target(&self) -> String {
        match self.side {
            Side::Ours => vip(),
            Side::Rival { .. } => format!("{VIP}:{FRONT_PORT}"),
        }
    }

    fn owner(&mut self) -> Result<usize> {
        match self.side {
            Side::Ours => self.cluster.owner(),
            Side::Rival { .. } => {
                let cluster = &self.cluster;
                until("one node has the VIP", PATIENCE, || {
                    for node in cluster.nodes() {
                        if keepalived::owns(cluster, node)? {
                            return Ok(Some(node));
                        }
                    }
                    Ok(None)
                })
            }
        }
    }

    fn power_cut(&mut self, node: usize) -> Result<()> {
        self.cluster.power_off(node)?;
        if let Side::Rival {
            keepalived,
            haproxy,
        } = &mut self.side
        {
            (keepalived[node], haproxy[node]) = (None, None);
        }
        Ok(())
    }

    fn hand_over(&mut self, node: usize) -> Result<()> {
        match &mut self.side {
            Side::Ours => self.cluster.vip(node, &["handover"]).map(drop),
            Side::Rival { keepalived, .. } => match keepalived[node].take() {
                Some(mut keepalived) => keepalived.process.stop().map(drop),
                None => Ok(()),
            },
        }
    }

    fn kill_agent(&mut self, node: usize) -> Result<()> {
        match &mut self.side {
            Side::Ours => self.cluster.kill_agent(node),
            Side::Rival { keepalived, .. } => {
                if let Some(mut keepalived) = keepalived[node].take() {
                    keepalived.kill()?;
                }
            }
        }
        Ok(())
    }

    fn kill_proxy(&mut self, node: usize) {
        if let Side::Rival { haproxy, .. } = &mut self.side {
            haproxy[node] = None;
        }
    }

    fn freeze(&mut self, node: usize, frozen: bool) -> Result<()> {
        match &mut self.side {
            Side::Ours if frozen => self.cluster.freeze_agent(node),
            Side::Ours => self.cluster.thaw_agent(node),
            Side::Rival { keepalived, .. } => {
                let signal = if frozen {
                    Signal::SIGSTOP
                } else {
                    Signal::SIGCONT
                };
                if let Some(keepalived) = &mut keepalived[node] {
                    keepalived.signal(signal)?;
                }
            }
        }
        Ok(())
    }

    /// The daemons of a node.
    fn daemons(&self, node: usize) -> Result<Vec<Pid>> {
        Ok(match &self.side {
            Side::Ours => self.cluster.agent_pid(node).into_iter().collect(),
            Side::Rival {
                keepalived,
                haproxy,
            } => {
                let mut pids = Vec::new();
                if let Some(keepalived) = &keepalived[node] {
                    pids.extend([keepalived.process.pid(), keepalived.child()?]);
                }
                pids.extend(haproxy[node].as_ref().map(Process::pid));
                pids
            }
        })
    }
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

fn run_once(programs: &Programs, profile: Profile, scenario: Scenario) -> Result<Sample> {
    let mut setup = Setup::new(programs, profile)?;
    measure(&mut setup, scenario).or_else(|error| {
        let logs = setup.cluster.save_logs("bench")?;
        Err(error.context(format!("logs are in {}", logs.display())))
    })
}

fn measure(setup: &mut Setup, scenario: Scenario) -> Result<Sample> {
    let owner = setup.owner()?;
    if scenario == Scenario::Rest {
        let daemons = setup.daemons(owner)?;
        let total = || daemons.iter().map(|pid| ticks(*pid)).sum::<Result<u64>>();
        let (before, started) = (total()?, Instant::now());
        std::thread::sleep(REST);
        let used = (total()? - before) as f64;
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")? as f64;
        return Ok(Sample {
            cpu_percent: 100.0 * used / per_second / started.elapsed().as_secs_f64(),
            ..Sample::default()
        });
    }
    let cluster = &setup.cluster;
    let client = cluster.topology.client.as_ref();
    let (mut watches, opened) =
        Watches::open(cluster, client, &setup.target(), cluster.pace().watches)?;
    let mut load = Load::start_at(cluster, client, &setup.target(), EVERY_MS, 0)?;
    let mut arp = ArpMonitor::start(cluster, EVERY_MS)?;
    let per_second = (1000 / EVERY_MS) as usize;
    load.go_on(per_second)?;
    let found = setup.owner()?;
    let moved = found != owner;
    if moved {
        let logs = setup.cluster.save_logs("moved")?;
        eprintln!("the VIP moved by itself: logs are in {}", logs.display());
    }
    let owner = found;
    // The silence of the watches until now is caused by the machine.
    let fault = boot_now();
    let mut dead = None;
    match scenario {
        Scenario::PowerCut => {
            dead = Some(setup.cluster.name(owner));
            setup.power_cut(owner)?;
            load.go_on(6 * per_second)?;
        }
        Scenario::Handover => {
            setup.hand_over(owner)?;
            load.go_on(3 * per_second)?;
        }
        Scenario::AgentKilled => {
            setup.kill_agent(owner)?;
            load.go_on(4 * per_second)?;
        }
        Scenario::ProxyKilled => {
            setup.kill_proxy(owner);
            load.go_on(40 * per_second)?;
        }
        Scenario::AgentFrozen => {
            setup.freeze(owner, true)?;
            let thaw = Instant::now() + FROZEN;
            while Instant::now() < thaw {
                load.go_on(per_second / 10)?;
            }
            setup.freeze(owner, false)?;
            load.go_on(2 * per_second)?;
        }
        Scenario::Rest => {}
    }
    let seen = arp.report()?;
    let after = watches.snapshot()?;
    let requests = load.stop()?;
    // From a moment before, so that the answer before the gap is among them.
    let from = fault - 500_000_000;
    let summary = Summary::of(requests.iter().filter(|request| request.end >= from));
    let before = |request: &&Request| (fault - 1_000_000_000..fault).contains(&request.end);
    let quiet = Summary::of(requests.iter().filter(before));
    let mut sample = Sample {
        gap_ms: summary.gap_ms as f64,
        quiet_gap_ms: quiet.gap_ms as f64,
        moved,
        requests: summary.requests,
        failed: summary.failed,
        two_answers: seen.contradictions.len(),
        ..Sample::default()
    };
    for (before, after) in opened.watches.iter().zip(&after.watches) {
        if before.server.is_none() || before.server == dead {
            continue;
        }
        sample.watches += 1;
        let last = after.last_event.unwrap_or(fault);
        let silent_for = boot_now().saturating_sub(last);
        // An event comes several times a second.
        let cut = after.ended.is_some() || silent_for > 2_000_000_000;
        sample.watches_cut += usize::from(cut);
        let stall = after.longest_silence.max(silent_for);
        sample.stall_ms = sample.stall_ms.max(stall as f64 / 1e6);
    }
    Ok(sample)
}

const LABELS: &[Label] = &[Label::new("scenario", 13), Label::new("profile", 8)];

fn columns() -> Vec<Column> {
    let column = |name, unit, better, decimals| Column {
        name,
        unit,
        better,
        ratio: None,
        decimals,
    };
    vec![
        column("runs", "", Better::Neither, 0),
        column("gap", "ms", Better::Lower, 0),
        column("worst", "ms", Better::Lower, 0),
        // In the second before the fault: what the machine does by itself.
        column("before", "ms", Better::Neither, 0),
        // Runs in which the VIP moved before anything happened.
        column("moved", "", Better::Lower, 0),
        column("failed", "", Better::Lower, 0),
        column("requests", "", Better::Neither, 0),
        column("cut", "", Better::Lower, 0),
        column("watches", "", Better::Neither, 0),
        column("stall", "ms", Better::Lower, 0),
        column("two answers", "", Better::Lower, 0),
        column("CPU", "%", Better::Lower, 2),
    ]
}

/// What the runs of a profile in a scenario found.
struct Found<'s>(&'s [Sample]);

impl Found<'_> {
    fn all(&self, value: fn(&Sample) -> f64) -> Vec<f64> {
        self.0.iter().map(value).collect()
    }

    fn worst(&self, value: fn(&Sample) -> f64) -> f64 {
        quantile(&self.all(value), 1.0)
    }

    fn sum(&self, value: fn(&Sample) -> usize) -> usize {
        self.0.iter().map(value).sum()
    }

    fn row(&self, scenario: Scenario, profile: Profile) -> Row {
        let goals = if profile.is_ours() {
            self.goals(scenario, profile)
        } else {
            Vec::new()
        };
        Row {
            labels: vec![name(&scenario), name(&profile)],
            figures: vec![
                Figure::count(self.0.len()),
                Figure::new(median(&self.all(|sample| sample.gap_ms))),
                Figure::new(self.worst(|sample| sample.gap_ms)),
                Figure::new(self.worst(|sample| sample.quiet_gap_ms)),
                Figure::count(self.sum(|sample| usize::from(sample.moved))),
                Figure::count(self.sum(|sample| sample.failed)),
                Figure::count(self.sum(|sample| sample.requests)),
                Figure::count(self.sum(|sample| sample.watches_cut)),
                Figure::count(self.sum(|sample| sample.watches)),
                Figure::new(self.worst(|sample| sample.stall_ms)),
                Figure::count(self.sum(|sample| sample.two_answers)),
                Figure::new(median(&self.all(|sample| sample.cpu_percent))),
            ],
            goals,
        }
    }

    fn goals(&self, scenario: Scenario, profile: Profile) -> Vec<Goal> {
        let bound = if profile == Profile::Fast {
            35.0
        } else {
            180.0
        };
        let no_failure = || {
            let failed = self.sum(|sample| sample.failed);
            Goal::new("no failed request".to_owned(), failed == 0)
        };
        let worst_gap = |bound: f64| {
            let gap = self.worst(|sample| sample.gap_ms);
            Goal::new(format!("gap {bound} ms"), gap <= bound)
        };
        match scenario {
            Scenario::PowerCut => {
                let gap = median(&self.all(|sample| sample.gap_ms));
                let cut = self.sum(|sample| sample.watches_cut);
                let stall = self.worst(|sample| sample.stall_ms);
                vec![
                    Goal::new(format!("median gap {bound} ms"), gap <= bound),
                    Goal::new("no watch cut".to_owned(), cut == 0),
                    Goal::new("stall 1 s".to_owned(), stall <= 1000.0),
                ]
            }
            Scenario::Handover => vec![no_failure(), worst_gap(20.0)],
            Scenario::AgentKilled => vec![no_failure()],
            Scenario::AgentFrozen => {
                let twice = self.sum(|sample| sample.two_answers);
                let once = Goal::new("never two answers".to_owned(), twice == 0);
                vec![once, worst_gap(bound)]
            }
            Scenario::Rest if profile == Profile::Default => {
                let cpu = median(&self.all(|sample| sample.cpu_percent));
                vec![Goal::new("1 % of a core".to_owned(), cpu < 1.0)]
            }
            Scenario::Rest | Scenario::ProxyKilled => vec![],
        }
    }
}

fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

pub(super) fn run(options: &Options) -> Result<()> {
    ensure!(options.runs > 0, "--runs must be at least 1");
    let programs = Programs::find()?;
    let chosen =
        |scenario: &Scenario| options.scenario.is_empty() || options.scenario.contains(scenario);
    let scenarios = Scenario::value_variants().iter().copied().filter(chosen);
    let profiles: Vec<Profile> = Profile::value_variants()
        .iter()
        .copied()
        .filter(|profile| options.profile.is_empty() || options.profile.contains(profile))
        .collect();
    let title =
        "what clients notice: medians and worst over the runs, sums of requests and watches";
    let mut report = Report::new(title.to_owned(), LABELS, columns());
    report.print_head();
    for scenario in scenarios {
        let mut samples: BTreeMap<Profile, Vec<Sample>> = BTreeMap::new();
        for _ in 0..options.runs {
            for &profile in &profiles {
                if scenario == Scenario::ProxyKilled && profile.is_ours() {
                    continue;
                }
                let sample = run_once(&programs, profile, scenario)
                    .with_context(|| format!("{} {}", name(&scenario), name(&profile)));
                match sample {
                    Ok(sample) => samples.entry(profile).or_default().push(sample),
                    Err(error) if profile.is_ours() => return Err(error),
                    // Two owners of keepalived may fight for so long that nothing gets through.
                    Err(error) => eprintln!("a run that came to nothing is left out: {error:#}"),
                }
            }
        }
        for (profile, samples) in &samples {
            let row = Found(samples).row(scenario, *profile);
            report.print_row(&row);
            report.add(row);
        }
    }
    report.write_json(options.json.clone())
}
