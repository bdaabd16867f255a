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

/// The word that was probably meant: one that some letters less, more or exchanged make of this.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// One letter in so many may be wrong.
    const LETTERS: usize = 3;
    let distances = known.map(|known| (strsim::osa_distance(word, known), known));
    let (distance, nearest) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= (word.len() / LETTERS).max(1)).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_has_a_nearest_word_and_another_word_has_none() {
        let meant = |word| nearest(word, ["vip", "vrrp", "priority"].into_iter());
        assert_eq!(
            ["vpi", "vrpp", "priorty"].map(meant),
            ["vip", "vrrp", "priority"].map(Some)
        );
        assert_eq!(["zzz", "buckets", ""].map(meant), [None; 3]);
    }

    #[test]
    fn one_is_counted_otherwise() {
        let told = |number: usize| counted(number, "node serves", "nodes serve");
        assert_eq!(
            [0, 1, 2].map(told),
            ["0 nodes serve", "1 node serves", "2 nodes serve"]
        );
    }
}
