//! Which relationships may be created at once: those that share no node, since creating one locks both of its ends.

use std::collections::HashMap;

/// Splits relationships, given by their ends, over `parts` so that no two parts have a node in common; answers the part of each.
/// The largest groups are placed first, always on the part that has least. Relationships that all hang together are one part.
pub fn disjoint(ends: &[(u64, u64)], parts: usize) -> Vec<usize> {
    let mut groups = Groups::default();
    for &(from, to) in ends {
        // A node's number is of its label: `from` and `to` are two namespaces, told apart by the lowest bit.
        groups.join(from << 1, (to << 1) | 1);
    }
    let of: Vec<usize> = ends.iter().map(|&(from, _)| groups.find(from << 1)).collect();
    let mut sizes: HashMap<usize, usize> = HashMap::new();
    for group in &of {
        *sizes.entry(*group).or_default() += 1;
    }
    let mut by_size: Vec<(usize, usize)> = sizes.into_iter().collect();
    by_size.sort_by_key(|&(group, size)| (std::cmp::Reverse(size), group));
    let mut filled = vec![0; parts.max(1)];
    let mut part_of = HashMap::new();
    for (group, size) in by_size {
        let part = (0..filled.len()).min_by_key(|part| filled[*part]).unwrap_or(0);
        filled[part] += size;
        part_of.insert(group, part);
    }
    of.iter().map(|group| part_of.get(group).copied().unwrap_or(0)).collect()
}

/// Union-find over nodes.
#[derive(Default)]
struct Groups {
    numbers: HashMap<u64, usize>,
    parents: Vec<usize>,
}

impl Groups {
    fn find(&mut self, node: u64) -> usize {
        let next = self.parents.len();
        let mut at = *self.numbers.entry(node).or_insert(next);
        if at == next {
            self.parents.push(next);
        }
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }

    fn join(&mut self, one: u64, other: u64) {
        let (one, other) = (self.find(one), self.find(other));
        self.parents[one.max(other)] = one.min(other);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_parts_share_a_node() {
        // Hosts 0, 1, 2 with 5, 3 and 2 guests of their own.
        let ends: Vec<(u64, u64)> = [(0, 5), (1, 3), (2, 2)]
            .into_iter()
            .flat_map(|(host, n)| (0..n).map(move |g| (host, host * 10 + g)))
            .collect();
        let parts = disjoint(&ends, 2);
        let of = |part: usize| {
            let mine = ends.iter().zip(&parts).filter(move |(_, p)| **p == part);
            mine.map(|((from, _), _)| *from).collect::<HashSet<_>>()
        };
        assert_eq!((of(0), of(1)), (HashSet::from([0]), HashSet::from([1, 2])));
    }

    #[test]
    fn what_hangs_together_is_one_part() {
        // 1 and 2 share guest 7; the numbers of both ends are namespaces of their own.
        assert_eq!(disjoint(&[(1, 7), (2, 7), (2, 8)], 4), [0, 0, 0]);
        let apart = disjoint(&[(1, 2), (2, 3)], 4);
        assert_ne!(apart[0], apart[1]);
        assert_eq!(disjoint(&[], 4), [0; 0]);
    }
}
