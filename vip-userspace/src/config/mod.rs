//! The configuration: a TOML file, flags, or both, made into one checked [`Config`].
//!
//! The same file serves on all nodes of a cluster. Each key is explained in
//! `docs/configuration.md`, and a test holds that page and this file together.

mod draft;
mod fault;
mod table;
mod values;

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use vip_common::abi::{
    DEFAULT_BUCKETS, MAX_ALLOWED, MAX_BACKENDS, MAX_CHECKS, MAX_PORTS, MAX_VIPS,
};

use self::draft::Draft;
use self::fault::{Fault, Place, Source};
use self::table::within;
use self::values::{
    advert_interval, check_kind, directory, endpoint, host, interface, listen, run_directory,
};
use crate::probe::{Ask, Credentials};
use vip_node::rank;

/// Where the agent keeps its socket and its lock, unless configured otherwise.
pub const RUN_DIR: &str = "/run/vip";

/// Where the agent keeps what must outlive a reboot, unless configured otherwise.
pub const STATE_DIR: &str = "/var/lib/vip";

/// Where the agent listens for HTTP, unless configured otherwise: nobody but this machine
/// reaches it there.
pub const HTTP: Listen = Listen::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9643));

/// Where bpffs is mounted, unless configured otherwise.
pub const BPFFS: &str = "/sys/fs/bpf";

/// What the agent is to do. Checked: every value is in range, and they fit together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Where the API is to be reached: 1 to 16 addresses, those of IPv4 first, without
    /// duplicates. At least one is of the nodes' family.
    pub vips: Vec<Vip>,
    /// How services are found to be ready; services refer to them by their places.
    pub checks: Vec<Check>,
    /// The control-plane nodes, 1 to 16, without duplicates and of one family. Their order is
    /// their index.
    pub nodes: Vec<Node>,
    /// The NIC; found by the VIP's subnet if not given.
    pub interface: Option<String>,
    /// The election.
    pub vrrp: Vrrp,
    /// How nodes hear of each other's death; `None` if by the election alone.
    pub bfd: Option<Bfd>,
    /// The probes.
    pub health: Health,
    /// Connections of this node and its pods; `None` if they are left alone.
    pub local: Option<Local>,
    /// The programs in the kernel.
    pub datapath: Datapath,
    /// Where the agent listens for HTTP: metrics, probes, status page. `None`: nowhere.
    pub http: Option<Listen>,
    /// Where the status socket lies, and what is noted about the running kernel.
    pub run_dir: PathBuf,
    /// Where lies what must outlive a reboot: the last events, and whether the node is drained.
    pub state_dir: PathBuf,
}

/// A virtual address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vip {
    /// A unicast address that no node has as its own.
    pub address: IpAddr,
    /// What is reached there, 1 to 8, no port twice. The first one is the API.
    pub services: Vec<Service>,
}

impl Vip {
    /// Its first service, as `ADDRESS:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        let port = self.services.first().map_or(0, |service| service.port);
        SocketAddr::new(self.address, port)
    }
}

/// A TCP port of a VIP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// What clients connect to. Not 0.
    pub port: u16,
    /// What the nodes listen on. Not 0, and another one for each service of a VIP.
    pub target: u16,
    /// Its place in [`Config::checks`].
    pub check: usize,
    /// Who may use it; everybody if it is empty.
    pub allow: Vec<Network>,
    /// New connections a second that one source may open; any number if `None`.
    pub syn_rate: Option<u32>,
}

/// How a server is asked whether it is ready.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// The port on the nodes.
    pub port: u16,
    /// What is asked of it.
    pub ask: Ask,
}

/// An address, or all that begin as it does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Network {
    /// The address, with zeros behind the prefix.
    pub address: IpAddr,
    /// Bits of the prefix.
    pub prefix_len: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// A control-plane node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its own address on the VIP's segment.
    pub address: IpAddr,
    /// Its address of the other family, for its own and the other nodes' connections to VIPs of
    /// that family.
    pub other_address: Option<IpAddr>,
    /// What to call it; the address if nothing else is given.
    pub name: String,
    /// Its share of new connections relative to the others', at least 1.
    pub weight: u16,
}

/// Connections that this node and its pods make to a VIP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// The cgroup whose processes' connections are redirected; the root of the mounted cgroup2
    /// if `None`.
    pub cgroup: Option<PathBuf>,
}

/// The election by VRRP (RFC 9568).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vrrp {
    /// The virtual router, `1..=255`.
    pub router_id: u8,
    /// Time between the owner's advertisements: 10 ms to 40.95 s in whole centiseconds.
    pub interval: Duration,
    /// `1..=255`; `None` if the place in the list of nodes decides ([`default_priority`](vip_node::election::default_priority)).
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
    /// How the agent proves to API servers who it is, if they want to know.
    pub credentials: Option<Credentials>,
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

