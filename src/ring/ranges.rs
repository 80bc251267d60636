//! The free ranges of an arena: which one is the first that is long enough, and which ones touch.
//!
//! A treap by where ranges begin, in which each node knows the longest range under it: taking and giving back cost the
//! logarithm of the number of ranges, however memory is cut up. With few ranges, which is the rule, a take looks at one or two
//! nodes and changes them in place.

/// No node.
const NONE: u32 = u32::MAX;

/// Ranges that do not overlap and do not touch each other.
#[derive(Debug)]
pub(super) struct Ranges {
    nodes: Vec<Node>,
    root: u32,
    /// Nodes that are not in the tree.
    vacant: Vec<u32>,
    /// Where priorities come from (xorshift); never 0.
    random: u32,
}

/// Everything to the left begins before `start`, everything to the right behind it. Neither has a higher priority.
#[derive(Debug)]
struct Node {
    start: usize,
    length: usize,
    /// The greatest length in this subtree.
    longest: usize,
    priority: u32,
    left: u32,
    right: u32,
}

impl Ranges {
    /// One range from 0 on.
    pub(super) fn new(length: usize) -> Self {
        let mut ranges = Self { nodes: Vec::new(), root: NONE, vacant: Vec::new(), random: 0x9e37_79b9 };
        ranges.root = ranges.new_node(0, length);
        ranges
    }

    /// Takes `length` from the first range that has so much, and gives where that begins.
    pub(super) fn take(&mut self, length: usize) -> Option<usize> {
        if self.root == NONE || self.longest(self.root) < length {
            return None;
        }
        let (root, start) = self.take_from(self.root, length);
        self.root = root;
        Some(start)
    }

    /// Adds a range, which must not overlap with one that is there. It becomes one with those that it touches.
    pub(super) fn give_back(&mut self, start: usize, length: usize) {
        let (before, behind) = self.neighbours(start);
        let touches_before = before != NONE && self.node(before).start + self.node(before).length == start;
        let touches_behind = behind != NONE && self.node(behind).start == start + length;
        if touches_before {
            let mut more = length;
            if touches_behind {
                more += self.node(behind).length;
                self.root = self.remove(self.root, start + length);
            }
            self.node_mut(before).length += more;
            self.has_grown(before);
        } else if touches_behind {
            let node = self.node_mut(behind);
            node.start = start;
            node.length += length;
            self.has_grown(behind);
        } else {
            let new = self.new_node(start, length);
            self.root = self.insert(self.root, new);
        }
    }

