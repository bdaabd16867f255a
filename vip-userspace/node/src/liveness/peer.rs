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
    /// Its agent is heard. Without BFD: probes show that it lives.
    Up,
    /// Its agent is gone, but its kernel answers, and has done so all the time. So the programs are
    /// there, and all connections go on. No BFD session would show the node's end, so its kernel is
    /// asked on and on. A node that shuts down ends its agent first.
    Watched {
        /// Questions asked since the last answer, [`QUESTIONS`] at most.
        asked: u32,
        /// When the next one is sent, or the node found to be away.
        next: BootNanos,
    },
    /// The BFD detection time expired. Its kernel is asked, since connections survive a crash of
    /// the agent but not one of the node.
    Suspect {
        /// Questions asked.
        asked: u32,
        /// When the next one is sent, or the node found to be away.
        next: BootNanos,
    },
    /// Its agent has not been heard since the node was lost or since this agent started. The node
    /// may have its connections still, or may have booted without the VIP on its `lo`.
    Away {
        /// Its kernel does not answer either.
        silent: bool,
        /// When it is asked next.
        next: BootNanos,
    },
    /// Nobody has heard it for so long that its clients are told.
    Gone,
}

impl State {
    /// Whether nothing on the node answers.
    const fn is_silent(self) -> bool {
        matches!(self, Self::Away { silent: true, .. } | Self::Gone)
    }
}

/// What is known of a node, without times: for operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// Its agent is heard. Without BFD: probes show that it lives.
    Up,
    /// Its agent is not heard, and its kernel answers.
    Watched,
    /// Its agent is not heard any more, and its kernel has not answered yet.
    Suspect,
    /// Its agent has not been heard since the node was lost, or since this agent started. Its
    /// connections are kept.
    Away,
    /// It has not been heard for `reset_after`: its clients are told.
    Gone,
}

impl PeerState {
    /// Name in the documents and for operators.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Watched => "watched",
            Self::Suspect => "suspect",
            Self::Away => "away",
            Self::Gone => "gone",
        }
    }
}

/// What follows for connections to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// It gets segments in its turn: it is up or watched.
    Alive,
    /// It gets segments after all other nodes.
    Suspect,
    /// It gets nothing, and may have connections. `silent`: its kernel does not answer.
    Away {
        /// Its kernel does not answer.
        silent: bool,
    },
    /// It has no connections any more.
    Gone,
}

/// What has happened to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// It was up, watched or suspect, and is away.
    Away,
    /// It was away, and is gone.
    Gone,
}

/// Times by which a node is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pace {
    /// Between questions to a node whose agent is not heard.
    pub(super) fast: Duration,
    /// Between questions to a healthy node, or to one whose silence proves nothing.
    pub(super) slow: Duration,
    /// Between questions to a node that is away.
    pub(super) away: Duration,
    /// From the last sign of life until a node that is away is gone.
    pub(super) reset_after: Duration,
}

/// Time from the agent's start until a node that it has not heard is gone, at least.
pub(super) const FIRST_HEARING: Duration = Duration::from_secs(3);

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
    /// Until when its agent counts as one that is there now, by its last hello; `None`: it does not.
    /// Only with authentication of BFD.
    pub(super) fresh_until: Option<BootNanos>,
    state: State,
    /// It was never heard by this agent or the one before.
    unheard: bool,
    /// When it was last lost: suspect, or away. Signs of life from before do not count.
    lost: BootNanos,
    /// The freshest evidence that it lives, this node's own or another member's, or when the clock
    /// towards away and gone began anew.
    evidence: BootNanos,
    /// This node's own last sign of it, its BFD packets aside.
    sign: Option<BootNanos>,
    /// When it is asked next while it is healthy.
    next_slow: BootNanos,
    /// Whether its kernel answers ICMP echo requests, and ARP or Neighbor Discovery.
    echo: Means,
    neighbor: Means,
}

impl Peer {
    /// Not heard yet, with a session that is not started. Without BFD it counts as up.
    pub(super) fn new(session: Option<Session>) -> Self {
        let state = match session {
            Some(_) => State::Away {
                silent: false,
                next: BootNanos(u64::MAX),
            },
            None => State::Up,
        };
        Self {
            session,
            fresh_until: None,
            state,
            unheard: true,
            lost: BootNanos::ZERO,
            evidence: BootNanos::ZERO,
            sign: None,
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
            State::Suspect { next, .. }
            | State::Watched { next, .. }
            | State::Away { next, .. } => next,
            State::Up if self.is_up() => self.next_slow,
            State::Up | State::Gone => BootNanos(u64::MAX),
        }
    }

    /// When a node that is away is gone, unless it is heard; the end of time for others.
    pub(super) fn end(&self, pace: Pace) -> BootNanos {
        match self.state {
            State::Away { .. } if self.unheard => {
                self.heard().after(pace.reset_after.max(FIRST_HEARING))
            }
            State::Away { .. } => self.heard().after(pace.reset_after),
            State::Up | State::Watched { .. } | State::Suspect { .. } | State::Gone => {
                BootNanos(u64::MAX)
            }
        }
    }

    /// The freshest evidence that it lives.
    fn heard(&self) -> BootNanos {
        let session = self.session.as_ref().map(Session::heard);
        self.evidence.max(session.unwrap_or_default())
    }

    /// When this node itself last had a sign of it.
    pub(super) fn last_sign(&self) -> Option<BootNanos> {
        let session = self.session.as_ref().map(Session::heard);
        self.sign
            .max(session.filter(|heard| *heard > BootNanos::ZERO))
    }

