//! What operators see.

pub mod status;
