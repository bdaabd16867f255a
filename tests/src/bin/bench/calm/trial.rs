//! A cluster that is disturbed, and the counts.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vip_tests::agent::Programs;
use vip_tests::load::Summary;
use vip_tests::process::{Process, output};
use vip_tests::traffic::{Load, Watches};
use vip_tests::watch::Snapshot;

use super::condition::Begun;
use super::disturbance::Disturbance;
use super::pause::{Claim, Pauses};
use crate::failover::kinds::Profile;
use crate::failover::setup::{Setup, Told};

/// What was counted.
#[derive(Default)]
pub(super) struct Counts {
    /// Hours of a node.
    pub(super) node_hours: f64,
    /// How often a node became the owner.
    pub(super) moves: usize,
    /// How often an agent took a living node for a dead one.
    pub(super) false_deaths: usize,
    /// How often an agent said that a server does not answer, though nothing had stopped it.
    pub(super) false_hangs: usize,
    /// Watches that ended, though nobody may say that their server's node is gone.
    pub(super) cut: usize,
    pub(super) failed: usize,
    pub(super) requests: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.node_hours += other.node_hours;
        self.moves += other.moves;
        self.false_deaths += other.false_deaths;
        self.false_hangs += other.false_hangs;
        self.cut += other.cut;
        self.failed += other.failed;
        self.requests += other.requests;
    }
}

/// The longest time until the watches are opened anew and the events are read: agents keep the last
/// thousand.
const ROUND: Duration = Duration::from_secs(60);

/// Until the consequences of a disturbance are over.
const SETTLE: Duration = Duration::from_secs(3);

/// Between two requests of the client: on a busy machine, it takes little of the time itself.
const EVERY_MS: u64 = 50;

/// When a request has failed.
const TIMEOUT_MS: u64 = 1000;

/// Disturbs a cluster of its own for so long.
pub(super) fn run(
    programs: &Programs,
    profile: Profile,
    disturbance: Disturbance,
    time: Duration,
) -> Result<Counts> {
    let mut trial = Trial::new(programs, profile, disturbance)?;
    trial.disturb(time).or_else(|error| {
        let logs = trial.setup.cluster.save_logs("bench")?;
        Err(error.context(format!("logs are in {}", logs.display())))
    })
}

struct Trial {
    setup: Setup,
    profile: Profile,
    disturbance: Disturbance,
    pauses: Pauses,
    /// By node, the sequence number of the next event.
    next_event: Vec<u64>,
    /// How often keepalived had become the master before.
    masters: usize,
}

impl Trial {
    fn new(programs: &Programs, profile: Profile, disturbance: Disturbance) -> Result<Self> {
        let mut setup = Setup::new(programs, profile)?;
        if disturbance.refuses_realtime() {
            refuse_realtime(&mut setup, profile)?;
        }
        let mut trial = Self {
            next_event: vec![0; setup.cluster.nodes().len()],
            masters: 0,
            pauses: Pauses::new(profile, disturbance.pause()),
            setup,
            profile,
            disturbance,
        };
        // The start does not count.
        trial.count_verdicts(&mut Counts::default())?;
        Ok(trial)
    }

