//! The maps with their types, as `vip_common::layout` has them.

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use bytemuck::Zeroable as _;
use vip_common::layout::{
    Backend, BackendCounters, Be32, BootNanos, Config, Counter, LAYOUT_VERSION, Mac, MacFilter,
    Masks, Vip, maps as names,
};

use super::rank_map::RankMap;
use super::{DatapathError, Pins, Plan};

/// All maps that are pinned. (The programs' log ring is not: it dies with its agent.)
pub(super) const NAMES: [&str; 8] = [
    names::CONFIG,
    names::VIPS,
    names::FENCES,
    names::BACKENDS,
    names::MASKS,
    names::RANKS,
    names::COUNTERS,
    names::BACKEND_COUNTERS,
];

/// A value of a map. (aya's `Pod` and the types of `vip_common` are both foreign here.)
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Value<T>(T);

// SAFETY: `repr(transparent)` over a type that bytemuck knows to be plain old data, which is
// what aya asks for: any bytes are a value, and no padding.
unsafe impl<T: bytemuck::Pod> aya::Pod for Value<T> {}

/// An array with its name, for errors.
struct Table<T: bytemuck::Pod> {
    name: &'static str,
    array: Array<MapData, Value<T>>,
}

impl<T: bytemuck::Pod> Table<T> {
    fn new(name: &'static str, map: Map) -> Result<Self, DatapathError> {
        let array = Array::try_from(map).map_err(|source| DatapathError::Map { name, source })?;
        Ok(Self { name, array })
    }

    fn get(&self, index: u32) -> Result<T, DatapathError> {
        self.array
            .get(&index, 0)
            .map(|value| value.0)
            .map_err(self.error())
    }

    fn set(&mut self, index: u32, value: T) -> Result<(), DatapathError> {
        let error = self.error();
        self.array.set(index, Value(value), 0).map_err(error)
    }

    fn error(&self) -> impl FnOnce(MapError) -> DatapathError + use<T> {
        let name = self.name;
        move |source| DatapathError::Map { name, source }
    }
}

/// All maps but the log's.
pub(super) struct Maps {
    config: Table<Config>,
    vips: Table<Vip>,
    fences: Table<BootNanos>,
    backends: Table<Backend>,
    masks: Table<Masks>,
    pub(super) ranks: RankMap,
    counters: PerCpuArray<MapData, Value<u64>>,
    backend_counters: PerCpuArray<MapData, Value<BackendCounters>>,
}

