//! The status page, in a browser: headless Chromium on the owner, while there is traffic.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::observed::ask;
use crate::cluster::plan::{Missing, Planned};
use crate::cluster::{Cluster, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::{self, output};
use crate::scenario::{Scenario, Test};
use crate::topology::VIP;
use crate::traffic::Traffic;

/// The program that opens the page.
const BROWSER: &str = "chromium-headless-shell";

pub(super) const SCENARIO: Scenario = Scenario {
    name: "page",
    promise: "page_shows_the_cluster_in_a_browser",
    tests: &[Test::netns_if(with_a_browser).alone()],
    run,
};

/// Set: the picture of the page is kept here.
const PICTURE: &str = "VIP_TESTS_PICTURE";

pub(super) fn with_a_browser() -> Planned {
    match process::find(BROWSER) {
        Some(_) => Ok(Plan::default()),
        None => Err(Missing(format!("no {BROWSER}"))),
    }
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("page");
    let owner = cluster.owner()?;
    let traffic = Traffic::start(cluster, timeline)?;
    let (code, source) = ask(cluster, owner, "/")?;
    ensure!(code == 200, "the page: {code}");
    for elsewhere in ["http://", "https://", "src=", "href="] {
        let ours = source.replace("http://www.w3.org/2000/svg", "");
        outcome.promise(!ours.contains(elsewhere), || {
            format!("the page has {elsewhere}: it must hold all it needs")
        });
    }

    // The page after some seconds of its own time, with the data that its script has fetched.
    let page = browse(
        cluster,
        owner,
        &["--dump-dom", "--virtual-time-budget=6000"],
    )?;
    let status = cluster.status(owner)?;
    for node in &status.nodes {
        outcome.promise(page.contains(&node.address.to_string()), || {
            format!("no {} in the page", node.address)
        });
    }
    let vip = format!("{VIP}:6443");
    for expected in [
        vip.as_str(),
        "★",
        "became the owner",
        "local syn",
        "<polyline",
        "this node",
        "Open connections",
        "backup",
    ] {
        outcome.promise(page.contains(expected), || {
            format!("no {expected:?} in the page:\n{page}")
        });
    }
    let untroubled = page.contains("id=\"trouble\" role=\"alert\" style=\"display: none;\"");
    outcome.promise(untroubled, || format!("the page has trouble:\n{page}"));
    let rates: Vec<&str> = page.matches("<polyline").collect();
    outcome.promise(rates.len() == status.nodes.len(), || {
        format!("{} rates for {} nodes", rates.len(), status.nodes.len())
    });
    timeline.event("the page shows owner, nodes, rates, events and frames");

    let picture = cluster.work().join("page.png");
    let argument = format!("--screenshot={}", picture.display());
    browse(
        cluster,
        owner,
        &[
            &argument,
            "--window-size=1280,720",
            "--virtual-time-budget=30000",
        ],
    )?;
    let size = std::fs::metadata(&picture)
        .context("a picture was taken")?
        .len();
    outcome.promise(size > 10_000, || format!("a picture of {size} bytes"));
    if let Some(keep) = std::env::var_os(PICTURE) {
        let keep = Path::new(&keep);
        std::fs::copy(&picture, keep).with_context(|| format!("write {}", keep.display()))?;
    }
    traffic.finish(&mut outcome, None)?;
    Ok(outcome)
}

/// Opens the page on a node, and returns what the browser prints.
fn browse(cluster: &Cluster, node: usize, arguments: &[&str]) -> Result<String> {
    open(cluster, node, arguments, "http://127.0.0.1:9643/")
}

/// Opens a document in a browser on a node, and returns what the browser prints.
pub(super) fn open(
    cluster: &Cluster,
    node: usize,
    arguments: &[&str],
    document: &str,
) -> Result<String> {
    let mut command: Command = cluster.host(node).command(BROWSER.as_ref());
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .arg("--disable-dev-shm-usage")
        .arg(format!(
            "--user-data-dir={}",
            cluster.work().join("browser").display()
        ))
        .args(arguments)
        .arg(document);
    output(&mut command)
}
