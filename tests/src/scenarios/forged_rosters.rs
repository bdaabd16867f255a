//! A host of the segment tells the owner who is connected to whom, in the names of members and in its
//! own: recorded messages as they were and changed, and some of its own. Meanwhile a member loses its
//! power. Its clients are told, and nobody else is asked anything. Without a key, that does not hold
//! against a host that reads what members tell: `docs/security.md` says what such a host can do.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::clients_told::{Held, KNOWN, established, keyed, strike};
use super::steps::{another_than, others_than, record};
use crate::agent::Status;
use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::forge::INVENTED;
use crate::outcome::{Outcome, Timeline};
use crate::process::{Process, output};
use crate::scenario::{Scenario, Test};
use crate::topology::{VIP, mac, sh};
use crate::traffic::vip;

pub(super) const KEYED: Scenario = Scenario {
    name: "forged_rosters",
    promise: "forged_rosters_have_nobody_asked_and_keep_no_client_from_being_told",
    tests: &[Test::netns(keyed)],
    run: with_a_key,
};

pub(super) const UNKEYED: Scenario = Scenario {
    name: "forged_rosters_without_a_key",
    promise: "without_a_key_only_a_host_that_reads_rosters_has_bystanders_asked",
    tests: &[Test::netns(four)],
    run: without_a_key,
};

/// Two of them lose their power, one after the other.
fn four() -> Plan {
    Plan {
        nodes: 4,
        ..Plan::default()
    }
}

/// Watches of the bystander, which it has closed before anything is forged.
const VISITS: usize = 60;

/// By then the clients of a node without power have been told, also where some segment was lost: the
/// owner asks for the last time 8 s after the power cut.
const TOLD: Duration = Duration::from_secs(20);

/// From the first question to a client to the last one.
const ROUNDS: Duration = Duration::from_secs(7);

/// Questions to a client at most, while owner and members stay the same.
const MOST: u64 = 6;

/// Counts what comes to a host from the VIP, by the host's port.
fn count() -> String {
    format!(
        "nft 'table ip test {{ \
         set asked {{ type inet_service; size 65535; flags dynamic; counter; }}; \
         chain in {{ type filter hook prerouting priority raw; \
         ip saddr {VIP} add @asked {{ tcp dport }}; }}; }}'"
    )
}

fn with_a_key(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(KEYED.name);
    let datagrams = ["foreign", "plain", "unknown_key", "forged"];
    let messages = ["unbelieved", "old"];
    lied_to(cluster, timeline, &mut outcome, &datagrams, &messages)?;
    Ok(outcome)
}

fn without_a_key(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(UNKEYED.name);
    let datagrams = ["foreign", "sealed", "malformed_roster"];
    let messages = ["stranger", "unbelieved", "old"];
    lied_to(cluster, timeline, &mut outcome, &datagrams, &messages)?;
    read(cluster, timeline, &mut outcome)?;
    Ok(outcome)
}

/// A host that repeats, changes and guesses. `datagrams` and `messages`: why they are refused.
fn lied_to(
    cluster: &mut Cluster,
    timeline: &mut Timeline,
    outcome: &mut Outcome,
    datagrams: &[&str],
    messages: &[&str],
) -> Result<()> {
    let owner = cluster.owner()?;
    let victim = another_than(cluster, owner);
    let (mut recorder, recorded) = record(cluster, owner, "recorded")?;
    let client = cluster.topology.client.as_ref();
    let held = Held::open(cluster, client, &vip(), cluster.pace().watches)?;
    let bystander = cluster.topology.remote.as_ref();
    let visits = Held::open(cluster, bystander, &vip(), VISITS)?;
    std::thread::sleep(KNOWN);
    // Both runs of its agent tell of the visits.
    cluster.kill_agent(victim);
    cluster.start_agent(victim)?;
    cluster.wait_until_settled()?;
    std::thread::sleep(KNOWN);
    recorder.kill_and_reap();
    leave(cluster, timeline, victim, visits, &held)?;

    let bystander = cluster.topology.remote.as_ref();
    sh(bystander, &count())?;
    let before = cluster.status(owner)?;
    let mut liar = lie(cluster, owner, &recorded, &[])?;
    go_on(&mut liar)?;
    strike(cluster, timeline, outcome, victim, &mut [held])?;
    go_on(&mut liar)?;
    let sent: u64 = liar.records::<u64>(0)?.iter().sum();
    liar.kill_and_reap();
    let after = cluster.status(owner)?;
    timeline.event(format!(
        "to {}, in vain: {sent} messages about connections",
        cluster.name(owner)
    ));

    let asked = asked(cluster)?;
    outcome.promise(asked.is_empty(), || {
        format!("a bystander was asked, by port: {asked:?}")
    });
    promise_told(outcome);
    promise_counted(outcome, "datagrams", datagrams, &before, &after, |status| {
        status.membership.as_ref().map(|them| &them.refused)
    });
    promise_counted(outcome, "messages", messages, &before, &after, |status| {
        status.rosters.as_ref().map(|them| &them.received)
    });
    promise_alive(outcome, cluster);
    Ok(())
}

