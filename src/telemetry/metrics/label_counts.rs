//! Counts by a label that the program chooses, such as an error code.

/// What stands for all labels that found no place.
const OTHER: &str = "other";

/// At most `N` labels and how often each came.
#[derive(Clone, Copy, Debug)]
pub struct LabelCounts<const N: usize> {
    /// The first `used` are in use.
    counts: [(&'static str, u64); N],
    used: usize,
}

impl<const N: usize> LabelCounts<N> {
    /// Nothing counted yet; `labels` are there from the start, so that a first event is seen as a growth.
    #[must_use]
    pub fn new(labels: &[&'static str]) -> Self {
        let mut counts = Self { counts: [(OTHER, 0); N], used: 0 };
        for label in labels {
            counts.add(label, 0);
        }
        counts
    }

    /// Counts `count` events. The search is short, and an event of this kind rare.
    pub fn add(&mut self, label: &'static str, count: u64) {
        let found = self.counts[..self.used].iter().position(|(known, _)| *known == label);
        let at = match found {
            Some(at) => at,
            None if self.used < N => {
                self.counts[self.used] = (label, 0);
                self.used += 1;
                self.used - 1
            }
            // The table is full, which is a mistake of its size: the last label takes the rest.
            None => {
                self.counts[N - 1].0 = OTHER;
                N - 1
            }
        };
        self.counts[at].1 += count;
    }

    /// Each label and its count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts[..self.used].iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_counted_and_bounded() {
        let mut counts = LabelCounts::<3>::new(&["a", "b"]);
        for label in ["b", "c", "b", "d", "e", "a"] {
            counts.add(label, 1);
        }
        assert_eq!(counts.counts().collect::<Vec<_>>(), [("a", 1), ("b", 2), ("other", 3)]);
    }
}
