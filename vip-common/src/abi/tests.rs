use super::*;
use crate::wire::time::BootNanos;

#[test]
fn a_lease_stands_if_it_ends_later_and_within_the_longest_lease() {
    let now = BootNanos(u64::MAX / 2);
    let at = |nanos: i64| BootNanos(now.0.wrapping_add_signed(nanos));
    let longest = LONGEST_LEASE.as_nanos() as i64;
    for (nanos, stands) in [
        (i64::MIN, false),
        (-1, false),
        (0, false),
        (1, true),
        (longest, true),
        (longest + 1, false),
        (i64::MAX, false),
    ] {
        assert_eq!(lease_stands(at(nanos), now), stands, "{nanos} ns ahead");
    }
    assert!(!lease_stands(BootNanos(u64::MAX), BootNanos(1_000)));
    assert!(!lease_stands(BootNanos::ZERO, BootNanos(1_000)));
    assert!(!lease_stands(BootNanos::ZERO, BootNanos::ZERO));
}

#[test]
fn the_index_of_a_counter_is_its_position_in_the_list() {
    for (place, counter) in Counter::ALL.iter().enumerate() {
        assert_eq!(counter.index() as usize, place);
    }
}

#[test]
fn a_source_is_an_ipv4_address_or_an_ipv6_64() {
    let source = |text: &str| {
        let address: core::net::IpAddr = text.parse().expect("an address");
        Source::new(1, address.into())
    };
    assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    assert_eq!(source("fd00::1"), source("fd00::2"));
    assert_ne!(source("fd00::1"), source("fd00:0:0:1::1"));
}

#[test]
fn new_connections_go_to_backends_that_the_agent_chose_and_that_are_alive() {
    let index = |i| BackendIndex::new(i).expect("small");
    let all = BackendMask::first(3);
    let one = BackendMask::EMPTY.with(index(1), true);
    let mut masks = Masks::all(3);
    masks.new_connections[2] = one;
    assert_eq!(masks.for_new_connections(1), all);
    assert_eq!(masks.for_new_connections(2), one);
    // The choice may be older than the health.
    masks.alive = all.with(index(1), false);
    assert_eq!(masks.for_new_connections(1), masks.alive);
    assert!(masks.for_new_connections(2).is_empty());
}
