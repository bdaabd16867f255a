//! The file with the cluster's key ([`vip_node::seal`]), as it lies on a node.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use thiserror::Error;
use vip_node::seal::{Alike, FileError, KeyFile, KeyRing, LineError};
use zeroize::Zeroizing;

/// Longest file, in bytes. Two keys need some 200.
const LONGEST: usize = 16 << 10;

/// Permissions of a new file.
pub const MODE: u32 = 0o600;

/// Why there is no key: one line with what is wrong, where, and what to do.
#[derive(Debug, Error)]
#[error("{}{trouble}", path.display())]
pub struct KeyFileError {
    path: PathBuf,
    trouble: Trouble,
}

/// What stands behind the file's name.
#[derive(Debug, Error)]
enum Trouble {
    #[error(
        ": no such file; copy the key file of another node to this place, or make the cluster's \
         first one with `vip key --output FILE`"
    )]
    Missing,
    #[error(": cannot be read: {0}; run this as root, or repair the file")]
    Unreadable(io::Error),
    #[error(": not a file; name the file with the key")]
    NoFile,
    #[error(
        ": mode {0:04o} lets others than its owner at the key; run `chmod 600` on it (in a volume \
         of a Secret: `defaultMode: 0400`)"
    )]
    Shared(u32),
    #[error(": belongs to user {0}, who can read and change the key; run `chown root` on it")]
    Foreign(u32),
    #[error(": not a key file; `vip key` prints one")]
    NoKeyFile,
    #[error(": no key in it; `vip key --output FILE` makes a file with one")]
    Empty,
    #[error(":{line}: {error}; {remedy}")]
    Line {
        line: usize,
        error: LineError,
        remedy: &'static str,
    },
}

/// A file's text, and what it says.
#[derive(Debug)]
pub struct Read {
    /// The text.
    pub text: Zeroizing<String>,
    /// The secrets in it.
    pub file: KeyFile,
    /// The permissions of the file, of the owner only.
    pub mode: u32,
}

/// Reads the keys of a file.
///
/// # Errors
/// What is wrong with it.
pub fn keys(path: &Path) -> Result<KeyRing, KeyFileError> {
    let file = read(path)?.file;
    file.keys().map_err(|alike| {
        let line = file.second.map_or(1, |second| second.line);
        named(path)(explained(line, LineError::Alike(alike)))
    })
}

/// Reads a file, and refuses one that others than its owner can read or change, as ssh does. Its
/// owner is root or the user of this process. Links are followed: a Secret's volume has them.
///
/// # Errors
/// What is wrong with it.
pub fn read(path: &Path) -> Result<Read, KeyFileError> {
    let wrong = named(path);
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => wrong(Trouble::Missing),
        _ => wrong(Trouble::Unreadable(error)),
    };
    let mut options = OpenOptions::new();
    // Without waiting for a writer, should this be a pipe.
    let options = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let opened = options.open(path).map_err(unreadable)?;
    // Of the file that is open, so that no other one can take its place.
    let metadata = opened.metadata().map_err(unreadable)?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    if !metadata.is_file() {
        return Err(wrong(Trouble::NoFile));
    }
    if mode & 0o077 != 0 {
        return Err(wrong(Trouble::Shared(mode)));
    }
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(wrong(Trouble::Foreign(owner)));
    }
    // Of its full length from the start: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST + 1));
    let mut opened = opened.take(LONGEST as u64 + 1);
    match opened.read_to_string(&mut text) {
        Ok(length) if length <= LONGEST => {}
        Ok(_) => return Err(wrong(Trouble::NoKeyFile)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(wrong(Trouble::NoKeyFile));
        }
        Err(error) => return Err(unreadable(error)),
    }
    let file = KeyFile::parse(&text).map_err(|error| {
        wrong(match error {
            FileError::Empty => Trouble::Empty,
            FileError::Line { line, error } => explained(line, error),
        })
    })?;
    Ok(Read { text, file, mode })
}

fn named(path: &Path) -> impl Fn(Trouble) -> KeyFileError {
    |trouble| KeyFileError {
        path: path.to_owned(),
        trouble,
    }
}

