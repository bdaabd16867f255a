//! What an operator sees: `vip status`, `vip top` and the status page, while all is well, and while
//! something is not. Nothing is cut off in a narrow terminal or on a phone.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::observed::ask;
use super::page;
use super::top::Screen;
use crate::cluster::Cluster;
use crate::outcome::{Outcome, Timeline};
use crate::process::Process;
use crate::scenario::{Scenario, Test};
use crate::topology::{VIP, mac};
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "views",
    promise: "views_say_what_is_wrong_in_any_width",
    tests: &[Test::netns_if(page::with_a_browser).alone()],
    run,
};

/// Set: pictures and texts of each state are kept in this folder.
const PICTURES: &str = "VIP_TESTS_VIEWS";

/// Widths of terminals, and their heights.
const TERMINALS: [(u16, u16); 3] = [(60, 24), (80, 24), (160, 40)];

/// A phone and a desk: width and height in pixels.
const WINDOWS: [(u32, u32); 2] = [(390, 3400), (1280, 1500)];

/// Added to the page: instead of asking an agent, it shows what one has said, and then notes how wide
/// it is, and by how much a table is wider than its frame.
const PROBE: &str = "<script>window.fetch = async path => new Response(path.startsWith('status') ? \
    STATUS : EVENTS); setTimeout(() => { const over = [...document.querySelectorAll('section')].map(\
    box => box.scrollWidth - box.clientWidth); document.body.dataset.wide = Math.max(0, ...over) + \
    document.documentElement.scrollWidth + ' in ' + window.innerWidth; }, 2500);</script>";

/// What must be seen.
struct State<'a> {
    /// Part of file names.
    name: &'a str,
    /// The verdict.
    verdict: &'a str,
    /// By address: the word for a node.
    words: Vec<(String, &'a str)>,
    /// In all views.
    texts: &'a [&'a str],
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(SCENARIO.name);
    let owner = cluster.owner()?;
    let others = super::steps::others_than(cluster, owner);
    let (backup, third) = (others[0], others[1]);
    let addresses: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| cluster.host(*node).address().to_string())
        .collect();
    let all = |word| -> Vec<(String, &str)> {
        addresses
            .iter()
            .map(|address| (address.clone(), word))
            .collect()
    };
    let but = |node: usize, word, rest| {
        let mut words = all(rest);
        words[node].1 = word;
        words
    };
    let traffic = Traffic::start(cluster, timeline)?;
    cluster.wait_for_status(
        "nodes tell of open connections",
        &[owner],
        |_, _, status| {
            status.problems().is_empty()
                && status.nodes.iter().all(|node| {
                    let told = node.told.as_ref();
                    told.is_some_and(|told| told.open_connections.is_some_and(|open| open > 0))
                })
        },
    )?;
    let normal = State {
        name: "normal",
        verdict: "HEALTHY",
        words: all("ready"),
        texts: &[],
    };
    look(cluster, owner, &normal, &mut outcome)?;

    cluster.vip(third, &["drain"])?;
    let wanted = addresses[third].clone();
    wait_for_word(cluster, owner, &wanted, "drained")?;
    let drained = State {
        name: "drained",
        verdict: "DEGRADED",
        words: but(third, "drained", "ready"),
        texts: &["is drained"],
    };
    look(cluster, owner, &drained, &mut outcome)?;
    cluster.vip(third, &["undrain"])?;
    cluster.wait_until_settled()?;
    timeline.event("a node that is drained is seen");

    let etcd = cluster.topology.etcd.as_ref();
    let testbed = cluster.programs().testbed.as_os_str();
    let vip = VIP.to_string();
    // Whoever claims it takes clients away.
    traffic.finish(&mut outcome, None)?;
    // Until the pictures are made, however long that takes.
    let log = cluster.work().join("claimant.log");
    let mut claim = etcd.command(testbed);
    claim.args(["claim", "--endless", "--vip", &vip]);
    let mut claimant = Process::daemon("claimant", &mut claim, &log)?;
    let mac = mac(etcd)?;
    let mac = mac.as_str();
    cluster.wait_for_status("the owner names the stranger", &[owner], |_, _, status| {
        status.claimant.as_deref() == Some(mac)
    })?;
    let conflict = State {
        name: "conflict",
        verdict: "DEGRADED",
        words: all("ready"),
        texts: &["claims the VIP", mac],
    };
    look(cluster, owner, &conflict, &mut outcome)?;
    claimant.kill_and_reap();
    cluster.wait_for_status("the claim is of the past", &[owner], |_, _, status| {
        status.claimant.is_none() && status.problems().is_empty()
    })?;
    let text = cluster.vip(owner, &["status"])?;
    let is_past = text.contains("HEALTHY") && text.contains("it is over");
    outcome.promise(is_past, || format!("the claim is no past one:\n{text}"));
    timeline.event("a conflict is seen, then as a past one");

    for node in cluster.nodes() {
        cluster.signal_server(node, Signal::SIGSTOP);
    }
    for address in &addresses {
        wait_for_word(cluster, owner, address, "hung")?;
    }
    cluster.wait_for_status("no server answers", &[owner], |_, _, status| {
        status.verdict.starts_with("down")
    })?;
    let hung = State {
        name: "hung",
        verdict: "DOWN",
        words: all("hung"),
        texts: &["no server answers"],
    };
    look(cluster, owner, &hung, &mut outcome)?;
    for node in cluster.nodes() {
        cluster.signal_server(node, Signal::SIGCONT);
    }
    cluster.wait_until_settled()?;
    timeline.event("servers that hang are seen");

    cluster.power_off(owner)?;
    wait_for_word(cluster, backup, &addresses[owner], "gone")?;
    let next = cluster.owner()?;
    let dead = State {
        name: "dead",
        verdict: "DEGRADED",
        words: but(owner, "gone", "ready"),
        texts: &["is no longer heard"],
    };
    look(cluster, next, &dead, &mut outcome)?;
    timeline.event("a dead node is seen");

    name_nodes(cluster)?;
    let next = cluster.owner()?;
    let names = (0..cluster.topology.nodes.len()).map(|node| format!("000{node}"));
    let names: Vec<String> = names.collect();
    let mut words: Vec<(String, &str)> = names.iter().map(|name| (name.clone(), "ready")).collect();
    words[owner].1 = "gone";
    cluster.wait_for_status("the dead node is gone", &[next], |_, _, status| {
        let mut nodes = status.nodes.iter();
        nodes.any(|node| node.state().text() == "gone")
    })?;
    let long = State {
        name: "names",
        verdict: "DEGRADED",
        words,
        texts: &[],
    };
    look(cluster, next, &long, &mut outcome)?;
    timeline.event("names of 46 letters can be told apart");
    Ok(outcome)
}

