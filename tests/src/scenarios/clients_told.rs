//! A machine loses its power. Its clients wait for events and send nothing: without being told they
//! would learn of it by their keepalives, which ask after ten minutes here.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;

use super::port_mapping::{FRONT, mapped};
use super::steps;
use crate::clock::{boot_now, until};
use crate::cluster::{Cluster, PATIENCE, Pace, Plan};
use crate::outcome::{Down, Outcome, Timeline};
use crate::pod::{Pod, Routing};
use crate::scenario::{Scenario, Test, When};
use crate::topology::{Host, PORT, VIP, VIP6, sh};
use crate::traffic::{Watches, vip};
use crate::watch::Snapshot;

pub(super) const OWNER: Scenario = Scenario {
    name: "clients_told_owner",
    promise: "idle_clients_of_a_dead_owner_are_told",
    tests: &[
        Test::netns(Plan::default).on_kernels(When::Asked),
        Test::netns(fast).cluster("fast"),
        Test::shared_machines(When::Asked),
    ],
    run: |cluster, timeline| run(cluster, timeline, OWNER.name, Which::Owner),
};

pub(super) const OTHER: Scenario = Scenario {
    name: "clients_told_other",
    promise: "idle_clients_of_a_dead_backup_are_told",
    tests: &[
        Test::netns(Plan::default).on_kernels(When::Asked),
        Test::netns(keyed).cluster("keyed"),
        Test::shared_machines(When::Always),
    ],
    run: |cluster, timeline| run(cluster, timeline, OTHER.name, Which::Backup),
};

pub(super) const MANY: Scenario = Scenario {
    name: "clients_told_many",
    promise: "ten_thousand_idle_clients_are_told",
    tests: &[Test::netns(many).alone()],
    run: |cluster, timeline| run(cluster, timeline, MANY.name, Which::Owner),
};

pub(super) const WAYS: Scenario = Scenario {
    name: "clients_told_ways",
    promise: "idle_clients_are_told_behind_nat_and_firewalls_and_by_ipv6",
    tests: &[Test::netns(mapped)],
    run: by_all_ways,
};

pub(super) const BACK: Scenario = Scenario {
    name: "clients_told_back",
    promise: "node_that_was_cut_off_ends_the_connections_of_clients_that_were_told",
    tests: &[Test::netns(Plan::default)],
    run: back,
};

pub(super) const LATER: Scenario = Scenario {
    name: "clients_told_later",
    promise: "idle_clients_of_a_dead_node_are_told_as_soon_as_the_agents_of_all_others_run",
    tests: &[Test::netns(Plan::default)],
    run: later,
};

pub(super) const CUT: Scenario = Scenario {
    name: "drain_cut",
    promise: "drain_cut_resets_the_connections_of_the_node_alone",
    tests: &[Test::netns(Plan::default)],
    run: cut,
};

/// The node that loses its power.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Owner,
    Backup,
}

/// Time between two questions of TCP after the peer, in seconds: longer than the test may take.
const KEEPALIVE: u64 = 600;

/// Watches of another node's programs, and as many of a pod.
const PROGRAMS: usize = 10;

/// Watches of the node's own programs.
const OWN_PROGRAMS: usize = 5;

/// `vip drain --cut` takes less than that in milliseconds where nobody is connected: its second, and
/// a look or two while other nodes probe the server.
const WITHOUT_CLIENTS: u64 = 5000;

/// More than these would keep the processors busy with their events.
const MANY_WATCHES: usize = 1000;

/// The fast profile of docs/operations.md.
fn fast() -> Plan {
    Plan {
        more: "\n[bfd]\ninterval = \"35ms\"\n\n[datapath]\nreset_after = \"500ms\"\n".to_owned(),
        ..Plan::default()
    }
}

fn many() -> Plan {
    let brisk = Plan::default();
    Plan {
        pace: Pace {
            watches: 10_000,
            ..brisk.pace
        },
        ..brisk
    }
}

pub(super) fn keyed() -> Plan {
    Plan {
        keyed: true,
        ..Plan::default()
    }
}

/// Watches of one host, and how they were before the power cut.
pub(super) struct Held {
    who: String,
    watches: Watches,
    pub(super) before: Snapshot,
}

