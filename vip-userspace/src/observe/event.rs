//! What changed: one table of events, from which log line, entry in the journal and metric come.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use vip_common::abi::MAX_BACKENDS;
use vip_common::wire::addr::Mac;
use vip_node::Late;
use vip_node::alarm::Kind;
use vip_node::choice::Resort;
use vip_node::hooks::Hook;

use crate::config::{Change, Changes};
use crate::words::counted;

use super::paint::{Ink, paint};
pub use super::severity::Severity;

use self::Severity::{Error, Info, Warning};

/// Something that changed, as log, journal and `vip events` show it. Nodes are called by their
/// names. Each is made by a function of its own name, from the table below.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// How much somebody should care.
    pub severity: Severity,
    /// For programs: one of [`NAMES`], if this version wrote it.
    #[serde(rename = "event")]
    pub name: Cow<'static, str>,
    /// For people: `became the owner`.
    pub message: Cow<'static, str>,
    /// The node that it is about, if not the one that reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The reason, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    /// The trouble that it begins (severity above `info`) or ends: the same in both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// The part of the kernel's state that it put right, for the count of repairs.
    #[serde(skip)]
    pub(super) repaired: Option<Repair>,
}

/// An event, as it is kept.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Counts up by one, over restarts of the agent too.
    pub sequence: u64,
    /// By the machine's clock, in UTC.
    pub time: Timestamp,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// A part of the kernel's state that is put right when it is not as it should be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// A VIP on `lo`.
    Address,
    /// The program that hands the agent its BFD packets.
    BfdPort,
    /// The programs for local sockets.
    Connect,
    /// The programs on the NIC.
    Programs,
    /// Health, addresses and leases in the map.
    State,
    /// The rank table or the allow lists.
    Tables,
}

impl Repair {
    /// All parts.
    pub const ALL: [Self; 6] = [
        Self::Address,
        Self::BfdPort,
        Self::Connect,
        Self::Programs,
        Self::State,
        Self::Tables,
    ];

    /// As metrics call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::BfdPort => "bfd_port",
            Self::Connect => "connect",
            Self::Programs => "programs",
            Self::State => "state",
            Self::Tables => "tables",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Address => "the VIP was not on lo: added again",
            Self::BfdPort => "the program for BFD's port was not attached: attached again",
            Self::Connect => "the programs for local sockets did not run: attached again",
            Self::Programs => "a program was not on the NIC: attached again",
            Self::State => "the state in the kernel was not the agent's: written again",
            Self::Tables => "the rank table or an allow list was not the agent's: written again",
        }
    }

    const fn failed(self) -> &'static str {
        match self {
            Self::Address => "cannot add the VIP to lo",
            Self::BfdPort => "cannot attach the program for BFD's port",
            Self::Connect => "cannot attach the programs for local sockets",
            Self::Programs => "cannot attach the programs",
            Self::State => "cannot write the state to the kernel",
            Self::Tables => "cannot write the rank table or the allow lists",
        }
    }
}

