//! Whether the programs of this node run. An attached program need not run: a driver may skip it,
//! and another product's program before it may end the chain.

use std::fmt;
use std::time::Duration;

use vip_common::wire::time::BootNanos;

/// A hook at which a program of the agent must run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// XDP or tcx ingress of the NIC: ARP for the VIP, and steering.
    Ingress,
    /// tcx egress of the NIC: drops ARP for the VIP that the agent did not send.
    Egress,
    /// `connect` of local sockets (cgroup).
    Connect,
}

impl Hook {
    /// Name in status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Connect => "connect",
        }
    }
}

/// Whether a program runs, as its counters show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Running {
    /// Not known yet.
    #[default]
    Unproven,
    /// It counted a frame.
    Yes,
    /// It did not count frames that must have passed it.
    No,
}

impl Running {
    /// Name in status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unproven => "unproven",
            Self::Yes => "yes",
            Self::No => "no",
        }
    }
}

/// The kernel's mechanism that runs a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// XDP, before all others.
    Xdp,
    /// The list of tcx programs (Linux 6.6).
    Tcx,
    /// The filters of clsact.
    Clsact,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "XDP program",
            Self::Tcx => "tcx program",
            Self::Clsact => "clsact filter",
        })
    }
}

/// Another product's program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// The mechanism that runs it.
    pub by: By,
    /// The kernel's program ID; `None` for a filter that is no program.
    pub id: Option<u32>,
    /// Its name, up to 15 bytes; empty if the kernel does not provide it. For a filter that is no
    /// program, its kind.
    pub name: String,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, id, name } = self;
        match id {
            Some(id) if name.is_empty() => {
                write!(f, "{by} (id {id}; `bpftool prog show id {id}` says whose)")
            }
            Some(id) => write!(f, "{by} {name} (id {id})"),
            None => write!(f, "{by} {name}"),
        }
    }
}

/// Shows whether the ingress program runs. It counts each ARP and Neighbor Discovery frame, and
/// each of those frames that the agent's packet sockets receive has passed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IngressProof {
    running: Running,
    /// Frames that the program had counted at the last look.
    counted: u64,
    /// Frames that the sockets received since the program last counted one.
    frames: u32,
    /// Of these, since the last look.
    fresh: u32,
    /// Looks in a row at which the sockets had received frames and the program had counted none.
    misses: u32,
}

/// The nodes to ask by ARP, so that there are frames to count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// None: frames arrive without questions.
    Nobody,
    /// One node, since no frames arrived.
    One,
    /// All nodes, since it is not known whether the program runs.
    All,
}

/// Frames that the sockets received and the program did not count, from which on it counts as not
/// running. More than one, since frames in flight while it was attached do not pass it.
const MISSED: u32 = 3;

/// Looks in a row with such frames. At a single one, the frames may have been counted before the
/// previous look and read after it.
const MISSES: u32 = 2;

impl IngressProof {
    /// The program is attached. `counted`: the frames that it, or an earlier one with the same
    /// maps, has counted so far.
    #[must_use]
    pub fn begin(counted: u64) -> Self {
        Self {
            running: Running::Unproven,
            counted,
            frames: 0,
            fresh: 0,
            misses: 0,
        }
    }

    /// Whether the program runs.
    #[must_use]
    pub fn running(&self) -> Running {
        self.running
    }

    /// A socket received a frame. `counted` reads the program's counter. It is called only while it
    /// is not known whether the program runs.
    pub fn on_frame(&mut self, counted: impl FnOnce() -> Option<u64>) {
        self.frames = self.frames.saturating_add(1);
        self.fresh = self.fresh.saturating_add(1);
        if self.running != Running::Unproven {
            return;
        }
        match counted() {
            Some(counted) if counted > self.counted => self.seen(counted),
            Some(_) if self.frames >= MISSED => self.running = Running::No,
            _ => {}
        }
    }

