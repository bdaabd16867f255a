//! The configuration: a TOML file, flags, or both, made into one checked [`Config`].
//!
//! The same file serves on all nodes of a cluster. Each key is explained in
//! `docs/configuration.md`, and a test holds that page and this file together.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use vip_common::layout::{DEFAULT_BUCKETS, MAX_BACKENDS};

use crate::rank;

/// Where the agent keeps its socket and its lock, unless configured otherwise.
pub const RUN_DIR: &str = "/run/vip";

/// Where bpffs is mounted, unless configured otherwise.
pub const BPFFS: &str = "/sys/fs/bpf";

/// What the agent is to do. Checked: every value is in range, and they fit together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where the API is to be reached.
    pub vip: Service,
    /// The control-plane nodes, 1 to 16, without duplicates. Their order is their index.
    pub nodes: Vec<Node>,
    /// The NIC; found by the VIP's subnet if not given.
    pub interface: Option<String>,
    /// The election.
    pub vrrp: Vrrp,
    /// How nodes hear of each other's death; `None` if by the election alone.
    pub bfd: Option<Bfd>,
    /// The probes.
    pub health: Health,
    /// The programs in the kernel.
    pub datapath: Datapath,
    /// Where the status socket lies.
    pub run_dir: PathBuf,
}

/// An address and a TCP port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// A unicast address that no node has as its own.
    pub address: Ipv4Addr,
    /// Not 0.
    pub port: u16,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address, self.port)
    }
}

/// A control-plane node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its own address on the VIP's segment.
    pub address: Ipv4Addr,
    /// What to call it; the address if nothing else is given.
    pub name: String,
    /// Its share of new connections relative to the others', at least 1.
    pub weight: u16,
}

/// The election by VRRP (RFC 9568).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vrrp {
    /// The virtual router, `1..=255`.
    pub router_id: u8,
    /// Time between the owner's advertisements: 10 ms to 40.95 s in whole centiseconds.
    pub interval: Duration,
    /// `1..=255`; `None` if the place in the list of nodes decides ([`Config::node_priority`]).
    pub priority: Option<u8>,
    /// Whether a node takes the VIP from a living owner of lower priority.
    pub preempt: bool,
    /// How long after its start it does so at the earliest.
    pub preempt_delay: Duration,
    /// Where advertisements go.
    pub mode: VrrpMode,
    /// Whether to ask the segment for the VIP before the first claim (RFC 5227).
    pub probe_address: bool,
}

/// Where advertisements go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VrrpMode {
    /// To each node by itself.
    Unicast,
    /// To the multicast group of VRRP.
    Multicast,
}

/// The sessions with the other nodes (RFC 5880).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bfd {
    /// Time between packets, 10 ms to 10 s.
    pub interval: Duration,
    /// Packets that may be missing until the sender is taken for dead, `2..=50`.
    pub multiplier: u8,
}

/// The probes of the API servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// What to ask for; starts with `/`.
    pub path: String,
    /// Port of the API servers; the VIP's if `None`.
    pub port: Option<u16>,
    /// Time from one probe to the next.
    pub interval: Duration,
    /// How long to wait for an answer.
    pub timeout: Duration,
    /// Good probes in a row that make a server ready, at least 1.
    pub rise: u32,
    /// Bad probes in a row that make it unready, at least 1.
    pub fall: u32,
    /// How the servers prove who they are.
    pub tls: Tls,
}

/// How an API server proves that it is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tls {
    /// By the cluster's CA: the first of the files that kubeadm, k0s, k3s and RKE2 write, looked for
    /// at each probe until it is found.
    WellKnownCa,
    /// By a CA in this PEM file.
    Ca(PathBuf),
    /// Not at all.
    Insecure,
}

/// The programs and maps in the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datapath {
    /// How the XDP program is attached.
    pub mode: XdpMode,
    /// Rows of the rank table: a power of two, 16 to 1,048,576.
    pub buckets: u32,
    /// Key of the flow hash and the rank table; made from the VIP if `None`
    /// ([`Config::hash_key`]).
    pub hash_key: Option<[u64; 2]>,
    /// Where bpffs is mounted, or to be.
    pub bpffs: PathBuf,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    /// In the driver if that works, else in the stack.
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the stack: works with every driver, and costs more.
    Generic,
}

/// Why there is no configuration: one line with what is wrong, where, and what to do.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// At a place in a file.
    #[error("{file}:{line}:{column}: {message}")]
    File {
        /// The file's name.
        file: String,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// What is wrong, and what to do.
        message: String,
    },
    /// In a flag.
    #[error("{flag}: {message}")]
    Flag {
        /// The flag with its dashes.
        flag: &'static str,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}; give --config the right path", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Neither a file nor flags.
    #[error(
        "nothing configured; give --config FILE, or --vip ADDRESS[:PORT] and --nodes ADDRESS,ADDRESS,..."
    )]
    Nothing,
}

impl Config {
    /// Reads the text of a file; its name is for error messages.
    ///
    /// # Errors
    /// The first thing that is wrong in it.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, ConfigError> {
        let source = Source {
            name: file_name,
            text,
        };
        Draft::read(&source)
            .and_then(Draft::finish)
            .map_err(|fault| source.error(fault))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is wrong.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Flags {
            config: Some(path.as_ref().to_owned()),
            ..Flags::default()
        }
        .into_config()
    }

    /// The configured key, or the one that belongs to the VIP.
    #[must_use]
    pub fn hash_key(&self) -> [u64; 2] {
        let default = || rank::default_key(self.vip.address);
        self.datapath.hash_key.unwrap_or_else(default)
    }

    /// The VRRP priority of a node that has none configured, by its place in the list. Steps
    /// are large where it matters, so that the nodes' skew times are well apart.
    #[must_use]
    pub fn node_priority(index: usize) -> u8 {
        const FIRST: [u8; 7] = [250, 220, 190, 160, 130, 100, 70];
        FIRST.get(index).copied().unwrap_or_else(|| {
            let more = u8::try_from(index - FIRST.len()).unwrap_or(u8::MAX);
            40_u8.saturating_sub(more.saturating_mul(3)).max(1)
        })
    }

    /// What the rank table is built from.
    #[must_use]
    pub fn identities(&self) -> Vec<rank::Identity> {
        let identity = |node: &Node| rank::Identity {
            address: node.address,
            weight: node.weight,
        };
        self.nodes.iter().map(identity).collect()
    }
}

