//! Links, addresses and neighbours, by rtnetlink.

use std::fs;
use std::io;
use std::net::IpAddr;

use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    LinkAttribute, LinkEvent, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, Prop,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder};

use super::NetError;
use super::nic::{self, Link, LocalAddress, Nic, Usable};
use crate::datapath::Filter;

/// An entry of the kernel's neighbour table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Whose.
    pub address: IpAddr,
    /// Where; `None` while the kernel does not know, or no longer.
    pub mac: Option<[u8; 6]>,
}

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

/// How packets for an address leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// Index of the interface.
    pub interface: u32,
    /// The router that they go to; `None` if they go to the address itself.
    pub gateway: Option<IpAddr>,
}

/// A change of the node's network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetEvent {
    /// A neighbour on the NIC was found, moved or was lost. The kernel also drops entries that
    /// nobody used for long: that one is lost does not say that it is down.
    Neighbour(Neighbour),
    /// The NIC changed: look at it.
    Link,
    /// The NIC is gone. Another one may have its number by the time that this is read.
    LinkGone,
    /// Hosts and switches must learn anew where the NIC's addresses are: a bond sends by another
    /// port, a virtual machine has moved. The kernel tells them of the addresses on the NIC, and
    /// not of those on `lo`.
    Announce,
    /// Another interface came, changed or went.
    OtherLink,
    /// An address came or went, on any interface.
    Address {
        /// Index of the interface.
        index: u32,
        /// The address.
        address: IpAddr,
        /// Whether it is there now.
        present: bool,
    },
    /// More happened than the socket could hold, and some of it is lost: look at all again.
    Overrun,
}

/// The kernel's rtnetlink, for this network namespace.
#[derive(Clone, Debug)]
pub struct Netlink {
    pub(super) handle: Handle,
}

impl Netlink {
    /// Connects. A task that reads the socket runs until the last clone is dropped.
    ///
    /// # Errors
    /// The socket cannot be opened.
    ///
    /// # Panics
    /// If there is no tokio runtime.
    pub fn connect() -> Result<Self, NetError> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(NetError::io("open a netlink socket"))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The NIC of the VIP: it has the address of one of `nodes`, and `vip` is in its subnet.
    /// With `interface` it is that one, and the subnet may be any.
    ///
    /// # Errors
    /// [`NetError`] says which of these does not hold, and what to do.
    pub async fn find_nic(
        &self,
        vip: IpAddr,
        nodes: &[IpAddr],
        interface: Option<&str>,
    ) -> Result<Nic, NetError> {
        let links = self.links().await?;
        let addresses = self.addresses().await?;
        let mut nic = nic::choose(&links, &addresses, vip, nodes, interface)?;
        if nic.driver.is_none() {
            let driver = fs::read_link(format!("/sys/class/net/{}/device/driver", nic.name));
            nic.driver = driver
                .ok()
                .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        }
        Ok(nic)
    }

    /// Refuses VIPs and nodes' addresses that no host of the NIC's subnets can have.
    ///
    /// # Errors
    /// [`NetError::NoHost`], or the kernel's.
    pub async fn refuse_no_hosts(
        &self,
        nic: &Nic,
        vips: impl IntoIterator<Item = IpAddr>,
        nodes: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), NetError> {
        let addresses = self.addresses().await?;
        let vips = vips.into_iter().map(|vip| ("VIP", vip));
        let nodes = nodes.into_iter().map(|node| ("node", node));
        for (what, address) in vips.chain(nodes) {
            nic::refuse_no_host(nic, &addresses, what, address)?;
        }
        Ok(())
    }

    /// Puts `vip` alone on `lo`, scope host, and `lo` up. Nothing happens if all is so already.
    /// (The kernel gives addresses of IPv6 their scope itself.)
    ///
    /// # Errors
    /// The kernel refuses: no `CAP_NET_ADMIN`, say.
    pub async fn add_vip(&self, vip: IpAddr) -> Result<(), NetError> {
        let whole = if vip.is_ipv4() { 32 } else { 128 };
        let lo = self.loopback().await?;
        if !lo.enabled {
            let up = LinkUnspec::new_with_index(lo.index).up().build();
            let done = self.handle.link().set(up).execute().await;
            done.map_err(refused("set lo up"))?;
        }
        if self.is_on_lo(vip).await? {
            return Ok(());
        }
        // One of another scope or length, which others may adopt as the node's.
        self.remove_vip(vip).await?;
        let address = self.handle.address();
        let mut add = address.add(lo.index, vip, whole);
        add.message_mut().header.scope = AddressScope::Host;
        // Nobody else is asked about it: that is the owner's affair.
        add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        let done = add.execute().await;
        done.map_err(refused(format!("put {vip}/{whole} on lo")))
    }

