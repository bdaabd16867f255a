//! `vip man`: the manual pages, from what `--help` says.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::error::BadInput;
use super::exit;
use super::output::tell;

/// Files that the manual names, and what is in them.
const FILES: &[(&str, &str)] = &[
    (
        "/etc/vip/vip.toml",
        "the configuration file, if there is one",
    ),
    (
        "/etc/vip/key",
        "the key that the agents of a cluster share, if there is one",
    ),
    (
        "/run/vip",
        "the agent's run directory: its socket, its lock, its notes",
    ),
    (
        "/var/lib/vip",
        "the agent's state directory: the last events, the members, whether the node is drained",
    ),
    (
        "/sys/fs/bpf/vip",
        "the eBPF programs and maps, which outlive the agent",
    ),
];

/// Examples of a command, each with what it does.
fn examples(command: &str) -> &'static [(&'static str, &'static str)] {
    match command {
        "" => &[
            (
                "vip check --vip 10.0.0.10:6443",
                "Find out whether this machine can be a node.",
            ),
            (
                "vip manifest --vip 10.0.0.10:6443 --output /etc/kubernetes/manifests/vip.yaml",
                "Install the agent as a static pod.",
            ),
            ("vip status", "Show the owner of the VIP and all nodes."),
        ],
        "run" => &[
            (
                "vip run --vip 10.0.0.10:6443",
                "Run the agent; the agents find each other.",
            ),
            (
                "vip run --config /etc/vip/vip.toml",
                "The same, from a file.",
            ),
        ],
        "status" => &[
            (
                "vip status --wait --timeout 5m",
                "Wait until the cluster is healthy.",
            ),
            ("vip status -o json", "Print all figures for a program."),
        ],
        "events" => &[
            ("vip events --since 1h", "What happened in the last hour."),
            (
                "vip events -n 20 --severity warning",
                "The last 20 warnings and errors.",
            ),
            (
                "vip events --follow -o json",
                "Each new event as a line of JSON.",
            ),
        ],
        "check" => &[
            (
                "vip check --config /etc/vip/vip.toml",
                "Check the file and this machine.",
            ),
            (
                "vip check --config-only --config vip.toml",
                "Check the file alone, in CI.",
            ),
        ],
        "manifest" => &[
            (
                "vip manifest --from /etc/vip/vip.toml --output /etc/kubernetes/manifests/vip.yaml",
                "The static pod for this configuration file.",
            ),
            (
                "vip manifest --vip 10.0.0.10:6443 --systemd",
                "A systemd unit instead.",
            ),
        ],
        "drain" => &[(
            "vip drain --cut --after 60s",
            "Drain the node, and reset what is left after 60 s.",
        )],
        "cleanup" => &[("vip cleanup --dry-run", "List what would be removed.")],
        "key" => &[(
            "vip key --output /etc/vip/key",
            "Make the key of a cluster.",
        )],
        _ => &[],
    }
}

/// Writes a page for `vip` and one for each command into a directory, which is made if it is not there.
pub(super) fn run(mut command: Command, output: &Path) -> anyhow::Result<ExitCode> {
    if output.exists() && !output.is_dir() {
        let message = format!(
            "--output {}: this is no directory; name one",
            output.display()
        );
        return Err(BadInput(message).into());
    }
    fs::create_dir_all(output).with_context(|| format!("cannot make {}", output.display()))?;
    command.build();
    let names: Vec<String> = listed(&command)
        .map(|one| page_name(one.get_name()))
        .collect();
    let mut written = vec![write(output, &command, "", &names)?];
    for one in listed(&command) {
        written.push(write(output, one, one.get_name(), &names)?);
    }
    for path in written {
        tell(path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The commands that have a page.
fn listed(command: &Command) -> impl Iterator<Item = &Command> {
    let commands = command.get_subcommands();
    commands.filter(|one| one.get_name() != "help" && !one.is_hide_set())
}

/// The name of the page of a command; that of `vip` itself if it is empty.
fn page_name(command: &str) -> String {
    match command {
        "" => "vip".to_owned(),
        command => format!("vip-{command}"),
    }
}

fn write(
    folder: &Path,
    command: &Command,
    name: &str,
    names: &[String],
) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{}.1", page_name(name)));
    let text = page(command, name, names).context("cannot make a page")?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn page(command: &Command, name: &str, names: &[String]) -> io::Result<Vec<u8>> {
    let title = page_name(name);
    let man = Man::new(command.clone().disable_help_subcommand(true));
    let mut text = Vec::new();
    // By hand: `Man` leaves the date out, and so moves what follows it. A date would make each build
    // another one.
    let (title_there, version) = (title.to_uppercase(), env!("CARGO_PKG_VERSION"));
    writeln!(text, r#".TH {title_there} 1 "" "vip {version}" "vip""#)?;
    let mut head = Roff::new();
    let about = command.get_about().map(ToString::to_string);
    let about = about.unwrap_or_default();
    head.control("SH", ["NAME"]);
    head.text([roman(format!("{title} - {}", about.trim_end_matches('.')))]);
    head.to_writer(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut text)?;
    }
    let mut rest = Roff::new();
    if name.is_empty() {
        rest.control("SH", ["COMMANDS"]);
        for one in listed(command) {
            let about = one.get_about().map(ToString::to_string);
            rest.control("TP", []);
            rest.text([bold(page_name(one.get_name())), roman("(1)")]);
            rest.text([roman(about.unwrap_or_default())]);
        }
    } else if let Some(more) = command.get_after_help() {
        rest.control("SH", ["NOTES"]);
        rest.control("nf", []);
        for line in more.to_string().lines() {
            rest.text([roman(line)]);
        }
        rest.control("fi", []);
    }
    rest.control("SH", ["EXIT STATUS"]);
    for (exit, meaning) in exit::statuses(name) {
        rest.control("TP", []);
        rest.text([bold(exit.number().to_string())]);
        rest.text([roman(meaning)]);
    }
    rest.control("SH", ["FILES"]);
    for (file, what) in FILES {
        rest.control("TP", []);
        rest.text([bold(*file)]);
        rest.text([roman(*what)]);
    }
    if !examples(name).is_empty() {
        rest.control("SH", ["EXAMPLES"]);
    }
    for (line, does) in examples(name) {
        rest.control("TP", []);
        rest.text([bold(*line)]);
        rest.text([roman(*does)]);
    }
    rest.control("SH", ["SEE ALSO"]);
    let all = std::iter::once("vip").chain(names.iter().map(String::as_str));
    let mut line = Vec::new();
    for other in all.filter(|other| *other != title) {
        if !line.is_empty() {
            line.push(roman(", "));
        }
        line.extend([bold(other), roman("(1)")]);
    }
    rest.text(line);
    rest.to_writer(&mut text)?;
    Ok(text)
}
