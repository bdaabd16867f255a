//! Any datagram of the peer channel and any sealed advertisement, with and without a key. The corpus
//! beside this is replayed by `cargo xtask test`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| vip_node::fuzzing::check_datagram(input));
