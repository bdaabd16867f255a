//! `vip top` in a terminal, by tmux, while there is traffic, a node that is drained, and an agent
//! that ends.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use vip_userspace::observe::status::Told;

use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::outcome::{Outcome, Timeline};
use crate::process::output;
use crate::scenario::{Scenario, Test};
use crate::topology::VIP;
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "top",
    promise: "top_shows_the_cluster_in_a_terminal_and_leaves_it_as_it_was",
    tests: &[Test::netns(Plan::default)],
    run,
};

/// What sparklines are drawn with.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("top");
    let owner = cluster.owner()?;
    let drained = super::steps::another_than(cluster, owner);
    let traffic = Traffic::start(cluster, timeline)?;
    let screen = Screen::open(cluster, owner, 150, 40)?;

    let title = format!("{VIP}:6443, as ");
    let own = format!("* {}", cluster.host(owner).address());
    let mut expected = vec![title.as_str(), "became the owner", own.as_str(), "q: quit"];
    let addresses: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| cluster.host(*node).address().to_string())
        .collect();
    expected.extend(addresses.iter().map(String::as_str));
    // The first rate is known after two answers of the agent; a sparkline is several of them.
    let text = screen.wait_for("vip top shows the cluster", |text| {
        let waved = |address: &String| {
            let mut lines = text.lines().filter(|line| line.contains(address));
            lines.any(|line| line.matches(BARS).count() >= 3)
        };
        expected.iter().all(|part| text.contains(part)) && addresses.iter().all(waved)
    })?;
    outcome.promise(!text.contains("no agent"), || {
        format!("vip top has trouble:\n{text}")
    });
    timeline.event("owner, nodes, rates and events are on the screen");

    // Any node has what the agents of all tell of themselves.
    let told = |cluster: &Cluster, what: &str, is: &dyn Fn(&[Told]) -> bool| {
        let what = format!("the owner shows {what}");
        until(&what, PATIENCE, || {
            let status = cluster.status(owner)?;
            let told: Option<Vec<Told>> =
                status.nodes.iter().map(|node| node.told.clone()).collect();
            Ok(told.is_some_and(|told| is(&told)).then_some(()))
        })
    };
    told(cluster, "each node's open connections", &|told| {
        let open = |told: &Told| told.open_connections.is_some_and(|open| open > 0);
        told.iter().all(open)
    })?;
    told(cluster, "one configuration", &|told| {
        let first = &told[0].configuration;
        first.is_some() && told.iter().all(|told| told.configuration == *first)
    })?;
    cluster.vip(drained, &["drain"])?;
    told(cluster, "which node drains", &|told| {
        let draining = told.iter().map(|told| told.draining);
        draining.eq(cluster.nodes().iter().map(|node| Some(*node == drained)))
    })?;
    let address = &addresses[drained];
    screen.wait_for("vip top shows the drain", |text| {
        text.lines()
            .any(|line| line.contains(address) && line.contains("drain"))
    })?;
    cluster.vip(drained, &["undrain"])?;
    cluster.wait_until_settled()?;
    traffic.finish(&mut outcome, None)?;
    timeline.event("a node that is drained is marked");

    cluster.stop_agent(owner)?;
    screen.wait_for("vip top says that the agent has ended", |text| {
        text.contains("is `vip run` running") && text.contains(&title)
    })?;
    cluster.start_agent(owner)?;
    screen.wait_for("vip top goes on with the next agent", |text| {
        text.contains("q: quit")
    })?;
    timeline.event("it outlives the agent");

    screen.tell(&["send-keys", "q"])?;
    let text = screen.wait_for("vip top ends", |text| text.contains("status 0"))?;
    outcome.promise(!text.contains(&title), || {
        format!("vip top leaves the screen as it was not:\n{text}")
    });
    timeline.event("q ends it, and the screen is as it was");
    cluster.wait_until_settled()?;
    Ok(outcome)
}

/// A terminal on a host. Dropped, it is gone, and what runs in it.
pub(super) struct Screen {
    /// Where tmux's server listens. Its clients need not be on the same host.
    socket: PathBuf,
}

impl Screen {
    /// Opens one of this size in which `vip top` runs, and then says how that ended.
    pub(super) fn open(cluster: &Cluster, node: usize, columns: u16, rows: u16) -> Result<Self> {
        let own = Self {
            socket: cluster.work().join(format!("tmux-{columns}")),
        };
        let vip = cluster.programs().vip.display();
        let script = format!("{vip} top; echo status $?; exec sleep infinity");
        let mut open = own.tmux(cluster.host(node).command("tmux".as_ref()));
        let (columns, rows) = (columns.to_string(), rows.to_string());
        open.args(["new-session", "-d", "-x", &columns, "-y", &rows, &script]);
        output(&mut open).context("open a terminal")?;
        Ok(own)
    }

    /// A command for this terminal and no other, with no settings of the machine's.
    fn tmux(&self, mut program: Command) -> Command {
        program.args(["-u", "-f", "/dev/null", "-S"]);
        program.arg(&self.socket);
        program
    }

    fn tell(&self, words: &[&str]) -> Result<String> {
        output(self.tmux(Command::new("tmux")).args(words))
    }

    /// Waits until the screen shows something, and returns all that it shows.
    pub(super) fn wait_for(&self, what: &str, shows: impl Fn(&str) -> bool) -> Result<String> {
        let mut last = String::new();
        let waited = until(what, PATIENCE, || {
            last = self.tell(&["capture-pane", "-p"])?;
            Ok(shows(&last).then(|| last.clone()))
        });
        waited.with_context(|| format!("the screen shows:\n{last}"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If it has ended already, there is nothing to end.
        let _ = self.tell(&["kill-server"]);
    }
}
