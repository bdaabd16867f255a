//! The network or a node pauses for a moment: switch ports are disabled while their carrier stays up,
//! as RSTP, LACP and live migrations do it, or all processes of a node are stopped. Up to
//! `reset_after` this cuts no watch, and beyond it only those on nodes that were away. A node that
//! comes back takes the VIP from no living owner.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::clock::{boot_now, until};
use crate::cluster::{Cluster, PATIENCE, Pace, Plan};
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
            apart: ms(100),
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
            &[ms(300), ms(1000)],
            &[owner, backup],
        )
    },
};

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// How long something pauses.
const DURATIONS: [Duration; 8] = [
    ms(100),
    ms(250),
    ms(300),
    ms(400),
    ms(1000),
    ms(1500),
    ms(3000),
    ms(10_000),
];

/// The agents' default.
const RESET_AFTER: Duration = ms(2000);

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
    fn leaves_vip(&self, lasts: Duration) -> bool {
        let all = self.nodes.len() == 3 && lasts < RESET_AFTER;
        all || !self.nodes.contains(&OWNER_BEFORE)
    }

    fn happen(&self, cluster: &mut Cluster, lasts: Duration) -> Result<()> {
        for &node in self.nodes {
            self.set(cluster, node, false)?;
        }
        let begin = Instant::now();
        let mut end = lasts;
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

#[derive(Debug)]
struct Held {
    watches: Watches,
    /// How they were when all were open.
    before: Snapshot,
}

fn run(
    cluster: &mut Cluster,
    timeline: &mut Timeline,
    name: &str,
    durations: &[Duration],
    pauses: &[Pause],
) -> Result<Outcome> {
    let mut outcome = Outcome::new(name);
    let mut held = open_watches(cluster)?;
    for pause in pauses {
        for &lasts in durations {
            let after = case(cluster, timeline, &mut outcome, &mut held, pause, lasts)?;
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
    held: &mut Held,
    pause: &Pause,
    lasts: Duration,
) -> Result<Snapshot> {
    give_vip_to(cluster, OWNER_BEFORE)?;
    // Until all know of it, and count it.
    cluster.wait_until_settled()?;
    let claims_before = claims(cluster)?;
    pause.happen(cluster, lasts)?;
    cluster.wait_until_settled()?;
    let after = held.watches.wait_for_verdict(boot_now(), None)?;
    let before = &held.before;

    let owner = cluster.owner()?;
    let moves = claims(cluster)? - claims_before;
    let mut text = format!("{:?} of {}, {lasts:?}:", pause.what, pause.who);
    let mut wrongly_cut = 0;
    for node in cluster.nodes() {
        let name = cluster.name(node);
        let (cut, all) = (ended_on(&name, before, &after), before.on(&name).count());
        text += &format!(" {cut} of {all} watches on {name} cut,");
        if lasts < RESET_AFTER || !pause.nodes.contains(&node) {
            wrongly_cut += cut;
        }
    }
    let moved = owner != OWNER_BEFORE || (lasts < RESET_AFTER && moves > 0);
    let wrongly_moved = moved && pause.leaves_vip(lasts);
    text += &format!(" {moves} takeovers, {} owns the VIP", cluster.name(owner));
    timeline.event(&text);
    outcome.watches += before.watches.len();
    outcome.watches_cut_living += wrongly_cut;
    outcome.promise(wrongly_cut == 0 && !wrongly_moved, || {
        format!("{wrongly_cut} watches wrongly cut, VIP wrongly moved: {wrongly_moved}: {text}")
    });
    Ok(after)
}

/// Opens the watches, again if a server has none: it was not ready for a moment.
fn open_watches(cluster: &mut Cluster) -> Result<Held> {
    until("every server has watches", PATIENCE, || {
        cluster.wait_until_settled()?;
        let client = cluster.topology.client.as_ref();
        let count = cluster.pace().watches;
        let (watches, before) = Watches::open(cluster, client, &vip(), count)?;
        let nodes = cluster.nodes();
        let has_some = |node: &usize| before.on(&cluster.name(*node)).count() > 0;
        Ok(nodes
            .iter()
            .all(has_some)
            .then_some(Held { watches, before }))
    })
}

/// Hands the VIP over, again while the cluster still refuses: a server must be ready twice in a row.
fn give_vip_to(cluster: &mut Cluster, node: usize) -> Result<()> {
    let address = cluster.host(node).address().to_string();
    let mut refusal = None;
    until("the VIP is handed over", PATIENCE, || {
        let owner = cluster.owner()?;
        if owner == node {
            return Ok(Some(()));
        }
        refusal = cluster.vip(owner, &["handover", "--to", &address]).err();
        Ok(None)
    })
    .with_context(|| format!("the last refusal: {refusal:?}"))
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
