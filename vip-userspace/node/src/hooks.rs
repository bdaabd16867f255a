//! Whether the programs of this node run. That one is attached does not say so: a driver may not
//! run it, and a program of another product that stands before it may let none run behind.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vip_common::wire::time::BootNanos;

/// Where programs of the agent must run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// The NIC's way in: ARP for the VIP, and what is steered.
    Ingress,
    /// The NIC's way out: the guard.
    Egress,
    /// `connect` of local sockets.
    Connect,
}

impl Hook {
    /// As status and metrics call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Connect => "connect",
        }
    }
}

/// Whether a program runs, as far as its effects show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Running {
    /// Nothing has shown it yet.
    #[default]
    Unproven,
    /// It was seen to.
    Yes,
    /// Something that it must have counted, it did not.
    No,
}

impl Running {
    /// As status calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unproven => "unproven",
            Self::Yes => "yes",
            Self::No => "no",
        }
    }
}

/// By what a program is run.
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

/// A program of somebody else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// By what it is run.
    pub by: By,
    /// The kernel's number; `None` for a filter that is no program.
    pub id: Option<u32>,
    /// Its name, of 15 bytes at most, empty if the kernel does not tell; of a filter that is no
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

/// Proof that the program on the way in runs. It counts each frame of ARP and Neighbour
/// Discovery, and whatever of these the agent's packet sockets get has passed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IngressProof {
    running: Running,
    /// Frames that the program had counted at the last look.
    counted: u64,
    /// Frames that the sockets got since the program last counted one.
    frames: u32,
    /// Of these, since the last look.
    fresh: u32,
    /// Looks in a row at which the sockets had got frames and the program had counted none.
    misses: u32,
}

/// Whom to ask, so that there is something to count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Nobody: frames come by themselves.
    Nobody,
    /// One node, as nothing came by itself.
    One,
    /// All nodes: something is to be found out.
    All,
}

/// Frames that the sockets got and the program did not count, until it is taken not to run. More
/// than one, since those in flight while it was attached may have passed it.
const MISSED: u32 = 3;

/// Looks with such frames. At the first one they may be such as were counted before the look
/// before and read after it.
const MISSES: u32 = 2;

impl IngressProof {
    /// The program is attached; `counted` frames have passed it so far, or an earlier one with
    /// the same maps.
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

    /// What is known.
    #[must_use]
    pub fn running(&self) -> Running {
        self.running
    }

    /// A socket got a frame. While nothing is known, what the program has counted by now is asked
    /// for.
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

    /// A look from time to time: `counted` frames have passed the program by now. Says whom to
    /// ask.
    pub fn on_look(&mut self, counted: u64) -> Ask {
        let delta = counted.saturating_sub(self.counted);
        let fresh = std::mem::take(&mut self.fresh);
        if delta > 0 {
            // One that runs now and then does not run.
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

/// How often a program is put before others' within [`CALM`].
const MOVES: u32 = 3;

/// After so long without a move, all is forgotten.
const CALM: Duration = Duration::from_secs(600);

/// What to do about a program that others stand before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placing {
    /// Nothing.
    Stay,
    /// Put it before them.
    First,
    /// Nothing, and say so: they come back before it again and again.
    GiveUp,
}

/// A hook and what is known of the program there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Watch {
    running: Running,
    /// Others' programs that get frames before it, the first one first.
    ahead: Vec<Program>,
    /// Times that it was put before others' lately, and when last.
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

    /// What stands before it, the first one first.
    #[must_use]
    pub fn ahead(&self) -> &[Program] {
        &self.ahead
    }

    /// Those of them that it can be put before: XDP programs run before all tc programs.
    pub fn movable(&self) -> impl Iterator<Item = &Program> {
        self.ahead.iter().filter(|program| program.by != By::Xdp)
    }

    /// These programs of others stand before it now. Says what to do about those that it can be
    /// put before.
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

    /// Whether the program may be attached once more: a few times, and then not for a while.
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

    /// What a proof says. Returns whether that is news.
    pub fn on_proof(&mut self, running: Running) -> bool {
        std::mem::replace(&mut self.running, running) != running
    }

    /// Whether the node must not own the VIP: the program does not run, or it may not, since
    /// somebody else's stands before it.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        match self.running {
            Running::Yes => false,
            Running::Unproven => !self.ahead.is_empty(),
            Running::No => true,
        }
    }

    /// Why it does not run, or may not.
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
        // What clients ask for the VIP never comes to a socket, and is counted.
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
        // XDP comes before all else.
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
