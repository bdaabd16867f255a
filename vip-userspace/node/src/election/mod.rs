//! Who owns the VIP.

pub mod vrrp;

/// The VRRP priority of a node that has none configured, by its place in the list of nodes. Steps
/// are large where it matters, so that the nodes' skew times are well apart.
#[must_use]
pub fn default_priority(place: usize) -> u8 {
    const FIRST: [u8; 7] = [250, 220, 190, 160, 130, 100, 70];
    FIRST.get(place).copied().unwrap_or_else(|| {
        let more = u8::try_from(place - FIRST.len()).unwrap_or(u8::MAX);
        40_u8.saturating_sub(more.saturating_mul(3)).max(1)
    })
}

#[cfg(test)]
mod tests {
    use vip_common::abi::MAX_BACKENDS;

    use super::*;

    #[test]
    fn priorities_fall_with_the_place_and_stay_in_range() {
        let priorities: Vec<u8> = (0..MAX_BACKENDS).map(default_priority).collect();
        assert_eq!(
            priorities,
            [
                250, 220, 190, 160, 130, 100, 70, 40, 37, 34, 31, 28, 25, 22, 19, 16
            ]
        );
        assert_eq!(default_priority(usize::MAX), 1);
    }
}
