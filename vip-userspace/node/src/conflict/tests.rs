use proptest::prelude::*;

use super::*;
use crate::testing::{at, index, params};

fn mac(last: u8) -> Mac {
    Mac::from_wire([2, 9, 9, 9, 9, last])
}

fn conflicts() -> Conflicts {
    let params = Params {
        probe_address: true,
        ..params(0, true)
    };
    let mut conflicts = Conflicts::new(&params);
    conflicts.on_start(at(0), false);
    conflicts
}

/// A backup that has waited for an owner, and heard none.
const BACKUP: Situation = Situation {
    is_owner: false,
    stays: true,
    owner: None,
    heard: BackendMask::EMPTY,
    owner_known_at: BootNanos::ZERO,
};

fn owner() -> Situation {
    Situation {
        is_owner: true,
        owner: Some(index(0)),
        ..BACKUP
    }
}

/// A host that is no node claims the VIP.
fn stranger(conflicts: &mut Conflicts, ms: u64, last: u8, situation: &Situation) -> Vec<Action> {
    let mut out = Vec::new();
    conflicts.on_claim(at(ms), mac(last), None, false, situation, &mut out);
    out
}

/// When the timer of a backup that may claim the VIP sends probes.
fn probes(conflicts: &mut Conflicts, times: std::ops::Range<u64>) -> Vec<u64> {
    let probes = |ms: &u64| {
        let mut out = Vec::new();
        conflicts.probe(at(*ms), true, &mut out);
        out == [Action::ProbeAddress]
    };
    times.filter(probes).collect()
}

/// Claims and rivals that are over at that time.
fn over(conflicts: &mut Conflicts, ms: u64, situation: &Situation) -> Vec<Report> {
    let mut out = Vec::new();
    conflicts.watch(at(ms), situation, &mut out);
    let report = |action| match action {
        Action::Report(report) => Some(report),
        _ => None,
    };
    out.into_iter().filter_map(report).collect()
}

#[test]
fn segment_is_asked_three_times_before_the_claim() {
    let mut conflicts = conflicts();
    conflicts.probe(at(0), false, &mut Vec::new());
    assert_eq!(conflicts.claim_allowed(), None, "a faulty node asks nobody");
    assert_eq!(probes(&mut conflicts, 0..1000), [0, 100, 200]);
    assert_eq!(conflicts.claim_allowed(), Some(at(300)));
    assert_eq!(conflicts.next_probe(), None);
}

#[test]
fn rival_that_is_removed_is_not_told_of_again() {
    let mut conflicts = conflicts();
    let mut out = Vec::new();
    for ms in [0, 3000] {
        conflicts.on_claim(at(ms), mac(1), Some(index(1)), true, &owner(), &mut out);
    }
    let is_told = |action: &Action| matches!(action, Action::Report(Report::TwoOwners { .. }));
    assert!(out.iter().any(is_told), "{out:?}");
    let mut removed = conflicts.clone();
    removed.remove(index(2));
    removed.remove(index(1));
    let is_over = Report::TwoOwners {
        node: index(1),
        present: false,
    };
    assert!(over(&mut conflicts, 60_000, &owner()).contains(&is_over));
    assert!(!over(&mut removed, 60_000, &owner()).contains(&is_over));
}

#[test]
fn segment_is_not_asked_where_the_answer_is_known() {
    let mut resumes = conflicts();
    resumes.on_start(at(0), true);
    let mut heard = conflicts();
    heard.on_owner(at(0));
    for mut conflicts in [resumes, heard] {
        assert_eq!(conflicts.claim_allowed(), Some(at(0)));
        assert_eq!(probes(&mut conflicts, 0..1000), [0; 0]);
    }
}

#[test]
fn claim_of_a_stranger_begins_the_questions_anew() {
    let mut conflicts = conflicts();
    assert_eq!(probes(&mut conflicts, 0..250), [0, 100, 200]);
    let actions = stranger(&mut conflicts, 250, 1, &BACKUP);
    let report = Report::Conflict {
        mac: mac(1),
        claimant: Claimant::Stranger,
        defended: false,
        fresh: true,
    };
    assert_eq!(actions, [Action::Report(report)]);
    assert_eq!(conflicts.claim_allowed(), None);
    let asked = probes(&mut conflicts, 251..3000);
    assert_eq!(asked, [1250, 1350, 1450]);
}

#[test]
fn vip_is_defended_once_in_ten_seconds() {
    let mut conflicts = conflicts();
    conflicts.on_owner(at(0));
    let defends = |ms: &u64| {
        let actions = stranger(&mut conflicts, *ms, 1, &owner());
        actions.contains(&Action::Announce)
    };
    let defended: Vec<u64> = (0..25_000).step_by(500).filter(defends).collect();
    assert_eq!(defended, [0, 10_000, 20_000]);
}

