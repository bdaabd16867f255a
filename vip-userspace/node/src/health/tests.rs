use proptest::prelude::*;

use super::*;

/// A check beside that of the API.
const SECOND: CheckIndex = CheckIndex::new(1).expect("there may be more than one");

const THRESHOLDS: Thresholds = Thresholds { rise: 2, fall: 3 };

fn not_ready() -> Probe {
    Probe::NotReady("500".into())
}

fn silent() -> Probe {
    Probe::Silent("no answer".to_owned())
}

fn hung() -> Probe {
    Probe::Hung {
        reason: "timed out".into(),
        connected: BootNanos::ZERO,
    }
}

/// A backend with one check.
struct Backend(Health);

impl Backend {
    const INDEX: BackendIndex = BackendIndex::new(0).unwrap();

    fn new(thresholds: Thresholds) -> Self {
        Self(Health::new(BackendMask::first(1), 1, thresholds))
    }

    fn on_probe(&mut self, probe: Probe) -> Vec<Transition> {
        self.0.on_probe(Self::INDEX, CheckIndex::API, probe)
    }

    fn alive(&self) -> bool {
        self.0.alive(Self::INDEX)
    }

    fn ready(&self) -> bool {
        self.server() == Server::Ready
    }

    fn server(&self) -> Server {
        self.0.server(Self::INDEX, CheckIndex::API)
    }

    fn usable(&self) -> bool {
        self.0.usable(Self::INDEX, CheckIndex::API)
    }
}

/// (alive, ready) after each of the probes.
fn after(probes: &[Probe]) -> Vec<(bool, bool)> {
    let mut backend = Backend::new(THRESHOLDS);
    probes
        .iter()
        .map(|probe| {
            backend.on_probe(probe.clone());
            (backend.alive(), backend.ready())
        })
        .collect()
}

#[test]
fn nothing_known_means_alive_and_that_no_server_counts() {
    let mut health = Health::new(BackendMask::first(2), 1, THRESHOLDS);
    let both = BackendMask::first(2);
    assert_eq!(
        (health.all_alive(), health.all_unasked(CheckIndex::API)),
        (both, both)
    );
    assert_eq!(health.all_usable(CheckIndex::API), BackendMask::EMPTY);
    assert_eq!(health.all_answering(CheckIndex::API), BackendMask::EMPTY);
    assert_eq!(
        health.server(Backend::INDEX, CheckIndex::API),
        Server::Unknown
    );
    health.on_probe(Backend::INDEX, CheckIndex::API, not_ready());
    let other = both.with(Backend::INDEX, false);
    assert_eq!(health.all_unasked(CheckIndex::API), other);
}

#[test]
fn server_that_wants_credentials_is_usable_and_its_readiness_unknown() {
    let wants = || Probe::Unknown("401".into());
    let mut backend = Backend::new(THRESHOLDS);
    assert_eq!(backend.on_probe(wants()), [Transition::Unknown(wants())]);
    assert!(backend.usable() && backend.server() == Server::Unknown);
    // It hangs: `fall` probes later it is used no more.
    assert_eq!(backend.on_probe(hung()), []);
    assert_eq!(backend.on_probe(hung()), []);
    assert!(backend.usable());
    assert_eq!(backend.on_probe(hung()), [Transition::NotReady(hung())]);
    assert!(!backend.usable() && backend.alive());
    assert_eq!(backend.0.all_answering(CheckIndex::API), BackendMask::EMPTY);
    assert_eq!(backend.on_probe(wants()), []);
    assert_eq!(backend.on_probe(wants()), [Transition::Unknown(wants())]);
    assert!(backend.usable());
    // The agent gets credentials, and they expire.
    assert_eq!(backend.on_probe(Probe::Ready), []);
    assert_eq!(backend.on_probe(Probe::Ready), [Transition::Ready]);
    assert_eq!(backend.on_probe(wants()), []);
    assert_eq!(backend.on_probe(wants()), []);
    assert_eq!(backend.on_probe(wants()), [Transition::Unknown(wants())]);
    assert!(backend.usable());
}

