//! Every key of the configuration file, declared once. To add a key, add it here (in an entry of
//! `nodes` or `services`: in `entries.rs`), use it, and test it. See [`keys`](super::key::keys).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use vip_common::wire::bfd::{AGENT_PORT, PORT};

use super::addresses::{host, listen};
use super::entries::{NodeKeys, ServiceKeys, networks, nodes, seeds, services, syn_rate, vips};
use super::fault::{Faults, Placed};
use super::key::{Entry, Group, Said, Switched, Table, keys};
use super::kind::{Kind, boolean, duration, file, number, tcp_port, text, word};
use super::names::{
    LONGEST, absolute, directory, dns_name, hash_key, interface, node_name, probe_path,
    run_directory,
};
use super::types::{Check, CheckKind, Listen, Network, Node, OwnNode, Vip, VrrpMode, XdpMode};
use crate::probe::{Credentials, Trust};
use crate::run_dir::RunDir;

/// Where the agent keeps its socket and its lock, unless configured otherwise.
pub const RUN_DIR: &str = "/run/vip";

/// Where the agent keeps what must outlive a reboot, unless configured otherwise.
pub const STATE_DIR: &str = "/var/lib/vip";

/// Where bpffs is mounted, unless configured otherwise.
pub const BPFFS: &str = "/sys/fs/bpf";

/// The tables of the file, in the order of the page, with their keys.
pub(super) fn sections() -> [Section; 10] {
    [
        Section::of::<(Cluster, Config)>("top", Form::Top),
        Section::of::<NodeKeys>("nodes", Form::Entry),
        Section::of::<ServiceKeys>("services", Form::Entry),
        Section::of::<(Own, Members)>("members", Form::Table),
        Section::of::<Vrrp>("vrrp", Form::Table),
        Section::of::<Option<Bfd>>("bfd", Form::Table),
        Section::of::<(Probing, Health)>("health", Form::Table),
        Section::of::<Option<Local>>("local", Form::Table),
        Section::of::<Datapath>("datapath", Form::Table),
        Section::of::<Http>("http", Form::Table),
    ]
}

/// What each key says; entries of lists are part of what the key of their list says. `source` is the
/// text of the file.
pub(super) fn said(root: Table<'_>, source: &str) -> Result<Vec<Said>, Faults> {
    let mut said = vec![];
    for section in sections() {
        let table = match section.form {
            Form::Top => root,
            Form::Table => root.section(section.name)?,
            Form::Entry => continue,
        };
        said.extend((section.said)(table, section.name, source)?);
    }
    Ok(said)
}

/// A table of the file.
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) entries: Vec<Entry>,
    said: fn(Table<'_>, &'static str, &str) -> Result<Vec<Said>, Faults>,
}

