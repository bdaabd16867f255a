//! A host of the segment sends what agents might send: packets of agents that it has recorded, changed
//! ones, some of its own, and hellos that answer. With a key, nothing comes of it. Without one,
//! `docs/security.md` says what does.

use anyhow::{Context as _, Result};

use super::super::steps::{another_than, others_than, replay};
use crate::agent::{NodeStatus, Status};
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::{Process, output};
use crate::scenario::{Scenario, Test};
use crate::traffic::Traffic;

pub(in crate::scenarios) const KEYED: Scenario = Scenario {
    name: "forged",
    promise: "agents_with_a_key_believe_nothing_that_is_forged",
    tests: &[Test::netns(keyed)],
    run: forged,
};

pub(in crate::scenarios) const UNKEYED: Scenario = Scenario {
    name: "forged_without_a_key",
    promise: "agents_without_a_key_survive_what_is_forged_and_fail_no_request",
    tests: &[Test::netns(|| Plan::found_by(3, 4, ""))],
    run: without_a_key,
};

fn keyed() -> Plan {
    Plan {
        keyed: true,
        ..Plan::found_by(3, 4, "")
    }
}

/// What an attack was, and how its victim was before it and after it.
struct Attack {
    sent: String,
    before: Status,
    after: Status,
}

/// Packets of the agents are recorded on a node. The client sends them again, changes them, and makes
/// some of its own.
fn attack(cluster: &Cluster, victim: usize, traffic: &mut Traffic) -> Result<Attack> {
    let host = cluster.host(victim);
    let testbed = cluster.programs().testbed.as_os_str();
    let mut record = host.command(testbed);
    let recorded = output(record.args(["record", "--own", &host.address().to_string()]))?;
    let file = cluster.work().join("recorded");
    std::fs::write(&file, recorded).context("write what was recorded")?;
    let before = cluster.status(victim)?;
    let sent = replay(cluster, victim, &file)?;
    traffic.load.go_on(100)?;
    Ok(Attack {
        sent,
        before,
        after: cluster.status(victim)?,
    })
}

/// A newcomer joins all the same.
fn forged(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(KEYED.name);
    let owner = cluster.owner()?;
    let mut traffic = Traffic::start(cluster, timeline)?;
    for victim in [owner, another_than(cluster, owner)] {
        let Attack {
            sent,
            before,
            after,
        } = attack(cluster, victim, &mut traffic)?;
        timeline.event(format!("to {}, in vain: {sent}", cluster.name(victim)));
        for event in [
            "bfd_down",
            "owner",
            "became_owner",
            "became_backup",
            "member_admitted",
        ] {
            let (then, now) = (before.event_count(event), after.event_count(event));
            outcome.promise(then == now, || {
                format!("{event} happened {now} times, not {then}")
            });
        }
        let hellos = ["plain", "forged", "foreign", "repeated"];
        promise_hellos_counted(&mut outcome, &hellos, &before, &after);
        promise_counted(&mut outcome, &before, &after, victim == owner);
    }
    let last = cluster.owner()?;
    outcome.promise(last == owner, || "the VIP has moved".to_owned());
    cluster.arrive(3)?;
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    traffic.finish(&mut outcome, None)?;
    Ok(outcome)
}

fn promise_hellos_counted(outcome: &mut Outcome, kinds: &[&str], before: &Status, after: &Status) {
    let hellos = |status: &Status, why: &str| {
        let membership = status.membership.as_ref();
        membership.and_then(|them| them.refused.get(why).copied())
    };
    for why in kinds {
        let counted = hellos(after, why) > hellos(before, why);
        outcome.promise(counted, || {
            format!("hellos refused as {why} were not counted")
        });
    }
}

/// Each kind of forged packets was counted. `owner`: the node is the owner, whom nobody sends
/// advertisements that could be recorded.
fn promise_counted(outcome: &mut Outcome, before: &Status, after: &Status, owner: bool) {
    let others = |status: &Status, protocol: &str, why: &str| {
        let mut all = status.refused.iter();
        let found = all.find(|one| one.protocol == protocol && one.reason == why);
        found.map(|one| one.packets)
    };
    let bfd = ["missing", "digest", "sequence"].map(|why| ("bfd", why));
    let vrrp = ["plain", "number", "unopened"].map(|why| ("vrrp", why));
    let vrrp = if owner { &vrrp[..0] } else { &vrrp };
    for (protocol, why) in bfd.iter().chain(vrrp).copied() {
        let counted = others(after, protocol, why) > others(before, protocol, why);
        outcome.promise(counted, || {
            format!(
                "{protocol} packets refused as {why} were not counted: {:?}",
                after.refused
            )
        });
    }
}

/// A host without an API server of the cluster, below all nodes and above them.
const BELOW: &str = "10.0.0.5";
const ABOVE: &str = "10.0.0.105";

