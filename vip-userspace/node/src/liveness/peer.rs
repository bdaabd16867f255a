//! What is known of one other node: its BFD session, and answers of its kernel.

use std::time::Duration;

use vip_common::wire::time::BootNanos;

use crate::bfd::Session;
use crate::health::Probe;

/// Unanswered questions after which a node is declared dead.
const QUESTIONS: u32 = 3;

/// Unanswered questions in a row to a healthy node until it counts as one that does not answer
/// them. Single packets get lost.
const MAX_UNANSWERED: u32 = 3;

/// What is known of a node from BFD and from questions to its kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// No sign that it is not there.
    Reachable,
    /// The BFD detection time expired. Its kernel is asked, since connections survive a crash of
    /// the agent but not one of the node.
    Suspect {
        /// Questions asked.
        asked: u32,
        /// When the next one is sent, or the node declared dead.
        next: BootNanos,
    },
    /// Its agent is gone, but its kernel answers: open connections go on, and new ones are
    /// accepted. No BFD session would show the node's end, so its kernel is asked on and on. A node
    /// that shuts down ends its agent first.
    Monitored {
        /// Questions asked since the last answer, [`QUESTIONS`] at most.
        asked: u32,
        /// When the next one is sent, or the node declared dead.
        next: BootNanos,
    },
    /// Nothing on it answers.
    Dead,
}

/// What follows for connections to a node. Probes of its server are counted in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sign {
    /// Its kernel still holds its connections.
    pub(crate) lives: bool,
    /// Its agent is not heard, and its kernel has not answered yet.
    pub(crate) is_silent: bool,
}

/// Whether a node answers one kind of question.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Means {
    /// `None` while that is not known.
    answers: Option<bool>,
    /// Questions asked while the node was healthy, since the last answer.
    unanswered: u32,
}

impl Means {
    /// A healthy node is asked. True if it is thereby found not to answer.
    fn ask(&mut self) -> bool {
        let lost = self.unanswered >= MAX_UNANSWERED && self.answers != Some(false);
        if lost {
            self.answers = Some(false);
        }
        self.unanswered = self.unanswered.saturating_add(1);
        lost
    }

    /// It answered. True if it had been found not to answer.
    fn answered(&mut self) -> bool {
        self.unanswered = 0;
        self.answers.replace(true) == Some(false)
    }
}

/// One other node.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// `None` without BFD.
    pub(super) session: Option<Session>,
    state: State,
    /// When it was last suspected or declared dead. Signs of life from before do not count.
    lost: BootNanos,
    /// When it is asked next while it is healthy.
    next_slow: BootNanos,
    /// Whether its kernel answers ICMP echo requests, and ARP or Neighbor Discovery.
    echo: Means,
    neighbor: Means,
}

impl Peer {
    /// Reachable, with a session that is not started.
    pub(super) fn new(session: Option<Session>) -> Self {
        Self {
            session,
            state: State::Reachable,
            lost: BootNanos::ZERO,
            next_slow: BootNanos::ZERO,
            echo: Means::default(),
            neighbor: Means::default(),
        }
    }