impl Section {
    fn of<G: Group>(name: &'static str, form: Form) -> Self {
        Self {
            name,
            form,
            entries: G::entries(),
            said: G::said,
        }
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        self.entries.iter().map(|entry| entry.name).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The file itself.
    Top,
    /// Each entry of the list with the section's name.
    Entry,
    Table,
}

/// The run directory, also by itself: `vip cleanup` needs nothing else.
pub(super) fn run_dir() -> Kind<RunDir> {
    let range = format!("absolute path without `..`, at most {LONGEST} bytes");
    text(range, run_directory)
}

/// The state directory, also by itself.
pub(super) fn state_dir() -> Kind<PathBuf> {
    text("absolute path without `..`", directory)
}

keys! {
    /// The keys at the top that are checked against each other and make [`Config::vips`],
    /// [`Config::checks`] and [`Config::nodes`].
    pub(super) struct Cluster {
        /// The addresses that the API is to have, in the nodes' subnet, and not addresses of any
        /// host.
        ///
        /// One of IPv6 with a port is written `"[fd00::10]:6443"`. If the last group of one without
        /// brackets looks like a port (`fd00::10:6443`), it is refused: `"[fd00::10:6443]"` says
        /// that it is the address. The first and last address of a subnet are refused when the
        /// agent starts. One node owns all of them. At least one must be of the nodes' family; the
        /// first of these names the cluster.
        ///
        /// The order counts: without `nodes`, the nodes' family is that of the first VIP in this list,
        /// IPv4 or IPv6. Each agent takes the node's address of that family, and agents with addresses
        /// of different families do not find each other. So all nodes need the same first VIP; put an
        /// address that you add behind it. With `nodes`, their addresses decide.
        pub(super) vip: Vec<Placed<SocketAddr>> {
            kind: vips(),
            required: "\"10.0.0.10:6443\"",
            reload: Live,
            example: "[\"10.0.0.10:443\", \"[fd00::10]:443\"]",
            open_example: "[\"10.0.0.10:6443\", \"[fd00::10]:6443\"]",
            flag: ("--vip", "ADDRESS[:PORT],..."),
        }

        /// All control-plane nodes, in any order, if no others are to become members.
        ///
        /// With it, the list is the same on all nodes. Without it, the agents of the VIP's segment
        /// find each other; [operations.md](operations.md#members) says who may join. Nodes may be
        /// added and removed by `vip reload` ([how](operations.md#change-the-list-of-nodes)); a
        /// restart is needed to go from a list to none, or from none to a list.
        pub(super) nodes: Option<Placed<Vec<Placed<Node>>>> {
            kind: nodes(),
            unset: "the agents find each other",
            reload: Live,
            example: "[
    { address = \"10.0.0.11\", other_address = \"fd00::11\", name = \"cp1\", weight = 2 },
    { address = \"10.0.0.12\", name = \"cp2\" },
    \"10.0.0.13\",
]",
            flag: ("--nodes", "ADDRESS,..."),
        }

        /// Addresses of nodes to which hellos also go one by one: where the network filters
        /// multicast.
        ///
        /// One that answers is enough. They need not be members, and may be on no node yet. The list
        /// may be the same on all nodes; a node does not answer itself. Seeds must be on the nodes'
        /// segment: a hello that a router has passed on is not taken. Only without `nodes`.
        pub(super) seeds: Option<Placed<Vec<IpAddr>>> {
            kind: seeds(),
            unset: "none",
            reload: Live,
            open_example: "[\"10.0.0.11\", \"10.0.0.12\"]",
            flag: ("--seeds", "ADDRESS,..."),
        }

        /// The port that the API servers listen on, if clients connect to another one.
        ///
        /// Must be given if the VIP's is 443: API servers that listen on 443 are rare, and with the
        /// wrong port no request succeeds.
        pub(super) target_port: Option<u16> {
            kind: tcp_port(),
            unset: "the VIP's port",
            reload: Live,
            example: "6443",
            flag: ("--target-port", "PORT"),
        }

        /// The networks whose hosts may connect to the API by the VIPs.
        ///
        /// SYNs from elsewhere are dropped and counted; a change leaves open connections alone.
        /// Connections of nodes and pods by way of `[local]` are always allowed.
        pub(super) allow: Option<Vec<Network>> {
            kind: networks("both families; 16384 networks in all lists, counted for each VIP"),
            unset: "everybody",
            reload: Live,
            example: "[\"10.0.0.0/8\", \"fd00::/8\"]",
        }

        /// New connections that one source may open, and as many at once.
        ///
        /// A source is an IPv4 address or a /64 of IPv6. More are dropped and counted.
        pub(super) syn_rate: Option<u32> {
            kind: syn_rate(),
            unset: "no limit",
            reload: Live,
            example: "500",
        }

        /// Other ports of the VIPs, see below.
        pub(super) services: Option<Vec<Placed<ServiceKeys>>> {
            kind: services(),
            unset: "none",
            reload: Live,
        }
    }
}

keys! {
    /// The checked configuration of an agent: every value is in range, and they fit together.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Config {
        /// The NIC whose segment the VIP is on, by its name or one of its alternative names
        /// (`altname` in `ip link`).
        ///
        /// Give it if several NICs fit. [operations.md](operations.md#nodes-with-several-nics) says
        /// what becomes of the others. When the node's address moves to another interface, the
        /// agent follows it without a restart: to any interface if this is left out, else only to
        /// this one and to a bridge or bond that it is a port of.
        pub interface: Option<String> {
            kind: text("1 to 127 characters", interface),
            unset: "the NIC with an address in the VIP's subnet",
            reload: Restart,
            example: "\"bond0\"",
            flag: ("--interface", "NAME"),
        }

        /// Directory of the status socket, the lock, and the notes about the running kernel.
        ///
        /// It may be empty after a boot. The agent's pins follow it: they lie in `vip` below
        /// `bpffs` by default, in `vip:run:vip-b` with `/run/vip-b`. Change it to run a second
        /// agent on a machine, for another VIP on another NIC; see [operations.md](operations.md).
        /// Before you change it on a node: `vip cleanup`.
        pub run_dir: RunDir {
            kind: run_dir(),
            default: RUN_DIR,
            reload: Restart,
            example: "\"/run/vip-test\"",
            flag: ("--run-dir", "DIR"),
        }

        /// Directory of what must outlive a reboot: the last events, and whether the node is
        /// drained.
        ///
        /// It does not follow `run_dir`: a second agent on a machine needs another one of both, and
        /// is refused otherwise. If it cannot be made or written, the agent runs all the same,
        /// keeps both in `run_dir`, and reports that in an event and at `vip drain`.
        pub state_dir: PathBuf {
            kind: state_dir(),
            default: STATE_DIR,
            reload: Restart,
            example: "\"/var/lib/vip-test\"",
            flag: ("--state-dir", "DIR"),
        }

        /// File with the key that the agents of the cluster share.
        ///
        /// It decides who may be a member, and seals what agents send each other. `vip key` makes it.
        /// It must be the same on all nodes, belong to root, and have mode 0600 or 0400. The agent
        /// reads it when it starts, and refuses to start with a file that is wrong; `vip reload` reads
        /// it again. [operations.md](operations.md#change-the-key) says how the key is changed.
        pub key_file: Option<PathBuf> {
            kind: text("absolute path", absolute),
            unset: "none",
            reload: Restart,
            example: "\"/etc/vip/key\"",
            open_example: "\"/etc/vip/key\"",
            flag: ("--key-file", "FILE"),
        }
    }
    made {
        /// The addresses at which the API is reached: 1 to 16, those of IPv4 first, without
        /// duplicates. At least one is of the nodes' family.
        pub vips: Vec<Vip> = |_| Ok(vec![]);
        /// The first of them in the order in which the user wrote them.
        pub first_vip: IpAddr = |_| Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        /// The ways to find out whether a service is ready; services refer to them by their places.
        pub checks: Vec<Check> = |_| Ok(vec![]);
        /// The control-plane nodes, up to 16, without duplicates and of one family; none if the
        /// agents find each other.
        pub nodes: Vec<Node> = |_| Ok(vec![]);
        /// Hosts that get hellos though they may be no members; none with `nodes`.
        pub seeds: Vec<IpAddr> = |_| Ok(vec![]);
        /// This node, if the agents find each other.
        pub own: OwnNode = |_| Ok(OwnNode::default());
        /// How agents find each other.
        pub members: Members = |root| root.section("members")?.read();
        /// The election.
        pub vrrp: Vrrp = |root| root.section("vrrp")?.read();
        /// The sessions between nodes; `None` if only the election finds dead nodes.
        pub bfd: Option<Bfd> = |root| root.section("bfd")?.read();
        /// The probes.
        pub health: Health = |root| root.section("health")?.read();
        /// Connections of this node and its pods; `None` if they are left alone.
        pub local: Option<Local> = |root| root.section("local")?.read();
        /// The programs in the kernel.
        pub datapath: Datapath = |root| root.section("datapath")?.read();
        /// The HTTP server for metrics, probes and the status page. `None`: there is none.
        pub http: Option<Listen> = |_| Ok(None);
    }
}

keys! {
    /// The keys of `[members]` about the node itself.
    pub(super) struct Own {
        /// The name of this node in the status of all nodes, in metrics and logs.
        ///
        /// If another member has the same name, the others call this one by its address.
        pub(super) name: Option<Placed<String>> {
            kind: text("1 to 63 letters, digits, `-`, `_`, `.`", node_name).placed(),
            unset: "the host's name",
            reload: Live,
            open_example: "\"cp1\"",
        }

        /// This node's address of the other family.
        ///
        /// It is only needed for `[local]`, to redirect connections to VIPs of that family.
        pub(super) other_address: Option<Placed<IpAddr>> {
            kind: text("unicast, of the other family", host).placed(),
            unset: "none",
            reload: Live,
            open_example: "\"fd00::11\"",
        }

        /// This node's share of new connections, relative to the others'.
        ///
        /// Raise it for a larger machine. The others keep the weight that a member came with: run
        /// `vip leave`, and start the agent again with the new one.
        pub(super) weight: Option<Placed<u16>> {
            kind: number(1..=u16::MAX).placed(),
            unset: "1",
            reload: Restart,
            open_example: "2",
        }
    }
}

keys! {
    /// How agents find each other.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Members {
        /// The name that a newcomer's API server must have in its certificate, in the place of the
        /// VIP: that of a DNS `controlPlaneEndpoint`, say.
        ///
        /// Without a key, that certificate proves that a host may become a member. With a key, and
        /// with `insecure = true`, nobody is asked for one.
        pub api_name: Option<String> {
            kind: text("DNS name", dns_name),
            unset: "the VIP",
            reload: Live,
            open_example: "\"api.example.com\"",
        }

        /// Time after which a member that is gone is forgotten.
        ///
        /// Until then it keeps its place: one of the 16 there are, and its rows in the rank table. If
        /// it comes back with the same address, no connection moves. `vip forget NODE` forgets it at
        /// once.
        pub forget_after: Duration {
            kind: duration(ms(60_000)..=ms(2_592_000_000)),
            default: "24h",
            reload: Live,
            open_example: "\"1h\"",
        }

        /// The UDP port of hellos, by which agents find each other: the same on all nodes, which do
        /// not hear each other otherwise.
        pub port: u16 {
            kind: number(1..=u16::MAX).also("none of the agent's BFD (3784, 63784)", hello_port),
            default: "9643",
            reload: Restart,
            open_example: "9644",
        }
    }
}

