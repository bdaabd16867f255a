//! The key that the agents share is changed in the three steps of `vip key`, while they run: each node
//! reads its file again some time after the others, and no session ends and no request fails.

use anyhow::Result;

use super::steps::{others_than, promise_one_answer};
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::traffic::{ArpMonitor, Traffic};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "key_changed",
    promise: "key_is_changed_node_by_node_and_fails_no_request",
    tests: &[
        Test::netns(found),
        Test::netns(listed).cluster("static_list"),
    ],
    run,
};

pub(super) const ADDED: Scenario = Scenario {
    name: "key_added",
    promise: "key_is_added_and_removed_by_restarts_the_owner_last_and_fails_no_request",
    tests: &[
        Test::netns(|| Plan::found_by(3, 3, "")),
        Test::netns(Plan::default).cluster("static_list"),
    ],
    run: add,
};

fn found() -> Plan {
    Plan {
        keyed: true,
        ..Plan::found_by(3, 4, "")
    }
}

fn listed() -> Plan {
    Plan {
        keyed: true,
        ..Plan::default()
    }
}

fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("key_changed");
    let owner = cluster.owner()?;
    let mut traffic = Traffic::start(cluster, timeline)?;
    let file = cluster.work().join("key").display().to_string();
    let key_of = |status: &crate::agent::Status| {
        let membership = status.membership.as_ref();
        membership.and_then(|them| them.key.clone())
    };
    let first = key_of(&cluster.status(owner)?);
    let nodes = cluster.nodes();
    for step in ["--add", "--swap", "--retire"] {
        let said = cluster.vip(owner, &["key", step, &file])?;
        for &node in &nodes {
            let said = cluster.vip(node, &["reload"])?;
            outcome.promise(said.contains(&file), || {
                format!("{step}, {}: {said}", cluster.name(node))
            });
            traffic.load.go_on(100)?;
        }
        timeline.event(format!("vip key {step}: {}", said.trim_end()));
    }
    let again = cluster.vip(owner, &["reload"])?;
    outcome.promise(again.contains("nothing has changed"), || again.clone());
    for &node in &nodes {
        let status = cluster.status(node)?;
        let key = key_of(&status);
        outcome.promise(key.is_some() && key != first, || {
            format!("{} seals with {key:?}", cluster.name(node))
        });
        let downs = status.event_count("bfd_down");
        outcome.promise(downs == 0, || {
            format!("{downs} sessions went down on {}", cluster.name(node))
        });
    }
    // A file that is wrong changes nothing.
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, "no key")?;
    let refused = cluster.vip(owner, &["reload"]);
    let refused = refused.map_or_else(
        |error| format!("{error:#}"),
        |said| format!("taken: {said}"),
    );
    outcome.promise(
        refused.contains(&file) && !refused.contains("taken"),
        || format!("a file without a key: {refused}"),
    );
    std::fs::write(&file, text)?;
    if cluster.plan().founders.is_some() {
        cluster.arrive(3)?;
    }
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    let last = cluster.owner()?;
    outcome.promise(last == owner, || "the VIP has moved".to_owned());
    traffic.finish(&mut outcome, None)?;
    Ok(outcome)
}

/// A cluster without a key gets one, and loses it again, by restarts. While only some agents have it,
/// those with it and those without do not hear each other.
fn add(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(ADDED.name);
    let plain = cluster.config()?;
    let file = cluster.work().join("key").display().to_string();
    cluster.vip(0, &["key", "--output", &file])?;
    let keyed = format!("key_file = \"{file}\"\n{plain}");
    let mut traffic = Traffic::start(cluster, timeline)?;
    let mut arp = ArpMonitor::start(cluster, 5)?;
    for (config, what) in [(keyed, "with a key"), (plain, "without one")] {
        let owner = cluster.owner()?;
        let backups = others_than(cluster, owner);
        for node in backups.into_iter().chain([owner]) {
            cluster.stop_agent(node)?;
            cluster.start_agent_with(node, &config)?;
            traffic.load.go_on(200)?;
        }
        cluster.wait_until_settled()?;
        traffic.load.go_on(100)?;
        timeline.event(format!("all agents {what}"));
        for node in cluster.nodes() {
            let membership = cluster.status(node)?.membership.clone();
            let has_key = membership.is_some_and(|them| them.key.is_some());
            outcome.promise(has_key == (what == "with a key"), || {
                format!("{} runs {what}: {has_key}", cluster.name(node))
            });
        }
    }
    traffic.finish(&mut outcome, None)?;
    promise_one_answer(&mut outcome, &arp.report()?);
    Ok(outcome)
}
