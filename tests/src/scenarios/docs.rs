//! The commands in the documentation, in its order, on a cluster with its addresses.
//!
//! A block of commands says after `sh` where it runs and what must come of it:
//!
//! | word | meaning |
//! |---|---|
//! | `on=cp1`, `on=cp1,cp3`, `on=all`, `on=client`, `on=owner` | where; cp1 if it is not said |
//! | `until` | again and again until it succeeds |
//! | `exit=1` | it must end with this status |
//! | `for=2` | it goes on by itself, and is ended after so many seconds |
//! | `needs=kubeadm` | it is skipped where this program is not (`systemd`: was not booted) |
//! | `by=hand` | it is skipped: what it does is no matter of a cluster |
//!
//! A reader of the documentation has a kubelet. Here it is [`kubelet`], which
//! looks at the nodes' manifests after each block.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::container;
use crate::clock::until;
use crate::cluster::{Cluster, PATIENCE};
use crate::kubelet::{self, Containerd, Pod};
use crate::outcome::{Outcome, Timeline};
use crate::process::{self, output};
use crate::scenario::{Scenario, Test};
use crate::topology::Host;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "docs",
    promise: "docs_are_followed_command_by_command",
    tests: &[Test::netns_if(container::with_the_image).alone()],
    run,
};

/// The pages, in the order in which somebody follows them.
const PAGES: &[(&str, &str)] = &[
    ("quickstart.md", include_str!("../../../docs/quickstart.md")),
    (
        "troubleshooting.md",
        include_str!("../../../docs/troubleshooting.md"),
    ),
    ("firewall.md", include_str!("../../../docs/firewall.md")),
    ("platforms.md", include_str!("../../../docs/platforms.md")),
    ("migrate.md", include_str!("../../../docs/migrate.md")),
    ("operations.md", include_str!("../../../docs/operations.md")),
    (
        "configuration.md",
        include_str!("../../../docs/configuration.md"),
    ),
    ("README.md", include_str!("../../../README.md")),
];

/// Where the kubelet looks.
const MANIFEST: &str = "/etc/kubernetes/manifests/vip.yaml";

/// A block of commands.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    page: &'static str,
    line: usize,
    on: String,
    repeats: bool,
    status: i32,
    seconds: Option<u64>,
    needs: Option<String>,
    by_hand: bool,
    commands: String,
}

impl Block {
    fn location(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }

    /// Why it cannot be run here.
    fn hindrance(&self) -> Option<String> {
        let missing = self.needs.as_deref().filter(|needs| !is_there(needs));
        let missing = missing.map(|needs| format!("there is no {needs}"));
        missing.or_else(|| self.by_hand.then(|| "it is run by hand".to_owned()))
    }
}

/// The blocks of a page.
fn blocks(page: &'static str, text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(words) = line.strip_prefix("```") else {
            continue;
        };
        let content = lines.by_ref().map(|(_, line)| line);
        let content: Vec<&str> = content.take_while(|line| *line != "```").collect();
        let mut words = words.split_whitespace();
        let language = words.next();
        ensure!(
            !matches!(language, None | Some("console" | "bash" | "shell")),
            "{page}:{}: a block of {language:?} would not be run; write sh, or what else it is",
            number + 1
        );
        if language != Some("sh") {
            continue;
        }
        let mut block = Block {
            page,
            line: number + 1,
            on: "cp1".to_owned(),
            repeats: false,
            status: 0,
            seconds: None,
            needs: None,
            by_hand: false,
            commands: content.join("\n") + "\n",
        };
        for word in words {
            match word.split_once('=') {
                Some(("on", value)) => block.on = value.to_owned(),
                Some(("exit", value)) => block.status = value.parse().context(word.to_owned())?,
                Some(("for", value)) => {
                    block.seconds = Some(value.parse().context(word.to_owned())?);
                }
                Some(("needs", value)) => block.needs = Some(value.to_owned()),
                Some(("by", "hand")) => block.by_hand = true,
                None if word == "until" => block.repeats = true,
                _ => bail!("{}: what is `{word}`?", block.location()),
            }
        }
        blocks.push(block);
    }
    Ok(blocks)
}

/// A node's kubelet.
struct Node {
    containerd: Containerd,
    /// The manifest of what runs.
    manifest: Option<String>,
}

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new("docs");
    let downloads = downloads(cluster)?;
    let mut nodes = Vec::new();
    for node in cluster.nodes() {
        let host = cluster.host(node);
        kubelet::boot(host, cluster.work(), &["/etc", "/usr/local", "/var/lib"])?;
        nodes.push(Node {
            containerd: Containerd::start(host, cluster.work())?,
            manifest: None,
        });
        // As kubeadm leaves it; the agents must not mind when that is.
        let mut make = host.command("install".as_ref());
        let ca = cluster.pki().ca();
        output(
            make.args(["-D", "-m", "644"])
                .arg(ca)
                .arg("/etc/kubernetes/pki/ca.crt"),
        )?;
    }
    let mut count = 0;
    for (page, text) in PAGES {
        for block in blocks(page, text)? {
            if let Some(reason) = block.hindrance() {
                eprintln!("SKIPPED {}: {reason}", block.location());
                continue;
            }
            if let Err(error) = carry_out(cluster, &nodes, &downloads, &block) {
                outcome.promise(false, || format!("{}: {error:#}", block.location()));
                return Ok(outcome);
            }
            count += 1;
            for (number, node) in nodes.iter_mut().enumerate() {
                sync(cluster, number, node)
                    .with_context(|| format!("the kubelet after {}", block.location()))?;
            }
        }
        timeline.event(format!("{page}: all that can be run here was"));
    }
    outcome.promise(count > 15, || format!("only {count} blocks were run"));
    Ok(outcome)
}

