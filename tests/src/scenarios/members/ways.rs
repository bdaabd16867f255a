//! The network between members is not whole while others come: multicast is filtered, two members do
//! not hear each other, or two groups of them are cut apart. Nobody is kept out, and clients lose only
//! what is out of their reach.

use anyhow::Result;
use vip_node::bfd::State;

use super::super::steps::{another_than, others_than};
use super::{has_served, promise_members, three, wait_until_serving};
use crate::agent::{cleanup, session_is};
use crate::clock::boot_now;
use crate::cluster::{Cluster, Plan};
use crate::load::{Request, Summary};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test};
use crate::topology::{Host, reach, sh};
use crate::traffic::{Traffic, Watches, vip};

pub(in crate::scenarios) const FILTERED: Scenario = Scenario {
    name: "multicast_filtered",
    promise: "multicast_filtered_seeds_let_a_cluster_grow",
    tests: &[Test::netns(bare)],
    run: filtered,
};

pub(in crate::scenarios) const BROKEN_LINK: Scenario = Scenario {
    name: "broken_link",
    promise: "broken_link_of_two_members_keeps_no_newcomer_out",
    tests: &[Test::netns(three)],
    run: broken_link,
};

pub(in crate::scenarios) const OWNERS_LINK: Scenario = Scenario {
    name: "broken_link_of_the_owner",
    promise: "broken_link_of_the_owner_and_a_member_keeps_no_newcomer_out",
    tests: &[Test::netns(three)],
    run: owners_link,
};

pub(in crate::scenarios) const PARTITION: Scenario = Scenario {
    name: "partition_heals",
    promise: "partition_with_a_newcomer_on_each_side_heals_and_cuts_nothing_in_reach",
    tests: &[Test::netns(|| Plan::found_by(4, 6, ""))],
    run: partition,
};

fn bare() -> Plan {
    Plan {
        bare: true,
        ..Plan::found_by(1, 4, "")
    }
}

/// Nothing arrives that was sent to the group, as where a switch filters it.
const NO_GROUP: &str = "nft 'table inet group { chain input { type filter hook input priority 0; \
     ip daddr 224.0.0.18 drop; ip6 daddr ff02::12 drop; }; }'";

/// Hellos after which an agent would have been heard: it sends one a second.
const HELLOS: u64 = 5;

fn filtered(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(FILTERED.name);
    for node in &cluster.topology.nodes {
        sh(node.as_ref(), NO_GROUP)?;
    }
    // Nobody tells one of the other.
    cluster.start_agent(0)?;
    cluster.arrive(1)?;
    cluster.wait_for_status("hellos were sent", &[0, 1], |_, _, status| {
        let membership = status.membership.as_ref();
        membership.is_some_and(|membership| membership.sent >= HELLOS)
    })?;
    promise_members(&mut outcome, cluster, 1)?;
    cluster.stop_agent(1)?;
    cleanup(cluster.programs(), cluster.host(1))?;
    cluster.depart(1);
    cluster.stop_agent(0)?;
    timeline.event("without seeds, they do not find each other");

    let founder = cluster.host(0).address();
    let config = cluster.config()?;
    cluster.set_config(&format!("seeds = [\"{founder}\"]\n{config}"))?;
    cluster.start_agent(0)?;
    cluster.wait_until_settled()?;
    let mut traffic = Traffic::start(cluster, timeline)?;
    cluster.arrive(1)?;
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    for node in [2, 3] {
        cluster.arrive(node)?;
    }
    cluster.wait_until_settled()?;
    let joined = boot_now();
    traffic.load.go_on(200)?;
    timeline.event("with a seed, a cluster of four");
    let requests = traffic.finish(&mut outcome, None)?;
    promise_members(&mut outcome, cluster, 4)?;
    for node in cluster.nodes() {
        let name = cluster.name(node);
        outcome.promise(has_served(&requests, &name, joined), || {
            format!("{name} has served no request")
        });
    }
    Ok(outcome)
}

