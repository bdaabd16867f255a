//! Faults of machines, which namespaces cannot have.

pub(super) mod cold_start;
pub(super) mod cut_off;
pub(super) mod kernel_upgrade;
