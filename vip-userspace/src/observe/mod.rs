//! What operators see.

pub mod socket;
pub mod status;