/// The flags that say what a small file says, and win over what a file says.
#[derive(clap::Args, Clone, Default, Debug)]
pub struct Flags {
    /// Configuration file; see docs/configuration.md
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Virtual address, with its port unless that is 6443
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub vip: Option<String>,
    /// Addresses of all control-plane nodes, in the same order on each of them
    #[arg(long, value_name = "ADDRESS,...", value_delimiter = ',')]
    pub nodes: Option<Vec<String>>,
    /// NIC of the VIP [default: the one with an address in its subnet]
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// VRRP router id, 1 to 255 [default: last byte of the VIP]
    #[arg(long, value_name = "ID")]
    pub vrid: Option<String>,
    /// VRRP advertisement interval, 10ms to 40.95s [default: 100ms]
    #[arg(long, value_name = "DURATION")]
    pub interval: Option<String>,
    /// CA certificate of the API servers [default: where kubeadm, k0s, k3s and RKE2 keep it]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// Believe whatever answers the probes
    #[arg(long)]
    pub insecure: bool,
}

impl Flags {
    /// The file, if one is given, with the flags put over it.
    ///
    /// # Errors
    /// The file cannot be read, something in it or in a flag is wrong, or neither is given.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let nothing = self.vip.is_none() && self.nodes.is_none();
        let (name, text) = match &self.config {
            Some(path) => {
                let read = fs::read_to_string(path).map_err(|source| ConfigError::Read {
                    path: path.clone(),
                    source,
                });
                (path.display().to_string(), read?)
            }
            None if nothing => return Err(ConfigError::Nothing),
            None => (String::new(), String::new()),
        };
        let source = Source {
            name: &name,
            text: &text,
        };
        let config = Draft::read(&source).and_then(|mut draft| {
            draft.from_flags = self.config.is_none();
            self.put_over(&mut draft)?;
            draft.finish()
        });
        config.map_err(|fault| source.error(fault))
    }

    fn put_over(self, draft: &mut Draft) -> Result<(), Fault> {
        let at = |flag| move |message| Fault::new(Place::Flag(flag), message);
        if let Some(vip) = self.vip {
            let vip = service(&vip).map_err(at("--vip"))?;
            draft.vip = Some((vip, Place::Flag("--vip")));
        }
        if let Some(nodes) = self.nodes {
            let nodes = nodes.iter().map(|text| {
                let address = unicast(text.trim()).map_err(at("--nodes"))?;
                Ok((Node::at(address), Place::Flag("--nodes")))
            });
            draft.nodes = Some((nodes.collect::<Result<_, _>>()?, Place::Flag("--nodes")));
        }
        if let Some(name) = self.interface {
            draft.interface = Some(interface(&name).map_err(at("--interface"))?);
        }
        if let Some(id) = self.vrid {
            let number = id
                .parse()
                .map_err(|_| at("--vrid")(format!("`{id}` is not a number")))?;
            draft.router_id = Some(within(number, 1..=255).map_err(at("--vrid"))? as u8);
        }
        if let Some(interval) = self.interval {
            draft.interval = Some(advert_interval(&interval).map_err(at("--interval"))?);
        }
        if let Some(ca) = self.ca {
            draft.health.tls = Tls::Ca(ca);
        }
        if self.insecure {
            draft.health.tls = Tls::Insecure;
        }
        Ok(())
    }
}

impl Node {
    fn at(address: Ipv4Addr) -> Self {
        Self {
            address,
            name: address.to_string(),
            weight: 1,
        }
    }
}

/// A file's text.
struct Source<'a> {
    name: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn error(&self, fault: Fault) -> ConfigError {
        let Fault { place, message } = fault;
        match place {
            Place::Flag(flag) => ConfigError::Flag { flag, message },
            Place::File(at) => {
                let before = self.text.get(..at).unwrap_or(self.text);
                let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
                ConfigError::File {
                    file: self.name.to_owned(),
                    line: before.matches('\n').count() + 1,
                    column: before[line_start..].chars().count() + 1,
                    message,
                }
            }
        }
    }
}

/// Where something was said.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// At this byte of the file.
    File(usize),
    Flag(&'static str),
}

impl From<Range<usize>> for Place {
    fn from(span: Range<usize>) -> Self {
        Self::File(span.start)
    }
}

/// What is wrong, and where.
struct Fault {
    place: Place,
    message: String,
}

impl Fault {
    fn new(place: impl Into<Place>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            // What was said may hold line breaks and worse, and an error is one line.
            message: message
                .into()
                .chars()
                .flat_map(|c| {
                    let control = c.is_control().then(|| c.escape_default());
                    let other = (!c.is_control()).then_some(c);
                    control.into_iter().flatten().chain(other)
                })
                .collect(),
        }
    }
}

/// All that was said, each thing checked by itself.
struct Draft {
    /// There is no file.
    from_flags: bool,
    vip: Option<(Service, Place)>,
    nodes: Option<(Vec<(Node, Place)>, Place)>,
    interface: Option<String>,
    router_id: Option<u8>,
    interval: Option<Duration>,
    priority: Option<u8>,
    preempt: bool,
    preempt_delay: Duration,
    mode: VrrpMode,
    probe_address: bool,
    bfd: Option<Bfd>,
    health: Health,
    datapath: Datapath,
    run_dir: Option<PathBuf>,
}

impl Draft {
    fn read(source: &Source<'_>) -> Result<Self, Fault> {
        let root = DeTable::parse(source.text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            Fault::new(span, error.message().replace('\n', ", "))
        })?;
        let mut root = Table::new(root.into_inner());

