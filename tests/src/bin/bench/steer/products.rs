//! The product's programs, as configured for a case.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use vip_common::abi::{RankRow, Service, Vip, flag};
use vip_common::testing::{HASH_KEY, PORT, World, backend, node_address, node_mac};
use vip_common::wire::addr::{Be16, Be32, Be128};
use vip_node::allow::Prefix;
use vip_node::rank::{self, Identity};
use vip_userspace::datapath::{Datapath, DesiredState};

/// Source of the first flows, which allow lists have.
pub(super) const CLIENTS: Be32 = Be32::from_wire([10, 1, 0, 0]);

/// A node's configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Setup {
    /// Nodes of the cluster.
    pub(super) nodes: usize,
    /// VIPs of each family. Frames are for the last one.
    pub(super) vips: usize,
    /// Networks of the allow list; 0 if there is no list.
    pub(super) networks: u32,
    /// Whether this node is the first of every row. Otherwise it is the first of none.
    pub(super) first: bool,
    /// Port of the VIPs, which may be another than the node's.
    pub(super) port: u16,
}

impl Setup {
    pub(crate) const USUAL: Self = Self {
        nodes: 3,
        vips: 1,
        networks: 0,
        first: false,
        port: PORT,
    };

    /// The usual one, but this node is the first of every row.
    pub(super) const FIRST: Self = Self {
        first: true,
        ..Self::USUAL
    };

    /// The programs with their maps.
    fn load(self) -> Result<Datapath> {
        let world = self.world();
        let rows = self.rows(world.state.config.hash_key)?;
        let mut plan = DesiredState::of(&world.state, rows);
        if self.networks > 0 {
            let root = plan.allowed.add(&networks(self.networks));
            for vip in &mut plan.vips {
                vip.services[0].allowed = root;
            }
        }
        let (product, mut state) = Datapath::load(None, &plan)?;
        for node in 0..self.nodes {
            state.set_mac(backend(node), node_mac(node))?;
        }
        state.set_masks(world.state.masks)?;
        Ok(product)
    }

    fn world(self) -> World {
        let mut world = World::new(self.nodes, 0);
        if self.port != PORT {
            world = world.mapping(self.port, PORT);
        }
        if self.networks > 0 {
            world = world.refusing(flag::ALLOW_LIST);
        }
        let [vip, vip6, ..] = world.state.vips;
        let others = |first: Be128| {
            (1..self.vips).map(move |number| {
                let mut address = first.to_wire();
                address[14] = number as u8;
                let address = Be128::from_wire(address);
                let service = Service::new(HASH_KEY, address, Be16::new(PORT));
                Vip::new(address, &[service])
            })
        };
        let ipv4 = others(vip.address).chain([vip]);
        let all = ipv4.chain(others(vip6.address)).chain([vip6]);
        let all: Vec<Vip> = all.collect();
        world.state.set_vips(all);
        world
    }

    fn rows(self, hash_key: [u64; 2]) -> Result<Vec<RankRow>> {
        let identities: Vec<_> = (0..self.nodes)
            .map(|node| Identity {
                address: Ipv4Addr::from(node_address(node)).into(),
                weight: 1,
            })
            .collect();
        let mut rows = rank::table(hash_key, &identities)?;
        for row in &mut rows {
            let mut order: Vec<_> = row.order(self.nodes).collect();
            let own = order.iter().position(|node| *node == backend(0));
            match own {
                Some(0) if !self.first => order.swap(0, 1),
                Some(rank) if self.first => order.swap(0, rank),
                _ => continue,
            }
            *row = RankRow::new(order);
        }
        Ok(rows)
    }
}

/// Networks of the clients, of each family: 1,000 IPv4 clients in /24s.
const OWN: u32 = 4;

/// So many networks, a /24 and a /64 in turn. The first ones are those of the clients; between the
/// others are gaps, so that they cannot be joined to fewer.
fn networks(count: u32) -> Vec<Prefix> {
    let networks = (0..count).map(|number| {
        let place = match number / 2 {
            own @ 0..OWN => u128::from(own),
            other => 2 * u128::from(other),
        };
        if number % 2 == 0 {
            let first = u128::from_be_bytes(Be128::from(CLIENTS).to_wire());
            Prefix::new(first + (place << 8), 96 + 24)
        } else {
            Prefix::new((0xfd00 << 112) + (place << 64), 64)
        }
    });
    networks.collect()
}

/// The product, once for each configuration.
pub(crate) struct Products(Vec<(Setup, Datapath)>);

impl Products {
    pub(crate) fn load(setups: impl IntoIterator<Item = Setup>) -> Result<Self> {
        let mut products: Vec<(Setup, Datapath)> = Vec::new();
        for setup in setups {
            if !products.iter().any(|(loaded, _)| *loaded == setup) {
                products.push((setup, setup.load()?));
            }
        }
        Ok(Self(products))
    }

    pub(super) fn get(&mut self, setup: Setup) -> Result<&mut Datapath> {
        let found = self.0.iter_mut().find(|(loaded, _)| *loaded == setup);
        Ok(&mut found.context("not loaded")?.1)
    }
}