keys! {
    /// The election by VRRP (RFC 9568).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Vrrp {
        /// VRRP's virtual router.
        ///
        /// Change it if another VRRP router on the segment (keepalived, say) has the same; it must
        /// be the same on all nodes, since those with another one elect an owner of their own.
        pub router_id: Option<u8> {
            kind: number(1..=u8::MAX),
            unset: "last byte of the first VIP of the nodes' family, 1 if that is 0",
            reload: Restart,
            example: "51",
            flag: ("--vrid", "ID"),
        }

        /// Time between the owner's advertisements.
        ///
        /// Without BFD a dead owner is replaced after 3 to 4 of them. Backups wait by the owner's
        /// interval, whatever their own is. Shorter is faster, and more easily upset by a busy machine. With intervals over 1.6 s, and without BFD, an owner
        /// whose agent hangs stops answering after four seconds, long before others may take over.
        pub interval: Duration {
            kind: duration(ms(10)..=ms(40_950)).also("a multiple of 10 ms", centiseconds),
            default: "100ms",
            reload: Live,
            example: "\"1s\"",
            flag: ("--interval", "DURATION"),
        }

        /// The node with the highest priority becomes the owner if there is none.
        ///
        /// 255 does not even wait for others. Set it only in a file that is a node's own. While
        /// the node's own API server is not ready, its priority is a quarter of this.
        pub priority: Option<u8> {
            kind: number(1..=u8::MAX),
            unset: "by address, the lowest first: 250, 220, 190, 160, 130, 100, 70, 40, then 3 less for each",
            reload: Live,
            example: "200",
        }

        /// Whether a node takes the VIP from a living, healthy owner of lower priority.
        ///
        /// Without it the VIP stays where it is until its owner fails, or its owner's API server
        /// does and another's is ready.
        pub preempt: bool {
            kind: boolean(),
            default: "false",
            reload: Live,
            example: "true",
        }

        /// Time after its start before which a node does not preempt.
        pub preempt_delay: Duration {
            kind: duration(ms(0)..=ms(1_000_000)),
            default: "0s",
            reload: Live,
            example: "\"30s\"",
        }

        /// Whether advertisements go to each node by itself, or to 224.0.0.18 (ff02::12).
        ///
        /// Must be the same on all nodes, and on keepalived if that takes part: who sends to each node
        /// does not listen to the group. In either mode the agent accepts advertisements of members
        /// only.
        pub mode: VrrpMode {
            kind: word(&[
                ("unicast", VrrpMode::Unicast),
                ("multicast", VrrpMode::Multicast),
            ]),
            default: "unicast",
            reload: Restart,
            example: "\"multicast\"",
        }

        /// Whether plain VRRP is spoken and believed beside the sealed election.
        ///
        /// With a key (`key_file`) the agents' advertisements are sealed, and others count for
        /// nothing. Set it if keepalived takes part in the election. Without a key it changes nothing.
        pub interop: bool {
            kind: boolean(),
            default: "false",
            reload: Live,
            example: "false",
        }

        /// Whether to ask the segment three times, 100 ms apart, if another host has the VIP,
        /// before it is first claimed (RFC 5227).
        ///
        /// While a host answers that is no node, the VIP is not claimed. The owner goes on asking,
        /// every 3 s or so, to find a host that has the VIP and sends nothing by itself.
        pub probe_address: bool {
            kind: boolean(),
            default: "true",
            reload: Live,
            example: "false",
        }
    }
}