        let vip = root.take("vip", |value| {
            let (vip, place) = text(value, service)?;
            Ok((vip, place))
        })?;
        let nodes = root.take("nodes", nodes)?;
        let interface = root.text("interface", interface)?;
        let run_dir = root.text("run_dir", absolute)?;
        let mut vrrp = root.table("vrrp")?;
        let mut bfd = root.table("bfd")?;
        let mut health = root.table("health")?;
        let mut datapath = root.table("datapath")?;
        root.end()?;

        let router_id = vrrp.number("router_id", 1..=255)?;
        let interval = vrrp.text("interval", advert_interval)?;
        let priority = vrrp.number("priority", 1..=255)?;
        let preempt = vrrp.boolean("preempt")?.unwrap_or(false);
        let delay = |text: &str| duration(text, Duration::ZERO..=Duration::from_secs(1000));
        let preempt_delay = vrrp.text("preempt_delay", delay)?.unwrap_or_default();
        let mode = vrrp.text("mode", vrrp_mode)?.unwrap_or(VrrpMode::Unicast);
        let probe_address = vrrp.boolean("probe_address")?.unwrap_or(true);
        vrrp.end()?;

        let bfd = {
            let enabled = bfd.boolean("enabled")?.unwrap_or(true);
            let interval =
                |text: &str| duration(text, Duration::from_millis(10)..=Duration::from_secs(10));
            let made = Bfd {
                interval: bfd
                    .text("interval", interval)?
                    .unwrap_or(Duration::from_millis(50)),
                multiplier: bfd.number("multiplier", 2..=50)?.unwrap_or(3) as u8,
            };
            bfd.end()?;
            enabled.then_some(made)
        };

        let probe_interval =
            |text: &str| duration(text, Duration::from_millis(50)..=Duration::from_secs(60));
        let probe_timeout =
            |text: &str| duration(text, Duration::from_millis(10)..=Duration::from_secs(60));
        let health = Health {
            path: health.text("path", probe_path)?.unwrap_or("/readyz".into()),
            port: health.number("port", 1..=65_535)?.map(|port| port as u16),
            interval: health
                .text("interval", probe_interval)?
                .unwrap_or(Duration::from_millis(500)),
            timeout: health
                .text("timeout", probe_timeout)?
                .unwrap_or(Duration::from_secs(1)),
            rise: health.number("rise", 1..=100)?.unwrap_or(2) as u32,
            fall: health.number("fall", 1..=100)?.unwrap_or(2) as u32,
            tls: {
                let ca = health.take("ca", |value| text(value, absolute))?;
                let insecure = health.boolean("insecure")?.unwrap_or(false);
                health.end()?;
                match (ca, insecure) {
                    (Some((_, place)), true) => {
                        let message = "`ca` has no meaning with `insecure = true`; remove one";
                        return Err(Fault::new(place, message));
                    }
                    (Some((ca, _)), false) => Tls::Ca(ca),
                    (None, true) => Tls::Insecure,
                    (None, false) => Tls::WellKnownCa,
                }
            },
        };

        let datapath = {
            let made = Datapath {
                mode: datapath.text("mode", xdp_mode)?.unwrap_or(XdpMode::Auto),
                buckets: datapath
                    .take("buckets", buckets)?
                    .unwrap_or(DEFAULT_BUCKETS),
                hash_key: datapath.text("hash_key", hash_key)?,
                bpffs: datapath.text("bpffs", absolute)?.unwrap_or(BPFFS.into()),
            };
            datapath.end()?;
            made
        };

        Ok(Self {
            from_flags: false,
            vip,
            nodes,
            interface,
            router_id: router_id.map(|id| id as u8),
            interval,
            priority: priority.map(|priority| priority as u8),
            preempt,
            preempt_delay,
            mode,
            probe_address,
            bfd,
            health,
            datapath,
            run_dir,
        })
    }

    /// Checks that all fits together.
    fn finish(self) -> Result<Config, Fault> {
        let missing = |flag, key, example| {
            if self.from_flags {
                let message = format!("missing; give it, or --config FILE with `{key}` in it");
                Fault::new(Place::Flag(flag), message)
            } else {
                let message = format!("`{key}` is missing; add `{key} = {example}` or give {flag}");
                Fault::new(Place::File(0), message)
            }
        };
        let (vip, _) = self
            .vip
            .ok_or_else(|| missing("--vip", "vip", "\"10.0.0.10:6443\""))?;
        let (nodes, place) = self
            .nodes
            .ok_or_else(|| missing("--nodes", "nodes", "[\"10.0.0.11\"]"))?;
        if nodes.is_empty() || nodes.len() > MAX_BACKENDS {
            let message = format!(
                "{} nodes: must be 1 to {MAX_BACKENDS}; list every control-plane node once",
                nodes.len()
            );
            return Err(Fault::new(place, message));
        }
        for (index, (node, place)) in nodes.iter().enumerate() {
            let address = node.address;
            if address == vip.address {
                let message = format!(
                    "node {address} is the VIP; list the nodes' own addresses, or choose a VIP that no node has"
                );
                return Err(Fault::new(*place, message));
            }
            for (before, _) in &nodes[..index] {
                let message = if before.address == address {
                    format!("node {address} is listed twice; remove one")
                } else if before.name == node.name {
                    format!("two nodes are named `{}`; rename one", node.name)
                } else {
                    continue;
                };
                return Err(Fault::new(*place, message));
            }
        }
        let [.., last_byte] = vip.address.octets();
        Ok(Config {
            vip,
            nodes: nodes.into_iter().map(|(node, _)| node).collect(),
            interface: self.interface,
            vrrp: Vrrp {
                router_id: self.router_id.unwrap_or(last_byte.max(1)),
                interval: self.interval.unwrap_or(Duration::from_millis(100)),
                priority: self.priority,
                preempt: self.preempt,
                preempt_delay: self.preempt_delay,
                mode: self.mode,
                probe_address: self.probe_address,
            },
            bfd: self.bfd,
            health: self.health,
            datapath: self.datapath,
            run_dir: self.run_dir.unwrap_or(RUN_DIR.into()),
        })
    }
}