/// Gives all nodes names that are longer than any column.
fn name_nodes(cluster: &mut Cluster) -> Result<()> {
    let mut config = cluster.config()?;
    for node in 0..cluster.topology.nodes.len() {
        let address = cluster.host(node).address();
        let named = format!(
            "{{ address = \"{address}\", name = \"prod-control-plane-rack-a-000{node}.dc1.example.net\" }}"
        );
        config = config.replacen(&format!("\"{address}\""), &named, 1);
    }
    let nodes = cluster.nodes_with_agent();
    for &node in &nodes {
        cluster.stop_agent(node)?;
    }
    cluster.set_config(&config)?;
    for &node in &nodes {
        cluster.start_agent(node)?;
    }
    cluster.wait_until_settled()
}

fn wait_for_word(cluster: &mut Cluster, at: usize, address: &str, word: &str) -> Result<()> {
    let what = format!("{address} is {word}");
    cluster.wait_for_status(&what, &[at], |_, _, status| {
        let mut nodes = status.nodes.iter();
        nodes.any(|node| node.address.to_string() == address && node.state().text() == word)
    })
}

/// Looks at all views, and keeps them if that is wanted.
fn look(cluster: &Cluster, node: usize, state: &State<'_>, outcome: &mut Outcome) -> Result<()> {
    let folder = std::env::var_os(PICTURES).map(PathBuf::from);
    let keep = |name: String, text: &str| match &folder {
        Some(folder) => {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        }
        None => Ok(()),
    };
    let text = cluster.vip(node, &["status"])?;
    keep(format!("{}-status-80.txt", state.name), &text)?;
    judge(state, "vip status", 80, &text, outcome);
    let wide = cluster.vip(node, &["status", "-o", "wide"])?;
    keep(format!("{}-status-wide.txt", state.name), &wide)?;
    for (columns, rows) in TERMINALS {
        let screen = Screen::open(cluster, node, columns, rows)?;
        let text = screen.wait_for("vip top shows the cluster", |text| {
            text.contains(state.verdict) && text.contains("EVENTS")
        })?;
        keep(format!("{}-top-{columns}.txt", state.name), &text)?;
        judge(state, "vip top", columns.into(), &text, outcome);
    }
    for (width, height) in WINDOWS {
        judge_page(cluster, node, state, width, outcome)?;
        if let Some(folder) = &folder {
            let name = format!("{}-page-{width}.png", state.name);
            picture(cluster, node, &folder.join(name), (width, height), &[])?;
        }
    }
    if let Some(folder) = &folder {
        let dark = ["--blink-settings=preferredColorScheme=0"];
        let name = format!("{}-page-dark.png", state.name);
        picture(cluster, node, &folder.join(name), WINDOWS[1], &dark)?;
    }
    Ok(())
}