keys! {
    /// The sessions with the other nodes (RFC 5880).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Bfd {
        /// Time between packets in each direction.
        ///
        /// Nodes may differ: the slower one counts. A change ends no session.
        pub interval: Duration {
            kind: duration(ms(10)..=ms(10_000)),
            default: "35ms",
            reload: Live,
            example: "\"20ms\"",
        }

        /// Packets that must stay out until their sender is taken for dead.
        ///
        /// 3 at 35 ms find a dead node in 105 ms.
        pub multiplier: u8 {
            kind: number(2..=50).unit("packets"),
            default: "3",
            reload: Live,
            example: "5",
        }
    }
}

impl Switched for Bfd {
    const ENABLED: &'static str =
        "Without BFD only missing advertisements and silent probes tell that a node is dead.";
}

keys! {
    /// The keys of `[health]` that only make sense together: questions to API servers, and proofs
    /// of identity on both sides.
    pub(super) struct Probing {
        /// The question to API servers: `path`, only the TLS handshake, or only the TCP connection.
        ///
        /// The kernel takes connections for a server that hangs, so no probe by `"tcp"` finds that
        /// out. The server's own node does if the server accepts nothing, and not if it accepts and
        /// does not answer.
        pub(super) check: CheckKind {
            kind: word(&[
                ("readyz", CheckKind::Readyz),
                ("tls", CheckKind::Tls),
                ("tcp", CheckKind::Tcp),
            ]),
            default: "readyz",
            reload: Live,
            example: "\"readyz\"",
            flag: ("--check", "KIND"),
        }

        /// The path that each API server is asked for, by HTTPS.
        ///
        /// Ready means an answer of 200. Only with `check = "readyz"`.
        pub(super) path: Option<Placed<String>> {
            kind: text("begins with `/`", probe_path).placed(),
            unset: "`\"/readyz\"`",
            reload: Live,
            example: "\"/livez\"",
        }

        /// The port that the API servers are asked on.
        pub(super) port: Option<u16> {
            kind: tcp_port(),
            unset: "`target_port`",
            reload: Live,
            example: "6444",
        }

        /// The CA that signed the API servers' certificates.
        ///
        /// Not together with `insecure = true`.
        pub(super) ca: Option<Placed<PathBuf>> {
            kind: file("absolute path of a PEM file").placed(),
            unset: "where kubeadm, k0s, k3s and RKE2 keep it",
            reload: Live,
            example: "\"/etc/ssl/cluster-ca.pem\"",
            flag: ("--ca", "FILE"),
        }

        /// File with a bearer token for `path`, and nothing else.
        ///
        /// Not together with `insecure = true` or a client certificate.
        pub(super) token_file: Option<Placed<PathBuf>> {
            kind: file("absolute path").placed(),
            unset: "none",
            reload: Live,
            flag: ("--token-file", "FILE"),
        }

        /// Client certificate for `path`, with the certificates between it and its CA.
        ///
        /// Needs `client_key`; not together with `insecure = true`.
        pub(super) client_certificate: Option<Placed<PathBuf>> {
            kind: file("absolute path of a PEM file").placed(),
            unset: "none",
            reload: Live,
            example: "\"/etc/vip/health.crt\"",
            flag: ("--client-certificate", "FILE"),
        }

        /// The key of `client_certificate`.
        pub(super) client_key: Option<Placed<PathBuf>> {
            kind: file("absolute path of a PEM file").placed(),
            unset: "none",
            reload: Live,
            example: "\"/etc/vip/health.key\"",
            flag: ("--client-key", "FILE"),
        }

        /// Whether to trust any server that answers the probes.
        ///
        /// For tests: an impostor can then look ready.
        pub(super) insecure: Placed<bool> {
            kind: boolean().placed(),
            default: "false",
            reload: Live,
            example: "false",
            flag: ("--insecure", ""),
        }
    }
}

