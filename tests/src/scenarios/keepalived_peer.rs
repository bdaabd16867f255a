//! keepalived as another router of our VRRP group, by unicast and by multicast, in both roles;
//! and a keepalived pair that is replaced by ours node by node while requests run.

use std::net::IpAddr;

use anyhow::{Context, Result};

use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::peers::keepalived::{self, Settings};
use crate::scenario::{Scenario, Test};
use crate::topology::vip_by_hand;
use crate::traffic::{Load, vip};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "keepalived_peer",
    promise: "keepalived_and_ours_follow_each_other_and_a_pair_is_replaced",
    tests: &[Test::netns(Plan::bare)],
    run,
};

const OURS: usize = 0;
const THEIRS: usize = 1;

fn settings(priority: u8, peers: &[usize]) -> Settings {
    Settings {
        priority,
        advert_int: 0.1,
        peers: peers.to_vec(),
        scripts: Default::default(),
    }
}

fn wait_for_keepalived(cluster: &Cluster, node: usize, owns: bool) -> Result<()> {
    let verb = if owns { "takes" } else { "gives up" };
    let what = format!("keepalived on {} {verb} the VIP", cluster.name(node));
    until(&what, PATIENCE, || {
        Ok((keepalived::owns(cluster, node)? == owns).then_some(()))
    })
}

/// Waits until our agent names the node that owns the VIP, and is the owner or a backup.
fn wait_for_ours(cluster: &mut Cluster, node: usize, owner: usize) -> Result<()> {
    let owns = if node == owner {
        "is the owner"
    } else {
        "is a backup"
    };
    let what = format!("{} {owns}", cluster.name(node));
    let address = IpAddr::from(cluster.host(owner).address());
    cluster.wait_for_status(&what, &[node], |_, _, status| {
        let named = status.owner.as_ref();
        let is_settled = if node == owner {
            status.is_active()
        } else {
            status.is_backup()
        };
        is_settled && named.is_some_and(|named| named.address == address)
    })
}

/// Adds to the agents' configuration.
fn configure(cluster: &Cluster, more: &str) -> Result<()> {
    let path = cluster.work().join("vip.toml");
    let text = std::fs::read_to_string(&path).context("read vip.toml")?;
    let (base, _) = text.split_once("[vrrp]").unwrap_or((&text, ""));
    std::fs::write(&path, format!("{base}{more}")).context("write vip.toml")
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("keepalived_peer");
    for (mode, peers) in [("unicast", &[OURS][..]), ("multicast", &[])] {
        configure(
            cluster,
            &format!("[vrrp]\ninterval = \"100ms\"\npriority = 100\nmode = \"{mode}\"\n"),
        )?;
        // It owns the VIP, ours waits.
        let mut theirs = keepalived::start(cluster, THEIRS, &settings(200, peers))?;
        wait_for_keepalived(cluster, THEIRS, true)?;
        cluster.start_agent(OURS)?;
        wait_for_ours(cluster, OURS, THEIRS)?;
        // It resigns by priority 0, ours takes over.
        theirs.process.stop()?;
        wait_for_ours(cluster, OURS, OURS)?;
        // It comes back and is better: it preempts, as it does by default.
        let mut theirs = keepalived::start(cluster, THEIRS, &settings(200, peers))?;
        wait_for_ours(cluster, OURS, THEIRS)?;
        // It dies without a word.
        theirs.kill()?;
        remove_vip(cluster, THEIRS)?;
        wait_for_ours(cluster, OURS, OURS)?;
        timeline.event(format!("{mode}: ours follows keepalived in all its ways"));

        // Ours owns the VIP, it waits.
        let mut theirs = keepalived::start(cluster, THEIRS, &settings(50, peers))?;
        let log = cluster
            .work()
            .join(format!("{}-keepalived.log", cluster.name(THEIRS)));
        wait_for_log(&log, "Entering BACKUP STATE")?;
        wait_for_ours(cluster, OURS, OURS)?;
        wait_for_keepalived(cluster, THEIRS, false)?;
        // Ours resigns, then dies without a word.
        cluster.stop_agent(OURS)?;
        wait_for_keepalived(cluster, THEIRS, true)?;
        cluster.start_agent(OURS)?;
        wait_for_ours(cluster, OURS, THEIRS)?;
        timeline.event(format!("{mode}: keepalived follows ours"));
        theirs.kill()?;
        remove_vip(cluster, THEIRS)?;
        wait_for_ours(cluster, OURS, OURS)?;
        cluster.kill_agent(OURS);
        let mut theirs = keepalived::start(cluster, THEIRS, &settings(50, peers))?;
        wait_for_keepalived(cluster, THEIRS, true)?;
        theirs.kill()?;
        remove_vip(cluster, THEIRS)?;
        crate::agent::cleanup(cluster.programs(), cluster.host(OURS))?;
    }
    replace(cluster, timeline, &mut outcome)?;
    Ok(outcome)
}

/// A pair of keepalived is replaced, the backup first, while requests go to the VIP.
fn replace(cluster: &mut Cluster, timeline: &mut Timeline, outcome: &mut Outcome) -> Result<()> {
    configure(cluster, "[vrrp]\ninterval = \"100ms\"\n")?;
    let mut pair = Vec::new();
    for (node, peer, priority) in [(0, 1, 251), (1, 0, 101)] {
        pair.push(keepalived::start(
            cluster,
            node,
            &settings(priority, &[peer]),
        )?);
    }
    wait_for_keepalived(cluster, 0, true)?;
    let client = cluster.topology.client.as_ref();
    let mut load = Load::start(cluster, client, &vip())?;
    load.go_on(100)?;
    let mut backup = pair.remove(1);
    backup.process.stop()?;
    cluster.start_agent(1)?;
    wait_for_ours(cluster, 1, 0)?;
    load.go_on(100)?;
    timeline.event("the backup is replaced");

    // From here on it is keepalived's own failover, to an agent of ours.
    let before = load.requests()?.len();
    pair.remove(0).process.stop()?;
    wait_for_ours(cluster, 1, 1)?;
    load.go_on(100)?;
    let between = load.requests()?.len();
    cluster.start_agent(0)?;
    cluster.wait_for_status("both are joined", &[0, 1], |own, _, status| {
        [0, 1].iter().all(|node| {
            status
                .node(own.host(*node))
                .is_some_and(|node| node.alive && node.ready)
        })
    })?;
    load.go_on(300)?;
    timeline.event("the owner is replaced");

    let requests = load.stop()?;
    let failed = |part: &[crate::load::Request]| part.iter().filter(|r| !r.succeeded()).count();
    let ours = failed(&requests[..before]) + failed(&requests[between..]);
    outcome.promise(ours == 0, || {
        format!("{ours} requests failed that keepalived's own failover does not explain")
    });
    timeline.event(format!(
        "{ours} of {} requests failed, and {} of {} while keepalived gave the VIP up",
        requests.len() - (between - before),
        failed(&requests[before..between]),
        between - before
    ));
    Ok(())
}

/// A keepalived that is killed leaves the VIP on the NIC.
fn remove_vip(cluster: &Cluster, node: usize) -> Result<()> {
    if keepalived::owns(cluster, node)? {
        vip_by_hand(cluster.host(node), "del")?;
    }
    Ok(())
}

fn wait_for_log(log: &std::path::Path, line: &str) -> Result<()> {
    until(&format!("the log says {line:?}"), PATIENCE, || {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        Ok(text.contains(line).then_some(()))
    })
}
