//! Evenness and avalanche, over inputs as structured as real clients are.

use std::vec::Vec;

use super::*;
use crate::testing::Random;
use crate::wire::addr::Be128;

/// A client's address and port.
type Input = (Be128, Be16);

fn ipv4(address: u32, port: u32) -> Input {
    (Be32::new(address).into(), Be16::new(port as u16))
}

fn ipv6(network: u64, host: u64, port: u32) -> Input {
    let bytes = (u128::from(network) << 64 | u128::from(host)).to_be_bytes();
    (Be128::from_wire(bytes), Be16::new(port as u16))
}

/// The local ports of Linux (`net.ipv4.ip_local_port_range`).
const PORTS: core::ops::Range<u32> = 32_768..61_000;

/// 1,000 clients with 60 ports each.
fn clients(client: impl Fn(u64, u32) -> Input) -> Vec<Input> {
    let one = |number| (40_000..40_060).map(move |port| (number, port));
    let all = (0..1000).flat_map(one);
    all.map(|(number, port)| client(number, port)).collect()
}

fn inputs() -> Vec<(&'static str, Vec<Input>)> {
    const DOC: u64 = 0x2001_0db8_0000_0000;
    const ULA: u64 = 0xfd00_0000_0000_0000;
    /// EUI-64: an OUI, `fffe`, and the NIC's number.
    const EUI64: u64 = 0x0250_56ff_fe00_0000;
    vec![
        (
            "one IPv4 client",
            PORTS.map(|port| ipv4(0x0a01_0203, port)).collect(),
        ),
        (
            "its even ports, which `connect` takes first",
            PORTS
                .step_by(2)
                .map(|port| ipv4(0x0a01_0203, port))
                .collect(),
        ),
        (
            "one IPv4 NAT",
            (0..65_536).map(|port| ipv4(0xc0a8_0001, port)).collect(),
        ),
        (
            "clients in a /22",
            clients(|number, port| ipv4(0x0a00_0400 + number as u32, port)),
        ),
        (
            "one client in each of 1,000 /24",
            clients(|number, port| ipv4(0x0a00_0001 + ((number as u32) << 8), port)),
        ),
        (
            "IPv4 clients with one port",
            (0..60_000)
                .map(|number| ipv4(0x0a00_0000 + number, 40_000))
                .collect(),
        ),
        (
            "one IPv6 client",
            PORTS.map(|port| ipv6(ULA, 9, port)).collect(),
        ),
        (
            "one IPv6 NAT",
            (0..65_536)
                .map(|port| ipv6(DOC + 1, EUI64 + 0x01_0203, port))
                .collect(),
        ),
        (
            "EUI-64 in a /64",
            clients(|number, port| ipv6(ULA, EUI64 + number, port)),
        ),
        (
            "counted hosts in a /64",
            clients(|number, port| ipv6(ULA, number + 1, port)),
        ),
        (
            "1,000 /64",
            clients(|number, port| ipv6(DOC + number, 1, port)),
        ),
        (
            "network and host alike",
            (0..60_000)
                .map(|number| ipv6(DOC + number, number, 40_000))
                .collect(),
        ),
    ]
}

/// A service's hash under a random key of the cluster.
fn random_hash(random: &mut Random, address: Be128) -> ServiceHash {
    ServiceHash::new([random.word(), random.word()], address, Be16::new(6443))
}

fn bucket(hash: &ServiceHash, (source, port): Input) -> u16 {
    match source.ipv4() {
        Some(source) => hash.bucket_ipv4(source, port),
        None => hash.bucket_ipv6(source, port),
    }
}

/// Which of `nodes` comes first in each bucket: each as often as the others, in random order.
fn first_nodes(random: &mut Random, nodes: usize) -> Vec<usize> {
    let mut first: Vec<usize> = (0..1 << 16).map(|bucket| bucket % nodes).collect();
    for end in (1..first.len()).rev() {
        first.swap(end, random.below(end + 1));
    }
    first
}