keys! {
    /// The probes of the API servers.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Health {
        /// Time between two probes of one server, each by a new connection.
        ///
        /// With `check = "readyz"` a node also asks its own API server every 200 ms, by a connection
        /// that is open.
        pub interval: Duration {
            kind: duration(ms(50)..=ms(60_000)),
            default: "500ms",
            reload: Live,
            example: "\"250ms\"",
        }

        /// Longest wait for a connection, and for an answer.
        ///
        /// An answer is waited for less long from a server that is quick: for 8 times the median of
        /// its last 16 answers, at least 200 ms. After each answer that stays out, the wait
        /// doubles. Raise `timeout` if slow servers are taken for dead.
        pub timeout: Duration {
            kind: duration(ms(10)..=ms(60_000)),
            default: "1s",
            reload: Live,
            example: "\"2s\"",
        }

        /// Good probes in a row until a server that was not ready is.
        pub rise: u32 {
            kind: number(1..=100).unit("probes"),
            default: "2",
            reload: Live,
            example: "3",
        }

        /// Bad probes in a row until a server is not ready; silent ones until its node is taken for
        /// dead.
        ///
        /// A refused connection needs no second one.
        pub fall: u32 {
            kind: number(1..=100).unit("probes"),
            default: "2",
            reload: Live,
            example: "4",
        }

        /// Whether a node resets the connections to its own server, at the VIPs and at its own
        /// addresses, once that has hung for 1 s.
        ///
        /// Clients then go to other nodes. The server gets no new connections until it accepts those
        /// that wait. Without this key, clients wait for the server or for their own time-outs. Needs a
        /// kernel with CONFIG_INET_DIAG_DESTROY; `vip check` tells.
        pub reset_on_hang: bool {
            kind: boolean(),
            default: "false",
            reload: Live,
            example: "true",
        }
    }
    made {
        /// How the servers prove their identity.
        pub tls: Trust = |_| Ok(Trust::WellKnownCa);
        /// How the agent proves its identity to API servers that want to know it.
        pub credentials: Option<Credentials> = |_| Ok(None);
    }
}

