use std::net::IpAddr;

use proptest::prelude::*;
use vip_common::abi::{ALLOW_NETWORKS, AllowTable};
use vip_common::wire::addr::{Be32, Be128};

use super::*;

/// The lists in the second half of a table, and the root of each.
struct Table {
    words: Vec<u64>,
    roots: Vec<AllowNode>,
}

impl Table {
    /// # Panics
    /// If the lists do not fit.
    fn of(lists: &[Vec<Prefix>]) -> Self {
        let mut tries = AllowLists::default();
        let roots = lists.iter().map(|list| tries.add(list).in_half(1));
        let roots = roots.collect();
        let mut words = vec![0_u64; size_of::<AllowTable>() / size_of::<u64>()];
        let table: &mut AllowTable = bytemuck::from_bytes_mut(bytemuck::cast_slice_mut(&mut words));
        table.halves[1].nodes[..tries.nodes().len()].copy_from_slice(tries.nodes());
        table.halves[1].networks[..tries.networks().len()].copy_from_slice(tries.networks());
        Self { words, roots }
    }

    fn allows(&self, list: usize, source: u128) -> bool {
        let table: &AllowTable = bytemuck::from_bytes(bytemuck::cast_slice(&self.words));
        table.allows(self.roots[list], Be128::from_wire(source.to_be_bytes()))
    }

    /// Compares with a search of each network, at the edges of all networks and at these sources.
    fn check(&self, lists: &[Vec<Prefix>], sources: &[u128]) {
        let edges = lists.iter().flatten().flat_map(|network| {
            let (first, last) = (network.first(), network.last());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
        });
        for source in edges.chain(sources.iter().copied()) {
            for (index, list) in lists.iter().enumerate() {
                let one = Prefix::new(source, 128);
                let expected = list.iter().any(|network| network.contains(one));
                let found = self.allows(index, source);
                assert_eq!(found, expected, "{source:#034x} in list {index}");
            }
        }
    }
}

fn network(text: &str, bits: u32) -> Prefix {
    let address: IpAddr = text.parse().expect("an address");
    let before = if address.is_ipv4() { 96 } else { 0 };
    Prefix::new(number(address), before + bits)
}

fn number(address: IpAddr) -> u128 {
    u128::from_be_bytes(Be128::from(address).to_wire())
}

#[test]
fn a_list_becomes_the_fewest_disjoint_networks() {
    let list = [
        network("10.0.1.0", 24),
        network("10.0.0.0", 24),
        network("10.0.1.7", 32),
        network("10.0.1.0", 24),
        network("10.0.4.0", 24),
        network("fd00::", 8),
        network("10.0.2.0", 23),
    ];
    let fewest = [
        network("10.0.0.0", 22),
        network("10.0.4.0", 24),
        network("fd00::", 8),
    ];
    assert_eq!(minimal(&list), fewest);
    assert_eq!(
        minimal(&[network("::", 1), network("8000::", 1)]),
        [network("::", 0)]
    );
}

#[test]
fn lists_at_the_ends_of_the_addresses_are_found() {
    let lists = [
        vec![],
        vec![network("::", 0)],
        vec![network("0.0.0.0", 0)],
        vec![network("::", 128)],
        vec![Prefix::new(u128::MAX, 128), network("255.255.255.255", 32)],
        vec![network("10.0.0.0", 8), network("fd00::", 8)],
    ];
    let sources = ["10.1.2.3", "11.0.0.0", "fd00::1", "fe00::1", "::", "::1"];
    let sources = sources.map(|text| number(text.parse().expect("an address")));
    Table::of(&lists).check(&lists, &sources);
    let table: Vec<u64> = vec![0; size_of::<AllowTable>() / size_of::<u64>()];
    let table: &AllowTable = bytemuck::from_bytes(bytemuck::cast_slice(&table));
    let root = AllowNode::EVERYTHING;
    assert!(
        table.allows(root, Be32::from_wire([10, 0, 0, 1]).into()),
        "no list"
    );
    assert_eq!(
        root.in_half(1),
        root,
        "a service without a list is in both halves"
    );
}

