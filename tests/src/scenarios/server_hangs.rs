//! SIGSTOP of one server under load. Its own node sees by the accept queue that nothing is accepted.
//! If it is an API server, the node reports it to the other nodes by BFD.

use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use vip_node::choice::Resort;

use crate::clock::boot_now;
use crate::cluster::{Cluster, Pace, Plan};
use crate::load::Request;
use crate::outcome::{Down, Outcome, Timeline};
use crate::process::Process;
use crate::scenario::{Scenario, Test, When};
use crate::topology::VIP;
use crate::traffic::{Load, Traffic, vip};

use super::steps::{logged, serve_beside};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "server_hangs",
    promise: "server_hangs_and_new_connections_go_elsewhere_at_once",
    tests: &[
        Test::netns(Plan::default).alone(),
        Test::shared_machines(When::Asked),
    ],
    run,
};

pub(super) const RESET: Scenario = Scenario {
    name: "hung_server_reset",
    promise: "hung_server_loses_its_connections_where_that_is_configured",
    tests: &[Test::netns(reset_on_hang)],
    run: run_reset,
};

pub(super) const SERVICE_RESET: Scenario = Scenario {
    name: "hung_service_reset",
    promise: "hung_server_without_a_path_stays_out_after_its_connections_were_reset",
    tests: &[Test::netns(reset_on_hang_of_a_service)],
    run: run_service_reset,
};

pub(super) const TCP_RESET: Scenario = Scenario {
    name: "hung_tcp_reset",
    promise: "hung_server_asked_by_tcp_stays_out_after_its_connections_were_reset",
    tests: &[Test::netns(reset_on_hang)],
    run: run_tcp_reset,
};

pub(super) const SATURATED: Scenario = Scenario {
    name: "servers_saturated",
    promise: "servers_saturated_do_not_look_hung",
    tests: &[Test::netns(Plan::default).alone()],
    run: run_saturated,
};

/// The port of a service beside the API, whose servers are asked for no path.
const SERVICE: u16 = 9345;

/// How long its server is left alone while it hangs: for several resets, if each made it look as if
/// it accepted again.
const HANG: Duration = Duration::from_secs(8);

/// Processes that do nothing but work.
const BUSY: usize = 16;

/// How long all cores are busy.
const BUSY_TIME: Duration = Duration::from_secs(10);

/// False alarms of three nodes in that time, at most. Nine in ten requests fail then, and a server
/// may get no processor for more than 100 ms: 0 to 3 alarms were seen in a run.
const ALARMS: usize = 6;

/// Milliseconds between two new connections.
const EVERY_MS: u64 = 5;

/// The goal, in ns from the signal until no connection goes to the server.
const GOAL: u64 = 250_000_000;

/// Four times the goal: what counts on a machine that is busy with other tests.
const LIMIT: u64 = 4 * GOAL;

fn reset_on_hang() -> Plan {
    let plan = Plan::default();
    let pace = Pace {
        health: "reset_on_hang = true\n",
        ..plan.pace
    };
    Plan { pace, ..plan }
}

fn reset_on_hang_of_a_service() -> Plan {
    let plan = reset_on_hang();
    let more = format!("{}\n[[services]]\nport = {SERVICE}\n", plan.more);
    Plan { more, ..plan }
}

fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(SCENARIO.name);
    let owner = cluster.owner()?;
    let backup = super::steps::another_than(cluster, owner);
    hang(cluster, backup, &mut outcome, timeline)?;
    let moved = cluster.owner()? != owner;
    outcome.promise(!moved, || "the VIP moved".to_owned());
    hang(cluster, owner, &mut outcome, timeline)?;
    for text in ["accepted nothing for", "hangs, as its own node reports"] {
        let told = logged(cluster, text) > 0;
        outcome.promise(told, || format!("no log says: {text}"));
    }
    Ok(outcome)
}

