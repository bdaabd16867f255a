//! The demo's tables, for people.

use std::fmt::Write as _;

use super::row::Row;
use super::versus::{FAULTS, Versus};
use crate::outcome::Outcome;
use crate::text::count;

const LEGEND: &str = "
failed  requests that failed, except those that were lost
lost    requests under way to a server when it went down; no load balancer can save them
gap     longest time between two answers
cut     watches that ended although their server lives, of all watches on living servers
told    watches on the dead server whose client got a reset or an end of file
after   time from the end of that server until the last of these clients was told
";

/// What the product did.
pub(super) fn of(rows: &[Row]) -> String {
    let mut text = format!(
        "\n{:18} {:>7} {:>9} {:>7} {:>5} {:>8} {:>9} {:>6} {:>8}\n",
        "scenario", "took", "requests", "failed", "lost", "gap", "cut", "told", "after"
    );
    for Row { seconds, outcome } in rows {
        let _ = writeln!(
            text,
            "{:18} {:>7} {:>9} {:>7} {:>5} {:>8} {:>9} {:>6} {:>8}",
            outcome.name,
            format!("{seconds:.1} s"),
            count(outcome.requests),
            count(outcome.failed),
            count(outcome.lost_with_server),
            milliseconds(outcome.gap_ms),
            cut(outcome),
            count(outcome.watches_reset_dead),
            told(outcome),
        );
    }
    text + LEGEND
}

/// The product beside its rival.
pub(super) fn beside(rows: &[Row], versus: &Versus) -> String {
    let mut text = format!(
        "\nvip beside {} (k+h), configured as in kubeadm's guide to high availability: a run of \
         each\n\n{:18}{:^22}{:^22}{:^24}{:^20}\n{:18}",
        versus.versions, "", "failed requests", "gap", "watches cut", "told after", "scenario"
    );
    for width in [11, 11, 12, 10] {
        let _ = write!(text, "{:>width$}{:>width$}", "vip", "k+h");
    }
    text.push('\n');
    for Row { outcome, .. } in rows {
        let name = &outcome.name;
        let theirs = versus.rows.iter().map(|row| &row.outcome);
        let theirs = theirs.into_iter().find(|theirs| &theirs.name == name);
        let _ = write!(text, "{name:18}");
        pair(&mut text, 11, outcome, theirs, |one| count(one.failed));
        pair(&mut text, 11, outcome, theirs, |one| {
            milliseconds(one.gap_ms)
        });
        pair(&mut text, 12, outcome, theirs, cut);
        pair(&mut text, 10, outcome, theirs, told);
        text.push('\n');
    }
    text.push('\n');
    for fault in FAULTS {
        if let Some(note) = fault.note {
            let _ = writeln!(text, "{:18}{note}", fault.scenario);
        }
    }
    if let Some(error) = &versus.error {
        let _ = writeln!(text, "k+h did not run to the end: {error}");
    }
    text
}

/// A figure of the product and of the rival, which may have none.
fn pair(
    text: &mut String,
    width: usize,
    ours: &Outcome,
    theirs: Option<&Outcome>,
    figure: fn(&Outcome) -> String,
) {
    let theirs = theirs.map_or_else(|| "-".to_owned(), figure);
    let _ = write!(text, "{:>width$}{theirs:>width$}", figure(ours));
}

fn cut(outcome: &Outcome) -> String {
    format!("{}/{}", outcome.watches_cut_living, outcome.watches_living)
}

fn told(outcome: &Outcome) -> String {
    outcome.told_ms.map_or_else(|| "-".to_owned(), seconds)
}

fn milliseconds(ms: u64) -> String {
    if ms < 1000 {
        format!("{ms} ms")
    } else {
        seconds(ms)
    }
}

/// Milliseconds as seconds, with one decimal.
pub(super) fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, failed: usize) -> Row {
        let outcome = Outcome {
            requests: 1_234,
            failed,
            gap_ms: 3_612,
            watches: 200,
            watches_living: 133,
            ..Outcome::new(name)
        };
        Row {
            seconds: 9.8,
            outcome,
        }
    }

    #[test]
    fn columns_stand_below_their_heads() {
        let text = of(&[row("owner_killed", 0)]);
        let lines: Vec<&str> = text.lines().skip(1).take(2).collect();
        let [head, row] = lines[..] else {
            panic!("{text}");
        };
        assert_eq!(head.len(), row.len(), "{text}");
        let ends = |line: &str, word: &str| line.find(word).map(|at| at + word.len());
        assert_eq!(ends(head, "requests"), ends(row, "1,234"), "{text}");
        assert_eq!(ends(head, "cut"), ends(row, "0/133"), "{text}");
    }

    #[test]
    fn a_scenario_that_the_rival_did_not_run_has_dashes() {
        let versus = Versus {
            versions: "keepalived 1, HAProxy 2".to_owned(),
            rows: vec![row("owner_killed", 87)],
            error: None,
        };
        let text = beside(&[row("membership", 0), row("owner_killed", 0)], &versus);
        let figures = |name: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(name));
            let words = line.expect("each scenario has a line").split_whitespace();
            words.map(str::to_owned).collect()
        };
        assert_eq!(figures("membership ")[1..3], ["0", "-"], "{text}");
        assert_eq!(figures("owner_killed ")[1..3], ["0", "87"], "{text}");
    }
}