/// From rows of name, fields, severity and text: a function for each event, and the list of names.
macro_rules! events {
    ($(
        $(#[$doc:meta])*
        $name:ident($($field:ident: $type:ty),*): $severity:expr, $text:expr;
    )+) => {
        /// The names of all events.
        pub const NAMES: &[&str] = &[$(stringify!($name)),+];

        impl Event {$(
            $(#[$doc])*
            #[must_use]
            pub fn $name($($field: $type),*) -> Self {
                Self {
                    severity: $severity,
                    name: Cow::Borrowed(stringify!($name)),
                    ..$text
                }
            }
        )+}
    };
}

events! {
    /// The agent has put everything in place. `attached` says where the programs are, and how:
    /// `eth0, native XDP`; `adopted`, whether the maps of an earlier agent were taken over.
    started(version: &str, attached: &str, adopted: bool): Info, text(format!(
        "agent {version} started on {attached}{}",
        if adopted { ", took over from an earlier agent" } else { "" }
    ));

    /// The agent ends. `left`: its node has left the cluster, and all that it put there is taken away.
    stopped(left: bool): Info, text(if left {
        "agent stopped; this node has left the cluster, and programs and VIP are removed from it"
    } else {
        "agent stopped; programs and VIP stay until `vip cleanup`"
    });

    /// This node became the owner of the VIP. `after` is how long the VIP may have gone without an
    /// answer; `None` if that is not known.
    became_owner(cause: String, after: Option<Duration>):
        Info, text("became the owner").because(cause).took(after);

    /// This node is a backup.
    became_backup(cause: String): Info, text("became a backup").because(cause);

    /// Another owner is heard, or none.
    owner(node: Option<String>, cause: Option<String>): Info, Event {
        cause,
        ..text(if node.is_some() { "is the owner" } else { "no owner is heard" }).about(node)
    };

    /// A BFD session came up.
    bfd_up(node: String): Info, text("BFD session is up").of(format!("bfd {node}")).about(node);

    /// A BFD session went down.
    bfd_down(node: String, cause: String):
        Warning, text("BFD session is down").of(format!("bfd {node}")).about(node).because(cause);

    /// A node answers nothing at all.
    node_away(node: String): Warning, text(
        "nothing on the node answers: it gets no connections, and its own are not reset yet"
    ).of(format!("node {node}")).about(node);

    /// It has not for `reset_after`.
    node_gone(node: String): Warning, text("node is gone: its clients are told (reset)")
        .of(format!("node {node}")).about(node);

    /// This node has asked the clients of a node that is gone, so that they were reset. It comes again if
    /// more have answered later. `after`: from the first question to the last answer.
    clients_told(node: String, asked: usize, answered: usize, after: Duration): Warning, text(
        match (answered == asked, counted(asked, "client", "clients")) {
            (true, clients) => format!("told its {clients} that it is gone"),
            (false, clients) => format!(
                "told {answered} of its {clients} that it is gone; the others have not answered yet"
            ),
        }
    ).about(node).took(Some(after));

    /// Connections of this node and its pods to a node that is gone were ended.
    local_clients_told(node: String, asked: usize): Warning, text(format!(
        "ended {} of this node and its pods to it, since it is gone",
        counted(asked, "connection", "connections")
    )).about(node);

    /// A host has become a member of the cluster.
    member_admitted(node: String): Info, text(
        "has become a member: it gets no new connections until all members know it"
    ).about(node);

    /// All members know it.
    member_confirmed(node: String): Info, text("is known to all members").about(node);

    /// A member has left the cluster, or was forgotten.
    member_removed(node: String): Info, text("is no member any more").about(node);

    /// This node leaves the cluster.
    leaving(): Info, text("leaves the cluster: the other nodes forget this one");

    /// A host asks to be a member, and its API server does not show the cluster's certificate.
    member_unproved(address: IpAddr, cause: String): Warning, text(format!(
        "{address} runs an agent for this VIP and is no member: its API server has not shown a \
         certificate of this cluster"
    )).because(cause);

    /// There is no place for one more member.
    members_full(address: IpAddr): Warning, text(format!(
        "{address} cannot become a member: there are {MAX_BACKENDS}; `vip forget` those that are gone"
    ));

    /// This node hears no other node, and no other host.
    isolated(): Warning, text(
        "no other node or host answers: this node is cut off, as far as it knows; it resets \
         nothing and claims nothing until another host answers"
    );

    /// It hears one again.
    not_isolated(): Info, text("another node or host answers again");

    /// This node's agent runs late, and its packets leave less often for that reason.
    slow(late: Late): Warning, text(slow_timers(late));

    /// Its timers are as configured again.
    not_slow(): Info, text("the agent runs on time again: timers are as configured");

    /// A node that was away or gone answers.
    node_answers(node: String): Info, text("node answers again")
        .of(format!("node {node}")).about(node);

    /// A server says that it is ready. `port` is the TCP port that is probed, here and below.
    server_ready(node: String, port: u16):
        Info, text(format!("server at port {port} is ready"))
            .of(format!("server {node} {port}")).about(node);

    /// A server is not ready any more.
    server_not_ready(node: String, port: u16, cause: String): Warning,
        text(format!("server at port {port} is not ready"))
            .of(format!("server {node} {port}")).about(node).because(cause);

    /// Connections of this node's server were reset, since it hangs.
    hung_reset(port: u16, connections: usize): Warning,
        text(format!(
            "server at port {port} hangs: {} reset",
            counted(connections, "connection was", "connections were")
        ));

    /// A server serves, and whether it is ready is not known.
    server_unknown(node: String, port: u16, cause: String): Info,
        text(format!("server at port {port} serves; whether it is ready is not known"))
            .of(format!("server {node} {port}")).about(node).because(cause);

    /// New connections go to other nodes than before for want of better ones, or to the best again.
    new_connections(port: u16, resort: Resort):
        if resort == Resort::Usable { Info } else { Warning },
        text(format!("port {port}: {}", resort.text()));

    /// The credentials for health checks were read, anew if there were some before.
    credentials_read(): Info, text("credentials for health checks were read");

    /// They could not be read: which file, why, and what is used instead.
    credentials_unread(cause: String):
        Warning, text("credentials for health checks cannot be read").because(cause);

    /// A node that lives does not answer ICMP echo requests.
    echo_lost(node: String): Warning, text(
        "does not answer ICMP echo requests, though it lives: allow them between the nodes, so \
         that a dead node can be told from a stopped agent"
    ).about(node);

    /// It answers them.
    echo_back(node: String): Info, text("answers ICMP echo requests").about(node);

    /// A node answers probes.
    probes_answered(node: String): Info, text("answers probes").about(node);

    /// A node answers no probes at all; why the last one failed.
    probes_unanswered(node: String, cause: String):
        Warning, text("does not answer probes").about(node).because(cause);

    /// The operator has given a command for this node on another one.
    asked(node: String, command: &str):
        Info, text(format!("asks this node for what was commanded there: `{command}`")).about(node);

    /// A node takes no new connections any more.
    drained(node: String): Info, text("takes no new connections").about(node);

    /// Its connections were reset, as the operator has asked.
    cut(connections: usize): Info,
        text(format!(
            "reset {} of other hosts and of pods, since this node drains",
            counted(connections, "connection", "connections")
        ));

    /// A node takes new connections again.
    undrained(node: String): Info, text("takes new connections").about(node);

    /// This node lacks something it must have to own the VIP. `starts`: it is only not there yet, as
    /// at each start.
    fault(cause: &str, starts: bool): if starts { Info } else { Warning }, text(if starts {
        "this node starts, and cannot own the VIP yet"
    } else {
        "this node cannot own the VIP"
    }).of(format!("fault {cause}")).because(cause);

    /// It has that (again).
    fault_gone(cause: &str): Info, text("fault is over").of(format!("fault {cause}")).because(cause);

    /// A host that is no agent of the cluster claims the VIP; `node`, if it is a node. `defended`:
    /// the VIP was announced against it.
    conflict(claimant: Mac, claim: &str, node: Option<String>, defended: bool): Warning, text(format!(
        "{claim}{}", if defended { ": announced against it" } else { "" }
    )).of(format!("conflict {claimant}")).about(node);

    /// It does so no more.
    conflict_over(claimant: Mac, node: Option<String>):
        Info, text(format!("{claimant} no longer claims the VIP"))
            .of(format!("conflict {claimant}")).about(node);

    /// Something is wrong on the segment. `what` says what, and what to do.
    alarm(kind: Kind, about: &str, what: String):
        severity(kind), text(what).of(format!("alarm {} {about}", kind.name()));

    /// It is not any more.
    alarm_over(kind: Kind, about: &str):
        Info, text(over(kind, about)).of(format!("alarm {} {about}", kind.name()));

    /// The VIP is being handed over to a node.
    handing_over(node: String): Info, text("is to take the VIP over").about(node);

    /// It has taken over.
    handed_over(node: String): Info, text("has taken the VIP over").about(node);

    /// The VIP stays where it is.
    not_handed_over(cause: String): Warning, text("the VIP was not handed over").because(cause);

    /// This node's VRRP priority changed with its health.
    priority(priority: u8): Info, text(format!("VRRP priority is {priority}"));

    /// The NIC has another name.
    nic_renamed(from: &str, to: &str): Warning, text(format!("the NIC {from} was renamed to {to}"));

    /// The NIC has another Ethernet address.
    nic_address(mac: Mac): Warning, text(format!("the NIC's Ethernet address is {mac} now"));

    /// The node's address is on another NIC now, and the agent with it. `to` also says how the
    /// program runs there.
    nic_followed(from: &str, to: &str): Warning, text(format!(
        "the node's address moved from {from} to {to}: the agent followed it"
    ));

    /// The node's address is on no NIC that the agent may follow it to.
    not_followed(cause: String): Error,
        text("the node's address is on no NIC that the agent may follow it to").because(cause);

    /// A program was put before those of somebody else.
    hook_moved(hook: Hook, before: &str): Warning, Event {
        repaired: Some(Repair::Programs),
        ..text(format!("{}: program put before {before}", hook.name()))
    };

    /// A program of somebody else comes back before ours again and again, and is left there.
    hook_contested(hook: Hook, by: &str): Warning, text(format!(
        "{}: {by} comes back before our program again and again, and is left there: configure one \
         of the two products to leave this hook",
        hook.name()
    ));

    /// A program was seen to run.
    hook_runs(hook: Hook): Info, text(format!("{}: program runs", hook.name()));

    /// A program is attached and is not seen to run; what is in its way.
    hook_fails(hook: Hook, cause: String): Error,
        text(format!("{}: program is not seen to run", hook.name())).because(cause);

    /// Something in the kernel was not as it should be, and is now.
    repaired(what: Repair): Warning, Event { repaired: Some(what), ..text(what.done()) };

    /// It could not be put right; the kernel's error.
    not_repaired(what: Repair, cause: String): Error, text(what.failed()).because(cause);

    /// Another program of this node is bound to BFD's port, too, or none is any more.
    bfd_port(shared: bool): Info, text(if shared {
        "another program has UDP port 3784 (BFD), too: each gets its own packets"
    } else {
        "no other program has UDP port 3784 (BFD) any more"
    });

    /// An address that an agent put on `lo` is no VIP any more, and was taken off.
    address_left(address: IpAddr): Info,
        text(format!("{address} is no longer a VIP: removed from lo"));

    /// A VIP was on `lo` before an agent put it there.
    address_theirs(address: IpAddr): Warning, text(format!(
        "{address} was on lo already, and no agent put it there: it stays on lo when it is no \
         longer a VIP"
    ));

    /// A VIP came to be on this node, and so many connections to it that went by the network, of
    /// the node and of its pods, were ended.
    stranded(address: IpAddr, ended: usize): Info, text(format!(
        "{address} is on this node now: ended {} of the node and its pods, which went to it by the \
         network", counted(ended, "connection", "connections")
    ));

    /// The kernel, or another host, speaks for the VIP by a NIC that is not the VIP's, or answers
    /// by it are wrong: which NIC, why, and what to do.
    other_nics(cause: String): Error, text("a NIC other than the VIP's").because(cause);

    /// The driver has the program and does not run it. `falls_back`: generic XDP takes its place.
    xdp_blind(falls_back: bool): if falls_back { Warning } else { Error }, text(if falls_back {
        "the driver has the XDP program and does not run it: falling back to generic XDP"
    } else {
        "the driver has the XDP program and does not run it"
    });

    /// The configuration was read again. What counts from now on, and what does not.
    reloaded(changes: &Changes): if changes.kept.is_empty() { Info } else { Warning },
        text(reloaded(changes));

    /// The configuration was read again, and something in it is wrong.
    reload_refused(cause: String): Error,
        text("the configuration is not applied, and the old one stays").because(cause);

    /// A signal came that has no meaning to the agent.
    signal_ignored(signal: &str): Warning, text(format!(
        "{signal} ignored: SIGHUP reads the configuration again, SIGTERM ends the agent"
    ));

    /// The agent cannot do something, and goes on without.
    failed(what: impl Into<Cow<'static, str>>, cause: String): Warning, text(what).because(cause);
}

/// A row's text. Name and severity come from the row.
fn text(message: impl Into<Cow<'static, str>>) -> Event {
    Event {
        severity: Info,
        name: Cow::Borrowed(""),
        message: message.into(),
        node: None,
        cause: None,
        duration_ms: None,
        trouble: None,
        repaired: None,
    }
}

/// While nodes are installed or changed one after the other, some run no agent, or have another
/// configuration or key; and most frames find their connections whatever their source is. All else
/// must be dealt with at once.
pub(super) const fn severity(kind: Kind) -> Severity {
    match kind {
        Kind::NoAgent | Kind::SourceMacs | Kind::Differs | Kind::Refused => Warning,
        Kind::Stranger | Kind::Unheard | Kind::OffLink | Kind::TwoOwners | Kind::Duplicate => Error,
    }
}

/// What a configuration that was read again has changed.
fn reloaded(changes: &Changes) -> String {
    let applied = changes.applied.iter().map(Change::to_string);
    let kept = changes.kept.iter().cloned();
    let all: Vec<String> = applied.chain(kept).collect();
    if all.is_empty() {
        "the configuration was read again: nothing has changed".to_owned()
    } else {
        format!("the configuration was read again: {}", all.join("; "))
    }
}

/// How late an agent runs, and its timers meanwhile.
fn slow_timers(late: Late) -> String {
    let Late { by, bfd, adverts } = late;
    let bfd = bfd.map(|bfd| format!("BFD {} ms, ", bfd.as_millis()));
    let by = match by.as_micros().div_ceil(1000) {
        0 => "late".to_owned(),
        by => format!("up to {by} ms late"),
    };
    format!(
        "the agent runs {by}: {}advertisements {} ms until it does not",
        bfd.unwrap_or_default(),
        adverts.as_millis()
    )
}

/// The end of an alarm.
fn over(kind: Kind, about: &str) -> String {
    match kind {
        Kind::Stranger => format!("{about}, which is no member, is no longer heard"),
        Kind::Unheard => format!("{about} and this node are no longer cut off from each other"),
        Kind::NoAgent => format!("{about} may run an agent again"),
        Kind::OffLink => format!("{about} is reached directly"),
        Kind::TwoOwners => format!("{about} no longer owns the VIP beside this node"),
        Kind::SourceMacs => format!("the MACs that frames of {about} come from have settled"),
        Kind::Differs => format!("{about} has this node's configuration"),
        Kind::Refused => format!("hellos of {about} are no longer refused"),
        Kind::Duplicate => format!("{about} no longer has this node's own address"),
    }
}

impl Event {
    fn about(self, node: impl Into<Option<String>>) -> Self {
        let node = node.into();
        Self { node, ..self }
    }

    fn because(self, cause: impl Into<String>) -> Self {
        let cause = Some(cause.into());
        Self { cause, ..self }
    }

    /// Names the trouble that it begins or ends.
    fn of(self, trouble: String) -> Self {
        let trouble = Some(trouble);
        Self { trouble, ..self }
    }

    fn took(self, time: Option<Duration>) -> Self {
        let duration_ms = time.map(|time| time.as_secs_f64() * 1000.0);
        Self {
            duration_ms,
            ..self
        }
    }

    /// Whether it tells the same as an earlier one.
    pub(super) fn repeats(&self, earlier: &Self) -> bool {
        self.name == earlier.name
            && self.message == earlier.message
            && self.node == earlier.node
            && self.cause == earlier.cause
    }

    /// Writes it to the log: one line, fields instead of prose.
    pub(super) fn log(&self) {
        // The levels of `tracing` are part of a call site.
        macro_rules! at {
            ($level:ident) => {
                tracing::$level!(
                    event = %self.name,
                    node = self.node.as_deref(),
                    cause = self.cause.as_deref(),
                    duration_ms = self.duration_ms,
                    "{}",
                    self.message
                )
            };
        }
        match self.severity {
            Info => at!(info),
            Warning => at!(warn),
            Error => at!(error),
        }
    }
}

/// Node, message, cause and duration, for people.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = &self.node {
            write!(f, "{node}: ")?;
        }
        write!(f, "{}", self.message)?;
        if let Some(cause) = &self.cause {
            write!(f, ": {cause}")?;
        }
        if let Some(duration) = self.duration_ms {
            write!(f, " ({duration:.0} ms)")?;
        }
        Ok(())
    }
}

