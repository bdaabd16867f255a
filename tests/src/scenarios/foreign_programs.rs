//! Programs of another product at the hooks of the NIC: there before the agent, or placed before
//! its programs later. Each of the agent's programs runs nevertheless, or the node names the one
//! that does not, and what stands before it, and does not own the VIP.

use std::time::Duration;

use anyhow::{Context, Result};

use super::observed::{ask, value};
use vip_node::hooks::Hook;
use vip_userspace::datapath::Mode;
use vip_userspace::observe::event::Repair;

use crate::cluster::{Cluster, Plan};
use crate::hooks::{identity, occupy};
use crate::outcome::{Outcome, Timeline};
use crate::process::Process;
use crate::scenario::{Scenario, Test};
use crate::topology::NIC;
use crate::traffic::{ArpMonitor, Traffic};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "foreign_programs",
    promise: "foreign_programs_before_ours_are_passed_or_named",
    tests: &[Test::netns(Plan::bare)],
    run,
};

/// Questions for the VIP that have to have one answer each.
const QUESTIONS: usize = 200;

/// XDP for all frames, and a tcx program each way that no other program runs behind, as those of
/// Cilium may be.
const PRODUCT: [[&str; 4]; 3] = [
    ["--hook", "xdp", "--verdict", "next"],
    ["--hook", "tcx-ingress", "--verdict", "end"],
    ["--hook", "tcx-egress", "--verdict", "end"],
];

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("foreign_programs");
    let mut others: Vec<Vec<Process>> = Vec::new();
    for node in cluster.nodes() {
        let occupied = PRODUCT
            .iter()
            .map(|arguments| occupy(cluster, node, arguments));
        others.push(occupied.collect::<Result<_>>()?);
    }
    for node in cluster.nodes() {
        cluster.start_agent(node)?;
    }
    cluster.wait_until_settled()?;
    cluster.wait_for_status("hooks are proved", &cluster.nodes(), |_, _, status| {
        status.xdp_mode() == Mode::Tc && status.faults.is_empty() && status.hooks_run()
    })?;
    one_answer(cluster, &mut outcome)?;
    timeline.event("behind XDP, and before tcx programs that were there first: one answer each");

    let traffic = Traffic::start(cluster, timeline)?;
    let owner = cluster.owner()?;
    let backup = super::steps::another_than(cluster, owner);
    // A program that ends the frame's way in costs connections until ours is first again: the
    // owner's own stack resets those of others. That is looked at below, in `fight`.
    for (node, hook, verdict) in [
        (owner, "tcx-ingress", "next"),
        (backup, "tcx-egress", "end"),
    ] {
        let arguments = ["--hook", hook, "--verdict", verdict];
        let late = occupy(cluster, node, &arguments)?;
        others[node].push(late);
        let what = format!("{} is first at {hook} again", cluster.name(node));
        cluster.wait_for_status(&what, &[node], |_, _, status| {
            let healed = status
                .repairs
                .get(&Repair::Programs)
                .is_some_and(|times| *times > 0);
            healed && status.hooks_run() && status.faults.is_empty()
        })?;
        timeline.event(what);
    }
    cluster.wait_until_settled()?;
    one_answer(cluster, &mut outcome)?;
    traffic.finish(&mut outcome, None)?;

    fight(cluster, timeline, &mut outcome)?;
    drop(others);
    blocked(cluster, timeline, &mut outcome)?;
    Ok(outcome)
}

/// No question for the VIP has two answers, and no frame teaches the segment a wrong address.
fn one_answer(cluster: &Cluster, outcome: &mut Outcome) -> Result<()> {
    let mut arp = ArpMonitor::start(cluster, 10)?;
    let seen = arp.wait("questions are answered", |seen| seen.questions >= QUESTIONS)?;
    super::steps::promise_one_answer(outcome, &seen);
    let answered = !seen.answerers.is_empty();
    outcome.promise(answered, || "nobody answered for the VIP".to_owned());
    Ok(())
}

