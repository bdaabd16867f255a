//! What lies on the bpffs: maps by their names, links by what they hold on to.
//!
//! A link's name says all that is needed to adopt or remove it: `ingress-<ifindex>-<mode>`,
//! `egress-<ifindex>`, `elsewhere-<ifindex>` of other NICs, and for local sockets the program's
//! name. A clsact filter has no link; its program, pinned as `filter-in-<ifindex>`,
//! `filter-out-<ifindex>` or `filter-elsewhere-<ifindex>`, is the note that it is there. (bpffs
//! refuses dots in names.) Programs that the next agent need not load again are pinned as
//! `program-<build>-<name>`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use aya::programs::tc;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use vip_common::abi::maps as names;

use super::detach::{detach, is_link};
use super::error::DatapathError;
use super::object::LOCAL;
use super::way::{Mode, Way};
use crate::run_dir::RunDir;

/// All maps that are pinned. (The programs' log ring is not: it dies with its agent.)
pub(super) const MAPS: [&str; 9] = [
    names::STATE,
    names::ALLOWED,
    names::SOURCES,
    names::REDIRECTED,
    names::LISTENERS,
    names::CLAIMANT,
    names::RANKS,
    names::COUNTERS,
    names::BACKEND_COUNTERS,
];

/// Begins the names of notes about clsact filters.
const fn filter(way: Way) -> &'static str {
    match way {
        Way::In => "filter-in-",
        Way::Out => "filter-out-",
        Way::Elsewhere => "filter-elsewhere-",
    }
}

/// Begins the names of links of the program on the way out.
const fn out(way: Way) -> &'static str {
    match way {
        Way::Elsewhere => "elsewhere-",
        Way::In | Way::Out => "egress-",
    }
}

/// Begins the names of notes about clsact's queueing disciplines that an agent made.
pub(super) const QDISC: &str = "clsact-";

/// Begins the names of programs that are pinned for the next agent.
const PROGRAM: &str = "program-";

/// The directory with this program's pins.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
}

/// A pinned link of the program on the way in.
pub(super) struct IngressPin {
    pub(super) path: PathBuf,
    pub(super) interface: u32,
    pub(super) mode: Mode,
}

/// A pinned tcx link.
pub(super) struct TcxPin {
    pub(super) path: PathBuf,
    pub(super) interface: u32,
}

/// What a note about a clsact filter says.
pub(super) struct FilterNote {
    pub(super) way: Way,
    pub(super) interface: u32,
}

/// What the name of a pin says, if it is a note about a clsact filter.
pub(super) fn filter_note(name: &str) -> Option<FilterNote> {
    let ways = [Way::In, Way::Out, Way::Elsewhere];
    ways.into_iter().find_map(|way| {
        let interface = name.strip_prefix(filter(way))?.parse().ok()?;
        Some(FilterNote { way, interface })
    })
}

/// Says that the agent of a directory of pins lives, until dropped.
#[derive(Debug)]
pub struct Held {
    _directory: Flock<File>,
}

/// Where the agent with this run directory pins, below the root of a bpffs: in a directory that is
/// named after it, so that no two agents share one. That of `/run/vip` is `vip`; that of
/// `/run/vip-b` is `vip:run:vip-b`.
#[must_use]
pub fn pin_directory(bpffs: &Path, run_directory: &Path) -> PathBuf {
    // The same directory by the Filesystem Hierarchy Standard, whether or not it is a link here.
    let run_directory = run_directory.strip_prefix("/var/run").map_or_else(
        |_| run_directory.to_owned(),
        |below| Path::new("/run").join(below),
    );
    if run_directory == Path::new(crate::config::RUN_DIR) {
        return bpffs.join(DEFAULT);
    }
    let mut name = DEFAULT.to_owned();
    for component in run_directory.components() {
        let Component::Normal(component) = component else {
            continue;
        };
        name.push(':');
        for &byte in component.as_bytes() {
            // bpffs refuses dots, and a colon is a slash here.
            if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
                name.push(char::from(byte));
            } else {
                name += &format!("%{byte:02x}");
            }
        }
    }
    bpffs.join(name)
}

