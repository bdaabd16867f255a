//! Paths of packets from node to node: where they end, and the bound of their hops.

use proptest::prelude::*;

use super::*;
use crate::abi::{RankRow, Service};
use crate::testing::ROWS;
use crate::wire::addr::Be16;

/// A cluster on one segment. The nodes' masks may differ, as they do for a moment after a change.
struct Cluster {
    worlds: Vec<World>,
    /// One bit for each node whose Ethernet source something on the path rewrites.
    rewritten: usize,
}

impl Cluster {
    fn new(worlds: impl IntoIterator<Item = World>) -> Self {
        Self {
            worlds: worlds.into_iter().collect(),
            rewritten: 0,
        }
    }

    /// Sends the segment to a node and follows it. Returns the nodes that it visited, and the last
    /// verdict.
    fn send(&self, segment: Tcp, node: usize) -> (Vec<usize>, Verdict) {
        self.follow(segment.build(), node)
    }

    /// Sends a frame to a node and follows it.
    fn follow(&self, mut frame: Vec<u8>, mut node: usize) -> (Vec<usize>, Verdict) {
        let mut visited = vec![node];
        frame[..6].copy_from_slice(&node_mac(node).to_wire());
        // The longest list is the bound.
        let lists = self.worlds.iter();
        let longest = lists.map(|world| world.state.config.backend_count).max();
        let longest = longest.expect("a cluster has nodes") as usize;
        loop {
            let verdict = self.worlds[node].run(&mut frame).0;
            if verdict.kind != Kind::Forward {
                return (visited, verdict);
            }
            if self.rewritten >> node & 1 == 1 {
                let rewritten = Mac::from_wire([2, 7, 7, 7, 7, node as u8]);
                frame[6..12].copy_from_slice(&rewritten.to_wire());
            }
            // Lists may differ, so that the index in the verdict means nothing here.
            let is_there = |other: &usize| node_mac(*other) == verdict.mac;
            node = (0..self.worlds.len()).find(is_there).expect("a node");
            visited.push(node);
            let hops = visited.len() - 1;
            assert!(hops <= longest + 1, "goes round: {visited:?}");
        }
    }
}

proptest! {
    /// A packet never loops, whatever health each node knows of its peers. It visits no node twice
    /// but the one that it entered by, which has not walked past its own rank then.
    #[test]
    fn a_packet_never_loops(
        nodes in 1..=7_usize, entry in 0..7_usize, port: u16, syn: bool,
        healths in proptest::collection::vec((any::<u8>(), any::<u8>()), 7),
        sockets: [bool; 7],
    ) {
        let cluster = Cluster::new((0..nodes).map(|me| {
            let mut world = World::new(nodes, me);
            for other in 0..nodes {
                let (alive, ready) = healths[me];
                world.state.masks.alive = world.state.masks.alive.with(backend(other), alive >> other & 1 == 1);
                world.state.masks.new_connections[0] = world.state.masks.new_connections[0].with(backend(other), ready >> other & 1 == 1);
            }
            world.socket = if sockets[me] { Socket::Connection } else { Socket::None };
            world
        }));
        let flags = if syn { tcp::SYN } else { tcp::ACK };
        let (visited, _) = cluster.send(Tcp::new(0, port, flags), entry % nodes);
        let mut later = visited[1..].to_vec();
        later.sort_unstable();
        later.dedup();
        prop_assert_eq!(later.len(), visited.len() - 1, "{:?}", visited);
    }

    /// If all nodes know the same health, a segment ends at the node that has its connection,
    /// whichever node it enters by, and at one reset if none has it.
    #[test]
    fn a_segment_reaches_its_connection_by_any_node(
        nodes in 1..=7_usize, entry in 0..7_usize, holder in 0..8_usize, port: u16, alive: u8,
    ) {
        let entry = entry % nodes;
        let mut mask = BackendMask::EMPTY;
        for node in 0..nodes {
            // A node that runs the program is alive to itself.
            mask = mask.with(backend(node), node == entry || alive >> node & 1 == 1);
        }
        let cluster = Cluster::new((0..nodes).map(|me| {
            let mut world = World::new(nodes, me);
            world.state.masks.alive = mask;
            world.state.masks.not_gone = mask.with(backend(me), true);
            world.socket = if me == holder { Socket::Connection } else { Socket::None };
            world
        }));
        let (visited, verdict) = cluster.send(Tcp::new(0, port, tcp::ACK), entry);
        if holder < nodes && mask.contains(backend(holder)) {
            prop_assert_eq!(visited.last(), Some(&holder));
            prop_assert_eq!(verdict.of(0), Verdict::local(Counter::LocalSegment, holder as u32, false));
        } else {
            prop_assert_eq!(verdict, Verdict::pass(Counter::NoSocket));
        }
    }

    /// No segment of a connection is reset while a node joins, whichever peers know of it already.
    /// The segment reaches its connection, or the joining node drops it and the client sends it
    /// again. If the joining node itself has the connection, its segments enter there.
    #[test]
    fn a_joining_node_resets_nothing(
        nodes in 2..=7_usize, entry in 0..7_usize, holder in 0..7_usize, joins in 0..7_usize,
        port: u16, known: u8, knows: u8,
    ) {
        let (holder, joins) = (holder % nodes, joins % nodes);
        let entry = if holder == joins { joins } else { entry % nodes };
        let cluster = Cluster::new((0..nodes).map(|me| {
            let mut world = World::new(nodes, me);
            let masks = &mut world.state.masks;
            if me == joins {
                masks.no_forward = BackendMask::ALL;
                for other in (0..nodes).filter(|other| *other != me) {
                    masks.alive = masks.alive.with(backend(other), knows >> other & 1 == 1);
                }
            } else {
                masks.alive = masks.alive.with(backend(joins), known >> me & 1 == 1);
            }
            world.socket = if me == holder { Socket::Connection } else { Socket::None };
            world
        }));
        let (visited, verdict) = cluster.send(Tcp::new(0, port, tcp::ACK), entry);
        let last = *visited.last().expect("it begins somewhere");
        if last == holder {
            prop_assert_eq!(verdict.kind, Kind::Local);
        } else {
            prop_assert_eq!((last, verdict), (joins, Verdict::drop(Counter::Joining)));
        }
    }
}

