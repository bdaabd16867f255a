//! Tests of joining.

use super::*;
use crate::testing::{at, index, params};

fn settle(members: &mut Membership, ms: u64, hears: impl Fn(BackendIndex) -> bool) {
    members.settle(at(ms), BackendMask::ALL, hears, &mut Vec::new());
}

#[test]
fn joining_ends_with_the_last_node_that_is_located_and_hears_this_one() {
    let mut members = Membership::new(&params(0, true));
    members.on_start(at(0), BackendMask::EMPTY);
    members.locate(index(1));
    settle(&mut members, 1, |_| true);
    assert!(members.is_joining(), "the third node is not located");
    members.locate(index(2));
    settle(&mut members, 2, |index| index.get() == 1);
    assert!(
        members.is_joining(),
        "the third node does not hear this one"
    );
    settle(&mut members, 3, |_| true);
    assert!(!members.is_joining());
}

#[test]
fn joining_ends_with_its_time_and_an_agent_that_goes_on_does_not_join() {
    let mut members = Membership::new(&params(0, true));
    members.on_start(at(0), BackendMask::EMPTY);
    settle(&mut members, 499, |_| false);
    assert!(members.is_joining());
    settle(&mut members, 500, |_| false);
    assert!(!members.is_joining());

    let mut members = Membership::new(&params(0, true));
    members.on_start(at(0), BackendMask::first(2));
    assert!(!members.is_joining());
}
