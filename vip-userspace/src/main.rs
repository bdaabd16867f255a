//! The `vip` binary.
fn main() {}