/// The directory of the pins of an agent with the default run directory; others' names begin so.
const DEFAULT: &str = "vip";

/// The run directory of the agent that pins in a directory of this name, if it is one.
pub(super) fn run_directory(name: &str) -> Option<PathBuf> {
    if name == DEFAULT {
        return Some(crate::config::RUN_DIR.into());
    }
    let mut path = PathBuf::from("/");
    for part in name.strip_prefix(DEFAULT)?.strip_prefix(':')?.split(':') {
        let mut bytes = Vec::new();
        let mut rest = part.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(if byte == b'%' {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            } else {
                byte
            });
        }
        path.push(OsStr::from_bytes(&bytes));
    }
    Some(path)
}

impl Pins {
    /// Opens the directory, makes it if needed, and mounts a bpffs at `bpffs` if there is
    /// none. That is noted in the run directory, for [`remove`](super::remove).
    ///
    /// # Errors
    /// If the file system cannot be mounted or the directory not be made.
    pub fn open(bpffs: &Path, run_dir: &RunDir) -> Result<Self, DatapathError> {
        if !is_bpffs(bpffs) {
            let error = |what: &str| format!("cannot {what} {}", bpffs.display());
            fs::create_dir_all(bpffs).map_err(DatapathError::io(error("create")))?;
            mount(
                Some("bpf"),
                bpffs,
                Some("bpf"),
                MsFlags::empty(),
                Some("mode=0700"),
            )
            .map_err(io::Error::from)
            .map_err(DatapathError::io(error(
                "mount a bpffs (on the host: `mount -t bpf bpf /sys/fs/bpf`) at",
            )))?;
            let note = run_dir.mounted_bpffs();
            fs::write(&note, format!("{}\n", bpffs.display())).map_err(DatapathError::io(
                format!("cannot write {}", note.display()),
            ))?;
            tracing::info!(path = %bpffs.display(), "mounted bpffs");
        }
        let directory = pin_directory(bpffs, run_dir.path());
        if fs::symlink_metadata(&directory).is_ok_and(|found| !found.is_dir()) {
            return Err(DatapathError::InTheWay {
                path: directory,
                what: "no directory",
            });
        }
        fs::create_dir_all(&directory).map_err(DatapathError::io(format!(
            "cannot create {}",
            directory.display()
        )))?;
        let pins = Self { directory };
        pins.check()?;
        Ok(pins)
    }

    /// Whether everything that lies where this program pins can be one of its pins. Before
    /// anything is changed.
    fn check(&self) -> Result<(), DatapathError> {
        for name in files(&self.directory) {
            let path = self.directory.join(&name);
            let in_the_way = |what| {
                Err(DatapathError::InTheWay {
                    path: path.clone(),
                    what,
                })
            };
            if path.is_dir() {
                return in_the_way("a directory");
            }
            let holds_link = ["ingress-", "egress-"]
                .iter()
                .any(|begin| name.starts_with(begin))
                || LOCAL.contains(&name.as_str());
            if holds_link && !is_link(&path) {
                return in_the_way("no link of a program");
            }
        }
        Ok(())
    }

