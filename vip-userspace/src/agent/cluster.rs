//! The members of the cluster, each in its slot.

use std::fs;
use std::net::IpAddr;

use vip_common::abi::{BackendIndex, BackendMask, MAX_BACKENDS};
use vip_common::wire::addr::Be128;
use vip_node::rank::Identity;
use vip_node::slots::Slots;

use crate::config::{Config, Node, node_name};

/// The members that this node knows, itself among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cluster {
    own: BackendIndex,
    nodes: Slots<Node>,
}

impl Cluster {
    /// Gives each node a slot, where `found` has it the one that it has there: the maps of an earlier
    /// agent go on to be used. `None` if there are too many nodes, or `own` is not one of them.
    pub(super) fn new(
        nodes: &[Node],
        own: IpAddr,
        found: &[(BackendIndex, Be128)],
    ) -> Option<Self> {
        let mut taken: Slots<Node> = Slots::new();
        let place = |node: &Node| {
            let mut found = found.iter();
            let found = found.find(|(_, address)| *address == Be128::from(node.address));
            found.map(|(slot, _)| *slot)
        };
        for node in nodes {
            if let Some(slot) = place(node) {
                taken.insert(slot, node.clone());
            }
        }
        // The slots of members that are no more are taken last: their bits may still be in use.
        let old: BackendMask = found.iter().map(|(slot, _)| *slot).collect();
        for node in nodes.iter().filter(|node| place(node).is_none()) {
            let free = BackendMask::ALL.without(taken.mask());
            let slot = free.without(old).iter().chain(free.iter()).next()?;
            taken.insert(slot, node.clone());
        }
        let (own, _) = taken.find(|node| node.address == own)?;
        Some(Self { own, nodes: taken })
    }

    /// This node, and those that an earlier agent knew, by its maps (`found`) or its notes (`stored`):
    /// where agents find each other. There may be more to come.
    pub(super) fn open(
        config: &Config,
        own: IpAddr,
        found: &[(BackendIndex, Be128)],
        stored: Vec<Node>,
    ) -> Option<Self> {
        let found_nodes = found.iter().map(|(_, address)| IpAddr::from(*address));
        let noted = |address: IpAddr| stored.iter().find(|node| node.address == address).cloned();
        let found_nodes: Vec<Node> = found_nodes
            .map(|address| noted(address).unwrap_or_else(|| Node::at(address)))
            .collect();
        let mut nodes = vec![own_node(config, own)];
        for node in found_nodes.into_iter().chain(stored) {
            let is_known = nodes.iter().any(|known| known.address == node.address);
            let fits = node.address.is_ipv4() == own.is_ipv4() && nodes.len() < MAX_BACKENDS;
            if !is_known && fits {
                nodes.push(node);
            }
        }
        Self::new(&nodes, own, found)
    }

    /// This node's slot.
    pub(super) const fn own(&self) -> BackendIndex {
        self.own
    }

    /// All members.
    pub(super) const fn nodes(&self) -> &Slots<Node> {
        &self.nodes
    }

    /// This node.
    pub(super) fn own_node(&self) -> &Node {
        &self.nodes[self.own]
    }

    /// The addresses of all members.
    pub(super) fn addresses(&self) -> Slots<IpAddr> {
        self.nodes.map(|_, node| node.address)
    }

    /// The addresses of all members but this node.
    pub(super) fn peers(&self) -> Vec<IpAddr> {
        let others = self.nodes.iter().filter(|(slot, _)| *slot != self.own);
        others.map(|(_, node)| node.address).collect()
    }

    /// A member has come.
    pub(super) fn admit(&mut self, slot: BackendIndex, node: Node) {
        self.nodes.insert(slot, node);
    }

    /// A member has left.
    pub(super) fn remove(&mut self, slot: BackendIndex) -> Option<Node> {
        self.nodes.remove(slot)
    }

    /// What is known of a member, to be changed.
    pub(super) fn node_mut(&mut self, slot: BackendIndex) -> Option<&mut Node> {
        self.nodes.get_mut(slot)
    }

    /// What the rank table is built from.
    pub(super) fn identities(&self) -> Slots<Identity> {
        self.nodes.map(|_, node| Identity {
            address: node.address,
            weight: node.weight,
        })
    }
}

/// This node, where agents find each other.
#[must_use]
pub fn own_node(config: &Config, address: IpAddr) -> Node {
    let own = &config.own;
    let host = || {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        node_name(name.trim()).ok()
    };
    Node {
        other_address: own.other_address,
        name: own
            .name
            .clone()
            .or_else(host)
            .unwrap_or_else(|| address.to_string()),
        weight: own.weight,
        ..Node::at(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(last: u8) -> Node {
        Node::at([10, 0, 0, last].into())
    }

    fn slot(index: usize) -> BackendIndex {
        BackendIndex::new(index).expect("small")
    }

    fn slots(cluster: &Cluster) -> Vec<(usize, IpAddr)> {
        let nodes = cluster.nodes.iter();
        nodes
            .map(|(slot, node)| (slot.get(), node.address))
            .collect()
    }

    #[test]
    fn members_keep_their_slots_and_new_ones_take_those_that_were_never_used() {
        let found = [11, 12, 13].map(|last| Be128::from(node(last).address));
        let found: Vec<_> = (0..3).map(|index| (slot(index), found[index])).collect();
        let own = node(13).address;
        let cluster = Cluster::new(&[node(14), node(13), node(12)], own, &found).expect("fits");
        let wanted = [(1, 12), (2, 13), (3, 14)];
        let wanted = wanted.map(|(slot, last)| (slot, node(last).address));
        assert_eq!((slots(&cluster), cluster.own()), (wanted.to_vec(), slot(2)));
        assert_eq!(cluster.peers(), [node(12).address, node(14).address]);
    }

    #[test]
    fn no_more_members_than_slots_and_none_without_this_node() {
        let nodes: Vec<_> = (1..=17).map(node).collect();
        assert_eq!(Cluster::new(&nodes, nodes[0].address, &[]), None);
        let cluster = Cluster::new(&nodes[..16], nodes[15].address, &[]).expect("fits");
        assert_eq!(cluster.own(), slot(15));
        assert_eq!(Cluster::new(&nodes[..3], nodes[4].address, &[]), None);
    }
}
