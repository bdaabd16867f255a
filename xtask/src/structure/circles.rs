//! Circles in a graph.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// For each node, those it points to. None points to itself.
pub(super) type Edges = BTreeMap<usize, BTreeSet<usize>>;

/// All edges.
pub(super) fn pairs(edges: &Edges) -> impl Iterator<Item = (usize, usize)> {
    edges
        .iter()
        .flat_map(|(&from, targets)| targets.iter().map(move |&to| (from, to)))
}

/// For each edge that lies on a circle, a shortest one. Each begins and ends with its lowest node.
pub(super) fn all(edges: &Edges) -> BTreeSet<Vec<usize>> {
    pairs(edges)
        .filter_map(|(from, to)| {
            let mut circle = shortest(edges, from, to)?;
            let lowest = circle.iter().enumerate().min_by_key(|(_, node)| **node)?.0;
            circle.rotate_left(lowest);
            circle.push(circle[0]);
            Some(circle)
        })
        .collect()
}

/// A shortest circle with this edge, each node once.
pub(super) fn shortest(edges: &Edges, from: usize, to: usize) -> Option<Vec<usize>> {
    // Backwards from `from` along the way by which it is reached.
    let mut before = BTreeMap::from([(to, to)]);
    let mut queue = VecDeque::from([to]);
    while let Some(node) = queue.pop_front() {
        if node == from {
            let mut circle = vec![from];
            while circle[circle.len() - 1] != to {
                circle.push(before[&circle[circle.len() - 1]]);
            }
            circle.reverse();
            return Some(circle);
        }
        for &next in edges.get(&node).into_iter().flatten() {
            before.entry(next).or_insert_with(|| {
                queue.push_back(next);
                node
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(pairs: &[(usize, usize)]) -> Edges {
        let mut edges = Edges::new();
        for &(from, to) in pairs {
            edges.entry(from).or_default().insert(to);
        }
        edges
    }

    #[test]
    fn a_graph_without_circles_has_none() {
        assert!(all(&edges(&[(0, 1), (1, 2), (0, 2)])).is_empty());
    }

    #[test]
    fn each_circle_is_told_once() {
        let found = all(&edges(&[(2, 1), (1, 2), (2, 3), (3, 4), (4, 2), (4, 5)]));
        let wanted = [vec![1, 2, 1], vec![2, 3, 4, 2]];
        assert_eq!(found, BTreeSet::from(wanted));
    }
}
