//! What the agent may do, once it has put everything in place: no more than it needs to keep it
//! there.

use std::collections::HashSet;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

use super::memory;

/// What is needed for as long as the agent runs (capabilities(7)).
const KEPT: [Capability; 4] = [
    // Loads programs again if somebody took them away, and reads maps.
    Capability::CAP_BPF,
    // Attaches them to NIC and control group, puts the VIP on `lo`.
    Capability::CAP_NET_ADMIN,
    // ARP, VRRP, ICMP.
    Capability::CAP_NET_RAW,
    // Lets programs use pointers as the verifier allows nobody else.
    Capability::CAP_PERFMON,
];

/// Without these there is no use in starting.
///
/// # Errors
/// Names the first one that is missing, and says what to do.
pub(super) fn check() -> anyhow::Result<()> {
    let effective = caps::read(None, CapSet::Effective)?;
    for needed in KEPT {
        anyhow::ensure!(
            effective.contains(&needed),
            "{needed} is missing: run the agent as root, in a container with the capabilities \
             that `vip manifest` lists"
        );
    }
    Ok(())
}

/// Gives up, for the calling thread and those that it starts, all but [`KEPT`], and the right to
/// lock memory where each allocation needs it.
///
/// # Errors
/// The kernel's.
pub(super) fn drop_surplus() -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let locks = (!memory::is_unlimited()).then_some(Capability::CAP_IPC_LOCK);
    let kept: CapsHashSet = KEPT
        .into_iter()
        .chain(locks)
        .filter(|one| permitted.contains(one))
        .collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Inheritable, &HashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}
