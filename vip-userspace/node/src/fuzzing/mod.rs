//! What no datagram of the peer channel may do, for fuzzers and the test of their corpus.

#[cfg(test)]
mod corpus;
mod rosters;

pub use self::rosters::check_roster;

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use vip_common::abi::{BackendIndex, MAX_BACKENDS, Masks};
use vip_common::wire::time::BootNanos;
use vip_common::wire::vrrp::Centiseconds;

use crate::election::{MAX_LEASE, Trust};
use crate::envelope::{
    self, Refused, unwrap, unwrap_advert, unwrap_remote, unwrap_roster, wrap, wrap_roster,
};
use crate::health::Thresholds;
use crate::hello::Hello;
use crate::rank::Identity;
use crate::seal::{KeyRing, Secret};
use crate::{Action, Input, Node, OpenCluster, Params, Report, VrrpParams, bfd};

/// Datagrams of one input at most.
const MOST_DATAGRAMS: usize = 200;

/// What one datagram or a second leads to at most.
const MOST_ACTIONS: usize = 2000;

/// When nodes start.
const START: BootNanos = BootNanos(1_000_000_000_000);

/// Unit of the pauses between datagrams.
const UNIT: Duration = Duration::from_millis(5);

/// Bits of the first byte of an input: the node knows two others from the start; it has BFD; it has a
/// list.
const KNOWS: u8 = 1;
const BFD: u8 = 2;
const LISTED: u8 = 4;

/// Bits of a datagram's first byte, above the number of the host that sends it: the hello is sealed;
/// anybody may be a member; the host proves that it may; its address is of IPv6.
const SEALED: u8 = 16;
const ADMITS: u8 = 32;
const PROVES: u8 = 64;
const IPV6: u8 = 128;

/// Checks the rules for datagrams that come to a node one after the other: a byte that sets the node
/// up; then for each, a byte that says from whom and how it comes, a pause, a length in two bytes, and
/// the hello.
///
/// # Panics
/// If a rule is broken.
pub fn check_hellos(input: &[u8]) {
    let [how, datagrams @ ..] = input else {
        return;
    };
    let mut subject = take_all(*how, datagrams);
    subject.pass(Duration::from_secs(6));
}

