//! VRRP priorities that nobody has configured.

/// The VRRP priority, `1..=250`, of a node for which none is configured, by its place among the
/// members in the order of their addresses. The first steps are large, so that the nodes' skew times differ clearly.
#[must_use]
pub fn default_priority(place: usize) -> u8 {
    const FIRST: [u8; 7] = [250, 220, 190, 160, 130, 100, 70];
    FIRST.get(place).copied().unwrap_or_else(|| {
        let more = u8::try_from(place - FIRST.len()).unwrap_or(u8::MAX);
        40_u8.saturating_sub(more.saturating_mul(3)).max(1)
    })
}
