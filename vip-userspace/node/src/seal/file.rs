//! The text of a key file.
//!
//! ```text
//! # The key of the cluster: the same file on all nodes, for root alone.
//! vip1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f  # fingerprint 5e6eee2a
//! ```
//!
//! A line has a key: `vip1:` and 64 hexadecimal digits (32 bytes). From `#` on, a line is a
//! comment. There are one or two keys. The first one seals, both are accepted. So a key is changed
//! without an interruption in three steps, each on one node after the other before the next one
//! begins: add the new key as the second; swap the two; remove the old one.

use super::ring::{Alike, KeyRing};
use super::secret::{Malformed, Secret};

/// The secrets of a file, with their places in it.
#[derive(Debug)]
pub struct KeyFile {
    /// That which seals.
    pub first: Entry,
    /// That which is only accepted.
    pub second: Option<Entry>,
}

/// A secret of a file.
#[derive(Debug)]
pub struct Entry {
    /// Its line, counted from 1.
    pub line: usize,
    /// The secret.
    pub secret: Secret,
}

/// Why a text is no key file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FileError {
    /// Nothing but comments and blank lines, or not even that.
    #[error("no key in it")]
    Empty,
    /// What is wrong in a line.
    #[error("line {line}: {error}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        error: LineError,
    },
}

/// What is wrong in a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LineError {
    /// It is neither a key nor a comment.
    #[error("not a key: {0}")]
    Malformed(Malformed),
    /// It is the third.
    #[error("a third key; at most two are possible, the first seals and both are accepted")]
    TooMany,
    /// It cannot be told from the first.
    #[error("{0}")]
    Alike(Alike),
}

impl KeyFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first thing that is wrong in it.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let mut found: Option<Self> = None;
        for (place, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or_default().trim();
            if content.is_empty() {
                continue;
            }
            let line = place + 1;
            let wrong = |error| FileError::Line { line, error };
            let secret = Secret::parse(content).map_err(LineError::Malformed);
            let entry = Entry {
                line,
                secret: secret.map_err(wrong)?,
            };
            match &mut found {
                None => {
                    found = Some(Self {
                        first: entry,
                        second: None,
                    });
                }
                Some(Self {
                    second: Some(_), ..
                }) => return Err(wrong(LineError::TooMany)),
                Some(file) => {
                    file.second = Some(entry);
                    file.keys()
                        .map_err(|alike| wrong(LineError::Alike(alike)))?;
                }
            }
        }
        found.ok_or(FileError::Empty)
    }

    /// The keys that are derived from the secrets.
    ///
    /// # Errors
    /// The secrets cannot be told apart; those of a file that was read can.
    pub fn keys(&self) -> Result<KeyRing, Alike> {
        let other = self.second.as_ref().map(|entry| &entry.secret);
        KeyRing::new(&self.first.secret, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(byte: u8) -> String {
        Secret::new([byte; 32]).text().to_string()
    }

    #[test]
    fn keys_stand_in_lines_among_comments() {
        let (one, two) = (line(1), line(2));
        let file = KeyFile::parse(&one).expect("one key");
        assert!(file.second.is_none());
        let text = format!("# keys\n\n  {one} # since May\r\n#{one}\n\t{two}\n");
        let file = KeyFile::parse(&text).expect("two keys");
        let second = file.second.as_ref().expect("two keys");
        assert_eq!((file.first.line, second.line), (3, 5));
        assert_eq!(file.first.secret.text().as_str(), one);
        assert_eq!(second.secret.text().as_str(), two);
        let keys = file.keys().expect("they differ");
        assert_eq!(keys.current(), file.first.secret.fingerprint());
        assert_eq!(keys.other(), Some(second.secret.fingerprint()));
    }

    #[test]
    fn faults_name_their_line_and_never_a_key() {
        let [one, two, three] = [1, 2, 3].map(line);
        for (text, message) in [
            (String::new(), "no key in it"),
            ("# a comment\n\n".to_owned(), "no key in it"),
            (
                format!("# a comment\n{}", &one[5..]),
                "line 2: not a key: a key begins with `vip1:`",
            ),
            (
                format!("{one}\n{two}2\n"),
                "line 2: not a key: 65 hexadecimal digits after `vip1:`, must be 64",
            ),
            (
                format!("{one} {two}\n"),
                "line 1: not a key: ` ` is no hexadecimal digit",
            ),
            (
                format!("{one}\n{two}\n\n{three}"),
                "line 4: a third key; at most two are possible, the first seals and both are \
                 accepted",
            ),
        ] {
            let error = KeyFile::parse(&text).expect_err(message).to_string();
            assert_eq!(error, message);
        }
        let error = KeyFile::parse(&format!("{one}\n{one}\n")).expect_err("twice");
        let same = Secret::new([1; 32]).fingerprint();
        assert_eq!(
            error.to_string(),
            format!("line 2: both are the key {same}")
        );
    }
}
