//! What `vip check` finds.

use std::fmt;

use serde::Serialize;

use crate::observe::paint::{Ink, paint};

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Grade {
    Ok,
    /// Not wrong, and worth a thought.
    Hint,
    Warning,
    Failure,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => paint(Ink::Good, "ok").fmt(f),
            Self::Hint => f.pad("hint"),
            Self::Warning => paint(Ink::Warning, "warn").fmt(f),
            Self::Failure => paint(Ink::Error, "FAIL").fmt(f),
        }
    }
}

/// One line of the report.
#[derive(PartialEq, Eq, Debug, Serialize)]
pub(super) struct Finding {
    /// For programs: stays the same when the text changes.
    code: String,
    #[serde(rename = "severity")]
    pub(super) grade: Grade,
    /// What was looked at.
    #[serde(rename = "subject")]
    pub(super) what: &'static str,
    pub(super) text: String,
    /// What to do, unless the text says it.
    remedy: Option<String>,
}

impl Finding {
    /// Gives it a code of its own.
    pub(super) fn code(self, code: &str) -> Self {
        Self {
            code: code.to_owned(),
            ..self
        }
    }

    /// Says what to do.
    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            grade, what, text, ..
        } = self;
        write!(f, "{grade:4}  {what:9}  {text}")?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// A finding. Its code is its subject and how bad it is, unless it gets one of its own: `bfd_ok`.
pub(super) fn finding(grade: Grade, what: &'static str, text: impl Into<String>) -> Finding {
    let grade_name = match grade {
        Grade::Ok => "ok",
        Grade::Hint => "hint",
        Grade::Warning => "warning",
        Grade::Failure => "failure",
    };
    Finding {
        code: format!("{}_{grade_name}", what.to_lowercase()),
        grade,
        what,
        text: text.into(),
        remedy: None,
    }
}

/// Things with commas between them.
pub(super) fn list<T, D: fmt::Display>(things: &[T], show: impl Fn(&T) -> D) -> String {
    let things: Vec<String> = things.iter().map(|thing| show(thing).to_string()).collect();
    things.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do_behind_what_is_wrong() {
        let found = finding(Grade::Failure, "link", "eth0 has no carrier")
            .code("no_carrier")
            .remedy("connect the cable");
        let line = anstream::adapter::strip_str(&found.to_string()).to_string();
        assert_eq!(
            line,
            "FAIL  link       eth0 has no carrier; connect the cable"
        );
        let json = serde_json::to_value(&found).expect("is written");
        assert_eq!(json["code"], "no_carrier");
        assert_eq!(json["severity"], "failure");
        assert_eq!(json["remedy"], "connect the cable");
        let ok = serde_json::to_value(finding(Grade::Ok, "BFD", "")).expect("is written");
        assert_eq!(
            (&ok["code"], &ok["remedy"]),
            (&"bfd_ok".into(), &serde_json::Value::Null)
        );
    }
}
