//! The key that the agents share is changed in the three steps of `vip key`, while they run: each node
//! reads its file again some time after the others, and no session ends and no request fails.

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "key_changed",
    promise: "key_is_changed_node_by_node_and_fails_no_request",
    tests: &[
        Test::netns(found),
        Test::netns(listed).cluster("static_list"),
    ],
    run,
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
