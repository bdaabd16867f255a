//! Words of what people read.

use std::fmt::Display;

/// A number and what it counts: `1 connection is`, `2 connections are`.
pub(crate) fn counted<N>(number: N, one: &str, more: &str) -> String
where
    N: Display + PartialEq + From<u8>,
{
    let words = if number == N::from(1) { one } else { more };
    format!("{number} {words}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_counted_otherwise() {
        let told = |number: usize| counted(number, "node serves", "nodes serve");
        assert_eq!(
            [0, 1, 2].map(told),
            ["0 nodes serve", "1 node serves", "2 nodes serve"]
        );
    }
}
