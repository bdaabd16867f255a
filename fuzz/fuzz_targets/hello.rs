//! Any hellos, one after the other, to a node that joins or is a member. The corpus beside this is
//! replayed by `cargo xtask test`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| vip_node::fuzzing::check_hellos(input));
