//! Status, events and metrics, for operators and their programs.

pub mod event;
pub mod http;
pub mod journal;
pub mod metrics;
pub mod paint;
mod severity;
pub mod socket;
pub mod status;
pub mod summary;
pub mod trouble;
