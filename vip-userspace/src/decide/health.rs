//! Whether a backend lives and whether its API server is ready, from what probes find.
//!
//! The kernels' socket tables notice an API server that has crashed before any probe does (a
//! packet for it goes on to the next rank). So this is for nodes that are gone, and for servers
//! that hang or say no.

use std::array;

use vip_common::layout::{BackendIndex, BackendMask, MAX_BACKENDS, MAX_CHECKS, Masks};

/// What one probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probe {
    /// The API server says it is ready.
    Ready,
    /// It answers, but does not say so; with what it says.
    NotReady(String),
    /// The host answers that nothing listens.
    Refused,
    /// No answer in time, or no way to the host.
    Silent,
}

/// How many probes in a row change the picture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    /// Good ones until a backend is ready again, at least 1.
    pub rise: u32,
    /// Bad ones until it is not, at least 1.
    pub fall: u32,
}

/// What changed, for the log and for those who wait for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transition {
    /// It answers (again).
    Alive,
    /// It does not answer any more.
    Dead,
    /// It may have new connections.
    Ready,
    /// It may not; with what was found.
    NotReady(Probe),
}

/// What one check finds of one backend. Taken for alive and ready until its first probe: an agent
/// that has just started must not steer worse than one that knows nothing of health.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Check {
    thresholds: Thresholds,
    probed: bool,
    alive: bool,
    ready: bool,
    /// [`Probe::Ready`] in a row.
    good: u32,
    /// Anything else in a row.
    bad: u32,
    /// [`Probe::Silent`] in a row.
    silent: u32,
}

impl Check {
    /// Nothing is known yet.
    fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            probed: false,
            alive: true,
            ready: true,
            good: 0,
            bad: 0,
            silent: 0,
        }
    }

    /// Takes what a probe found.
    ///
    /// The first probe counts at once, whatever it finds. After that an answer of any kind
    /// proves life at once; death takes `fall` silent probes in a row; to be ready takes `rise`
    /// good ones, to be no longer ready `fall` others, but only one if nothing listens.
    fn on_probe(&mut self, probe: &Probe) {
        let first = !self.probed;
        self.probed = true;

        if *probe == Probe::Silent {
            self.silent = self.silent.saturating_add(1);
            self.alive &= !first && self.silent < self.thresholds.fall;
        } else {
            self.silent = 0;
            self.alive = true;
        }
        if *probe == Probe::Ready {
            self.bad = 0;
            self.good = self.good.saturating_add(1);
            self.ready |= first || self.good >= self.thresholds.rise;
        } else {
            self.good = 0;
            self.bad = self.bad.saturating_add(1);
            self.ready &= !first && *probe != Probe::Refused && self.bad < self.thresholds.fall;
        }
    }
}

/// The backends of a cluster, in the order of the configuration, each with its checks.
///
/// A backend lives while any of its checks finds life. The first check is that of the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    backends: Vec<Vec<Check>>,
}

impl Health {
    /// For that many backends and checks of each; those beyond [`MAX_BACKENDS`] and
    /// [`MAX_CHECKS`] are left out.
    #[must_use]
    pub fn new(backends: usize, checks: usize, thresholds: Thresholds) -> Self {
        let backend = vec![Check::new(thresholds); checks.clamp(1, MAX_CHECKS)];
        Self {
            backends: vec![backend; backends.min(MAX_BACKENDS)],
        }
    }

    /// Takes what a probe of a check found. What changes by it, at most two things; nothing for a
    /// backend or a check that does not exist.
    pub fn on_probe(&mut self, index: BackendIndex, check: usize, probe: Probe) -> Vec<Transition> {
        let before = (self.alive(index), self.ready(index, check));
        let checks = self.backends.get_mut(index.get());
        if let Some(check) = checks.and_then(|checks| checks.get_mut(check)) {
            check.on_probe(&probe);
        }
        let after = (self.alive(index), self.ready(index, check));
        let life = match (before.0, after.0) {
            (true, false) => Some(Transition::Dead),
            (false, true) => Some(Transition::Alive),
            _ => None,
        };
        let readiness = match (before.1, after.1) {
            (true, false) => Some(Transition::NotReady(probe)),
            (false, true) => Some(Transition::Ready),
            _ => None,
        };
        life.into_iter().chain(readiness).collect()
    }

    /// Whether open connections may go to a backend. None to one that does not exist.
    #[must_use]
    pub fn alive(&self, index: BackendIndex) -> bool {
        let checks = self.backends.get(index.get());
        checks.is_some_and(|checks| checks.iter().any(|check| check.alive))
    }

    /// Whether new connections may go to what a check is for. None to one that does not exist.
    #[must_use]
    pub fn ready(&self, index: BackendIndex, check: usize) -> bool {
        let checks = self.backends.get(index.get());
        checks
            .and_then(|checks| checks.get(check))
            .is_some_and(|check| check.ready)
    }