    /// A periodic look. `counted`: the frames that the program has counted so far. Returns the
    /// nodes to ask.
    pub fn on_look(&mut self, counted: u64) -> Ask {
        let delta = counted.saturating_sub(self.counted);
        let fresh = std::mem::take(&mut self.fresh);
        if delta > 0 {
            // A program that counts only some of the frames does not run.
            if self.running != Running::No || delta >= u64::from(fresh) {
                self.seen(counted);
                return Ask::Nobody;
            }
            self.counted = counted;
            return Ask::All;
        }
        if fresh > 0 {
            self.misses += 1;
            if self.misses >= MISSES && self.frames >= MISSED {
                self.running = Running::No;
            }
        }
        if self.running == Running::Yes && self.frames == 0 {
            Ask::One
        } else {
            Ask::All
        }
    }

    fn seen(&mut self, counted: u64) {
        *self = Self {
            running: Running::Yes,
            ..Self::begin(counted)
        };
    }
}

/// How often a program is moved before others within [`CALM`].
const MOVES: u32 = 3;

/// Time without a move after which the number of moves starts from zero.
const CALM: Duration = Duration::from_secs(600);

/// What to do if other programs run before the agent's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placing {
    /// Leave it where it is.
    Stay,
    /// Move it before them.
    First,
    /// Leave it where it is, and report that: the others move before it each time.
    GiveUp,
}

/// The state of the agent's program at one hook.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Watch {
    running: Running,
    /// Other programs that run before it, in order.
    ahead: Vec<Program>,
    /// Number of moves lately, and the time of the last one.
    moves: u32,
    moved: BootNanos,
    gave_up: bool,
}

impl Watch {
    /// Whether the program runs.
    #[must_use]
    pub fn running(&self) -> Running {
        self.running
    }

    /// The programs that run before it, in order.
    #[must_use]
    pub fn ahead(&self) -> &[Program] {
        &self.ahead
    }

    /// Those of them that it can be moved before. (XDP programs run before all tc programs.)
    pub fn movable(&self) -> impl Iterator<Item = &Program> {
        self.ahead.iter().filter(|program| program.by != By::Xdp)
    }

    /// Takes the programs that run before it now, and decides about those that it can be moved
    /// before.
    pub fn on_look(&mut self, now: BootNanos, ahead: Vec<Program>) -> Placing {
        self.ahead = ahead;
        if self.movable().next().is_none() {
            Placing::Stay
        } else if self.may_move(now) {
            Placing::First
        } else if std::mem::replace(&mut self.gave_up, true) {
            Placing::Stay
        } else {
            Placing::GiveUp
        }
    }

    /// Whether the program may be attached anew now. The number of times is limited.
    pub fn may_move(&mut self, now: BootNanos) -> bool {
        if now.since(self.moved) > CALM {
            self.moves = 0;
            self.gave_up = false;
        }
        if self.moves == MOVES {
            return false;
        }
        self.moves += 1;
        self.moved = now;
        true
    }

    /// Takes whether the program runs. Returns whether that changed.
    pub fn on_proof(&mut self, running: Running) -> bool {
        std::mem::replace(&mut self.running, running) != running
    }

