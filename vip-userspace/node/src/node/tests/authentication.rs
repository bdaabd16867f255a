//! A cluster with a key: sessions come up by hellos, keys change, and advertisements are sealed.

use std::num::NonZeroU64;

use super::*;
use crate::bfd::{Auth, Key};
use crate::election::{Refused, Trust};
use crate::hello::Instance;
use crate::input::OpenCluster;

fn key(id: u8) -> Key {
    Key::new(id, &[b'k', id])
}

fn auth(current: u8, other: Option<u8>) -> Auth {
    let (current, other) = (key(current), other.map(key));
    Auth { current, other }
}

/// Parameters of one of the first `count` nodes of a cluster without a list. It knows them all.
fn params_of(own: usize, count: usize, auth: Auth) -> Params {
    let mut params = params(own, true);
    params.nodes = params.nodes.values().take(count).copied().collect();
    params.open = Some(OpenCluster {
        forget_after: Duration::from_secs(3600),
    });
    params.seed = 1 + own as u64;
    if let Some(bfd) = &mut params.bfd {
        bfd.auth = Some(auth);
    }
    params
}

fn node(own: usize, count: usize, auth: Auth) -> Bench {
    Bench::new(params_of(own, count, auth))
}

/// Two nodes, and which packets pass between them.
struct Pair {
    nodes: Vec<Bench>,
    now: BootNanos,
    hellos: bool,
    bfd: bool,
    reports: Vec<Report>,
    /// Hellos that were sent.
    sent: usize,
}

impl Pair {
    fn new() -> Self {
        Self {
            nodes: [0, 1].map(|own| node(own, 2, auth(1, None))).into(),
            now: at(0),
            hellos: false,
            bfd: true,
            reports: Vec::new(),
            sent: 0,
        }
    }

    /// Lets time pass. Kernels answer ARP all the time.
    fn run(&mut self, ms: u64) {
        let (hellos, bfd) = (self.hellos, self.bfd);
        let (reports, sent) = (&mut self.reports, &mut self.sent);
        let passes = |action: &Action| match action {
            Action::SendHello { .. } => {
                *sent += 1;
                hellos
            }
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
fn whoever_waits_for_a_hello_asks_for_one() {
    let mut pair = Pair::new();
    pair.hellos = true;
    pair.run(3000);
    pair.hellos = false;
    pair.run(6000);
    pair.bfd = false;
    pair.run(300);
    (pair.bfd, pair.sent) = (true, 0);
    pair.run(1000);
    assert_eq!(pair.states(), [bfd::State::Init; 2]);
    let sent = pair.sent;
    assert!((20..=100).contains(&sent), "{sent} hellos of two nodes");
    // So does one that hears an advertisement of a run that it does not know.
    let (mut pair, _) = pair_that_trusts(Trust::Sealed);
    let (instance, number) = (Instance(NonZeroU64::MIN), 1);
    pair.sent = 0;
    pair.run(20);
    assert_eq!(pair.sent, 0);
    refused(&mut pair, Some(Sealed { instance, number }));
    pair.run(20);
    assert!(pair.sent > 0);
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

/// Two nodes with a key that have heard each other's hellos, and believe these advertisements. The
/// second one is a backup. Also the first one's run.
fn pair_that_trusts(trust: Trust) -> (Pair, Instance) {
    let pair = Pair::new();
    let nodes = [0, 1].map(|own| {
        let mut params = params_of(own, 2, auth(1, None));
        params.trust = trust;
        Bench::new(params)
    });
    let mut pair = Pair {
        nodes: nodes.into(),
        hellos: true,
        ..pair
    };
    pair.run(200);
    let instance = pair.nodes[0].node.instance();
    (pair, instance)
}

/// What the second node makes of an advertisement of the first.
fn refused(pair: &mut Pair, sealed: Option<Sealed>) -> Option<Refused> {
    let advert = Advertisement {
        router_id: 10,
        priority: 250,
        interval: params(0, false).vrrp.interval,
        addresses: Addresses::new(&[IpAddr::from([10, 0, 0, 10])]).unwrap(),
    };
    let (before, source) = (pair.nodes[1].node.clone(), index(0));
    let input = Input::Advert {
        source,
        advert,
        sealed,
    };
    let refused = pair.nodes[1].event(pair.now, input);
    let refused = refused.iter().find_map(|action| match action {
        Action::RefuseAdvert { why, .. } => Some(*why),
        _ => None,
    });
    if refused.is_some() {
        let after = &pair.nodes[1].node;
        let election = |node: &Node| format!("{:?} {:?}", node.election, node.ownership);
        assert_eq!(election(&before), election(after), "it changes nothing");
    }
    refused
}

#[test]
fn sealed_advertisement_counts_once() {
    let (mut pair, instance) = pair_that_trusts(Trust::Sealed);
    let mut told = |number| refused(&mut pair, Some(Sealed { instance, number }));
    assert_eq!(
        [5, 5, 4].map(&mut told),
        [None, Some(Refused::Number), Some(Refused::Number)]
    );
    assert_eq!([6, u64::MAX].map(told), [None; 2]);
    assert_eq!(pair.nodes[1].node.owner(), Some(index(0)));
}

#[test]
fn advertisement_of_a_run_that_is_over_or_not_known_is_refused() {
    let (mut pair, instance) = pair_that_trusts(Trust::Sealed);
    let number = 1;
    let never = Instance(NonZeroU64::MIN);
    let none = refused(
        &mut pair,
        Some(Sealed {
            instance: never,
            number,
        }),
    );
    assert_eq!(none, Some(Refused::Instance));
    assert_eq!(refused(&mut pair, Some(Sealed { instance, number })), None);
    // Its agent starts anew. The numbers begin anew, too.
    let mut params = params_of(0, 2, auth(1, None));
    (params.seed, params.trust) = (77, Trust::Sealed);
    pair.nodes[0] = Bench::new(params);
    let next = pair.nodes[0].node.instance();
    assert_ne!(next, instance);
    let early = refused(
        &mut pair,
        Some(Sealed {
            instance: next,
            number,
        }),
    );
    assert_eq!(
        early,
        Some(Refused::Instance),
        "its hello was not heard yet"
    );
    pair.run(200);
    assert_eq!(
        refused(
            &mut pair,
            Some(Sealed {
                instance: next,
                number
            })
        ),
        None
    );
    let number = 1000;
    let old = refused(&mut pair, Some(Sealed { instance, number }));
    assert_eq!(old, Some(Refused::Instance));
}

#[test]
fn plain_advertisements_are_believed_as_configured() {
    let (mut pair, instance) = pair_that_trusts(Trust::Sealed);
    assert_eq!(refused(&mut pair, None), Some(Refused::Plain));
    assert_eq!(pair.nodes[1].node.owner(), None);
    let sealed = Some(Sealed {
        instance,
        number: 1,
    });
    let (mut pair, _) = pair_that_trusts(Trust::Plain);
    assert_eq!(refused(&mut pair, sealed), Some(Refused::Sealed));
    assert_eq!(refused(&mut pair, None), None);
    let (mut pair, _) = pair_that_trusts(Trust::Both);
    assert_eq!(refused(&mut pair, sealed), None);
    assert_eq!(refused(&mut pair, None), None);
}

#[test]
fn reasons_are_told_apart() {
    for (place, why) in Refused::ALL.into_iter().enumerate() {
        assert_eq!(why as usize, place);
        let same =
            |other: &Refused| other.name() == why.name() || other.to_string() == why.to_string();
        assert_eq!(Refused::ALL.into_iter().filter(same).count(), 1);
    }
}
