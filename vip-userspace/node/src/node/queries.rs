//! The present state of a node, for its agent, status and tests.

use std::net::IpAddr;

use vip_common::abi::{BackendIndex, BackendMask, CheckIndex, Masks};
use vip_common::wire::time::BootNanos;

use super::Node;
use crate::action::NoDrain;
use crate::bfd::Session;
use crate::choice::Resort;
use crate::election::State;
use crate::faults::Fault;
use crate::health::Server;
use crate::hello::Instance;
use crate::liveness::PeerState;
use crate::slots::Slots;

impl Node {
    /// This node's VRRP state.
    #[must_use]
    pub fn state(&self) -> State {
        self.election.state()
    }

    /// The VRRP priority in force, `1..=255`.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.election.priority()
    }

    /// The owner of the VIP, as far as this node knows.
    #[must_use]
    pub fn owner(&self) -> Option<BackendIndex> {
        self.ownership.owner()
    }

    /// End of the answer lease; zero if there is none.
    #[must_use]
    pub fn answer_until(&self) -> BootNanos {
        self.election.answer_until()
    }

    /// Until when segments may be reset that no node has the socket for; zero if they may not.
    #[must_use]
    pub const fn resets_until(&self) -> BootNanos {
        self.resets.answer_until()
    }

    /// The masks for the packet path.
    #[must_use]
    pub fn masks(&self) -> Masks {
        self.selection.masks(&self.members, &self.liveness)
    }

    /// The run of this node's agent, which its hellos and sealed advertisements carry.
    #[must_use]
    pub const fn instance(&self) -> Instance {
        self.members.instance()
    }

    /// The slot of the member with this address; `None` if there is none.
    #[must_use]
    pub fn slot(&self, address: IpAddr) -> Option<BackendIndex> {
        self.members.slot(address)
    }

    /// The addresses of all members.
    #[must_use]
    pub fn members(&self) -> Slots<IpAddr> {
        self.members.addresses()
    }

    /// The members that may get new connections: all living members know them.
    #[must_use]
    pub fn confirmed(&self) -> BackendMask {
        self.members.confirmed()
    }

    /// The members that are gone: nobody has heard them for
    /// [`reset_after`](crate::Params::reset_after).
    #[must_use]
    pub fn gone(&self) -> BackendMask {
        let here = self.liveness.not_gone().with(self.members.own(), true);
        self.members.all().collect::<BackendMask>().without(here)
    }

    /// Whether nothing on another node answers.
    #[must_use]
    pub fn is_silent(&self, node: BackendIndex) -> bool {
        self.liveness.is_node_silent(node)
    }

    /// What is known of another node; `None` for this one.
    #[must_use]
    pub fn peer_state(&self, node: BackendIndex) -> Option<PeerState> {
        self.liveness.state(node)
    }

    /// The BFD session with a node; `None` for this node, and without BFD.
    #[must_use]
    pub fn bfd(&self, node: BackendIndex) -> Option<&Session> {
        self.liveness.session(node)
    }

    /// Time of a node's last advertisement; `None` if there was none.
    #[must_use]
    pub fn advert(&self, node: BackendIndex) -> Option<BootNanos> {
        self.ownership.advert(node)
    }

    /// The faults that keep this node from owning the VIP.
    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        self.faults.iter()
    }

    /// Whether the node has ended, after [`Input::Shutdown`](crate::Input::Shutdown).
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.transfer.has_left()
    }

    /// State of a node's server, by one of the checks.
    #[must_use]
    pub fn server(&self, node: BackendIndex, check: CheckIndex) -> Server {
        self.selection.server(node, check)
    }

    /// The kind of nodes that get new connections, by one of the checks.
    #[must_use]
    pub fn resort(&self, check: CheckIndex) -> Resort {
        self.selection.resort(check)
    }

    /// Whether a node's kernel answers ICMP echo; `None` while that is not known, and for this
    /// node.
    #[must_use]
    pub fn answers_echo(&self, node: BackendIndex) -> Option<bool> {
        self.liveness.answers_echo(node)
    }

    /// Whether a node drains.
    #[must_use]
    pub fn is_draining(&self, node: BackendIndex) -> bool {
        self.selection.is_draining(node)
    }

    /// Whether this node may be drained.
    ///
    /// # Errors
    /// No other node is as good for new connections, or none could own the VIP; why not.
    pub fn may_drain(&self) -> Result<(), NoDrain> {
        self.selection
            .may_drain(&self.members, &self.liveness)
            .map_err(NoDrain::LastUsable)?;
        if self.election.is_owner() && !self.view().has_successor() {
            return Err(NoDrain::LastAgent);
        }
        Ok(())
    }
}
