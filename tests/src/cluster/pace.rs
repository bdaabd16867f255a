//! How much happens to a cluster, and how long its members may be silent: machines that are
//! emulated take ten times as long for everything.

/// A pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Watches that a scenario holds open.
    pub watches: usize,
    /// Time between two requests on new connections, in ms. It leaves a machine of two cores
    /// enough time for the handshakes of all the others.
    pub every_ms: u64,
    /// Connections with requests that are kept.
    pub kept: usize,
    /// After how many seconds a request has failed: as long as only waiting is meant, and not a
    /// machine that is slow.
    pub timeout_secs: u64,
    /// The VRRP advertisement interval.
    pub interval: &'static str,
    /// The configuration's table about BFD.
    pub bfd: &'static str,
    /// More of the one about health.
    pub health: &'static str,
}

/// Names the pace in the environment, for tests that run inside an emulated machine.
pub const PACE: &str = "VIP_TESTS_PACE";

impl Pace {
    /// For namespaces on a real machine.
    pub const BRISK: Self = Self {
        watches: 200,
        every_ms: 10,
        kept: 6,
        timeout_secs: 5,
        interval: "250ms",
        bfd: "",
        health: "",
    };

    /// For emulated machines.
    pub const CALM: Self = Self {
        watches: 60,
        every_ms: 100,
        kept: 3,
        timeout_secs: 10,
        interval: "1s",
        bfd: "\n[bfd]\ninterval = \"300ms\"\nmultiplier = 5\n",
        health: "interval = \"2s\"\ntimeout = \"10s\"\n",
    };

    /// For emulated machines with kube-apiservers, which are half busy with themselves.
    pub const SLOW: Self = Self {
        watches: 30,
        every_ms: 500,
        kept: 1,
        ..Self::CALM
    };

    /// What the environment says.
    #[must_use]
    pub fn of_environment() -> Self {
        match std::env::var(PACE).as_deref() {
            Ok("calm") => Self::CALM,
            _ => Self::BRISK,
        }
    }
}
