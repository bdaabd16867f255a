//! Segments that are not steered: for no service, from a source that is not allowed, or above a
//! limit.

use super::*;

#[test]
fn a_segment_for_no_service_is_passed_or_dropped() {
    use Counter::{OtherHost, UndeclaredPort};
    use tcp::SYN;
    check(vec![
        (
            "another address",
            world(same),
            Tcp {
                destination: CLIENT.into(),
                ..to(1, SYN)
            },
            Verdict::UNTOUCHED,
        ),
        (
            "another host's frame",
            world(same),
            Tcp {
                to: node_mac(1),
                ..to(1, SYN)
            },
            Verdict::pass(OtherHost),
        ),
        (
            "broadcast",
            world(same),
            Tcp {
                to: Mac::BROADCAST,
                ..to(1, SYN)
            },
            Verdict::drop(OtherHost),
        ),
        (
            "a port without a service",
            world(same),
            Tcp {
                port: 22,
                ..to(1, SYN)
            },
            Verdict::drop(UndeclaredPort),
        ),
        (
            "IP options",
            world(same),
            Tcp {
                options: 6,
                ..to(1, SYN)
            },
            forward(1, true),
        ),
    ]);
}

#[test]
fn the_first_node_applies_allow_list_and_limit() {
    use Counter::{NoSocket, NotAllowed, SynLimited};
    use tcp::{ACK, SYN};
    check(vec![
        (
            "on the allow list, below the limit",
            World::new(3, 0).refusing(flag::ALLOW_LIST | flag::SYN_LIMIT),
            to(1, SYN),
            forward(1, true),
        ),
        (
            "SYN from a source that is not on the allow list",
            World::new(3, 0).refusing(flag::ALLOW_LIST),
            banned(SYN),
            Verdict::drop(NotAllowed),
        ),
        (
            "the same, forwarded by a peer",
            World::new(3, 0).refusing(flag::ALLOW_LIST),
            Tcp {
                from: node_mac(2),
                ttl: passage::FIRST,
                ..banned(SYN)
            },
            Verdict::drop(NotAllowed),
        ),
        (
            "data of a connection that is older than the allow list",
            World::new(3, 0).refusing(flag::ALLOW_LIST),
            banned(ACK),
            forward(1, false),
        ),
        (
            "SYN-ACK from a source that is not on the allow list",
            World::new(3, 0).refusing(flag::ALLOW_LIST),
            banned(SYN | ACK),
            forward(1, false),
        ),
        (
            "SYN above the limit",
            World::new(3, 0).refusing(flag::SYN_LIMIT),
            banned(SYN),
            Verdict::drop(SynLimited),
        ),
        (
            "data of an open connection above the limit",
            World::new(3, 0).refusing(flag::SYN_LIMIT),
            banned(ACK),
            forward(1, false),
        ),
        (
            "forwarded SYN, which the first node has counted",
            World::new(3, 0).refusing(flag::SYN_LIMIT),
            Tcp {
                from: node_mac(2),
                ttl: passage::FIRST,
                ..banned(SYN)
            },
            Verdict::pass(NoSocket),
        ),
        (
            "a client's SYN, no hop is left",
            World::new(3, 0).refusing(flag::SYN_LIMIT),
            with_ttl(1, banned(SYN)),
            Verdict::drop(SynLimited),
        ),
        (
            "a client's SYN with the TTL of a forwarded one",
            World::new(3, 0).refusing(flag::SYN_LIMIT),
            with_ttl(passage::FIRST, banned(SYN)),
            Verdict::drop(SynLimited),
        ),
    ]);
}
