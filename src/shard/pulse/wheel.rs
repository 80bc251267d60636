//! The timing wheel: one deadline for each connection, in the slots that the pulse walks over.
//!
//! Deadlines further off than the wheel turns stand in the slot where they would come due and are looked at once a
//! turn. A connection has one link in a vector; arming, moving and disarming take constant time and no memory.

use crate::ring::Conn;

/// Slots, each one [`TICK`](crate::shard::bounds::TICK) wide: the wheel turns once in 102 s.
const SLOTS: usize = 1024;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
    /// The tick at which the deadline is met. [`u32::MAX`]: not armed.
    due: u32,
}

const UNLINKED: Link = Link { before: NONE, after: NONE, due: u32::MAX };

/// Deadlines by [`Conn::index`], in ticks.
pub(super) struct Wheel {
    heads: Box<[u32; SLOTS]>,
    links: Vec<Link>,
    /// All slots up to this tick have been walked over.
    walked: u32,
}

impl Wheel {
    /// A wheel that starts at tick 0.
    #[must_use]
    pub(super) fn new() -> Self {
        Self { heads: Box::new([NONE; SLOTS]), links: Vec::new(), walked: 0 }
    }

    /// Sets the deadline of `conn`, whatever it was. Ticks that have passed come due at the next one.
    pub(super) fn arm(&mut self, conn: Conn, due: u32) {
        self.disarm(conn);
        let index = conn.index() as u32;
        let due = due.max(self.walked + 1);
        if self.links.len() <= index as usize {
            self.links.resize(index as usize + 1, UNLINKED);
        }
        let head = &mut self.heads[due as usize % SLOTS];
        let after = std::mem::replace(head, index);
        self.links[index as usize] = Link { before: NONE, after, due };
        if after != NONE {
            self.links[after as usize].before = index;
        }
    }

    /// The deadline of `conn`; [`u32::MAX`]: none.
    #[must_use]
    pub(super) fn due(&self, conn: Conn) -> u32 {
        self.links.get(conn.index()).map_or(u32::MAX, |link| link.due)
    }

    /// Takes the deadline of `conn` away, if it has one. To be done at its end, for the place's next connection has none.
    pub(super) fn disarm(&mut self, conn: Conn) {
        self.unlink(conn.index() as u32);
    }

    fn unlink(&mut self, index: u32) {
        let Some(link) = self.links.get_mut(index as usize) else { return };
        let Link { before, after, due } = std::mem::replace(link, UNLINKED);
        if due == u32::MAX {
            return;
        }
        match before {
            NONE => self.heads[due as usize % SLOTS] = after,
            _ => self.links[before as usize].after = after,
        }
        if after != NONE {
            self.links[after as usize].before = before;
        }
    }

    /// Moves on to tick `now` and appends the places of those whose deadline is met to `met`; they are disarmed.
    pub(super) fn advance(&mut self, now: u32, met: &mut Vec<u32>) {
        // After a long stop each slot needs to be looked at once only.
        let first = self.walked.max(now.saturating_sub(SLOTS as u32)) + 1;
        for tick in first..=now {
            let mut index = self.heads[tick as usize % SLOTS];
            while index != NONE {
                let Link { after, due, .. } = self.links[index as usize];
                if due <= now {
                    self.unlink(index);
                    met.push(index);
                }
                index = after;
            }
        }
        self.walked = self.walked.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn deadlines_are_met_exactly_once_and_in_time(
            steps in proptest::collection::vec((0u32..20, 0u32..5000, 0u32..300, any::<bool>()), 1..200),
        ) {
            let (mut wheel, mut model, mut now) = (Wheel::new(), BTreeMap::new(), 0);
            for (index, delay, step, disarm) in steps {
                if disarm {
                    wheel.disarm(Conn::of(index, 0));
                    model.remove(&index);
                } else {
                    wheel.arm(Conn::of(index, 0), now + delay);
                    model.insert(index, (now + delay).max(now + 1));
                }
                now += step;
                let mut met = Vec::new();
                wheel.advance(now, &mut met);
                met.sort_unstable();
                let expected: Vec<u32> = model.iter().filter(|&(_, &due)| due <= now).map(|(&i, _)| i).collect();
                model.retain(|_, due| *due > now);
                prop_assert_eq!(met, expected);
            }
        }

        #[test]
        fn a_long_stop_loses_no_deadline(dues in proptest::collection::vec(1u32..10_000, 1..50)) {
            let mut wheel = Wheel::new();
            for (index, &due) in dues.iter().enumerate() {
                wheel.arm(Conn::of(index as u32, 0), due);
            }
            let mut met = Vec::new();
            wheel.advance(20_000, &mut met);
            prop_assert_eq!(met.len(), dues.len());
        }
    }
}
