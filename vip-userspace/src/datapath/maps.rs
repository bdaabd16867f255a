//! The maps with their types, as `vip_common::abi` has them.

use std::io;
use std::iter::zip;
use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use vip_common::abi::{
    BackendCounters, BackendIndex, CheckIndex, Counter, LAYOUT_VERSION, Masks, State, Vip,
    listener, maps as names,
};
use vip_common::wire::addr::{Be128, Mac};
use vip_common::wire::time::BootNanos;

use super::allow_map::AllowMap;
use super::desired::DesiredState;
use super::error::{DatapathError, map_error};
use super::pins::Pins;
use super::rank_map::RankMap;
use super::value::Value;

/// The same map by another descriptor.
fn again(map: &Map) -> Result<Map, MapError> {
    let (Map::Array(data) | Map::PerCpuArray(data) | Map::LruHashMap(data)) = map else {
        return Err(io::Error::from(io::ErrorKind::Unsupported).into());
    };
    let descriptor = data.fd().as_fd().try_clone_to_owned()?;
    MapData::from_fd(descriptor).and_then(Map::from_map_data)
}

/// The map of the [`State`], and what lies in it. Agents are its only writers, and only one at a
/// time: they hold a lock.
pub struct StateMap {
    map: Array<MapData, Value<State>>,
    state: State,
}

impl StateMap {
    fn new(map: Map) -> Result<Self, DatapathError> {
        let map: Array<_, Value<State>> = Array::try_from(map).map_err(map_error(names::STATE))?;
        let state = map.get(&0, 0).map_err(map_error(names::STATE))?.0;
        Ok(Self { map, state })
    }

    /// What the programs see.
    #[must_use]
    pub fn get(&self) -> &State {
        &self.state
    }

    /// Reads again what the programs see, in case somebody else has written it.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn refresh(&mut self) -> Result<(), DatapathError> {
        self.state = self.map.get(&0, 0).map_err(map_error(names::STATE))?.0;
        Ok(())
    }

    /// Changes what the programs see, and reports whether that was needed.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn update(&mut self, change: impl FnOnce(&mut State)) -> Result<bool, DatapathError> {
        let mut state = self.state;
        change(&mut state);
        if state == self.state {
            return Ok(false);
        }
        for state in steps(&self.state, &state) {
            self.map
                .set(0, Value(state), 0)
                .map_err(map_error(names::STATE))?;
            self.state = state;
        }
        Ok(true)
    }

    /// Sets who is alive and who is ready.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_masks(&mut self, masks: Masks) -> Result<(), DatapathError> {
        self.update(|state| state.masks = masks).map(drop)
    }

    /// Sets until when segments may be reset that no node has the socket for.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_resets_until(&mut self, until: BootNanos) -> Result<(), DatapathError> {
        self.update(|state| state.resets_until = until).map(drop)
    }

    /// Sets until when this node answers for the VIPs.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_answer_until(&mut self, until: BootNanos) -> Result<(), DatapathError> {
        self.update(|state| raise(state, until)).map(drop)
    }

    /// Where frames for a backend go.
    #[must_use]
    pub fn mac(&self, backend: BackendIndex) -> Mac {
        self.state.backends[backend.get()].mac
    }

    /// Sets where frames for a backend go.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_mac(&mut self, backend: BackendIndex, mac: Mac) -> Result<(), DatapathError> {
        self.set_address(mac, |state| state.backends[backend.get()].mac = mac)
    }

    /// Sets where frames of a backend come from, if not from where it is reached.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn set_source(&mut self, backend: BackendIndex, source: Mac) -> Result<(), DatapathError> {
        self.set_address(source, |state| {
            state.backends[backend.get()].source = source;
        })
    }

    /// Puts an Ethernet address in the place of another one.
    fn set_address(
        &mut self,
        new: Mac,
        replace: impl FnOnce(&mut State),
    ) -> Result<(), DatapathError> {
        // The filter first: it may hold more than the backends have, never less.
        self.update(|state| state.config.peers = state.config.peers.with(new))?;
        self.update(replace)?;
        self.update(|state| state.config.peers = state.peers())
            .map(drop)
    }
}

