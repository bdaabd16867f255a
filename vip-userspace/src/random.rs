//! Numbers that nobody else can guess.

use std::hash::{BuildHasher as _, RandomState};

/// 64 bits, made from what the kernel gives as random.
pub(crate) fn secret() -> u64 {
    // Keyed anew each time; the keys come from the kernel.
    RandomState::new().hash_one(())
}