/// What is wrong in a line, and what to do.
const fn explained(line: usize, error: LineError) -> Trouble {
    let remedy = match error {
        LineError::Malformed(_) => "copy the line again, or begin it with # if it is a comment",
        LineError::TooMany => "remove the oldest",
        LineError::Alike(Alike::Same(_)) => "remove this line",
        LineError::Alike(Alike::BfdId(..)) => {
            "remove the newer one, and make another by `vip key --add FILE`"
        }
    };
    Trouble::Line {
        line,
        error,
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use vip_node::seal::Secret;

    use super::*;

    fn line(byte: u8) -> String {
        Secret::new([byte; 32]).text().to_string()
    }

    fn put(path: &Path, text: impl AsRef<[u8]>, mode: u32) {
        let _none = fs::remove_file(path);
        fs::write(path, text).expect("writable");
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
    }

    fn refusal(path: &Path) -> String {
        let text = keys(path).expect_err("it is refused").to_string();
        assert!(text.starts_with(&path.display().to_string()), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }

    #[test]
    fn a_file_for_its_owner_alone_is_read_also_behind_links() {
        let directory = tempfile::tempdir().expect("a directory");
        // As the kubelet projects a Secret.
        let data = directory.path().join("..2026_01_01");
        fs::create_dir(&data).expect("a directory");
        symlink("..2026_01_01", directory.path().join("..data")).expect("a link");
        let path = directory.path().join("key");
        symlink("..data/key", &path).expect("a link");
        for mode in [0o600, 0o400] {
            put(&data.join("key"), line(1) + "\n" + &line(2), mode);
            let ring = keys(&path).expect("keys");
            assert_eq!(ring.current(), Secret::new([1; 32]).fingerprint());
            assert_eq!(ring.other(), Some(Secret::new([2; 32]).fingerprint()));
            assert_eq!(read(&path).expect("keys").mode, mode);
        }
    }

    #[test]
    fn a_file_that_others_can_read_or_write_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        for mode in [0o640, 0o604, 0o620, 0o602, 0o601, 0o644, 0o666, 0o440] {
            put(&path, line(1), mode);
            let text = refusal(&path);
            assert!(text.contains(&format!("mode {mode:04o}")), "{text}");
            assert!(text.contains("chmod 600"), "{text}");
        }
        put(&path, line(1), 0o600);
        if geteuid().is_root() {
            chown(&path, Some(1000), None).expect("root may");
            let text = refusal(&path);
            assert!(
                text.contains("user 1000") && text.contains("chown"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said_in_one_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        assert!(refusal(&path).contains("no such file; copy"));
        assert!(refusal(directory.path()).contains("not a file"));
        let [one, two, three] = [1, 2, 3].map(line);
        for (text, said) in [
            (String::new(), ": no key in it"),
            ("\n# vip1:\n".to_owned(), ": no key in it"),
            (format!("{one}\nvip1:zz"), ":2: not a key: `z` is no"),
            (format!("{one}0"), ":1: not a key: 65 hexadecimal digits"),
            ("a token".to_owned(), ":1: not a key: a key begins with"),
            (format!("{one}\n{two}\n{three}"), ":3: a third key"),
            (format!("{one}\n{two}\n{one}"), ":3: a third key"),
            (format!("#\n{one}\n\n{one}"), ":4: both are the key"),
            ("# ".repeat(LONGEST), ": not a key file"),
        ] {
            put(&path, text, 0o600);
            let refusal = refusal(&path);
            let begin = path.display().to_string() + said;
            assert!(refusal.starts_with(&begin), "{said}: {refusal}");
            assert!(refusal.contains("; "), "what to do: {refusal}");
            assert!(!refusal.contains("0101"), "a key: {refusal}");
        }
        put(&path, [0xff, 0xfe], 0o600);
        assert!(refusal(&path).contains("not a key file"));
        fs::remove_file(&path).expect("there");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
        assert!(refusal(&path).contains("not a file"));
    }
}