/// A program that is put before the agent's again and again.
fn fight(cluster: &mut Cluster, timeline: &mut Timeline, outcome: &mut Outcome) -> Result<()> {
    let owner = cluster.owner()?;
    for (hook, way) in [("tcx-ingress", Hook::Ingress), ("tcx-egress", Hook::Egress)] {
        let fault = way.name();
        let arguments = ["--hook", hook, "--verdict", "end", "--insist-ms", "100"];
        let insists = occupy(cluster, owner, &arguments)?;
        let id = identity(&insists)?;
        let others = super::steps::others_than(cluster, owner);
        cluster.wait_for_status("the node names the hook", &[owner], |_, _, status| {
            let cause = status.why_not_run(way);
            cause.is_some_and(|cause| cause.contains(&id)) && status.is_faulty()
        })?;
        let successor = cluster.owner_among(&others)?;
        let (code, ready) = ask(cluster, owner, "/readyz")?;
        let named = ready
            .lines()
            .any(|line| line.starts_with(&format!("[-]{fault}")) && line.contains(&id));
        outcome.promise(code == 503 && named, || format!("/readyz: {code} {ready}"));
        let (_, metrics) = ask(cluster, owner, "/metrics")?;
        for (metric, label, wanted) in [
            ("vip_hook_running", "hook", 0.0),
            ("vip_fault", "fault", 1.0),
        ] {
            let found = value(&metrics, metric, &format!("{label}=\"{fault}\""));
            outcome.promise(found == Some(wanted), || {
                format!("{metric} of {fault}: {found:?}, not {wanted}")
            });
        }
        // It gives up putting its own first, and says so once.
        std::thread::sleep(Duration::from_secs(6));
        let repairs = cluster.status(owner)?.repairs.clone();
        let tried = repairs.get(&Repair::Programs).copied().unwrap_or(0);
        outcome.promise(tried < 10, || format!("{tried} repairs: it flaps"));
        let events = cluster.vip(owner, &["events"])?;
        let told = events.contains("again and again") && events.contains(&id);
        outcome.promise(told, || format!("no event names the fight:\n{events}"));
        drop(insists);
        cluster.wait_for_status("the hook runs again", &[owner], |_, _, status| {
            status.hooks_run() && status.faults.is_empty()
        })?;
        cluster.wait_until_settled()?;
        timeline.event(format!(
            "{hook}: {} names who insists, {} owned the VIP meanwhile",
            cluster.name(owner),
            cluster.name(successor)
        ));
        let name = cluster.host(owner).address().to_string();
        cluster
            .vip(successor, &["handover", "--to", &name])
            .context("give the VIP back")?;
        cluster.owner()?;
    }
    Ok(())
}

/// XDP that lets no ARP through: nothing can be done, so the node must not own the VIP.
fn blocked(cluster: &mut Cluster, timeline: &mut Timeline, outcome: &mut Outcome) -> Result<()> {
    let owner = cluster.owner()?;
    let node = super::steps::another_than(cluster, owner);
    cluster.stop_agent(node)?;
    cluster.vip(node, &["cleanup"])?;
    let drops = occupy(cluster, node, &["--hook", "xdp", "--verdict", "drop-arp"])?;
    let id = identity(&drops)?;
    cluster.start_agent(node)?;
    cluster.wait_for_status("it is not fit", &[node], |_, _, status| {
        let hook = status.hooks.iter().find(|hook| hook.name == Hook::Ingress);
        hook.is_some_and(|hook| hook.cause.as_ref().is_some_and(|why| why.contains(&id)))
            && !status.faults.is_empty()
    })?;
    std::thread::sleep(Duration::from_secs(2));
    let status = cluster.status(node)?;
    outcome.promise(status.is_faulty(), || {
        format!("{} on {NIC} sees no ARP: {status:?}", cluster.name(node))
    });
    timeline.event(format!(
        "{} sees no ARP behind somebody else's XDP program, and does not own the VIP",
        cluster.name(node)
    ));
    Ok(())
}