/// A table out of which known keys are taken. What is left at the end is unknown.
struct Table<'a> {
    values: DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    fn new(values: DeTable<'a>) -> Self {
        Self {
            values,
            known: vec![],
        }
    }

    fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Spanned<DeValue<'a>>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        self.known.push(key);
        self.values.remove(key).map(read).transpose()
    }

    fn text<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Fault> {
        self.take(key, |value| Ok(text(value, read)?.0))
    }

    fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Fault> {
        self.take(key, |value| number(&value, range))
    }

    fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, Fault> {
        self.take(key, |value| match value.get_ref() {
            DeValue::Boolean(boolean) => Ok(*boolean),
            _ => Err(wrong_type(&value, "true or false")),
        })
    }

    /// A table in this one, empty if it is not there.
    fn table(&mut self, key: &'static str) -> Result<Self, Fault> {
        let values = self.take(key, |value| {
            let place = value.span();
            match value.into_inner() {
                DeValue::Table(values) => Ok(values),
                other => Err(wrong_type(&Spanned::new(place, other), "a table")),
            }
        })?;
        Ok(Self::new(values.unwrap_or_default()))
    }

    fn end(self) -> Result<(), Fault> {
        let Some(key) = self.values.keys().min_by_key(|key| key.span().start) else {
            return Ok(());
        };
        let known: Vec<String> = self.known.iter().map(|key| format!("`{key}`")).collect();
        let message = format!(
            "unknown key `{}`, expected one of {}",
            key.get_ref(),
            known.join(", ")
        );
        Err(Fault::new(key.span(), message))
    }
}

fn wrong_type(value: &Spanned<DeValue<'_>>, wanted: &str) -> Fault {
    let message = match value.get_ref() {
        DeValue::Boolean(boolean) => format!("`{boolean}` is a boolean, expected {wanted}"),
        DeValue::Integer(integer) => format!("{integer} is an integer, expected {wanted}"),
        other => format!(
            "this is a value of type {}, expected {wanted}",
            other.type_str()
        ),
    };
    Fault::new(value.span(), message)
}

fn text<T>(
    value: Spanned<DeValue<'_>>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<(T, Place), Fault> {
    match value.get_ref() {
        DeValue::String(text) => match read(text) {
            Ok(read) => Ok((read, value.span().into())),
            Err(message) => Err(Fault::new(value.span(), message)),
        },
        _ => Err(wrong_type(&value, "a string in quotes")),
    }
}

fn number(value: &Spanned<DeValue<'_>>, range: RangeInclusive<i64>) -> Result<i64, Fault> {
    let DeValue::Integer(integer) = value.get_ref() else {
        return Err(wrong_type(value, "an integer"));
    };
    i64::from_str_radix(integer.as_str(), integer.radix())
        .map_err(|_| format!("{integer} is too large"))
        .and_then(|number| within(number, range))
        .map_err(|message| Fault::new(value.span(), message))
}

fn within(number: i64, range: RangeInclusive<i64>) -> Result<i64, String> {
    if range.contains(&number) {
        Ok(number)
    } else {
        let (low, high) = range.into_inner();
        Err(format!("{number} is out of range, must be {low} to {high}"))
    }
}

fn buckets(value: Spanned<DeValue<'_>>) -> Result<u32, Fault> {
    let range = i64::from(rank::MIN_BUCKETS)..=i64::from(rank::MAX_BUCKETS);
    let buckets = number(&value, range)? as u32;
    if buckets.is_power_of_two() {
        return Ok(buckets);
    }
    let (less, more) = (buckets.next_power_of_two() / 2, buckets.next_power_of_two());
    let message = format!("{buckets} is not a power of two; take {less} or {more}");
    Err(Fault::new(value.span(), message))
}

type Nodes = (Vec<(Node, Place)>, Place);

fn nodes(value: Spanned<DeValue<'_>>) -> Result<Nodes, Fault> {
    let place = value.span();
    match value.into_inner() {
        DeValue::Array(values) => {
            let nodes = values.into_iter().map(node).collect::<Result<_, _>>()?;
            Ok((nodes, place.into()))
        }
        other => Err(wrong_type(
            &Spanned::new(place, other),
            "a list of addresses",
        )),
    }
}

fn node(value: Spanned<DeValue<'_>>) -> Result<(Node, Place), Fault> {
    let place = value.span();
    match value.into_inner() {
        DeValue::Table(values) => {
            let mut table = Table::new(values);
            let address = table.take("address", |value| text(value, unicast))?;
            let name = table.text("name", node_name)?;
            let weight = table.number("weight", 1..=65_535)?;
            table.end()?;
            let (address, place) = address.ok_or_else(|| {
                let message = "`address` is missing; add `address = \"10.0.0.11\"`";
                Fault::new(place, message)
            })?;
            let node = Node {
                name: name.unwrap_or_else(|| address.to_string()),
                weight: weight.unwrap_or(1) as u16,
                address,
            };
            Ok((node, place))
        }
        value @ DeValue::String(_) => {
            let (address, place) = text(Spanned::new(place, value), unicast)?;
            Ok((Node::at(address), place))
        }
        other => Err(wrong_type(
            &Spanned::new(place, other),
            "an address in quotes, or a table with one",
        )),
    }
}

/// `ADDRESS` or `ADDRESS:PORT`.
fn service(text: &str) -> Result<Service, String> {
    const DEFAULT_PORT: u16 = 6443;
    let (address, port) = match text.rsplit_once(':') {
        Some((address, port)) if !address.contains(':') => (address, Some(port)),
        _ => (text, None),
    };
    let address = unicast(address)?;
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => match port.parse() {
            Ok(number) if number != 0 => number,
            _ => return Err(format!("`{port}` is not a port, must be 1 to 65535")),
        },
    };
    Ok(Service { address, port })
}

