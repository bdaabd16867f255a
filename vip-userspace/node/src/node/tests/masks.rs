//! Which nodes get connections.

use super::*;

#[test]
fn draining_node_gets_no_new_connections_anywhere_and_keeps_its_open_ones() {
    let (mut nodes, mut now) = three();
    for draining in [true, false] {
        let bench = &mut nodes[1];
        bench
            .node
            .on_input(now, Input::Drain(draining), &mut bench.out);
        now = exchange(&mut nodes, now, 5, 1);
        for bench in &nodes {
            let masks = bench.node.masks();
            assert_eq!(masks.new_connections[0].contains(index(1)), !draining);
            assert!(masks.alive.contains(index(1)));
        }
        // As with a server that is not ready: it takes the VIP only if no other node does.
        let priority = if draining { 220 / 4 } else { 220 };
        assert_eq!(nodes[1].node.priority(), priority);
        now = exchange(&mut nodes, now, 3000, 1);
        assert_eq!(nodes[0].node.is_draining(index(1)), draining);
    }
}

/// This node's server accepts nothing, or does again.
fn hang(bench: &mut Bench, now: BootNanos, hangs: bool) {
    let (waiting, since) = (3, now);
    let hang = hangs.then_some(Hang::Queue { waiting, since });
    let check = CheckIndex::API;
    let input = Input::Hang { check, hang };
    bench.node.on_input(now, input, &mut bench.out);
}

#[test]
fn server_that_hangs_by_its_own_nodes_word_gets_no_new_connections_anywhere() {
    let (mut nodes, mut now) = three();
    for hangs in [true, false] {
        hang(&mut nodes[1], now, hangs);
        now = exchange(&mut nodes, now, 5, 1);
        for bench in &nodes {
            let masks = bench.node.masks();
            assert_eq!(masks.new_connections[0].contains(index(1)), !hangs);
            assert!(masks.alive.contains(index(1)) && masks.draining.is_empty());
            let server = bench.node.server(index(1), CheckIndex::API);
            assert_eq!(server == Server::Unready, hangs);
        }
        assert_eq!(nodes[1].node.priority(), 220, "it may be over soon");
        // Good probes over open connections change nothing.
        nodes[1].probe(now, 1, Probe::Ready);
        now = exchange(&mut nodes, now, 1000, 1);
        let masks = nodes[0].node.masks();
        assert_eq!(masks.new_connections[0].contains(index(1)), !hangs);
    }
}

#[test]
fn servers_that_all_hang_get_new_connections_alike() {
    let (mut nodes, now) = three();
    for bench in &mut nodes {
        hang(bench, now, true);
    }
    exchange(&mut nodes, now, 5, 1);
    for bench in &nodes {
        assert_eq!(bench.node.masks().new_connections[0], BackendMask::first(3));
        assert_eq!(bench.node.resort(CheckIndex::API), Resort::Living);
    }
}

#[test]
fn hang_by_probes_is_told_and_a_node_that_drains_tells_only_that() {
    let (mut nodes, mut now) = three();
    for _ in 0..params(1, true).thresholds.fall {
        nodes[1].probe(now, 1, hung(now));
    }
    now = exchange(&mut nodes, now, 100, 1);
    let told = |nodes: &[Bench; 3]| nodes[0].node.selection.hang(index(1), CheckIndex::API);
    assert_eq!(told(&nodes), Some(Hang::Reported));
    drain(&mut nodes[1], now);
    now = exchange(&mut nodes, now, 5, 1);
    assert_eq!(told(&nodes), None);
    assert!(nodes[0].node.is_draining(index(1)));
    let undrain = Input::Drain(false);
    nodes[1].node.on_input(now, undrain, &mut Vec::new());
    now = exchange(&mut nodes, now, 100, 1);
    assert_eq!(told(&nodes), Some(Hang::Reported));
    // Its agent is gone: nobody would say when the server goes on.
    let shutdown = Input::Shutdown;
    nodes[1].node.on_input(now, shutdown, &mut nodes[1].out);
    exchange(&mut nodes, now, 5, 1);
    assert_eq!(told(&nodes), None);
}

#[test]
fn node_gets_nothing_until_its_agent_was_heard() {
    let mut bench = Bench::new(params(1, true));
    bench.probe(at(1), 0, Probe::Ready);
    let masks = bench.node.masks();
    assert!(!masks.new_connections[0].contains(index(0)) && !masks.alive.contains(index(0)));
    let (_, b) = up();
    let masks = b.node.masks();
    assert!(masks.new_connections[0].contains(index(0)) && masks.alive.contains(index(0)));
}