impl Maps {
    /// Those of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Self::from(|name| ebpf.take_map(name).ok_or(DatapathError::Missing(name)))
    }

    /// Those an earlier agent left, if all are there and have the sizes they should have.
    pub(super) fn pinned(pins: &Pins) -> Option<Self> {
        Self::from(|name| {
            MapData::from_pin(pins.map(name))
                .and_then(Map::from_map_data)
                .map_err(|source| DatapathError::Map { name, source })
        })
        .ok()
    }

    fn from(
        mut map: impl FnMut(&'static str) -> Result<Map, DatapathError>,
    ) -> Result<Self, DatapathError> {
        let per_cpu = |name| move |source| DatapathError::Map { name, source };
        Ok(Self {
            config: Table::new(names::CONFIG, map(names::CONFIG)?)?,
            vips: Table::new(names::VIPS, map(names::VIPS)?)?,
            fences: Table::new(names::FENCES, map(names::FENCES)?)?,
            backends: Table::new(names::BACKENDS, map(names::BACKENDS)?)?,
            masks: Table::new(names::MASKS, map(names::MASKS)?)?,
            ranks: RankMap::new(map(names::RANKS)?)?,
            counters: PerCpuArray::try_from(map(names::COUNTERS)?)
                .map_err(per_cpu(names::COUNTERS))?,
            backend_counters: PerCpuArray::try_from(map(names::BACKEND_COUNTERS)?)
                .map_err(per_cpu(names::BACKEND_COUNTERS))?,
        })
    }

    /// Whether the maps can be taken over as they are: same layout, same nodes in the same
    /// places, same hash. Were one of these another, a packet could meet old ranks with new
    /// addresses; then new maps are filled and the programs change over to them in one step.
    pub(super) fn fits(&self, plan: &Plan) -> bool {
        let Ok(config) = self.config() else {
            return false;
        };
        config.layout_version == LAYOUT_VERSION
            && config.backend_count as usize == plan.backends.len()
            && config.bucket_mask as usize + 1 == plan.rows.len()
            && config.hash_key == plan.hash_key
            && self.ranks.rows() == 2 * plan.rows.len()
            && plan.backends.iter().zip(0..).all(|(address, index)| {
                self.backend(index)
                    .is_ok_and(|backend| backend.address == *address)
            })
            && plan.vips.iter().zip(0..).all(|(vip, index)| {
                self.vips
                    .get(index)
                    .is_ok_and(|found| found.address == vip.address)
            })
    }

    pub(super) fn config(&self) -> Result<Config, DatapathError> {
        self.config.get(0)
    }

    pub(super) fn set_config(&mut self, config: Config) -> Result<(), DatapathError> {
        self.config.set(0, config)
    }

    /// The VIPs in use.
    pub(super) fn vips(&self) -> Result<Vec<Vip>, DatapathError> {
        (0..self.config()?.vip_count)
            .map(|index| self.vips.get(index))
            .collect()
    }

    /// True if it had to be written.
    pub(super) fn ensure_vip(&mut self, index: u32, vip: &Vip) -> Result<bool, DatapathError> {
        let change = self.vips.get(index)? != *vip;
        if change {
            self.vips.set(index, *vip)?;
        }
        Ok(change)
    }

    pub(super) fn backend(&self, index: u32) -> Result<Backend, DatapathError> {
        self.backends.get(index)
    }

    /// True if it had to be written. The Ethernet address of another node is forgotten.
    pub(super) fn ensure_backend(
        &mut self,
        index: u32,
        address: Be32,
    ) -> Result<bool, DatapathError> {
        let change = self.backends.get(index)?.address != address;
        if change {
            self.backends.set(
                index,
                Backend {
                    address,
                    ..Backend::zeroed()
                },
            )?;
        }
        Ok(change)
    }

    /// The filter for the Ethernet addresses of the first `count` backends.
    pub(super) fn peers(&self, count: u32) -> Result<MacFilter, DatapathError> {
        (0..count).try_fold(MacFilter::default(), |peers, index| {
            let mac = self.backend(index)?.mac;
            Ok(if mac.is_unknown() {
                peers
            } else {
                peers.with(mac)
            })
        })
    }

    pub(super) fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), DatapathError> {
        let backend = self.backends.get(index)?;
        self.backends.set(index, Backend { mac, ..backend })
    }

    pub(super) fn masks(&self) -> Result<Masks, DatapathError> {
        self.masks.get(0)
    }

    pub(super) fn set_masks(&mut self, masks: Masks) -> Result<(), DatapathError> {
        self.masks.set(0, masks)
    }

    pub(super) fn fence(&self, vip: u32) -> Result<BootNanos, DatapathError> {
        self.fences.get(vip)
    }

    pub(super) fn set_fence(&mut self, vip: u32, until: BootNanos) -> Result<(), DatapathError> {
        self.fences.set(vip, until)
    }

    pub(super) fn counter(&self, counter: Counter) -> Result<u64, DatapathError> {
        self.counters
            .get(&counter.index(), 0)
            .map(|cpus| cpus.iter().map(|value| value.0).sum())
            .map_err(|source| DatapathError::Map {
                name: names::COUNTERS,
                source,
            })
    }

    pub(super) fn backend_counters(&self, index: u32) -> Result<BackendCounters, DatapathError> {
        let cpus = self
            .backend_counters
            .get(&index, 0)
            .map_err(|source| DatapathError::Map {
                name: names::BACKEND_COUNTERS,
                source,
            })?;
        Ok(cpus
            .iter()
            .fold(BackendCounters::default(), |sum, cpu| sum + cpu.0))
    }
}
