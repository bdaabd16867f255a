//! What operators see.

pub mod event;
pub mod http;
pub mod journal;
pub mod metrics;
pub mod socket;
pub mod status;
pub mod trouble;