    /// Another member had evidence at that time. A node that was gone may not be.
    pub(super) fn on_evidence(&mut self, now: BootNanos, at: BootNanos, pace: Pace) {
        self.evidence = self.evidence.max(at);
        if self.state == State::Gone && self.evidence.after(pace.reset_after) > now {
            self.state = State::Away {
                silent: true,
                next: now,
            };
        }
    }

    /// The agent starts. `known`: an earlier agent heard the node, so its kernel is asked from now
    /// on.
    pub(super) fn on_start(&mut self, now: BootNanos, known: bool) {
        self.evidence = now;
        if known && self.session.is_some() {
            self.unheard = false;
            self.state = State::Watched {
                asked: 0,
                next: now,
            };
        }
    }

    /// This node did not run, or was cut off: what it did not hear proves nothing. All clocks
    /// towards away and gone begin anew.
    pub(super) fn begin_anew(&mut self, now: BootNanos) {
        self.evidence = now;
        if let State::Suspect { asked, next } | State::Watched { asked, next } = &mut self.state {
            (*asked, *next) = (0, now);
        }
    }

    /// Its BFD session came up. Returns whether it did not answer at all before.
    pub(super) fn on_up(&mut self, now: BootNanos) -> bool {
        self.next_slow = now;
        self.unheard = false;
        std::mem::replace(&mut self.state, State::Up).is_silent()
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
    pub(super) fn watch(&mut self, next: BootNanos) {
        if self.state == State::Up {
            self.state = State::Watched { asked: 0, next };
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

    /// It showed that it lives. `later`: when to ask it next if its agent is gone. Returns whether
    /// it did not answer at all before.
    pub(super) fn on_sign_of_life(&mut self, now: BootNanos, later: BootNanos) -> bool {
        (self.evidence, self.sign) = (now, Some(now));
        let state = match self.state {
            State::Up => State::Up,
            State::Watched { next, .. } => State::Watched {
                asked: 0,
                next: next.min(later),
            },
            State::Suspect { .. } => State::Watched {
                asked: 0,
                next: later,
            },
            State::Away { next, .. } => State::Away {
                silent: false,
                next,
            },
            State::Gone => State::Away {
                silent: false,
                next: later,
            },
        };
        std::mem::replace(&mut self.state, state).is_silent()
    }

    /// Its kernel is asked. Returns whether a healthy node is thereby found not to answer echo
    /// requests.
    pub(super) fn ask(&mut self, now: BootNanos, pace: Pace) -> bool {
        match &mut self.state {
            State::Up => {
                self.next_slow = now.after(pace.slow);
                self.neighbor.ask();
                return self.echo.ask();
            }
            State::Suspect { asked, next } | State::Watched { asked, next } => {
                let fast = *asked < QUESTIONS;
                *next = now.after(if fast { pace.fast } else { pace.slow });
                *asked = (*asked + 1).min(QUESTIONS);
            }
            State::Away { next, .. } => *next = now.after(pace.away),
            State::Gone => {}
        }
        false
    }

    /// Finds it away if it has not answered the last [`QUESTIONS`] and used to answer, or if probes
    /// of its server fail too (`alive` is false); and gone if it has been away for long enough.
    pub(super) fn conclude(&mut self, now: BootNanos, pace: Pace, alive: bool) -> Option<Change> {
        if now >= self.end(pace) {
            self.state = State::Gone;
            return Some(Change::Gone);
        }
        let lost = match &mut self.state {
            State::Suspect { asked, next } | State::Watched { asked, next } => {
                if now.since(*next) > pace.fast {
                    // This node was late itself, and may have missed the answers.
                    *asked = 0;
                }
                let (asked, next) = (*asked, *next);
                let expected = [self.echo, self.neighbor]
                    .iter()
                    .any(|means| means.answers == Some(true));
                asked >= QUESTIONS && (!alive || expected && now >= next)
            }
            // Without BFD, probes decide.
            State::Up => self.session.is_none() && !alive,
            State::Away { .. } | State::Gone => {
                if self.session.is_none() && alive {
                    self.state = State::Up;
                }
                false
            }
        };
        if !lost {
            return None;
        }
        self.state = State::Away {
            silent: true,
            next: now.after(pace.away),
        };
        self.lost = now;
        Some(Change::Away)
    }

    /// A probe's result as it counts now. One that got no answer on an open connection proves life
    /// only at the time of the connection. If that was before the node was lost, it is silence.
    pub(super) fn dated(&self, probe: Probe) -> Probe {
        match probe {
            Probe::Hung { reason, connected } if connected < self.lost => Probe::Silent(reason),
            _ => probe,
        }
    }

    /// Whether nothing on the node answers.
    pub(super) const fn is_silent(&self) -> bool {
        self.state.is_silent()
    }

    /// Its state, for operators.
    pub(super) const fn state(&self) -> PeerState {
        match self.state {
            State::Up => PeerState::Up,
            State::Watched { .. } => PeerState::Watched,
            State::Suspect { .. } => PeerState::Suspect,
            State::Away { .. } => PeerState::Away,
            State::Gone => PeerState::Gone,
        }
    }

    /// What follows for connections.
    pub(super) fn standing(&self) -> Standing {
        match self.state {
            State::Up => Standing::Alive,
            // The answer to the last question may still be on its way.
            State::Watched { asked, .. } if asked <= 1 => Standing::Alive,
            State::Watched { .. } | State::Suspect { .. } => Standing::Suspect,
            State::Away { silent, .. } => Standing::Away { silent },
            State::Gone => Standing::Gone,
        }
    }
}