#[test]
fn one_that_says_no_answers_and_one_that_hangs_or_refuses_does_not() {
    for (probe, answers) in [
        (not_ready(), true),
        (hung(), false),
        (Probe::Refused, false),
        (silent(), false),
    ] {
        let mut backend = Backend::new(THRESHOLDS);
        backend.on_probe(probe.clone());
        assert_eq!(backend.server(), Server::Unready, "{probe:?}");
        assert!(!backend.usable(), "{probe:?}");
        assert_eq!(
            !backend.0.all_answering(CheckIndex::API).is_empty(),
            answers,
            "{probe:?}"
        );
    }
}

#[test]
fn what_an_agent_before_this_one_found_holds_until_the_first_probe() {
    for (usable, probe) in [(false, Probe::Ready), (true, not_ready())] {
        let mut backend = Backend::new(THRESHOLDS);
        backend.0.remember(Backend::INDEX, CheckIndex::API, usable);
        assert_eq!((backend.usable(), backend.alive()), (usable, true));
        assert_eq!(backend.0.all_unasked(CheckIndex::API), BackendMask::EMPTY);
        backend.on_probe(probe);
        assert_eq!((backend.usable(), backend.ready()), (!usable, !usable));
    }
}

#[test]
fn first_probe_counts_at_once() {
    assert_eq!(after(&[Probe::Ready]), [(true, true)]);
    assert_eq!(after(&[not_ready()]), [(true, false)]);
    assert_eq!(after(&[Probe::Refused]), [(true, false)]);
    assert_eq!(after(&[silent()]), [(false, false)]);
}

#[test]
fn ready_falls_and_rises_by_counts() {
    use Probe::Ready;
    assert_eq!(
        after(&[
            Ready,
            not_ready(),
            silent(),
            Ready,
            silent(),
            not_ready(),
            not_ready()
        ]),
        [true, true, true, true, true, true, false].map(|ready| (true, ready))
    );
    assert_eq!(
        after(&[not_ready(), Ready, not_ready(), Ready, Ready]),
        [false, false, false, false, true].map(|ready| (true, ready))
    );
}

#[test]
fn silence_takes_its_time_to_mean_death_and_any_answer_means_life() {
    use Probe::{Ready, Refused};
    assert_eq!(
        after(&[
            Ready,
            silent(),
            silent(),
            silent(),
            Refused,
            silent(),
            silent()
        ]),
        [
            (true, true),
            (true, true),
            (true, true),
            (false, false),
            (true, false),
            (true, false),
            (true, false)
        ]
    );
}

#[test]
fn refusal_ends_ready_at_once_but_not_life() {
    assert_eq!(
        after(&[Probe::Ready, Probe::Refused, Probe::Ready, Probe::Ready]),
        [(true, true), (true, false), (true, false), (true, true)]
    );
}

#[test]
fn transitions_say_what_was_found() {
    let mut backend = Backend::new(THRESHOLDS);
    assert_eq!(backend.on_probe(Probe::Ready), []);
    assert_eq!(
        backend.on_probe(Probe::Refused),
        [Transition::NotReady(Probe::Refused)]
    );
    backend.on_probe(silent());
    backend.on_probe(silent());
    assert_eq!(backend.on_probe(silent()), [Transition::Dead(silent())]);
    assert_eq!(backend.on_probe(Probe::Ready), [Transition::Alive]);
    assert_eq!(backend.on_probe(Probe::Ready), [Transition::Ready]);
}

