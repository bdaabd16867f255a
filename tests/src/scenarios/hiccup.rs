//! The network or a node pauses for a moment: switch ports are disabled while their carrier stays up,
//! as RSTP, LACP and live migrations do it, or all processes of a node are stopped. Up to
//! `reset_after` this cuts no watch, and beyond it only those on nodes that were away. A node that
//! comes back takes the VIP from no living owner.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::clock::boot_now;
use crate::cluster::{Cluster, Pace, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::traffic::{Watches, vip};
use crate::watch::Snapshot;

pub(super) const OWNER: Scenario = Scenario {
    name: "hiccup_owner",
    promise: "hiccup_of_the_owners_port_cuts_no_watch",
    tests: &[Test::netns(default_profile)],
    run: |cluster, timeline| {
        let owner = Pause::ports("owner", &[1]);
        run(cluster, timeline, OWNER.name, &DURATIONS, &[owner])
    },
};

pub(super) const BACKUP: Scenario = Scenario {
    name: "hiccup_backup",
    promise: "hiccup_of_a_backups_port_cuts_no_watch_and_leaves_the_vip",
    tests: &[Test::netns(default_profile)],
    run: |cluster, timeline| {
        let lower = Pause::ports("backup of lower priority", &[2]);
        let higher = Pause::ports("backup of higher priority", &[0]);
        run(cluster, timeline, BACKUP.name, &DURATIONS, &[lower, higher])
    },
};

pub(super) const TWO_PORTS: Scenario = Scenario {
    name: "hiccup_two_ports",
    promise: "hiccup_of_two_ports_cuts_no_watch",
    tests: &[Test::netns(default_profile)],
    run: |cluster, timeline| {
        let backups = Pause::ports("both backups", &[0, 2]);
        let half = Pause::ports("owner and a backup", &[0, 1]);
        run(
            cluster,
            timeline,
            TWO_PORTS.name,
            &DURATIONS,
            &[backups, half],
        )
    },
};

pub(super) const ALL_PORTS: Scenario = Scenario {
    name: "hiccup_all_ports",
    promise: "hiccup_of_all_ports_cuts_no_watch_and_leaves_the_vip",
    tests: &[Test::netns(default_profile)],
    run: |cluster, timeline| {
        let together = Pause::ports("all nodes", &[0, 1, 2]);
        let in_turn = Pause {
            apart: Duration::from_millis(100),
            ..Pause::ports("all nodes, back in turn", &[0, 1, 2])
        };
        run(
            cluster,
            timeline,
            ALL_PORTS.name,
            &DURATIONS,
            &[together, in_turn],
        )
    },
};

pub(super) const PROCESSES: Scenario = Scenario {
    name: "hiccup_processes",
    promise: "hiccup_of_all_processes_of_a_node_cuts_no_watch",
    tests: &[Test::netns(default_profile)],
    run: |cluster, timeline| {
        let processes = |who, nodes| Pause {
            what: What::Processes,
            ..Pause::ports(who, nodes)
        };
        let owner = processes("owner", &[1]);
        let backup = processes("backup of higher priority", &[0]);
        run(
            cluster,
            timeline,
            PROCESSES.name,
            &[300, 1000],
            &[owner, backup],
        )
    },
};

/// How long something pauses, in ms.
const DURATIONS: [u64; 8] = [100, 250, 300, 400, 1000, 1500, 3000, 10_000];

/// The agents' default, in ms.
const RESET_AFTER: u64 = 2000;

/// The node that owns the VIP before each pause. The first node has a higher priority, the third a
/// lower one.
const OWNER_BEFORE: usize = 1;

fn default_profile() -> Plan {
    let brisk = Plan::default();
    Plan {
        interval: "100ms".to_owned(),
        pace: Pace {
            watches: 90,
            ..brisk.pace
        },
        ..brisk
    }
}

/// What pauses.
#[derive(Debug, Clone, Copy)]
enum What {
    /// The ports of the switch.
    Ports,
    /// Agents and API servers.
    Processes,
}

/// Nodes that pause, and how they come back.
#[derive(Debug, Clone, Copy)]
struct Pause {
    who: &'static str,
    what: What,
    nodes: &'static [usize],
    /// Time between two nodes that come back.
    apart: Duration,
}

impl Pause {
    const fn ports(who: &'static str, nodes: &'static [usize]) -> Self {
        Self {
            who,
            what: What::Ports,
            nodes,
            apart: Duration::ZERO,
        }
    }

    /// Whether the owner from before must have the VIP afterwards.
    fn leaves_vip(&self, ms: u64) -> bool {
        let all = self.nodes.len() == 3 && ms < RESET_AFTER;
        all || !self.nodes.contains(&OWNER_BEFORE)
    }

    fn happen(&self, cluster: &mut Cluster, ms: u64) -> Result<()> {
        for &node in self.nodes {
            self.set(cluster, node, false)?;
        }
        let begin = Instant::now();
        let mut end = Duration::from_millis(ms);
        for &node in self.nodes {
            std::thread::sleep(end.saturating_sub(begin.elapsed()));
            self.set(cluster, node, true)?;
            end += self.apart;
        }
        Ok(())
    }

    fn set(&self, cluster: &mut Cluster, node: usize, goes_on: bool) -> Result<()> {
        match self.what {
            What::Ports => cluster.host(node).port_forwards(goes_on),
            What::Processes => {
                let signal = if goes_on {
                    Signal::SIGCONT
                } else {
                    Signal::SIGSTOP
                };
                cluster.signal_agent(node, signal);
                cluster.signal_server(node, signal);
                Ok(())
            }
        }
    }
}

/// Watches, and how they were when all were open.
type Held = (Watches, Snapshot);

fn run(
    cluster: &mut Cluster,
    timeline: &mut Timeline,
    name: &str,
    durations: &[u64],
    pauses: &[Pause],
) -> Result<Outcome> {
    let mut outcome = Outcome::new(name);
    let mut held = open_watches(cluster)?;
    for pause in pauses {
        for &ms in durations {
            let after = case(cluster, timeline, &mut outcome, &mut held, pause, ms)?;
            if !after.all_open() {
                held = open_watches(cluster)?;
            }
        }
    }
    Ok(outcome)
}

/// Does one pause, and returns the watches as they are once the cluster is whole again.
fn case(
    cluster: &mut Cluster,
    timeline: &mut Timeline,
    outcome: &mut Outcome,
    (watches, before): &mut Held,
    pause: &Pause,
    ms: u64,
) -> Result<Snapshot> {
    give_vip_to(cluster, OWNER_BEFORE)?;
    let claims_before = claims(cluster)?;
    pause.happen(cluster, ms)?;
    cluster.wait_until_settled()?;
    let after = watches.wait_for_verdict(boot_now(), None)?;

    let owner = cluster.owner()?;
    let moves = claims(cluster)? - claims_before;
    let mut text = format!("{:?} of {}, {ms} ms:", pause.what, pause.who);
    let mut wrongly_cut = 0;
    for node in cluster.nodes() {
        let name = cluster.name(node);
        let (cut, all) = (ended_on(&name, before, &after), before.on(&name).count());
        text += &format!(" {cut} of {all} watches on {name} cut,");
        if ms < RESET_AFTER || !pause.nodes.contains(&node) {
            wrongly_cut += cut;
        }
    }
    text += &format!(" {moves} takeovers, {} owns the VIP", cluster.name(owner));
    timeline.event(&text);
    outcome.watches += before.watches.len();
    outcome.watches_cut_living += wrongly_cut;
    outcome.promise(wrongly_cut == 0, || text.clone());
    if pause.leaves_vip(ms) {
        let moved = owner != OWNER_BEFORE || (ms < RESET_AFTER && moves > 0);
        outcome.promise(!moved, || format!("the VIP has moved: {text}"));
    }
    Ok(after)
}

fn open_watches(cluster: &Cluster) -> Result<Held> {
    let client = cluster.topology.client.as_ref();
    let (watches, before) = Watches::open(cluster, client, &vip(), cluster.pace().watches)?;
    for node in cluster.nodes() {
        let name = cluster.name(node);
        ensure!(before.on(&name).count() > 0, "no watch is on {name}");
    }
    Ok((watches, before))
}

fn give_vip_to(cluster: &mut Cluster, node: usize) -> Result<()> {
    let owner = cluster.owner()?;
    if owner == node {
        return Ok(());
    }
    let address = cluster.host(node).address().to_string();
    cluster.vip(owner, &["handover", "--to", &address])?;
    let owner = cluster.owner()?;
    ensure!(owner == node, "{} has the VIP", cluster.name(owner));
    Ok(())
}

/// How often a node has become the owner.
fn claims(cluster: &Cluster) -> Result<u64> {
    let nodes = cluster.nodes().into_iter();
    nodes.map(|node| Ok(cluster.status(node)?.takeovers)).sum()
}

/// Watches on a server that have ended.
fn ended_on(server: &str, before: &Snapshot, after: &Snapshot) -> usize {
    let pairs = before.watches.iter().zip(&after.watches);
    let there = pairs.filter(|(before, _)| before.server.as_deref() == Some(server));
    there.filter(|(_, after)| after.ended.is_some()).count()
}