impl Held {
    /// Opens idle watches.
    pub(super) fn open(
        cluster: &Cluster,
        host: &dyn Host,
        target: &str,
        count: usize,
    ) -> Result<Self> {
        let open = match count {
            ..=MANY_WATCHES => Watches::open_with,
            _ => Watches::open_rare,
        };
        let (watches, before) = open(cluster, host, target, count, KEEPALIVE)?;
        Ok(Self {
            who: format!("{} to {target}", host.name()),
            watches,
            before,
        })
    }

    /// Waits until all on a dead server are told, and the others have gone on.
    fn finish(
        &mut self,
        outcome: &mut Outcome,
        timeline: &mut Timeline,
        down: Down<'_>,
    ) -> Result<()> {
        let after = self
            .watches
            .wait_for_verdict(boot_now(), Some(down.server))?;
        let reset_before = (outcome.watches_reset_dead, outcome.watches_cut_living);
        outcome.take_watches(&self.before, &after, Some(down));
        let held = self.before.on(down.server).count();
        let reset = outcome.watches_reset_dead - reset_before.0;
        let cut = outcome.watches_cut_living - reset_before.1;
        outcome.promise(reset == held && cut == 0, || {
            format!(
                "{}: {reset} of the {held} watches on the dead server were reset, {cut} on living ones \
                 cut",
                self.who
            )
        });
        let told = after.on(down.server).filter_map(|watch| watch.ended_at);
        let mut told: Vec<u64> = told
            .map(|ended| ended.saturating_sub(down.at) / 1_000_000)
            .collect();
        told.sort_unstable();
        let (first, last) = (told.first(), told.last());
        timeline.event(format!(
            "{}: {reset} of {held} watches on the dead server were reset, the first {first:?} ms and the \
             last {last:?} ms after the power cut; {cut} of the others cut",
            self.who
        ));
        Ok(())
    }
}

/// The others are told of the last connections within this time.
pub(super) const KNOWN: Duration = Duration::from_secs(2);

/// Cuts the power of a node that has clients, and waits for all that these hold.
pub(super) fn strike(
    cluster: &mut Cluster,
    timeline: &mut Timeline,
    outcome: &mut Outcome,
    victim: usize,
    held: &mut [Held],
) -> Result<()> {
    let dead = cluster.name(victim);
    std::thread::sleep(KNOWN);
    for held in &mut *held {
        held.before = held.watches.snapshot()?;
        let count = held.before.on(&dead).count();
        ensure!(count > 0, "{}: no watch is on {dead}", held.who);
    }
    timeline.event(format!(
        "power cut of {dead}; nobody sends anything to its server"
    ));
    let at = cluster.power_off(victim)?;
    let down = Down { server: &dead, at };
    for held in held {
        held.finish(outcome, timeline, down)?;
    }
    cluster.wait_until_settled()?;
    wait_for_news(cluster, timeline, victim)
}

/// Waits until the owner says whom it has told that a node is gone.
fn wait_for_news(cluster: &mut Cluster, timeline: &mut Timeline, gone: usize) -> Result<()> {
    let owner = cluster.owner()?;
    // As its agent names it, where the configuration lists addresses.
    let address = cluster.host(gone).address().to_string();
    let told = until("the owner says whom it has told", PATIENCE, || {
        let events = cluster.vip(owner, &["events"])?;
        let told = events
            .lines()
            .find(|line| line.contains(&address) && line.contains("clients that it is gone"));
        Ok(told.map(str::to_owned))
    })?;
    timeline.event(format!("{}: {told}", cluster.name(owner)));
    Ok(())
}

fn run(
    cluster: &mut Cluster,
    timeline: &mut Timeline,
    name: &'static str,
    which: Which,
) -> Result<Outcome> {
    let mut outcome = Outcome::new(name);
    let owner = cluster.owner()?;
    let victim = match which {
        Which::Owner => owner,
        Which::Backup => steps::another_than(cluster, owner),
    };
    let client = cluster.topology.client.as_ref();
    let held = Held::open(cluster, client, &vip(), cluster.pace().watches)?;
    strike(cluster, timeline, &mut outcome, victim, &mut [held])?;
    Ok(outcome)
}

/// What stateful firewalls of routers and hosts do.
const DROP_INVALID: &str = "nft 'table inet test { chain forward { type filter hook forward priority 0; \
                            ct state invalid drop; }; chain input { type filter hook input priority 0; \
                            ct state invalid drop; }; }'";

