//! Exit statuses: the one table that the commands, their help, the manual pages and the documents have.

use std::process::ExitCode;

/// How a command ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exit {
    /// It has done its work.
    Done,
    /// Something failed that is no fault of the input.
    Failed,
    /// The input is wrong, and nothing was changed.
    BadInput,
    /// `vip status`: the cluster is degraded.
    Degraded,
}

impl Exit {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::BadInput => 2,
            Self::Degraded => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// What the statuses of a command mean. An empty name: `vip` itself.
pub(super) fn statuses(command: &str) -> Vec<(Exit, &'static str)> {
    const FAILED: &str = "something failed, such as: no agent runs on this node, or not as root";
    const BAD_INPUT: &str = "a flag, an argument or a file is wrong; nothing was changed";
    let failed = match command {
        "run" => "the agent cannot start, or must end: standard error and the log say why",
        "check" => "at least one finding is a failure (FAIL)",
        "events" => "there are no events, or they cannot be read",
        "manifest" | "key" | "man" | "completions" => "the output cannot be written",
        "version" => "standard output cannot be written",
        _ => FAILED,
    };
    let bad_input = match command {
        "run" => {
            "the configuration is wrong, or another agent runs here or has the NIC or the VIP; \
             nothing was changed"
        }
        "reload" => "the configuration is wrong, and the old one stays",
        _ => BAD_INPUT,
    };
    let done = match command {
        "check" => "no finding is a failure; warnings do not count",
        "reload" => {
            "the configuration was applied; standard error names what waits for the next start of \
             the agent"
        }
        "status" => "the status was printed; with --exit-code or --wait: the cluster is healthy",
        _ => "done",
    };
    let mut statuses = vec![
        (Exit::Done, done),
        (Exit::Failed, failed),
        (Exit::BadInput, bad_input),
    ];
    if matches!(command, "status" | "") {
        let degraded = match command {
            "" => "`vip status --exit-code` and `--wait`: the cluster is degraded",
            _ => "with --exit-code or --wait: the cluster is degraded",
        };
        statuses.push((Exit::Degraded, degraded));
    }
    statuses
}

/// The same for the end of `--help`.
pub(super) fn help(command: &str) -> String {
    let lines = statuses(command)
        .into_iter()
        .map(|(exit, meaning)| format!("\n  {}  {meaning}", exit.number()));
    format!("Exit status:{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_documented_by_its_number() {
        const PAGE: &str = include_str!("../../../docs/operations.md");
        for exit in [Exit::Done, Exit::Failed, Exit::BadInput, Exit::Degraded] {
            let row = format!("| {} |", exit.number());
            assert!(PAGE.contains(&row), "{row}");
        }
        assert!(help("status").contains("\n  3  "));
        assert!(!help("drain").contains("\n  3  "));
    }
}