/// The states by which `old` becomes `new`, for programs that read while one is written.
///
/// An address and its VIP must agree. So those of VIPs change one after the other, from the first on,
/// and then their number: a VIP that stays moves to a lower place, where a search finds it first, before
/// its old place gets another one. Where VIPs of IPv6 move to a higher place, all changes at once.
fn steps(old: &State, new: &State) -> Vec<State> {
    let (before, after) = (&old.config, &new.config);
    let moves =
        before.ipv4_count != after.ipv4_count && before.ipv6_count.min(after.ipv6_count) > 0;
    let mut step = *old;
    let mut steps = Vec::new();
    let mut add = |step: &State| {
        if steps.last().unwrap_or(old) != step {
            steps.push(*step);
        }
    };
    let serves_alike = |(old, new): (&Vip, &Vip)| {
        let lease = new.answer_until;
        *new == Vip {
            answer_until: lease,
            ..*old
        }
    };
    // A lease alone is one word in each VIP.
    if !moves && !zip(&old.vips, &new.vips).all(serves_alike) {
        // The health of new checks before their services.
        step.masks = new.masks;
        add(&step);
        let first_ipv6 = after.ipv4_count.max(before.ipv4_count) as usize;
        for place in 0..new.vips.len() {
            step.vips[place] = new.vips[place];
            add(&step);
            step.ipv4[place] = new.ipv4[place];
            if let Some(behind) = place.checked_sub(first_ipv6) {
                step.ipv6[behind] = new.ipv6[behind];
            }
            add(&step);
        }
    }
    add(new);
    steps
}

/// Sets until when a node answers for its VIPs: all of them, or none.
pub fn raise(state: &mut State, until: BootNanos) {
    let count = state.vips().len();
    for vip in &mut state.vips[..count] {
        vip.answer_until = until;
    }
}

/// The members in the maps that an earlier agent left, with their slots; none if they cannot be
/// taken over.
#[must_use]
pub fn members(pins: &Pins) -> Vec<(BackendIndex, Be128)> {
    let Some((_, found)) = Maps::pinned(pins) else {
        return Vec::new();
    };
    let state = found.get();
    if state.config.layout_version != LAYOUT_VERSION {
        return Vec::new();
    }
    let members = state.backends();
    members.map(|(slot, node)| (slot, node.address)).collect()
}

/// All maps but the state's and the log's.
pub(super) struct Maps {
    pub(super) allowed: AllowMap,
    pub(super) ranks: RankMap,
    counters: PerCpuArray<MapData, Value<u64>>,
    backend_counters: PerCpuArray<MapData, Value<BackendCounters>>,
    claimant: Array<MapData, Value<Mac>>,
    listeners: Array<MapData, Value<BootNanos>>,
}

impl Maps {
    /// Those of a loaded object, by descriptors of their own.
    pub(super) fn of(ebpf: &Ebpf) -> Result<(Self, StateMap), DatapathError> {
        Self::from(|name| {
            let map = ebpf.map(name).ok_or(DatapathError::Missing(name))?;
            again(map).map_err(map_error(name))
        })
    }

    /// Those an earlier agent left, if all are there and have the sizes they should have.
    pub(super) fn pinned(pins: &Pins) -> Option<(Self, StateMap)> {
        Self::from(|name| {
            MapData::from_pin(pins.map(name))
                .and_then(Map::from_map_data)
                .map_err(map_error(name))
        })
        .ok()
    }