keys! {
    /// Connections that this node and its pods make to a VIP.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Local {
        /// The control group whose processes' connections are redirected, with all groups below it.
        pub cgroup: Option<PathBuf> {
            kind: text("absolute path", absolute),
            unset: "the root of the mounted cgroup2",
            reload: Restart,
            example: "\"/sys/fs/cgroup/unified\"",
        }
    }
}

impl Switched for Local {
    const ENABLED: &'static str = "Whether connections are redirected.";
}

keys! {
    /// The programs and maps in the kernel.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Datapath {
        /// How the program on the way in is attached.
        ///
        /// As XDP in the driver; as XDP in the stack, which works everywhere and costs more; or as
        /// a tcx program (clsact filter before Linux 6.6) in the stack. `auto` tries them in this
        /// order. It takes `tc` at once where another program has the XDP hook, and leaves that
        /// program alone. Programs in the stack are put before all others of their hook.
        pub mode: XdpMode {
            kind: word(&[
                ("auto", XdpMode::Auto),
                ("native", XdpMode::Native),
                ("generic", XdpMode::Generic),
                ("tc", XdpMode::Tc),
            ]),
            default: "auto",
            reload: Restart,
            example: "\"native\"",
        }

        /// Time from the last sign of a node until its clients are told that it is gone.
        ///
        /// A node that loses its network for less than that keeps its connections: segments for it
        /// are dropped, and sent again. After it, other nodes reset them, so that clients connect
        /// anew. With fast timers (3 times 10 ms), 500 ms are enough. No node is gone before BFD
        /// has missed it, however short this is.
        pub reset_after: Duration {
            kind: duration(ms(100)..=ms(600_000)),
            default: "2s",
            reload: Live,
            example: "\"500ms\"",
        }

        /// Key of the flow hash and the rank table.
        ///
        /// It must be the same on all nodes. The default is no secret. A key of your own
        /// (`openssl rand -hex 16`) hides from clients to which server a new connection goes; a
        /// client that sees its server can still try ports until it has the one that it wants.
        pub hash_key: Option<[u64; 2]> {
            kind: text("32 hexadecimal digits", hash_key),
            unset: "made from the VIP",
            reload: Restart,
            example: "\"000102030405060708090a0b0c0d0e0f\"",
        }

        /// Where the BPF file system is mounted, or is to be.
        pub bpffs: PathBuf {
            kind: text("absolute path", absolute),
            default: BPFFS,
            reload: Restart,
            example: "\"/run/bpf\"",
        }
    }
}

