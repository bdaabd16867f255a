//! What happens to machines and cannot happen to namespaces.

pub(super) mod cable_pulled;
pub(super) mod cold_start;
pub(super) mod host_frozen;
pub(super) mod kernel_upgrade;
