//! The states of backends and their API servers, as probes find them.
//!
//! A crashed API server needs no probe: its kernel has no listener any more, and packets go on to
//! the next rank. Probes are for nodes that are gone, and for servers that hang or are not ready.
//!
//! A server may serve without saying whether it is ready: `/readyz` needs credentials, or is not
//! asked. Its state is *unknown*, and it gets new connections as a ready one does. A server that
//! hangs or refuses connections does not.
//!
//! That a server hangs is found by its own node first, by its [accept queue](crate::backlog). The
//! node reports it to the others by BFD, and all of them stop to use the server at once.

use vip_common::abi::{BackendIndex, BackendMask, CheckIndex, MAX_CHECKS};
use vip_common::wire::time::BootNanos;

use crate::slots::Slots;

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

/// Why a server counts as one that hangs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hang {
    /// It accepts no connections. Only its own node sees that.
    Queue {
        /// Connections in its accept queue when that was found.
        waiting: u32,
        /// When they were first seen there.
        since: BootNanos,
    },
    /// The agent before this one brought it no new connections, and some wait in its accept queue.
    /// Only its own node sees that.
    Before,
    /// Its own node reports it by BFD.
    Reported,
    /// `fall` probes in a row had no answer on an open connection.
    Probes,
}

impl Hang {
    /// One line for people; `None` where the last probe has the better one.
    #[must_use]
    pub fn text(self, now: BootNanos) -> Option<String> {
        match self {
            Self::Queue { waiting, since } => {
                let time = now.since(since).as_millis();
                Some(format!(
                    "hangs: accepted nothing for {time} ms, connections that wait: {waiting}"
                ))
            }
            Self::Before => Some(
                "hangs: it got no new connections from the agent before, and some wait".to_owned(),
            ),
            Self::Reported => Some("hangs, as its own node reports".to_owned()),
            Self::Probes => None,
        }
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

/// Where a check comes from, when checks change while the agent runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It is the one that had this index: what it found stays.
    Same(CheckIndex),
    /// It asks the same server in another way. Whether the server was usable holds until the first
    /// answer.
    Like(CheckIndex),
    /// Nothing is known of its servers.
    New,
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
    /// Its probes did not hang.
    serving: Finding,
    /// It hangs, as was found without probes.
    hang: Option<Hang>,
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
            serving: Finding::new(true),
            hang: None,
        }
    }

    /// As one that asks the same server in another way.
    fn asked_anew(&self, thresholds: Thresholds) -> Self {
        Self {
            asked: self.asked,
            alive: self.alive.clone(),
            answering: self.answering.clone(),
            usable: self.usable.clone(),
            hang: self.hang,
            ..Self::new(thresholds)
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
        let hangs = matches!(probe, Probe::Hung { .. });
        self.serving.take(!hangs, server);
    }

    /// Why it counts as one that hangs, if it does.
    fn hang(&self) -> Option<Hang> {
        self.hang.or((!self.serving.holds).then_some(Hang::Probes))
    }

    /// Whether new connections may go there.
    const fn is_usable(&self) -> bool {
        self.usable.holds && self.hang.is_none()
    }

    const fn server(&self) -> Server {
        if self.hang.is_some() {
            Server::Unready
        } else if !self.probed {
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

/// The backends of a cluster, each with its checks.
///
/// A backend lives while any of its checks finds life. The first check is that of the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    backends: Slots<Vec<Check>>,
    /// The checks of a backend that was not probed.
    unprobed: Vec<Check>,
}

/// The checks of a backend that was not probed.
fn unprobed(checks: usize, thresholds: Thresholds) -> Vec<Check> {
    vec![Check::new(thresholds); checks.clamp(1, MAX_CHECKS)]
}

impl Health {
    /// For these backends and so many checks of each; those beyond [`MAX_CHECKS`] are left out.
    #[must_use]
    pub fn new(backends: BackendMask, checks: usize, thresholds: Thresholds) -> Self {
        let unprobed = unprobed(checks, thresholds);
        Self {
            backends: backends
                .iter()
                .map(|index| (index, unprobed.clone()))
                .collect(),
            unprobed,
        }
    }

    /// A backend has come, which was not probed.
    pub fn admit(&mut self, index: BackendIndex) {
        self.backends.insert(index, self.unprobed.clone());
    }

    /// A backend has left.
    pub fn remove(&mut self, index: BackendIndex) {
        self.backends.remove(index);
    }

    /// Takes the result of a probe. Returns at most two transitions; none for a backend or a check
    /// that does not exist. A first probe that finds a server ready is no transition. A server that
    /// hangs was told of before its first probe.
    pub fn on_probe(
        &mut self,
        index: BackendIndex,
        check: CheckIndex,
        probe: Probe,
    ) -> Vec<Transition> {
        let told = |check: &Check| check.probed || check.hang.is_some();
        let told = self.check(index, check).is_some_and(told);
        let first = if told { None } else { Some(Server::Ready) };
        let was_alive = self.alive(index);
        let before = first.unwrap_or(self.server(index, check));
        let checks = self.backends.get_mut(index);
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
        life.into_iter()
            .chain(change(before, after, probe))
            .collect()
    }

    /// A server was found to hang without a probe, or not to any more. Returns the transition that
    /// follows; none for a backend or a check that does not exist.
    pub fn set_hang(
        &mut self,
        now: BootNanos,
        index: BackendIndex,
        check: CheckIndex,
        hang: Option<Hang>,
    ) -> Option<Transition> {
        let before = self.server(index, check);
        let checks = self.backends.get_mut(index)?;
        checks.get_mut(check.get())?.hang = hang;
        let probe = match hang.and_then(|hang| hang.text(now)) {
            Some(reason) => Probe::Hung {
                reason,
                connected: now,
            },
            None => Probe::Unknown("does not hang any more".to_owned()),
        };
        change(before, self.server(index, check), probe)
    }

    /// Why a backend's server counts as one that hangs; `None` if it does not.
    #[must_use]
    pub fn hang(&self, index: BackendIndex, check: CheckIndex) -> Option<Hang> {
        self.check(index, check)?.hang()
    }

    /// Takes over from an earlier agent whether a server got new connections. Holds until the first
    /// probe.
    pub fn remember(&mut self, index: BackendIndex, check: CheckIndex, usable: bool) {
        let checks = self.backends.get_mut(index);
        if let Some(check) = checks.and_then(|checks| checks.get_mut(check.get())) {
            check.asked = true;
            check.usable.holds = usable;
            check.answering.holds = usable;
        }
    }

    /// Changes the checks: one for each origin. A server that hangs does so by each check of its own.
    pub fn change_checks(&mut self, origins: &[Origin], thresholds: Thresholds) {
        for checks in self.backends.values_mut() {
            let change = |origin: &Origin| {
                let known = |index: &CheckIndex| checks.get(index.get());
                let mut check = match origin {
                    Origin::Same(index) => known(index).cloned(),
                    Origin::Like(index) => known(index).map(|old| old.asked_anew(thresholds)),
                    Origin::New => None,
                }
                .unwrap_or(Check::new(thresholds));
                check.thresholds = thresholds;
                check
            };
            let changed = origins.iter().take(MAX_CHECKS).map(change).collect();
            *checks = changed;
        }
        self.unprobed = unprobed(origins.len(), thresholds);
    }

    fn check(&self, index: BackendIndex, check: CheckIndex) -> Option<&Check> {
        self.backends.get(index)?.get(check.get())
    }

    /// The checks that each backend has.
    pub fn checks(&self) -> impl Iterator<Item = CheckIndex> + use<> {
        CheckIndex::first(self.unprobed.len())
    }

    /// Whether a backend lives, so that open connections may go there. False if there is no such
    /// backend.
    #[must_use]
    pub fn alive(&self, index: BackendIndex) -> bool {
        let checks = self.backends.get(index);
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
        check.is_some_and(Check::is_usable)
    }

    /// Whether probes alone find a backend's server usable, by one of the checks. False if there is
    /// no such backend or check.
    #[must_use]
    pub fn serves(&self, index: BackendIndex, check: CheckIndex) -> bool {
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

    /// The set of all backends for which `member` is true.
    fn set(&self, member: impl Fn(BackendIndex) -> bool) -> BackendMask {
        self.backends
            .mask()
            .iter()
            .filter(|index| member(*index))
            .collect()
    }

    /// All backends whose server a check has not asked yet.
    #[must_use]
    pub fn all_unasked(&self, check: CheckIndex) -> BackendMask {
        self.set(|index| {
            let check = self.check(index, check);
            check.is_some_and(|check| !check.asked && check.hang.is_none())
        })
    }

    /// All backends that live.
    #[must_use]
    pub fn all_alive(&self) -> BackendMask {
        self.set(|index| self.alive(index))
    }

    /// All backends whose server a check finds [usable](Self::usable).
    #[must_use]
    pub fn all_usable(&self, check: CheckIndex) -> BackendMask {
        self.set(|index| self.usable(index, check))
    }

    /// All backends whose server answers a check, ready or not.
    #[must_use]
    pub fn all_answering(&self, check: CheckIndex) -> BackendMask {
        self.set(|index| {
            let check = self.check(index, check);
            check.is_some_and(|check| check.answering.holds && check.hang.is_none())
        })
    }
}

/// The transition between two states of a server, of which `probe` is the cause.
fn change(before: Server, after: Server, probe: Probe) -> Option<Transition> {
    (before != after).then_some(match after {
        Server::Ready => Transition::Ready,
        Server::Unknown => Transition::Unknown(probe),
        Server::Unready => Transition::NotReady(probe),
    })
}

#[cfg(test)]
mod tests;