/// BFD and VRRP in a member's name may be believed: the VIP may move, sessions may end. Servers are not
/// cut off by that.
fn without_a_key(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(UNKEYED.name);
    let owner = cluster.owner()?;
    let mut traffic = Traffic::start(cluster, timeline)?;
    for victim in [owner, another_than(cluster, owner)] {
        let Attack {
            sent,
            before,
            after,
        } = attack(cluster, victim, &mut traffic)?;
        timeline.event(format!("to {}: {sent}", cluster.name(victim)));
        let hellos = ["foreign", "malformed", "repeated"];
        promise_hellos_counted(&mut outcome, &hellos, &before, &after);
        let admitted = |status: &Status| status.event_count("member_admitted");
        outcome.promise(admitted(&before) == admitted(&after), || {
            format!("{} has admitted somebody", cluster.name(victim))
        });
        let changed: Vec<String> = ["bfd_down", "owner", "became_owner", "became_backup"]
            .into_iter()
            .map(|event| (event, before.event_count(event), after.event_count(event)))
            .filter(|(_, then, now)| then != now)
            .map(|(event, then, now)| format!("{event} {}", now - then))
            .collect();
        timeline.event(format!("what came of it: {}", changed.join(", ")));
        cluster.wait_until_settled()?;
        traffic.load.go_on(100)?;
    }
    let last = cluster.owner()?;
    for (place, address) in [ABOVE, BELOW].into_iter().enumerate() {
        let mut liar = pretend(cluster, &["--address", address])?;
        let all = cluster.nodes();
        cluster.wait_for_status("it is asked for a certificate", &all, |_, _, status| {
            status.event_count("member_unproved") > place as u64
        })?;
        traffic.load.go_on(200)?;
        liar.kill_and_reap();
    }
    timeline.event("hosts that answer hellos have no certificate");
    let same = cluster.owner()?;
    outcome.promise(same == last, || {
        "a host without a certificate moved the VIP".to_owned()
    });
    super::promise_members(&mut outcome, cluster, 3)?;
    told_of(cluster, &mut traffic)?;
    timeline.event("a host that does not exist became a member, and was forgotten");
    cluster.arrive(3)?;
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    traffic.finish(&mut outcome, None)?;
    super::promise_members(&mut outcome, cluster, 4)?;

    // What no connection is promised to survive.
    let all = cluster.nodes();
    let mut liar = pretend(cluster, &["--address", BELOW, "--established"])?;
    cluster.wait_for_status("nobody owns the VIP", &all, |_, _, status| {
        status.has_only_fault("not yet known to all members") && status.owner.is_none()
    })?;
    liar.kill_and_reap();
    cluster.wait_until_settled()?;
    timeline.event("a host below all nodes said that it had owned the VIP, and nobody did");
    super::promise_members(&mut outcome, cluster, 4)?;

    let last = cluster.owner()?;
    let victim = another_than(cluster, last);
    let address = cluster.host(victim).address().to_string();
    let mut liar = pretend(cluster, &["--address", &address, "--leaves"])?;
    cluster.wait_for_status("it is forgotten", &[last], |own, _, status| {
        status.node(own.host(victim)).is_none()
    })?;
    liar.kill_and_reap();
    cluster.wait_until_settled()?;
    timeline.event("a member was forgotten in whose name somebody said good-bye, and came back");
    super::promise_members(&mut outcome, cluster, 4)?;
    Ok(outcome)
}

/// In a member's name, the client tells of a host that does not exist. It becomes a member without a
/// certificate, and gets nothing: it is never heard.
fn told_of(cluster: &mut Cluster, traffic: &mut Traffic) -> Result<()> {
    let owner = cluster.owner()?;
    let teller = another_than(cluster, owner);
    let others = others_than(cluster, teller);
    let address = cluster.host(teller).address().to_string();
    let mut liar = pretend(cluster, &["--address", &address, "--tells-of", ABOVE])?;
    let is_ghost = |node: &NodeStatus| node.address.to_string() == ABOVE;
    cluster.wait_for_status("they know it", &others, |_, _, status| {
        let ghost = status.nodes.iter().find(|node| is_ghost(node));
        ghost.is_some_and(|ghost| !ghost.confirmed && !ghost.usable)
    })?;
    traffic.load.go_on(100)?;
    liar.kill_and_reap();
    cluster.wait_for_status("it is gone", &[owner], |_, _, status| {
        let ghost = status.nodes.iter().find(|node| is_ghost(node));
        ghost.is_some_and(|ghost| ghost.gone)
    })?;
    cluster.vip(owner, &["forget", ABOVE])?;
    let all = cluster.nodes();
    cluster.wait_for_status("it is forgotten", &all, |_, _, status| {
        !status.nodes.iter().any(is_ghost)
    })?;
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)
}

/// Has the client answer hellos in the name of an address, until the process ends.
fn pretend(cluster: &Cluster, arguments: &[&str]) -> Result<Process> {
    let client = cluster.topology.client.as_ref();
    let mut command = client.command(cluster.programs().testbed.as_os_str());
    command.arg("pretend").args(arguments);
    let log = cluster.work().join("pretend.log");
    Process::daemon("a host that lies", &mut command, &log)
}