/// Every cluster of up to 5 nodes in every state, with every row, by every node that a packet can
/// enter by. The packet ends at the first usable node of its row that has a socket for it; without
/// one, at one reset. All nodes know the same health.
#[test]
fn every_path_ends_at_the_first_socket_of_its_row_or_at_one_reset() {
    /// Whether a node gets new connections, and its socket; `None` if it is not alive.
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
    let mut paths = 0;
    for nodes in 1..=5 {
        let mut cluster = Cluster::new((0..nodes).map(|me| World::new(nodes, me)));
        // A flow for each row: they begin at each of the nodes and go round from there.
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
            let mut masks = crate::abi::Masks::all(nodes);
            masks.alive = mask(&|state| state.is_some());
            masks.not_gone = masks.alive;
            let ready = mask(&|state| matches!(state, Some((true, _))));
            choose(&mut masks, ready);
            for (node, world) in cluster.worlds.iter_mut().enumerate() {
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
                let first = cluster.worlds[0].rows[segment.bucket(&cluster.worlds[0])]
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
                    // The node that the packet enters by looks for its socket at its own rank, even
                    // if it is not usable; but a packet that has left it does not return.
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
                    // No node twice, except the one that the packet enters by.
                    let mut later = visited[1..].to_vec();
                    later.sort_unstable();
                    later.dedup();
                    assert_eq!(later.len(), visited.len() - 1, "{what:?}: {visited:?}");
                    paths += 1;
                }
            }
        }
    }
    assert!(paths > 600_000, "{paths}");
}

/// Chooses the nodes for new connections as the agent does: those that are ready, or all that are
/// alive if none is ready.
fn choose(masks: &mut crate::abi::Masks, ready: BackendMask) {
    let ready = ready.and(masks.alive);
    masks.new_connections[0] = if ready.is_empty() { masks.alive } else { ready };
}

/// Every cluster of up to 5 nodes without a socket for the segment, in every health, with every
/// row, by every node, and with every set of nodes whose source is rewritten.
#[test]
fn no_path_is_longer_than_its_bound_whatever_sources_are_rewritten() {
    let mut longest = [0; 5];
    for (longest, nodes) in longest.iter_mut().zip(1..) {
        let mut cluster = Cluster::new((0..nodes).map(|me| World::new(nodes, me)));
        let flow = |first, flags| Tcp::new(0, 0, flags).first_at(&World::new(nodes, 0), first);
        let flows: Vec<Tcp> = (0..nodes)
            .flat_map(|first| [flow(first, tcp::SYN), flow(first, tcp::ACK)])
            .collect();
        for number in 0..3_usize.pow(nodes as u32) {
            let state = |node: usize| number / 3_usize.pow(node as u32) % 3;
            let mut masks = crate::abi::Masks::all(nodes);
            let mut ready = BackendMask::EMPTY;
            for node in 0..nodes {
                masks.alive = masks.alive.with(backend(node), state(node) > 0);
                ready = ready.with(backend(node), state(node) > 1);
            }
            masks.not_gone = masks.alive;
            choose(&mut masks, ready);
            for world in &mut cluster.worlds {
                world.state.masks = masks;
            }
            for rewritten in 0..1 << nodes {
                cluster.rewritten = rewritten;
                for segment in &flows {
                    for entry in (0..nodes).filter(|node| state(*node) > 0) {
                        // This fails if the path is too long.
                        let (visited, verdict) = cluster.send(*segment, entry);
                        *longest = (*longest).max(visited.len() - 1);
                        if rewritten == 0 {
                            assert_eq!(verdict, Verdict::pass(Counter::NoSocket));
                        }
                    }
                }
            }
        }
    }
    // The bound is reached.
    assert_eq!(longest, [0, 3, 4, 5, 6]);
}

