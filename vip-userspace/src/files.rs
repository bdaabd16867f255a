//! Files and directories that are made wholly or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What the name of a file ends with while it is written.
const UNFINISHED: &str = ".unfinished";

/// Writes a file whole or not at all, with these permissions, so that it outlives a power cut.
///
/// It is written aside and renamed: whoever reads the file sees the old text or the new one. The
/// name aside begins with a dot, which the kubelet leaves alone. If anything fails, the file is as
/// it was, and there is nothing aside.
///
/// # Errors
/// Those of writing it.
pub fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let unfinished = aside(path)?;
    let done = write(&unfinished, text, mode).and_then(|()| fs::rename(&unfinished, path));
    if done.is_err() {
        let _none = fs::remove_file(&unfinished);
    }
    done?;
    sync_directory(path)
}

/// Writes a new file with these permissions, so that it outlives a power cut. What is there already
/// is left alone, also a link.
///
/// # Errors
/// Those of writing it: [`AlreadyExists`](io::ErrorKind::AlreadyExists) if something is there.
pub fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path)?;
    let done = fill(file, text, mode);
    if done.is_err() {
        let _gone = fs::remove_file(path);
    }
    done?;
    sync_directory(path)
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    fill(file, text, mode)
}

fn fill(mut file: File, text: &str, mode: u32) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    // Whatever the umask is.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Where a file lies while this process writes it.
fn aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}{UNFINISHED}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

/// What processes left aside that were killed while they wrote a file.
#[must_use]
pub fn unfinished(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let begin = format!(".{}.", name.to_string_lossy());
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with(&begin) && name.ends_with(UNFINISHED)
    });
    ours.map(|entry| entry.path()).collect()
}

/// Makes the entry of a file outlive a power cut.
///
/// # Errors
/// Those of opening its directory.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Directories that were made, and go again when this is dropped, unless they are kept or not
/// empty.
#[derive(Debug, Default)]
pub struct MadeDirectories(Vec<PathBuf>);

impl MadeDirectories {
    /// Makes a directory, for root alone, and those above it that are not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make(path: &Path) -> io::Result<Self> {
        let missing = path.ancestors().take_while(|path| !path.exists());
        let mut missing: Vec<_> = missing.map(Path::to_owned).collect();
        let mut made = Self::default();
        while let Some(directory) = missing.pop() {
            match fs::create_dir(&directory) {
                // Somebody else was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => {
                    other?;
                    made.0.push(directory);
                }
            }
        }
        if made.0.last().is_some_and(|last| last == path) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        }
        // A path to something else than a directory was there before.
        if path.is_dir() {
            Ok(made)
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// They stay.
    pub fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for MadeDirectories {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            let _not_empty = fs::remove_dir(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_wholly_and_nothing_lies_aside() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("vip.yaml");
        for text in ["old", "new text"] {
            replace(&path, text, 0o600).expect("writes");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // A directory cannot be replaced by a file.
        let taken = directory.path().join("taken");
        fs::create_dir(&taken).expect("a directory");
        replace(&taken, "text", 0o600).expect_err("it is a directory");
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 2);
        fs::write(directory.path().join(".vip.yaml.7.unfinished"), "").expect("writes");
        assert_eq!(unfinished(&path).len(), 1);
    }

    #[test]
    fn a_new_file_takes_nothing_s_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        create(&path, "first", 0o600).expect("writes");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).expect("a link");
        for taken in [&path, &link] {
            let error = create(taken, "second", 0o600).expect_err("it is there");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read_to_string(&path).expect("there"), "first");
    }

    #[test]
    fn directories_go_again_unless_they_are_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a/b");
        drop(MadeDirectories::make(&path).expect("makes it"));
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 0);
        MadeDirectories::make(&path).expect("makes it").keep();
        let mode = fs::metadata(&path).expect("kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(MadeDirectories::make(&path).expect("is there"));
        assert!(path.is_dir());
    }
}