fn broken_link(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(BROKEN_LINK.name);
    let owner = cluster.owner()?;
    let backups = others_than(cluster, owner);
    let (a, b) = (backups[0], backups[1]);
    let mut traffic = Traffic::start(cluster, timeline)?;
    reach(cluster.host(a), cluster.host(b), false)?;
    for (here, there) in [(a, b), (b, a)] {
        cluster.wait_for_status("they do not hear each other", &[here], |own, _, status| {
            let entry = status.node(own.host(there));
            entry.is_some_and(|entry| !entry.alive)
        })?;
    }
    traffic.load.go_on(100)?;
    let (x, y) = (cluster.name(a), cluster.name(b));
    timeline.event(format!("{x} and {y} do not hear each other"));
    cluster.arrive(3)?;
    let all = cluster.nodes();
    wait_until_serving(cluster, &all, &[owner, 3])?;
    let joined = boot_now();
    traffic.load.go_on(200)?;
    let name = cluster.name(3);
    timeline.event(format!("{name} has joined"));
    let same = cluster.owner()?;
    outcome.promise(same == owner, || "the VIP has moved".to_owned());
    reach(cluster.host(a), cluster.host(b), true)?;
    cluster.wait_until_settled()?;
    traffic.load.go_on(100)?;
    timeline.event("they hear each other again");
    let requests = traffic.finish(&mut outcome, None)?;
    outcome.promise(has_served(&requests, &name, joined), || {
        format!("{name} has served no request")
    });
    promise_members(&mut outcome, cluster, 4)?;
    Ok(outcome)
}

/// The owner and another member do not hear each other, or one does not hear the other. What they held
/// may wait until they do: frames that one of them gets do not reach the other. Nothing is reset, and
/// nobody else is affected.
fn owners_link(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(OWNERS_LINK.name);
    for (newcomer, [owner_hears, other_hears]) in
        [(3, [false, false]), (4, [false, true]), (5, [true, false])]
    {
        let owner = cluster.owner()?;
        let other = another_than(cluster, owner);
        let ends = [owner, other].map(|node| cluster.name(node));
        let mut traffic = Traffic::start(cluster, timeline)?;
        let hear = |cluster: &Cluster, hear: bool| {
            let (owner, other) = (cluster.host(owner), cluster.host(other));
            if !owner_hears {
                owner.hears(other, hear)?;
            }
            if !other_hears {
                other.hears(owner, hear)?;
            }
            anyhow::Ok(())
        };
        hear(cluster, false)?;
        for (here, there) in [(owner, other), (other, owner)] {
            cluster.wait_for_status("their session is down", &[here], |own, _, status| {
                let entry = status.node(own.host(there));
                entry.is_some_and(|entry| !session_is(entry, State::Up))
            })?;
        }
        traffic.load.go_on(100)?;
        cluster.arrive(newcomer)?;
        let all = cluster.nodes();
        wait_until_serving(cluster, &all, &[newcomer])?;
        let joined = boot_now();
        traffic.load.go_on(200)?;
        let name = cluster.name(newcomer);
        timeline.event(format!(
            "{name} has joined; {} hears {}: {owner_hears}, the reverse: {other_hears}",
            ends[0], ends[1]
        ));
        hear(cluster, true)?;
        let healed = boot_now();
        cluster.wait_until_settled()?;
        traffic.load.go_on(100)?;
        let requests = finish_without(&mut outcome, traffic, &ends, healed)?;
        outcome.promise(has_served(&requests, &name, joined), || {
            format!("{name} has served no request")
        });
        promise_members(&mut outcome, cluster, newcomer + 1)?;
        let last = cluster.owner()?;
        timeline.event(format!(
            "they hear each other again, {} owns the VIP, {} requests waited too long",
            cluster.name(last),
            outcome.lost_with_server
        ));
    }
    Ok(outcome)
}

/// Ends the traffic. What these servers held at a time may have waited for so long that its client gave
/// up; a reset counts.
fn finish_without(
    outcome: &mut Outcome,
    mut traffic: Traffic,
    servers: &[String],
    at: u64,
) -> Result<Vec<Request>> {
    let after = traffic.watches.wait_for_verdict(boot_now(), None)?;
    let gave_up = |how: &Option<String>| how.as_deref() == Some("timeout");
    for (before, after) in traffic.before.watches.iter().zip(&after.watches) {
        let held = before.server.as_ref();
        let waited = held.is_some_and(|name| servers.contains(name)) && gave_up(&after.ended);
        outcome.watches_cut_living += usize::from(after.ended.is_some() && !waited);
    }
    outcome.watches += after.watches.len();
    let requests = traffic.load.stop()?;
    let others = requests.iter().filter(|request| {
        let mut servers = servers.iter();
        let held = servers.any(|name| request.was_held_by(name, at));
        !(held && gave_up(&request.error))
    });
    let summary = Summary::of(others);
    outcome.requests += requests.len();
    outcome.lost_with_server += requests.len() - summary.requests;
    outcome.failed += summary.failed;
    outcome.promise_nothing_lost(&summary);
    Ok(requests)
}