/// The verdict, the word for each node in its row, and no line that is too long.
fn judge(state: &State<'_>, view: &str, width: usize, text: &str, outcome: &mut Outcome) {
    let lines = || text.lines();
    let mut bad = |what: String| {
        outcome.promise(false, || {
            format!("{}: {view} at {width}: {what}:\n{text}", state.name)
        });
    };
    if !text.contains(state.verdict) {
        bad(format!("no {}", state.verdict));
    }
    if let Some(line) = lines().find(|line| line.chars().count() > width) {
        bad(format!("a line is too long: {line:?}"));
    }
    for (about, word) in &state.words {
        let rows = lines().skip_while(|line| !line.contains("NODE"));
        let mut rows = rows.filter(|line| line.contains(about));
        if !rows.any(|line| line.contains(word)) {
            bad(format!("{about} is not {word}"));
        }
    }
    let all: Vec<&str> = text.split_whitespace().collect();
    let all = all.join(" ");
    for wanted in state.texts {
        // A low terminal has the rows of the nodes, and not all problems.
        if view == "vip status" && !all.contains(wanted) {
            bad(format!("no {wanted:?}"));
        }
    }
}

/// The same on the page, which must not be wider than its window.
fn judge_page(
    cluster: &Cluster,
    node: usize,
    state: &State<'_>,
    width: u32,
    outcome: &mut Outcome,
) -> Result<()> {
    let [page, status, events] =
        ["/", "/status.json", "/events.json"].map(|path| -> Result<String> {
            let (code, text) = ask(cluster, node, path)?;
            ensure!(code == 200, "{path}: {code}");
            Ok(text)
        });
    let quoted =
        |text: String| serde_json::to_string(&text).map(|text| text.replace('<', "\\u003c"));
    let probe = PROBE
        .replace("STATUS", &quoted(status?)?)
        .replace("EVENTS", &quoted(events?)?);
    let document = cluster.work().join("page.html");
    let page = page?.replacen("<body>", &format!("<body>{probe}"), 1);
    std::fs::write(&document, page).context("write the page")?;
    let size = format!("--window-size={width},900");
    let shown = page::open(
        cluster,
        node,
        &["--dump-dom", "--virtual-time-budget=6000", &size],
        &format!("file://{}", document.display()),
    )?;
    let wide = shown.split("data-wide=\"").nth(1);
    let wide = wide.and_then(|text| text.split('"').next());
    let (needs, has) = wide
        .and_then(|text| text.split_once(" in "))
        .with_context(|| format!("the page notes how wide it is:\n{shown}"))?;
    let (needs, has): (u32, u32) = (needs.parse()?, has.parse()?);
    ensure!(has == width, "a window of {has} pixels and not {width}");
    outcome.promise(needs <= has, || {
        format!("{}: the page needs {needs} of {has} pixels", state.name)
    });
    // The script is in it, too.
    let shown = shown.split("<header>").nth(1).unwrap_or_default();
    let body = shown.split("<script>").next().unwrap_or_default();
    for wanted in state.texts.iter().copied().chain([state.verdict]) {
        outcome.promise(body.contains(wanted), || {
            format!("{}: no {wanted:?} on the page:\n{body}", state.name)
        });
    }
    for (about, word) in &state.words {
        let rows = body.split("<tr").filter(|row| row.contains(about.as_str()));
        let mut states = rows.filter(|row| row.contains("state\""));
        outcome.promise(states.any(|row| row.contains(&format!(">{word}<"))), || {
            format!("{}: {about} is not {word} on the page:\n{body}", state.name)
        });
    }
    Ok(())
}

/// Takes a picture of the page.
fn picture(
    cluster: &Cluster,
    node: usize,
    to: &Path,
    (width, height): (u32, u32),
    more: &[&str],
) -> Result<()> {
    let file = format!("--screenshot={}", to.display());
    let size = format!("--window-size={width},{height}");
    let mut arguments = vec![file.as_str(), &size, "--virtual-time-budget=20000"];
    arguments.extend(more);
    page::open(cluster, node, &arguments, "http://127.0.0.1:9643/").map(drop)
}
