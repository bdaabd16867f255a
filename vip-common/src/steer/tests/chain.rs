//! From node to node: where a packet's way ends.

use proptest::prelude::*;

use super::*;
use crate::layout::RankRow;
use crate::testing::BUCKETS;

/// A cluster on one segment: the nodes' masks may differ, as they do for a moment in life.
struct Cluster(Vec<World>);

impl Cluster {
    /// Sends the segment to a node and follows it. Returns the nodes it visited and the
    /// last verdict.
    fn send(&self, segment: Tcp, mut node: usize) -> (Vec<usize>, Verdict) {
        let mut visited = vec![node];
        let mut frame = Tcp {
            to: node_mac(node),
            ..segment
        }
        .build();
        loop {
            let verdict = self.0[node].run(&mut frame).0;
            if verdict.kind != Kind::Forward {
                return (visited, verdict);
            }
            node = verdict.backend as usize;
            visited.push(node);
            assert!(visited.len() <= self.0.len() + 1, "goes round: {visited:?}");
        }
    }
}

proptest! {
    /// Whatever the nodes believe of each other, a packet never loops. It visits no node
    /// twice but the one that it entered by, which has not walked past its own rank then.
    #[test]
    fn a_packet_never_loops(
        nodes in 1..=7_usize, entry in 0..7_usize, port: u16, syn: bool,
        beliefs in proptest::collection::vec((any::<u8>(), any::<u8>()), 7),
        sockets: [bool; 7],
    ) {
        let cluster = Cluster((0..nodes).map(|me| {
            let mut world = World::new(nodes, me);
            for other in 0..nodes {
                let (alive, ready) = beliefs[me];
                world.state.masks.alive = world.state.masks.alive.with(backend(other), alive >> other & 1 == 1);
                world.state.masks.new_connections[0] = world.state.masks.new_connections[0].with(backend(other), ready >> other & 1 == 1);
            }
            world.socket = if sockets[me] { Socket::Connection } else { Socket::None };
            world
        }).collect());
        let flags = if syn { tcp::SYN } else { tcp::ACK };
        let (visited, _) = cluster.send(Tcp::new(0, port, flags), entry % nodes);
        let mut later = visited[1..].to_vec();
        later.sort_unstable();
        later.dedup();
        prop_assert_eq!(later.len(), visited.len() - 1, "{:?}", visited);
    }

    /// With one belief on all nodes, a segment ends at the node that has its connection, by
    /// whichever node it enters, and at one reset if none has it.
    #[test]
    fn a_segment_finds_its_connection(
        nodes in 1..=7_usize, entry in 0..7_usize, holder in 0..8_usize, port: u16, alive: u8,
    ) {
        let entry = entry % nodes;
        let mut mask = BackendMask::EMPTY;
        for node in 0..nodes {
            // A node that runs the program is alive to itself.
            mask = mask.with(backend(node), node == entry || alive >> node & 1 == 1);
        }
        let cluster = Cluster((0..nodes).map(|me| {
            let mut world = World::new(nodes, me);
            world.state.masks.alive = mask;
            world.socket = if me == holder { Socket::Connection } else { Socket::None };
            world
        }).collect());
        let (visited, verdict) = cluster.send(Tcp::new(0, port, tcp::ACK), entry);
        if holder < nodes && mask.contains(backend(holder)) {
            prop_assert_eq!(visited.last(), Some(&holder));
            prop_assert_eq!(verdict.of(0), Verdict::local(Counter::LocalSegment, holder as u32, false));
        } else {
            prop_assert_eq!(verdict, Verdict::pass(Counter::NoSocket));
        }
    }

    /// While a node joins, and some of the others know of it already and some do not, no segment
    /// of a connection is reset: it finds it, or is dropped by the one that joins, to be sent
    /// again. A connection that the one that joins had all along gets its segments from the
    /// client directly.
    #[test]
    fn a_node_that_joins_resets_nothing(
        nodes in 2..=7_usize, entry in 0..7_usize, holder in 0..7_usize, joins in 0..7_usize,
        port: u16, known: u8, knows: u8,
    ) {
        let (holder, joins) = (holder % nodes, joins % nodes);
        let entry = if holder == joins { joins } else { entry % nodes };
        let cluster = Cluster((0..nodes).map(|me| {
            let mut world = World::new(nodes, me);
            let masks = &mut world.state.masks;
            if me == joins {
                masks.withheld = BackendMask::ALL;
                for other in (0..nodes).filter(|other| *other != me) {
                    masks.alive = masks.alive.with(backend(other), knows >> other & 1 == 1);
                }
            } else {
                masks.alive = masks.alive.with(backend(joins), known >> me & 1 == 1);
            }
            world.socket = if me == holder { Socket::Connection } else { Socket::None };
            world
        }).collect());
        let (visited, verdict) = cluster.send(Tcp::new(0, port, tcp::ACK), entry);
        let last = *visited.last().expect("it begins somewhere");
        if last == holder {
            prop_assert_eq!(verdict.kind, Kind::Local);
        } else {
            prop_assert_eq!((last, verdict), (joins, Verdict::drop(Counter::Joining)));
        }
    }
}