/// A folder with what a release has, to stand in while commands run.
fn downloads(cluster: &Cluster) -> Result<PathBuf> {
    let folder = cluster.work().join("downloads");
    std::fs::create_dir_all(&folder).context("make a folder for downloads")?;
    let binary = format!("vip-0-linux-{}", std::env::consts::ARCH);
    let image = container::image().context("no image: run cargo xtask test")?;
    for (from, to) in [
        (&cluster.programs().vip, binary.as_str()),
        (&image, "vip-0.oci.tar"),
    ] {
        let to = folder.join(to);
        std::fs::copy(from, &to).with_context(|| format!("copy {}", from.display()))?;
    }
    Ok(folder)
}

fn is_there(program: &str) -> bool {
    if program == "systemd" {
        return Path::new("/run/systemd/system").is_dir();
    }
    process::find(program).is_some()
}

fn carry_out(cluster: &mut Cluster, nodes: &[Node], downloads: &Path, block: &Block) -> Result<()> {
    let numbers = match block.on.as_str() {
        "all" => cluster.nodes(),
        "owner" => vec![cluster.owner()?],
        "client" => vec![],
        names => names
            .split(',')
            .map(|name| {
                let number = name
                    .strip_prefix("cp")
                    .and_then(|number| number.parse().ok());
                number
                    .and_then(|number: usize| number.checked_sub(1))
                    .filter(|number| *number < nodes.len())
                    .with_context(|| format!("no node {name}"))
            })
            .collect::<Result<_>>()?,
    };
    let cluster = &*cluster;
    if numbers.is_empty() {
        return run_on(cluster.topology.client.as_ref(), None, downloads, block);
    }
    numbers.into_iter().try_for_each(|node| {
        let host = cluster.host(node);
        let containerd = Some(&nodes[node].containerd);
        run_on(host, containerd, downloads, block).with_context(|| format!("on cp{}", node + 1))
    })
}

fn run_on(
    host: &dyn Host,
    containerd: Option<&Containerd>,
    downloads: &Path,
    block: &Block,
) -> Result<()> {
    let once = || -> Result<()> {
        let mut command = match block.seconds {
            None => host.command("sh".as_ref()),
            Some(seconds) => {
                let mut command = host.command("timeout".as_ref());
                command.args([&seconds.to_string(), "sh"]);
                command
            }
        };
        if let Some(containerd) = containerd {
            command.env("CONTAINERD_ADDRESS", containerd.socket());
        }
        // Hosts begin in `/`.
        let script = format!("cd {} && set -e\n{}", downloads.display(), block.commands);
        command.args(["-c", &script]).stdin(Stdio::null());
        let done = finish(&mut command)?;
        // What timeout(1) says when it has ended a command.
        let wanted = block.seconds.map_or(block.status, |_| 124);
        ensure!(
            done.0 == Some(wanted),
            "status {:?} instead of {wanted}:\n{}{}",
            done.0,
            block.commands,
            done.1
        );
        Ok(())
    };
    if block.repeats {
        let mut last = String::new();
        let waited = until(&block.location(), PATIENCE, || match once() {
            Ok(()) => Ok(Some(())),
            Err(error) => {
                last = format!("{error:#}");
                Ok(None)
            }
        });
        waited.map(drop).with_context(|| last)
    } else {
        once()
    }
}

/// Status and output.
fn finish(command: &mut Command) -> Result<(Option<i32>, String)> {
    let done = command.output().context("start sh")?;
    let text = [done.stdout, done.stderr].concat();
    Ok((
        done.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

/// What the kubelet does when a manifest has come, changed or gone.
fn sync(cluster: &mut Cluster, number: usize, node: &mut Node) -> Result<()> {
    let host = cluster.host(number);
    let manifest = output(host.command("cat".as_ref()).arg(MANIFEST)).ok();
    if manifest == node.manifest {
        return Ok(());
    }
    cluster.stop_agent(number)?;
    if let Some(text) = &manifest {
        let host = cluster.host(number);
        let log = cluster.agent_log(number);
        let process = node.containerd.run(host, &Pod::parse(text)?, &log)?;
        cluster.adopt_agent(number, process);
    }
    node.manifest = manifest;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_page_with_commands_is_left_out() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        for entry in std::fs::read_dir(folder).expect("the documentation") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.extension().is_none_or(|extension| extension != "md")
                || PAGES.iter().any(|(page, _)| *page == name)
            {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("readable");
            let found = blocks("page.md", &text).expect("well-formed");
            assert!(found.is_empty(), "{name} has commands and is not run");
        }
    }

    #[test]
    fn blocks_say_where_they_run_and_others_are_left_out() {
        let text = "a\n```toml\nx = 1\n```\n```sh on=cp2,cp3 until\nvip status\n```\n";
        let found = blocks("page.md", text).expect("well-formed");
        assert_eq!(found.len(), 1);
        let block = &found[0];
        assert_eq!((block.line, block.on.as_str()), (5, "cp2,cp3"));
        assert!(block.repeats && block.commands == "vip status\n");
        assert!(blocks("page.md", "```sh off=cp1\n```\n").is_err(), "a slip");
        assert!(
            blocks("page.md", "```console\n```\n").is_err(),
            "it would not run"
        );
    }
}
