use super::*;

#[test]
fn words_keep_wire_order_and_host_value_apart() {
    assert_eq!(Be16::new(6443).get(), 6443);
    assert_eq!(Be16::from_wire([0x19, 0x2b]).get(), 6443);
    assert_eq!(Be32::from_wire([10, 0, 0, 1]).to_wire(), [10, 0, 0, 1]);
    let mac = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
    assert_eq!(Mac::from_wire(mac).to_wire(), mac);
    assert!(Mac::BROADCAST.is_multicast() && !Mac::from_wire(mac).is_multicast());
}

#[test]
fn a_fence_stands_while_it_is_ahead_and_not_too_far() {
    let now = BootNanos(u64::MAX / 2);
    let at = |nanos: i64| BootNanos(now.0.wrapping_add_signed(nanos));
    let longest = LONGEST_FENCE.as_nanos() as i64;
    for (nanos, stands) in [
        (i64::MIN, false),
        (-1, false),
        (0, false),
        (1, true),
        (longest, true),
        (longest + 1, false),
        (i64::MAX, false),
    ] {
        assert_eq!(at(nanos).stands(now), stands, "{nanos} ns ahead");
    }
    assert!(!BootNanos(u64::MAX).stands(BootNanos(1_000)));
    assert!(!BootNanos::ZERO.stands(BootNanos(1_000)));
    assert!(!BootNanos::ZERO.stands(BootNanos::ZERO));
}

#[test]
fn counters_index_is_their_place_in_the_list() {
    for (place, counter) in Counter::ALL.iter().enumerate() {
        assert_eq!(counter.index() as usize, place);
    }
}

#[test]
fn addresses_of_both_families_keep_their_bytes() {
    use core::net::IpAddr;
    for text in ["10.1.2.3", "fd00:1:2:3:4:5:6:7", "::", "ff02::1"] {
        let address: IpAddr = text.parse().expect("an address");
        let word = Be128::from(address);
        assert_eq!(IpAddr::from(word), address);
        assert_eq!(Be128::from_raw(word.to_raw()), word);
        assert_eq!(Be128::from_words_on_wire(word.to_words_on_wire()), word);
        assert_eq!(Be128::from_wire(word.to_wire()), word);
        assert_eq!(word.ipv4().is_some(), address.is_ipv4());
        assert_eq!(word.is_multicast(), address.is_multicast());
        assert_eq!(word.is_unspecified(), address.is_unspecified());
    }
}

#[test]
fn a_source_is_an_address_of_ipv4_and_a_64_of_ipv6() {
    let source = |text: &str| {
        let address: core::net::IpAddr = text.parse().expect("an address");
        Source::new(1, address.into())
    };
    assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    assert_eq!(source("fd00::1"), source("fd00::2"));
    assert_ne!(source("fd00::1"), source("fd00:0:0:1::1"));
}

#[test]
fn new_connections_go_where_the_agent_wants_them_and_never_to_the_dead() {
    let index = |i| BackendIndex::new(i).expect("small");
    let all = BackendMask::first(3);
    let one = BackendMask::EMPTY.with(index(1), true);
    let mut masks = Masks::all(3);
    masks.new_connections[2] = one;
    assert_eq!(masks.for_new_connections(1), all);
    assert_eq!(masks.for_new_connections(2), one);
    // Whatever was chosen a moment ago.
    masks.alive = all.with(index(1), false);
    assert_eq!(masks.for_new_connections(1), masks.alive);
    assert!(masks.for_new_connections(2).is_empty());
}
