//! The walk down the ranks, and the verdict for each kind of segment.

use super::*;

#[test]
fn a_clients_segment_goes_to_the_first_usable_rank() {
    use Counter::NoSocket;
    use tcp::{ACK, SYN};
    check(vec![
        (
            "SYN to the first",
            world(same),
            to(1, SYN),
            forward(1, true),
        ),
        (
            "data to the first",
            world(same),
            to(1, ACK),
            forward(1, false),
        ),
        (
            "SYN past a node that gets no new ones",
            world(unready(1)),
            to(1, SYN),
            forward(2, true),
        ),
        (
            "data to a node that gets no new ones",
            world(unready(1)),
            to(1, ACK),
            forward(1, false),
        ),
        (
            "data past a dead one",
            world(dead(1)),
            to(1, ACK),
            forward(2, false),
        ),
        (
            "SYN past a dead one",
            world(dead(1)),
            to(1, SYN),
            forward(2, true),
        ),
        (
            "SYN past a node with an unknown Ethernet address",
            world(|w| w.state.backends[1].mac = Mac::default()),
            to(1, SYN),
            forward(2, true),
        ),
        (
            "SYN while no node gets new connections",
            world(|w| w.state.masks.new_connections[0] = BackendMask::EMPTY),
            to(1, SYN),
            Verdict::pass(NoSocket),
        ),
    ]);
}

#[test]
fn at_its_own_rank_a_node_keeps_a_segment_with_a_socket() {
    use Counter::{LocalSegment, LocalSyn};
    use tcp::{ACK, SYN};
    check(vec![
        (
            "SYN, listener",
            world(socket(Socket::Listener)),
            to(0, SYN),
            local(LocalSyn, true),
        ),
        ("SYN, none", world(same), to(0, SYN), next(1, true)),
        (
            "SYN, listener that takes no new ones",
            world(|w| {
                w.socket = Socket::Listener;
                unready(0)(w);
            }),
            to(0, SYN),
            next(1, true),
        ),
        (
            "retransmitted SYN while this node drains",
            world(|w| {
                w.socket = Socket::Connection;
                unready(0)(w);
            }),
            to(0, SYN),
            local(LocalSyn, true),
        ),
        (
            "data, connection",
            world(socket(Socket::Connection)),
            to(0, ACK),
            local(LocalSegment, false),
        ),
        ("data, none", world(same), to(0, ACK), next(1, false)),
    ]);
}

#[test]
fn a_time_wait_socket_keeps_late_segments_and_new_connections_of_a_usable_node() {
    use Counter::{LocalCookie, LocalSegment, LocalSyn};
    use tcp::{ACK, FIN, RST, SYN};
    check(vec![
        (
            "TIME-WAIT, retransmitted last FIN",
            world(socket(time_wait(SEQUENCE + 1))),
            to(0, ACK | FIN),
            local(LocalSegment, false),
        ),
        (
            "TIME-WAIT, reset of a client that closed with unread data",
            world(socket(time_wait(SEQUENCE))),
            to(0, ACK | RST),
            local(LocalSegment, false),
        ),
        (
            "TIME-WAIT, SYN from the same port",
            world(|w| {
                w.socket = time_wait(0);
                w.listens = true;
            }),
            to(0, SYN),
            local(LocalSyn, true),
        ),
        (
            "TIME-WAIT, SYN, no listener",
            world(socket(time_wait(0))),
            to(0, SYN),
            next(1, true),
        ),
        (
            "TIME-WAIT, SYN, takes no new ones",
            world(|w| {
                w.socket = time_wait(0);
                w.listens = true;
                unready(0)(w);
            }),
            to(0, SYN),
            next(1, true),
        ),
        (
            "TIME-WAIT, data of the new connection at a peer",
            world(socket(time_wait(SEQUENCE ^ 1 << 31))),
            to(0, ACK),
            next(1, false),
        ),
        (
            "TIME-WAIT, data of a new connection that was opened at once",
            world(socket(time_wait(SEQUENCE - 1))),
            to(0, ACK),
            next(1, false),
        ),
        (
            "TIME-WAIT, FIN of the new connection",
            world(socket(time_wait(SEQUENCE ^ 1 << 31))),
            to(0, ACK | FIN),
            next(1, false),
        ),
        (
            "TIME-WAIT, reset of the new connection",
            world(socket(time_wait(SEQUENCE + (1 << 17)))),
            to(0, ACK | RST),
            next(1, false),
        ),
        (
            "TIME-WAIT, the expected number is not known",
            world(socket(Socket::TimeWait { expects: None })),
            to(0, ACK | FIN),
            next(1, false),
        ),
        (
            "data, only a listener",
            world(socket(Socket::Listener)),
            to(0, ACK),
            next(1, false),
        ),
        (
            "cookie",
            world(socket(Socket::Cookie)),
            to(0, ACK),
            local(LocalCookie, false),
        ),
        (
            "cookie with FIN",
            world(socket(Socket::Cookie)),
            to(0, ACK | FIN),
            local(LocalCookie, false),
        ),
        (
            "cookie, but the segment is a reset",
            world(socket(Socket::Cookie)),
            to(0, ACK | RST),
            next(1, false),
        ),
    ]);
}

