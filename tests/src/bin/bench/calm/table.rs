//! The table of what was counted, and what is wanted of it.

use super::disturbance::Disturbance;
use super::trial::Counts;
use crate::failover::kinds::{Profile, name};
use crate::report::{Better, Column, Figure, Goal, Label, Row};

pub(super) const LABELS: &[Label] = &[Label::new("disturbance", 14), Label::new("profile", 8)];

pub(super) fn columns() -> Vec<Column> {
    let column = Column::new;
    let mut columns = vec![column("node-hours", "", Better::Neither, 2)];
    for name in ["moves", "false deaths", "false hangs", "cut", "failed"] {
        columns.push(column(name, "", Better::Lower, 0));
        columns.push(column("", "/h", Better::Lower, 1));
    }
    columns.push(column("requests", "", Better::Neither, 0));
    columns
}

pub(super) fn row(disturbance: Disturbance, profile: Profile, counts: &Counts) -> Row {
    // keepalived says nothing of other nodes.
    let verdicts = |count: usize| {
        if profile.is_ours() {
            count as f64
        } else {
            f64::NAN
        }
    };
    let mut figures = vec![Figure::new(counts.node_hours)];
    for count in [
        counts.moves as f64,
        verdicts(counts.false_deaths),
        verdicts(counts.false_hangs),
        counts.cut as f64,
        counts.failed as f64,
    ] {
        figures.extend([Figure::new(count), Figure::new(count / counts.node_hours)]);
    }
    figures.push(Figure::count(counts.requests));
    Row {
        labels: vec![name(&disturbance), name(&profile)],
        figures,
        goals: goals(disturbance, profile, counts),
    }
}

fn goals(disturbance: Disturbance, profile: Profile, counts: &Counts) -> Vec<Goal> {
    if profile != Profile::Default {
        return Vec::new();
    }
    let mut goals = vec![Goal::new("no watch cut".to_owned(), counts.cut == 0)];
    if disturbance == Disturbance::Rest || disturbance.saturates() {
        goals.push(Goal::new("no move".to_owned(), counts.moves == 0));
    }
    goals
}
