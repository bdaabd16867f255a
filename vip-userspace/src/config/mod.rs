//! The configuration: a TOML file, flags, or both, made into one checked [`Config`].
//!
//! The same file serves on all nodes of a cluster. Every key is declared once, in `keys.rs` and
//! `entries.rs`. From that come the parser, the types, the flags with their help, and the tables
//! and the example of `docs/configuration.md` ([`mod@reference`]).

mod addresses;
mod admission;
mod agreement;
mod draft;
mod entries;
mod fault;
mod flags;
mod given;
mod key;
mod keys;
mod kind;
mod names;
pub mod reference;
mod reload;
mod types;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use vip_node::rank;

use self::draft::Draft;
use self::fault::Source as Text;
use self::key::FlagTexts;

pub use self::admission::Admission;
pub use self::agreement::{AGREED, Agreed, digests};
pub use self::fault::{ConfigError, Located};
pub use self::flags::{Flags, KeyLine, Overrides};
pub use self::keys::{
    BPFFS, Bfd, Config, Datapath, Health, Local, Members, RUN_DIR, STATE_DIR, Vrrp,
};
pub(crate) use self::kind::milliseconds as duration;
pub(crate) use self::names::node_name;
pub use self::reload::{Change, Changes, Reread, Source};
pub use self::types::{Check, Listen, Network, Node, OwnNode, Service, Vip, VrrpMode, XdpMode};

impl Config {
    /// Reads the text of a file; its name is for error messages.
    ///
    /// # Errors
    /// All that is wrong in it.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, ConfigError> {
        let source = Text {
            name: file_name,
            text,
        };
        Draft::read(&source, &FlagTexts::new(), false)
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

    /// The addresses of all VIPs, the one that names the cluster first.
    #[must_use]
    pub fn vips_by_rank(&self) -> Vec<IpAddr> {
        let first = self.vip().address;
        let others = self.vips.iter().map(|vip| vip.address);
        let others = others.filter(|vip| *vip != first);
        [first].into_iter().chain(others).collect()
    }

    /// What a newcomer's certificate must name beside its own address, for people: `api_name`, or the
    /// VIP.
    #[must_use]
    pub fn api_name(&self) -> String {
        let name = self.members.api_name.clone();
        name.unwrap_or_else(|| self.vip().address.to_string())
    }

    /// Whether the agents find each other.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where the servers of some services get the clients' connections: at VIPs, and ports of this node.
    #[must_use]
    pub fn ends(&self, wanted: impl Fn(&Service) -> bool) -> BTreeSet<SocketAddr> {
        let services = self
            .vips
            .iter()
            .flat_map(|vip| vip.services.iter().map(|service| (vip.address, service)));
        services
            .filter(|(_, service)| wanted(service))
            .map(|(vip, service)| SocketAddr::new(vip, service.target))
            .collect()
    }

    /// Whether an address is of the family that the nodes are known by: where agents find each
    /// other, that of the first VIP in the order in which the user wrote them.
    #[must_use]
    pub fn is_of_nodes_family(&self, address: IpAddr) -> bool {
        let node = self.nodes.first().map(|node| node.address);
        let first = node.unwrap_or(self.first_vip);
        first.is_ipv4() == address.is_ipv4()
    }

    /// The nodes' addresses, in their order.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// The addresses of the nodes but this one, in their order.
    #[must_use]
    pub fn peers(&self, own: IpAddr) -> Vec<IpAddr> {
        let mut addresses = self.addresses();
        addresses.retain(|address| *address != own);
        addresses
    }

    /// The node of the list with this address; `None` if it has none.
    #[must_use]
    pub fn listed(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.iter().find(|node| node.address == address)
    }

    /// The name of the node with this address; the address if it is none.
    #[must_use]
    pub fn name(&self, address: IpAddr) -> String {
        let node = self.listed(address);
        node.map_or_else(|| address.to_string(), |node| node.name.clone())
    }

    /// The configured key, or the one that belongs to the VIP.
    #[must_use]
    pub fn hash_key(&self) -> [u64; 2] {
        let default = || rank::default_key(self.vip().address);
        self.datapath.hash_key.unwrap_or_else(default)
    }

    /// The configured virtual router, or the one that belongs to the VIP.
    #[must_use]
    pub fn router_id(&self) -> u8 {
        let last_byte = match self.vip().address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        self.vrrp.router_id.unwrap_or(last_byte.max(1))
    }
}

#[cfg(test)]
mod tests;
