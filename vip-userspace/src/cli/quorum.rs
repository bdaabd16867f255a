//! A word about etcd, where the number of nodes is known.

/// What an even number of nodes means to etcd; `None` for an odd one. `vip` itself needs no majority.
pub(super) fn hint(nodes: usize) -> Option<String> {
    if nodes == 0 || !nodes.is_multiple_of(2) {
        return None;
    }
    let needed = nodes / 2 + 1;
    let (survives, as_few) = match nodes - needed {
        0 => ("no failure".to_owned(), "1 node does".to_owned()),
        1 => ("1 failure".to_owned(), format!("{} nodes do", nodes - 1)),
        more => (
            format!("{more} failures"),
            format!("{} nodes do", nodes - 1),
        ),
    };
    Some(format!(
        "{nodes} nodes: if etcd runs on them, it needs {needed} of the {nodes}, and survives \
         {survives}, as {as_few}; use 1, 3, 5 or 7 nodes, unless etcd runs elsewhere"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_numbers_are_told_what_etcd_needs() {
        for odd in [0, 1, 3, 5, 7] {
            assert_eq!(hint(odd), None);
        }
        let two = hint(2).expect("even");
        assert!(two.contains("needs 2 of the 2, and survives no failure, as 1 node does"));
        let four = hint(4).expect("even");
        assert!(four.contains("needs 3 of the 4, and survives 1 failure, as 3 nodes do"));
        let six = hint(6).expect("even");
        assert!(six.contains("needs 4 of the 6, and survives 2 failures, as 5 nodes do"));
    }
}
