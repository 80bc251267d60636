//! Control's own index of the tokens that admit: where each is in the directory, and when it expires.

use crate::directory::{Bound, DeviceEntry, Directory, Slot, TokenEntry};
use crate::proto::quota::{day_of, month_of_day};
use crate::proto::token::TokenKey;
use crate::store::{BoundRow, Store, StoreError, TokenRow, UsageSums};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;

/// How long an entry outlives its replacement: until then its shard has read the notice of the new one.
const RETIRED_MS: u64 = 60_000;

/// The tokens that admit.
#[derive(Debug, Default)]
pub struct Index {
    tokens: HashMap<TokenKey, IndexEntry>,
    /// Exactly the tokens of `tokens` that expire, the next one first.
    expiries: BTreeSet<(u64, TokenKey)>,
    /// Replaced entries and when (in milliseconds) each may go, in that order.
    retired: VecDeque<(u64, Slot)>,
    /// Those of `tokens` that were registered and, as far as the store knows, never used.
    unused: HashSet<TokenKey>,
}

#[derive(Clone, Copy, Debug)]
struct IndexEntry {
    slot: Slot,
    expires_at: Option<u64>,
}

/// Puts the store's tokens into the directory and calls `admit` with each, for its owner to be told: before the shards
/// accept, so that no client with a good token is turned away.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub fn load(
    store: &Store,
    directory: &Directory,
    now_unix_ms: u64,
    mut admit: impl FnMut(TokenKey, Slot),
) -> Result<Index, StoreError> {
    let mut index = Index::default();
    let mut left_out = 0_u64;
    let mut bindings = store.bindings()?;
    let mut entry = |row: &TokenRow, sums| entry_of(row, bindings.remove(&row.serial).map(bound_of), sums, now_unix_ms);
    store.for_each_token(now_unix_ms, |row, sums| match directory.insert(entry(&row, sums)) {
        Some(slot) => {
            index.insert(row.hash.key(), slot, row.expires_at);
            index.note_unused(&row);
            admit(row.hash.key(), slot);
        }
        None => left_out += 1,
    })?;
    if left_out != 0 {
        tracing::error!(left_out, "the directory is full: tokens left out");
    }
    Ok(index)
}

/// The directory entry of a token that used `sums` in the day and month of now.
pub(super) fn entry_of(row: &TokenRow, bound: Option<Bound>, sums: UsageSums, now_unix_ms: u64) -> TokenEntry {
    let entry = TokenEntry::new(row.hash.key(), row.expires_at, row.limits).with_bound(bound);
    let today = day_of(now_unix_ms);
    entry.day.store(today, Relaxed);
    entry.month.store(month_of_day(today), Relaxed);
    entry.day_bytes.store(sums.day_bytes, Relaxed);
    entry.month_bytes.store(sums.month_bytes, Relaxed);
    entry
}

/// What a token is bound to, for its entry in the directory; nobody is connected.
pub(super) fn bound_of(row: BoundRow) -> Bound {
    let devices = row.devices.into_iter().map(|device| {
        let entry = DeviceEntry::new(device.key, day_of(device.seen_at.saturating_mul(1000)));
        entry.set_push(device.push);
        entry
    });
    Bound { agent: row.agent, legacy_phone: row.legacy_phone, devices: devices.collect() }
}

impl Index {
    /// How many tokens admit.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether no token admits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Where a token is.
    #[must_use]
    pub fn slot(&self, key: TokenKey) -> Option<Slot> {
        self.tokens.get(&key).map(|place| place.slot)
    }

    /// All tokens that admit.
    pub(super) fn keys(&self) -> impl Iterator<Item = TokenKey> + '_ {
        self.tokens.keys().copied()
    }

    /// Takes a token in; returns the slot that it had before.
    pub(super) fn insert(&mut self, key: TokenKey, slot: Slot, expires_at: Option<u64>) -> Option<Slot> {
        let before = self.remove(key);
        self.tokens.insert(key, IndexEntry { slot, expires_at });
        if let Some(at) = expires_at {
            self.expiries.insert((at, key));
        }
        before
    }

    /// A token has another entry, in which it expires as before; returns the slot of the one that it had.
    pub(super) fn replace(&mut self, key: TokenKey, slot: Slot) -> Option<Slot> {
        let entry = self.tokens.get_mut(&key)?;
        Some(std::mem::replace(&mut entry.slot, slot))
    }

    /// Takes a token out; returns the slot that it had.
    pub(super) fn remove(&mut self, key: TokenKey) -> Option<Slot> {
        let place = self.tokens.remove(&key)?;
        if let Some(at) = place.expires_at {
            self.expiries.remove(&(at, key));
        }
        self.unused.remove(&key);
        Some(place.slot)
    }

    /// Notes a token that has been taken in, if it was never used.
    pub(super) fn note_unused(&mut self, row: &TokenRow) {
        if row.unused_from.is_some() {
            self.unused.insert(row.hash.key());
        }
    }

    /// The tokens that are not known to have been used.
    pub(super) fn unused(&self) -> impl Iterator<Item = TokenKey> + '_ {
        self.unused.iter().copied()
    }

    /// The store knows now that these have been used.
    pub(super) fn forget_unused(&mut self, used: &[TokenKey]) {
        for key in used {
            self.unused.remove(key);
        }
    }

    /// The next token that has expired, if any; it stays until it is removed.
    pub(super) fn expired(&self, now_unix: u64) -> Option<TokenKey> {
        self.expiries.first().filter(|(at, _)| *at <= now_unix).map(|(_, key)| *key)
    }

    /// Lets a replaced entry go later, for its shard may look at it until it has read the notice of the new one.
    pub(super) fn retire(&mut self, now_ms: u64, slot: Slot) {
        self.retired.push_back((now_ms.saturating_add(RETIRED_MS), slot));
    }

    /// The next replaced entry that may go now.
    pub(super) fn poll_retired(&mut self, now_ms: u64) -> Option<Slot> {
        let due = self.retired.front().is_some_and(|(at, _)| *at <= now_ms);
        due.then(|| self.retired.pop_front()).flatten().map(|(_, slot)| slot)
    }
}
