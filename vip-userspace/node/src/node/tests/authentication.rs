//! BFD with authentication: sessions come up by hellos, and keys change.

use super::*;
use crate::bfd::{Auth, Key};
use crate::input::OpenCluster;

fn key(id: u8) -> Key {
    Key::new(id, &[b'k', id])
}

fn auth(current: u8, other: Option<u8>) -> Auth {
    let (current, other) = (key(current), other.map(key));
    Auth { current, other }
}

/// One of the first `count` nodes of a cluster without a list. It knows them all.
fn node(own: usize, count: usize, auth: Auth) -> Bench {
    let mut params = params(own, true);
    params.nodes = params.nodes.values().take(count).copied().collect();
    params.open = Some(OpenCluster {
        forget_after: Duration::from_secs(3600),
    });
    params.seed = 1 + own as u64;
    if let Some(bfd) = &mut params.bfd {
        bfd.auth = Some(auth);
    }
    Bench::new(params)
}

/// Two nodes, and which packets pass between them.
struct Pair {
    nodes: Vec<Bench>,
    now: BootNanos,
    hellos: bool,
    bfd: bool,
    reports: Vec<Report>,
}

impl Pair {
    fn new() -> Self {
        Self {
            nodes: [0, 1].map(|own| node(own, 2, auth(1, None))).into(),
            now: at(0),
            hellos: false,
            bfd: true,
            reports: Vec::new(),
        }
    }

    /// Lets time pass. Kernels answer ARP all the time.
    fn run(&mut self, ms: u64) {
        let (hellos, bfd) = (self.hellos, self.bfd);
        let reports = &mut self.reports;
        let passes = |action: &Action| match action {
            Action::SendHello { .. } => hellos,
            Action::SendBfd { .. } => bfd,
            Action::Report(report) => {
                reports.push(report.clone());
                false
            }
            _ => true,
        };
        self.now = exchange_if(&mut self.nodes, self.now, ms, 1, passes);
    }

    fn states(&self) -> [bfd::State; 2] {
        [0, 1].map(|node| {
            let session = self.nodes[node].node.bfd(index(1 - node));
            session.expect("BFD is on").state()
        })
    }

    fn lost(&self) -> bool {
        let lost = |report: &Report| matches!(report, Report::Away(_) | Report::Gone(_));
        self.reports.iter().any(lost)
    }
}

#[test]
fn session_comes_up_with_a_hello_and_stays_up_without() {
    let mut pair = Pair::new();
    pair.run(20_000);
    assert_eq!(pair.states(), [bfd::State::Init; 2]);
    pair.hellos = true;
    pair.run(2000);
    assert_eq!(pair.states(), [bfd::State::Up; 2]);
    pair.hellos = false;
    pair.run(20_000);
    assert_eq!(pair.states(), [bfd::State::Up; 2]);
    // It was interrupted, and comes up again only with a hello.
    pair.bfd = false;
    pair.run(300);
    pair.bfd = true;
    pair.run(20_000);
    assert_eq!(pair.states(), [bfd::State::Init; 2]);
    let masks = pair.nodes[0].node.masks();
    assert!(masks.alive.contains(index(1)), "its kernel answers");
    assert!(!pair.lost(), "{:?}", pair.reports);
    pair.hellos = true;
    pair.run(2000);
    assert_eq!(pair.states(), [bfd::State::Up; 2]);
}

#[test]
fn hello_counts_for_five_intervals() {
    let mut pair = Pair::new();
    pair.hellos = true;
    pair.run(3000);
    for (silence, state) in [(3000, bfd::State::Up), (6000, bfd::State::Init)] {
        pair.hellos = false;
        pair.run(silence - 300);
        pair.bfd = false;
        pair.run(300);
        pair.bfd = true;
        pair.run(400);
        assert_eq!(pair.states(), [state; 2], "after {silence} ms");
        pair.hellos = true;
        pair.run(3000);
    }
}

#[test]
fn keys_change_while_sessions_are_up() {
    let mut pair = Pair::new();
    pair.hellos = true;
    pair.run(3000);
    assert_eq!(pair.states(), [bfd::State::Up; 2]);
    pair.reports.clear();
    let steps = [auth(1, Some(2)), auth(2, Some(1)), auth(2, None)];
    for keys in steps {
        for node in 0..2 {
            let bench = &mut pair.nodes[node];
            bench
                .node
                .on_input(pair.now, Input::Keys(keys), &mut bench.out);
            pair.run(1000);
        }
    }
    assert_eq!(pair.states(), [bfd::State::Up; 2]);
    let down = |report: &Report| matches!(report, Report::BfdDown { .. });
    assert!(!pair.reports.iter().any(down), "{:?}", pair.reports);
    // A member that comes later has the new key, too.
    pair.nodes.push(node(2, 3, auth(2, None)));
    pair.run(4000);
    for other in 0..2 {
        let session = pair.nodes[other].node.bfd(index(2));
        assert!(session.is_some_and(Session::is_up));
    }
}

#[test]
fn keys_do_not_turn_authentication_on() {
    let mut nodes = [0, 1].map(|own| Bench::new(params(own, true)));
    nodes[0].event(at(0), Input::Keys(auth(1, None)));
    exchange(&mut nodes, at(0), 3000, 1);
    let session = nodes[0].node.bfd(index(1)).expect("BFD is on");
    assert!(session.is_up());
}