    /// Whether the BFD session is up on this side.
    pub(super) fn is_up(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_up)
    }

    /// Whether the kernel answers ICMP echo; `None` while that is not known.
    pub(super) const fn answers_echo(&self) -> Option<bool> {
        self.echo.answers
    }

    /// When to ask its kernel next; the end of time if there is nothing to find out.
    pub(super) fn next_question(&self) -> BootNanos {
        match self.state {
            State::Suspect { next, .. } | State::Monitored { next, .. } => next,
            State::Reachable if self.is_up() => self.next_slow,
            State::Reachable | State::Dead => BootNanos(u64::MAX),
        }
    }

    /// An earlier agent heard it. Its kernel is asked from now on, unless there is no BFD.
    pub(super) fn remember(&mut self, now: BootNanos) {
        if self.session.is_some() {
            self.monitor(now);
        }
    }

    /// Its BFD session came up.
    pub(super) fn on_up(&mut self, now: BootNanos) {
        self.next_slow = now;
    }

    /// The detection time of its session expired: its agent is gone, and maybe the node.
    pub(super) fn suspect(&mut self, now: BootNanos) {
        self.state = State::Suspect {
            asked: 0,
            next: now,
        };
        self.lost = now;
    }

    /// Its agent ends its session. Its kernel keeps its connections, and is asked from `next` on.
    pub(super) fn monitor(&mut self, next: BootNanos) {
        if self.state == State::Reachable {
            self.state = State::Monitored { asked: 0, next };
        }
    }

    /// It answered an echo request. Returns whether it had been found not to.
    pub(super) fn on_echo(&mut self) -> bool {
        self.echo.answered()
    }

    /// It answered ARP or Neighbor Discovery.
    pub(super) fn on_neighbor(&mut self) {
        self.neighbor.answered();
    }

    /// It showed that it lives. `was_heard`: its agent was heard since it was last dead; `later`:
    /// when to ask it next if its agent is gone. Returns whether it was dead.
    pub(super) fn on_sign_of_life(&mut self, was_heard: bool, later: BootNanos) -> bool {
        let next = match self.state {
            State::Monitored { next, .. } => next.min(later),
            State::Reachable | State::Suspect { .. } | State::Dead => later,
        };
        let has_agent = self.session.as_ref().is_none_or(Session::is_up);
        let state = if has_agent || !was_heard {
            State::Reachable
        } else {
            State::Monitored { asked: 0, next }
        };
        std::mem::replace(&mut self.state, state) == State::Dead
    }

    /// Its kernel is asked. `fast` and `slow`: times until the next question. Returns whether a
    /// healthy node is thereby found not to answer echo requests.
    pub(super) fn ask(&mut self, now: BootNanos, fast: Duration, slow: Duration) -> bool {
        match &mut self.state {
            State::Dead => false,
            State::Reachable => {
                self.next_slow = now.after(slow);
                self.neighbor.ask();
                self.echo.ask()
            }
            State::Suspect { asked, next } | State::Monitored { asked, next } => {
                *next = now.after(if *asked < QUESTIONS { fast } else { slow });
                *asked = (*asked + 1).min(QUESTIONS);
                false
            }
        }
    }

    /// Declares it dead if it has not answered the last [`QUESTIONS`] and used to answer, or if
    /// probes of its server fail too (`alive` is false). `interval`: between questions. Returns
    /// whether it died now.
    pub(super) fn conclude(&mut self, now: BootNanos, interval: Duration, alive: bool) -> bool {
        let (State::Suspect { asked, next } | State::Monitored { asked, next }) = &mut self.state
        else {
            return false;
        };
        if now.since(*next) > interval {
            // This node was late itself, and may have missed the answers.
            *asked = 0;
        }
        let (asked, next) = (*asked, *next);
        let expected = [self.echo, self.neighbor]
            .iter()
            .any(|means| means.answers == Some(true));
        let dies = asked >= QUESTIONS && (!alive || expected && now >= next);
        if dies {
            self.state = State::Dead;
            self.lost = now;
        }
        dies
    }

    /// A probe's result as it counts now. One that got no answer on an open connection proves life
    /// only at the time of the connection. If that was before the node was lost, it is silence.
    pub(super) fn dated(&self, probe: Probe) -> Probe {
        match probe {
            Probe::Hung { reason, connected } if connected < self.lost => Probe::Silent(reason),
            _ => probe,
        }
    }

    /// What follows for connections. `probed`: probes show that it lives.
    pub(super) fn sign(&self, probed: bool) -> Sign {
        let (lives, is_silent) = match self.state {
            State::Reachable => (probed || self.is_up(), false),
            // The answer to the last question may still be on its way.
            State::Monitored { asked, .. } => (probed, asked > 1),
            State::Suspect { .. } => (probed, true),
            State::Dead => (false, true),
        };
        Sign { lives, is_silent }
    }
}