    /// Marks the directory as that of an agent that lives, for as long as what is returned
    /// does.
    ///
    /// # Errors
    /// Another agent, which does not share this one's run directory, pins there.
    pub fn hold(&self) -> Result<Held, DatapathError> {
        let error = || format!("cannot lock {}", self.directory.display());
        let directory = File::open(&self.directory).map_err(DatapathError::io(error()))?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Held { _directory: held }),
            Err((_, Errno::EWOULDBLOCK)) => Err(DatapathError::Held {
                path: self.directory.clone(),
            }),
            Err((_, errno)) => Err(DatapathError::io(error())(errno.into())),
        }
    }

    /// Whether an agent that lives [holds](Self::hold) the directory.
    pub(super) fn is_held(&self) -> bool {
        File::open(&self.directory).is_ok_and(|directory| {
            let locked = Flock::lock(directory, FlockArg::LockSharedNonblock);
            matches!(locked, Err((_, Errno::EWOULDBLOCK)))
        })
    }

    /// The directory as it is, of whichever agent. Nothing is made.
    pub(super) fn at(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Indices of the interfaces on which its programs serve VIPs.
    pub(super) fn interfaces(&self) -> Vec<u32> {
        let links = self.ingress_links().into_iter().map(|pin| pin.interface);
        let egress = self
            .tcx_links(Way::Out)
            .into_iter()
            .map(|pin| pin.interface);
        let filters = self.filters().into_iter();
        let filters = filters.filter(|note| note.way != Way::Elsewhere);
        let filters = filters.map(|note| note.interface);
        links.chain(egress).chain(filters).collect()
    }

    /// Where a map is pinned: by its name, without the section that a global's begins with.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(map_file(name))
    }

    /// Unpins the maps, and the programs that use them. Those that are attached keep them.
    pub(super) fn forget_maps(&self) -> Result<(), DatapathError> {
        self.forget_programs(None)?;
        MAPS.iter().try_for_each(|name| unpin(&self.map(name)))
    }

    /// Where a program is pinned for the next agent of the same build.
    pub(super) fn program(&self, build: &str, name: &str) -> PathBuf {
        self.directory.join(format!("{PROGRAM}{build}-{name}"))
    }

    /// Unpins such programs, those of this build excepted. Attached ones stay.
    pub(super) fn forget_programs(&self, kept: Option<&str>) -> Result<(), DatapathError> {
        let is_old = |name: &String| {
            name.strip_prefix(PROGRAM)
                .is_some_and(|rest| kept.is_none_or(|build| !rest.starts_with(build)))
        };
        let mut old = files(&self.directory).into_iter().filter(is_old);
        old.try_for_each(|name| unpin(&self.directory.join(name)))
    }

    /// Where the link of the program on the way in is pinned.
    pub(super) fn ingress(&self, interface: u32, mode: Mode) -> PathBuf {
        self.directory.join(format!("ingress-{interface}-{mode}"))
    }

    /// Where the tcx link of a program for socket buffers is pinned.
    pub(super) fn tcx(&self, way: Way, interface: u32) -> PathBuf {
        match way {
            Way::In => self.ingress(interface, Mode::Tc),
            Way::Out | Way::Elsewhere => self.directory.join(format!("{}{interface}", out(way))),
        }
    }

    /// Where the link of a program for local sockets is pinned.
    pub(super) fn local(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }

    /// Where the program of a clsact filter is pinned.
    pub(super) fn filter(&self, way: Way, interface: u32) -> PathBuf {
        self.directory.join(format!("{}{interface}", filter(way)))
    }

    /// Where it is noted that clsact's queueing discipline was made by an agent.
    pub(super) fn qdisc(&self, interface: u32) -> PathBuf {
        self.directory.join(format!("{QDISC}{interface}"))
    }

    /// Removes the clsact filter, if there is one.
    pub(super) fn remove_filter(&self, way: Way, index: u32) -> Result<(), DatapathError> {
        let path = self.filter(way, index);
        match (path.exists(), interface_name(index)) {
            (false, _) => Ok(()),
            (true, Some(interface)) => remove_filter(way, &interface, &path),
            // It went with its interface.
            (true, None) => unpin(&path),
        }
    }

    /// The notes about clsact filters.
    pub(super) fn filters(&self) -> Vec<FilterNote> {
        files(&self.directory)
            .iter()
            .filter_map(|name| filter_note(name))
            .collect()
    }

    /// Pinned links of the program on the way in.
    pub(super) fn ingress_links(&self) -> Vec<IngressPin> {
        files(&self.directory)
            .into_iter()
            .filter_map(|name| {
                let (interface, mode) = name.strip_prefix("ingress-")?.split_once('-')?;
                Some(IngressPin {
                    path: self.directory.join(&name),
                    interface: interface.parse().ok()?,
                    mode: mode.parse().ok()?,
                })
            })
            .collect()
    }

    /// Interfaces with a tcx program: those of pinned links.
    pub(super) fn tcx_links(&self, way: Way) -> Vec<TcxPin> {
        if way == Way::In {
            let links = self.ingress_links().into_iter();
            return links
                .filter(|pin| pin.mode == Mode::Tc)
                .map(|pin| TcxPin {
                    path: pin.path,
                    interface: pin.interface,
                })
                .collect();
        }
        files(&self.directory)
            .into_iter()
            .filter_map(|name| {
                let interface = name.strip_prefix(out(way))?.parse().ok()?;
                let path = self.directory.join(name);
                Some(TcxPin { path, interface })
            })
            .collect()
    }

    /// Takes the program off all other NICs than these.
    pub(super) fn leave_elsewhere(&self, kept: &BTreeSet<u32>) -> Result<(), DatapathError> {
        let way = Way::Elsewhere;
        for pin in self.tcx_links(way) {
            if !kept.contains(&pin.interface) {
                unpin_link(&pin.path)?;
            }
        }
        for note in self.filters() {
            if note.way == way && !kept.contains(&note.interface) {
                self.remove_filter(way, note.interface)?;
            }
        }
        Ok(())
    }
}

