//! What this kernel offers.

use bytemuck::Zeroable as _;
use vip_common::abi::State;

use super::Datapath;
use super::attach::has_tcx;
use super::desired::DesiredState;
use super::error::DatapathError;
use super::loader::Loader;
use super::object::{INGRESS, TC_INGRESS};
use super::roster::Roster;

/// What a kernel offers beyond what the programs cannot do without. Found by trying, since
/// distributions bring features to kernels with older numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// XDP programs for frames in several buffers (Linux 5.18). Without them a driver runs XDP
    /// only for an MTU whose frames fit one buffer.
    pub frags: bool,
    /// tcx (Linux 6.6); else filters of the clsact qdisc.
    pub tcx: bool,
    /// Programs for local sockets.
    pub redirection: bool,
    /// Iterators over TCP sockets, by which clients of a dead node are known (Linux 5.9, with BTF).
    pub roster: bool,
}

impl Features {
    /// Loads the programs, attaches none and leaves nothing behind.
    ///
    /// # Errors
    /// What [`Datapath::load`] says of a kernel that does not take them.
    pub fn probe() -> Result<Self, DatapathError> {
        let nothing = DesiredState::of(&State::zeroed(), vec![]);
        let (mut datapath, _state) = Datapath::load(None, &nothing)?;
        let (name, _) = datapath.programs.ingress()?;
        datapath.classifier(TC_INGRESS)?;
        Ok(Self {
            frags: name == INGRESS,
            tcx: has_tcx("lo"),
            redirection: datapath.no_redirection.is_none(),
            roster: Roster::load(&mut Loader::default()).is_ok(),
        })
    }
}
