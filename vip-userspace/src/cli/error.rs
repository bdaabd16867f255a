//! What went wrong, in one line and as an exit code.

use std::io;

use crate::agent::lock::LockError;
use crate::agent::state::Shared;
use crate::config::ConfigError;
use crate::datapath::{DatapathError, Taken};
use crate::key_file::KeyFileError;
use crate::net::NetError;

/// Input other than the configuration that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadInput(pub(super) String);

/// The error with all its causes, and what to do if the kernel has refused something that root may do.
pub(super) fn explain(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let refused = |cause: &(dyn std::error::Error + 'static)| {
        let kind = cause.downcast_ref().map(io::Error::kind);
        kind == Some(io::ErrorKind::PermissionDenied)
    };
    if error.chain().any(refused) && !nix::unistd::geteuid().is_root() {
        format!("{text}; run it as root")
    } else {
        text
    }
}

/// Whether the input is wrong, and nothing was changed.
pub(super) fn is_input(error: &anyhow::Error) -> bool {
    let lies_in_the_way = |error: &DatapathError| {
        matches!(
            error,
            DatapathError::InTheWay { .. } | DatapathError::Held { .. }
        )
    };
    let is_asked_for = |error: &NetError| !matches!(error, NetError::Io { .. });
    error.is::<ConfigError>()
        || error.is::<BadInput>()
        || error.is::<KeyFileError>()
        || error.is::<Taken>()
        || error.is::<Shared>()
        || matches!(error.downcast_ref(), Some(LockError::Held { .. }))
        || error.downcast_ref().is_some_and(lies_in_the_way)
        || error.downcast_ref().is_some_and(is_asked_for)
}
