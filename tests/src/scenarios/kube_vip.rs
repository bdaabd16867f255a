//! kube-vip is replaced while clients are connected.
//!
//! kube-vip itself cannot be had here: it comes in an image only. What it does with the address is
//! done in its place: its leader has the VIP on its NIC as a host address, announces it every few
//! seconds, and takes it off the NIC when it ends.

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::Process;
use crate::scenario::{Scenario, Test};
use crate::topology::{VIP, vip_by_hand};
use crate::traffic::{Load, Watches, vip};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "kube_vip",
    promise: "kube_vip_is_replaced_without_a_failed_request_or_a_cut_watch",
    tests: &[Test::netns(Plan::bare)],
    run,
};

/// The node on which kube-vip leads.
const LEADER: usize = 0;

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("kube_vip");
    vip_by_hand(cluster.host(LEADER), "add")?;
    let mut announcer = announce(cluster)?;
    let client = cluster.topology.client.as_ref();
    let (mut watches, before) = Watches::open(cluster, client, &vip(), cluster.pace().watches)?;
    let mut load = Load::start(cluster, client, &vip())?;
    load.go_on(100)?;
    let leader = cluster.name(LEADER);
    timeline.event(format!(
        "kube-vip leads on {leader}: all goes to its server"
    ));

    let followers: Vec<usize> = cluster.nodes().split_off(LEADER + 1);
    for &node in &followers {
        cluster.start_agent(node)?;
    }
    cluster.wait_for_status("the agents wait for it", &followers, |_, _, status| {
        status.conflicts > 0 && status.owner.is_none()
    })?;
    load.go_on(100)?;
    timeline.event("the agents on the other nodes wait for it");

    // Beside kube-vip: this node answers for the VIP no more, and nothing that arrives is lost.
    cluster.start_agent(LEADER)?;
    cluster.wait_until_settled()?;
    let owner = cluster.owner()?;
    timeline.event(format!("{} owns the VIP", cluster.name(owner)));
    load.go_on(200)?;

    announcer.stop()?;
    vip_by_hand(cluster.host(LEADER), "del")?;
    load.go_on(200)?;
    let after = cluster.owner()?;
    outcome.promise(after == owner, || "the VIP moved".to_owned());
    timeline.event("kube-vip has ended");

    let now = crate::clock::boot_now();
    let after = watches.wait_for_verdict(now, None)?;
    let requests = load.stop()?;
    for node in cluster.nodes() {
        let name = cluster.name(node);
        let served = requests.iter().filter(|r| r.server.as_ref() == Some(&name));
        outcome.promise(served.count() > 0, || format!("{name} served no request"));
    }
    let summary = outcome.take_requests(&requests, None);
    outcome.take_watches(&before, &after, None);
    outcome.promise_nothing_lost(&summary);
    Ok(outcome)
}

/// The announcements, more often than kube-vip makes them.
fn announce(cluster: &Cluster) -> Result<Process> {
    let testbed = cluster.programs().testbed.display();
    let script = format!("while {testbed} claim --vip {VIP}; do sleep 0.2; done");
    let mut sh = cluster.host(LEADER).command("sh".as_ref());
    let log = cluster.work().join("kube-vip.log");
    Process::daemon("kube-vip", sh.args(["-c", &script]), &log)
}