/// All of a list's networks differ from one of its addresses first at another of these bits.
fn comb(bits: impl Iterator<Item = u32>) -> Vec<Prefix> {
    let mut networks: Vec<_> = bits
        .map(|bit| Prefix::new(1 << (127 - bit), bit + 1))
        .collect();
    networks.push(Prefix::new(0, 128));
    networks
}

#[test]
fn the_search_reaches_the_end_of_the_deepest_tries() {
    for step in 1..16 {
        for (from, more) in (0..step).flat_map(|from| [(from, 1), (from, 2), (from, 3)]) {
            let bits = (0..128).filter(|bit| bit % step == from || bit % (step * more) == from / 2);
            let lists = [comb(bits)];
            Table::of(&lists).check(&lists, &[]);
        }
    }
}

/// Multiples of it lie anywhere among the addresses.
const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

#[test]
fn as_many_networks_as_possible_fit() {
    let most = MAX_ALLOWED as usize;
    // Pairs that differ in their last bits only, far from each other: branches of two children.
    let pairs = |apart: u32| {
        let networks = (0..most as u128 / 2).flat_map(|pair| {
            let pair = pair << apart;
            [Prefix::new(pair, 128), Prefix::new(pair | 2, 128)]
        });
        networks.collect::<Vec<_>>()
    };
    let lists = [
        vec![
            (0..most as u128)
                .map(|host| Prefix::new(host.wrapping_mul(SPREAD), 128))
                .collect(),
        ],
        vec![
            (0..most as u128)
                .map(|host| Prefix::new(host * 2, 128))
                .collect(),
        ],
        vec![
            (0..most as u128)
                .map(|host| Prefix::new(host << 17, 112))
                .collect(),
        ],
        vec![pairs(3)],
        vec![pairs(40)],
        // Many lists: 129 networks in each, at other bits.
        (0..127).map(|_| comb(0..128)).collect(),
        vec![comb((0..128).step_by(2)); 252],
        vec![vec![Prefix::new(0, 128), Prefix::new(2, 128)]; most / 2],
        vec![vec![Prefix::new(1, 128)]; most],
    ];
    for lists in lists {
        let mut tries = AllowLists::default();
        for list in &lists {
            tries.add(list);
        }
        let networks = lists.iter().map(Vec::len).sum::<usize>();
        assert!(networks <= most, "{networks}");
        println!("{networks} networks: {} nodes", tries.nodes().len());
        assert!(tries.nodes().len() <= ALLOW_NODES);
        assert!(tries.networks().len() <= ALLOW_NETWORKS);
        let table = Table::of(&lists);
        for (index, list) in lists.iter().enumerate().step_by(1 + lists.len() / 3) {
            for network in list.iter().step_by(1 + list.len() / 50) {
                assert!(
                    table.allows(index, network.first()) && table.allows(index, network.last())
                );
            }
            let inside = list
                .iter()
                .filter(|network| network.contains(Prefix::new(1 << 70, 128)));
            assert_eq!(table.allows(index, 1 << 70), inside.count() > 0);
        }
    }
}

prop_compose! {
    /// Networks of all lengths, many of them nested, adjacent, or with a long common prefix.
    fn networks()(
        kind in 0..4,
        base in any::<u128>(),
        networks in prop::collection::vec((any::<u128>(), 0_u32..=128, 0_u32..=128), 0..60),
    ) -> Vec<Prefix> {
        let of = |(random, common, bits): (u128, u32, u32)| match kind {
            // Anywhere.
            0 => Prefix::new(random, bits),
            // IPv4 and IPv6.
            1 if common % 2 == 0 => {
                Prefix::new(0xffff << 32 | random & 0xffff_ffff, 96 + bits % 33)
            }
            1 => Prefix::new(0xfd << 120 | random >> 8, 8 + bits % 121),
            // With the first bits of one address.
            2 => Prefix::new(base ^ random.checked_shr(common).unwrap_or(0), bits),
            // Close together.
            _ => Prefix::new(base ^ random & 0xff, 120 + bits % 9),
        };
        networks.into_iter().map(of).collect()
    }
}

proptest! {
    #[test]
    fn tries_find_the_same_as_a_search_of_each_network(
        lists in prop::collection::vec(networks(), 1..4),
        sources in prop::collection::vec(any::<u128>(), 20),
    ) {
        Table::of(&lists).check(&lists, &sources);
    }
}
