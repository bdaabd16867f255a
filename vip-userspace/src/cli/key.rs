//! `vip key`: makes the key of a cluster, and changes it.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use nix::sys::stat::{SFlag, fstat};
use vip_node::seal::{Entry, Fingerprint, KeyFile, KeyRing, Secret};
use zeroize::Zeroizing;

use super::error::BadInput;
use super::output::{complain, print, print_line, tell};
use crate::files;
use crate::key_file::{self, MODE, Read};
use crate::random;

/// What to do; nothing of it: print a new file.
#[derive(clap::Args)]
#[group(multiple = false)]
#[command(after_help = STEPS)]
pub(super) struct Options {
    /// Write the new file instead of printing it, for its owner alone; a file that is there is
    /// left alone
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the fingerprints of the keys in a file
    #[arg(long, value_name = "FILE")]
    fingerprint: Option<PathBuf>,
    /// Begin a change of the key: add a new one to the file as the second
    #[arg(long, value_name = "FILE")]
    add: Option<PathBuf>,
    /// Let the second key of the file be the first
    #[arg(long, value_name = "FILE")]
    swap: Option<PathBuf>,
    /// End a change of the key: remove the second one from the file
    #[arg(long, value_name = "FILE")]
    retire: Option<PathBuf>,
}

const STEPS: &str = "\
The file has one key or two. The first one seals, both are accepted. So the key is changed without \
an interruption in three steps:

  1. vip key --add FILE
  2. vip key --swap FILE
  3. vip key --retire FILE