/// Stops a node's server for a while, and lets it go on.
fn hang(
    cluster: &mut Cluster,
    victim: usize,
    outcome: &mut Outcome,
    timeline: &mut Timeline,
) -> Result<()> {
    let name = cluster.name(victim);
    let moves = logged(cluster, "became the owner");
    let client = cluster.topology.client.as_ref();
    let mut load = Load::start_at(cluster, client, &vip(), EVERY_MS, 0)?;
    load.go_on(200)?;
    let stopped = boot_now();
    cluster.signal_server(victim, Signal::SIGSTOP);
    timeline.event(format!("SIGSTOP of the API server on {name}"));
    cluster.wait_until_not_ready(victim)?;
    load.go_on(400)?;
    let continued = boot_now();
    cluster.signal_server(victim, Signal::SIGCONT);
    cluster.wait_until_settled()?;
    timeline.event(format!("SIGCONT, and {name} is ready again"));
    let again = boot_now();
    load.go_on(200)?;

    let requests = load.stop()?;
    // A server that is stopped answers nothing: its answers came when it had gone on.
    let stuck = |from: u64| {
        let meanwhile = requests
            .iter()
            .filter(|request| (stopped + from..continued).contains(&request.start));
        meanwhile
            .filter(|request| !request.succeeded() || request.server.as_ref() == Some(&name))
            .count()
    };
    let (all, goal, limit) = (stuck(0), stuck(GOAL), stuck(LIMIT));
    outcome.requests += requests.len();
    outcome.failed += all;
    outcome.promise(limit == 0, || {
        format!("{limit} requests waited for {name} that began a second after it was stopped")
    });
    let there = |request: &&Request| request.server.as_ref() == Some(&name);
    let later = requests.iter().filter(|request| request.start > again);
    let back = later.filter(there).count();
    outcome.promise(back > 0, || format!("{name} serves nothing afterwards"));
    let moved = logged(cluster, "became the owner") - moves;
    // Away from an owner whose server hangs, and not back.
    outcome.promise(moved <= 1, || format!("the VIP moved {moved} times"));
    timeline.event(format!(
        "{all} requests waited for {name}, {goal} of them began 250 ms after the signal or later; \
         {back} were answered there after it had gone on; the VIP moved {moved} times"
    ));
    Ok(())
}

fn run_reset(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(RESET.name);
    let owner = cluster.owner()?;
    let victim = super::steps::another_than(cluster, owner);
    let name = cluster.name(victim);
    let Traffic {
        load,
        mut watches,
        before,
    } = Traffic::start(cluster, timeline)?;
    drop(load);
    let held = before.on(&name).count();
    let at = boot_now();
    cluster.signal_server(victim, Signal::SIGSTOP);
    timeline.event(format!("SIGSTOP of the API server on {name}"));
    let after = watches.wait_for_verdict(at, Some(&name))?;
    cluster.signal_server(victim, Signal::SIGCONT);
    let down = Down { server: &name, at };
    outcome.take_watches(&before, &after, Some(down));
    let (cut, reset) = (outcome.watches_cut_living, outcome.watches_reset_dead);
    outcome.promise(cut == 0, || {
        format!("{cut} watches to living servers were cut")
    });
    outcome.promise(held > 0 && reset == held, || {
        format!("{reset} of the {held} watches on the server that hangs were reset")
    });
    timeline.event(format!("{reset} of {held} watches on {name} were reset"));
    cluster.wait_until_settled()?;
    Ok(outcome)
}