/// Cuts all ways between two groups of hosts, or mends them.
fn join(ours: &[&dyn Host], theirs: &[&dyn Host], together: bool) -> Result<()> {
    for our in ours {
        for their in theirs {
            reach(*our, *their, together)?;
        }
    }
    Ok(())
}

/// The owner, one other node and all clients are on this side, two nodes on the far one.
fn partition(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(PARTITION.name);
    let owner = cluster.owner()?;
    let others = others_than(cluster, owner);
    let (near, far) = ([owner, others[0], 4], [others[1], others[2], 5]);
    let mut traffic = Traffic::start(cluster, timeline)?;
    let set = |cluster: &Cluster, together| {
        let mut ours: Vec<&dyn Host> = near.iter().map(|node| cluster.host(*node)).collect();
        let topology = &cluster.topology;
        ours.extend([topology.client.as_ref(), topology.router.as_ref()]);
        let theirs: Vec<&dyn Host> = far.iter().map(|node| cluster.host(*node)).collect();
        join(&ours, &theirs, together)
    };
    set(cluster, false)?;
    let at = boot_now();
    for (side, beyond) in [(near, far), (far, near)] {
        cluster.wait_for_status("the others are gone", &side[..2], |own, _, status| {
            let gone = |node: &usize| status.node(own.host(*node)).is_some_and(|entry| entry.gone);
            beyond[..2].iter().all(gone)
        })?;
        cluster.owner_among(&side[..2])?;
    }
    timeline.event("two groups of two, with an owner each");
    for side in [near, far] {
        cluster.arrive(side[2])?;
        wait_until_serving(cluster, &side, &side)?;
    }
    timeline.event("a newcomer in each");
    let joined = boot_now();
    traffic.load.go_on(200)?;
    // On servers that the far side does not know.
    let client = cluster.topology.client.as_ref();
    let (mut late, opened) = Watches::open(cluster, client, &vip(), 100)?;
    set(cluster, true)?;
    cluster.wait_until_settled()?;
    timeline.event("one group again");
    traffic.load.go_on(200)?;
    promise_members(&mut outcome, cluster, 6)?;

    let now = boot_now();
    let lost: Vec<String> = far.iter().map(|node| cluster.name(*node)).collect();
    let held = |server: &Option<String>| server.as_ref().is_some_and(|name| lost.contains(name));
    let after = late.wait_for_verdict(now, None)?;
    outcome.take_watches(&opened, &after, None);
    // Those that were out of reach have been told so, or go on.
    let what = "every watch in reach goes on or has ended";
    let after = traffic.watches.wait(what, |snapshot| {
        let mut watches = snapshot.watches.iter();
        watches.all(|watch| {
            let goes_on = watch.last_event.is_some_and(|event| event > now);
            watch.ended.is_some() || goes_on || held(&watch.server)
        })
    })?;
    for (before, after) in traffic.before.watches.iter().zip(&after.watches) {
        let cut = after.ended.is_some() && !held(&before.server);
        outcome.watches_cut_living += usize::from(cut);
    }
    outcome.watches += after.watches.len();
    let requests = traffic.load.stop()?;
    let others = requests.iter().filter(|request| {
        let out_of_reach = |name: &String| request.was_held_by(name, at);
        request.succeeded() || !lost.iter().any(out_of_reach)
    });
    let summary = Summary::of(others);
    outcome.requests += requests.len();
    outcome.lost_with_server += requests.len() - summary.requests;
    outcome.failed += summary.failed;
    outcome.promise_nothing_lost(&summary);
    let name = cluster.name(near[2]);
    outcome.promise(has_served(&requests, &name, joined), || {
        format!("{name} has served no request")
    });
    Ok(outcome)
}
