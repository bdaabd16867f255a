//! Interfaces.

use std::io;

use futures_util::stream::TryStreamExt as _;
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, Prop,
};

use super::{Netlink, refused};
use crate::net::NetError;
use crate::net::nic::Link;

/// An interface, as far as it can change under us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkState {
    /// Its name.
    pub name: String,
    /// Up, with a carrier.
    pub up: bool,
    /// Its Ethernet address, if it is Ethernet.
    pub mac: Option<[u8; 6]>,
    /// The kernel's number of the XDP program on it, in whichever mode.
    pub xdp: Option<u32>,
    /// Index of the bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// How often its carrier came or went.
    pub carrier_changes: u32,
}

impl Netlink {
    /// An interface as it is now; `None` if it is gone.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn link(&self, index: u32) -> Result<Option<LinkState>, NetError> {
        let links = self.links().await?;
        Ok(links
            .into_iter()
            .find(|link| link.index == index)
            .map(|link| LinkState {
                name: link.name,
                up: link.up,
                mac: link.mac,
                xdp: link.xdp,
                master: link.master,
                carrier_changes: link.carrier_changes,
            }))
    }

    pub(super) async fn loopback(&self) -> Result<Link, NetError> {
        let links = self.links().await?;
        links
            .into_iter()
            .find(|link| link.loopback)
            .ok_or_else(|| NetError::io("find lo")(io::ErrorKind::NotFound.into()))
    }

    pub(in crate::net) async fn links(&self) -> Result<Vec<Link>, NetError> {
        Ok(self.link_messages().await?.iter().map(link).collect())
    }

    /// All interfaces, as the kernel tells of them.
    pub(in crate::net) async fn link_messages(&self) -> Result<Vec<LinkMessage>, NetError> {
        let request = self.handle.link().get().execute();
        let all = request.try_collect().await;
        all.map_err(refused("list interfaces"))
    }
}

fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alternative_names: Vec::new(),
        mac: None,
        mtu: 0,
        loopback: flags.contains(LinkFlags::Loopback),
        enabled: flags.contains(LinkFlags::Up),
        // Running follows the carrier, once frames can really leave: what is sent between the
        // two is lost without an error.
        up: flags.contains(LinkFlags::Up | LinkFlags::Running),
        kind: None,
        xdp: None,
        master: None,
        carrier_changes: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::PropList(properties) => {
                let names = properties.iter().filter_map(|property| match property {
                    Prop::AltIfName(name) => Some(name.clone()),
                    _ => None,
                });
                link.alternative_names.extend(names);
            }
            LinkAttribute::Controller(index) => {
                link.master = Some(*index).filter(|index| *index > 0);
            }
            LinkAttribute::Address(bytes) if ethernet => {
                link.mac = bytes.as_slice().try_into().ok();
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::CarrierChanges(count) => link.carrier_changes = *count,
            LinkAttribute::Xdp(programs) => {
                link.xdp = programs.iter().find_map(|program| match program {
                    LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => {
                        Some(*id)
                    }
                    _ => None,
                });
            }
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}
