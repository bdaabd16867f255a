//! FRR and BIRD on the nodes themselves, beside our agent, as MetalLB, OpenShift and Talos have them:
//! started before it and after it, with sessions of their own with the client, and with each other
//! between the same nodes as our agents. Whoever restarts, the others' sessions stay.

use anyhow::Result;

use vip_node::bfd::State;
use vip_userspace::observe::status::BfdPort;

use crate::agent::{self, session_is};
use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::hooks;
use crate::outcome::{Outcome, Timeline};
use crate::peers::{Bird, Frr, Seat};
use crate::process::{Process, tail};
use crate::scenario::{Scenario, Test};
use crate::topology::NIC;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "bfd_beside",
    promise: "bird_and_frr_on_the_same_nodes_keep_their_bfd_sessions_and_ours",
    tests: &[Test::netns(Plan::bare)],
    run,
};

/// FRR runs on the first and the last node, BIRD on the one between them.
const FIRST: usize = 0;
const MIDDLE: usize = 1;
const LAST: usize = 2;
const NODES: [usize; 3] = [FIRST, MIDDLE, LAST];

/// Between BFD packets of theirs, in milliseconds.
const INTERVAL: u32 = 60;

/// The sessions of each: with the client, and along a chain of the nodes.
fn peers_of(node: usize) -> Vec<Seat> {
    let neighbours = NODES.into_iter().filter(|other| node.abs_diff(*other) == 1);
    let neighbours = neighbours.map(Seat::Node);
    neighbours.chain([Seat::Client]).collect()
}

/// The daemons of other people.
struct Others {
    client: Bird,
    bird: Bird,
    frr: [Frr; 2],
}

impl Others {
    /// Waits until all their sessions are up.
    fn wait(&self, cluster: &Cluster) -> Result<()> {
        for node in NODES {
            for peer in peers_of(node) {
                let what = format!("the session of n{} with {peer:?} is up", node + 1);
                until(&what, PATIENCE, || {
                    let state = match node {
                        FIRST => self.frr[0].session(cluster, peer),
                        MIDDLE => self.bird.session(cluster, peer),
                        _ => self.frr[1].session(cluster, peer),
                    };
                    // It may not listen to questions yet.
                    let state = state.ok().flatten().unwrap_or_default();
                    Ok(state.eq_ignore_ascii_case("up").then_some(()))
                })?;
            }
        }
        Ok(())
    }

    /// How often any of their sessions went down.
    fn downs(&self, cluster: &Cluster) -> Result<usize> {
        let [first, last] = &self.frr;
        Ok(first.downs(cluster)?
            + last.downs(cluster)?
            + self.bird.downs()?
            + self.client.downs()?)
    }
}

/// How often a session of our agents went down since they were started.
fn our_downs(cluster: &Cluster) -> Result<u64> {
    let mut sum = 0;
    for node in NODES {
        let status = cluster.status(node)?;
        sum += status.event_count("bfd_down");
    }
    Ok(sum)
}