    /// Whether `vip` is on `lo` as [`add_vip`](Self::add_vip) puts it there.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn is_on_lo(&self, vip: IpAddr) -> Result<bool, NetError> {
        let whole = if vip.is_ipv4() { 32 } else { 128 };
        let lo = self.loopback().await?.index;
        let is_it = |local: &LocalAddress| {
            let fits = (local.host_scope || vip.is_ipv6()) && local.prefix_len == whole;
            local.address == vip && local.index == lo && fits
        };
        Ok(self.addresses().await?.iter().any(is_it))
    }

    /// Takes `vip` off `lo`. Nothing happens if it is not there.
    ///
    /// # Errors
    /// The kernel refuses: no `CAP_NET_ADMIN`, say.
    pub async fn remove_vip(&self, vip: IpAddr) -> Result<(), NetError> {
        let lo = self.loopback().await?.index;
        let mut dump = self.handle.address().get().execute();
        while let Some(message) = dump.try_next().await.map_err(refused("list addresses"))? {
            if message.header.index != lo || local_address(&message) != Some(vip) {
                continue;
            }
            let done = self.handle.address().del(message).execute().await;
            done.map_err(refused(format!("take {vip} off lo")))?;
        }
        Ok(())
    }

    /// Names of the interfaces that have an address. (A VIP only `lo` should have.)
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn places_of(&self, address: IpAddr) -> Result<Vec<String>, NetError> {
        let links = self.links().await?;
        let addresses = self.addresses().await?;
        let holds = |link: &Link| {
            addresses
                .iter()
                .any(|local| local.index == link.index && local.address == address)
        };
        Ok(links
            .into_iter()
            .filter(holds)
            .map(|link| link.name)
            .collect())
    }

    /// The kernel's neighbours on an interface.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn neighbours(&self, nic_index: u32) -> Result<Vec<Neighbour>, NetError> {
        let request = self.handle.neighbours().get();
        let messages: Vec<NeighbourMessage> = request
            .execute()
            .try_collect()
            .await
            .map_err(refused("list neighbours"))?;
        let on_nic = |message: &&NeighbourMessage| message.header.ifindex == nic_index;
        Ok(messages
            .iter()
            .filter(on_nic)
            .filter_map(neighbour)
            .collect())
    }

    /// Makes the kernel find out, or confirm, where `address` is on an interface. The answer
    /// comes as a [`NetEvent::Neighbour`], unless nothing changes.
    ///
    /// # Errors
    /// The kernel refuses: no `CAP_NET_ADMIN`, or the interface is down or gone.
    pub async fn resolve(&self, nic_index: u32, address: IpAddr) -> Result<(), NetError> {
        // As if a packet for it had come by: NTF_USE.
        let request = self
            .handle
            .neighbours()
            .add(nic_index, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        let done = request.execute().await;
        done.map_err(refused(format!("resolve neighbour {address}")))
    }

    /// Changes from now on, of neighbours of the NIC, and of all links and addresses. Call it
    /// before looking at what is there, so that nothing falls in between. Ends if the socket
    /// does.
    ///
    /// # Errors
    /// The socket cannot be opened.
    ///
    /// # Panics
    /// If there is no tokio runtime.
    pub fn watch(&self, nic_index: u32) -> Result<BoxStream<'static, NetEvent>, NetError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(NetError::io("open a netlink socket for changes"))?;
        tokio::spawn(connection);
        let events = messages
            .filter_map(move |(message, _)| std::future::ready(event(nic_index, message.payload)));
        Ok(events.boxed())
    }

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

    /// How packets from one address to another one leave, where they must by the interface `by`,
    /// if one is given. `None` if they cannot.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn path(
        &self,
        from: IpAddr,
        to: IpAddr,
        by: Option<u32>,
    ) -> Result<Option<Path>, NetError> {
        let request = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to, if to.is_ipv4() { 32 } else { 128 })
            .and_then(|request| request.source_prefix(from, if from.is_ipv4() { 32 } else { 128 }));
        let mut request = request
            .map_err(|error| NetError::io("ask for a route")(io::Error::other(error)))?
            .build();
        if let Some(interface) = by {
            request.attributes.push(RouteAttribute::Oif(interface));
        }
        let mut found = self.handle.route().get(request).execute().boxed();
        match found.try_next().await.map_err(refused("ask for a route")) {
            Ok(message) => Ok(message.as_ref().and_then(path)),
            Err(NetError::Io { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether an address is on an interface.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn has_address(&self, index: u32, address: IpAddr) -> Result<bool, NetError> {
        let addresses = self.addresses().await?;
        Ok(addresses
            .iter()
            .any(|there| there.index == index && there.address == address))
    }

    /// The clsact filters of an interface, on the way in and out, in the order in which they run.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn filters(&self, index: u32) -> Result<[Vec<Filter>; 2], NetError> {
        let [ingress, egress] = self.all_filters(index).await?;
        Ok([ingress, egress].map(|all| all.iter().filter_map(filter).collect()))
    }

    async fn all_filters(&self, index: u32) -> Result<[Vec<TcMessage>; 2], NetError> {
        let get = || self.handle.traffic_filter(index.cast_signed()).get();
        let mut all = [Vec::new(), Vec::new()];
        for (found, request) in all.iter_mut().zip([get().ingress(), get().egress()]) {
            *found = request
                .execute()
                .try_collect()
                .await
                .map_err(refused("list filters"))?;
        }
        Ok(all)
    }

    /// Removes clsact's queueing discipline from an interface, unless somebody's filters hang at
    /// it. One that is not there is as good.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn remove_clsact(&self, index: u32) -> Result<(), NetError> {
        if self.all_filters(index).await? != [vec![], vec![]] {
            return Ok(());
        }
        let mut request = self.handle.qdisc().del(index.cast_signed());
        let header = &mut request.message_mut().header;
        header.parent = TcHandle::CLSACT;
        header.handle = TcHandle {
            major: 0xffff,
            minor: 0,
        };
        match request.execute().await.map_err(refused("remove clsact")) {
            // How the kernel says that it is not there (`__tc_get_qdisc`, net/sched/sch_api.c).
            Err(NetError::Io { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    async fn loopback(&self) -> Result<Link, NetError> {
        let links = self.links().await?;
        links
            .into_iter()
            .find(|link| link.loopback)
            .ok_or_else(|| NetError::io("find lo")(io::ErrorKind::NotFound.into()))
    }

    async fn links(&self) -> Result<Vec<Link>, NetError> {
        Ok(self.link_messages().await?.iter().map(link).collect())
    }

    /// All interfaces, as the kernel tells of them.
    pub(super) async fn link_messages(&self) -> Result<Vec<LinkMessage>, NetError> {
        let request = self.handle.link().get().execute();
        let all = request.try_collect().await;
        all.map_err(refused("list interfaces"))
    }

    async fn addresses(&self) -> Result<Vec<LocalAddress>, NetError> {
        let messages: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(refused("list addresses"))?;
        let entry = |message: &AddressMessage| {
            Some(LocalAddress {
                index: message.header.index,
                address: local_address(message)?,
                prefix_len: message.header.prefix_len,
                host_scope: message.header.scope == AddressScope::Host,
                usable: usable(message.header.flags),
            })
        };
        Ok(messages.iter().filter_map(entry).collect())
    }
}

pub(super) fn refused(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetError {
    let what = what.into();
    |error| {
        let source = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        };
        NetError::Io { what, source }
    }
}

fn event(nic_index: u32, payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<NetEvent> {
    let message = match payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(NetEvent::Overrun),
        _ => return None,
    };
    // A bridge tells of its ports too, in its own family.
    let is_nic = |message: &LinkMessage| {
        message.header.index == nic_index
            && message.header.interface_family == AddressFamily::Unspec
    };
    match message {
        RouteNetlinkMessage::NewNeighbour(message) if message.header.ifindex == nic_index => {
            neighbour(&message).map(NetEvent::Neighbour)
        }
        RouteNetlinkMessage::DelNeighbour(message) if message.header.ifindex == nic_index => {
            let lost = Neighbour {
                mac: None,
                ..neighbour(&message)?
            };
            Some(NetEvent::Neighbour(lost))
        }
        RouteNetlinkMessage::NewLink(message) if is_nic(&message) => {
            let announce = message.attributes.iter().any(must_be_announced);
            Some(if announce {
                NetEvent::Announce
            } else {
                NetEvent::Link
            })
        }
        RouteNetlinkMessage::DelLink(message) if is_nic(&message) => Some(NetEvent::LinkGone),
        RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)
            if message.header.interface_family == AddressFamily::Unspec
                && message.header.index != nic_index =>
        {
            Some(NetEvent::OtherLink)
        }
        RouteNetlinkMessage::NewAddress(message) => address_event(&message, true),
        RouteNetlinkMessage::DelAddress(message) => address_event(&message, false),
        _ => None,
    }
}

/// The kernel's own reason to announce what is on the NIC (`IFLA_EVENT`).
fn must_be_announced(attribute: &LinkAttribute) -> bool {
    matches!(
        attribute,
        LinkAttribute::Event(LinkEvent::NotifyPeers | LinkEvent::BondingFailover)
    )
}

/// Where a route goes.
fn path(message: &RouteMessage) -> Option<Path> {
    let mut gateway = None;
    let mut interface = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                gateway = Some(IpAddr::from(*address));
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                gateway = Some(IpAddr::from(*address));
            }
            RouteAttribute::Oif(index) => interface = Some(*index),
            _ => {}
        }
    }
    Some(Path {
        interface: interface?,
        gateway,
    })
}

