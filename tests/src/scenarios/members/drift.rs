//! One agent's configuration differs in keys that must agree: all name them, and no request fails.
//! Where the difference would misroute connections, a newcomer is no member and gets none.

use anyhow::Result;

use vip_node::alarm::Kind;

use super::super::observed::{ask, value};
use super::super::steps::{another_than, others_than};
use super::{has_served, promise_members};
use crate::agent::{Status, cleanup};
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::topology::sh;
use crate::traffic::{ArpMonitor, Traffic};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "configurations_differ",
    promise: "configurations_that_differ_are_named_and_a_hash_key_that_differs_keeps_a_newcomer_out",
    tests: &[Test::netns(|| Plan::found_by(3, 4, ""))],
    run,
};

const ALLOW: &str = "`allow`";
const INTERVAL: &str = "`interval` in [vrrp]";

fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(SCENARIO.name);
    let owner = cluster.owner()?;
    let odd = another_than(cluster, owner);
    let others = others_than(cluster, odd);
    let right = cluster.config()?;
    let slower = right.replacen("interval = \"250ms\"", "interval = \"300ms\"", 1);
    anyhow::ensure!(slower != right, "the configuration has an interval");
    let both = format!("allow = [\"10.0.0.0/8\"]\n{slower}");
    let mut traffic = Traffic::start(cluster, timeline)?;

    cluster.stop_agent(odd)?;
    cluster.start_agent_with(odd, &slower)?;
    wait_until_named(cluster, odd, &[INTERVAL], &[ALLOW])?;
    traffic.load.go_on(100)?;
    change(cluster, odd, &both)?;
    wait_until_named(cluster, odd, &[INTERVAL, ALLOW], &[])?;
    traffic.load.go_on(100)?;
    timeline.event("an interval and a list differ");
    for &node in &others {
        promise_told(&mut outcome, cluster, node, odd)?;
    }
    change(cluster, odd, &slower)?;
    wait_until_named(cluster, odd, &[INTERVAL], &[ALLOW])?;
    cluster.stop_agent(odd)?;
    cluster.start_agent_with(odd, &right)?;
    let all = cluster.nodes();
    cluster.wait_for_status("nothing differs", &all, |_, _, status| {
        !status.alarms.iter().any(|one| one.alarm == Kind::Differs)
    })?;
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    timeline.event("one configuration again");
    newcomer(cluster, &mut outcome, &mut traffic)?;
    timeline.event("a newcomer with another hash_key is no member");
    let requests = traffic.finish(&mut outcome, None)?;
    let newcomer = cluster.name(3);
    outcome.promise(!has_served(&requests, &newcomer, 0), || {
        format!("{newcomer} has served a request")
    });
    let same = cluster.owner()?;
    outcome.promise(same == owner, || "the VIP has moved".to_owned());

    cluster.stop_agent(3)?;
    cleanup(cluster.programs(), cluster.host(3))?;
    cluster.join(3)?;
    cluster.wait_until_settled()?;
    promise_members(&mut outcome, cluster, 4)?;
    Ok(outcome)
}

/// Changes the file of an agent that was started with its own, and reads it again.
fn change(cluster: &Cluster, node: usize, config: &str) -> Result<()> {
    let file = cluster
        .work()
        .join(format!("{}-vip.toml", cluster.name(node)));
    std::fs::write(file, config)?;
    cluster.vip(node, &["reload"]).map(drop)
}

/// Waits until all other agents name these keys of the odd one, and it the same keys of them.
fn wait_until_named(cluster: &mut Cluster, odd: usize, keys: &[&str], not: &[&str]) -> Result<()> {
    let names = |status: &Status, about: &str| {
        let text = status.alarm(Kind::Differs, about);
        text.is_some_and(|text| {
            keys.iter().all(|key| text.contains(key)) && !not.iter().any(|key| text.contains(key))
        })
    };
    let others = others_than(cluster, odd);
    // All hosts of the harness have one name, so that members are named by their addresses.
    let about = |cluster: &Cluster, node: usize| cluster.host(node).address().to_string();
    cluster.wait_for_status("all name what differs", &others, |own, _, status| {
        names(status, &about(own, odd))
    })?;
    cluster.wait_for_status("it names the same", &[odd], |own, _, status| {
        let mut others = others.iter();
        others.all(|other| names(status, &about(own, *other)))
    })
}

/// A node tells operators in each way that the configuration of the odd one differs.
fn promise_told(outcome: &mut Outcome, cluster: &Cluster, node: usize, odd: usize) -> Result<()> {
    let vip = cluster.programs().vip.display();
    let about = cluster.host(odd).address();
    let events = cluster.vip(node, &["events"])?;
    let json = cluster.vip(node, &["status", "--json"])?;
    let status = sh(
        cluster.host(node),
        &format!("{vip} status --exit-code || echo exit $?"),
    )?;
    let (_, metrics) = ask(cluster, node, "/metrics")?;
    let verdict = format!("{about} has another configuration");
    let alarms = value(&metrics, "vip_alarms", "alarm=\"differs\"");
    outcome.promise(alarms == Some(1.0), || {
        format!("{}: vip_alarms is {alarms:?}", cluster.name(node))
    });
    for (wanted, text) in [
        (INTERVAL, &events),
        (ALLOW, &events),
        (ALLOW, &status),
        (ALLOW, &json),
        ("\"alarm\": \"differs\"", &json),
        ("DEGRADED", &status),
        (&verdict, &status),
        ("exit 3", &status),
    ] {
        outcome.promise(text.contains(wanted), || {
            format!("{}: no {wanted:?} in {text}", cluster.name(node))
        });
    }
    Ok(())
}

/// A newcomer would bring connections to other servers.
fn newcomer(cluster: &mut Cluster, outcome: &mut Outcome, traffic: &mut Traffic) -> Result<()> {
    let mut arp = ArpMonitor::start(cluster, 5)?;
    let config = cluster.config()?;
    let other = "[datapath]\nhash_key = \"000102030405060708090a0b0c0d0e0f\"";
    cluster.start_server(3)?;
    cluster.wait_for_server(3)?;
    cluster.start_agent_with(3, &format!("{config}\n{other}\n"))?;
    let members = cluster.nodes();
    let about = cluster.host(3).address().to_string();
    cluster.wait_for_status("all name the newcomer", &members, |_, _, status| {
        let text = status.alarm(Kind::Differs, &about);
        text.is_some_and(|text| text.contains("hash_key"))
    })?;
    traffic.load.go_on(300)?;
    promise_members(outcome, cluster, 3)?;
    for node in members {
        let status = cluster.status(node)?;
        let refused = status.membership.as_ref();
        let refused = refused.and_then(|them| them.refused.get("differs").copied());
        outcome.promise(refused > Some(0), || {
            format!("{} has not counted it", cluster.name(node))
        });
    }
    let status = cluster.status(3)?;
    outcome.promise(!status.is_active(), || {
        "the newcomer owns the VIP, too".to_owned()
    });
    super::super::steps::promise_one_answer(outcome, &arp.report()?);
    Ok(())
}