/// A host that reads a member's messages goes on in its name. It has bystanders asked. It tells of the
/// clients of living nodes, too, with numbers that would end their connections: they are not asked.
fn read(cluster: &mut Cluster, timeline: &mut Timeline, outcome: &mut Outcome) -> Result<()> {
    let owner = cluster.owner()?;
    let victim = another_than(cluster, owner);
    let (mut recorder, recorded) = record(cluster, owner, "recorded-again")?;
    let client = cluster.topology.client.as_ref();
    let held = Held::open(cluster, client, &vip(), cluster.pace().watches)?;
    std::thread::sleep(KNOWN);
    // What its clients have acknowledged is told as it is now.
    let others = others_than(cluster, owner);
    let living = others.into_iter().find(|node| *node != victim);
    let living = living.context("no other node lives")?;
    cluster.kill_agent(living);
    cluster.start_agent(living)?;
    cluster.wait_until_settled()?;
    std::thread::sleep(KNOWN);
    recorder.kill_and_reap();
    let address = cluster.host(victim).address().to_string();
    let mut liar = lie(cluster, owner, &recorded, &["--reads", &address])?;
    go_on(&mut liar)?;
    let connections = (established(cluster, victim)? + INVENTED.len()) as u64;
    cluster.wait_for_status("it is believed", &[owner], |own, _, status| {
        let entry = status.node(own.host(victim));
        entry.is_some_and(|entry| entry.roster >= connections)
    })?;
    strike(cluster, timeline, outcome, victim, &mut [held])?;
    std::thread::sleep(ROUNDS);
    liar.kill_and_reap();

    let asked = asked(cluster)?;
    let are_invented = asked.keys().copied().eq(INVENTED);
    let are_few = asked.values().all(|count| (1..=MOST).contains(count));
    outcome.promise(are_invented && are_few, || {
        format!("a bystander was asked, by port: {asked:?}")
    });
    timeline.event(format!(
        "a host that reads rosters had a bystander asked, by port: {asked:?}"
    ));
    promise_told(outcome);
    promise_alive(outcome, cluster);
    Ok(())
}

/// Closes the bystander's watches, of which the victim has some, and waits until all members have been
/// told.
fn leave(
    cluster: &Cluster,
    timeline: &mut Timeline,
    victim: usize,
    visits: Held,
    held: &Held,
) -> Result<()> {
    let name = cluster.name(victim);
    let count = visits.before.on(&name).count();
    ensure!(count > 0, "no watch of the bystander is on {name}");
    drop(visits);
    until("the bystander's watches have ended", PATIENCE, || {
        for node in cluster.nodes() {
            let others = held.before.on(&cluster.name(node)).count();
            if established(cluster, node)? != others {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    std::thread::sleep(KNOWN);
    timeline.event(format!(
        "{count} watches of a bystander on {name} have ended"
    ));
    Ok(())
}

/// Has the client tell a node of connections until the process ends.
fn lie(cluster: &Cluster, to: usize, recorded: &Path, more: &[&str]) -> Result<Process> {
    let client = cluster.topology.client.as_ref();
    let mut command = client.command(cluster.programs().testbed.as_os_str());
    command.args(["forge-rosters", "--vip", &VIP.to_string()]);
    let node = cluster.host(to);
    command.args(["--node", &node.address().to_string()]);
    command.args(["--mac", &mac(node)?]);
    command.args(["--own", &client.address().to_string()]);
    let bystander = cluster.topology.remote.address().to_string();
    command.args(["--bystander", &bystander]).args(more);
    command.arg("--recorded").arg(recorded);
    let log = cluster.work().join("forge-rosters.log");
    Process::reporter("a host that lies", &mut command, &log)
}

/// Waits until all that it sends was sent once more.
fn go_on(liar: &mut Process) -> Result<()> {
    // One round may have begun before.
    let goal = liar.line_count() + 2;
    until("a host lies", PATIENCE, || {
        ensure!(liar.is_running(), "{} has ended", liar.name());
        Ok((liar.line_count() >= goal).then_some(()))
    })
}

/// Segments that have come to the bystander from the VIP, by its port.
fn asked(cluster: &Cluster) -> Result<BTreeMap<u16, u64>> {
    let mut nft = cluster.topology.remote.command("nft".as_ref());
    let text = output(nft.args(["-j", "list", "set", "ip", "test", "asked"]))?;
    let listed: serde_json::Value = serde_json::from_str(&text).context("read what nft counts")?;
    let mut entries = listed["nftables"].as_array().into_iter().flatten();
    let set = entries
        .find_map(|entry| entry.get("set"))
        .context("nft lists no set")?;
    let elements = set["elem"].as_array().into_iter().flatten();
    let counts = elements.map(|element| {
        let element = &element["elem"];
        let port = element["val"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok());
        port.zip(element["counter"]["packets"].as_u64())
    });
    let counts: Option<_> = counts.collect();
    counts.with_context(|| format!("nft counts in another form: {text}"))
}

/// Those that were told were told in time. (That all were, and no others, is promised with the watches.)
fn promise_told(outcome: &mut Outcome) {
    let told = outcome.told_ms;
    let in_time = told.is_some_and(|told| told < TOLD.as_millis() as u64);
    outcome.promise(in_time, || {
        format!("the last client was told {told:?} ms after the power cut")
    });
}

/// Each way of being refused has happened more often.
fn promise_counted(
    outcome: &mut Outcome,
    what: &str,
    ways: &[&str],
    before: &Status,
    after: &Status,
    counts: impl Fn(&Status) -> Option<&BTreeMap<String, u64>>,
) {
    let count = |status: &Status, way: &str| counts(status).and_then(|all| all.get(way).copied());
    for way in ways {
        outcome.promise(count(after, way) > count(before, way), || {
            format!("{what} refused as {way} were not counted")
        });
    }
}

/// No agent has ended.
fn promise_alive(outcome: &mut Outcome, cluster: &mut Cluster) {
    let dead = cluster.dead_agents();
    outcome.promise(dead.is_empty(), || format!("agents have ended: {dead:?}"));
}
