//! The answer of a server.

/// What a server that serves has answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is ready.
    Ready,
    /// It does not say whether it is ready; in words.
    Unknown(String),
}
