//! The directory of tokens: what every thread may look at, and the owning shard writes.
//!
//! Each token that admits has one entry in a sharded slab: its limits, its expiry, who is online and what it has used.
//! Control inserts and removes entries; the shard that owns the token updates them with plain atomic stores; anyone
//! reads them without a lock. Shard and control each keep an index of their own from [`TokenKey`] to the slot.

use crate::proto::device::{Binding, DeviceId, KeyHash};
use crate::proto::limits::LimitsOverride;
use crate::proto::token::{ByRole, Role, TokenKey};
use crate::push::PushState;
use sharded_slab::{Entry, Slab};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

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
    /// Whom it is bound to. Boxed, for few are.
    pub bound: Option<Box<Bound>>,
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

/// Whom a token admits that is bound to its agent's key.
#[derive(Debug)]
pub struct Bound {
    /// The key of its agent.
    pub agent: KeyHash,
    /// Whether a phone without a device's key is admitted, too.
    pub legacy_phone: bool,
    /// Its devices, in the order in which they were added.
    pub devices: Vec<DeviceEntry>,
}

/// A device of a token.
#[derive(Debug)]
pub struct DeviceEntry {
    /// Its key.
    pub key: KeyHash,
    /// Unix second since which it is connected; 0: it is not.
    online_since: AtomicU32,
    /// The UTC day on which it last connected, as far as control has been told.
    seen_day: AtomicU32,
    /// Its [`PushState`]; control writes it.
    push: AtomicU8,
}

impl DeviceEntry {
    /// A device that is not connected, and did so last on this day.
    #[must_use]
    pub fn new(key: KeyHash, seen_day: u32) -> Self {
        let (online_since, seen_day) = (AtomicU32::new(0), AtomicU32::new(seen_day));
        Self { key, online_since, seen_day, push: AtomicU8::new(PushState::None as u8) }
    }

    /// The Unix second since which it is connected, if it is.
    #[must_use]
    pub fn online_since(&self) -> Option<u32> {
        Some(self.online_since.load(Relaxed)).filter(|&since| since != 0)
    }

    /// For the owning shard: it is connected since that Unix second, or not.
    pub fn set_online(&self, since: Option<u32>) {
        self.online_since.store(since.map_or(0, |s| s.max(1)), Relaxed);
    }

    /// For the owning shard: it connects on that day. Whether that is for the first time.
    pub fn see(&self, day: u32) -> bool {
        self.seen_day.swap(day, Relaxed) != day
    }

    /// Whether it can be woken.
    #[must_use]
    pub fn push(&self) -> PushState {
        PushState::ALL.get(usize::from(self.push.load(Relaxed))).copied().unwrap_or_default()
    }

    /// For control: whether it can be woken.
    pub fn set_push(&self, state: PushState) {
        self.push.store(state as u8, Relaxed);
    }

    /// What is known of it, for another entry of the same token.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = Self::new(self.key, self.seen_day.load(Relaxed));
        copy.set_online(self.online_since());
        copy.set_push(self.push());
        copy
    }
}

impl Bound {
    /// For the session of the token.
    #[must_use]
    pub fn binding(&self) -> Binding {
        let devices = self.devices.iter().map(|device| device.key).collect();
        Binding { agent: self.agent, legacy_phone: self.legacy_phone, devices }
    }

    /// One of its devices.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<&DeviceEntry> {
        self.devices.iter().find(|device| device.key.device() == id)
    }
}

impl TokenEntry {
    /// An entry with nothing used and nobody online.
    #[must_use]
    pub fn new(key: TokenKey, expires_at: Option<u64>, limits: LimitsOverride) -> Self {
        Self {
            key,
            expires_at,
            limits: (!limits.is_empty()).then(|| Box::new(limits)),
            bound: None,
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

    /// The same, bound so.
    #[must_use]
    pub fn with_bound(self, bound: Option<Bound>) -> Self {
        Self { bound: bound.map(Box::new), ..self }
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
