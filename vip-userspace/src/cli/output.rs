//! What commands print. All of them print by this, so that none panics when its reader has gone
//! (`vip status | head -1`), which `println!` does.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

/// Standard output takes nothing more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub(super) struct Unprinted(io::Error);

impl Unprinted {
    /// Whether the reader has gone: it has read what it wanted, which is no error.
    pub(super) fn is_unread(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}

/// Prints text as it is, for a command that does nothing else and so ends if this fails.
///
/// # Errors
/// It cannot be written.
pub(super) fn print(text: impl Display) -> Result<(), Unprinted> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(Unprinted)
}

/// Prints a line, as [`print`] does.
///
/// # Errors
/// It cannot be written.
pub(super) fn print_line(text: impl Display) -> Result<(), Unprinted> {
    print(format_args!("{text}\n"))
}

/// Prints a line about work that is done, and that goes on whether somebody reads of it or not.
pub(super) fn tell(text: impl Display) {
    let _unread = print_line(text);
}

/// Prints a line on standard error. If that is closed, there is nowhere to complain.
pub(super) fn complain(text: impl Display) {
    let _unread = writeln!(io::stderr().lock(), "vip: {text}");
}
