//! What an agent puts on the machine beside programs and maps. It notes that in its run directory
//! before it does so, so that `vip cleanup`, and an agent that needs it no longer, undo just that.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::net::netlink::Netlink;
use crate::run_dir::RunDir;
use vip_node::settings::{Decision, Note};

/// What a note is called while it is written.
const UNFINISHED: &str = "new";

/// All files that may be there.
#[must_use]
pub fn files(run_dir: &RunDir) -> Vec<PathBuf> {
    let notes = [run_dir.addresses(), run_dir.settings(), run_dir.state_dir()];
    let unfinished = notes.iter().map(|path| path.with_extension(UNFINISHED));
    unfinished.chain(notes.clone()).collect()
}

/// Where the agent keeps what must outlive a reboot.
#[must_use]
pub fn state_dir(run_dir: &RunDir) -> Option<PathBuf> {
    let text = fs::read_to_string(run_dir.state_dir()).ok()?;
    Some(text.trim_end_matches('\n').into())
}

/// Notes where the agent keeps what must outlive a reboot.
///
/// # Errors
/// The file cannot be written.
pub fn note_state_dir(run_dir: &RunDir, state_dir: &Path) -> anyhow::Result<()> {
    write(&run_dir.state_dir(), [state_dir.display()])
}

/// The addresses on `lo`.
#[must_use]
pub fn addresses(run_dir: &RunDir) -> BTreeSet<IpAddr> {
    read(&run_dir.addresses())
}

/// Notes which addresses are on `lo`, or are about to be.
///
/// # Errors
/// The file cannot be written.
pub fn note_addresses(run_dir: &RunDir, addresses: &BTreeSet<IpAddr>) -> anyhow::Result<()> {
    write(&run_dir.addresses(), addresses)
}

/// The settings that were changed.
#[must_use]
pub fn settings(run_dir: &RunDir) -> Vec<Note> {
    read(&run_dir.settings())
}

/// Changes settings as it was decided, and keeps the notes. At no time is something changed that
/// is not noted.
///
/// # Errors
/// The file cannot be written, or the kernel refuses a change. The others are made all the same.
pub async fn change_settings(
    netlink: &Netlink,
    run_dir: &RunDir,
    noted: &[Note],
    decision: &Decision,
) -> anyhow::Result<()> {
    if decision.notes == noted && decision.changes.is_empty() {
        return Ok(());
    }
    let is_old = |note: &&Note| {
        let same = |new: &Note| (new.index, new.key) == (note.index, note.key);
        !decision.notes.iter().any(same)
    };
    let old = noted.iter().filter(is_old);
    let both: Vec<&Note> = decision.notes.iter().chain(old).collect();
    write(&run_dir.settings(), both)?;
    let mut refused = Ok(());
    for change in &decision.changes {
        match netlink.change_setting(change).await {
            Ok(()) => tracing::info!(
                interface = change.name,
                setting = %change.key,
                from = change.from,
                to = change.to,
                "kernel setting"
            ),
            // Its interface may have gone meanwhile; then it is not asked for the next time.
            Err(error) => refused = Err(error.into()),
        }
    }
    write(&run_dir.settings(), &decision.notes)?;
    refused
}

/// The lines of a file that make sense; none if it is not there.
fn read<T: std::str::FromStr, C: FromIterator<T>>(path: &Path) -> C {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Writes a file whole or not at all; without lines there is none.
fn write<T: ToString>(path: &Path, lines: impl IntoIterator<Item = T>) -> anyhow::Result<()> {
    let text: String = lines
        .into_iter()
        .map(|line| line.to_string() + "\n")
        .collect();
    let done = if text.is_empty() {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    } else {
        let unfinished = path.with_extension(UNFINISHED);
        fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, path))
    };
    done.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vip_node::settings::Key;

    #[test]
    fn notes_are_kept_in_files_that_go_with_the_last_line() {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = &RunDir::from(directory.path());
        assert!(addresses(run_dir).is_empty() && settings(run_dir).is_empty());
        let vips: BTreeSet<IpAddr> = ["10.0.0.10", "fd00::10"]
            .map(|vip| vip.parse().unwrap())
            .into();
        note_addresses(run_dir, &vips).unwrap();
        let note = Note {
            index: 3,
            name: "eth1".to_owned(),
            key: Key::ArpIgnore,
            before: 0,
            set: 1,
        };
        write(&run_dir.settings(), [&note]).unwrap();
        assert_eq!(addresses(run_dir), vips);
        assert_eq!(settings(run_dir), [note]);
        note_addresses(run_dir, &BTreeSet::new()).unwrap();
        write(&run_dir.settings(), &[] as &[Note]).unwrap();
        assert_eq!(fs::read_dir(run_dir.path()).unwrap().count(), 0);
    }
}