#[test]
fn sets_hold_a_bit_for_each_backend_in_its_place() {
    let index = |i| BackendIndex::new(i).unwrap();
    let mut health = Health::new(BackendMask::first(3), 1, THRESHOLDS);
    health.on_probe(index(0), CheckIndex::API, Probe::Ready);
    health.on_probe(index(1), CheckIndex::API, silent());
    health.on_probe(index(2), CheckIndex::API, not_ready());
    assert_eq!(health.on_probe(index(3), CheckIndex::API, silent()), []);
    assert_eq!(health.on_probe(index(0), SECOND, silent()), []);
    let ready = BackendMask::EMPTY.with(index(0), true);
    assert_eq!(health.all_alive(), ready.with(index(2), true));
    assert_eq!(health.all_usable(CheckIndex::API), ready);
    assert_eq!(health.all_usable(SECOND), BackendMask::EMPTY);
    assert_eq!(
        health.all_answering(CheckIndex::API),
        ready.with(index(2), true)
    );
}

#[test]
fn each_check_has_its_own_say_and_any_finds_life() {
    let index = BackendIndex::new(0).unwrap();
    let mut health = Health::new(BackendMask::first(1), 2, THRESHOLDS);
    assert_eq!(health.on_probe(index, CheckIndex::API, Probe::Ready), []);
    let refused = Transition::NotReady(Probe::Refused);
    assert_eq!(health.on_probe(index, SECOND, Probe::Refused), [refused]);
    assert!(health.usable(index, CheckIndex::API) && !health.usable(index, SECOND));
    let all_silent = |health: &mut Health, check| {
        let probes = (0..THRESHOLDS.fall).map(|_| health.on_probe(index, check, silent()));
        probes.collect::<Vec<_>>().concat()
    };
    let unready = Transition::NotReady(silent());
    assert_eq!(all_silent(&mut health, CheckIndex::API), [unready]);
    assert!(health.alive(index));
    assert_eq!(
        all_silent(&mut health, SECOND),
        [Transition::Dead(silent())]
    );
    assert_eq!(
        health.on_probe(index, SECOND, Probe::Refused),
        [Transition::Alive]
    );
}

#[test]
fn hang_counts_whatever_probes_find_and_its_end_leaves_what_they_found() {
    let at = |ms: u64| BootNanos(ms * 1_000_000);
    let queue = Hang::Queue {
        waiting: 27,
        since: at(0),
    };
    let mut health = Health::new(BackendMask::first(1), 1, THRESHOLDS);
    let (index, check) = (Backend::INDEX, CheckIndex::API);
    health.on_probe(index, check, Probe::Ready);
    let Some(Transition::NotReady(probe)) = health.set_hang(at(130), index, check, Some(queue))
    else {
        panic!("not ready");
    };
    assert_eq!(
        probe.text(),
        "hangs: accepted nothing for 130 ms, connections that wait: 27"
    );
    assert_eq!(health.on_probe(index, check, Probe::Ready), []);
    assert_eq!(health.all_usable(check), BackendMask::EMPTY);
    assert_eq!(health.all_answering(check), BackendMask::EMPTY);
    assert!(health.alive(index) && health.hang(index, check) == Some(queue));
    let ready = health.set_hang(at(200), index, check, None);
    assert_eq!(
        (ready, health.hang(index, check)),
        (Some(Transition::Ready), None)
    );
    // One that was not asked yet.
    let mut health = Health::new(BackendMask::first(1), 1, THRESHOLDS);
    health.set_hang(at(0), index, check, Some(Hang::Reported));
    assert_eq!(health.all_unasked(check), BackendMask::EMPTY);
}

#[test]
fn a_hang_that_an_agent_before_this_one_found_is_told_once() {
    let now = BootNanos::ZERO;
    let mut health = Health::new(BackendMask::first(1), 1, THRESHOLDS);
    let (index, check) = (Backend::INDEX, CheckIndex::API);
    health.remember(index, check, false);
    let hangs = health.set_hang(now, index, check, Some(Hang::Before));
    assert!(matches!(hangs, Some(Transition::NotReady(_))));
    // The kernel takes the probe's connection.
    let takes = Probe::Unknown("takes connections".into());
    assert_eq!(health.on_probe(index, check, takes.clone()), []);
    assert!(!health.usable(index, check));
    let back = health.set_hang(now, index, check, None);
    assert!(matches!(back, Some(Transition::Unknown(_))));
    assert!(health.usable(index, check));
}