    fn from(
        mut map: impl FnMut(&'static str) -> Result<Map, DatapathError>,
    ) -> Result<(Self, StateMap), DatapathError> {
        // Whose contents are the programs' affair; but they must be there.
        map(names::SOURCES)?;
        map(names::REDIRECTED)?;
        let maps = Self {
            allowed: AllowMap::new(&map(names::ALLOWED)?)?,
            ranks: RankMap::new(map(names::RANKS)?)?,
            counters: PerCpuArray::try_from(map(names::COUNTERS)?)
                .map_err(map_error(names::COUNTERS))?,
            backend_counters: PerCpuArray::try_from(map(names::BACKEND_COUNTERS)?)
                .map_err(map_error(names::BACKEND_COUNTERS))?,
            claimant: Array::try_from(map(names::CLAIMANT)?).map_err(map_error(names::CLAIMANT))?,
            listeners: Array::try_from(map(names::LISTENERS)?)
                .map_err(map_error(names::LISTENERS))?,
        };
        Ok((maps, StateMap::new(map(names::STATE)?)?))
    }

    /// Whether the maps can be taken over as they are: same layout, same hash, and no node in a slot
    /// that another node has. Were one of these otherwise, a packet could meet old ranks with new
    /// addresses; then new maps are filled and the programs change over to them in one step.
    pub(super) fn fits(&self, state: &State, desired: &DesiredState) -> bool {
        let config = &state.config;
        config.layout_version == LAYOUT_VERSION
            && config.hash_key == desired.hash_key
            && desired.backends.iter().all(|(slot, node)| {
                let found = &state.backends[slot.get()];
                !found.is_used() || found.address == node.address
            })
            && zip(&desired.vips, &state.vips).all(|(vip, found)| found.address == vip.address)
    }

    /// The last host that claimed the VIP and is no living node; [`Mac::UNKNOWN`] if none did.
    pub(super) fn claimant(&self) -> Result<Mac, DatapathError> {
        self.claimant
            .get(&0, 0)
            .map(|mac| mac.0)
            .map_err(map_error(names::CLAIMANT))
    }

    /// A probe that began at that time found a listener on this node.
    pub(super) fn note_listener(
        &mut self,
        check: CheckIndex,
        asked: BootNanos,
    ) -> Result<(), DatapathError> {
        self.listeners
            .set(listener::asked(check.raw()), Value(asked), 0)
            .map_err(map_error(names::LISTENERS))
    }

    pub(super) fn counter(&self, counter: Counter) -> Result<u64, DatapathError> {
        self.counters
            .get(&counter.index(), 0)
            .map(|cpus| cpus.iter().map(|value| value.0).sum())
            .map_err(map_error(names::COUNTERS))
    }

    pub(super) fn backend_counters(&self, index: u32) -> Result<BackendCounters, DatapathError> {
        let cpus = self
            .backend_counters
            .get(&index, 0)
            .map_err(map_error(names::BACKEND_COUNTERS))?;
        Ok(cpus
            .iter()
            .fold(BackendCounters::default(), |sum, cpu| sum + cpu.0))
    }

    /// Counts for a backend from 0 on. What was forwarded there so far is added to the counters that
    /// the programs leave alone, so that the sums go on. No rank names the backend yet: no program
    /// counts for it meanwhile.
    pub(super) fn restart_backend(&mut self, index: u32) -> Result<(), DatapathError> {
        let so_far = self.backend_counters(index)?;
        for (counter, count) in [
            (Counter::ForwardedSyn, so_far.syns),
            (Counter::ForwardedSegment, so_far.segments),
        ] {
            let index = counter.index();
            let cpus = self.counters.get(&index, 0);
            let cpus = cpus.map_err(map_error(names::COUNTERS))?;
            let mut cpus: Vec<Value<u64>> = cpus.iter().copied().collect();
            cpus[0].0 += count;
            PerCpuValues::try_from(cpus)
                .map_err(MapError::from)
                .and_then(|cpus| self.counters.set(index, cpus, 0))
                .map_err(map_error(names::COUNTERS))?;
        }
        let zeros = nr_cpus()
            .map(|cpus| vec![Value(BackendCounters::default()); cpus])
            .map_err(|(_, error)| error);
        zeros
            .and_then(PerCpuValues::try_from)
            .map_err(MapError::from)
            .and_then(|zeros| self.backend_counters.set(index, zeros, 0))
            .map_err(map_error(names::BACKEND_COUNTERS))
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use vip_common::abi::Service;
    use vip_common::wire::addr::{Be16, Be128};

    use super::*;

    const KEY: [u64; 2] = [1, 2];

    fn address(vip: u8) -> Be128 {
        if vip < 100 {
            Be128::from(std::net::IpAddr::from([10, 0, 0, vip]))
        } else {
            Be128::from(std::net::IpAddr::from([
                0xfd00,
                0,
                0,
                0,
                0,
                0,
                0,
                vip.into(),
            ]))
        }
    }

    fn state(vips: &[u8]) -> State {
        let mut state = State::zeroed();
        state.set_vips(vips.iter().map(|vip| {
            let port = Be16::new(6000 + u16::from(*vip));
            let address = address(*vip);
            Vip::new(address, &[Service::new(KEY, address, port)])
        }));
        state
    }

    /// As the programs find it.
    fn found(state: &State, vip: u8) -> Option<&Vip> {
        let wanted = address(vip);
        let config = &state.config;
        let place = match wanted.ipv4() {
            Some(wanted) => state.ipv4[..config.ipv4_count as usize]
                .iter()
                .position(|address| *address == wanted)?,
            None => {
                let ipv6 = &state.ipv6[..config.ipv6_count as usize];
                let behind = ipv6.iter().position(|address| *address == wanted)?;
                config.ipv4_count as usize + behind
            }
        };
        Some(&state.vips[place])
    }

    #[test]
    fn vip_that_stays_is_found_while_others_come_and_go() {
        for (old, new) in [
            (&[1, 2, 3][..], &[1, 3][..]),
            (&[1], &[1, 2, 3]),
            (&[1, 2, 3, 4, 5], &[1, 3, 5, 6]),
            (&[1, 101, 102, 103], &[1, 102, 103, 104]),
            (&[1, 2, 101], &[1, 2, 101, 102]),
        ] {
            let (from, to) = (state(old), state(new));
            let all = steps(&from, &to);
            assert_eq!(all.last(), Some(&to));
            for step in &all {
                for vip in old.iter().filter(|vip| new.contains(vip)) {
                    let found = found(step, *vip).expect("is there");
                    assert_eq!(found.address, address(*vip), "{old:?} {new:?}");
                }
            }
        }
        assert_eq!(steps(&state(&[1, 101]), &state(&[1, 2, 101])).len(), 1);
        assert!(steps(&state(&[1]), &state(&[1])).is_empty());
    }
}
