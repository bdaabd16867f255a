//! Short runs of the fuzzers of the peer channel: their corpus and mutations of it. `cargo +nightly
//! fuzz run hello`, `envelope` and `roster` find new inputs.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use vip_common::testing::Random;

use super::rosters::{
    ANSWERED, DATAGRAM, PEERS, RUN, SCAN, SEND, connections, take_all as take_rosters,
};
use super::*;
use crate::election::Sealed;
use crate::hello::Instance;
use crate::remote;
use crate::roster::{Connection, Exchange, Message};

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
    let roster = Message {
        to: None,
        answers: 0,
        from: Instance(hello.instance.0),
        number: 1,
        body: Exchange::new(RUN).own().digests(),
    };
    let request = remote::Message {
        call: remote::Id([1; 16]),
        body: remote::Body::Request {
            ticket: remote::Id([2; 16]),
            text: b"\"cut\"".to_vec(),
        },
    };
    let recorded = [
        ("roster", wrap_roster(None, nonce, address(1), &roster)),
        (
            "sealed-roster",
            wrap_roster(Some(&keys), nonce, address(1), &roster),
        ),
        ("plain", wrap(None, nonce, address(1), &hello)),
        ("sealed", wrap(Some(&keys), nonce, address(1), &hello)),
        ("advert", advert),
        (
            "request",
            envelope::wrap_remote(&keys, nonce, address(1), &request),
        ),
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

/// A step of an input for `check_roster`.
fn step(what: u8, time: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16).to_be_bytes();
    [&[what, time], &length[..], content].concat()
}

/// What two peers tell the agent that is tested, `clients` connections each. If `restarts`, one starts
/// again in the middle; a message is lost now and then if `loses`.
fn record_rosters(clients: u8, restarts: bool, loses: bool) -> Vec<u8> {
    let agent = |number: u8, run: Instance| {
        let mut exchange = Exchange::new(run);
        let others = (0..3).filter(|other| *other != number);
        exchange.set_peers(&others.map(address).collect::<BTreeSet<_>>());
        exchange
    };
    let run = |number: u64| Instance(NonZeroU64::new(number).expect("not 0"));
    let mut agents = [agent(0, RUN), agent(1, run(2)), agent(2, run(3))];
    let mut input = step(PEERS | 0b110, 0, &[]);
    let mut now = START;
    let scan = |of: u8, from: u8, count: u8| {
        let all = from..from.saturating_add(count);
        all.map(move |number| Connection {
            client: ([10, 2, of, number], 1000).into(),
            server: ([10, 0, 0, 10], 6443).into(),
            unacknowledged: number.into(),
            expected: 0,
        })
    };
    let mut messages = 0;
    for tick in 0..40_u8 {
        now = now.after(Duration::from_millis(200));
        if restarts && tick == 20 {
            agents[2] = agent(2, run(9));
        }
        if tick % 5 == 0 {
            agents[1].scanned(now, scan(1, tick, clients));
            agents[2].scanned(now, scan(2, tick / 2, clients));
            // What the one that is tested scans, in the way that its input says it.
            input.extend(step(SCAN, 0, &[tick, clients, 2, tick]));
            agents[0].scanned(now, connections(&[tick, clients, 2, tick]));
        }
        if tick == 30 {
            let names: Vec<_> = scan(2, 0, 9).map(|one| one.key()).collect();
            agents[1].answered(&names);
            input.extend(step(ANSWERED, 0, &[1, 9, 2, 0]));
        }
        input.extend(step(SEND, 10, &[]));
        for from in 0..3_u8 {
            for (to, message) in agents[usize::from(from)].send(now, 100) {
                messages += 1;
                if loses && messages % 3 == 0 {
                    continue;
                }
                let to = (0..3).find(|number| address(*number) == to);
                let to = to.expect("an agent");
                if to == 0 {
                    let bytes = message.emit().expect("fits");
                    input.extend(step(DATAGRAM | from, 0, &bytes));
                }
                agents[usize::from(to)].take(now, address(from), message);
            }
        }
    }
    input
}

fn recorded_rosters() -> Vec<(String, Vec<u8>)> {
    let mut recorded = Vec::new();
    for clients in [5, 100] {
        for (restarts, loses) in [(false, false), (false, true), (true, false), (true, true)] {
            let name = format!("{clients}-restarts-{restarts}-loses-{loses}");
            recorded.push((name, record_rosters(clients, restarts, loses)));
        }
    }
    recorded
}

#[test]
fn recorded_rosters_are_believed_when_they_come_again() {
    for clients in [5, 100] {
        let subject = take_rosters(&record_rosters(clients, false, false));
        assert!(subject.believed > 20, "{}", subject.believed);
        let mut told = subject.exchange.peers().map(|(_, told)| told.len());
        assert!(told.all(|told| told == usize::from(clients)));
    }
}

#[test]
fn the_corpus_of_rosters_and_its_mutations_break_no_rule() {
    let inputs = inputs("roster", recorded_rosters());
    for input in &inputs {
        check_roster(input);
    }
    let mut random = Random(0xc0ffee);
    for _ in 0..3000 {
        let mut input = inputs[random.below(inputs.len())].clone();
        for _ in 0..=random.below(8) {
            if !input.is_empty() {
                let place = random.below(input.len());
                input[place] = random.word() as u8;
            }
        }
        if random.below(4) == 0 {
            input.truncate(random.below(input.len() + 1));
            input.extend(&inputs[random.below(inputs.len())]);
        }
        check_roster(&input);
    }
}