    /// The range that begins last.
    pub(super) fn last(&self) -> Option<(usize, usize)> {
        let mut last = None;
        let mut at = self.root;
        while at != NONE {
            let node = self.node(at);
            last = Some((node.start, node.length));
            at = node.right;
        }
        last
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    fn longest(&self, at: u32) -> usize {
        if at == NONE { 0 } else { self.node(at).longest }
    }

    /// To be called when the node or what is under it has changed.
    fn update(&mut self, at: u32) {
        let node = self.node(at);
        let longest = node.length.max(self.longest(node.left)).max(self.longest(node.right));
        self.node_mut(at).longest = longest;
    }

    /// As [`Ranges::take`] in the subtree `at`, which has enough; also gives what is its root then.
    fn take_from(&mut self, at: u32, length: usize) -> (u32, usize) {
        let node = self.node(at);
        let (left, right, start) = (node.left, node.right, node.start);
        let taken = if left != NONE && self.longest(left) >= length {
            let (left, taken) = self.take_from(left, length);
            self.node_mut(at).left = left;
            taken
        } else if node.length > length {
            let node = self.node_mut(at);
            node.start += length;
            node.length -= length;
            start
        } else if node.length == length {
            self.vacant.push(at);
            return (self.merge(left, right), start);
        } else {
            let (right, taken) = self.take_from(right, length);
            self.node_mut(at).right = right;
            taken
        };
        self.update(at);
        (at, taken)
    }

    /// The nodes between which a range that begins at `start` lies.
    fn neighbours(&self, start: usize) -> (u32, u32) {
        let (mut before, mut behind, mut at) = (NONE, NONE, self.root);
        while at != NONE {
            let node = self.node(at);
            if node.start < start {
                (before, at) = (at, node.right);
            } else {
                (behind, at) = (at, node.left);
            }
        }
        (before, behind)
    }

    /// To be called when a node's range has become longer, though not past others.
    fn has_grown(&mut self, grown: u32) {
        let &Node { start, length, .. } = self.node(grown);
        let mut at = self.root;
        loop {
            let node = self.node_mut(at);
            node.longest = node.longest.max(length);
            if at == grown {
                return;
            }
            at = if start < node.start { node.left } else { node.right };
        }
    }

    /// Removes the range that begins at `start`, which is in the subtree `at`; gives what is its root then.
    fn remove(&mut self, at: u32, start: usize) -> u32 {
        let &Node { start: begins, left, right, .. } = self.node(at);
        if begins == start {
            self.vacant.push(at);
            return self.merge(left, right);
        }
        if start < begins {
            self.node_mut(at).left = self.remove(left, start);
        } else {
            self.node_mut(at).right = self.remove(right, start);
        }
        self.update(at);
        at
    }

    fn new_node(&mut self, start: usize, length: usize) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let node = Node { start, length, longest: length, priority: self.random, left: NONE, right: NONE };
        if let Some(at) = self.vacant.pop() {
            *self.node_mut(at) = node;
            return at;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// Puts the node `new` into the subtree `at`; gives what is its root then.
    fn insert(&mut self, at: u32, new: u32) -> u32 {
        let start = self.node(new).start;
        if at == NONE || self.node(new).priority > self.node(at).priority {
            let (left, right) = self.split(at, start);
            let node = self.node_mut(new);
            (node.left, node.right) = (left, right);
            self.update(new);
            return new;
        }
        let &Node { start: begins, left, right, .. } = self.node(at);
        if start < begins {
            self.node_mut(at).left = self.insert(left, new);
        } else {
            self.node_mut(at).right = self.insert(right, new);
        }
        self.update(at);
        at
    }

    /// Two trees of one: what begins before `start`, and the rest.
    fn split(&mut self, at: u32, start: usize) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        let node = self.node(at);
        let (left, right) = (node.left, node.right);
        let parts = if node.start < start {
            let (before, behind) = self.split(right, start);
            self.node_mut(at).right = before;
            (at, behind)
        } else {
            let (before, behind) = self.split(left, start);
            self.node_mut(at).left = behind;
            (before, at)
        };
        self.update(at);
        parts
    }

    /// One tree of two, of which the first one lies before the second.
    fn merge(&mut self, before: u32, behind: u32) -> u32 {
        if before == NONE || behind == NONE {
            return if before == NONE { behind } else { before };
        }
        if self.node(before).priority > self.node(behind).priority {
            let right = self.node(before).right;
            let right = self.merge(right, behind);
            self.node_mut(before).right = right;
            self.update(before);
            before
        } else {
            let left = self.node(behind).left;
            let left = self.merge(before, left);
            self.node_mut(behind).left = left;
            self.update(behind);
            behind
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Ranges {
        /// All of them in order, and how many lie above each other at the most. Checks what is written on the fields.
        pub(crate) fn all(&self) -> (Vec<(usize, usize)>, usize) {
            let mut all = Vec::new();
            let depth = self.walk(self.root, &mut all);
            assert_eq!(self.nodes.len(), all.len() + self.vacant.len(), "each node is in the tree or vacant");
            assert!(all.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0), "they touch: {all:?}");
            (all, depth)
        }

        fn walk(&self, at: u32, all: &mut Vec<(usize, usize)>) -> usize {
            if at == NONE {
                return 0;
            }
            let node = self.node(at);
            for child in [node.left, node.right].into_iter().filter(|&child| child != NONE) {
                assert!(self.node(child).priority <= node.priority);
            }
            assert_eq!(node.longest, node.length.max(self.longest(node.left)).max(self.longest(node.right)));
            let left = self.walk(node.left, all);
            all.push((node.start, node.length));
            1 + left.max(self.walk(node.right, all))
        }
    }

    /// The plain way: the first that is long enough, one after the other.
    struct Model(BTreeMap<usize, usize>);

    impl Model {
        fn take(&mut self, length: usize) -> Option<usize> {
            let (&start, &room) = self.0.iter().find(|&(_, &room)| room >= length)?;
            self.0.remove(&start);
            if room > length {
                self.0.insert(start + length, room - length);
            }
            Some(start)
        }

        fn give_back(&mut self, mut start: usize, mut length: usize) {
            length += self.0.remove(&(start + length)).unwrap_or(0);
            if let Some((&before, &room)) = self.0.range(..start).next_back()
                && before + room == start
            {
                (start, length) = (before, length + room);
            }
            self.0.insert(start, length);
        }
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Take(usize),
        GiveBack(prop::sample::Index),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            4 => (1usize..40).prop_map(Operation::Take),
            1 => (1usize..3000).prop_map(Operation::Take),
            4 => any::<prop::sample::Index>().prop_map(Operation::GiveBack),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_takes_and_merges_as_the_plain_way_does(operations in prop::collection::vec(operation(), 1..300)) {
            let (mut ranges, mut model) = (Ranges::new(4000), Model(BTreeMap::from([(0, 4000)])));
            let mut taken = Vec::new();
            for operation in operations {
                match operation {
                    Operation::Take(length) => {
                        let start = ranges.take(length);
                        prop_assert_eq!(start, model.take(length));
                        taken.extend(start.map(|start| (start, length)));
                    }
                    Operation::GiveBack(index) if !taken.is_empty() => {
                        let (start, length) = taken.swap_remove(index.index(taken.len()));
                        ranges.give_back(start, length);
                        model.give_back(start, length);
                    }
                    Operation::GiveBack(_) => {}
                }
                let all: Vec<_> = model.0.iter().map(|(&start, &length)| (start, length)).collect();
                prop_assert_eq!(ranges.last(), all.last().copied());
                prop_assert_eq!(ranges.all().0, all);
            }
            for (start, length) in taken {
                ranges.give_back(start, length);
            }
            prop_assert_eq!(ranges.all().0, [(0, 4000)]);
        }
    }

    #[test]
    fn memory_that_is_cut_up_is_not_walked_through() {
        const PIECES: usize = 20_000;
        let mut ranges = Ranges::new(4 * PIECES);
        for _ in 0..PIECES {
            ranges.take(3);
            ranges.take(1);
        }
        assert_eq!(ranges.take(1), None);
        // Each second range, then all: the worst for a search in order is that none but the last is long enough.
        for piece in 0..PIECES {
            ranges.give_back(4 * piece, 3);
        }
        ranges.give_back(4 * PIECES - 1, 1);
        let (all, depth) = ranges.all();
        assert_eq!(all.len(), PIECES);
        assert!(depth < 64, "{depth} for {PIECES} ranges");
        assert_eq!(ranges.take(4), Some(4 * PIECES - 4));
        assert_eq!(ranges.take(4), None);
        assert_eq!(ranges.take(3), Some(0));
    }
}