    /// Whether the node must not own the VIP: the program does not run, or another one before it
    /// might keep it from running.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        match self.running {
            Running::Yes => false,
            Running::Unproven => !self.ahead.is_empty(),
            Running::No => true,
        }
    }

    /// Why it does not run, or might not; a text for operators.
    #[must_use]
    pub fn cause(&self) -> Option<String> {
        let ahead: Vec<String> = self.ahead.iter().map(ToString::to_string).collect();
        let ahead = ahead.join(", then ");
        match (self.running, ahead.is_empty()) {
            (Running::Yes, _) | (Running::Unproven, true) => None,
            (Running::Unproven, false) => {
                Some(format!("nothing was seen to reach it yet behind {ahead}"))
            }
            (Running::No, true) => {
                Some("it is attached, and the kernel does not run it".to_owned())
            }
            (Running::No, false) => Some(format!(
                "{ahead} stands before it and lets nothing through to it"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: u64) -> BootNanos {
        BootNanos(second * 1_000_000_000)
    }

    fn program(by: By) -> Program {
        Program {
            by,
            id: Some(7),
            name: "foreign".to_owned(),
        }
    }

    #[test]
    fn a_program_that_counts_nothing_does_not_run_and_one_that_counts_does() {
        let mut proof = IngressProof::begin(5);
        for _ in 1..MISSED {
            proof.on_frame(|| Some(5));
            assert_eq!(proof.running(), Running::Unproven);
        }
        let mut runs = proof;
        runs.on_frame(|| Some(6));
        assert_eq!(runs.running(), Running::Yes);
        proof.on_frame(|| Some(5));
        assert_eq!(proof.running(), Running::No);
        // ARP requests of clients for the VIP reach no socket, but are counted.
        let mut asked = IngressProof::begin(5);
        assert_eq!(asked.on_look(9), Ask::Nobody);
        assert_eq!(asked.running(), Running::Yes);
    }

    #[test]
    fn a_program_that_ceases_to_run_is_found_out_and_a_quiet_segment_is_asked() {
        let mut proof = IngressProof::begin(0);
        proof.on_frame(|| Some(1));
        let unasked = || panic!("the counter is read at each look only");
        assert_eq!(proof.on_look(1), Ask::One, "quiet");
        for _ in 0..20 {
            proof.on_frame(unasked);
        }
        // They may have been counted before the last look.
        assert_eq!(proof.on_look(1), Ask::All);
        assert_eq!(proof.running(), Running::Yes);
        let mut healthy = proof;
        healthy.on_frame(unasked);
        assert_eq!(healthy.on_look(2), Ask::Nobody);
        proof.on_frame(unasked);
        assert_eq!(proof.on_look(1), Ask::All);
        assert_eq!(proof.running(), Running::No);
        // It counts some: it runs now and then.
        for _ in 0..3 {
            proof.on_frame(unasked);
        }
        assert_eq!(proof.on_look(2), Ask::All);
        assert_eq!(proof.running(), Running::No);
        proof.on_frame(unasked);
        assert_eq!(proof.on_look(3), Ask::Nobody);
        assert_eq!(proof.running(), Running::Yes);
    }

    #[test]
    fn silence_proves_nothing() {
        let mut proof = IngressProof::begin(0);
        for _ in 0..100 {
            assert_eq!(proof.on_look(0), Ask::All);
        }
        assert_eq!(proof.running(), Running::Unproven);
        proof.on_frame(|| Some(1));
        for _ in 0..100 {
            assert_eq!(proof.on_look(1), Ask::One);
        }
        assert_eq!(proof.running(), Running::Yes);
    }

    #[test]
    fn a_program_is_put_first_a_few_times_and_then_left_where_it_is() {
        let mut watch = Watch::default();
        let others = || vec![program(By::Tcx)];
        for at in 0..u64::from(MOVES) {
            assert_eq!(watch.on_look(second(at), others()), Placing::First);
            assert_eq!(watch.on_look(second(at), vec![]), Placing::Stay);
        }
        assert_eq!(watch.on_look(second(10), others()), Placing::GiveUp);
        assert_eq!(watch.on_look(second(12), others()), Placing::Stay);
        let later = second(10).after(CALM);
        assert_eq!(watch.on_look(later, others()), Placing::First);
        // XDP programs run before all others.
        assert_eq!(
            Watch::default().on_look(second(0), vec![program(By::Xdp)]),
            Placing::Stay
        );
    }

    #[test]
    fn what_does_not_run_and_what_may_not_is_a_fault_with_a_name() {
        let mut watch = Watch::default();
        assert!(
            !watch.is_fault(),
            "alone, it may run before anything shows it"
        );
        watch.on_look(second(0), vec![program(By::Xdp)]);
        assert!(watch.is_fault());
        assert!(
            watch
                .cause()
                .is_some_and(|cause| cause.contains("XDP program foreign (id 7)"))
        );
        assert!(watch.on_proof(Running::Yes));
        assert!(!watch.is_fault() && watch.cause().is_none());
        assert!(!watch.on_proof(Running::Yes));
        assert!(watch.on_proof(Running::No));
        assert!(watch.is_fault());
        assert!(
            watch
                .cause()
                .is_some_and(|cause| cause.contains("stands before it"))
        );
    }
}