fn any_probe() -> impl Strategy<Value = Probe> {
    prop::sample::select(vec![
        Probe::Ready,
        Probe::Unknown("401".into()),
        not_ready(),
        hung(),
        Probe::Refused,
        silent(),
    ])
}

proptest! {
    #[test]
    fn ready_implies_usable_answering_and_alive_and_transitions_tell_every_change(
        probes in prop::collection::vec(any_probe(), 0..50), rise in 1_u32..5, fall in 1_u32..5,
    ) {
        let mut backend = Backend::new(Thresholds { rise, fall });
        let (mut alive, mut server) = (true, Server::Ready);
        for probe in probes {
            for transition in backend.on_probe(probe.clone()) {
                let now = match transition {
                    Transition::Alive => { prop_assert!(!alive); alive = true; continue }
                    Transition::Dead(_) => { prop_assert!(alive); alive = false; continue }
                    Transition::Ready => Server::Ready,
                    Transition::Unknown(found) => {
                        prop_assert_eq!(&found, &probe);
                        Server::Unknown
                    }
                    Transition::NotReady(found) => {
                        prop_assert_eq!(&found, &probe);
                        Server::Unready
                    }
                };
                prop_assert!(now != server);
                server = now;
            }
            prop_assert_eq!((backend.alive(), backend.server()), (alive, server));
            prop_assert_eq!(backend.usable(), server != Server::Unready);
            let answering = !backend.0.all_answering(CheckIndex::API).is_empty();
            prop_assert!(answering || !backend.usable());
            prop_assert!(alive || !answering);
        }
    }
}

#[test]
fn checks_that_change_keep_what_is_known_of_their_servers() {
    let mut health = Health::new(BackendMask::first(1), 3, THRESHOLDS);
    let index = Backend::INDEX;
    let check = |place| CheckIndex::new(place).expect("there may be more");
    health.on_probe(index, check(0), Probe::Ready);
    health.on_probe(index, check(1), Probe::Refused);
    health.on_probe(index, check(2), Probe::Ready);
    let (waiting, since) = (1, BootNanos::ZERO);
    let queue = Hang::Queue { waiting, since };
    health.set_hang(BootNanos::ZERO, index, check(2), Some(queue));
    // The API is asked in another way, the second check is gone, and the last one is new.
    let origins = [Origin::Like(check(0)), Origin::Same(check(2)), Origin::New];
    health.change_checks(&origins, Thresholds { rise: 1, fall: 1 });
    assert_eq!(health.checks().count(), 3);
    assert!(health.usable(index, check(0)) && health.server(index, check(0)) == Server::Unknown);
    // A change of the configuration is no sign of life.
    assert_eq!(health.hang(index, check(1)), Some(queue));
    assert!(!health.usable(index, check(1)));
    health.set_hang(BootNanos::ZERO, index, check(1), None);
    assert_eq!(health.server(index, check(1)), Server::Ready);
    assert!(!health.usable(index, check(2)) && health.all_unasked(check(2)).contains(index));
    assert!(!health.all_unasked(check(0)).contains(index));
    // The first answer decides, and then the new thresholds do.
    health.on_probe(index, check(0), not_ready());
    assert!(!health.usable(index, check(0)));
    health.on_probe(index, check(1), not_ready());
    assert_eq!(health.server(index, check(1)), Server::Unready);
    health.change_checks(&origins[..1], THRESHOLDS);
    assert_eq!(health.server(index, check(1)), Server::Unready);
    assert_eq!(health.checks().count(), 1);
    // One that comes now is asked by the checks that there are now.
    let newcomer = BackendIndex::new(1).expect("there may be more");
    health.admit(newcomer);
    assert!(health.all_unasked(check(0)).contains(newcomer));
    assert!(!health.all_unasked(check(1)).contains(newcomer));
}