/// The file that a map is pinned as.
pub(super) fn map_file(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Removes the clsact filter of an interface, and then the note.
pub(super) fn remove_filter(way: Way, interface: &str, note: &Path) -> Result<(), DatapathError> {
    match tc::qdisc_detach_program(interface, way.hook(), way.program()) {
        Err(tc::TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(DatapathError::Io {
                what: format!("cannot remove the clsact filter of {interface}"),
                error: io::Error::other(error),
            });
        }
        Ok(()) => {}
    }
    unpin(note)
}

/// Removes a pin. One that is not there is as good.
pub(super) fn unpin(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DatapathError::io(format!(
            "cannot remove {}",
            path.display()
        ))(error)),
        _ => Ok(()),
    }
}

/// Detaches a pinned link's program and removes the pin.
pub(super) fn unpin_link(path: &Path) -> Result<(), DatapathError> {
    // Of one that is not there, is no link, or whose NIC is gone, nothing is attached.
    let _gone = detach(path);
    unpin(path)
}

/// The names in a directory; none if it cannot be read.
pub(super) fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// `None` if the interface is gone, and its filters with it.
pub(super) fn interface_name(index: u32) -> Option<String> {
    nix::net::if_::if_indextoname(index)
        .ok()?
        .into_string()
        .ok()
}

pub(super) fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_follow_the_run_directory_and_tell_which_it_is() {
        let name = |run: &str| {
            let path = pin_directory(Path::new("/bpf"), Path::new(run));
            path.strip_prefix("/bpf")
                .expect("below it")
                .display()
                .to_string()
        };
        for (run, pins) in [
            ("/run/vip", "vip"),
            ("/run/vip/", "vip"),
            ("/var/run/vip", "vip"),
            ("/run/vip-b", "vip:run:vip-b"),
            ("/run/vip/b", "vip:run:vip:b"),
            ("/srv/v.1:x", "vip:srv:v%2e1%3ax"),
        ] {
            assert_eq!(name(run), pins);
            let back = run_directory(pins).expect("a run directory");
            assert_eq!(name(back.to_str().expect("text")), pins);
        }
        assert_eq!(run_directory("vip:srv:v%2e1"), Some("/srv/v.1".into()));
        for other in ["xdp", "vipx", "tc", "vip:a%2"] {
            assert_eq!(run_directory(other), None);
        }
    }
}
