//! Links, addresses and neighbours, by rtnetlink.

use std::fs;
use std::io;
use std::net::IpAddr;

use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{Handle, LinkUnspec, MulticastGroup};

use super::NetError;
use super::nic::{self, Link, LocalAddress, Nic};

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
}

/// A change of the node's network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetEvent {
    /// A neighbour on the NIC was found, moved or was lost. The kernel also drops entries that
    /// nobody used for long: that one is lost does not say that it is down.
    Neighbour(Neighbour),
    /// The NIC changed, or is gone: look at it.
    Link,
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

    /// Names of the interfaces that have `vip`: only `lo` should.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn has_vip(&self, vip: IpAddr) -> Result<Vec<String>, NetError> {
        let links = self.links().await?;
        let addresses = self.addresses().await?;
        let holds = |link: &Link| {
            addresses
                .iter()
                .any(|local| local.index == link.index && local.address == vip)
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
            }))
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

    /// The kernel's numbers of the BPF programs that are clsact filters of an interface, on the
    /// way in and out.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn filters(&self, index: u32) -> Result<Vec<u32>, NetError> {
        let all = self.all_filters(index).await?;
        Ok(all.iter().filter_map(filter_program).collect())
    }

    async fn all_filters(&self, index: u32) -> Result<Vec<TcMessage>, NetError> {
        let get = || self.handle.traffic_filter(index.cast_signed()).get();
        let mut all = Vec::new();
        for request in [get().ingress(), get().egress()] {
            let found: Vec<TcMessage> = request
                .execute()
                .try_collect()
                .await
                .map_err(refused("list filters"))?;
            all.extend(found);
        }
        Ok(all)
    }

    /// Removes clsact's queueing discipline from an interface, unless somebody's filters hang at
    /// it. One that is not there is as good.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn remove_clsact(&self, index: u32) -> Result<(), NetError> {
        if !self.all_filters(index).await?.is_empty() {
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
        // A bridge tells of its ports too, in its own family.
        RouteNetlinkMessage::NewLink(message) | RouteNetlinkMessage::DelLink(message)
            if message.header.interface_family == AddressFamily::Unspec =>
        {
            Some(if message.header.index == nic_index {
                NetEvent::Link
            } else {
                NetEvent::OtherLink
            })
        }
        RouteNetlinkMessage::NewAddress(message) => address_event(&message, true),
        RouteNetlinkMessage::DelAddress(message) => address_event(&message, false),
        _ => None,
    }
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

/// The program of a filter, if it is one of BPF (`TCA_BPF_ID`).
fn filter_program(message: &TcMessage) -> Option<u32> {
    let options = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        });
    options?.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    })
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
        mac: None,
        mtu: 0,
        loopback: flags.contains(LinkFlags::Loopback),
        enabled: flags.contains(LinkFlags::Up),
        // Running follows the carrier, once frames can really leave: what is sent between the
        // two is lost without an error.
        up: flags.contains(LinkFlags::Up | LinkFlags::Running),
        kind: None,
        xdp: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) if ethernet => {
                link.mac = bytes.as_slice().try_into().ok();
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
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
    fn the_vip_is_put_on_lo_once_and_taken_off() {
        testing::in_two_namespaces(async |pair| {
            pair.enter(Side::A);
            testing::ip("link set lo down");
            let netlink = Netlink::connect().unwrap();
            for (vip, whole) in [(VIP, 32), (IpAddr::from(VIP6), 128)] {
                assert!(netlink.has_vip(vip).await.unwrap().is_empty());
                for _ in 0..2 {
                    netlink.add_vip(vip).await.unwrap();
                    assert_eq!(netlink.has_vip(vip).await.unwrap(), ["lo"]);
                }
                let addresses = netlink.addresses().await.unwrap();
                let ours = addresses.iter().find(|local| local.address == vip).unwrap();
                assert_eq!(ours.prefix_len, whole);
                assert_eq!(ours.host_scope, vip.is_ipv4());
                assert!(netlink.loopback().await.unwrap().enabled);
                for _ in 0..2 {
                    netlink.remove_vip(vip).await.unwrap();
                    assert!(netlink.has_vip(vip).await.unwrap().is_empty());
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
            assert_eq!(netlink.has_vip(VIP).await.unwrap(), ["lo", "a0"]);
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
                    until(&mut events, |event| *event == NetEvent::Link).await;
                }
            })
            .await;
        });
    }
}
