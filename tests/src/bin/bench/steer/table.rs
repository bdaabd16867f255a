//! The report: net times, ratios to the floor, goals.

use anyhow::{Context, Result};

use super::cases::{Bound, Case, Target, Traffic};
use super::products::Setup;
use crate::report::{Better, Column, Figure, Goal, Label, Report, Row, family, median};

const LABELS: &[Label] = &[
    Label::new("program", 36),
    Label::new("hook", 4),
    Label::new("IP", 4),
    Label::new("flows", 13),
];

const TIME: Column = Column {
    name: "",
    unit: "ns",
    better: Better::Lower,
    ratio: Some("ratio"),
    decimals: 1,
};

/// Times of a case in nanoseconds a packet, one for each round.
#[derive(Default)]
pub(super) struct Times {
    pub(super) fed: Vec<f64>,
    /// Only of a program that does nothing: without making the packet anew.
    pub(super) direct: Vec<f64>,
}

/// The cases with their times.
pub(super) struct Table<'m> {
    pub(super) cases: &'m [Case],
    pub(super) times: &'m [Times],
}

impl Table<'_> {
    pub(super) fn report(&self, title: String) -> Result<Report> {
        let mut report = Report::new(title, LABELS, vec![TIME]);
        for (case, times) in self.cases.iter().zip(self.times) {
            let feed = self.feed(case.traffic)?;
            let net =
                |times: &Times| -> Vec<f64> { times.fed.iter().map(|time| time - feed).collect() };
            let own = net(times);
            let floor = net(self.find(case.traffic, |floor| floor.target == Target::Send)?);
            let ratios: Vec<f64> = own
                .iter()
                .zip(&floor)
                .map(|(own, floor)| own / floor)
                .collect();
            let ratio = median(&ratios);
            let goal = match case.bound {
                None => None,
                Some(Bound::Floors(most)) => Some(Goal::ratio(most, ratio, TIME.better)),
                Some(Bound::Above(most)) => {
                    let more = self.more_than_usual(case, times)?;
                    let text = format!("at most {most} ns more ({more:.1})");
                    Some(Goal::new(text, more <= most))
                }
            };
            report.add(Row {
                labels: vec![
                    case.name.to_owned(),
                    case.traffic.hook.name().to_owned(),
                    family(case.traffic.ipv6),
                    case.traffic.flows.label(),
                ],
                figures: vec![Figure::median(&own).ratio(ratio)],
                goals: goal.into_iter().collect(),
            });
        }
        Ok(report)
    }

    /// The times of the first case with this traffic of which this is true.
    fn find(&self, traffic: Traffic, is: impl Fn(&Case) -> bool) -> Result<&Times> {
        let mut all = self.cases.iter().zip(self.times);
        let found = all.find(|(case, _)| case.traffic == traffic && is(case));
        Ok(found.context("no case to compare with")?.1)
    }

    /// The cost of making a packet anew, in nanoseconds: the median, so that a disturbed round
    /// changes that round only.
    fn feed(&self, traffic: Traffic) -> Result<f64> {
        let times = self.find(traffic, |case| case.target == Target::Pass)?;
        let rounds = times.fed.iter().zip(&times.direct);
        let feeds: Vec<f64> = rounds.map(|(fed, direct)| fed - direct).collect();
        Ok(median(&feeds))
    }

    /// In nanoseconds, the median over the rounds.
    fn more_than_usual(&self, case: &Case, times: &Times) -> Result<f64> {
        let usual = self.find(case.traffic, |usual| {
            usual.target == Target::Product(Setup::USUAL) && usual.counter == case.counter
        })?;
        let rounds = times.fed.iter().zip(&usual.fed);
        let differences: Vec<f64> = rounds.map(|(own, usual)| own - usual).collect();
        Ok(median(&differences))
    }
}