keys! {
    /// The HTTP server.
    pub(super) struct Http {
        /// Whether the agent listens for HTTP at all.
        pub(super) enabled: bool {
            kind: boolean(),
            default: "true",
            reload: Live,
            example: "true",
        }

        /// Where to listen for HTTP: metrics, probes, status page. `ADDRESS:PORT`, `PORT` or
        /// `node:PORT`.
        ///
        /// A port alone is one of 127.0.0.1. `node:9643` is that port of each node's own address
        /// on the VIP's segment, and of 127.0.0.1, so that one file serves on all nodes and the
        /// kubelet's probes need no address of the node; `0.0.0.0:9643` is the port of all
        /// addresses. `/` is the status page, `/metrics` is for Prometheus, `/healthz` and
        /// `/readyz` are for the kubelet. It only reads, and authenticates nobody. Listen at
        /// `node:9643` if Prometheus runs elsewhere, and restrict access by a firewall. A port in
        /// use, or an address that this node does not have, is an event and is tried again every
        /// two seconds; `vip check` names the address.
        pub(super) listen: Placed<Listen> {
            kind: text("port 1 to 65535, none that API servers or services have", listen).placed(),
            default: "127.0.0.1:9643",
            reload: Live,
            example: "\"node:9643\"",
            flag: ("--http", "[ADDRESS:]PORT"),
        }
    }
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Agents receive BFD packets at one UDP port, and send them from another one.
fn hello_port(port: u16) -> Result<u16, String> {
    let used = match port {
        PORT => "receives BFD packets at",
        AGENT_PORT => "sends BFD packets from",
        _ => return Ok(port),
    };
    Err(format!(
        "the agent {used} UDP port {port}; take another port for hellos, the same on all nodes"
    ))
}

/// RFC 9568, section 5.2.7: the wire has centiseconds.
fn centiseconds(interval: Duration) -> Result<Duration, String> {
    if interval.as_millis().is_multiple_of(10) {
        Ok(interval)
    } else {
        Err(format!(
            "`{interval:?}` is not a multiple of 10ms; round it"
        ))
    }
}
