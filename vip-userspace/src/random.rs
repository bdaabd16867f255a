//! Numbers that nobody else can guess.

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU64;

use vip_node::hello::Instance;

/// 64 bits, made from what the kernel gives as random.
pub(crate) fn secret() -> u64 {
    // Keyed anew each time; the keys come from the kernel.
    RandomState::new().hash_one(())
}

/// A name for a run of an agent.
pub(crate) fn instance() -> Instance {
    Instance(NonZeroU64::new(secret()).unwrap_or(NonZeroU64::MIN))
}

/// Bytes for keys, from the kernel (getrandom(2)). Waits until it has gathered enough since the
/// boot.
///
/// # Errors
/// Linux has no getrandom(2), and no /dev/urandom.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
