//! Names of nodes that fit a column, and that can still be told apart.

use std::collections::BTreeSet;

/// Stands for what is left out.
const ELLIPSIS: char = '…';

/// The names in at most `width` characters each, as they are if they fit. Otherwise the domain that all
/// of them share is left out, then the middle. Names that are different stay so: where `width` is too
/// small for that, they are longer.
#[must_use]
pub fn shorten(names: &[&str], width: usize) -> Vec<String> {
    let fit = |names: &[String]| names.iter().all(|name| name.chars().count() <= width);
    let whole: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    if fit(&whole) {
        return whole;
    }
    let short = without_domain(names);
    if fit(&short) {
        return short;
    }
    let distinct = short.iter().collect::<BTreeSet<_>>().len();
    let longest = short.iter().map(|name| name.chars().count()).max();
    for width in width.max(3)..longest.unwrap_or(0) {
        // Ends tell nodes apart more often than beginnings.
        for tail in (width / 2)..width {
            let cut: Vec<String> = short.iter().map(|name| middle(name, width, tail)).collect();
            if cut.iter().collect::<BTreeSet<_>>().len() == distinct {
                return cut;
            }
        }
        for tail in 0..(width / 2) {
            let cut: Vec<String> = short.iter().map(|name| middle(name, width, tail)).collect();
            if cut.iter().collect::<BTreeSet<_>>().len() == distinct {
                return cut;
            }
        }
    }
    short
}

/// The names without the labels at their ends that all share; addresses and single names stay.
fn without_domain(names: &[&str]) -> Vec<String> {
    let whole = || names.iter().map(|name| (*name).to_owned()).collect();
    let is_address = |name: &&str| name.parse::<std::net::IpAddr>().is_ok();
    let Some(first) = names.first().filter(|_| !names.iter().any(is_address)) else {
        return whole();
    };
    // With one name there is nothing to tell apart: its first label says enough.
    let dots = first.match_indices('.').map(|(dot, _)| &first[dot..]);
    let shared = dots
        .into_iter()
        .find(|domain| names.iter().all(|name| name.ends_with(domain)));
    let Some(domain) = shared else {
        return whole();
    };
    let without = names
        .iter()
        .map(|name| name.strip_suffix(domain).unwrap_or(name).to_owned());
    without.collect()
}

/// A name with its middle left out, of which this many characters at the end are kept.
fn middle(name: &str, width: usize, tail: usize) -> String {
    let count = name.chars().count();
    if count <= width {
        return name.to_owned();
    }
    let head = width - 1 - tail.min(width - 1);
    let begin = name.chars().take(head);
    let end = name.chars().skip(count - tail.min(width - 1));
    begin.chain([ELLIPSIS]).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_stay_and_a_shared_domain_goes_first() {
        assert_eq!(shorten(&["cp1", "cp2"], 8), ["cp1", "cp2"]);
        let named = ["cp1.dc1.example.net", "cp2.dc1.example.net"];
        assert_eq!(shorten(&named, 8), ["cp1", "cp2"]);
        assert_eq!(
            shorten(&["10.0.0.11", "10.0.1.11"], 9),
            ["10.0.0.11", "10.0.1.11"]
        );
        assert_eq!(shorten(&[], 8), Vec::<String>::new());
    }

    #[test]
    fn long_names_can_be_told_apart_in_any_width() {
        let families = [
            [
                "prod-control-plane-rack-a-0001.dc1.example.net",
                "prod-control-plane-rack-a-0002.dc1.example.net",
                "prod-control-plane-rack-b-0001.dc1.example.net",
            ],
            [
                "a-control-plane-node-in-the-first-rack",
                "b-control-plane-node-in-the-first-rack",
                "c-control-plane-node-in-the-first-rack",
            ],
            [
                "control-plane-a-in-the-first-rack-of-all",
                "control-plane-b-in-the-first-rack-of-all",
                "control-plane-c-in-the-first-rack-of-all",
            ],
            [
                "fd00:1111:2222::a",
                "fd00:1111:2222::b",
                "fd00:1111:2222::c",
            ],
        ];
        for family in families {
            for width in 0..50 {
                let short = shorten(&family, width);
                let distinct: BTreeSet<&String> = short.iter().collect();
                assert_eq!(distinct.len(), 3, "{width}: {short:?}");
            }
        }
        let short = shorten(&families[0], 12);
        assert!(
            short.iter().all(|name| name.chars().count() <= 12),
            "{short:?}"
        );
        assert!(short[2].ends_with("b-0001"), "{short:?}");
    }
}