    /// All of them, as the packet path reads it.
    #[must_use]
    pub fn masks(&self) -> Masks {
        let mask = |member: &dyn Fn(BackendIndex) -> bool| {
            (0..MAX_BACKENDS)
                .filter_map(BackendIndex::new)
                .fold(BackendMask::EMPTY, |mask, index| {
                    mask.with(index, member(index))
                })
        };
        Masks {
            alive: mask(&|index| self.alive(index)),
            ready: array::from_fn(|check| mask(&|index| self.ready(index, check))),
            ..Masks::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { rise: 2, fall: 3 };

    fn not_ready() -> Probe {
        Probe::NotReady("500".into())
    }

    /// A backend with one check.
    struct Backend(Health);

    impl Backend {
        const INDEX: BackendIndex = BackendIndex::new(0).unwrap();

        fn new(thresholds: Thresholds) -> Self {
            Self(Health::new(1, 1, thresholds))
        }

        fn on_probe(&mut self, probe: Probe) -> Vec<Transition> {
            self.0.on_probe(Self::INDEX, 0, probe)
        }

        fn alive(&self) -> bool {
            self.0.alive(Self::INDEX)
        }

        fn ready(&self) -> bool {
            self.0.ready(Self::INDEX, 0)
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
    fn nothing_known_means_alive_and_ready() {
        let masks = Health::new(2, 1, THRESHOLDS).masks();
        let both = BackendMask::first(2);
        assert_eq!((masks.alive, masks.ready[0]), (both, both));
    }

    #[test]
    fn first_probe_counts_at_once() {
        assert_eq!(after(&[Probe::Ready]), [(true, true)]);
        assert_eq!(after(&[not_ready()]), [(true, false)]);
        assert_eq!(after(&[Probe::Refused]), [(true, false)]);
        assert_eq!(after(&[Probe::Silent]), [(false, false)]);
    }

    #[test]
    fn ready_falls_and_rises_by_counts() {
        use Probe::{Ready, Silent};
        assert_eq!(
            after(&[
                Ready,
                not_ready(),
                Silent,
                Ready,
                Silent,
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
        use Probe::{Ready, Refused, Silent};
        assert_eq!(
            after(&[Ready, Silent, Silent, Silent, Refused, Silent, Silent]),
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
        backend.on_probe(Probe::Silent);
        backend.on_probe(Probe::Silent);
        assert_eq!(backend.on_probe(Probe::Silent), [Transition::Dead]);
        assert_eq!(backend.on_probe(Probe::Ready), [Transition::Alive]);
        assert_eq!(backend.on_probe(Probe::Ready), [Transition::Ready]);
    }

    #[test]
    fn masks_hold_a_bit_for_each_backend_in_its_place() {
        let index = |i| BackendIndex::new(i).unwrap();
        let mut health = Health::new(3, 1, THRESHOLDS);
        health.on_probe(index(0), 0, Probe::Ready);
        health.on_probe(index(1), 0, Probe::Silent);
        health.on_probe(index(2), 0, not_ready());
        assert_eq!(health.on_probe(index(3), 0, Probe::Silent), []);
        assert_eq!(health.on_probe(index(0), 1, Probe::Silent), []);
        let ready = BackendMask::EMPTY.with(index(0), true);
        let masks = health.masks();
        assert_eq!(masks.alive, ready.with(index(2), true));
        assert_eq!(masks.ready[..2], [ready, BackendMask::EMPTY]);
    }

    #[test]
    fn each_check_has_its_own_say_and_any_finds_life() {
        let index = BackendIndex::new(0).unwrap();
        let mut health = Health::new(1, 2, THRESHOLDS);
        assert_eq!(health.on_probe(index, 0, Probe::Ready), []);
        let refused = Transition::NotReady(Probe::Refused);
        assert_eq!(health.on_probe(index, 1, Probe::Refused), [refused]);
        assert!(health.ready(index, 0) && !health.ready(index, 1));
        let silent = |health: &mut Health, check| {
            let probes = (0..THRESHOLDS.fall).map(|_| health.on_probe(index, check, Probe::Silent));
            probes.collect::<Vec<_>>().concat()
        };
        let unready = Transition::NotReady(Probe::Silent);
        assert_eq!(silent(&mut health, 0), [unready]);
        assert!(health.alive(index));
        assert_eq!(silent(&mut health, 1), [Transition::Dead]);
        assert_eq!(
            health.on_probe(index, 1, Probe::Refused),
            [Transition::Alive]
        );
    }

    fn any_probe() -> impl Strategy<Value = Probe> {
        prop::sample::select(vec![
            Probe::Ready,
            not_ready(),
            Probe::Refused,
            Probe::Silent,
        ])
    }

    proptest! {
        #[test]
        fn ready_implies_alive_and_transitions_tell_every_change(
            probes in prop::collection::vec(any_probe(), 0..50), rise in 1_u32..5, fall in 1_u32..5,
        ) {
            let mut backend = Backend::new(Thresholds { rise, fall });
            let (mut alive, mut ready) = (true, true);
            for probe in probes {
                for transition in backend.on_probe(probe.clone()) {
                    match transition {
                        Transition::Alive => { prop_assert!(!alive); alive = true; }
                        Transition::Dead => { prop_assert!(alive); alive = false; }
                        Transition::Ready => { prop_assert!(!ready); ready = true; }
                        Transition::NotReady(found) => {
                            prop_assert!(ready);
                            prop_assert_eq!(&found, &probe);
                            ready = false;
                        }
                    }
                }
                prop_assert_eq!((backend.alive(), backend.ready()), (alive, ready));
                prop_assert!(alive || !ready);
            }
        }
    }
}
