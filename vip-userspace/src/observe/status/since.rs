//! Times in words, and texts in lines.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// For how long something has been as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Since {
    /// Milliseconds, as far as the agent knows.
    pub for_ms: u64,
    /// It was so when the agent started, or a moment later.
    pub agent_start: bool,
}

impl Since {
    /// For a column: `3 min`, or `>3 min` if nobody knows for how much longer.
    #[must_use]
    pub fn brief(self) -> String {
        let more = if self.agent_start { ">" } else { "" };
        format!("{more}{}", age(self.for_ms))
    }

    /// For a sentence.
    #[must_use]
    pub fn text(self) -> String {
        let age = age(self.for_ms);
        if self.agent_start {
            format!("since the agent started {age} ago")
        } else {
            format!("for {age}")
        }
    }
}

/// A time in milliseconds, in the largest unit that still tells something.
#[must_use]
pub fn age(millis: u64) -> String {
    match millis / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86400),
    }
}

/// The lines of a text in a width; none if it is empty.
#[must_use]
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let lines = textwrap::wrap(text, width.max(20)).into_iter();
    lines
        .filter(|line| !line.is_empty())
        .map(Cow::into_owned)
        .collect()
}