/// Where the agent listens for HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listen {
    /// At an address, the same on all nodes that have this configuration.
    At(SocketAddr),
    /// At this port of each node's own address on the VIP's segment, and of loopback: the kubelet
    /// on the node asks there, whatever becomes of the node's address.
    Node(u16),
}

impl Listen {
    /// The TCP port.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::At(address) => address.port(),
            Self::Node(port) => port,
        }
    }

    /// The addresses, on the node with this address of its own.
    #[must_use]
    pub fn on(self, node: IpAddr) -> Vec<SocketAddr> {
        match self {
            Self::At(address) => vec![address],
            Self::Node(port) => {
                let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                vec![loopback, SocketAddr::new(node, port)]
            }
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Node(port) => write!(f, "node:{port}"),
        }
    }
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
    /// As a tcx program or clsact filter on the way in, beside whatever XDP program there is.
    Tc,
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
    #[error("cannot read {}: {source}; give the path of a configuration file", path.display())]
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

    /// The first VIP of the nodes' family: the one that names the cluster.
    ///
    /// # Panics
    /// Never: there is one.
    #[must_use]
    pub fn vip(&self) -> &Vip {
        let ours = |vip: &&Vip| self.is_of_nodes_family(vip.address);
        let first = self.vips.iter().find(ours).or(self.vips.first());
        first.expect("a configuration has a VIP")
    }

    /// Whether an address is of the family that the nodes are known by.
    #[must_use]
    pub fn is_of_nodes_family(&self, address: IpAddr) -> bool {
        let first = self.nodes.first().map(|node| node.address.is_ipv4());
        first == Some(address.is_ipv4())
    }

    /// The nodes' addresses, in their order.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// The addresses of the nodes but this one, in their order.
    #[must_use]
    pub fn peers(&self, own: usize) -> Vec<IpAddr> {
        let mut addresses = self.addresses();
        if own < addresses.len() {
            addresses.remove(own);
        }
        addresses
    }

    /// The configured key, or the one that belongs to the VIP.
    #[must_use]
    pub fn hash_key(&self) -> [u64; 2] {
        let default = || rank::default_key(self.vip().address);
        self.datapath.hash_key.unwrap_or_else(default)
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

/// A configuration on a command line: a file, flags that win over what it says, or both.
#[derive(clap::Args, Clone, Default, Debug)]
pub struct Flags {
    /// Configuration file; see docs/configuration.md
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What the file says, or in its place.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// The flags that say what a small file says.
#[derive(clap::Args, Clone, PartialEq, Eq, Default, Debug)]
pub struct Overrides {
    /// Virtual addresses, each with its port unless that is 6443
    #[arg(long, value_name = "ADDRESS[:PORT],...", value_delimiter = ',')]
    pub vip: Option<Vec<String>>,
    /// Addresses of all control-plane nodes, in the same order on each of them
    #[arg(long, value_name = "ADDRESS,...", value_delimiter = ',')]
    pub nodes: Option<Vec<String>>,
    /// Port that the API servers listen on [default: the VIP's, which is not taken for granted if
    /// that is 443]
    #[arg(long, value_name = "PORT")]
    pub target_port: Option<String>,
    /// NIC of the VIP [default: the one with an address in its subnet]
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// VRRP router id, 1 to 255 [default: last byte of the VIP]
    #[arg(long, value_name = "ID")]
    pub vrid: Option<String>,
    /// VRRP advertisement interval, 10ms to 40.95s [default: 100ms]
    #[arg(long, value_name = "DURATION")]
    pub interval: Option<String>,
    /// Where to listen for HTTP: metrics, probes, status page [default: 127.0.0.1:9643]
    /// Only a port: of 127.0.0.1. `node:PORT`: of the node's own address, too
    #[arg(long, value_name = "[ADDRESS:]PORT")]
    pub http: Option<String>,
    /// CA certificate of the API servers [default: where kubeadm, k0s, k3s and RKE2 keep it]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// Believe whatever answers the probes
    #[arg(long)]
    pub insecure: bool,
    /// Where the agent keeps its socket; its pins follow it [default: /run/vip]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<String>,
    /// Where the agent keeps its events, and that it is drained [default: /var/lib/vip]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// What API servers are asked: readyz, tls, tcp [default: readyz]
    #[arg(long, value_name = "KIND")]
    pub check: Option<String>,
    /// Bearer token for /readyz, in a file
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Client certificate for /readyz
    #[arg(long, value_name = "FILE")]
    pub client_certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
}

impl Flags {
    /// The file, if one is given, with the flags put over it.
    ///
    /// # Errors
    /// The file cannot be read, something in it or in a flag is wrong, or neither is given.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let nothing = self.overrides.vip.is_none() && self.overrides.nodes.is_none();
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
            self.overrides.put_over(&mut draft)?;
            draft.finish()
        });
        config.map_err(|fault| source.error(fault))
    }
}

