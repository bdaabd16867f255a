//! Nodes that limit ICMP, as hardened ones do: an agent that is restarted, or killed, cuts no
//! watch, since the others see by other means that its node lives. Status says that echo does not
//! come back.

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test};
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "echo_limited",
    promise: "echo_limited_or_dropped_cuts_no_watch_of_a_restarted_agent",
    tests: &[Test::netns(Plan::default).alone()],
    run,
};

/// Rules of nftables on all nodes, in place of those before.
fn filter(cluster: &Cluster, rule: &str) -> Result<()> {
    let rules = format!(
        "flush ruleset\n\
         table inet filter {{\n\
           chain input {{\n\
             type filter hook input priority 0; {rule}\n\
           }}\n\
         }}\n"
    );
    for node in cluster.nodes() {
        let mut nft = cluster.host(node).command("nft".as_ref());
        output(nft.arg(&rules))?;
    }
    Ok(())
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("echo_limited");
    let owner = cluster.owner()?;
    let node = super::steps::another_than(cluster, owner);
    let name = cluster.name(node);
    for (what, rule) in [
        (
            "a limit of 5 echo requests a second",
            "icmp type echo-request limit rate 5/second accept; icmp type echo-request drop;",
        ),
        ("no echo requests at all", "icmp type echo-request drop;"),
    ] {
        filter(cluster, rule)?;
        timeline.event(format!("all nodes have {what}"));
        let mut traffic = Traffic::start(cluster, timeline)?;
        let held = traffic.before.on(&name).count();
        cluster.stop_agent(node)?;
        traffic.load.go_on(200)?;
        cluster.start_agent(node)?;
        cluster.wait_until_settled()?;
        cluster.kill_agent(node);
        traffic.load.go_on(200)?;
        cluster.start_agent(node)?;
        cluster.wait_until_settled()?;
        traffic.load.go_on(100)?;
        let before = outcome.watches_cut_living;
        traffic.finish(&mut outcome, None)?;
        let cut = outcome.watches_cut_living - before;
        timeline.event(format!(
            "with {what}, {cut} watches were cut by restarts of the agent on {name}, which held {held}"
        ));
    }
    let nodes = cluster.nodes();
    cluster.wait_for_status(
        "agents say that echo does not come back",
        &nodes,
        |_, _, status| {
            let others = status.nodes.iter().filter(|node| !node.own);
            others
                .clone()
                .all(|node| node.alive && node.echo == Some(false))
        },
    )?;
    for &node in &nodes {
        let said = cluster.vip(node, &["status"])?;
        let events = cluster.vip(node, &["events"])?;
        outcome.promise(
            said.contains("ICMP echo") && events.contains("ICMP echo"),
            || {
                format!(
                    "{} does not say that echo is lost:\n{said}\n{events}",
                    cluster.name(node)
                )
            },
        );
    }
    filter(cluster, "")?;
    cluster.wait_for_status("agents say that echo comes back", &nodes, |_, _, status| {
        let others = status.nodes.iter().filter(|node| !node.own);
        others.clone().all(|node| node.echo == Some(true))
    })?;
    timeline.event("echo is lost and comes back in vip status");
    Ok(outcome)
}