/// Waits until our agents hear each other, and know who else has the port.
fn wait_for_ours(cluster: &mut Cluster, port: BfdPort) -> Result<()> {
    cluster.wait_until_settled()?;
    let what = format!("BFD's port is {port:?} on all nodes");
    cluster.wait_for_status(&what, &NODES, |_, _, status| status.has_bfd_port(port))
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("bfd_beside");
    let nodes = NODES.map(Seat::Node);
    let client = Bird::start(cluster, Seat::Client, &nodes, INTERVAL)?;

    // FRR and BIRD first on two nodes, our agent first on the third.
    let frr = Frr::start(cluster, Seat::Node(FIRST), &peers_of(FIRST), INTERVAL)?;
    let bird = Bird::start(cluster, Seat::Node(MIDDLE), &peers_of(MIDDLE), INTERVAL)?;
    cluster.start_agent(LAST)?;
    cluster.wait_for_status("the agent runs", &[LAST], |_, _, _| true)?;
    cluster.start_agent(FIRST)?;
    cluster.start_agent(MIDDLE)?;
    let second = Frr::start(cluster, Seat::Node(LAST), &peers_of(LAST), INTERVAL)?;
    let mut others = Others {
        client,
        bird,
        frr: [frr, second],
    };
    cluster.wait_for_status("all agents run", &NODES, |_, _, _| true)?;
    others.wait(cluster)?;
    wait_for_ours(cluster, BfdPort::Shared)?;
    timeline.event("in either order of starting, all sessions are up");

    // Our agents restart: the first after a time in which the others look for it in vain.
    let before = others.downs(cluster)?;
    for node in NODES {
        cluster.kill_agent(node);
        let rest = super::steps::others_than(cluster, node);
        let what = format!("n{} is missed", node + 1);
        cluster.wait_for_status(&what, &rest, |own, _, status| {
            status
                .node(own.host(node))
                .is_some_and(|node| session_is(node, State::Down))
        })?;
        // Each of the others says more than once that its session is down.
        std::thread::sleep(std::time::Duration::from_millis(2500));
        cluster.start_agent(node)?;
        wait_for_ours(cluster, BfdPort::Shared)?;
    }
    cluster.stop_agent(FIRST)?;
    cluster.start_agent(FIRST)?;
    wait_for_ours(cluster, BfdPort::Shared)?;
    others.wait(cluster)?;
    let downs = others.downs(cluster)? - before;
    outcome.promise(downs == 0, || {
        format!("{downs} sessions of FRR and BIRD went down as our agents restarted")
    });
    timeline.event(format!(
        "our agents were restarted: {downs} sessions of FRR and BIRD went down"
    ));

    // And theirs, which come second now.
    let before = our_downs(cluster)?;
    others.frr[0].process.kill_and_reap();
    others.bird.process.kill_and_reap();
    wait_for_port(cluster, &[FIRST, MIDDLE], BfdPort::Sole)?;
    others.frr[0] = Frr::start(cluster, Seat::Node(FIRST), &peers_of(FIRST), INTERVAL)?;
    others.bird = Bird::start(cluster, Seat::Node(MIDDLE), &peers_of(MIDDLE), INTERVAL)?;
    others.wait(cluster)?;
    wait_for_ours(cluster, BfdPort::Shared)?;
    let downs = our_downs(cluster)? - before;
    outcome.promise(downs == 0, || {
        format!("{downs} sessions of ours went down as FRR and BIRD restarted")
    });
    timeline.event(format!(
        "FRR and BIRD were restarted: {downs} sessions of ours went down"
    ));

    without_sharing(cluster, timeline, &mut outcome, &mut others)?;

    for node in NODES {
        cluster.stop_agent(node)?;
        agent::cleanup(cluster.programs(), cluster.host(node))?;
        let left = hooks::on(cluster.host(node), cluster.programs(), NIC)?;
        outcome.promise(left.is_empty(), || {
            format!("left on n{}: {left:?}", node + 1)
        });
    }
    others.wait(cluster)?;
    Ok(outcome)
}

fn wait_for_port(cluster: &mut Cluster, nodes: &[usize], port: BfdPort) -> Result<()> {
    let what = format!("BFD's port is {port:?}");
    cluster.wait_for_status(&what, nodes, |_, _, status| status.has_bfd_port(port))
}

/// Where the kernel does not share the port, its loss is a fault that has a name and that heals.
fn without_sharing(
    cluster: &mut Cluster,
    timeline: &mut Timeline,
    outcome: &mut Outcome,
    others: &mut Others,
) -> Result<()> {
    cluster.stop_agent(FIRST)?;
    agent::cleanup(cluster.programs(), cluster.host(FIRST))?;
    let log = cluster.work().join("crowd.log");
    let mut command = cluster
        .host(FIRST)
        .command(cluster.programs().testbed.as_os_str());
    let mut crowd = Process::reporter("crowd", command.arg("crowd"), &log)?;
    until("no room is left for programs", PATIENCE, || {
        anyhow::ensure!(crowd.is_running(), "it ended: {}", tail(&log, 5));
        Ok((crowd.line_count() > 0).then_some(()))
    })?;

    cluster.start_agent(FIRST)?;
    let fault = "UDP port 3784 (BFD) cannot be opened";
    cluster.wait_for_status("the fault is named", &[FIRST], |_, _, status| {
        status.has_only_fault(fault) && status.has_bfd_port(BfdPort::Lost)
    })?;
    let events = cluster.vip(FIRST, &["events"])?;
    outcome.promise(events.contains("FRR's bfdd"), || {
        format!("no event says who may have the port: {events}")
    });
    timeline.event("FRR has the port, and the kernel cannot share it: a fault");

    others.frr[0].process.kill_and_reap();
    cluster.wait_for_status("the port is had", &[FIRST], |_, _, status| {
        status.faults.is_empty() && status.has_bfd_port(BfdPort::Bound)
    })?;
    cluster.wait_until_settled()?;
    timeline.event("FRR has ended, and the agent has the port");

    crowd.kill_and_reap();
    cluster.stop_agent(FIRST)?;
    cluster.start_agent(FIRST)?;
    others.frr[0] = Frr::start(cluster, Seat::Node(FIRST), &peers_of(FIRST), INTERVAL)?;
    others.wait(cluster)?;
    wait_for_ours(cluster, BfdPort::Shared)
}
