//! The table of what was found, and what is wanted of it.

use super::kinds::{Profile, Scenario, name};
use super::trial::Sample;
use crate::report::{Better, Column, Figure, Goal, Label, Row, median, quantile};

pub(super) const LABELS: &[Label] = &[Label::new("scenario", 18), Label::new("profile", 8)];

pub(super) fn columns() -> Vec<Column> {
    let column = Column::new;
    vec![
        column("runs", "", Better::Neither, 0),
        column("gap", "ms", Better::Lower, 0),
        column("gap max", "ms", Better::Lower, 0),
        // In the second before the fault: what the machine does by itself.
        column("gap before", "ms", Better::Neither, 0),
        // Runs in which the VIP moved before anything happened.
        column("moved", "", Better::Lower, 0),
        column("failed", "", Better::Lower, 0),
        column("failed max", "", Better::Lower, 0),
        // In the second before the fault.
        column("failed before", "", Better::Neither, 0),
        // Begun after BFD had noticed the fault.
        column("late", "", Better::Lower, 0),
        column("late max", "", Better::Lower, 0),
        column("requests", "", Better::Neither, 0),
        column("cut", "", Better::Lower, 0),
        column("watches", "", Better::Neither, 0),
        column("stall", "ms", Better::Lower, 0),
        column("two answers", "", Better::Lower, 0),
        column("CPU", "%", Better::Lower, 2),
    ]
}

/// What the runs of a profile in a scenario found.
pub(super) struct Found<'s>(pub(super) &'s [Sample]);

impl Found<'_> {
    fn all(&self, value: fn(&Sample) -> f64) -> Vec<f64> {
        self.0.iter().map(value).collect()
    }

    fn median(&self, value: fn(&Sample) -> f64) -> f64 {
        median(&self.all(value))
    }

    fn worst(&self, value: fn(&Sample) -> f64) -> f64 {
        quantile(&self.all(value), 1.0)
    }

    fn sum(&self, value: fn(&Sample) -> usize) -> usize {
        self.0.iter().map(value).sum()
    }

    pub(super) fn row(&self, scenario: Scenario, profile: Profile) -> Row {
        let goals = if profile.is_ours() {
            self.goals(scenario, profile)
        } else {
            Vec::new()
        };
        Row {
            labels: vec![name(&scenario), name(&profile)],
            figures: vec![
                Figure::count(self.0.len()),
                Figure::new(self.median(|sample| sample.gap_ms)),
                Figure::new(self.worst(|sample| sample.gap_ms)),
                Figure::new(self.worst(|sample| sample.quiet_gap_ms)),
                Figure::count(self.sum(|sample| usize::from(sample.moved))),
                Figure::new(self.median(failed)),
                Figure::new(self.worst(failed)),
                Figure::count(self.sum(|sample| sample.quiet_failed)),
                Figure::new(self.median(late)),
                Figure::new(self.worst(late)),
                Figure::count(self.sum(|sample| sample.requests)),
                Figure::count(self.sum(|sample| sample.watches_cut)),
                Figure::count(self.sum(|sample| sample.watches)),
                Figure::new(self.worst(|sample| sample.stall_ms)),
                Figure::count(self.sum(|sample| sample.two_answers)),
                Figure::new(self.median(|sample| sample.cpu_percent)),
            ],
            goals,
        }
    }

    fn goals(&self, scenario: Scenario, profile: Profile) -> Vec<Goal> {
        let bound = |default: f64, fast: f64| match profile {
            Profile::Fast => fast,
            Profile::Default | Profile::Guide | Profile::Tuned => default,
        };
        let few_failed = |bound: f64| {
            let text = format!("median of {bound} failed");
            Goal::new(text, self.median(failed) <= bound)
        };
        let none_failed = || Goal::new("no failed request".to_owned(), self.worst(failed) == 0.0);
        let none_late = || Goal::new("none failed late".to_owned(), self.worst(late) == 0.0);
        let none_cut = || {
            let cut = self.sum(|sample| sample.watches_cut);
            Goal::new("no watch cut".to_owned(), cut == 0)
        };
        let worst_gap = |bound: f64| {
            let gap = self.worst(|sample| sample.gap_ms);
            Goal::new(format!("gap {bound} ms"), gap <= bound)
        };
        match scenario {
            Scenario::PowerCut => {
                let wanted = bound(120.0, 35.0);
                let gap = self.median(|sample| sample.gap_ms);
                let stall = self.worst(|sample| sample.stall_ms);
                vec![
                    Goal::new(format!("median gap {wanted} ms"), gap <= wanted),
                    few_failed(bound(50.0, 15.0)),
                    none_late(),
                    none_cut(),
                    Goal::new("stall 1 s".to_owned(), stall <= 1000.0),
                ]
            }
            Scenario::OtherPowerCut => {
                vec![few_failed(bound(12.0, 5.0)), none_late(), none_cut()]
            }
            Scenario::ServerHangs | Scenario::OtherServerHangs => vec![few_failed(20.0)],
            Scenario::ServerKilled | Scenario::AgentKilled => vec![none_failed()],
            Scenario::Handover => vec![none_failed(), worst_gap(20.0)],
            Scenario::AgentFrozen => {
                let twice = self.sum(|sample| sample.two_answers);
                let once = Goal::new("never two answers".to_owned(), twice == 0);
                vec![once, worst_gap(bound(180.0, 35.0))]
            }
            Scenario::Rest if profile == Profile::Default => {
                let cpu = self.median(|sample| sample.cpu_percent);
                vec![Goal::new("1 % of a core".to_owned(), cpu < 1.0)]
            }
            Scenario::Rest | Scenario::ProxyKilled => vec![],
        }
    }
}

fn failed(sample: &Sample) -> f64 {
    sample.failed as f64
}

/// Not a number where no BFD session went down.
fn late(sample: &Sample) -> f64 {
    sample.late.map_or(f64::NAN, |late| late as f64)
}