    fn disturb(&mut self, time: Duration) -> Result<Counts> {
        let begin = Instant::now();
        let mut counts = Counts::default();
        loop {
            let left = time.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Ok(counts);
            }
            counts += self.round(left.min(ROUND))?;
        }
    }

    fn round(&mut self, time: Duration) -> Result<Counts> {
        let cluster = &self.setup.cluster;
        let client = cluster.topology.client.as_ref();
        let target = self.setup.target();
        let (mut watches, opened) =
            Watches::open(cluster, client, &target, cluster.pace().watches)?;
        let load = Load::probe(cluster, client, &target, EVERY_MS, TIMEOUT_MS)?;

        let begin = Instant::now();
        let condition = self.disturbance.condition();
        let begun = condition
            .map(|condition| Begun::new(condition, &self.setup))
            .transpose()?;
        self.pauses.go_on_for(&mut self.setup, time)?;
        let lasted = begin.elapsed();
        if let Some(begun) = begun {
            begun.end(&self.setup)?;
        }
        std::thread::sleep(SETTLE);

        let nodes = self.setup.cluster.nodes().len() as f64;
        let requests = Summary::of(&load.stop()?);
        let mut counts = Counts {
            node_hours: nodes * lasted.as_secs_f64() / 3600.0,
            cut: self.cut(&opened, &watches.snapshot()?),
            failed: requests.failed,
            requests: requests.requests,
            ..Counts::default()
        };
        self.count_verdicts(&mut counts)?;
        Ok(counts)
    }

    /// Watches that ended, but for those whose node was away for so long that their client was told.
    fn cut(&self, opened: &Snapshot, after: &Snapshot) -> usize {
        let pairs = opened.watches.iter().zip(&after.watches);
        let cut = pairs.filter(|(before, after)| {
            let Some(at) = after.ended_at else {
                return false;
            };
            let server = before.server.as_ref();
            let node = server
                .and_then(|server| self.node(|node| self.setup.cluster.name(node) == *server));
            !node.is_some_and(|node| self.pauses.justify(Claim::Gone, node, at))
        });
        cut.count()
    }

    /// Counts what agents said, and moves, since the last time.
    fn count_verdicts(&mut self, counts: &mut Counts) -> Result<()> {
        if !self.profile.is_ours() {
            let masters = self.keepalived_masters()?;
            counts.moves += masters - self.masters;
            self.masters = masters;
            return Ok(());
        }
        for node in self.setup.cluster.nodes() {
            for told in self.setup.events(node)? {
                if told.sequence >= self.next_event[node] {
                    self.next_event[node] = told.sequence + 1;
                    self.count_event(&told, counts);
                }
            }
        }
        Ok(())
    }

    fn count_event(&self, told: &Told, counts: &mut Counts) {
        let (claim, count) = match told.event.name.as_ref() {
            "became_owner" => {
                counts.moves += 1;
                return;
            }
            "node_away" => (Claim::Away, &mut counts.false_deaths),
            "node_gone" => (Claim::Gone, &mut counts.false_deaths),
            "server_not_ready" => (Claim::Hung, &mut counts.false_hangs),
            _ => return,
        };
        let about = told.event.node.as_ref();
        let node = about.and_then(|about| {
            self.node(|node| self.setup.cluster.host(node).address().to_string() == *about)
        });
        let is_true = node.is_some_and(|node| self.pauses.justify(claim, node, told.at));
        *count += usize::from(!is_true);
    }

    fn node(&self, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        let nodes = self.setup.cluster.nodes();
        nodes.into_iter().find(|node| is_it(*node))
    }

    /// How often a keepalived said that it became the master.
    fn keepalived_masters(&self) -> Result<usize> {
        let cluster = &self.setup.cluster;
        let logs = cluster.nodes().into_iter().map(|node| {
            let name = format!("{}-keepalived.log", cluster.name(node));
            let text = std::fs::read_to_string(cluster.work().join(&name));
            Ok(text
                .with_context(|| format!("read {name}"))?
                .matches("Entering MASTER STATE")
                .count())
        });
        logs.sum()
    }
}

/// Starts our agents anew without `CAP_SYS_NICE`, so that the kernel refuses them `SCHED_RR`. A
/// keepalived gets ordinary priority.
fn refuse_realtime(setup: &mut Setup, profile: Profile) -> Result<()> {
    let nodes = setup.cluster.nodes();
    if !profile.is_ours() {
        for node in nodes {
            for pid in setup.daemons(node)? {
                let mut chrt = setup.cluster.host(node).command("chrt".as_ref());
                chrt.args(["--all-tasks", "--other", "--pid", "0", &pid.to_string()]);
                output(&mut chrt)?;
            }
        }
        return Ok(());
    }
    let cluster = &mut setup.cluster;
    for node in nodes {
        cluster.kill_agent(node);
        let mut command = cluster.host(node).command("setpriv".as_ref());
        command.args(["--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]);
        command
            .arg(&cluster.programs().vip)
            .args(["run", "--config"]);
        command.arg(cluster.work().join("vip.toml"));
        let name = cluster.name(node);
        let log = cluster.agent_log(node);
        let agent = Process::daemon(&format!("vip run on {name}"), &mut command, &log)?;
        cluster.adopt_agent(node, agent);
    }
    cluster.wait_until_settled()
}
