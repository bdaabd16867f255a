//! The configuration changes while the agents run, node by node: `vip reload`, and SIGHUP on one of
//! them. VIPs and services come and go, the allow list and the health checks change, and no request
//! fails. A bad file changes nothing, and what needs a restart is named.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test};
use crate::topology::{NEXT_VIP as NEW, PORT, VIP, VIP6};
use crate::traffic::{ArpMonitor, Traffic, vip};

use super::steps::serve_beside;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "reload",
    promise: "reload_applies_a_changed_configuration_and_fails_no_request",
    tests: &[
        Test::netns(Plan::default),
        Test::netns(Plan::dual_stack).cluster("dual_stack"),
    ],
    run,
};

/// The port of a service beside the API.
const SERVICE: u16 = 9345;

/// New connections by each address after each step.
const REQUESTS: usize = 15;

/// Steps in which SIGHUP and not `vip reload` tells the last node.
const BY_SIGNAL: usize = 2;

/// The cluster while its configuration changes.
struct Changes<'a> {
    cluster: &'a mut Cluster,
    traffic: Traffic,
    outcome: Outcome,
    /// The configuration now.
    config: String,
    steps: usize,
}

impl Changes<'_> {
    /// Writes the file that all agents read.
    fn write(&self, config: &str) -> Result<()> {
        let file = self.cluster.work().join("vip.toml");
        std::fs::write(&file, config).context("write vip.toml")
    }

    /// Changes the configuration of all nodes, one after the other. `said` is what each must say.
    fn change(&mut self, from: &str, to: &str, said: &str) -> Result<()> {
        let config = self.config.replacen(from, to, 1);
        anyhow::ensure!(config != self.config, "no {from:?} in the configuration");
        self.write(&config)?;
        self.config = config;
        self.steps += 1;
        let nodes = self.cluster.nodes();
        for &node in &nodes {
            if self.steps <= BY_SIGNAL && Some(&node) == nodes.last() {
                let before = self.cluster.status(node)?.event_count("reloaded");
                self.cluster.signal_agent(node, Signal::SIGHUP);
                self.cluster
                    .wait_for_status("SIGHUP is obeyed", &[node], |_, _, status| {
                        status.event_count("reloaded") > before
                    })?;
                let events = self.cluster.vip(node, &["events"])?;
                self.promise(events.contains(said), || {
                    format!("no {said:?} after SIGHUP: {events}")
                });
            } else {
                let text = self.cluster.vip(node, &["reload"])?;
                self.promise(text.contains(said), || format!("no {said:?}: {text}"));
            }
            self.traffic.load.go_on(30)?;
        }
        self.traffic.load.go_on(100)
    }

    fn promise(&mut self, kept: bool, broken: impl FnOnce() -> String) {
        self.outcome.promise(kept, broken);
    }

    /// Makes requests that must all succeed.
    fn request(&mut self, target: &str) {
        let client = self.cluster.topology.client.as_ref();
        let failed: Vec<String> = (0..REQUESTS)
            .filter_map(|_| self.cluster.get(client, "/whoami", target).err())
            .map(|error| format!("{error:#}"))
            .collect();
        self.outcome.requests += REQUESTS;
        self.outcome.failed += failed.len();
        self.promise(failed.is_empty(), || {
            let first = failed.first().cloned().unwrap_or_default();
            format!(
                "{} of {REQUESTS} requests to {target} failed: {first}",
                failed.len()
            )
        });
    }

    /// Requests that must not get there.
    fn closed(&mut self, target: &str) {
        let client = self.cluster.topology.client.as_ref();
        let mut reach = client.command("timeout".as_ref());
        reach
            .arg("1")
            .arg(&self.cluster.programs().testbed)
            .args(["reach", target]);
        let reached = output(&mut reach).is_ok();
        self.promise(!reached, || format!("{target} is still there"));
    }

    /// Whether `lo` of all nodes has these VIPs and no other.
    fn promise_on_lo(&mut self, wanted: &[Ipv4Addr]) -> Result<()> {
        for node in self.cluster.nodes() {
            let mut ip = self.cluster.host(node).command("ip".as_ref());
            let there = output(ip.args(["-oneline", "-4", "address", "show", "dev", "lo"]))?;
            let mut found: Vec<Ipv4Addr> = there
                .split_whitespace()
                .filter_map(|word| word.strip_suffix("/32")?.parse().ok())
                .collect();
            found.sort_unstable();
            self.promise(found == wanted, || {
                format!("lo has {found:?}, not {wanted:?}")
            });
        }
        Ok(())
    }

    /// A file that makes no sense.
    fn refused(&mut self) -> Result<()> {
        let broken = self.config.replacen("vip = ", "vip = 5 # ", 1);
        self.write(&broken)?;
        for node in self.cluster.nodes() {
            let before = self.cluster.status(node)?.services.clone();
            let mut reload = self.cluster.host(node).command("sh".as_ref());
            let vip = self.cluster.programs().vip.display().to_string();
            reload.args(["-c", &format!("{vip} reload 2>&1; echo code $?")]);
            let text = output(&mut reload)?;
            let lines = text.trim_end().lines().count();
            self.promise(
                text.contains("code 2") && text.contains("vip.toml:2:7: ") && lines == 2,
                || format!("a bad file: {text}"),
            );
            let status = self.cluster.status(node)?;
            let is_told = status.event_count("reload_refused") == 1;
            self.promise(is_told && status.services.len() == before.len(), || {
                format!("a bad file: {status:?}")
            });
        }
        let config = self.config.clone();
        self.write(&config)
    }
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let _servers = serve_beside(cluster, SERVICE)?;
    let owner = cluster.owner()?;
    let traffic = Traffic::start(cluster, timeline)?;
    let mut arp = ArpMonitor::start(cluster, 5)?;
    let dual_stack = cluster.plan().dual_stack;
    let config = cluster.config()?;
    let mut changes = Changes {
        cluster,
        traffic,
        outcome: Outcome::new("reload"),
        config,
        steps: 0,
    };
    let line = changes
        .config
        .lines()
        .find(|line| line.starts_with("vip = "))
        .context("the configuration has a VIP")?
        .to_owned();
    let (old, new) = (vip(), format!("{NEW}:{PORT}"));
    let more = if dual_stack {
        format!("vip = [\"{old}\", \"{new}\", \"[{VIP6}]:{PORT}\"]")
    } else {
        format!("vip = [\"{old}\", \"{new}\"]")
    };
    changes.promise_on_lo(&[VIP])?;
    changes.change(&line, &more, "`vip`: ")?;
    changes.promise_on_lo(&[VIP, NEW])?;
    changes.request(&new);
    changes.request(&old);
    timeline.event("a second VIP");

    let api = changes.config.clone();
    let table = format!("[[services]]\nport = {SERVICE}\n[vrrp]");
    changes.change("[vrrp]", &table, "`services`: unset (none) -> ")?;
    changes
        .cluster
        .wait_for_status("the service is usable", &[owner], |_, _, status| {
            status
                .services
                .iter()
                .all(|service| service.usable.len() == 3)
        })?;
    for address in [VIP, NEW] {
        changes.request(&format!("{address}:{SERVICE}"));
    }
    timeline.event("a service");

    changes.change(
        "vip = ",
        "allow = [\"10.0.0.0/24\", \"fd00::/64\"]\nvip = ",
        "`allow`: unset (everybody) -> ",
    )?;
    changes.change("\"10.0.0.0/24\"", "\"10.0.0.0/25\"", "`allow`: ")?;
    changes.request(&old);
    timeline.event("an allow list, and another one");
    // A calm pace has an interval already.
    let slower = match changes.cluster.pace().health {
        "" => "interval = \"1s\"\n",
        _ => "",
    };
    let health = format!("[health]\npath = \"/whoami\"\nrise = 1\n{slower}");
    changes.change("[health]\n", &health, "`path` in [health]: ")?;
    changes.request(&old);
    timeline.event("another question to the servers, less often");

    changes.refused()?;
    changes.change(
        "vip = ",
        "state_dir = \"/var/lib/vip-test\"\nsyn_rate = 100000\nvip = ",
        "`syn_rate`: unset (no limit) -> 100000",
    )?;
    let events = changes.cluster.vip(owner, &["events"])?;
    let kept = "`state_dir` cannot change while the agent runs; the old value stays; restart the \
                agent to change it";
    changes.promise(events.contains(kept), || format!("no {kept:?}: {events}"));
    timeline.event("a bad file, and a key that needs a restart");

    changes.change(&table, "[vrrp]", "`services`: ")?;
    changes.closed(&format!("{VIP}:{SERVICE}"));
    changes.change(&more, &line, "`vip`: ")?;
    changes.promise_on_lo(&[VIP])?;
    changes.closed(&new);
    changes.request(&old);
    timeline.event("neither the service nor the second VIP any more");
    // All at once.
    let now = changes.config.clone();
    changes.change(&now, &api, "`vip`: ")?;
    changes.request(&new);

    let Changes {
        cluster,
        traffic,
        mut outcome,
        ..
    } = changes;
    let still = cluster.owner()?;
    outcome.promise(still == owner, || "the VIP moved".to_owned());
    for node in cluster.nodes() {
        let status = cluster.status(node)?;
        outcome.promise(status.repairs.values().all(|count| *count == 0), || {
            format!("repairs: {:?}", status.repairs)
        });
    }
    super::steps::promise_one_answer(&mut outcome, &arp.report()?);
    traffic.finish(&mut outcome, None)?;
    timeline.event(format!(
        "{} of {} requests failed, {} of {} watches cut, longest gap {} ms",
        outcome.failed,
        outcome.requests,
        outcome.watches_cut_living,
        outcome.watches,
        outcome.gap_ms
    ));
    Ok(outcome)
}
