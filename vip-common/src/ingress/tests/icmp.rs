//! ICMP errors.

use super::*;

#[test]
fn an_icmp_error_goes_to_the_node_of_its_connection() {
    use Counter::*;
    // A server's segment to a client, in whose row node `first` has the first rank.
    let answer = |first| {
        let segment = to(first, tcp::ACK);
        [segment, by_ipv6(segment)].map(|segment| Tcp {
            source: segment.destination,
            destination: segment.source,
            source_port: segment.port,
            port: segment.source_port,
            ..segment
        })
    };
    let run = |world: &World, frame: &mut Vec<u8>| {
        let verdict = world.run(frame).0.of(0);
        Verdict {
            ipv6: false,
            ..verdict
        }
    };
    for (ipv6, kinds) in [(0, &[3, 11, 12][..]), (1, &[1, 2, 3, 4])] {
        for &kind in kinds {
            let error = |first: usize| answer(first)[ipv6].quoted_by_router(0, kind);
            let none = World::new(3, 0);
            assert_eq!(run(&none, &mut error(1)), forward(1, false));
            assert_eq!(run(&none, &mut error(0)), next(1, false));
            let mine = world(socket(Socket::Connection));
            assert_eq!(run(&mine, &mut error(0)), local(LocalError, false));
            let listens = world(socket(Socket::Cookie));
            assert_eq!(run(&listens, &mut error(0)), next(1, false));
            let mut alone = World::new(3, 0);
            alone.state.masks.alive = BackendMask::EMPTY;
            assert_eq!(run(&alone, &mut error(0)), Verdict::pass(NoSocket));
            // The hops of an error have the same bound.
            let mut spent = error(1);
            spent[[22, 21][ipv6]] = 31;
            assert_eq!(run(&none, &mut spent), Verdict::drop(TtlExceeded));
            if ipv6 == 0 {
                // A later fragment has no ICMP header.
                let mut fragment = error(1);
                fragment[21] = 1;
                assert_eq!(run(&none, &mut fragment), Verdict::pass(Icmp));
            }
        }
        // Echo, and errors about a port without a service.
        let other = answer(1)[ipv6];
        for frame in [
            other.quoted_by_router(0, [8, 128][ipv6]),
            Tcp {
                source_port: 22,
                ..other
            }
            .quoted_by_router(0, [3, 2][ipv6]),
        ] {
            let mut frame = frame;
            assert_eq!(run(&World::new(3, 0), &mut frame), Verdict::pass(Icmp));
        }
    }
    // The quoted segment gets the target as its port, by which the stack knows it.
    let mut world = World::new(3, 0).mapping(443, PORT);
    world.socket = Socket::Connection;
    for answer in answer(0) {
        let quoted = Tcp {
            source_port: 443,
            ..answer
        };
        let port = (20_000..60_000).find(|&port| {
            let segment = Tcp {
                source: quoted.destination,
                destination: quoted.source,
                source_port: port,
                port: 443,
                ..quoted
            };
            world.rows[segment.bucket(&world)].first().get() == 0
        });
        let quoted = Tcp {
            port: port.expect("some port has node 0 first"),
            ..quoted
        };
        let kind = if quoted.source.ipv4().is_some() { 3 } else { 2 };
        let mut frame = quoted.quoted_by_router(0, kind);
        assert_eq!(world.run(&mut frame).0.counter, LocalError);
        // The TCP checksum in the quote is not updated; the checksum of the message is.
        let mut expected = Tcp {
            source_port: PORT,
            ..quoted
        }
        .quoted_by_router(0, kind);
        let sums = |frame: &mut Vec<u8>| {
            let end = frame.len();
            frame[end - 4..end - 2].fill(0);
            let message = if quoted.source.ipv4().is_some() {
                34
            } else {
                54
            };
            frame[message + 2..message + 4].fill(0);
        };
        sums(&mut frame);
        sums(&mut expected);
        assert_eq!(frame, expected);
    }
}