#[test]
fn shares_of_structured_clients_are_as_even_as_chance() {
    const KEYS: usize = 40;
    let mut random = Random(18);
    for nodes in [3, 7] {
        let first = first_nodes(&mut random, nodes);
        for (name, inputs) in inputs() {
            let wanted = inputs.len() as f64 / nodes as f64;
            // The standard deviation of a share if each input chose its node at random.
            let chance = ((nodes as f64 - 1.0) / inputs.len() as f64).sqrt();
            let (mut worst, mut squares) = (0_f64, 0_f64);
            for _ in 0..KEYS {
                let hash = random_hash(&mut random, inputs[0].0);
                let mut shares = vec![0_u32; nodes];
                for input in &inputs {
                    shares[first[usize::from(bucket(&hash, *input))]] += 1;
                }
                for share in shares {
                    let error = (f64::from(share) / wanted - 1.0) / chance;
                    worst = worst.max(error.abs());
                    squares += error * error;
                }
            }
            let deviation = (squares / (KEYS * nodes) as f64).sqrt();
            // Chance exceeds 5 in one of 1.7 million shares; these are 5,000.
            assert!(
                worst < 5.0,
                "{name}, {nodes} nodes: {worst:.2} deviations off"
            );
            assert!(
                deviation < 1.2,
                "{name}, {nodes} nodes: {deviation:.2} times chance"
            );
        }
    }
}

#[test]
fn each_bit_of_a_client_changes_each_bit_of_the_bucket_half_of_the_time() {
    const KEYS: u32 = 4_000;
    let mut random = Random(19);
    let clients = [
        (ipv4(0x0a01_0203, 40_000), 32),
        (ipv6(0xfd00 << 48, 9, 40_000), 128),
    ];
    for ((source, port), bits) in clients {
        for bit in 0..bits + 16 {
            let mut changes = [0_u32; 16];
            for _ in 0..KEYS {
                let hash = random_hash(&mut random, source);
                let changed = if bit < bits {
                    // The last bits of the wire are those of an IPv4 address.
                    let word = u128::from_be_bytes(source.to_wire()) ^ 1 << bit;
                    (Be128::from_wire(word.to_be_bytes()), port)
                } else {
                    (source, Be16::new(port.get() ^ 1 << (bit - bits)))
                };
                let difference = bucket(&hash, (source, port)) ^ bucket(&hash, changed);
                for (place, changes) in changes.iter_mut().enumerate() {
                    *changes += u32::from(difference >> place & 1);
                }
            }
            for (place, changes) in changes.into_iter().enumerate() {
                let share = f64::from(changes) / f64::from(KEYS);
                // Chance is off by 0.8 % in the mean, by 4 % in one of a million.
                assert!(
                    (share - 0.5).abs() < 0.045,
                    "input bit {bit} of {source:?} changes output bit {place} in {share:.3}"
                );
            }
        }
    }
}

#[test]
fn buckets_are_those_of_the_documented_formula() {
    let hash = ServiceHash([1, 2, 3, 4, 5, 6, 7]);
    let port = Be16::from_wire([1, 2]);
    let mix = |x: u64| ((x ^ x >> 32).wrapping_mul(7) >> 48) as u16;
    let x = (0x0403_0201_u64 + 1) * (0x0201 + 2);
    assert_eq!(
        hash.bucket_ipv4(Be32::from_wire([1, 2, 3, 4]), port),
        mix(x)
    );
    let address = Be128::from_wire([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    let x = (0x0403_0201_u64 + 1)
        .wrapping_mul(0x0807_0605 + 2)
        .wrapping_add((0x0c0b_0a09_u64 + 3).wrapping_mul(0x100f_0e0d + 4))
        .wrapping_add(0x0201 * 5 + 6);
    assert_eq!(hash.bucket_ipv6(address, port), mix(x));
}

#[test]
fn services_and_clusters_have_other_keys() {
    let address = Be32::new(0x0a00_000a).into();
    let keys = |key, port| ServiceHash::new(key, address, Be16::new(port)).0;
    assert_ne!(keys([1, 2], 6443), keys([1, 2], 443));
    assert_ne!(keys([1, 2], 6443), keys([2, 1], 6443));
    assert_eq!(keys([1, 2], 6443)[6] & 1, 1);
}