fn run_service_reset(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(SERVICE_RESET.name);
    let mut servers = serve_beside(cluster, SERVICE)?;
    let (all, nodes) = (servers.len(), cluster.nodes());
    wait_for_usable(cluster, &nodes, all)?;
    let owner = cluster.owner()?;
    let victim = super::steps::another_than(cluster, owner);
    let name = cluster.name(victim);
    let place = nodes.iter().position(|node| *node == victim);
    let place = place.context("its server runs")?;
    let told = |cluster: &Cluster| -> Result<[u64; 3]> {
        let status = cluster.status(victim)?;
        let kinds = ["server_not_ready", "hung_reset", "server_unknown"];
        Ok(kinds.map(|kind| status.event_count(kind)))
    };
    let before = told(cluster)?;
    let client = cluster.topology.client.as_ref();
    let target = format!("{VIP}:{SERVICE}");
    let mut load = Load::start_at(cluster, client, &target, EVERY_MS, 0)?;
    load.go_on(200)?;
    let signal = |cluster: &Cluster, server: &mut Process, signal| {
        cluster.host(victim).signal(server, signal);
    };
    signal(cluster, &mut servers[place], Signal::SIGSTOP);
    timeline.event(format!("SIGSTOP of the service's server on {name}"));
    wait_for_usable(cluster, &[victim], all - 1)?;
    let found = boot_now();
    sleep(HANG);
    // That resets all connections in the queue, too.
    cluster.vip(victim, &["drain", "--cut", "--after", "500ms"])?;
    cluster.vip(victim, &["undrain"])?;
    sleep(HANG / 4);
    // Queues are looked at anew.
    let config = cluster.config()?;
    let slower = config.replacen("[health]\n", "[health]\ninterval = \"600ms\"\n", 1);
    reload(cluster, &slower, &[victim])?;
    sleep(HANG / 4);
    let during = told(cluster)?;
    timeline.event(format!(
        "{name} was drained, and read another configuration"
    ));
    cluster.kill_agent(victim);
    cluster.start_agent(victim)?;
    cluster.wait_until_settled()?;
    wait_for_usable(cluster, &[victim], all - 1)?;
    sleep(HANG / 4);
    timeline.event(format!("the agent on {name} was started again"));
    let restarted = told(cluster)?;
    let continued = boot_now();
    signal(cluster, &mut servers[place], Signal::SIGCONT);
    wait_for_usable(cluster, &[victim], all)?;
    timeline.event(format!("SIGCONT, and {name} serves again"));
    let known = found..continued;
    take_requests(load, &name, known, &mut outcome, timeline)?;
    let after = told(cluster)?;
    let since = |from: [u64; 3], to: [u64; 3]| [0, 1, 2].map(|kind| to[kind] - from[kind]);
    let told = [since(before, during), restarted, since(restarted, after)];
    // An agent that starts tells of each server that serves.
    let others = nodes.len() as u64 - 1;
    outcome.promise(told == [[1, 1, 0], [1, 1, others], [0, 0, 1]], || {
        format!(
            "hangs, resets and returns were told {told:?} times: before the agent was started again, \
             after that, and since the server went on"
        )
    });
    cluster.wait_until_settled()?;
    Ok(outcome)
}

fn run_tcp_reset(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(TCP_RESET.name);
    let (config, nodes) = (cluster.config()?, cluster.nodes());
    let asked = config.replacen("[health]\n", "[health]\ncheck = \"tcp\"\n", 1);
    reload(cluster, &asked, &nodes)?;
    let owner = cluster.owner()?;
    let victim = super::steps::another_than(cluster, owner);
    let name = cluster.name(victim);
    let usable = |cluster: &mut Cluster, usable: bool| {
        let what = format!("all agents see whether {name} is usable: {usable}");
        cluster.wait_for_status(&what, &nodes, |own, _, status| {
            let entry = status.node(own.host(victim));
            entry.is_some_and(|entry| entry.usable == usable)
        })
    };
    usable(cluster, true)?;
    let client = cluster.topology.client.as_ref();
    let mut load = Load::start_at(cluster, client, &vip(), EVERY_MS, 0)?;
    load.go_on(200)?;
    let before = cluster.status(victim)?.event_count("server_not_ready");
    cluster.signal_server(victim, Signal::SIGSTOP);
    timeline.event(format!("SIGSTOP of the API server on {name}"));
    usable(cluster, false)?;
    let found = boot_now();
    sleep(HANG);
    let continued = boot_now();
    let told = cluster.status(victim)?.event_count("server_not_ready") - before;
    outcome.promise(told == 1, || {
        format!("it was told {told} times that it hangs")
    });
    cluster.signal_server(victim, Signal::SIGCONT);
    usable(cluster, true)?;
    timeline.event(format!("SIGCONT, and {name} serves again"));
    let known = found..continued;
    take_requests(load, &name, known, &mut outcome, timeline)?;
    reload(cluster, &config, &nodes)?;
    cluster.wait_until_settled()?;
    Ok(outcome)
}

