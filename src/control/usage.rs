//! Usage on its way to the store: merged for each token and day, so that it stays small while the store fails.

use crate::proto::token::TokenKey;
use crate::store::Usage;
use std::collections::HashMap;

/// Records that wait at most: some 100 MB. Beyond that, new ones are dropped and counted.
const WAITING_MAX: usize = 1 << 20;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct PendingUsage {
    sums: HashMap<(TokenKey, u32), u64>,
}

impl PendingUsage {
    /// Takes usage in; returns the bytes that found no room.
    #[must_use]
    pub(super) fn add(&mut self, usage: &[Usage]) -> u64 {
        let mut dropped = 0_u64;
        for one in usage {
            let full = self.sums.len() >= WAITING_MAX;
            match self.sums.get_mut(&(one.key, one.day)) {
                Some(sum) => *sum = sum.saturating_add(one.bytes),
                None if full => dropped = dropped.saturating_add(one.bytes),
                None => drop(self.sums.insert((one.key, one.day), one.bytes)),
            }
        }
        dropped
    }

    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }

    /// At most `limit` records; they stay until [`Self::remove`].
    pub(super) fn batch(&self, limit: usize) -> Vec<Usage> {
        self.sums.iter().take(limit).map(|(&(key, day), &bytes)| Usage { key, day, bytes }).collect()
    }

    /// Takes out what was written.
    pub(super) fn remove(&mut self, written: &[Usage]) {
        for one in written {
            self.sums.remove(&(one.key, one.day));
        }
        // After an outage the room goes back.
        if self.sums.is_empty() && self.sums.capacity() > 4096 {
            self.sums = HashMap::new();
        }
    }

    /// What waits of one token and day.
    pub(super) fn bytes(&self, key: TokenKey, day: u32) -> u64 {
        self.sums.get(&(key, day)).copied().unwrap_or(0)
    }
}
