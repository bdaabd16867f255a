//! The states of backends and their API servers, as probes find them.
//!
//! A crashed API server needs no probe: its kernel has no listener any more, and packets go on to
//! the next rank. Probes are for nodes that are gone, and for servers that hang or are not ready.
//!
//! A server may serve without saying whether it is ready: `/readyz` needs credentials, or is not
//! asked. Its state is *unknown*, and it gets new connections as a ready one does. A server that
//! hangs or refuses connections does not.

use vip_common::abi::{BackendIndex, BackendMask, CheckIndex, MAX_BACKENDS, MAX_CHECKS};
use vip_common::wire::time::BootNanos;

/// The result of one probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Probe {
    /// The API server says it is ready.
    Ready,
    /// It serves, but does not say whether it is ready; the reason.
    Unknown(String),
    /// It answers that it is not ready; its answer.
    NotReady(String),
    /// It accepts connections, and then sends no answer in time.
    Hung {
        /// A text that tells how long that was.
        reason: String,
        /// When it accepted the connection: its last sign of life.
        connected: BootNanos,
    },
    /// The host answers with a TCP reset: there is no listener.
    Refused,
    /// No answer in time, or no route to the host; which of both.
    Silent(String),
}

impl Probe {
    /// Whether this result alone would let the server get new connections.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        matches!(self, Self::Ready | Self::Unknown(_))
    }

    /// Whether the host gave no sign of life.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        matches!(self, Self::Silent(_))
    }

    /// One line for people.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Ready => "ready",
            Self::Refused => "connection refused",
            Self::Unknown(reason)
            | Self::NotReady(reason)
            | Self::Silent(reason)
            | Self::Hung { reason, .. } => reason,
        }
    }

    /// Whether the server answered, ready or not.
    const fn is_answer(&self) -> bool {
        matches!(self, Self::Ready | Self::Unknown(_) | Self::NotReady(_))
    }
}

/// State of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Server {
    /// It says that it is ready.
    Ready,
    /// It serves, but it is unknown whether it is ready. Also before the first probe.
    Unknown,
    /// It is not ready, hangs, refuses connections, or is not one of the cluster's.
    Unready,
}

/// Numbers of probes in a row that change a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    /// Good ones until a server is ready again, at least 1.
    pub rise: u32,
    /// Bad ones until it is not, at least 1.
    pub fall: u32,
}

/// A change of a backend's or a server's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transition {
    /// The backend answers (again).
    Alive,
    /// The backend does not answer any more; the probe's result.
    Dead(Probe),
    /// Its server says that it is ready.
    Ready,
    /// Its server serves, but it is unknown whether it is ready; the probe's result.
    Unknown(Probe),
    /// Its server is not ready; the probe's result.
    NotReady(Probe),
}

/// A property that probes confirm or deny.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Finding {
    holds: bool,
    /// Probes in a row that confirmed it.
    good: u32,
    /// Probes in a row that denied it.
    bad: u32,
}

impl Finding {
    const fn new(holds: bool) -> Self {
        Self {
            holds,
            good: 0,
            bad: 0,
        }
    }

    /// Takes a probe. It holds after `rise` good ones, and not any more after `fall` bad ones.
    fn take(&mut self, good: bool, Thresholds { rise, fall }: Thresholds) {
        if good {
            self.bad = 0;
            self.good = self.good.saturating_add(1);
            self.holds |= self.good >= rise;
        } else {
            self.good = 0;
            self.bad = self.bad.saturating_add(1);
            self.holds &= self.bad < fall;
        }
    }
}

/// One check of one backend. Before the first probe, the backend counts as alive, so that an agent
/// that has just started drops no connection; its server counts as not asked.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Check {
    thresholds: Thresholds,
    probed: bool,
    /// It was probed, by this agent or an earlier one.
    asked: bool,
    alive: Finding,
    /// It answers, ready or not.
    answering: Finding,
    /// It is ready, or serves and it is unknown whether it is ready.
    usable: Finding,
    ready: Finding,
    /// It answers that it is not ready, hangs, or refuses connections. Silence is not that: it may be
    /// this node that is not reached.
    unready: Finding,
}