/// Every cluster of up to 5 nodes in every state, with every order, by every way in: a
/// packet ends where the first usable node of its order has a socket for it, and nowhere
/// else; with none, at one reset. All nodes believe the same.
#[test]
fn every_chain_ends_at_the_first_socket_of_its_order_or_at_one_reset() {
    /// What a node has for the flow, and whether it is ready; `None` if it is dead.
    type State = Option<(bool, Socket)>;
    const STATES: [State; 7] = [
        None,
        Some((false, Socket::None)),
        Some((false, Socket::Listener)),
        Some((false, Socket::Connection)),
        Some((true, Socket::None)),
        Some((true, Socket::Listener)),
        Some((true, Socket::Connection)),
    ];
    let mut chains = 0;
    for nodes in 1..=5 {
        let mut cluster = Cluster((0..nodes).map(|me| World::new(nodes, me)).collect());
        // A flow for each order: they begin at each of the nodes and go round from there.
        let flow = |first, flags| Tcp::new(0, 0, flags).first_at(&World::new(nodes, 0), first);
        let flows: Vec<Tcp> = (0..nodes)
            .flat_map(|first| [flow(first, tcp::SYN), flow(first, tcp::ACK)])
            .collect();
        for number in 0..STATES.len().pow(nodes as u32) {
            let state = |node: usize| STATES[number / STATES.len().pow(node as u32) % STATES.len()];
            let mask = |member: &dyn Fn(State) -> bool| {
                (0..nodes).fold(BackendMask::EMPTY, |mask, node| {
                    mask.with(backend(node), member(state(node)))
                })
            };
            let mut masks = crate::layout::Masks::all(nodes);
            masks.alive = mask(&|state| state.is_some());
            // As the agent chooses: whoever lives, if none is ready.
            let ready = mask(&|state| matches!(state, Some((true, _))));
            masks.new_connections[0] = if ready.is_empty() { masks.alive } else { ready };
            for (node, world) in cluster.0.iter_mut().enumerate() {
                world.state.masks = masks;
                world.socket = state(node).map_or(Socket::None, |(_, socket)| socket);
            }
            for segment in &flows {
                let syn = segment.flags == tcp::SYN;
                let usable = if syn {
                    masks.for_new_connections(0)
                } else {
                    masks.alive
                };
                let first = cluster.0[0].rows[segment.bucket(&cluster.0[0])]
                    .first()
                    .get();
                for entry in (0..nodes).filter(|node| state(*node).is_some()) {
                    let wants = |node: &usize| {
                        let visited = usable.contains(backend(*node)) || *node == entry;
                        visited
                            && match state(*node) {
                                Some((_, Socket::Connection)) => true,
                                Some((_, Socket::Listener)) => {
                                    syn && usable.contains(backend(*node))
                                }
                                _ => false,
                            }
                    };
                    // A node that is passed over may still be the way in, and then is asked
                    // when its rank comes; but a chain that has left it does not come back.
                    let order = || (0..nodes).map(|rank| (first + rank) % nodes);
                    let before_entry = order().take_while(|node| *node != entry);
                    let leaves = before_entry
                        .clone()
                        .any(|node| usable.contains(backend(node)));
                    let expected = order()
                        .filter(|node| *node != entry || !leaves || usable.contains(backend(entry)))
                        .find(wants);
                    let (visited, verdict) = cluster.send(*segment, entry);
                    let what = (nodes, number, syn, first, entry);
                    match expected {
                        Some(node) => {
                            assert_eq!(visited.last(), Some(&node), "{what:?}");
                            assert_eq!(verdict.kind, Kind::Local, "{what:?}");
                        }
                        None => {
                            assert_eq!(verdict, Verdict::pass(Counter::NoSocket), "{what:?}");
                        }
                    }
                    // No node twice, but for the way in: once as that, once in its rank.
                    let mut later = visited[1..].to_vec();
                    later.sort_unstable();
                    later.dedup();
                    assert_eq!(later.len(), visited.len() - 1, "{what:?}: {visited:?}");
                    chains += 1;
                }
            }
        }
    }
    assert!(chains > 600_000, "{chains}");
}

#[test]
fn nodes_with_different_tables_cannot_send_a_packet_round_for_ever() {
    // Two nodes that disagree about every order: a mistake in the configuration.
    let mut worlds = [World::new(2, 0), World::new(2, 1)];
    for row in 0..BUCKETS as usize {
        worlds[0].rows[row] = RankRow::new([0, 1].map(backend));
        worlds[1].rows[row] = RankRow::new([1, 0].map(backend));
    }
    let mut frame = Tcp::new(0, 1, tcp::ACK).build();
    let mut node = 0;
    for _ in 0..=64 {
        let verdict = worlds[node].run(&mut frame).0;
        if verdict.kind != Kind::Forward {
            assert_eq!(verdict, Verdict::drop(Counter::TtlExceeded));
            return;
        }
        node = verdict.backend as usize;
    }
    panic!("still going after 64 hops");
}