#[test]
fn new_node_is_joining_until_all_others_hear_it() {
    // No other node is there: joining ends.
    let mut alone = Bench::new(params(1, true));
    assert_eq!(alone.node.masks().no_forward, BackendMask::ALL);
    alone.run(at(499));
    assert_eq!(alone.node.masks().no_forward, BackendMask::ALL);
    alone.run(at(500));
    assert!(alone.node.masks().no_forward.is_empty());

    // One is there and the other is not: it waits for the other.
    let mut pair = [0, 1].map(|own| Bench::new(params(own, true)));
    exchange(&mut pair, at(0), 400, 1);
    assert!(pair[0].node.bfd(index(1)).unwrap().is_up());
    assert_eq!(pair[0].node.masks().no_forward, BackendMask::ALL);

    // All are there.
    let mut nodes = [0, 1, 2].map(|own| Bench::new(params(own, true)));
    let mut now = at(0);
    while nodes
        .iter()
        .any(|bench| !bench.node.masks().no_forward.is_empty())
    {
        now = exchange(&mut nodes, now, 1, 1);
        for bench in nodes
            .iter()
            .filter(|bench| bench.node.masks().no_forward.is_empty())
        {
            for other in bench.node.members.others() {
                let hears = nodes[other.get()].node.masks().alive;
                assert!(
                    hears.contains(bench.node.members.own()),
                    "{other:?} knows it"
                );
            }
        }
    }
    assert!(now < at(400), "sooner than by time alone");

    // All hear each other, and one does not know yet how to reach another.
    let mut nodes = [0, 1, 2].map(|own| {
        let knows = |other| own != 0 || other != index(1);
        Bench::knowing(params(own, true), knows)
    });
    exchange(&mut nodes, at(0), 400, 1);
    assert!(nodes[1].node.masks().no_forward.is_empty());
    assert_eq!(nodes[0].node.masks().no_forward, BackendMask::ALL);
    nodes[0].event(at(400), Input::Located(index(1)));
    assert!(nodes[0].node.masks().no_forward.is_empty());

    // An agent that follows an earlier one knows the others.
    let mut node = Node::new(&params(0, true));
    node.on_start(at(0), BootNanos::ZERO, Masks::all(3), &mut Vec::new());
    assert!(node.masks().no_forward.is_empty());
}

#[test]
fn last_usable_node_is_not_drained() {
    let (mut nodes, mut now) = three();
    drain(&mut nodes[0], now);
    now = exchange(&mut nodes, now, 200, 1);
    assert_eq!(nodes[1].node.may_drain(), Ok(()));
    // The third hangs: the second is the last.
    nodes[1].probe(now, 2, hung(now));
    let unfit = |(node, why)| UnfitNode {
        node: index(node),
        why,
    };
    let why = LastUsable {
        check: CheckIndex::API,
        others: [(0, Unfit::Draining), (2, Unfit::Unready)]
            .map(unfit)
            .to_vec(),
    };
    assert_eq!(nodes[1].node.may_drain(), Err(NoDrain::LastUsable(why)));
    // Forced, its connections go to the one that hangs, and not to those that drain; all know.
    let own = index(1);
    nodes[1].event(now, Input::Drain(true));
    let masks = nodes[1].node.masks();
    assert_eq!(
        masks.new_connections[0],
        BackendMask::EMPTY.with(index(2), true)
    );
    assert_eq!(nodes[1].node.resort(CheckIndex::API), Resort::Living);
    assert!(masks.draining.contains(own) && nodes[1].node.may_drain().is_ok());
}

#[test]
fn server_that_was_not_asked_gets_connections_only_if_no_other_one_was() {
    let set = |nodes: &[usize]| {
        let add = |set: BackendMask, node: &usize| set.with(index(*node), true);
        nodes.iter().fold(BackendMask::EMPTY, add)
    };
    let mut nodes = [0, 1, 2].map(|own| Bench::new(params(own, true)));
    // Alone on the segment, it connects its pods to others all the same.
    let masks = nodes[0].node.masks();
    assert_eq!(masks.new_connections[0], set(&[0]));
    assert_eq!(masks.connect[0], set(&[1, 2]));
    let now = exchange(&mut nodes, at(0), 5000, 1);
    let [bench, ..] = &mut nodes;
    assert_eq!(bench.node.masks().new_connections[0], set(&[1, 2]));
    for (server, probe, gets) in [
        (0, Probe::NotReady(String::new()), &[1, 2][..]),
        (2, Probe::Ready, &[2]),
        (1, Probe::Refused, &[2]),
        (0, Probe::Ready, &[0, 2]),
    ] {
        bench.probe(now, server, probe);
        let masks = bench.node.masks();
        let both = (masks.new_connections[0], masks.connect[0]);
        assert_eq!(both, (set(gets), set(gets)), "server {server}");
        assert_eq!(bench.node.resort(CheckIndex::API), Resort::Usable);
    }
}

#[test]
fn owner_is_not_drained_while_no_other_agent_is_heard() {
    let (mut nodes, mut now) = three();
    assert_eq!(nodes[0].node.state(), State::Active);
    assert_eq!(nodes[0].node.may_drain(), Ok(()));
    // The agents of the others end, and their kernels go on.
    for other in [1, 2] {
        nodes[other].event(now, Input::Shutdown);
    }
    now = exchange(&mut nodes, now, 200, 1);
    for other in [1, 2] {
        nodes[0].event(now, Input::Echo(index(other)));
    }
    assert_eq!(nodes[0].node.may_drain(), Err(NoDrain::LastAgent));
}

#[test]
fn single_node_is_not_drained_by_accident() {
    let mut params = params(0, true);
    params.nodes = params.nodes.into_iter().take(1).collect();
    let mut bench = Bench::new(params);
    assert!(bench.node.may_drain().is_err());
    bench.event(at(1), Input::Drain(true));
    assert_eq!(bench.node.resort(CheckIndex::API), Resort::Draining);
    assert!(bench.node.masks().new_connections[0].contains(index(0)));
}

#[test]
fn what_is_known_of_draining_and_unusable_nodes_outlives_the_agent() {
    let (mut nodes, mut now) = three();
    drain(&mut nodes[1], now);
    now = exchange(&mut nodes, now, 200, 1);
    nodes[0].probe(now, 2, hung(now));
    let known = nodes[0].node.masks();
    let mut next = Node::new(&params(0, true));
    next.on_start(now, BootNanos::ZERO, known, &mut Vec::new());
    assert_eq!(next.masks().new_connections, known.new_connections);
    assert!(next.is_draining(index(1)));
}
