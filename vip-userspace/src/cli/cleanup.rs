//! `vip cleanup`. It goes on to its end whatever becomes of what it prints.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::output::tell;
use crate::agent::traces::{self, How};
use crate::agent::{lock, notes, state};
use crate::config::{self, Config, ConfigError, Flags};
use crate::run_dir::{MEMBERS, RunDir};

pub(super) fn run(flags: Flags, dry_run: bool) -> anyhow::Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!(
            "`vip cleanup` reads the eBPF programs and maps in the kernel: run it as root"
        );
    }
    // Without a configuration the agent's note says which VIPs there were.
    let run_dir = flags.overrides.run_dir()?;
    let state_dir = flags.overrides.state_dir()?;
    let configured = match flags.into_config() {
        Ok(config) => Some(config),
        Err(ConfigError::Nothing) => None,
        Err(error) => return Err(error.into()),
    };
    let (run_dir, bpffs) = match &configured {
        Some(Config {
            run_dir, datapath, ..
        }) => (run_dir.clone(), datapath.bpffs.clone()),
        None => (run_dir, config::BPFFS.into()),
    };
    let given = configured.as_ref().map(|config| config.state_dir.clone());
    let state_dirs = state_dirs(given.or(state_dir), &run_dir);
    // An agent that runs would put it all back.
    let lock = match dry_run {
        true => {
            lock::Lock::look(&run_dir)?;
            None
        }
        false => run_dir
            .exists()
            .then(|| lock::Lock::take(&run_dir))
            .transpose()?,
    };
    for directory in &state_dirs {
        state::refuse_shared(directory)?;
    }

    let how = if dry_run { How::List } else { How::Remove };
    let told = Cell::new(false);
    let tell: traces::Tell<'_> = &|text| {
        told.set(true);
        tell(text);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // A node that left has forgotten them.
    let is_member = |directory: &PathBuf| {
        let members = fs::metadata(directory.join(MEMBERS));
        members.is_ok_and(|file| file.len() > 0)
    };
    let is_member = state_dirs.iter().any(is_member);
    let vips = configured.iter().flat_map(|config| &config.vips);
    let vips = vips.map(|vip| vip.address);
    runtime.block_on(traces::remove(&bpffs, &run_dir, vips, how, tell))?;
    for directory in &state_dirs {
        let ours = state::files(directory);
        for file in &ours {
            how.remove_file(tell, file)?;
        }
        if directory != run_dir.path() {
            remove_directory(how, tell, directory, &ours)?;
        }
    }
    let last = [run_dir.socket(), run_dir.lock()];
    for file in &last {
        how.remove_file(tell, file)?;
    }
    drop(lock);
    let mut ours = state::files(run_dir.path());
    ours.extend(notes::files(&run_dir));
    ours.extend(last);
    remove_directory(how, tell, run_dir.path(), &ours)?;
    if is_member {
        tell(format_args!(
            "this node did not leave the cluster: until an agent runs here again, or `vip forget` \
             removes it elsewhere, connections that the other nodes send here get no answer"
        ));
    }
    if !told.get() {
        tell(format_args!("nothing of an agent is on this machine"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Where state may lie: where it is configured or was noted to be, and in the run directory, where
/// it is for want of another place. The default one belongs to the agent with the default run
/// directory: that of another one is only removed if it is known.
fn state_dirs(given: Option<PathBuf>, run_dir: &RunDir) -> Vec<PathBuf> {
    let default =
        || (run_dir.path() == Path::new(config::RUN_DIR)).then(|| config::STATE_DIR.into());
    let noted = notes::state_dir(run_dir).filter(|noted| noted != run_dir.path());
    let known = given.or(noted).or_else(default);
    let places = known.into_iter().chain([run_dir.path().to_owned()]);
    let mut places: Vec<PathBuf> = places.collect();
    places.dedup();
    places
}

/// Removes a directory in which nothing but an agent's files is, or was.
fn remove_directory(
    how: How,
    tell: traces::Tell<'_>,
    path: &Path,
    ours: &[PathBuf],
) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let there = fs::read_dir(path).into_iter().flatten().flatten();
    let foreign = there.map(|entry| entry.path());
    if let Some(file) = foreign.into_iter().find(|path| !ours.contains(path)) {
        let (path, file) = (path.display(), file.display());
        tell(format_args!("directory {path} stays: {file} is no agent's"));
        return Ok(());
    }
    remove_empty(how, tell, path, |path| fs::remove_dir(path))
}

/// Removes an empty directory by `remove`, unless something is mounted there: its place is then
/// somebody else's, and what was in it is removed.
fn remove_empty(
    how: How,
    tell: traces::Tell<'_>,
    path: &Path,
    remove: impl FnOnce(&Path) -> io::Result<()>,
) -> anyhow::Result<()> {
    let shown = path.display();
    let removed = match how {
        How::Remove => remove(path),
        How::List => Ok(()),
    };
    match removed {
        Ok(()) => how.remove(tell, &format_args!("directory {shown}"), || Ok(())),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            tell(format_args!(
                "directory {shown} stays, empty: it is a mount point"
            ));
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("cannot remove {shown}")),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_mount_point_stays_and_is_no_failure() {
        let removed = |how, kind: Option<io::ErrorKind>| {
            let said = RefCell::new(vec![]);
            let tell = |text: std::fmt::Arguments<'_>| said.borrow_mut().push(text.to_string());
            let path = Path::new("/var/lib/vip");
            let done = remove_empty(how, &tell, path, |_| {
                kind.map_or(Ok(()), |kind| Err(kind.into()))
            });
            (done.is_ok(), said.into_inner().concat())
        };
        for (how, kind, ok, said) in [
            (How::Remove, None, true, "removed directory /var/lib/vip"),
            (How::List, None, true, "would remove directory /var/lib/vip"),
            (
                How::Remove,
                Some(io::ErrorKind::ResourceBusy),
                true,
                "directory /var/lib/vip stays, empty: it is a mount point",
            ),
            (
                How::Remove,
                Some(io::ErrorKind::PermissionDenied),
                false,
                "",
            ),
        ] {
            assert_eq!(removed(how, kind), (ok, said.to_owned()));
        }
    }
}