/// With all nodes up, no segment of a connection is reset, whatever sources are rewritten. If all
/// are rewritten, the share of segments that reach their connection is the one in
/// docs/troubleshooting.md. Once the sources are learned, all do.
#[test]
fn rewritten_sources_hide_connections_until_they_are_learned() {
    let mut found_of = Vec::new();
    for nodes in 2..=5 {
        let flow = |first| Tcp::new(0, 0, tcp::ACK).first_at(&World::new(nodes, 0), first);
        let flows: Vec<Tcp> = (0..nodes).map(flow).collect();
        for learned in [false, true] {
            let mut cluster = Cluster::new((0..nodes).map(|me| {
                let world = World::new(nodes, me);
                (0..nodes).filter(|_| learned).fold(world, |world, node| {
                    world.knowing_source(node, Mac::from_wire([2, 7, 7, 7, 7, node as u8]))
                })
            }));
            let (mut all, mut found) = (0, 0);
            for holder in 0..nodes {
                for (node, world) in cluster.worlds.iter_mut().enumerate() {
                    world.socket = if node == holder {
                        Socket::Connection
                    } else {
                        Socket::None
                    };
                }
                for rewritten in 1..1 << nodes {
                    cluster.rewritten = rewritten;
                    for (first, segment) in flows.iter().enumerate() {
                        for entry in 0..nodes {
                            let (visited, verdict) = cluster.send(*segment, entry);
                            let is_found = visited.last() == Some(&holder)
                                && verdict.counter == Counter::LocalSegment;
                            let dropped = verdict == Verdict::drop(Counter::TtlExceeded);
                            assert!(is_found || dropped && !learned, "{verdict:?}");
                            // A connection at the first rank needs no second hop.
                            assert!(is_found || first != holder);
                            if rewritten == (1 << nodes) - 1 {
                                all += 1;
                                found += usize::from(is_found);
                            }
                        }
                    }
                }
            }
            if !learned {
                found_of.push(100 * found / all);
            }
        }
    }
    assert_eq!(found_of, [50, 66, 25, 40], "percent, of 2 to 5 nodes");
}

proptest! {
    /// A frame makes at most one hop more than the longest list has nodes. This holds for any
    /// health that a node knows of its peers, for lists that lack nodes, for different hash keys,
    /// for rewritten sources, and for any TTL.
    #[test]
    fn no_frame_makes_more_than_n_plus_1_hops(
        nodes in 1..=7_usize, entry in 0..7_usize, rewritten in 0..128_usize, port: u16,
        ttl: u8, kind in 0..4_usize,
        views in proptest::collection::vec((any::<u8>(), any::<u8>(), any::<u8>(), 0..3_u64), 7),
    ) {
        let mut cluster = Cluster::new((0..nodes).map(|me| {
            let (alive, ready, lacks, key) = views[me];
            let knows = |node: &usize| *node == me || lacks >> node & 1 == 0;
            let list: Vec<usize> = (0..nodes).filter(knows).collect();
            let place = list.iter().position(|node| *node == me).expect("knows itself");
            let mut world = World::with_list(&list, place);
            let masks = &mut world.state.masks;
            let mut choice = BackendMask::EMPTY;
            for place in 0..list.len() {
                masks.alive = masks.alive.with(backend(place), alive >> place & 1 == 1);
                choice = choice.with(backend(place), ready >> place & 1 == 1);
            }
            choose(masks, choice);
            for vip in &mut world.state.vips[..2] {
                vip.services[0] = Service::new([key, 2], vip.address, Be16::new(PORT));
            }
            world
        }));
        cluster.rewritten = rewritten;
        let segment = Tcp { ttl, ..Tcp::new(0, port, [tcp::SYN, tcp::ACK][kind & 1]) };
        let frame = match kind {
            0 | 1 => segment.build(),
            2 => segment.ipv6().build(),
            _ => {
                let answer = Tcp {
                    source: segment.destination,
                    destination: segment.source,
                    source_port: segment.port,
                    port: segment.source_port,
                    ..segment
                };
                let mut frame = answer.quoted_by_router(0, 3);
                frame[22] = ttl;
                frame
            }
        };
        cluster.follow(frame, entry % nodes);
    }
}

#[test]
fn a_packet_between_nodes_with_different_tables_is_dropped_after_its_last_hop() {
    // Two nodes with opposite rows: a mistake in the configuration.
    let mut worlds = [World::new(2, 0), World::new(2, 1)];
    for row in 0..ROWS {
        worlds[0].rows[row] = RankRow::new([0, 1].map(backend));
        worlds[1].rows[row] = RankRow::new([1, 0].map(backend));
    }
    let mut frame = Tcp::new(0, 1, tcp::ACK).build();
    let mut node = 0;
    for hops in 0..=64 {
        let verdict = worlds[node].run(&mut frame).0;
        if verdict.kind != Kind::Forward {
            assert_eq!(verdict, Verdict::drop(Counter::TtlExceeded));
            assert_eq!(hops, 2);
            return;
        }
        node = verdict.backend as usize;
    }
    panic!("the packet loops");
}
