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

/// One check of one backend. Taken for alive and ready until its first probe: an agent that has just started
/// must not steer worse than one that knows nothing of health.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Backend {
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

impl Backend {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
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

    /// Whether open connections may go there.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.alive
    }

    /// Whether new connections may go there.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.ready
    }

    /// Takes what a probe found. What changes by it, at most two things.
    ///
    /// The first probe counts at once, whatever it finds. After that an answer of any kind
    /// proves life at once; death takes `fall` silent probes in a row; to be ready takes `rise`
    /// good ones, to be no longer ready `fall` others, but only one if nothing listens.
    pub fn on_probe(&mut self, probe: Probe) -> Vec<Transition> {
        let (was_alive, was_ready) = (self.alive, self.ready);
        let first = !self.probed;
        self.probed = true;

        if probe == Probe::Silent {
            self.silent = self.silent.saturating_add(1);
            self.alive &= !first && self.silent < self.thresholds.fall;
        } else {
            self.silent = 0;
            self.alive = true;
        }
        if probe == Probe::Ready {
            self.bad = 0;
            self.good = self.good.saturating_add(1);
            self.ready |= first || self.good >= self.thresholds.rise;
        } else {
            self.good = 0;
            self.bad = self.bad.saturating_add(1);
            self.ready &= !first && probe != Probe::Refused && self.bad < self.thresholds.fall;
        }

        let mut transitions = vec![];
        if was_alive != self.alive {
            transitions.push(if self.alive {
                Transition::Alive
            } else {
                Transition::Dead
            });
        }
        if was_ready != self.ready {
            transitions.push(if self.ready {
                Transition::Ready
            } else {
                Transition::NotReady(probe)
            });
        }
        transitions
    }
}

/// The backends of a cluster, in the order of the configuration, each with its checks.
///
/// A backend lives while any of its checks finds life. The first check is that of the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    backends: Vec<Vec<Backend>>,
}

impl Health {
    /// For that many backends and checks of each; those beyond [`MAX_BACKENDS`] and
    /// [`MAX_CHECKS`] are left out.
    #[must_use]
    pub fn new(backends: usize, checks: usize, thresholds: Thresholds) -> Self {
        let backend = vec![Backend::new(thresholds); checks.clamp(1, MAX_CHECKS)];
        Self {
            backends: vec![backend; backends.min(MAX_BACKENDS)],
        }
    }

    /// As [`Backend::on_probe`], but that life and death are the whole backend's. Nothing for a
    /// backend or a check that does not exist.
    pub fn on_probe(&mut self, index: BackendIndex, check: usize, probe: Probe) -> Vec<Transition> {
        let was_alive = self.alive(index);
        let Some(checked) = self
            .backends
            .get_mut(index.get())
            .and_then(|checks| checks.get_mut(check))
        else {
            return vec![];
        };
        let mut transitions = checked.on_probe(probe);
        transitions
            .retain(|transition| !matches!(transition, Transition::Alive | Transition::Dead));
        match (was_alive, self.alive(index)) {
            (true, false) => transitions.insert(0, Transition::Dead),
            (false, true) => transitions.insert(0, Transition::Alive),
            _ => {}
        }
        transitions
    }

    /// Whether a backend lives. One that does not exist does not.
    #[must_use]
    pub fn alive(&self, index: BackendIndex) -> bool {
        let checks = self.backends.get(index.get());
        checks.is_some_and(|checks| checks.iter().any(Backend::alive))
    }

    /// Whether a check finds a backend ready. One that does not exist is not.
    #[must_use]
    pub fn ready(&self, index: BackendIndex, check: usize) -> bool {
        let checks = self.backends.get(index.get());
        checks
            .and_then(|checks| checks.get(check))
            .is_some_and(Backend::ready)
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