/// All clients of a router have its address.
const MASQUERADE: &str = "nft 'table ip nat { chain out { type nat hook postrouting priority srcnat; \
                          ip saddr 10.1.0.0/24 masquerade; }; }'";

/// Both families, a mapped port, firewalls that drop what belongs to no connection, and NAT.
fn by_all_ways(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(WAYS.name);
    let [client, remote, router] = [
        &cluster.topology.client,
        &cluster.topology.remote,
        &cluster.topology.router,
    ]
    .map(AsRef::as_ref);
    sh(client, DROP_INVALID)?;
    sh(router, DROP_INVALID)?;
    sh(router, MASQUERADE)?;
    let (v4, v6) = (format!("{VIP}:{FRONT}"), format!("[{VIP6}]:{FRONT}"));
    let mut held = [
        Held::open(cluster, client, &v4, 60)?,
        Held::open(cluster, client, &v6, 60)?,
        Held::open(cluster, remote, &v4, 60)?,
    ];
    let owner = cluster.owner()?;
    strike(cluster, timeline, &mut outcome, owner, &mut held)?;
    Ok(outcome)
}

/// A row may end at a node whose agent is down, which resets nothing.
fn later(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(LATER.name);
    let owner = cluster.owner()?;
    let client = cluster.topology.client.as_ref();
    let mut held = Held::open(cluster, client, &vip(), cluster.pace().watches)?;
    std::thread::sleep(KNOWN);
    let [victim, third] = steps::others_than(cluster, owner)[..] else {
        bail!("there are three nodes");
    };
    cluster.kill_agent(third);
    timeline.event(format!("{}: its agent is down", cluster.name(third)));
    std::thread::sleep(Duration::from_secs(1));
    let dead = cluster.name(victim);
    timeline.event(format!("power cut of {dead}"));
    let at = cluster.power_off(victim)?;
    // Its first rounds are over then.
    wait_for_news(cluster, timeline, victim)?;
    cluster.start_agent(third)?;
    timeline.event(format!("{}: its agent runs again", cluster.name(third)));
    let down = Down { server: &dead, at };
    held.finish(&mut outcome, timeline, down)?;
    Ok(outcome)
}

/// A node is cut off for longer than `reset_after`, so its clients are told, and comes back.
///
/// The kernels of its clients answer for connections that are no more. Its server sends nothing, which
/// would end them as well.
fn back(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(BACK.name);
    let owner = cluster.owner()?;
    let node = steps::another_than(cluster, owner);
    let others = steps::others_than(cluster, node);
    for meanwhile in [
        Meanwhile::Nothing,
        Meanwhile::StandsStill,
        Meanwhile::Restarted(vec![node]),
        Meanwhile::Restarted(others),
    ] {
        come_back(cluster, timeline, &mut outcome, node, &meanwhile)?;
    }
    Ok(outcome)
}

/// What happens while a node is cut off.
#[derive(Debug)]
enum Meanwhile {
    Nothing,
    /// None of its processes runs.
    StandsStill,
    /// The agents of these nodes start again.
    Restarted(Vec<usize>),
}

fn come_back(
    cluster: &mut Cluster,
    timeline: &mut Timeline,
    outcome: &mut Outcome,
    node: usize,
    meanwhile: &Meanwhile,
) -> Result<()> {
    let name = cluster.name(node);
    let client = cluster.topology.client.as_ref();
    let mut held = Held::open(cluster, client, &vip(), 90)?;
    std::thread::sleep(KNOWN);
    cluster.signal_server(node, Signal::SIGSTOP);
    std::thread::sleep(KNOWN);
    timeline.event(format!("{name} is cut off; meanwhile: {meanwhile:?}"));
    let at = boot_now();
    cluster.host(node).port_forwards(false)?;
    if let Meanwhile::StandsStill = meanwhile {
        cluster.signal_agent(node, Signal::SIGSTOP);
    }
    let down = Down { server: &name, at };
    held.finish(outcome, timeline, down)?;
    let client = cluster.topology.client.as_ref();
    let mut elsewhere = Held::open(cluster, client, &vip(), 30)?;
    ensure!(elsewhere.before.on(&name).count() == 0, "{name} is cut off");
    match meanwhile {
        Meanwhile::Nothing => {}
        Meanwhile::StandsStill => cluster.signal_agent(node, Signal::SIGCONT),
        Meanwhile::Restarted(agents) => {
            for &agent in agents {
                cluster.kill_agent(agent);
                cluster.start_agent(agent)?;
            }
        }
    }
    let old = established(cluster, node)?;
    ensure!(old > 0, "{name} has lost the connections that it had");
    cluster.host(node).port_forwards(true)?;
    until(
        "the connections of clients that were told end on the server's side",
        PATIENCE,
        || Ok((established(cluster, node)? == 0).then_some(())),
    )?;
    cluster.signal_server(node, Signal::SIGCONT);
    cluster.wait_until_settled()?;
    let after = elsewhere.watches.wait_for_verdict(boot_now(), None)?;
    outcome.take_watches(&elsewhere.before, &after, None);
    timeline.event(format!(
        "{name} is back: its {old} old connections have ended"
    ));
    Ok(())
}

