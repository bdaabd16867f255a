//! What an operator sees: metrics, probes, events, alerts and dashboard that fit them, an HTTP
//! port that somebody else has.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vip_userspace::observe::event::Record;

use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::{Process, output};
use crate::scenario::{Scenario, Test};
use crate::topology::NIC;
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "observed",
    promise: "observed_by_metrics_probes_and_events_is_what_happens",
    tests: &[Test::netns(Plan::default)],
    run,
};

/// Where agents listen unless told otherwise.
const HTTP: &str = "127.0.0.1:9643";

/// Files whose expressions must fit what agents say.
const RULES: &str = include_str!("../../../deploy/prometheus/alerts.yaml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana/vip.json");

/// Asks a node's agent by HTTP, from the node itself. Returns status code and body.
pub(super) fn ask(cluster: &Cluster, node: usize, path: &str) -> Result<(u16, String)> {
    let mut curl = cluster.host(node).command("curl".as_ref());
    let text = output(
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--write-out",
        ])
        .args(["\n%{http_code}", &format!("http://{HTTP}{path}")]),
    )?;
    let (body, code) = text
        .trim_end()
        .rsplit_once('\n')
        .context("curl writes a code")?;
    Ok((code.parse().context("a status code")?, body.to_owned()))
}

/// The value of a metric, by its name and its labels. The first label is `vip`, and is left out.
pub(super) fn value(metrics: &str, name: &str, labels: &str) -> Option<f64> {
    let own = |line: &str| {
        let rest = line.strip_prefix(name)?.strip_prefix("{vip=\"")?;
        let (_, rest) = rest.split_once('"')?;
        let (found, value) = rest.split_once("} ")?;
        (found.trim_start_matches(',') == labels).then(|| value.parse().ok())?
    };
    metrics.lines().find_map(own)
}

/// Words that begin as all names of metrics do.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("vip_"))
        .collect()
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("observed");
    let traffic = Traffic::start(cluster, timeline)?;
    let owner = cluster.owner()?;
    metrics(cluster, owner, &mut outcome)?;
    timeline.event("metrics say what vip status says, and promtool takes them");
    traffic.finish(&mut outcome, None)?;
    expressions(cluster, owner, &mut outcome)?;
    timeline.event("alerts and dashboard ask for metrics that there are");
    events(cluster, owner, &mut outcome)?;
    timeline.event("a fault is seen by the kubelet, and told with its cause");
    port_in_use(cluster, &mut outcome)?;
    timeline.event("a port in use is no reason to end");
    frozen(cluster, &mut outcome)?;
    timeline.event("an agent that hangs is not healthy");
    Ok(outcome)
}

fn metrics(cluster: &Cluster, owner: usize, outcome: &mut Outcome) -> Result<()> {
    let mut owners = Vec::new();
    for node in cluster.nodes() {
        let name = cluster.name(node);
        let before = cluster.status(node)?;
        let (code, metrics) = ask(cluster, node, "/metrics")?;
        let after = cluster.status(node)?;
        ensure!(code == 200, "/metrics on {name}: {code} {metrics}");
        promtool(&["check", "metrics"], &metrics)
            .with_context(|| format!("metrics of {name}:\n{metrics}"))?;
        if value(&metrics, "vip_owner", "") == Some(1.0) {
            owners.push(node);
        }
        for (own, later) in before.nodes.iter().zip(&after.nodes) {
            let label = format!("node=\"{}\"", own.address);
            let counted = value(&metrics, "vip_backend_packets_total", &label);
            let fits = |count: f64| (own.packets as f64..=later.packets as f64).contains(&count);
            outcome.promise(counted.is_some_and(fits), || {
                format!("{name} counts {counted:?} packets {label}, status {own:?}, then {later:?}")
            });
            for metric in ["vip_backend_ready", "vip_backend_alive"] {
                let found = value(&metrics, metric, &label);
                outcome.promise(found == Some(1.0), || {
                    format!("{metric} of {label}: {found:?}")
                });
            }
            if !own.own {
                let trip = value(&metrics, "vip_bfd_round_trip_seconds", &label);
                let is_sane = trip.is_some_and(|trip| trip > 0.0 && trip < 1.0);
                outcome.promise(is_sane, || {
                    format!("{name}: BFD round trip of {trip:?} {label}")
                });
            }
            let label = format!("node=\"{}\",port=\"6443\"", own.address);
            let probes = value(&metrics, "vip_probe_duration_seconds_count", &label);
            outcome.promise(probes.is_some_and(|count| count > 1.0), || {
                format!("{name}: {probes:?} probes {label}")
            });
        }
        // The agent's own changes are no repairs.
        let repaired = before.repairs.values().any(|count| *count > 0);
        outcome.promise(!before.repairs.is_empty() && !repaired, || {
            format!("{name} repaired: {:?}", before.repairs)
        });
        for path in ["/healthz", "/readyz"] {
            let (code, text) = ask(cluster, node, path)?;
            outcome.promise(code == 200, || format!("{path} on {name}: {code} {text}"));
        }
        let (code, _) = ask(cluster, node, "/nothing")?;
        outcome.promise(code == 404, || format!("/nothing on {name}: {code}"));
    }
    outcome.promise(owners == [owner], || {
        format!("owners by metrics: {owners:?}")
    });
    Ok(())
}

/// Alerts and dashboard name metrics that an agent serves. (That they are PromQL, and what they find, is
/// tested without agents: vip-userspace/tests/monitoring.rs.)
fn expressions(cluster: &Cluster, owner: usize, outcome: &mut Outcome) -> Result<()> {
    let (_, metrics) = ask(cluster, owner, "/metrics")?;
    let said = names(&metrics);
    for (file, text) in [("alerts.yaml", RULES), ("vip.json", DASHBOARD)] {
        let asked = names(text);
        let unknown: Vec<_> = asked.difference(&said).collect();
        outcome.promise(unknown.is_empty() && asked.len() > 5, || {
            format!("{file} asks for {unknown:?}, of {asked:?}")
        });
    }
    Ok(())
}