#[test]
fn a_request_keeps_no_segment_of_a_connection_to_another_node() {
    use Counter::{LocalSegment, LocalSyn};
    use tcp::{ACK, RST, SYN};
    check(vec![
        (
            "its SYN-ACK is acknowledged",
            world(socket(request(ACKNOWLEDGEMENT))),
            to(0, ACK),
            local(LocalSegment, false),
        ),
        (
            "another node's SYN-ACK is acknowledged",
            world(socket(request(ACKNOWLEDGEMENT + 1))),
            to(0, ACK),
            next(1, false),
        ),
        (
            "the connection on another node is reset",
            world(socket(request(ACKNOWLEDGEMENT + 1))),
            to(0, ACK | RST),
            next(1, false),
        ),
        (
            "the client refuses its SYN-ACK",
            world(socket(request(ACKNOWLEDGEMENT + 1))),
            to(0, RST),
            local(LocalSegment, false),
        ),
        (
            "its number is not known",
            world(socket(Socket::Request { expects: None })),
            to(0, ACK),
            local(LocalSegment, false),
        ),
        (
            "retransmitted SYN",
            world(socket(request(ACKNOWLEDGEMENT + 1))),
            to(0, SYN),
            local(LocalSyn, true),
        ),
    ]);
}

#[test]
fn a_forwarded_segment_goes_down_from_the_own_rank() {
    use Counter::{LocalSegment, NoSocket, TtlExceeded, Unasked};
    use tcp::ACK;
    check(vec![
        (
            "forwarded, connection",
            world(socket(Socket::Connection)),
            forwarded(2, ACK),
            local(LocalSegment, false),
        ),
        (
            "forwarded, none",
            world(same),
            with_ttl(33, forwarded(2, ACK)),
            leaving(32, forward(1, false)),
        ),
        (
            "forwarded, none, doubtful",
            world(same),
            with_ttl(17, forwarded(2, ACK)),
            leaving(16, forward(1, false)),
        ),
        (
            "forwarded, the rank above was not asked",
            world(same),
            forwarded(2, ACK),
            leaving(17, forward(1, false)),
        ),
        (
            "forwarded, the rank above was not asked, and is gone",
            world(dead(2)),
            forwarded(2, ACK),
            next(1, false),
        ),
        (
            "forwarded, no rank is left",
            world(same),
            with_ttl(32, forwarded(1, ACK)),
            Verdict::pass(NoSocket),
        ),
        (
            "forwarded, no rank is left, one was not asked",
            world(same),
            with_ttl(33, forwarded(1, ACK)),
            Verdict::drop(Unasked),
        ),
        (
            "forwarded, no rank is left, doubtful",
            world(same),
            with_ttl(16, forwarded(1, ACK)),
            Verdict::drop(Unasked),
        ),
        (
            "forwarded, all other nodes asked",
            world(same),
            with_ttl(31, forwarded(2, ACK)),
            Verdict::drop(TtlExceeded),
        ),
        (
            "forwarded, all other nodes asked, connection",
            world(socket(Socket::Connection)),
            with_ttl(31, forwarded(2, ACK)),
            local(LocalSegment, false),
        ),
        (
            "forwarded, all nodes asked, and no rank is left: no reset",
            world(same),
            with_ttl(31, forwarded(1, ACK)),
            Verdict::drop(TtlExceeded),
        ),
        (
            "last resort, connection",
            world(socket(Socket::Connection)),
            with_ttl(passage::LAST_RESORT, forwarded(2, ACK)),
            local(LocalSegment, false),
        ),
        (
            "last resort, none",
            world(same),
            with_ttl(passage::LAST_RESORT, forwarded(2, ACK)),
            Verdict::drop(Unasked),
        ),
        // A segment that a peer sends itself or routes is a client's.
        (
            "a peer's own or routed segment",
            world(same),
            with_ttl(passage::FIRST + 1, forwarded(2, ACK)),
            forward(2, false),
        ),
        // Forwarded by a node whose Ethernet source is rewritten: from the first rank on.
        (
            "forwarded, unknown source",
            world(same),
            Tcp {
                from: REWRITTEN,
                ..forwarded(2, ACK)
            },
            leaving(17, forward(2, false)),
        ),
        (
            "forwarded, learned source",
            World::new(3, 0).knowing_source(2, REWRITTEN),
            Tcp {
                from: REWRITTEN,
                ..with_ttl(33, forwarded(2, ACK))
            },
            leaving(32, forward(1, false)),
        ),
        (
            "forwarded, ARP address of a node with another source",
            World::new(3, 0).knowing_source(2, REWRITTEN),
            with_ttl(33, forwarded(2, ACK)),
            leaving(32, forward(1, false)),
        ),
    ]);
}