impl Record {
    /// A line with its time in a zone, and in colours. UTC is a `Z`, other zones are their offsets.
    #[must_use]
    pub fn line(&self, zone: &TimeZone) -> String {
        let Self { time, event, .. } = self;
        let local = time.to_zoned(zone.clone());
        let offset = match *zone == TimeZone::UTC {
            true => "Z".to_owned(),
            false => local.strftime("%:z").to_string(),
        };
        let time = format!("{}{offset}", local.strftime("%Y-%m-%d %H:%M:%S%.3f"));
        let severity = paint(event.severity, event.severity.name());
        format!("{}  {severity:7}  {event}", paint(Ink::Faint, time))
    }

    /// A short line with its time of the day in a zone, and the day if it was another one than now.
    #[must_use]
    pub fn brief(&self, now: Timestamp, zone: &TimeZone) -> String {
        let local = self.time.to_zoned(zone.clone());
        let today = now.to_zoned(zone.clone()).date() == local.date();
        let time = local.strftime(if today { "%H:%M:%S" } else { "%m-%d %H:%M:%S" });
        format!("{time}  {:7}  {}", self.event.severity.name(), self.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_line_of_an_earlier_version_is_read_and_written_as_it_was() {
        for line in [
            r#"{"sequence":7,"time":"2026-11-01T10:00:00.5Z","severity":"warning","event":"bfd_down","message":"BFD session is down","node":"cp2","cause":"nothing was heard in time"}"#,
            r#"{"sequence":8,"time":"2026-11-01T10:00:00.6Z","severity":"info","event":"became_owner","message":"became the owner","cause":"cp2 fell silent","duration_ms":151.25}"#,
            r#"{"sequence":9,"time":"2026-11-01T10:00:01Z","severity":"error","event":"of_another_version","message":"it came to pass"}"#,
        ] {
            let record: Record = serde_json::from_str(line).expect("is read");
            assert_eq!(serde_json::to_string(&record).expect("is written"), line);
        }
    }

    #[test]
    fn event_lies_in_the_journal_under_the_name_of_its_row() {
        let record = Record {
            sequence: 1,
            time: Timestamp::UNIX_EPOCH,
            event: Event::bfd_down("cp2".to_owned(), "it is dead".to_owned()),
        };
        assert!(NAMES.contains(&record.event.name.as_ref()));
        assert_eq!(
            serde_json::to_string(&record).expect("is written"),
            r#"{"sequence":1,"time":"1970-01-01T00:00:00Z","severity":"warning","event":"bfd_down","message":"BFD session is down","node":"cp2","cause":"it is dead","trouble":"bfd cp2"}"#
        );
        let after = Some(Duration::from_micros(150_500));
        let record = Record {
            event: Event::became_owner("cp2 is dead".to_owned(), after),
            ..record
        };
        assert_eq!(
            record.brief(record.time, &TimeZone::UTC),
            "00:00:00  info     became the owner: cp2 is dead (150 ms)"
        );
        assert_eq!(
            record.brief(
                Timestamp::from_second(86_400).expect("a time"),
                &TimeZone::UTC
            ),
            "01-01 00:00:00  info     became the owner: cp2 is dead (150 ms)"
        );
    }

    #[test]
    fn lines_have_the_time_of_the_zone_and_name_it() {
        let record = Record {
            sequence: 1,
            time: Timestamp::UNIX_EPOCH,
            event: Event::node_away("cp2".to_owned()),
        };
        let line = |zone: &TimeZone| {
            let line = record.line(zone);
            assert!(line.contains("\u{1b}[33m"), "a warning is yellow: {line:?}");
            anstream::adapter::strip_str(&line).to_string()
        };
        let utc = line(&TimeZone::UTC);
        let begin = "1970-01-01 00:00:00.000Z  warning  cp2: nothing on the node";
        assert!(utc.starts_with(begin), "{utc}");
        let east = line(&TimeZone::fixed(jiff::tz::offset(5)));
        assert!(
            east.starts_with("1970-01-01 05:00:00.000+05:00  warning"),
            "{east}"
        );
    }

    #[test]
    fn lateness_is_rounded_up_and_none_is_not_told() {
        let said = |micros| {
            let late = Late {
                by: Duration::from_micros(micros),
                bfd: None,
                adverts: Duration::from_millis(150),
            };
            Event::slow(late).message.into_owned()
        };
        let rest = "advertisements 150 ms until it does not";
        assert_eq!(said(0), format!("the agent runs late: {rest}"));
        assert_eq!(said(300), format!("the agent runs up to 1 ms late: {rest}"));
        assert_eq!(
            said(7000),
            format!("the agent runs up to 7 ms late: {rest}")
        );
    }

    #[test]
    fn what_is_as_it_should_be_is_no_warning() {
        assert_eq!(Event::fault("x", true).severity, Info);
        assert_eq!(Event::fault("x", false).severity, Warning);
        assert!(Event::stopped(false).message.contains("stay until"));
        assert!(Event::stopped(true).message.contains("are removed"));
    }

    #[test]
    fn repairs_are_named_alike_in_json_and_metrics() {
        for repair in Repair::ALL {
            let json = serde_json::to_value(repair).expect("a name");
            assert_eq!(json, repair.name());
        }
        assert!(Repair::ALL.is_sorted());
    }
}
