//! Services whose target is another port than the one that clients connect to.

use super::*;

#[test]
fn a_segment_that_stays_gets_the_target_of_its_service() {
    let listening = |socket| {
        let mut world = World::new(3, 0).mapping(443, PORT);
        world.socket = socket;
        world
    };
    let mine = |flags| {
        let segment = Tcp {
            port: 443,
            ..Tcp::new(0, 0, flags)
        };
        [segment, segment.ipv6()].map(|segment| segment.first_at(&listening(Socket::None), 0))
    };
    for segment in mine(tcp::SYN) {
        let mut frame = segment.build();
        let (verdict, action) = listening(Socket::Listener).run(&mut frame);
        assert_eq!((verdict.kind, action), (Kind::Local, Action::Pass));
        let mapped = Tcp {
            port: PORT,
            ..segment
        };
        assert_eq!(frame, mapped.build());
        // A forwarded segment keeps its port: the peer replaces it.
        let mut frame = segment.build();
        let (verdict, _) = listening(Socket::None).run(&mut frame);
        assert_eq!(verdict.kind, Kind::Forward);
        let forwarded = Tcp {
            ttl: passage::FIRST - 1,
            ..segment
        };
        assert_eq!(frame[14..], forwarded.build()[14..]);
    }
    // A segment without a connection stays, and gets the target too: the egress program writes the
    // port that the client knows into the reset.
    let mut alone = listening(Socket::None);
    for node in [1, 2] {
        alone = alone.seeing(node, Seen::Gone);
    }
    for segment in mine(tcp::ACK) {
        let mut frame = segment.build();
        assert_eq!(alone.run(&mut frame).0.counter, Counter::NoSocket);
        let mapped = Tcp {
            port: PORT,
            ..segment
        };
        assert_eq!(frame, mapped.build());
    }
    // So does the reset that ends a TIME-WAIT socket.
    alone.socket = time_wait(SEQUENCE + (1 << 17));
    for segment in mine(tcp::ACK) {
        let mut frame = segment.build();
        assert_eq!(alone.run(&mut frame).0.kind, Kind::EndTimeWait);
        let reset = Tcp {
            port: PORT,
            flags: tcp::RST,
            sequence: SEQUENCE + (1 << 17),
            ..segment
        };
        assert_eq!(frame, reset.build());
    }
}