/// The agents of these nodes read another configuration.
fn reload(cluster: &Cluster, config: &str, nodes: &[usize]) -> Result<()> {
    std::fs::write(cluster.work().join("vip.toml"), config).context("write vip.toml")?;
    for &node in nodes {
        cluster.vip(node, &["reload"])?;
    }
    Ok(())
}

/// Ends a load after some more requests, and takes them in: none went to a server while it was `known`
/// to hang, and it serves again now.
fn take_requests(
    mut load: Load,
    name: &String,
    known: Range<u64>,
    outcome: &mut Outcome,
    timeline: &mut Timeline,
) -> Result<()> {
    let again = boot_now();
    load.go_on(400)?;
    let requests = load.stop()?;
    let there = |request: &&Request| request.server.as_ref() == Some(name);
    let all = requests.iter();
    let meanwhile = all.clone().filter(|request| known.contains(&request.start));
    let stuck = meanwhile.clone();
    let stuck = stuck.filter(|request| !request.succeeded() || there(request));
    let later = all.filter(|request| request.start > again);
    let lost = later.clone().filter(|request| !request.succeeded());
    let (stuck, lost, back) = (stuck.count(), lost.count(), later.filter(there).count());
    outcome.requests += requests.len();
    outcome.failed += stuck + lost;
    outcome.promise(stuck == 0, || {
        format!("{stuck} requests went to {name} that began when it was known to hang")
    });
    outcome.promise(back > 0 && lost == 0, || {
        format!("afterwards {name} served {back} requests, and {lost} failed")
    });
    timeline.event(format!(
        "{stuck} of {} requests went to {name} while it was known to hang; {back} were answered there \
         afterwards",
        meanwhile.count()
    ));
    Ok(())
}

/// Waits until these agents bring new connections of the service to so many servers, which serve.
fn wait_for_usable(cluster: &mut Cluster, nodes: &[usize], count: usize) -> Result<()> {
    let what = format!("the service has {count} servers");
    cluster.wait_for_status(&what, nodes, |_, _, status| {
        let mut services = status.services.iter();
        let service = services.find(|service| service.endpoint.port() == SERVICE);
        service.is_some_and(|service| {
            service.resort == Resort::Usable && service.usable.len() == count
        })
    })
}

fn run_saturated(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(SATURATED.name);
    let owner = cluster.owner()?;
    let busy = super::steps::keep_busy(cluster, owner, BUSY)?;
    let client = cluster.topology.client.as_ref();
    let mut load = Load::start_at(cluster, client, &vip(), 1, 0)?;
    let end = Instant::now() + BUSY_TIME;
    while Instant::now() < end {
        load.go_on(100)?;
    }
    drop(busy);
    let requests = load.stop()?;
    let failed = requests.iter().filter(|request| !request.succeeded());
    let failed = failed.count();
    let (queues, probes) = (
        logged(cluster, "accepted nothing for"),
        logged(cluster, "timed out after"),
    );
    let alarms = queues + probes;
    outcome.promise(alarms <= ALARMS, || {
        format!("servers looked hung {alarms} times in {BUSY_TIME:?}")
    });
    timeline.event(format!(
        "{} requests, {failed} of them failed; servers looked hung by their queue {queues} times, by \
         probes {probes} times",
        requests.len()
    ));
    cluster.wait_until_settled()?;
    Ok(outcome)
}