/// An IPv4 address that a host can have.
fn unicast(text: &str) -> Result<Ipv4Addr, String> {
    let bare = text.split(']').next().unwrap_or(text);
    if bare.trim_start_matches('[').parse::<Ipv6Addr>().is_ok() {
        return Err(format!(
            "`{text}` is an IPv6 address, and this version is IPv4 only; give an IPv4 address"
        ));
    }
    let address: Ipv4Addr = text
        .parse()
        .map_err(|_| format!("`{text}` is not an IPv4 address; write it like 10.0.0.10"))?;
    let kind = if address.is_unspecified() || address.octets()[0] == 0 {
        "an unspecified"
    } else if address.is_loopback() {
        "a loopback"
    } else if address.is_multicast() {
        "a multicast"
    } else if address.is_link_local() {
        "a link-local"
    } else if address.octets()[0] >= 240 {
        "a reserved"
    } else {
        return Ok(address);
    };
    Err(format!(
        "{address} is {kind} address; give one of the nodes' subnet"
    ))
}

fn interface(text: &str) -> Result<String, String> {
    // IFNAMSIZ less the final zero; what dev_valid_name (net/core/dev.c) allows.
    let valid = (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` cannot be the name of an interface; see `ip link` for those there are"
        ))
    }
}

fn node_name(text: &str) -> Result<String, String> {
    let valid = (1..=63).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` cannot be a node's name; take 1 to 63 letters, digits, `-`, `_` and `.`"
        ))
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err(format!("`{text}` is not an absolute path; begin it with /"))
    }
}

fn probe_path(text: &str) -> Result<String, String> {
    let valid = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not a path of a URL; write it like /readyz"
        ))
    }
}

fn xdp_mode(text: &str) -> Result<XdpMode, String> {
    match text {
        "auto" => Ok(XdpMode::Auto),
        "native" => Ok(XdpMode::Native),
        "generic" => Ok(XdpMode::Generic),
        _ => Err(format!(
            "unknown mode `{text}`, expected one of `auto`, `native`, `generic`"
        )),
    }
}

fn vrrp_mode(text: &str) -> Result<VrrpMode, String> {
    match text {
        "unicast" => Ok(VrrpMode::Unicast),
        "multicast" => Ok(VrrpMode::Multicast),
        _ => Err(format!(
            "unknown mode `{text}`, expected one of `unicast`, `multicast`"
        )),
    }
}

fn hash_key(text: &str) -> Result<[u64; 2], String> {
    let half = |range: Range<usize>| {
        let digits = text.get(range)?;
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| hexadecimal)
    };
    match (text.len(), half(0..16), half(16..32)) {
        (32, Some(k0), Some(k1)) => Ok([k0, k1]),
        // The text may be a key with a slip in it, so it is not repeated.
        _ => {
            Err("not a key: must be 32 hexadecimal digits; `openssl rand -hex 16` makes one".into())
        }
    }
}

fn advert_interval(text: &str) -> Result<Duration, String> {
    let interval = duration(
        text,
        Duration::from_millis(10)..=Duration::from_millis(40_950),
    )?;
    // RFC 9568, section 5.2.7: the wire has centiseconds.
    if interval.as_millis().is_multiple_of(10) {
        Ok(interval)
    } else {
        Err(format!("`{text}` is not a multiple of 10ms; round it"))
    }
}

