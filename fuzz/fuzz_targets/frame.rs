//! Any frame, on a node in any state. The corpus beside this is replayed by `cargo xtask test`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| vip_common::testing::check_input(input));
