//! Short runs of the fuzzers of the peer channel: their corpus and mutations of it. `cargo +nightly
//! fuzz run hello` and `envelope` find new inputs.

use std::fs;
use std::path::{Path, PathBuf};

use vip_common::testing::Random;

use super::*;
use crate::election::Sealed;
use crate::hello::Instance;

/// Set: recorded inputs are written to the corpus.
const WRITE: &str = "VIP_WRITE_CORPUS";

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fuzz/corpus/{name}"))
}

/// The corpus, and inputs that were recorded now: those of the corpus are of the time at which they
/// were written, and may not get as far any more.
fn inputs(name: &str, recorded: Vec<(String, Vec<u8>)>) -> Vec<Vec<u8>> {
    let folder = folder(name);
    if std::env::var_os(WRITE).is_some() {
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (file, input) in &recorded {
            fs::write(folder.join(file), input).expect("the corpus is writable");
        }
    }
    let mut inputs: Vec<Vec<u8>> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| fs::read(entry.expect("readable").path()).expect("readable"))
        .collect();
    inputs.sort();
    inputs.extend(recorded.into_iter().map(|(_, input)| input));
    inputs
}

/// What happens to a cluster while its hellos are recorded, after so many seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Nothing,
    /// The third node leaves.
    Leaves,
    /// Its agent starts again.
    Restarts,
    /// It is gone, and the second one forgets it.
    Forgotten,
}

/// The hellos that come to the first of three nodes, and the first node at the end.
fn record(how: u8, bits: u8, then: Then) -> (Vec<u8>, Subject) {
    let mut nodes = [0, 1, 2].map(|number| Subject::start(START, number, how, 0));
    for node in &mut nodes {
        node.proves = bits & PROVES != 0;
    }
    let mut input = vec![how];
    let mut pause = 0_u8;
    let mut third_runs = true;
    for tick in 0..400_u32 {
        if tick == 200 {
            match then {
                Then::Leaves => nodes[2].input(Input::Leave),
                Then::Restarts => nodes[2] = Subject::start(nodes[2].now, 2, how, 1),
                Then::Forgotten => third_runs = false,
                Then::Nothing => {}
            }
        }
        if tick == 380 && then == Then::Forgotten {
            nodes[1].input(Input::Forget(address(2)));
        }
        for node in &mut nodes {
            node.pass(UNIT * 4);
        }
        pause += 4;
        for from in 0..nodes.len() {
            for hello in std::mem::take(&mut nodes[from].sent) {
                if from == 2 && !third_runs {
                    continue;
                }
                // Its agent ends after its good-bye.
                third_runs &= !hello.leaves;
                if from != 0 {
                    let bytes = hello.emit().expect("fits");
                    input.extend([from as u8 | bits, pause]);
                    input.extend((bytes.len() as u16).to_be_bytes());
                    input.extend(bytes);
                    pause = 0;
                }
                for to in (0..nodes.len()).filter(|to| *to != from) {
                    nodes[to].input(Input::Hello {
                        source: address(from as u8),
                        hello: Box::new(hello.clone()),
                        admits: bits & ADMITS != 0,
                    });
                }
            }
        }
    }
    let [first, ..] = nodes;
    (input, first)
}

fn recorded_hellos() -> Vec<(String, Vec<u8>)> {
    let mut recorded = Vec::new();
    for (way, bits) in [("key", SEALED | ADMITS), ("proof", PROVES)] {
        for how in [0, BFD, KNOWS, KNOWS | BFD, LISTED] {
            for then in [Then::Nothing, Then::Leaves, Then::Restarts, Then::Forgotten] {
                let (input, _) = record(how, bits, then);
                recorded.push((format!("{way}-{how}-{then:?}").to_lowercase(), input));
            }
        }
    }
    recorded
}

#[test]
fn recorded_hellos_are_believed_when_they_come_again_to_a_node_like_the_first() {
    for (then, how, members) in [
        (Then::Nothing, 0, Some(3)),
        (Then::Leaves, 0, Some(2)),
        (Then::Restarts, 0, Some(3)),
        (Then::Forgotten, BFD, None),
    ] {
        let (input, first) = record(how, ADMITS, then);
        let again = take_all(how, &input[1..]);
        let [found, found_again] = [first, again].map(|subject| {
            let known = subject.node.members().mask().count();
            (known, subject.node.confirmed().count())
        });
        assert_eq!(found, found_again, "{then:?}");
        assert!(
            members.is_none_or(|members| found == (members, members)),
            "{then:?}: {found:?}"
        );
    }
}

#[test]
fn the_corpus_of_hellos_and_its_mutations_break_no_rule() {
    let inputs = inputs("hello", recorded_hellos());
    assert!(inputs.len() > 20, "{} inputs", inputs.len());
    for input in &inputs {
        check_hellos(input);
    }
    let mut random = Random(0xc0ffee);
    for _ in 0..3000 {
        let mut input = random.pick(&inputs.iter().collect::<Vec<_>>()).clone();
        for _ in 0..=random.below(8) {
            if !input.is_empty() {
                let place = random.below(input.len());
                input[place] = random.word() as u8;
            }
        }
        if random.below(4) == 0 {
            input.truncate(random.below(input.len() + 1));
            input.extend(random.pick(&inputs.iter().collect::<Vec<_>>()));
        }
        check_hellos(&input);
    }
}

#[test]
fn the_corpus_of_datagrams_and_its_mutations_break_no_rule() {
    let (_, first) = record(0, ADMITS, Then::Nothing);
    let mut node = first;
    node.pass(Duration::from_secs(1));
    let hello = node.sent.pop().expect("it sends hellos");
    let keys = keys();
    let nonce = [9; 24];
    let sealed = Sealed {
        instance: Instance(hello.instance.0),
        number: 7,
    };
    let advert = envelope::wrap_advert(&keys, nonce, address(1), sealed, &[0x31, 10, 100, 1]);
    let recorded = [
        ("plain", wrap(None, nonce, address(1), &hello)),
        ("sealed", wrap(Some(&keys), nonce, address(1), &hello)),
        ("advert", advert),
    ];
    let recorded = recorded.map(|(name, input)| (name.to_owned(), input.expect("fits")));
    for (_, input) in &recorded {
        check_datagram(input);
    }
    let inputs = inputs("envelope", recorded.into());
    let mut random = Random(0xc0ffee);
    for round in 0..100_000 {
        let mut input = inputs[random.below(inputs.len())].clone();
        for _ in 0..random.below(4) {
            if !input.is_empty() {
                let place = random.below(input.len());
                input[place] = random.word() as u8;
            }
        }
        if round % 8 == 0 {
            input.truncate(random.below(input.len() + 1));
        }
        check_datagram(&input);
    }
}
