//! What happens to machines and cannot happen to namespaces.

pub(super) mod cold_start;
pub(super) mod cut_off;
pub(super) mod kernel_upgrade;
