//! Proof that native XDP sees frames.
//!
//! Some drivers attach a program and never run it (virtio-net without mergeable receive
//! buffers, for one). The agent asks its peers for their Ethernet addresses. Each answer that
//! its packet socket gets has come through the NIC, so the program must have counted it.

/// Frames that the stack has seen and the program has not, until it is believed to be blind.
/// More than one, since those in flight while it was attached may have passed it.
const BLIND: u32 = 3;

/// What is known so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Proof {
    /// Nothing for sure.
    Open {
        /// Counted by the program before it was attached, by an earlier agent.
        baseline: u64,
        /// Frames that the stack has seen since.
        frames: u32,
    },
    /// The program runs.
    Seen,
    /// The program does not run.
    Blind,
}

impl Proof {
    /// The program is attached; `counted` ARP frames have passed it so far.
    pub(super) fn begin(counted: u64) -> Self {
        Self::Open {
            baseline: counted,
            frames: 0,
        }
    }

    /// The stack got an ARP frame, and the program has counted `counted` by now.
    pub(super) fn on_frame(self, counted: u64) -> Self {
        match self {
            Self::Open { baseline, .. } if counted > baseline => Self::Seen,
            Self::Open { frames, .. } if frames + 1 >= BLIND => Self::Blind,
            Self::Open { baseline, frames } => Self::Open {
                baseline,
                frames: frames + 1,
            },
            settled => settled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_counts_nothing_is_blind_and_one_that_counts_is_not() {
        let mut proof = Proof::begin(5);
        for _ in 1..BLIND {
            proof = proof.on_frame(5);
            assert!(matches!(proof, Proof::Open { .. }));
        }
        assert_eq!(proof.on_frame(6), Proof::Seen);
        assert_eq!(proof.on_frame(5), Proof::Blind);
        assert_eq!(Proof::Seen.on_frame(0), Proof::Seen);
    }
}
