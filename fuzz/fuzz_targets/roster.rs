//! Any messages about rosters from several hosts, one after the other, to an agent that scans and sends.
//! The corpus beside this is replayed by `cargo xtask test`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| vip_node::fuzzing::check_roster(input));
