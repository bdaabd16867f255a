//! Nodes that are not what their lists say: lists that differ, a node with another address than
//! the others know, and nodes that reach each other by a router only.

use anyhow::{Context, Result};

use vip_node::alarm::Kind;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::topology::{NIC, VIP, sh};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "one_segment",
    promise: "one_segment_with_one_list_of_nodes_or_it_is_said",
    tests: &[Test::netns(Plan::bare)],
    run,
};

/// The agents' configuration with these nodes, by the last byte of their addresses.
fn configure(cluster: &Cluster, nodes: &[u8]) -> Result<String> {
    let text = cluster.config()?;
    let list: Vec<String> = nodes.iter().map(|n| format!("\"10.0.0.{n}\"")).collect();
    let lines = text.lines().map(|line| {
        if line.starts_with("nodes = ") {
            format!("nodes = [{}]\ninterface = \"{NIC}\"", list.join(", "))
        } else {
            line.to_owned()
        }
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Waits until a node raises an alarm, whose text has these words, or has none about that.
fn wait(
    cluster: &mut Cluster,
    node: usize,
    (alarm, about): (Kind, &str),
    words: Option<&str>,
) -> Result<()> {
    let what = format!("{}: {alarm:?} about {about}: {words:?}", cluster.name(node));
    cluster.wait_for_status(&what, &[node], |_, _, status| {
        match (status.alarm(alarm, about), words) {
            (Some(text), Some(words)) => text.contains(words),
            (None, None) => true,
            _ => false,
        }
    })
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("one_segment");
    lists(cluster, timeline)?;
    timeline.event("lists that differ: named on both sides");
    off_link(cluster, &mut outcome)?;
    timeline.event("nodes behind a router: named, and refused where it can never work");
    Ok(outcome)
}

fn lists(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<()> {
    // The second one's list lacks the third.
    let all = configure(cluster, &[11, 12, 13])?;
    let fewer = configure(cluster, &[11, 12])?;
    for (node, config) in [(0, &all), (1, &fewer), (2, &all)] {
        cluster.start_agent_with(node, config)?;
    }
    wait(
        cluster,
        1,
        (Kind::Stranger, "10.0.0.13"),
        Some("not in `nodes`"),
    )?;
    wait(cluster, 2, (Kind::Unheard, "10.0.0.12"), Some("`nodes`"))?;
    cluster.stop_agent(1)?;
    cluster.start_agent_with(1, &all)?;
    cluster.wait_until_settled()?;
    wait(cluster, 1, (Kind::Stranger, "10.0.0.13"), None)?;
    wait(cluster, 2, (Kind::Unheard, "10.0.0.12"), None)?;

    timeline.event("a node that one list lacks: named by both");

    // The third one has another address now, and the others were not told. It is there first, and
    // owns the VIP until they let it know that their lists lack it.
    for node in cluster.nodes() {
        cluster.stop_agent(node)?;
    }
    let host = cluster.host(2);
    sh(
        host,
        &format!("ip address del 10.0.0.13/24 dev {NIC}; ip address add 10.0.0.23/24 dev {NIC}"),
    )?;
    let other = configure(cluster, &[11, 12, 23])?;
    cluster.start_agent_with(2, &other)?;
    cluster.wait_for_status("it owns the VIP", &[2], |_, _, status| status.is_active())?;
    for node in [0, 1] {
        cluster.start_agent_with(node, &all)?;
        let words = "and is not in `nodes`";
        wait(cluster, node, (Kind::Stranger, "10.0.0.23"), Some(words))?;
    }
    cluster.wait_for_status("one of the two owns the VIP", &[0, 1], |_, _, status| {
        status.owner.is_some()
    })?;
    cluster.wait_for_status("the third gives way", &[2], |_, _, status| {
        !status.is_active()
    })?;
    for peer in ["10.0.0.11", "10.0.0.12"] {
        wait(cluster, 2, (Kind::Unheard, peer), Some("`nodes`"))?;
    }
    timeline
        .event("a node with another address that owned the VIP: named by all, and it gives way");
    cluster.stop_agent(2)?;
    for node in [0, 1] {
        wait(cluster, node, (Kind::Stranger, "10.0.0.23"), None)?;
    }
    timeline.event("its agent has ended: nothing is left of it");
    let host = cluster.host(2);
    sh(
        host,
        &format!("ip address del 10.0.0.23/24 dev {NIC}; ip address add 10.0.0.13/24 dev {NIC}"),
    )?;
    cluster.start_agent_with(2, &all)?;
    cluster.wait_until_settled()
}

fn off_link(cluster: &mut Cluster, outcome: &mut Outcome) -> Result<()> {
    // One route too many: the frames for one node go to the router.
    let detour = "10.0.0.13/32 via 10.0.0.1";
    sh(cluster.host(0), &format!("ip route add {detour}"))?;
    wait(cluster, 0, (Kind::OffLink, "10.0.0.13"), Some("10.0.0.1"))?;
    sh(cluster.host(0), &format!("ip route del {detour}"))?;
    wait(cluster, 0, (Kind::OffLink, "10.0.0.13"), None)?;
    cluster.wait_until_settled()?;

    // As some hosters have it: no subnet, and a router for all.
    for node in cluster.nodes() {
        cluster.stop_agent(node)?;
        crate::agent::cleanup(cluster.programs(), cluster.host(node))?;
        let own = cluster.host(node).address();
        sh(
            cluster.host(node),
            &format!(
                "ip address add {own}/32 dev {NIC}; ip address del {own}/24 dev {NIC}; \
                 ip route replace 10.0.0.1 dev {NIC}; ip route replace default via 10.0.0.1"
            ),
        )?;
    }
    let config = cluster.work().join("off-link.toml");
    let text = configure(cluster, &[11, 12, 13])?;
    std::fs::write(&config, text).context("write a configuration")?;
    for (command, code) in [("check", 1), ("run", 2)] {
        // An agent that starts all the same does not end by itself.
        let mut vip = cluster.host(0).command("timeout".as_ref());
        vip.arg("60").arg(&cluster.programs().vip);
        let done = vip
            .args([command, "--config"])
            .arg(&config)
            .output()
            .with_context(|| format!("vip {command}"))?;
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        outcome.promise(done.status.code() == Some(code), || {
            format!("vip {command} exits with {}: {text}", done.status)
        });
        for words in ["10.0.0.12", "by way of 10.0.0.1"] {
            outcome.promise(text.contains(words), || {
                format!("no {words:?} in what vip {command} says: {text}")
            });
        }
    }
    let lo = sh(cluster.host(0), "ip address show dev lo")?;
    outcome.promise(!lo.contains(&VIP.to_string()), || {
        format!("an agent that refuses to start leaves the VIP: {lo}")
    });
    Ok(())
}