fn address_event(message: &AddressMessage, present: bool) -> Option<NetEvent> {
    Some(NetEvent::Address {
        index: message.header.index,
        address: local_address(message)?,
        present,
    })
}

/// The address itself: of IPv4, and of IPv6 where it has a peer, "local" says so.
fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let attributes = || message.attributes.iter();
    let local = attributes().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let own = || {
        attributes().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    local.or_else(own)
}

/// What the flags of an address say. One that is optimistic (RFC 4429) may be used at once.
fn usable(flags: AddressHeaderFlags) -> Usable {
    if flags.contains(AddressHeaderFlags::Dadfailed) {
        Usable::Duplicate
    } else if flags.contains(AddressHeaderFlags::Tentative)
        && !flags.contains(AddressHeaderFlags::Optimistic)
    {
        Usable::NotYet
    } else {
        Usable::Yes
    }
}

/// A filter that frames come to by themselves. (Each priority has an entry of its own before its
/// filters, with no handle; other chains are for those that jump there.)
fn filter(message: &TcMessage) -> Option<Filter> {
    let mut found = Filter {
        kind: String::new(),
        program: None,
    };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => found.kind.clone_from(kind),
            TcAttribute::Chain(chain) if *chain != 0 => return None,
            TcAttribute::Options(options) => {
                found.program = options.iter().find_map(|option| match option {
                    TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (message.header.handle != TcHandle::UNSPEC).then_some(found)
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    // The kernel keeps the old address of an entry whose confirmation failed.
    let known = !matches!(
        message.header.state,
        NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
    );
    Some(Neighbour {
        address: address?,
        mac: mac.filter(|_| known),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{self, Side, VIP6, within_reach};

    const A: IpAddr = IpAddr::V4(testing::A);
    const B: IpAddr = IpAddr::V4(testing::B);
    const VIP: IpAddr = IpAddr::V4(testing::VIP);

    async fn nic(netlink: &Netlink) -> Nic {
        netlink.find_nic(VIP, &[B, A], None).await.unwrap()
    }

    async fn until(
        events: &mut BoxStream<'static, NetEvent>,
        mut wanted: impl FnMut(&NetEvent) -> bool,
    ) -> NetEvent {
        within_reach(async {
            loop {
                let event = events.next().await.expect("the socket stays open");
                if wanted(&event) {
                    return event;
                }
            }
        })
        .await
    }

    #[test]
    fn the_node_finds_itself_and_its_nic() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let netlink = Netlink::connect().unwrap();
            let nic = nic(&netlink).await;
            assert_eq!(
                (nic.name.as_str(), nic.address, nic.node_index),
                ("a0", A, 1)
            );
            assert_eq!(
                (nic.mac, nic.mtu, nic.prefix_len),
                (Side::A.mac(), 1500, 24)
            );
            assert_eq!((nic.driver.as_deref(), nic.up), (Some("veth"), true));
            let error = netlink.find_nic(VIP, &[B], None).await.unwrap_err();
            assert!(error.to_string().contains(&A.to_string()), "{error}");
        });
    }

    #[test]
    fn the_nic_is_found_by_an_alternative_name() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let name = "enp0s31f6-by-a-name-of-more-than-fifteen-characters";
            testing::ip(&format!("link property add dev a0 altname {name}"));
            let netlink = Netlink::connect().unwrap();
            let nic = netlink.find_nic(VIP, &[B, A], Some(name)).await.unwrap();
            assert_eq!(nic.name, "a0");
            let error = netlink.find_nic(VIP, &[B, A], Some("enp9")).await;
            assert!(error.unwrap_err().to_string().contains("no interface enp9"));
        });
    }

    #[test]
    fn an_address_that_is_tentative_is_waited_for() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let netlink = Netlink::connect().unwrap();
            let own = "fd77::11".parse().unwrap();
            let vip = "fd77::10".parse().unwrap();
            let find = async || netlink.find_nic(vip, &[own], None).await;
            let mut events = netlink.watch(1).unwrap();
            // Two questions, a second apart.
            let questions = "/proc/sys/net/ipv6/conf/a0/dad_transmits";
            fs::write(questions, "2").unwrap();
            testing::ip("address add fd77::11/64 dev a0");
            let error = find().await.unwrap_err();
            assert!(
                matches!(error, NetError::Tentative { address, .. } if address == own),
                "{error}"
            );
            // The kernel tells of it when it may be used.
            within_reach(async {
                while find().await.is_err() {
                    until(&mut events, |event| {
                        matches!(event, NetEvent::Address { address, .. } if *address == own)
                    })
                    .await;
                }
            })
            .await;
        });
    }

    #[test]
    fn the_vip_is_put_on_lo_once_and_taken_off() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            testing::ip("link set lo down");
            let netlink = Netlink::connect().unwrap();
            for (vip, whole) in [(VIP, 32), (IpAddr::from(VIP6), 128)] {
                assert!(netlink.places_of(vip).await.unwrap().is_empty());
                for _ in 0..2 {
                    netlink.add_vip(vip).await.unwrap();
                    assert_eq!(netlink.places_of(vip).await.unwrap(), ["lo"]);
                }
                let addresses = netlink.addresses().await.unwrap();
                let ours = addresses.iter().find(|local| local.address == vip).unwrap();
                assert_eq!(ours.prefix_len, whole);
                assert_eq!(ours.host_scope, vip.is_ipv4());
                assert!(netlink.loopback().await.unwrap().enabled);
                for _ in 0..2 {
                    netlink.remove_vip(vip).await.unwrap();
                    assert!(netlink.places_of(vip).await.unwrap().is_empty());
                }
            }
        });
    }

    #[test]
    fn a_vip_of_global_scope_on_lo_is_replaced() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            testing::ip(&format!("address add {VIP}/32 dev lo scope global"));
            let netlink = Netlink::connect().unwrap();
            netlink.add_vip(VIP).await.unwrap();
            let addresses = netlink.addresses().await.unwrap();
            let ours = addresses.iter().filter(|local| local.address == VIP);
            assert_eq!(
                ours.map(|local| local.host_scope).collect::<Vec<_>>(),
                [true]
            );
        });
    }

    #[test]
    fn a_vip_on_the_nic_is_seen_there() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            testing::ip(&format!("address add {VIP}/24 dev a0"));
            let netlink = Netlink::connect().unwrap();
            netlink.add_vip(VIP).await.unwrap();
            assert_eq!(netlink.places_of(VIP).await.unwrap(), ["lo", "a0"]);
        });
    }

    #[test]
    fn what_the_kernel_announces_on_the_nic_is_told_of() {
        let told = |event, index| {
            let mut message = LinkMessage::default();
            message.header.index = index;
            message.attributes.push(LinkAttribute::Event(event));
            let message = RouteNetlinkMessage::NewLink(message);
            super::event(7, NetlinkPayload::InnerMessage(message))
        };
        for reason in [LinkEvent::NotifyPeers, LinkEvent::BondingFailover] {
            assert_eq!(told(reason, 7), Some(NetEvent::Announce));
            assert_eq!(told(reason, 8), Some(NetEvent::OtherLink));
        }
        assert_eq!(told(LinkEvent::Features, 7), Some(NetEvent::Link));
    }

    #[test]
    fn a_route_by_a_router_is_told_from_a_direct_one() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let netlink = Netlink::connect().unwrap();
            let nic = nic(&netlink).await;
            let path = async |to| netlink.path(A, to, Some(nic.index)).await.unwrap();
            let direct = Path {
                interface: nic.index,
                gateway: None,
            };
            assert_eq!(path(B).await, Some(direct));
            testing::ip(&format!("route add 10.9.0.77/32 via {B}"));
            let routed = Path {
                gateway: Some(B),
                ..direct
            };
            assert_eq!(path([10, 9, 0, 77].into()).await, Some(routed));
        });
    }

    #[test]
    fn a_neighbour_that_is_asked_for_is_told_of() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let netlink = Netlink::connect().unwrap();
            let nic = nic(&netlink).await;
            let mut events = netlink.watch(nic.index).unwrap();
            netlink.resolve(nic.index, B).await.unwrap();
            let found = Neighbour {
                address: B,
                mac: Some(Side::B.mac()),
            };
            until(&mut events, |event| *event == NetEvent::Neighbour(found)).await;
            assert!(
                netlink
                    .neighbours(nic.index)
                    .await
                    .unwrap()
                    .contains(&found)
            );
            // One that is known may be asked for too.
            netlink.resolve(nic.index, B).await.unwrap();

            testing::ip("neighbour flush dev a0");
            let lost = Neighbour { mac: None, ..found };
            until(&mut events, |event| *event == NetEvent::Neighbour(lost)).await;
        });
    }

    #[test]
    fn a_neighbour_that_does_not_answer_has_no_mac() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let netlink = Netlink::connect().unwrap();
            let nic = nic(&netlink).await;
            let mut events = netlink.watch(nic.index).unwrap();
            let nobody = IpAddr::from([10, 9, 0, 77]);
            netlink.resolve(nic.index, nobody).await.unwrap();
            let unknown = Neighbour {
                address: nobody,
                mac: None,
            };
            until(&mut events, |event| *event == NetEvent::Neighbour(unknown)).await;
            assert!(
                netlink
                    .neighbours(nic.index)
                    .await
                    .unwrap()
                    .contains(&unknown)
            );
        });
    }

    #[test]
    fn carrier_link_and_address_changes_are_told_of() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            let netlink = Netlink::connect().unwrap();
            let nic = nic(&netlink).await;
            let mut events = netlink.watch(nic.index).unwrap();

            testing::ip(&format!("address add {VIP}/24 dev a0"));
            let added = NetEvent::Address {
                index: nic.index,
                address: VIP,
                present: true,
            };
            until(&mut events, |event| *event == added).await;

            // Names and programs change with the link, so one event says to look at all of it.
            for (change, name, up) in [
                ("link set b0 down", "a0", false),
                ("link set b0 up", "a0", true),
            ] {
                pair.enter(Side::B);
                testing::ip(change);
                within_reach(async {
                    loop {
                        until(&mut events, |event| *event == NetEvent::Link).await;
                        let link = netlink.link(nic.index).await.unwrap().expect("is there");
                        if (link.name.as_str(), link.up) == (name, up) {
                            break;
                        }
                    }
                })
                .await;
            }
            assert!(netlink.has_address(nic.index, A).await.unwrap());
            assert!(!netlink.has_address(nic.index, B).await.unwrap());
            testing::ip("link delete b0");
            within_reach(async {
                while netlink.link(nic.index).await.unwrap().is_some() {
                    until(&mut events, |event| *event == NetEvent::LinkGone).await;
                }
            })
            .await;
        });
    }
}
