//! What agents leave on the bpffs and on interfaces, and its removal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::umount;

use super::error::DatapathError;
use super::pins::{
    MAPS, QDISC, files, filter_note, interface_name, is_bpffs, map_file, pin_directory,
    remove_filter, unpin, unpin_link,
};
use super::way::Way;
use crate::run_dir::RunDir;

/// Something that an agent left on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A pinned map or link. Removing the pin of a link detaches its program.
    Pin(PathBuf),
    /// A clsact filter on an interface (kernels before 6.6).
    Filter {
        /// Which of the two.
        way: Way,
        /// The interface.
        interface: String,
        /// The pin that says so.
        note: PathBuf,
    },
    /// clsact's queueing discipline on an interface. [`remove`] removes the note; it goes by
    /// [`Netlink::remove_clsact`](crate::net::netlink::Netlink::remove_clsact).
    Qdisc {
        /// Index of the interface.
        index: u32,
        /// Its name.
        interface: String,
        /// The pin that says so.
        note: PathBuf,
    },
    /// The directory of the pins.
    Directory(PathBuf),
    /// The bpffs, which an agent mounted.
    Mount {
        /// Where.
        path: PathBuf,
        /// The file that says so.
        note: PathBuf,
    },
}

impl std::fmt::Display for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pin(path) => write!(f, "pin {}", path.display()),
            Self::Filter { way, interface, .. } => {
                write!(f, "clsact filter {} on {interface}", way.program())
            }
            Self::Qdisc { interface, .. } => write!(f, "clsact on {interface}"),
            Self::Directory(path) => write!(f, "directory {}", path.display()),
            Self::Mount { path, .. } => write!(f, "bpffs mounted at {}", path.display()),
        }
    }
}

/// What agents left on the bpffs and on interfaces, in the order in which to remove it.
#[must_use]
pub fn leftovers(bpffs: &Path, run_dir: &RunDir) -> Vec<Leftover> {
    let directory = pin_directory(bpffs, run_dir.path());
    let mut found = Vec::new();
    if directory.is_dir() {
        let all = files(&directory);
        // Links first: nothing runs any more by the time its maps go.
        let (maps, links): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|name| MAPS.into_iter().any(|map| map_file(map) == name));
        found.extend(links.into_iter().chain(maps).map(|name| {
            let note = directory.join(&name);
            let filter = filter_note(&name)
                .and_then(|filter| Some((filter.way, interface_name(filter.interface)?)));
            let qdisc = name
                .strip_prefix(QDISC)
                .and_then(|index| index.parse().ok())
                .and_then(|index| Some((index, interface_name(index)?)));
            match (filter, qdisc) {
                (Some((way, interface)), _) => Leftover::Filter {
                    way,
                    interface,
                    note,
                },
                (None, Some((index, interface))) => Leftover::Qdisc {
                    index,
                    interface,
                    note,
                },
                (None, None) => Leftover::Pin(note),
            }
        }));
        // Qdiscs behind the filters that hang at them; last what no agent put there.
        found.sort_by_key(|leftover| match leftover {
            Leftover::Qdisc { .. } => 1,
            Leftover::Pin(path) if path.is_dir() => 2,
            _ => 0,
        });
        found.push(Leftover::Directory(directory));
    }
    let note = run_dir.mounted_bpffs();
    if let Ok(path) = fs::read_to_string(&note) {
        found.push(Leftover::Mount {
            path: path.trim().into(),
            note,
        });
    }
    found
}

/// Removes what [`leftovers`] found.
///
/// # Errors
/// If it is there and cannot be removed.
pub fn remove(leftover: &Leftover) -> Result<(), DatapathError> {
    match leftover {
        Leftover::Pin(path) if path.is_dir() => Err(DatapathError::InTheWay {
            path: path.clone(),
            what: "a directory",
        }),
        Leftover::Pin(path) => unpin_link(path),
        Leftover::Filter {
            way,
            interface,
            note,
        } => remove_filter(*way, interface, note),
        Leftover::Qdisc { note, .. } => unpin(note),
        Leftover::Directory(path) => fs::remove_dir(path).map_err(DatapathError::io(format!(
            "cannot remove {}",
            path.display()
        ))),
        Leftover::Mount { path, note } => {
            // Somebody else may have pinned things there since: then it stays.
            // The kernel's own files in a bpffs have a dot in their names, and pins cannot.
            if files(path).iter().all(|name| name.contains('.')) && is_bpffs(path) {
                umount(path)
                    .map_err(io::Error::from)
                    .map_err(DatapathError::io(format!(
                        "cannot unmount {}",
                        path.display()
                    )))?;
            }
            unpin(note)
        }
    }
}