/// The node that has taken these datagrams.
fn take_all(how: u8, datagrams: &[u8]) -> Subject {
    let mut rest = datagrams;
    let keys = keys();
    let mut subject = Subject::start(START, 0, how, 0);
    for _ in 0..MOST_DATAGRAMS {
        let [from, pause, high, low, more @ ..] = rest else {
            break;
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (hello, more) = more.split_at(length.min(more.len()));
        rest = more;
        subject.pass(UNIT * u32::from(*pause));
        let number = from & 15;
        let source = if from & IPV6 == 0 {
            address(number)
        } else {
            [0xfd00, 0, 0, 0, 0, 0, 0, number.into()].into()
        };
        let keys = Some(&keys).filter(|_| from & SEALED != 0);
        let Some(hello) = check_hello(keys, source, hello) else {
            continue;
        };
        subject.proves = from & PROVES != 0;
        let input = Input::Hello {
            source,
            hello: Box::new(hello),
            admits: from & ADMITS != 0,
        };
        subject.input(input);
    }
    subject
}

/// Checks that a hello is refused, or read in each way in which it comes, and written as it came.
fn check_hello(keys: Option<&KeyRing>, source: IpAddr, bytes: &[u8]) -> Option<Hello> {
    let datagram = [b"vip\0", bytes].concat();
    let unwrapped = unwrap(None, source, &datagram);
    let hello = match Hello::parse(bytes) {
        Ok(hello) => hello,
        Err(error) => {
            assert_eq!(unwrapped, Err(Refused::Malformed(error)));
            return None;
        }
    };
    assert_eq!(unwrapped.as_ref(), Ok(&hello));
    let emitted = hello.emit().expect("fits");
    assert_eq!(emitted.len(), bytes.len(), "{hello:?}");
    assert_eq!(Hello::parse(&emitted).as_ref(), Ok(&hello));
    if let Some(keys) = keys {
        assert_eq!(unwrap(Some(keys), source, &datagram), Err(Refused::Plain));
        let sealed = wrap(Some(keys), [7; 24], source, &hello).expect("fits");
        assert!(sealed.len() <= envelope::MAX_LENGTH);
        assert_eq!(unwrap(Some(keys), source, &sealed).as_ref(), Ok(&hello));
    }
    Some(hello)
}

/// Checks that any datagram is refused, or is what an agent sends.
///
/// # Panics
/// If a rule is broken.
pub fn check_datagram(datagram: &[u8]) {
    let keys = keys();
    let source = address(1);
    for keys in [None, Some(&keys)] {
        if let Ok(hello) = unwrap(keys, source, datagram) {
            assert!(datagram.len() <= envelope::MAX_LENGTH);
            let nonce = std::array::from_fn(|place| datagram.get(12 + place).copied().unwrap_or(0));
            let again = wrap(keys, nonce, source, &hello).expect("fits");
            assert_eq!(again.len(), datagram.len());
            assert_eq!(unwrap(keys, source, &again), Ok(hello));
        }
        if let Ok(message) = unwrap_roster(keys, source, datagram) {
            assert!(envelope::is_roster(datagram));
            assert!(datagram.len() <= envelope::MAX_LENGTH);
            let nonce = std::array::from_fn(|place| datagram.get(12 + place).copied().unwrap_or(0));
            // It may be shorter: servers that no connection leads to are left out.
            let again = wrap_roster(keys, nonce, source, &message).expect("fits");
            assert!(again.len() <= datagram.len());
            assert_eq!(unwrap_roster(keys, source, &again), Ok(message));
        }
        // Whoever has no key forges none.
        if unwrap_remote(keys, source, datagram).is_ok() {
            assert!(keys.is_some() && envelope::is_remote(datagram));
        }
        if unwrap_advert(keys, source, datagram).is_ok() {
            assert!(keys.is_some() && envelope::is_sealed_advert(datagram));
        }
    }
}

fn keys() -> KeyRing {
    KeyRing::new(&Secret::new([1; 32]), None).expect("one key")
}

fn address(number: u8) -> IpAddr {
    [10, 0, 0, 11 + number].into()
}

/// A node that does all that it decides.
struct Subject {
    node: Node,
    now: BootNanos,
    /// Hosts show a certificate when they are asked.
    proves: bool,
    /// Hellos that it has sent.
    sent: Vec<Hello>,
}

impl Subject {
    /// The node with this number, whose agent starts now for the first or another time.
    fn start(now: BootNanos, number: u8, how: u8, run: u64) -> Self {
        let mut params = params(number, how);
        params.seed += 100 * run;
        let node = Node::new(&params);
        let mut subject = Self {
            node,
            now,
            proves: false,
            sent: Vec::new(),
        };
        let mut out = Vec::new();
        let known = Masks::default();
        subject.node.on_start(now, BootNanos::ZERO, known, &mut out);
        subject.carry_out(out);
        let members = subject.node.members().mask();
        for slot in members.iter() {
            subject.input(Input::Located(slot));
        }
        subject
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.node.on_input(self.now, input, &mut out);
        self.carry_out(out);
        assert!(self.node.members().mask().count() <= MAX_BACKENDS as u32);
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        let mut actions = 0;
        while self.node.next_deadline() <= end {
            self.now = self.now.max(self.node.next_deadline());
            let mut out = Vec::new();
            self.node.on_timer(self.now, &mut out);
            actions += 1 + out.len();
            assert!(actions < 10 * MOST_ACTIONS, "it never rests");
            self.carry_out(out);
        }
        self.now = end;
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        let mut waiting = actions;
        let mut count = 0;
        while !waiting.is_empty() {
            let mut out = Vec::new();
            count += waiting.len();
            assert!(count < MOST_ACTIONS, "one input has no end");
            for action in waiting {
                let input = match action {
                    Action::SendHello { hello, also } => {
                        let sent = hello.emit().expect("fits");
                        assert_eq!(Hello::parse(&sent).as_ref(), Ok(&*hello));
                        assert!(also.len() <= 2 * MAX_BACKENDS);
                        self.sent.push(*hello);
                        continue;
                    }
                    Action::Install(installation) => Input::Installed(installation.number),
                    Action::Report(Report::Admitted { node, .. }) => Input::Located(node),
                    Action::Prove { address, instance } if self.proves => {
                        Input::Proved { address, instance }
                    }
                    _ => continue,
                };
                self.node.on_input(self.now, input, &mut out);
            }
            waiting = out;
        }
    }
}

fn params(number: u8, how: u8) -> Params {
    let known = if how & (KNOWS | LISTED) == 0 { 1 } else { 3 };
    let others = (0..3).filter(|other| *other != number);
    let all = [number].into_iter().chain(others).take(known);
    Params {
        own: BackendIndex::new(0).expect("a slot"),
        nodes: all
            .map(|number| Identity {
                address: address(number),
                weight: 1,
            })
            .collect(),
        open: (how & LISTED == 0).then_some(OpenCluster {
            forget_after: Duration::from_secs(3600),
        }),
        hello_interval: Duration::from_millis(600),
        vips: vec![1],
        priority: None,
        vrrp: VrrpParams {
            interval: Centiseconds::new(10).expect("in range"),
            preempt: false,
            preempt_delay: Duration::ZERO,
        },
        trust: Trust::Plain,
        bfd: (how & BFD != 0).then(|| bfd::Params {
            detect_mult: NonZeroU8::MIN.saturating_add(2),
            interval: Duration::from_millis(50),
            auth: None,
        }),
        checks: 1,
        thresholds: Thresholds { rise: 1, fall: 1 },
        probe_address: false,
        reset_after: Duration::from_secs(2),
        max_lease: MAX_LEASE,
        max_slowdown: crate::MAX_SLOWDOWN,
        seed: 100 + u64::from(number),
    }
}