/// Connections of clients to a node's server.
pub(super) fn established(cluster: &Cluster, node: usize) -> Result<usize> {
    let command = format!("ss -Htn state established src {VIP}");
    Ok(sh(cluster.host(node), &command)?.lines().count())
}

/// An operator drains a node, and does not want to wait for watches.
fn cut(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(CUT.name);
    let owner = cluster.owner()?;
    let name = cluster.name(owner);
    let mut own = Held::open(cluster, cluster.host(owner), &vip(), OWN_PROGRAMS)?;
    ensure!(
        own.before.on(&name).count() == OWN_PROGRAMS,
        "the node uses its own server"
    );
    // The members are those of a list.
    outcome.promise(cluster.vip(owner, &["leave"]).is_err(), || {
        format!("{name} left the list")
    });
    let events = cluster.vip(owner, &["events"])?;
    outcome.promise(!events.contains("takes no new connections"), || {
        format!("{name} drained before it was told that it may not leave: {events}")
    });
    let wait = ["drain", "--cut", "--after", "60s"];
    let begun = boot_now();
    cluster.vip(owner, &wait)?;
    let took = (boot_now() - begun) / 1_000_000;
    outcome.promise(took < WITHOUT_CLIENTS, || {
        format!("without a client, {wait:?} took {took} ms")
    });
    cluster.vip(owner, &["undrain"])?;
    cluster.wait_until_settled()?;

    let another = cluster.host(steps::another_than(cluster, owner));
    // As connections of its programs to the VIP come in, when they are led to the owner's server.
    let address = format!("{}:{PORT}", cluster.host(owner).address());
    let mut programs = Held::open(cluster, another, &address, PROGRAMS)?;
    let pod = Pod::start(cluster, owner, Routing::Routed)?;
    let mut pods = Held::open(cluster, &pod.on(cluster), &vip(), PROGRAMS)?;
    ensure!(
        pods.before.on(&name).count() == PROGRAMS,
        "the pod uses its node's server"
    );
    steps::undrain_meanwhile(cluster, timeline, &mut outcome, owner, &wait)?;
    for held in [&mut programs, &mut pods] {
        let open = held.watches.snapshot()?.all_open();
        outcome.promise(open, || {
            format!("{} were cut though {name} was undrained", held.who)
        });
    }

    let client = cluster.topology.client.as_ref();
    let mut held = Held::open(cluster, client, &vip(), 90)?;
    let at = boot_now();
    let said = cluster.vip(owner, &["drain", "--cut", "--after", "500ms"])?;
    timeline.event(said.trim().replace('\n', "; "));
    let down = Down { server: &name, at };
    let cut = held.before.on(&name).count() + 2 * PROGRAMS;
    for held in [&mut held, &mut programs, &mut pods] {
        held.finish(&mut outcome, timeline, down)?;
    }
    let open = own.watches.snapshot()?.all_open();
    outcome.promise(open, || format!("watches of {name} itself were cut"));
    // Probes by the other two may be open in this moment, too.
    let counted = (cut..=cut + 2).any(|cut| said.contains(&format!("reset {cut} connections")));
    outcome.promise(counted, || {
        format!("{cut} were reset, and `vip drain` said: {said}")
    });
    let client = cluster.topology.client.as_ref();
    let again = Held::open(cluster, client, &vip(), 30)?;
    outcome.promise(again.before.on(&name).count() == 0, || {
        format!("watches are opened on {name}, which drains")
    });
    cluster.vip(owner, &["undrain"])?;
    cluster.wait_until_settled()?;
    Ok(outcome)
}
