//! The disturbances that `cargo xtask bench calm` takes.

use clap::ValueEnum;

use super::condition::Condition;
use super::pause::Pause;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Disturbance {
    /// None
    Rest,
    /// All cores are busy with ordinary processes
    Busy,
    /// The same, and the daemons get no real-time priority
    BusyNoRt,
    /// All cores are busy with processes of the lowest real-time priority
    BusyRt,
    /// The same, and the daemons get no real-time priority
    BusyRtNoRt,
    /// The daemons' control group is at its limit of memory
    Memory,
    /// All processes of a node are stopped for 20 to 500 ms
    Frozen,
    /// The switch disables a node's port for 50 to 2,000 ms
    Ports,
    /// 1 % of the frames that nodes send are lost
    #[value(name = "loss-1")]
    Loss1,
    /// 5 % of them
    #[value(name = "loss-5")]
    Loss5,
    /// 20 % of them
    #[value(name = "loss-20")]
    Loss20,
    /// The daemons of a node are stopped for 20 to 500 ms, and kernels limit ICMP echo replies
    IcmpLimited,
}

impl Disturbance {
    /// Whether the kernel refuses real-time priority to the daemons.
    pub(super) fn refuses_realtime(self) -> bool {
        matches!(self, Self::BusyNoRt | Self::BusyRtNoRt)
    }

    /// Whether other processes keep all cores busy.
    pub(super) fn saturates(self) -> bool {
        matches!(
            self.condition(),
            Some(Condition::Busy | Condition::BusyAtRealtime)
        )
    }

    /// What holds all the time.
    pub(super) fn condition(self) -> Option<Condition> {
        match self {
            Self::Rest | Self::Frozen | Self::Ports => None,
            Self::Busy | Self::BusyNoRt => Some(Condition::Busy),
            Self::BusyRt | Self::BusyRtNoRt => Some(Condition::BusyAtRealtime),
            Self::Memory => Some(Condition::Memory),
            Self::Loss1 => Some(Condition::Loss(1)),
            Self::Loss5 => Some(Condition::Loss(5)),
            Self::Loss20 => Some(Condition::Loss(20)),
            Self::IcmpLimited => Some(Condition::IcmpLimit),
        }
    }

    /// What happens to one node after the other.
    pub(super) fn pause(self) -> Option<Pause> {
        match self {
            Self::Frozen => Some(Pause::Processes),
            Self::Ports => Some(Pause::Port),
            Self::IcmpLimited => Some(Pause::Daemons),
            Self::Rest
            | Self::Busy
            | Self::BusyNoRt
            | Self::BusyRt
            | Self::BusyRtNoRt
            | Self::Memory
            | Self::Loss1
            | Self::Loss5
            | Self::Loss20 => None,
        }
    }
}
