//! Allow lists: the tries that the programs search ([`AllowTries`](vip_common::abi::AllowTries)).
//!
//! A list is first made minimal and disjoint: nested networks are left out, and two halves of a
//! network become that network. Disjoint networks in order have one branch between each two
//! neighbours, at the first bit that differs. A branch of the trie stands for the branches in the
//! bits that it reads. It reads as many bits as it can, so that it has at most `FILL` children
//! for each branch that it stands for.
//!
//! # Bounds
//! - **Nodes.** `n` networks have `n - 1` branches between neighbours, and each belongs to one
//!   branch of the trie. So all lists together have fewer than `FILL` times as many children as
//!   networks: fewer than [`ALLOW_NODES`].
//! - **Depth.** A branch may always read two bits, since there is at least one branch in them and
//!   it has four children. It may read three if there is another one in these. If there is none, the next
//!   branch is at least three bits further on. So each level takes three bits or more of a 64-bit
//!   word, and there are at most 22 levels for each word: [`ALLOW_DEPTH`].

use vip_common::abi::{ALLOW_DEPTH, ALLOW_NODES, AllowNode, BRANCH_BITS, MAX_ALLOWED, Network};

/// Children of a branch for each branch between neighbours that it stands for, at most.
const FILL: usize = 4;

const _: () = assert!(FILL * MAX_ALLOWED as usize <= ALLOW_NODES);
const _: () = assert!(2 * u64::BITS.div_ceil(3) as usize <= ALLOW_DEPTH);

/// All addresses whose first `bits` bits, `0..=128`, are those of `address`. The other bits of
/// `address` are 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Prefix {
    address: u128,
    bits: u32,
}

impl Prefix {
    /// The network of an address. IPv4 addresses are in their mapped form, with 96 bits more.
    #[must_use]
    pub fn new(address: u128, bits: u32) -> Self {
        let bits = bits.min(u128::BITS);
        let behind = u128::MAX.checked_shr(bits).unwrap_or(0);
        Self {
            address: address & !behind,
            bits,
        }
    }

    fn first(self) -> u128 {
        self.address
    }

    fn last(self) -> u128 {
        self.address | u128::MAX.checked_shr(self.bits).unwrap_or(0)
    }

    fn contains(self, other: Self) -> bool {
        self.bits <= other.bits && other.address <= self.last() && other.address >= self.address
    }

    /// The network that has this one and `other` as its halves.
    fn joined(self, other: Self) -> Option<Self> {
        let whole = Self::new(self.address, self.bits.checked_sub(1)?);
        (self.bits == other.bits && self != other && whole.contains(other)).then_some(whole)
    }

    /// The first bit in which they differ, counted from the left. They must be disjoint.
    fn branch(self, other: Self) -> u32 {
        (self.address ^ other.address).leading_zeros()
    }
}

/// The same addresses in the fewest networks, which are disjoint and in order.
fn minimal(networks: &[Prefix]) -> Vec<Prefix> {
    let mut sorted = networks.to_vec();
    sorted.sort_unstable();
    let mut minimal: Vec<Prefix> = Vec::new();
    for mut network in sorted {
        if minimal.last().is_some_and(|last| last.contains(network)) {
            continue;
        }
        while let Some(whole) = minimal.last().and_then(|last| last.joined(network)) {
            minimal.pop();
            network = whole;
        }
        minimal.push(network);
    }
    minimal
}

/// The tries of all allow lists, as they lie in one half of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllowLists {
    nodes: Vec<AllowNode>,
    networks: Vec<Network>,
}

impl Default for AllowLists {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            networks: vec![Network::EVERYTHING],
        }
    }
}

impl AllowLists {
    /// Adds a list and returns its root in the first half of the table. A list without networks has
    /// no source. All lists together may have [`MAX_ALLOWED`] networks.
    pub fn add(&mut self, networks: &[Prefix]) -> AllowNode {
        self.place(&minimal(networks))
    }

    /// The children of branches.
    #[must_use]
    pub fn nodes(&self) -> &[AllowNode] {
        &self.nodes
    }

    /// The networks, after that of services without a list.
    #[must_use]
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// Adds the trie of these networks, which are disjoint and in order.
    fn place(&mut self, networks: &[Prefix]) -> AllowNode {
        let (first, last) = match networks {
            [] => return AllowNode::NOTHING,
            [one] => {
                self.networks.push(Network::new(one.address, one.bits));
                return AllowNode::network(self.networks.len() - 1);
            }
            [first, .., last] => (*first, *last),
        };
        let position = first.branch(last);
        let bits = branch_bits(networks, position);
        let end = position + bits;
        let read = |address: u128| (address << position >> (u128::BITS - bits)) as usize;

        let children = self.nodes.len();
        // A child that no network is below remains.
        self.nodes
            .resize(children + (1 << bits), AllowNode::NOTHING);
        for below in networks.chunk_by(|one, next| one.branch(*next) >= end) {
            let node = self.place(below);
            // A network may end before the branch does, and then has several children.
            let (from, to) = (below[0].first(), below[below.len() - 1].last());
            self.nodes[children + read(from)..=children + read(to)].fill(node);
        }
        AllowNode::branch(children, position, bits)
    }
}

/// The bits that a branch at `position` reads: the most that its number of children permits.
fn branch_bits(networks: &[Prefix], position: u32) -> u32 {
    let mut branches = [0; BRANCH_BITS as usize];
    for pair in networks.windows(2) {
        let at = pair[0].branch(pair[1]) - position;
        if let Some(count) = branches.get_mut(at as usize) {
            *count += 1;
        }
    }
    let mut most = 1;
    let mut within = 0;
    for (bits, count) in (1..).zip(branches) {
        within += count;
        let in_one_word = position % u64::BITS + bits <= u64::BITS;
        if in_one_word && 1 << bits <= FILL * within {
            most = bits;
        }
    }
    most
}

#[cfg(test)]
mod tests;