impl Check {
    /// Not probed yet.
    const fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            probed: false,
            asked: false,
            alive: Finding::new(true),
            answering: Finding::new(false),
            usable: Finding::new(false),
            ready: Finding::new(false),
            unready: Finding::new(false),
        }
    }

    /// Takes the result of a probe.
    ///
    /// The first probe decides at once. After that, an answer of any kind proves life at once, and
    /// `fall` silent probes in a row mean death. A server becomes ready, or usable, after `rise`
    /// good probes. It stops to be so after `fall` bad ones, or after a single one if nothing
    /// listens.
    fn on_probe(&mut self, probe: &Probe) {
        let at_once = Thresholds { rise: 1, fall: 1 };
        let first = !std::mem::replace(&mut self.probed, true);
        self.asked = true;
        let usual = if first { at_once } else { self.thresholds };
        let alive = Thresholds { rise: 1, ..usual };
        self.alive.take(!probe.is_silent(), alive);
        let server = match probe {
            Probe::Refused => at_once,
            _ => usual,
        };
        self.answering.take(probe.is_answer(), server);
        self.usable.take(probe.is_usable(), server);
        self.ready.take(*probe == Probe::Ready, server);
        let unready = Thresholds {
            rise: server.fall,
            fall: 1,
        };
        self.unready
            .take(!probe.is_usable() && !probe.is_silent(), unready);
    }

    const fn server(&self) -> Server {
        if !self.probed {
            Server::Unknown
        } else if self.ready.holds {
            Server::Ready
        } else if self.usable.holds {
            Server::Unknown
        } else {
            Server::Unready
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

    /// Takes the result of a probe. Returns at most two transitions; none for a backend or a check
    /// that does not exist. A first probe that finds a server ready is no transition.
    pub fn on_probe(
        &mut self,
        index: BackendIndex,
        check: CheckIndex,
        probe: Probe,
    ) -> Vec<Transition> {
        let probed = self.check(index, check).is_some_and(|check| check.probed);
        let first = if probed { None } else { Some(Server::Ready) };
        let was_alive = self.alive(index);
        let before = first.unwrap_or(self.server(index, check));
        let checks = self.backends.get_mut(index.get());
        let Some(found) = checks.and_then(|checks| checks.get_mut(check.get())) else {
            return vec![];
        };
        found.on_probe(&probe);
        let after = self.server(index, check);
        let life = match (was_alive, self.alive(index)) {
            (true, false) => Some(Transition::Dead(probe.clone())),
            (false, true) => Some(Transition::Alive),
            _ => None,
        };
        let server = (before != after).then_some(match after {
            Server::Ready => Transition::Ready,
            Server::Unknown => Transition::Unknown(probe),
            Server::Unready => Transition::NotReady(probe),
        });
        life.into_iter().chain(server).collect()
    }

    /// Takes over from an earlier agent whether a server got new connections. Holds until the first
    /// probe.
    pub fn remember(&mut self, index: BackendIndex, check: CheckIndex, usable: bool) {
        let checks = self.backends.get_mut(index.get());
        if let Some(check) = checks.and_then(|checks| checks.get_mut(check.get())) {
            check.asked = true;
            check.usable.holds = usable;
            check.answering.holds = usable;
        }
    }

    fn check(&self, index: BackendIndex, check: CheckIndex) -> Option<&Check> {
        self.backends.get(index.get())?.get(check.get())
    }

    /// The checks that each backend has.
    pub fn checks(&self) -> impl Iterator<Item = CheckIndex> + use<> {
        CheckIndex::first(self.backends.first().map_or(0, Vec::len))
    }

    /// Whether a backend lives, so that open connections may go there. False if there is no such
    /// backend.
    #[must_use]
    pub fn alive(&self, index: BackendIndex) -> bool {
        let checks = self.backends.get(index.get());
        checks.is_some_and(|checks| checks.iter().any(|check| check.alive.holds))
    }

    /// State of a backend's server, by one of the checks.
    #[must_use]
    pub fn server(&self, index: BackendIndex, check: CheckIndex) -> Server {
        let check = self.check(index, check);
        check.map_or(Server::Unready, Check::server)
    }

    /// Whether new connections may go to a backend's server, by one of the checks. False if there
    /// is no such backend or check.
    #[must_use]
    pub fn usable(&self, index: BackendIndex, check: CheckIndex) -> bool {
        let check = self.check(index, check);
        check.is_some_and(|check| check.usable.holds)
    }

    /// Whether a backend's server shows by answers that it is not ready, by one of the checks. False
    /// if it is only silent, or if there is no such backend or check.
    #[must_use]
    pub fn unready(&self, index: BackendIndex, check: CheckIndex) -> bool {
        let check = self.check(index, check);
        check.is_some_and(|check| check.unready.holds)
    }

    /// All backends whose server a check has not asked yet.
    #[must_use]
    pub fn all_unasked(&self, check: CheckIndex) -> BackendMask {
        set(|index| self.check(index, check).is_some_and(|check| !check.asked))
    }

    /// All backends that live.
    #[must_use]
    pub fn all_alive(&self) -> BackendMask {
        set(|index| self.alive(index))
    }

    /// All backends whose server a check finds [usable](Self::usable).
    #[must_use]
    pub fn all_usable(&self, check: CheckIndex) -> BackendMask {
        set(|index| self.usable(index, check))
    }

    /// All backends whose server answers a check, ready or not.
    #[must_use]
    pub fn all_answering(&self, check: CheckIndex) -> BackendMask {
        set(|index| {
            let check = self.check(index, check);
            check.is_some_and(|check| check.answering.holds)
        })
    }
}

/// The set of all backends for which `member` is true.
fn set(member: impl Fn(BackendIndex) -> bool) -> BackendMask {
    (0..MAX_BACKENDS)
        .filter_map(BackendIndex::new)
        .fold(BackendMask::EMPTY, |mask, index| {
            mask.with(index, member(index))
        })
}

#[cfg(test)]
mod tests {
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
            Self(Health::new(1, 1, thresholds))
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
        let mut health = Health::new(2, 1, THRESHOLDS);
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
        let mut health = Health::new(3, 1, THRESHOLDS);
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
        let mut health = Health::new(1, 2, THRESHOLDS);
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
}