fn promtool(arguments: &[&str], input: &str) -> Result<()> {
    use std::io::Write as _;
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start promtool (install prometheus)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(input.as_bytes())
            .context("write to promtool")?;
    }
    let done = child.wait_with_output().context("wait for promtool")?;
    ensure!(
        done.status.success() && done.stdout.is_empty() && done.stderr.is_empty(),
        "promtool {}: {}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

/// The owner's cable is pulled: it says why it cannot be one, its successor why it is.
fn events(cluster: &mut Cluster, owner: usize, outcome: &mut Outcome) -> Result<()> {
    let others = super::steps::others_than(cluster, owner);
    let mut followers = Vec::new();
    for &node in &others {
        let mut follow = cluster
            .host(node)
            .command(cluster.programs().vip.as_os_str());
        follow.args(["events", "--follow", "--json"]);
        let log = cluster
            .work()
            .join(format!("{}-follow.log", cluster.name(node)));
        let name = format!("vip events on {}", cluster.name(node));
        followers.push((node, Process::daemon(&name, &mut follow, &log)?, log));
    }
    let link = |cluster: &Cluster, way: &str| {
        let mut ip = cluster.host(owner).command("ip".as_ref());
        output(ip.args(["link", "set", "dev", NIC, way])).map(drop)
    };
    link(cluster, "down")?;
    let successor = cluster.owner_among(&others)?;
    let (code, text) = ask(cluster, owner, "/readyz")?;
    outcome.promise(code == 503 && text.contains("[-]carrier failed"), || {
        format!("/readyz without carrier: {code} {text}")
    });
    let (code, text) = ask(cluster, owner, "/healthz")?;
    outcome.promise(code == 200, || {
        format!("/healthz without carrier: {code} {text}")
    });
    let told = cluster.vip(owner, &["events"])?;
    outcome.promise(told.contains("cannot own the VIP: no carrier"), || {
        format!("the owner that was does not say why: {told}")
    });
    let (_, _, log) = followers
        .iter()
        .find(|(node, ..)| *node == successor)
        .context("the successor is followed")?;
    let follow = until("the follower tells of the takeover", PATIENCE, || {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let records = text.lines().map(serde_json::from_str::<Record>);
        let mut records = records.map_while(Result::ok);
        Ok(records.find(|record| {
            record.event.name == "became_owner" && record.event.duration_ms.is_some()
        }))
    })?;
    let was = cluster.host(owner).address().to_string();
    let names_it = |cause: &String| cause.contains(&was);
    outcome.promise(follow.event.cause.as_ref().is_some_and(names_it), || {
        format!("the cause is not {was}: {follow:?}")
    });
    let (_, metrics) = ask(cluster, successor, "/metrics")?;
    let counted = value(&metrics, "vip_failover_duration_seconds_count", "");
    let took = value(&metrics, "vip_failover_duration_seconds_sum", "");
    outcome.promise(
        counted == Some(1.0) && took.is_some_and(|took| took > 0.0 && took < 60.0),
        || format!("{counted:?} failovers took {took:?} s"),
    );
    for (_, mut follower, _) in followers {
        follower.stop()?;
    }
    link(cluster, "up")?;
    cluster.wait_until_settled()?;
    let (code, text) = ask(cluster, owner, "/readyz")?;
    outcome.promise(code == 200, || {
        format!("/readyz with carrier: {code} {text}")
    });
    Ok(())
}

fn port_in_use(cluster: &mut Cluster, outcome: &mut Outcome) -> Result<()> {
    let node = cluster.nodes()[0];
    cluster.stop_agent(node)?;
    let mut other = cluster
        .host(node)
        .command(cluster.programs().testbed.as_os_str());
    other.args(["echo", "--address", "127.0.0.1", "--port", "9643"]);
    let log = cluster.work().join("port.log");
    let mut other = Process::daemon("somebody at the agent's port", &mut other, &log)?;
    until("somebody listens", PATIENCE, || {
        let mut reach = cluster
            .host(node)
            .command(cluster.programs().testbed.as_os_str());
        Ok(output(reach.args(["reach", HTTP])).ok())
    })?;
    cluster.start_agent(node)?;
    cluster.wait_until_settled()?;
    until("the agent says that the port is in use", PATIENCE, || {
        let told = cluster.vip(node, &["events"])?;
        Ok(told.contains("cannot listen for HTTP").then_some(()))
    })?;
    other.kill_and_reap();
    until(
        "the agent listens once it can",
        Duration::from_secs(60),
        || {
            Ok(ask(cluster, node, "/healthz")
                .ok()
                .filter(|(code, _)| *code == 200))
        },
    )?;
    let told = cluster.vip(node, &["events"])?;
    let times = told.matches("cannot listen for HTTP").count();
    outcome.promise(times == 1, || format!("it said so {times} times: {told}"));
    Ok(())
}

fn frozen(cluster: &mut Cluster, outcome: &mut Outcome) -> Result<()> {
    let node = cluster.nodes()[0];
    cluster.freeze_agent(node);
    let mut curl = cluster.host(node).command("curl".as_ref());
    // The kubelet's patience, as the manifest has it.
    let asked = output(curl.args([
        "--silent",
        "--max-time",
        "2",
        &format!("http://{HTTP}/healthz"),
    ]));
    cluster.thaw_agent(node);
    outcome.promise(asked.is_err(), || {
        "a frozen agent says it is healthy".to_owned()
    });
    cluster.wait_until_settled()
}
