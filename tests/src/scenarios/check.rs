//! `vip check`: a healthy node passes, and a host that took the VIP for itself is named.

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::topology::vip_by_hand;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "check",
    promise: "check_passes_a_healthy_node_and_names_a_stranger_with_the_vip",
    tests: &[Test::netns(Plan::default).on_kernels(When::Asked)],
    run,
};

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("check");
    let config = cluster.work().join("vip.toml");
    for node in cluster.nodes() {
        let name = cluster.name(node);
        // Fails unless it exits with 0.
        let text = cluster
            .vip(node, &["check", "--config", &config.display().to_string()])
            .with_context(|| format!("vip check on {name}"))?;
        for expected in ["kernel", "XDP", "answers for", "on all addresses"] {
            outcome.promise(text.contains(expected), || {
                format!("no {expected:?} in what vip check says on {name}: {text}")
            });
        }
    }
    timeline.event("vip check finds nothing wrong on any node");

    let client = cluster.topology.client.as_ref();
    vip_by_hand(client, "add")?;
    let mut check = cluster.host(0).command(cluster.programs().vip.as_os_str());
    let checked = check
        .arg("check")
        .arg("--config")
        .arg(&config)
        .output()
        .context("vip check")?;
    vip_by_hand(client, "del")?;
    let text = String::from_utf8_lossy(&checked.stdout);
    outcome.promise(checked.status.code() == Some(1), || {
        format!(
            "vip check exits with {} although a stranger has the VIP",
            checked.status
        )
    });
    outcome.promise(
        text.contains("which is none of the nodes, answers for"),
        || format!("vip check does not name the stranger: {text}"),
    );
    timeline.event("vip check names a stranger who has the VIP");
    Ok(outcome)
}
