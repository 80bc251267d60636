//! The directory of tokens: what every thread may look at, and the owning shard writes.
//!
//! Each token that admits has one entry in a sharded slab: its limits, its expiry, who is online and what it has used.
//! Control inserts and removes entries; the shard that owns the token updates them with plain atomic stores; anyone
//! reads them without a lock. Shard and control each keep an index of their own from [`TokenKey`] to the slot.

use crate::proto::limits::LimitsOverride;
use crate::proto::token::{ByRole, Role, TokenKey};
use sharded_slab::{Entry, Slab};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Where a token's entry is. Valid until control removes the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// What is known of one token.
#[derive(Debug)]
pub struct TokenEntry {
    /// The token's key.
    pub key: TokenKey,
    /// The Unix second from which the token admits no more; `None`: never.
    pub expires_at: Option<u64>,
    /// The token's own limits; `None`: the operator's. Boxed, for few have any.
    pub limits: Option<Box<LimitsOverride>>,
    /// Unix second since which each role is online; 0: offline.
    online_since: ByRole<AtomicU32>,
    /// Whether anybody has been online since the entry was made.
    was_used: AtomicBool,
    /// The UTC day (days since 1970-01-01) that `day_bytes` counts.
    pub day: AtomicU32,
    /// The UTC month (year * 12 + month - 1) that `month_bytes` counts.
    pub month: AtomicU32,
    /// Payload bytes forwarded in `day`.
    pub day_bytes: AtomicU64,
    /// Payload bytes forwarded in `month`.
    pub month_bytes: AtomicU64,
}

impl TokenEntry {
    /// An entry with nothing used and nobody online.
    #[must_use]
    pub fn new(key: TokenKey, expires_at: Option<u64>, limits: LimitsOverride) -> Self {
        Self {
            key,
            expires_at,
            limits: (!limits.is_empty()).then(|| Box::new(limits)),
            online_since: Default::default(),
            was_used: AtomicBool::new(false),
            day: AtomicU32::new(0),
            month: AtomicU32::new(0),
            day_bytes: AtomicU64::new(0),
            month_bytes: AtomicU64::new(0),
        }
    }

    /// The Unix second since which `role` is online, if it is.
    #[must_use]
    pub fn online_since(&self, role: Role) -> Option<u32> {
        Some(self.online_since[role].load(Relaxed)).filter(|&since| since != 0)
    }

    /// Whether anybody has been online since the entry was made.
    #[must_use]
    pub fn was_used(&self) -> bool {
        self.was_used.load(Relaxed)
    }

    /// Takes over whether it has been used.
    pub fn set_used(&self, was_used: bool) {
        self.was_used.store(was_used, Relaxed);
    }

    /// For the owning shard: `role` is online since that Unix second, or offline.
    pub fn set_online(&self, role: Role, since: Option<u32>) {
        self.online_since[role].store(since.map_or(0, |s| s.max(1)), Relaxed);
        if since.is_some() {
            self.was_used.store(true, Relaxed);
        }
    }
}

/// The tokens that admit.
#[derive(Debug, Default)]
pub struct Directory {
    entries: Slab<TokenEntry>,
}

impl Directory {
    /// Adds a token; `None` when the slab is full (2^32 and more entries: not met in practice).
    #[must_use]
    pub fn insert(&self, entry: TokenEntry) -> Option<Slot> {
        self.entries.insert(entry).map(Slot)
    }

    /// The entry of a token, if it is still there.
    #[must_use]
    pub fn entry(&self, slot: Slot) -> Option<Entry<'_, TokenEntry>> {
        self.entries.get(slot.0)
    }

    /// Takes a token out; readers that hold its entry keep it until they let go.
    pub fn remove(&self, slot: Slot) {
        self.entries.remove(slot.0);
    }
}
