//! Values of maps.

/// A value of a map. (aya's `Pod` and the types of `vip_common` are both foreign here.)
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Value<T>(pub(super) T);

// SAFETY: `repr(transparent)` over a type that bytemuck knows to be plain old data, which is
// what aya asks for: any bytes are a value, and no padding.
unsafe impl<T: bytemuck::Pod> aya::Pod for Value<T> {}