/// A number with a unit: `100ms`, `1.5s`, `2m`. In whole milliseconds.
fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let malformed = || format!("`{text}` is not a duration; write it like 100ms, 1.5s or 2m");
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(unit_at.ok_or_else(malformed)?);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err(malformed()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| {
        let valid = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| valid)
    };
    let (whole, tail) = digits(whole).zip(digits(part)).ok_or_else(malformed)?;
    let scale = 10_u64.pow(part.len() as u32);
    let tail = tail * milliseconds;
    if !tail.is_multiple_of(scale) {
        return Err(format!(
            "`{text}` is not a whole number of milliseconds; round it"
        ));
    }
    let duration = Duration::from_millis(whole * milliseconds + tail / scale);
    if range.contains(&duration) {
        Ok(duration)
    } else {
        let (low, high) = range.into_inner();
        Err(format!(
            "`{text}` is out of range, must be {low:?} to {high:?}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Args as _, FromArgMatches as _};
    use proptest::prelude::*;

    use super::*;

    const SMALLEST: &str = r#"
        vip = "10.0.0.10:6443"
        nodes = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
    "#;

    const PAGE: &str = include_str!("../../docs/configuration.md");

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    /// What is wrong with a file, on one line.
    fn refused(text: &str) -> String {
        Config::parse(text, "vip.toml").unwrap_err().to_string()
    }

    /// What is wrong with lines put behind a good beginning of two lines.
    fn refused_with(lines: &str) -> String {
        refused(&format!(
            "vip = \"10.0.0.10\"\nnodes = [\"10.0.0.11\"]\n{lines}"
        ))
    }

    fn flags(arguments: &[&str]) -> Flags {
        let command = Flags::augment_args(clap::Command::new("run").no_binary_name(true));
        Flags::from_arg_matches(&command.try_get_matches_from(arguments).unwrap()).unwrap()
    }

    /// The blocks of a language in the page.
    fn blocks(language: &str) -> Vec<&'static str> {
        let fence = format!("```{language}\n");
        let after = PAGE.split(&fence).skip(1);
        after
            .map(|rest| rest.split("```").next().unwrap())
            .collect()
    }

    #[test]
    fn smallest_file_has_sensible_defaults() {
        let node = |last| Node::at(ip(last));
        assert_eq!(
            Config::parse(SMALLEST, "vip.toml").unwrap(),
            Config {
                vip: Service {
                    address: ip(10),
                    port: 6443
                },
                nodes: vec![node(11), node(12), node(13)],
                interface: None,
                vrrp: Vrrp {
                    router_id: 10,
                    interval: Duration::from_millis(100),
                    priority: None,
                    preempt: false,
                    preempt_delay: Duration::ZERO,
                    mode: VrrpMode::Unicast,
                    probe_address: true,
                },
                bfd: Some(Bfd {
                    interval: Duration::from_millis(50),
                    multiplier: 3,
                }),
                health: Health {
                    path: "/readyz".into(),
                    port: None,
                    interval: Duration::from_millis(500),
                    timeout: Duration::from_secs(1),
                    rise: 2,
                    fall: 2,
                    tls: Tls::WellKnownCa,
                },
                datapath: Datapath {
                    mode: XdpMode::Auto,
                    buckets: 65_536,
                    hash_key: None,
                    bpffs: "/sys/fs/bpf".into(),
                },
                run_dir: "/run/vip".into(),
            }
        );
    }

    #[test]
    fn every_key_in_the_page_reaches_its_place() {
        let [smallest, full] = blocks("toml")[..] else {
            panic!("the page has two examples")
        };
        assert_eq!(
            Config::parse(smallest, "a").unwrap(),
            Config::parse(SMALLEST, "b").unwrap()
        );
        assert_eq!(
            Config::parse(full, "page").unwrap(),
            Config {
                vip: Service {
                    address: ip(10),
                    port: 6443
                },
                nodes: vec![
                    Node {
                        address: ip(11),
                        name: "cp1".into(),
                        weight: 2
                    },
                    Node {
                        address: ip(12),
                        name: "cp2".into(),
                        weight: 1
                    },
                    Node::at(ip(13)),
                ],
                interface: Some("bond0".into()),
                vrrp: Vrrp {
                    router_id: 51,
                    interval: Duration::from_secs(1),
                    priority: Some(200),
                    preempt: true,
                    preempt_delay: Duration::from_secs(30),
                    mode: VrrpMode::Multicast,
                    probe_address: false,
                },
                bfd: Some(Bfd {
                    interval: Duration::from_millis(20),
                    multiplier: 5,
                }),
                health: Health {
                    path: "/livez".into(),
                    port: Some(6444),
                    interval: Duration::from_millis(250),
                    timeout: Duration::from_secs(2),
                    rise: 3,
                    fall: 4,
                    tls: Tls::Ca("/etc/ssl/cluster-ca.pem".into()),
                },
                datapath: Datapath {
                    mode: XdpMode::Native,
                    buckets: 131_072,
                    hash_key: Some([0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f]),
                    bpffs: "/run/bpf".into(),
                },
                run_dir: "/run/vip-test".into(),
            }
        );
    }

    #[test]
    fn page_and_parser_know_the_same_keys() {
        // The parser tells its keys when it meets one it does not know.
        let known = |error: String| -> BTreeSet<String> {
            let (_, list) = error
                .split_once("expected one of ")
                .expect("tells its keys");
            list.split(", ")
                .map(|key| key.trim_matches('`').to_owned())
                .collect()
        };
        let documented = |heading: &str| -> BTreeSet<String> {
            let (_, section) = PAGE.split_once(heading).expect("has the section");
            let section = section.split("\n#").next().unwrap();
            let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
            rows.map(|row| row.split('`').next().unwrap().to_owned())
                .collect()
        };
        let tables = ["vrrp", "bfd", "health", "datapath"];
        let mut top = known(refused("x = 1"));
        for table in tables {
            assert!(top.remove(table));
            let keys = known(refused(&format!("[{table}]\nx = 1")));
            assert_eq!(keys, documented(&format!("### `[{table}]`")), "{table}");
        }
        assert_eq!(top, documented("### At the top"));
        let entry = known(refused("nodes = [{ x = 1 }]"));
        assert_eq!(entry, documented("### In an entry of `nodes`"));

        let command = Flags::augment_args(clap::Command::new("run"));
        let arguments = command.get_arguments().filter_map(|flag| flag.get_long());
        let flags: BTreeSet<String> = arguments.map(|flag| format!("--{flag}")).collect();
        assert_eq!(flags, documented("## Flags"));
    }

    #[test]
    fn flags_of_the_page_say_what_its_smallest_file_says() {
        let line = blocks("sh")[0].trim().strip_prefix("vip run ").unwrap();
        let by_flags = flags(&line.split(' ').collect::<Vec<_>>()).into_config();
        assert_eq!(
            by_flags.unwrap(),
            Config::parse(SMALLEST, "vip.toml").unwrap()
        );
    }

    #[test]
    fn flags_win_over_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vip.toml");
        fs::write(&path, format!("{SMALLEST}\ninterface = \"eth0\"")).unwrap();
        let file = path.to_str().unwrap();
        assert_eq!(
            Config::load(&path).unwrap().interface.as_deref(),
            Some("eth0")
        );
        let config = flags(&[
            "--config",
            file,
            "--vip",
            "10.0.0.20",
            "--interface",
            "eth7",
            "--vrid",
            "7",
            "--interval",
            "10ms",
            "--ca",
            "/ca.pem",
            "--nodes",
            "10.0.0.11",
        ]);
        let config = config.into_config().unwrap();
        assert_eq!(config.vip.to_string(), "10.0.0.20:6443");
        assert_eq!(config.nodes, [Node::at(ip(11))]);
        assert_eq!(config.interface.as_deref(), Some("eth7"));
        assert_eq!(config.vrrp.router_id, 7);
        assert_eq!(config.vrrp.interval, Duration::from_millis(10));
        assert_eq!(config.health.tls, Tls::Ca("/ca.pem".into()));
        let config = flags(&["--config", file, "--insecure"]).into_config();
        assert_eq!(config.unwrap().health.tls, Tls::Insecure);
        // The place of an error is the flag's, not the file's.
        let error = flags(&["--config", file, "--vip", "10.0.0.12"]).into_config();
        assert_eq!(
            error.unwrap_err().to_string().split(": node").next(),
            Some(format!("{file}:3:31").as_str())
        );
    }

    #[test]
    fn errors_in_flags_name_the_flag() {
        let refused = |arguments: &[&str]| flags(arguments).into_config().unwrap_err().to_string();
        assert_eq!(
            refused(&[]),
            "nothing configured; give --config FILE, or --vip ADDRESS[:PORT] and --nodes ADDRESS,ADDRESS,..."
        );
        assert_eq!(
            refused(&["--vip", "10.0.0.10"]),
            "--nodes: missing; give it, or --config FILE with `nodes` in it"
        );
        assert_eq!(
            refused(&["--nodes", "10.0.0.11"]),
            "--vip: missing; give it, or --config FILE with `vip` in it"
        );
        assert_eq!(
            refused(&["--vip", "10.0.0.10", "--nodes", "10.0.0.11,10.0.0.10"]),
            "--nodes: node 10.0.0.10 is the VIP; list the nodes' own addresses, or choose a VIP that no node has"
        );
        assert_eq!(
            refused(&["--vip", "10.0.0.10", "--vrid", "256"]),
            "--vrid: 256 is out of range, must be 1 to 255"
        );
        assert_eq!(
            refused(&["--config", "/nowhere/vip.toml"]),
            "cannot read /nowhere/vip.toml: No such file or directory (os error 2); give --config the right path"
        );
    }

    #[test]
    fn unknown_keys_are_refused_with_their_place() {
        assert_eq!(
            refused("nodes = []\n\nvpi = 1\nzzz = 2"),
            "vip.toml:3:1: unknown key `vpi`, expected one of `vip`, `nodes`, `interface`, `run_dir`, `vrrp`, `bfd`, `health`, `datapath`"
        );
        assert_eq!(
            refused_with("[vrrp]\n  virtual_router = 1"),
            "vip.toml:4:3: unknown key `virtual_router`, expected one of `router_id`, `interval`, `priority`, `preempt`, `preempt_delay`, `mode`, `probe_address`"
        );
        assert_eq!(
            refused("nodes = [\"10.0.0.11\", { address = \"10.0.0.12\", wieght = 2 }]"),
            "vip.toml:1:48: unknown key `wieght`, expected one of `address`, `name`, `weight`"
        );
    }

    #[test]
    fn wrong_values_are_refused_with_their_place_and_a_way_out() {
        for (lines, error) in [
            ("vrrp = 3", "3:8: 3 is an integer, expected a table"),
            (
                "interface = 3",
                "3:13: 3 is an integer, expected a string in quotes",
            ),
            (
                "interface = \"a/b\"",
                "3:13: `a/b` cannot be the name of an interface; see `ip link` for those there are",
            ),
            (
                "run_dir = \"run\"",
                "3:11: `run` is not an absolute path; begin it with /",
            ),
            (
                "[vrrp]\nrouter_id = 0",
                "4:13: 0 is out of range, must be 1 to 255",
            ),
            (
                "[vrrp]\nrouter_id = \"1\"",
                "4:13: this is a value of type string, expected an integer",
            ),
            (
                "[vrrp]\npriority = 256",
                "4:12: 256 is out of range, must be 1 to 255",
            ),
            (
                "[vrrp]\npreempt = 1",
                "4:11: 1 is an integer, expected true or false",
            ),
            (
                "[vrrp]\ninterval = true",
                "4:12: `true` is a boolean, expected a string in quotes",
            ),
            (
                "[vrrp]\ninterval = \"9ms\"",
                "4:12: `9ms` is out of range, must be 10ms to 40.95s",
            ),
            (
                "[vrrp]\ninterval = \"41s\"",
                "4:12: `41s` is out of range, must be 10ms to 40.95s",
            ),
            (
                "[vrrp]\ninterval = \"15ms\"",
                "4:12: `15ms` is not a multiple of 10ms; round it",
            ),
            (
                "[vrrp]\ninterval = \"100\"",
                "4:12: `100` is not a duration; write it like 100ms, 1.5s or 2m",
            ),
            (
                "[health]\ntimeout = \"0.0001s\"",
                "4:11: `0.0001s` is not a whole number of milliseconds; round it",
            ),
            (
                "[health]\npath = \"readyz\"",
                "4:8: `readyz` is not a path of a URL; write it like /readyz",
            ),
            (
                "[health]\nrise = 0",
                "4:8: 0 is out of range, must be 1 to 100",
            ),
            (
                "[health]\nport = 65536",
                "4:8: 65536 is out of range, must be 1 to 65535",
            ),
            (
                "[health]\nca = \"/a\"\ninsecure = true",
                "4:6: `ca` has no meaning with `insecure = true`; remove one",
            ),
            (
                "[datapath]\nmode = \"fast\"",
                "4:8: unknown mode `fast`, expected one of `auto`, `native`, `generic`",
            ),
            (
                "[datapath]\nbuckets = 65535",
                "4:11: 65535 is not a power of two; take 32768 or 65536",
            ),
            (
                "[datapath]\nbuckets = 8",
                "4:11: 8 is out of range, must be 16 to 1048576",
            ),
            (
                "[datapath]\nbuckets = 99999999999999999999",
                "4:11: 99999999999999999999 is too large",
            ),
            (
                "[datapath]\nhash_key = \"12\"",
                "4:12: not a key: must be 32 hexadecimal digits; `openssl rand -hex 16` makes one",
            ),
            (
                "[datapath]\nhash_key = \"+0010203040506070809 0a0b0c0d0e0\"",
                "4:12: not a key: must be 32 hexadecimal digits; `openssl rand -hex 16` makes one",
            ),
        ] {
            assert_eq!(refused_with(lines), format!("vip.toml:{error}"), "{lines}");
        }
    }

    #[test]
    fn addresses_that_cannot_work_are_refused() {
        let vip = |text: &str| refused(&format!("vip = \"{text}\"\nnodes = [\"10.0.0.11\"]"));
        for (text, error) in [
            ("10.0.0.10:0", "`0` is not a port, must be 1 to 65535"),
            ("10.0.0.10:http", "`http` is not a port, must be 1 to 65535"),
            (
                "10.0.0.256",
                "`10.0.0.256` is not an IPv4 address; write it like 10.0.0.10",
            ),
            (
                "127.0.0.1",
                "127.0.0.1 is a loopback address; give one of the nodes' subnet",
            ),
            (
                "224.0.0.18",
                "224.0.0.18 is a multicast address; give one of the nodes' subnet",
            ),
            (
                "0.0.0.0",
                "0.0.0.0 is an unspecified address; give one of the nodes' subnet",
            ),
            (
                "255.255.255.255",
                "255.255.255.255 is a reserved address; give one of the nodes' subnet",
            ),
            (
                "fd00::10",
                "`fd00::10` is an IPv6 address, and this version is IPv4 only; give an IPv4 address",
            ),
            (
                "[fd00::10]:6443",
                "`[fd00::10]:6443` is an IPv6 address, and this version is IPv4 only; give an IPv4 address",
            ),
        ] {
            assert_eq!(vip(text), format!("vip.toml:1:7: {error}"));
        }
        for (nodes, error) in [
            (
                "[]",
                "2:9: 0 nodes: must be 1 to 16; list every control-plane node once",
            ),
            (
                "\"10.0.0.11\"",
                "2:9: this is a value of type string, expected a list of addresses",
            ),
            (
                "[11]",
                "2:10: 11 is an integer, expected an address in quotes, or a table with one",
            ),
            (
                "[\"::1\"]",
                "2:10: `::1` is an IPv6 address, and this version is IPv4 only; give an IPv4 address",
            ),
            (
                "[\"10.0.0.11\", \"10.0.0.11\"]",
                "2:23: node 10.0.0.11 is listed twice; remove one",
            ),
            (
                "[{ address = \"10.0.0.11\", name = \"a\" }, { address = \"10.0.0.12\", name = \"a\" }]",
                "2:61: two nodes are named `a`; rename one",
            ),
            (
                "[\"10.0.0.10\"]",
                "2:10: node 10.0.0.10 is the VIP; list the nodes' own addresses, or choose a VIP that no node has",
            ),
            (
                "[{ name = \"a\" }]",
                "2:10: `address` is missing; add `address = \"10.0.0.11\"`",
            ),
            (
                "[{ address = \"10.0.0.11\", name = \"a b\" }]",
                "2:42: `a b` cannot be a node's name; take 1 to 63 letters, digits, `-`, `_` and `.`",
            ),
            (
                "[{ address = \"10.0.0.11\", weight = 0 }]",
                "2:44: 0 is out of range, must be 1 to 65535",
            ),
        ] {
            let text = format!("vip = \"10.0.0.10\"\nnodes = {nodes}");
            assert_eq!(refused(&text), format!("vip.toml:{error}"));
        }
        let many: Vec<String> = (1..=17).map(|n| format!("\"10.0.1.{n}\"")).collect();
        assert_eq!(
            refused(&format!(
                "vip = \"10.0.0.10\"\nnodes = [{}]",
                many.join(", ")
            )),
            "vip.toml:2:9: 17 nodes: must be 1 to 16; list every control-plane node once"
        );
        assert_eq!(
            refused("vip = \"10.0.0.10\""),
            "vip.toml:1:1: `nodes` is missing; add `nodes = [\"10.0.0.11\"]` or give --nodes"
        );
    }

    #[test]
    fn numbers_and_durations_may_be_written_as_toml_and_people_do() {
        let config = Config::parse(
            &format!("{SMALLEST}\n[vrrp]\ninterval = \"1.5s\"\n[datapath]\nbuckets = 0x1_0000"),
            "vip.toml",
        );
        let config = config.unwrap();
        assert_eq!(config.vrrp.interval, Duration::from_millis(1500));
        assert_eq!(config.datapath.buckets, 65_536);
        assert_eq!(
            duration("2m", Duration::ZERO..=Duration::MAX),
            Ok(Duration::from_secs(120))
        );
    }

    #[test]
    fn router_id_is_never_zero_and_the_hash_key_is_the_clusters() {
        let config = |vip| {
            let text = format!("vip = \"{vip}\"\nnodes = [\"10.0.0.11\"]");
            Config::parse(&text, "vip.toml").unwrap()
        };
        assert_eq!(config("10.0.4.0").vrrp.router_id, 1);
        assert_eq!(
            config("10.0.4.0").hash_key(),
            config("10.0.4.0:443").hash_key()
        );
        assert_ne!(config("10.0.4.0").hash_key(), config("10.0.4.1").hash_key());
    }

    #[test]
    fn priorities_fall_with_the_place_and_stay_in_range() {
        let priorities: Vec<u8> = (0..MAX_BACKENDS).map(Config::node_priority).collect();
        assert_eq!(
            priorities,
            [
                250, 220, 190, 160, 130, 100, 70, 40, 37, 34, 31, 28, 25, 22, 19, 16
            ]
        );
        assert_eq!(Config::node_priority(usize::MAX), 1);
    }

    proptest! {
        #[test]
        fn any_text_is_refused_in_one_line_or_taken(text in "(.|\n)*") {
            if let Err(error) = Config::parse(&text, "vip.toml") {
                let error = error.to_string();
                prop_assert!(error.starts_with("vip.toml:"), "{}", error);
                prop_assert!(!error.contains('\n'), "{}", error);
            }
        }

        #[test]
        fn any_damage_to_the_full_example_is_refused_in_one_line_or_taken(
            at: prop::sample::Index, with in "[ -~\n]{0,3}",
        ) {
            let text = blocks("toml")[1];
            let at = at.index(text.len());
            let damaged = format!("{}{with}{}", &text[..at], &text[at + 1..]);
            if let Err(error) = Config::parse(&damaged, "vip.toml") {
                let error = error.to_string();
                prop_assert!(error.starts_with("vip.toml:"), "{}", error);
                prop_assert!(!error.contains('\n'), "{}", error);
            }
        }

        #[test]
        fn durations_are_read_as_written(milliseconds in 0_u64..100_000_000) {
            let any = || Duration::ZERO..=Duration::MAX;
            let wanted = Ok(Duration::from_millis(milliseconds));
            prop_assert_eq!(duration(&format!("{milliseconds}ms"), any()), wanted.clone());
            let seconds = format!("{}.{:03}s", milliseconds / 1000, milliseconds % 1000);
            prop_assert_eq!(duration(&seconds, any()), wanted);
        }
    }
}
