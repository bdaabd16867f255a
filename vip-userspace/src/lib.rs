//! The agent: it owns the VIP (or not), watches nodes and API servers, and writes BPF maps.
//!
//! What decides is pure and lies in [`vip_node`]; clocks, sockets and maps live around it.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod agent;
pub mod cli;
pub mod clock;
pub mod config;
pub mod datapath;
pub mod files;
pub mod kernel;
pub mod key_file;
pub mod net;
pub mod observe;
pub mod probe;
mod random;
pub mod run_dir;
mod words;