#[test]
fn a_clients_low_ttl_counts_as_hops_between_nodes() {
    use Counter::{LocalSegment, LocalSyn, TtlExceeded, Unasked};
    use tcp::{ACK, SYN};
    check(vec![
        (
            "one hop is left",
            world(same),
            with_ttl(32, to(1, ACK)),
            leaving(15, forward(1, false)),
        ),
        (
            "no hop is left",
            world(same),
            with_ttl(31, to(1, ACK)),
            Verdict::drop(TtlExceeded),
        ),
        (
            "no hop is left, connection",
            world(socket(Socket::Connection)),
            with_ttl(1, to(1, ACK)),
            local(LocalSegment, false),
        ),
        (
            "no hop is left, listener",
            world(socket(Socket::Listener)),
            with_ttl(0, to(1, SYN)),
            local(LocalSyn, true),
        ),
        (
            "no rank is left: neither refused nor reset",
            world(|w| {
                dead(1)(w);
                dead(2)(w);
            }),
            with_ttl(33, to(0, SYN)),
            Verdict::drop(Unasked),
        ),
    ]);
}

#[test]
fn a_joining_node_keeps_its_own_connections_and_forwards_nothing() {
    use Counter::{Joining, LocalSegment, LocalSyn};
    use tcp::{ACK, SYN};
    check(vec![
        (
            "joining, connection",
            world(|w| {
                w.state.masks.no_forward = BackendMask::ALL;
                socket(Socket::Connection)(w);
            }),
            to(1, ACK),
            local(LocalSegment, false),
        ),
        (
            "joining, SYN, listener",
            world(|w| {
                w.state.masks.no_forward = BackendMask::ALL;
                socket(Socket::Listener)(w);
            }),
            to(1, SYN),
            local(LocalSyn, true),
        ),
        (
            "joining, data, none",
            world(|w| w.state.masks.no_forward = BackendMask::ALL),
            to(1, ACK),
            Verdict::drop(Joining),
        ),
        (
            "joining, SYN, none",
            world(|w| w.state.masks.no_forward = BackendMask::ALL),
            to(1, SYN),
            Verdict::drop(Joining),
        ),
    ]);
}