impl Overrides {
    /// The run directory, by itself: for what needs nothing else of the configuration.
    ///
    /// # Errors
    /// It is no absolute path, or cannot be a directory of an agent's own.
    pub fn run_dir(&self) -> Result<PathBuf, ConfigError> {
        let named = named("--run-dir", self.run_dir.as_deref(), run_directory)?;
        Ok(named.unwrap_or_else(|| RUN_DIR.into()))
    }

    /// The state directory that is named, by itself.
    ///
    /// # Errors
    /// It is no absolute path, or cannot be a directory of an agent's own.
    pub fn state_dir(&self) -> Result<Option<PathBuf>, ConfigError> {
        named("--state-dir", self.state_dir.as_deref(), directory)
    }

    /// The flags again, one word after the other.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let lists = [("--vip", &self.vip), ("--nodes", &self.nodes)];
        let lists = lists.map(|(flag, list)| (flag, list.as_ref().map(|list| list.join(","))));
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let values = [
            ("--target-port", self.target_port.clone()),
            ("--interface", self.interface.clone()),
            ("--vrid", self.vrid.clone()),
            ("--interval", self.interval.clone()),
            ("--http", self.http.clone()),
            ("--ca", path(&self.ca)),
            ("--run-dir", self.run_dir.clone()),
            ("--state-dir", self.state_dir.clone()),
            ("--check", self.check.clone()),
            ("--token-file", path(&self.token_file)),
            ("--client-certificate", path(&self.client_certificate)),
            ("--client-key", path(&self.client_key)),
        ];
        let pairs = lists.into_iter().chain(values);
        let words = pairs.filter_map(|(flag, value)| Some([flag.to_owned(), value?]));
        let insecure = self.insecure.then(|| "--insecure".to_owned());
        words.flatten().chain(insecure).collect()
    }

    fn put_over(self, draft: &mut Draft) -> Result<(), Fault> {
        let at = |flag| move |message| Fault::new(Place::Flag(flag), message);
        if let Some(vips) = self.vip {
            let vips = vips.iter().map(|text| {
                let endpoint = endpoint(text.trim()).map_err(at("--vip"))?;
                Ok((endpoint, Place::Flag("--vip")))
            });
            draft.vips = vips.collect::<Result<_, _>>()?;
        }
        if let Some(nodes) = self.nodes {
            let nodes = nodes.iter().map(|text| {
                let address = host(text.trim()).map_err(at("--nodes"))?;
                Ok((Node::at(address), Place::Flag("--nodes")))
            });
            draft.nodes = Some((nodes.collect::<Result<_, _>>()?, Place::Flag("--nodes")));
        }
        if let Some(port) = self.target_port {
            let number = port
                .parse()
                .map_err(|_| at("--target-port")(format!("`{port}` is not a port")))?;
            let port = within(number, 1..=65_535).map_err(at("--target-port"))?;
            draft.main.target = Some(port as u16);
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
        if let Some(address) = self.http {
            let listen = listen(&address).map_err(at("--http"))?;
            draft.http = Some((listen, Place::Flag("--http")));
        }
        if let Some(ca) = self.ca {
            draft.health.tls = Tls::Ca(ca);
        }
        if self.insecure {
            draft.health.tls = Tls::Insecure;
        }
        if let Some(path) = self.run_dir {
            draft.run_dir = Some(run_directory(&path).map_err(at("--run-dir"))?);
        }
        if let Some(path) = self.state_dir {
            draft.state_dir = Some(directory(&path).map_err(at("--state-dir"))?);
        }
        if let Some(kind) = self.check {
            let kind = check_kind(&kind).map_err(at("--check"))?;
            draft.probe.kind = Some((kind, Place::Flag("--check")));
        }
        for (file, given, flag) in [
            (self.token_file, &mut draft.probe.token, "--token-file"),
            (
                self.client_certificate,
                &mut draft.probe.certificate,
                "--client-certificate",
            ),
            (self.client_key, &mut draft.probe.key, "--client-key"),
        ] {
            if let Some(file) = file {
                *given = Some((file, Place::Flag(flag)));
            }
        }
        Ok(())
    }
}

/// The directory that a flag names, if it is given.
fn named(
    flag: &'static str,
    text: Option<&str>,
    read: impl FnOnce(&str) -> Result<PathBuf, String>,
) -> Result<Option<PathBuf>, ConfigError> {
    let named = text.map(read).transpose();
    named.map_err(|message| ConfigError::Flag { flag, message })
}

impl Node {
    fn at(address: IpAddr) -> Self {
        Self {
            address,
            other_address: None,
            name: address.to_string(),
            weight: 1,
        }
    }
}

#[cfg(test)]
mod tests;
