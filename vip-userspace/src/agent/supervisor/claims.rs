//! Claims of the VIP by hosts that are no agents of the cluster.

use vip_common::abi::Counter;
use vip_common::wire::addr::Mac;
use vip_common::wire::time::BootNanos;

use crate::datapath::Datapath;
use vip_node::Claimant;

/// The claims that are known of.
#[derive(Default)]
pub(super) struct Claims {
    /// Those that the programs had counted when the agent looked last.
    pub(super) counted: u64,
    /// Those of others than members that the node thread has reported since the agent started.
    pub(super) reported: u64,
    /// Those that are not over, the latest one last.
    pub(super) open: Vec<Claim>,
    /// The last one of these, and when it was reported.
    pub(super) last: Option<(Mac, BootNanos)>,
}

/// A host that claims the VIP.
pub(super) struct Claim {
    pub(super) mac: Mac,
    pub(super) claimant: Claimant,
}

impl Claim {
    /// Whether it is a node whose agent may run: one that owns the VIP, too, since packets between the
    /// two are lost.
    pub(super) const fn is_unheard(&self) -> bool {
        matches!(self.claimant, Claimant::Unheard { .. })
    }
}

impl Claims {
    /// A claim was reported.
    pub(super) fn report(&mut self, now: BootNanos, mac: Mac, claimant: Claimant) {
        self.end(mac);
        let claim = Claim { mac, claimant };
        if !claim.is_unheard() {
            self.reported += 1;
            self.last = Some((mac, now));
        }
        self.open.push(claim);
    }

    /// A claim is over.
    pub(super) fn end(&mut self, mac: Mac) {
        self.open.retain(|claim| claim.mac != mac);
    }
}

/// Claims of the VIP by strangers that the programs have counted.
pub(super) fn count(datapath: &Datapath) -> anyhow::Result<u64> {
    Ok(datapath.counter(Counter::ArpConflict)? + datapath.counter(Counter::NdpConflict)?)
}
