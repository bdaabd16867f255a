//! A machine loses its power. Its clients wait for events and send nothing: without being told they
//! would learn of it by their keepalives, which ask after ten minutes here.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::clock::boot_now;
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Down, Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::scenarios::steps;
use crate::traffic::{Watches, vip};

pub(super) const OWNER: Scenario = Scenario {
    name: "clients_told_owner",
    promise: "idle_clients_of_a_dead_owner_are_told",
    tests: &[
        Test::netns(Plan::default).on_kernels(When::Asked),
        Test::netns(fast).cluster("fast"),
        Test::shared_machines(When::Asked),
    ],
    run: |cluster, timeline| run(cluster, timeline, OWNER.name, Which::Owner),
};

pub(super) const OTHER: Scenario = Scenario {
    name: "clients_told_other",
    promise: "idle_clients_of_a_dead_backup_are_told",
    tests: &[
        Test::netns(Plan::default).on_kernels(When::Asked),
        Test::netns(keyed).cluster("keyed"),
        Test::shared_machines(When::Always),
    ],
    run: |cluster, timeline| run(cluster, timeline, OTHER.name, Which::Backup),
};

/// The node that loses its power.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Owner,
    Backup,
}

/// Time between two questions of TCP after the peer, in seconds: longer than the test may take.
const KEEPALIVE: u64 = 600;

/// The fast profile of docs/operations.md.
fn fast() -> Plan {
    Plan {
        more: "\n[bfd]\ninterval = \"35ms\"\n\n[datapath]\nreset_after = \"500ms\"\n".to_owned(),
        ..Plan::default()
    }
}

fn keyed() -> Plan {
    Plan {
        keyed: true,
        ..Plan::default()
    }
}

fn run(
    cluster: &mut Cluster,
    timeline: &mut Timeline,
    name: &'static str,
    which: Which,
) -> Result<Outcome> {
    let mut outcome = Outcome::new(name);
    let owner = cluster.owner()?;
    let victim = match which {
        Which::Owner => owner,
        Which::Backup => steps::another_than(cluster, owner),
    };
    let dead = cluster.name(victim);
    let client = cluster.topology.client.as_ref();
    let count = cluster.pace().watches;
    let (mut watches, _) = Watches::open_with(cluster, client, &vip(), count, KEEPALIVE)?;
    // The others are told of the last watch within a second.
    std::thread::sleep(Duration::from_secs(2));
    let before = watches.snapshot()?;
    let held = before.on(&dead).count();
    ensure!(held > 0, "no watch of {count} is on {dead}");
    timeline.event(format!(
        "power cut of {dead}; {held} of {count} watches are on its server, and none of them sends"
    ));
    let at = cluster.power_off(victim)?;
    let after = watches.wait_for_verdict(boot_now(), Some(&dead))?;
    let down = Down { server: &dead, at };
    outcome.take_watches(&before, &after, Some(down));
    let (reset, cut) = (outcome.watches_reset_dead, outcome.watches_cut_living);
    outcome.promise(reset == held && cut == 0, || {
        format!(
            "{reset} of the {held} watches on the dead server were reset, {cut} on living ones cut"
        )
    });
    let told = after.on(&dead).filter_map(|watch| watch.ended_at);
    let mut told: Vec<u64> = told
        .map(|ended| (ended.saturating_sub(at)) / 1_000_000)
        .collect();
    told.sort_unstable();
    timeline.event(format!(
        "{reset} of {held} watches on the dead server were reset, the first {:?} ms and the last {:?} ms \
         after the power cut; {cut} of the others cut",
        told.first(),
        told.last(),
    ));
    cluster.wait_until_settled()?;
    Ok(outcome)
}
