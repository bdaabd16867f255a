//! What `vip check` finds.

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Grade {
    Ok,
    Warning,
    Failure,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warn",
            Self::Failure => "FAIL",
        })
    }
}

/// One line of the report.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) grade: Grade,
    pub(super) what: &'static str,
    pub(super) text: String,
}

pub(super) fn finding(grade: Grade, what: &'static str, text: impl Into<String>) -> Finding {
    Finding {
        grade,
        what,
        text: text.into(),
    }
}

/// Things with commas between them.
pub(super) fn list<T, D: fmt::Display>(things: &[T], show: impl Fn(&T) -> D) -> String {
    let things: Vec<String> = things.iter().map(|thing| show(thing).to_string()).collect();
    things.join(", ")
}