#[test]
fn node_that_is_heard_makes_no_claim_and_one_that_is_not_is_named() {
    let mut conflicts = conflicts();
    let heard = Situation {
        heard: BackendMask::EMPTY.with(index(1), true),
        owner: Some(index(2)),
        ..BACKUP
    };
    let mut claim = |node: usize, agent, situation: &Situation| {
        let mut out = Vec::new();
        let by = Some(index(node));
        conflicts.on_claim(at(0), mac(node as u8), by, agent, situation, &mut out);
        out.into_iter().find_map(|action| match action {
            Action::Report(Report::Conflict { claimant, .. }) => Some(claimant),
            _ => None,
        })
    };
    assert_eq!(claim(1, false, &heard), None, "its agent is heard");
    assert_eq!(claim(2, false, &heard), None, "it is the owner");
    let (node, owner) = (index(1), index(2));
    let unheard = Situation {
        heard: BackendMask::EMPTY,
        ..heard
    };
    assert_eq!(
        claim(1, true, &unheard),
        Some(Claimant::Unheard { node, owner })
    );
    assert_eq!(claim(1, false, &unheard), Some(Claimant::NoAgent(node)));
    assert_eq!(claim(1, true, &BACKUP), None, "it may be the owner");
    let early = Situation {
        owner_known_at: at(1),
        ..BACKUP
    };
    assert_eq!(claim(1, false, &early), None, "so may it be here");
    assert_eq!(claim(1, false, &BACKUP), Some(Claimant::NoAgent(node)));
}

#[test]
fn each_claim_is_over_twelve_seconds_after_its_last_repetition() {
    let mut conflicts = conflicts();
    for (ms, last) in [(0, 1), (6000, 2), (6001, 1)] {
        stranger(&mut conflicts, ms, last, &BACKUP);
    }
    let end = |last| Report::ConflictOver {
        mac: mac(last),
        claimant: Claimant::Stranger,
    };
    assert_eq!(conflicts.next_lapse(), Some(at(18_000)));
    assert_eq!(over(&mut conflicts, 17_999, &BACKUP), []);
    assert_eq!(over(&mut conflicts, 18_000, &BACKUP), [end(2)]);
    assert_eq!(over(&mut conflicts, 18_001, &BACKUP), [end(1)]);
    assert_eq!(conflicts.next_lapse(), None);
}

#[test]
fn claims_beyond_the_most_replace_the_oldest_one() {
    let mut conflicts = conflicts();
    for last in 0..100 {
        stranger(&mut conflicts, u64::from(last), last, &BACKUP);
    }
    let ends = over(&mut conflicts, 20_000, &BACKUP);
    let kept = |report: &Report| match report {
        Report::ConflictOver { mac, .. } => mac.to_wire()[5],
        _ => panic!("{report:?}"),
    };
    let kept: Vec<u8> = ends.iter().map(kept).collect();
    assert_eq!(kept, (92..100).collect::<Vec<u8>>());
}

#[test]
fn second_owner_is_told_after_two_and_a_half_seconds_and_never_in_a_handover() {
    let two = |present| Report::TwoOwners {
        node: index(1),
        present,
    };
    for stays in [true, false] {
        let mut conflicts = conflicts();
        let situation = Situation { stays, ..owner() };
        let mut told = Vec::new();
        for ms in (0..=5000).step_by(100) {
            let mut out = Vec::new();
            let by = Some(index(1));
            conflicts.on_claim(at(ms), mac(1), by, true, &situation, &mut out);
            if out.contains(&Action::Report(two(true))) {
                told.push(ms);
            }
        }
        let times = [2500];
        let ends = [two(false)];
        let count = usize::from(stays);
        assert_eq!(told, times[..count]);
        let ended = over(&mut conflicts, 5001, &BACKUP);
        let ended: Vec<_> = ended
            .into_iter()
            .filter(|report| matches!(report, Report::TwoOwners { .. }))
            .collect();
        assert_eq!(ended, ends[..count], "it is not the owner any more");
    }
}

proptest! {
    #[test]
    fn owner_asks_at_once_and_then_every_three_seconds_give_or_take_a_quarter(seed: u64) {
        let params = Params { probe_address: true, seed, ..params(0, true) };
        let mut conflicts = Conflicts::new(&params);
        conflicts.on_takeover(at(0));
        let mut asked = Vec::new();
        for _ in 0..30 {
            let now = conflicts.next_watch().unwrap();
            let mut out = Vec::new();
            conflicts.watch(now, &owner(), &mut out);
            prop_assert_eq!(out, [Action::ProbeAddress]);
            asked.push(now);
        }
        prop_assert_eq!(asked[0], at(0));
        let pauses: Vec<u128> = asked.windows(2).map(|pair| pair[1].since(pair[0]).as_millis()).collect();
        prop_assert!(pauses.iter().all(|pause| (2250..=3750).contains(pause)));
        prop_assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        let mut out = Vec::new();
        conflicts.watch(asked[29].after(Duration::from_secs(60)), &BACKUP, &mut out);
        prop_assert_eq!(out, [], "a backup does not ask");
    }
}

#[test]
fn nobody_asks_where_that_is_off() {
    let mut conflicts = Conflicts::new(&params(0, true));
    conflicts.on_start(at(0), false);
    assert_eq!(conflicts.claim_allowed(), Some(at(0)));
    assert_eq!(
        (conflicts.next_probe(), conflicts.next_watch()),
        (None, None)
    );
}
