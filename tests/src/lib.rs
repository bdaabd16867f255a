//! The harness that tests and demo share: machines that exist only while it runs, API servers,
//! load, watches, faults, and the [`scenarios`] that put them together.
//!
//! Everything runs in network namespaces below an empty one: see [`isolation`].

pub mod agent;
pub mod arp;
pub mod background_writes;
pub mod churn;
pub mod clock;
pub mod cluster;
pub mod demo;
pub mod flood;
pub mod forge;
pub mod frames;
pub mod hooks;
pub mod http;
pub mod idle;
pub mod isolation;
pub mod kube;
pub mod kubelet;
pub mod load;
pub mod netns;
pub mod outcome;
pub mod peers;
pub mod picture;
pub mod ping;
pub mod pki;
pub mod pod;
pub mod process;
pub mod scenario;
pub mod scenarios;
pub mod server;
pub mod stray;
mod sys;
mod text;
pub mod topology;
pub mod traffic;
pub mod vm;
pub mod watch;
