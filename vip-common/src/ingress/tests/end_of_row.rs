//! The end of the row: the suspects, and when a segment is refused or reset.

use super::*;

#[test]
fn a_segment_is_reset_only_if_no_member_may_have_its_connection() {
    use Counter::{NoSocket, Unasked};
    use tcp::{ACK, SYN};
    let alone = |w: &mut World| {
        dead(1)(w);
        dead(2)(w);
    };
    check(vec![
        (
            "all others are gone",
            world(alone),
            to(0, ACK),
            Verdict::pass(NoSocket),
        ),
        (
            "and the agent no longer says so",
            world(|w| {
                alone(w);
                w.state.resets_until = NOW;
            }),
            to(0, ACK),
            Verdict::drop(Unasked),
        ),
        (
            "a SYN needs no agent",
            world(|w| {
                alone(w);
                w.state.resets_until = NOW;
            }),
            to(0, SYN),
            Verdict::pass(NoSocket),
        ),
        (
            "one is away",
            world(|w| {
                alone(w);
                sees(2, Seen::Away)(w);
            }),
            to(0, ACK),
            Verdict::drop(Unasked),
        ),
        (
            "a SYN while one is away",
            world(|w| {
                alone(w);
                sees(2, Seen::Away)(w);
            }),
            to(0, SYN),
            Verdict::pass(NoSocket),
        ),
        (
            "past one that is away",
            world(sees(1, Seen::Away)),
            to(1, ACK),
            leaving(18, forward(2, false)),
        ),
        (
            "a SYN past one that is away",
            world(sees(1, Seen::Away)),
            to(1, SYN),
            forward(2, true),
        ),
        (
            "past one whose Ethernet address is unknown",
            world(|w| w.state.backends[1].mac = Mac::UNKNOWN),
            to(1, ACK),
            leaving(18, forward(2, false)),
        ),
    ]);
}

#[test]
fn a_suspect_gets_a_segment_after_all_other_nodes() {
    use Counter::{Joining, Unasked};
    use tcp::{ACK, SYN};
    let last = |node, syn| leaving(passage::LAST_RESORT, forward(node, syn));
    let only_suspect = |w: &mut World| {
        sees(1, Seen::Suspect)(w);
        dead(2)(w);
    };
    check(vec![
        (
            "data past a suspect",
            world(sees(1, Seen::Suspect)),
            to(1, ACK),
            leaving(18, forward(2, false)),
        ),
        (
            "SYN past a suspect",
            world(sees(1, Seen::Suspect)),
            to(1, SYN),
            leaving(18, forward(2, true)),
        ),
        (
            "data, no other rank is left",
            world(only_suspect),
            to(0, ACK),
            last(1, false),
        ),
        (
            "SYN, no other rank is left",
            world(only_suspect),
            to(1, SYN),
            last(1, true),
        ),
        (
            "doubtful data, no other rank is left",
            world(only_suspect),
            with_ttl(17, forwarded(2, ACK)),
            last(1, false),
        ),
        (
            "SYN, the suspect's Ethernet address is unknown",
            world(|w| {
                only_suspect(w);
                w.state.backends[1].mac = Mac::UNKNOWN;
            }),
            to(0, SYN),
            Verdict::drop(Unasked),
        ),
        (
            "the suspect gets nothing from this node",
            world(|w| {
                only_suspect(w);
                w.state.masks.no_forward = BackendMask::ALL;
            }),
            to(0, ACK),
            Verdict::drop(Joining),
        ),
    ]);
}

#[test]
fn a_time_wait_socket_at_the_end_of_the_row_gets_the_reset_that_ends_it() {
    let later = SEQUENCE + (1 << 17);
    let alone = |socket| {
        let world = World::new(3, 0).seeing(1, Seen::Gone).seeing(2, Seen::Gone);
        World { socket, ..world }
    };
    for segment in [to(0, tcp::ACK), by_ipv6(to(0, tcp::ACK | tcp::FIN))] {
        let mut frame = segment.build();
        let (verdict, action) = alone(time_wait(later)).run(&mut frame);
        assert_eq!(action, Action::Pass);
        assert_eq!(
            (verdict.kind, verdict.counter),
            (Kind::EndTimeWait, Counter::NoSocket)
        );
        let reset = Tcp {
            flags: tcp::RST,
            sequence: later,
            ..segment
        };
        assert_eq!(frame, reset.build());

        // The stack itself resets what no socket lies in the way of.
        let mut frame = segment.build();
        let unknown = Socket::TimeWait { expects: None };
        for socket in [unknown, Socket::None] {
            assert_eq!(
                alone(socket).run(&mut frame).0,
                Verdict::pass(Counter::NoSocket)
            );
            assert_eq!(frame, segment.build());
        }
        // Another member may have the connection: the socket stays as it is.
        let away = alone(time_wait(later)).seeing(2, Seen::Away);
        assert_eq!(away.run(&mut frame).0, Verdict::drop(Counter::Unasked));
    }
}