Run each on one machine. Then copy the file to all nodes, and run `vip reload` on each. Begin the \
next step when all nodes have the file of the last one.";

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(path) = &options.fingerprint {
        let keys = key_file::keys(path)?;
        print_line(format_args!("{}  seals, accepted", keys.current()))?;
        if let Some(other) = keys.other() {
            print_line(format_args!("{other}  accepted"))?;
        }
    } else if let Some(path) = &options.add {
        add(path)?;
    } else if let Some(path) = &options.swap {
        swap(path)?;
    } else if let Some(path) = &options.retire {
        retire(path)?;
    } else {
        let secret = new()?;
        match options.output.as_deref() {
            Some(path) if path != Path::new("-") => create(path, &secret)?,
            Some(_) | None => {
                warn_of_readers();
                print(new_file(&secret).as_str())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn new() -> anyhow::Result<Secret> {
    let bytes = random::bytes().context("the kernel gives no random bytes")?;
    Ok(Secret::new(bytes))
}

/// A file with one key.
fn new_file(secret: &Secret) -> Zeroizing<String> {
    let head = "# The key of a cluster: the same file on all nodes, readable for root alone.\n";
    Zeroizing::new([head, &key_line(secret)].concat())
}

/// The line of a key. Its fingerprint stays with it when lines are swapped.
fn key_line(secret: &Secret) -> Zeroizing<String> {
    let (text, fingerprint) = (secret.text(), secret.fingerprint().to_string());
    Zeroizing::new([text.as_str(), "  # fingerprint ", &fingerprint, "\n"].concat())
}

/// The shell has made a file that others can read, which no agent would take.
fn warn_of_readers() {
    let out = io::stdout();
    if out.is_terminal() {
        return;
    }
    let shared = fstat(out.as_fd()).is_ok_and(|file| {
        let is_file = file.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
        is_file && file.st_mode & 0o077 != 0
    });
    if shared {
        complain(
            "others can read the file that this is written to: run `chmod 600` on it, or use --output",
        );
    }
}

fn create(path: &Path, secret: &Secret) -> anyhow::Result<()> {
    let shown = path.display();
    files::create(path, &new_file(secret), MODE).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BadInput(format!(
            "--output {shown}: it is there already and may have the key of a cluster; name another file, or \
             see `vip key --add FILE`"
        ))
        .into(),
        io::ErrorKind::NotFound => BadInput(format!(
            "--output {shown}: there is no such directory; make it first"
        ))
        .into(),
        _ => anyhow::Error::from(error).context(format!("cannot write {shown}")),
    })?;
    tell(format_args!(
        "{shown} has the new key {}; copy it to all nodes, and name it with --key-file",
        secret.fingerprint()
    ));
    Ok(())
}

/// What follows each step.
const EVERYWHERE: &str = "copy the file to all nodes, and run `vip reload` on each";

fn add(path: &Path) -> anyhow::Result<()> {
    let Read { text, file, mode } = key_file::read(path)?;
    let shown = path.display();
    let KeyFile { first, second } = file;
    if let Some(second) = second {
        let (first, second) = (first.secret.fingerprint(), second.secret.fingerprint());
        let message = format!(
            "{shown}: there are two keys already, {first} and {second}; end that change first (`vip key \
             --retire {shown}` removes the second)"
        );
        return Err(BadInput(message).into());
    }
    let old = first.secret;
    let secret = loop {
        let secret = new()?;
        // One in 256 has the old one's key id for BFD.
        if KeyRing::new(&old, Some(&secret)).is_ok() {
            break secret;
        }
    };
    let line = key_line(&secret);
    let lines = text.lines().chain(line.lines());
    replace(path, lines, mode)?;
    let (old, new) = (old.fingerprint(), secret.fingerprint());
    tell(format_args!(
        "{shown}: {old} seals, and the new key {new} is accepted; {EVERYWHERE}; then: vip key --swap {shown}"
    ));
    Ok(())
}

fn swap(path: &Path) -> anyhow::Result<()> {
    let [old, new] = edit(path, |lines, first, second| lines.swap(first, second))?;
    let shown = path.display();
    tell(format_args!(
        "{shown}: {new} seals, and {old} is accepted; {EVERYWHERE}; then: vip key --retire {shown}"
    ));
    Ok(())
}

fn retire(path: &Path) -> anyhow::Result<()> {
    let [kept, gone] = edit(path, |lines, _, second| {
        lines.remove(second);
    })?;
    let shown = path.display();
    tell(format_args!(
        "{shown}: {kept} seals, and {gone} is accepted no more; {EVERYWHERE}"
    ));
    Ok(())
}

/// Changes the lines of a file with two keys; `change` gets the places of the two. Returns the keys'
/// fingerprints, in the order in which they were.
fn edit(
    path: &Path,
    change: impl FnOnce(&mut Vec<&str>, usize, usize),
) -> anyhow::Result<[Fingerprint; 2]> {
    let Read { text, file, mode } = key_file::read(path)?;
    let (first, second) = both(path, file)?;
    let mut lines: Vec<&str> = text.lines().collect();
    change(&mut lines, first.line - 1, second.line - 1);
    replace(path, lines, mode)?;
    Ok([first.secret.fingerprint(), second.secret.fingerprint()])
}

/// The two keys of a file.
fn both(path: &Path, file: KeyFile) -> Result<(Entry, Entry), BadInput> {
    let KeyFile { first, second } = file;
    let shown = path.display();
    let missing = || {
        let only = first.secret.fingerprint();
        BadInput(format!(
            "{shown}: there is one key only, {only}; `vip key --add {shown}` adds a second"
        ))
    };
    let second = second.ok_or_else(missing)?;
    Ok((first, second))
}

/// Writes the file with these lines, whole or not at all.
fn replace<'a>(
    path: &Path,
    lines: impl IntoIterator<Item = &'a str>,
    mode: u32,
) -> anyhow::Result<()> {
    let lines: Vec<&str> = lines.into_iter().collect();
    let mut text = Zeroizing::new(lines.join("\n"));
    text.push('\n');
    // What a link leads to is replaced, not the link.
    let done = fs::canonicalize(path).and_then(|path| files::replace(&path, &text, mode));
    done.with_context(|| format!("cannot write {}", path.display()))
}
