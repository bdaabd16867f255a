//! `kill -9` of one API server under load. No health check is fast enough for that and none
//! is needed: the node has no listening socket any more, so a SYN goes on to the next rank.

use anyhow::Result;

use crate::cluster::{Cluster, Plan};
use crate::outcome::{Down, Outcome, Timeline};
use crate::scenario::{Scenario, Test, When};
use crate::traffic::Traffic;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "apiserver_killed",
    promise: "apiserver_killed_fails_no_request_that_starts_after",
    tests: &[
        Test::netns(Plan::default),
        Test::shared_machines(When::Asked),
    ],
    run,
};

pub(super) fn run(cluster: &mut Cluster, timeline: &mut Timeline) -> Result<Outcome> {
    let mut outcome = Outcome::new(SCENARIO.name);
    let owner = cluster.owner()?;
    let victim = super::steps::another_than(cluster, owner);
    let name = cluster.name(victim);
    let mut traffic = Traffic::start(cluster, timeline)?;
    let held = traffic.before.on(&name).count();
    let at = cluster.kill_server(victim);
    timeline.event(format!(
        "kill -9 of the API server on {name}; {held} watches were on it"
    ));
    traffic.load.go_on(400)?;

    let down = Down { server: &name, at };
    let requests = traffic.finish(&mut outcome, Some(down))?;
    let after: Vec<_> = requests
        .iter()
        .filter(|request| request.start > at && !request.kept)
        .collect();
    let failed = after.iter().filter(|request| !request.succeeded()).count();
    outcome.promise(!after.is_empty() && failed == 0, || {
        format!(
            "{failed} of {} requests failed that started after the server was gone",
            after.len()
        )
    });
    let reset = outcome.watches_reset_dead;
    outcome.promise(reset == held, || {
        format!("{reset} of the {held} watches on the dead server were told so")
    });
    timeline.event(format!(
        "{failed} of {} requests failed that started after it, {} were lost with the server",
        after.len(),
        outcome.lost_with_server
    ));

    cluster.start_server(victim)?;
    cluster.wait_for_server(victim)?;
    cluster.wait_until_settled()?;
    timeline.event(format!("the API server on {name} is back and ready"));
    Ok(outcome)
}
