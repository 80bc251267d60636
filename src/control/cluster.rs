//! Tokens that are shared with other relays. What is written of a token goes to NATS first and then to the store; what
//! others write comes from NATS.
//!
//! A write is tried in the store, sent to NATS, which takes it only if nobody has written the token meanwhile, and then
//! committed: what has been answered is in both. When a connection to NATS begins, all that is there is compared with the
//! store. What NATS does not have, or has only an older state of, was lost there, and is written again.

use super::index::bound_of;
use super::message::Shards;
use super::strangers::Strangers;
use super::{Unavailable, Worker};
use crate::cluster::{Change, Cluster, Event, Put, PutError};
use crate::proto::token::{TokenHash, TokenKey};
use crate::store::{Revision, SharedToken, Store, StoreError};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// When a write is worth trying again while NATS is away.
const AWAY_RETRY_MS: u64 = 5000;
/// When one is that another relay's write has come in the way of.
const CONFLICT_RETRY_MS: u64 = 100;
/// How often a removal is tried which others' writes come in the way of.
const TRIES: usize = 4;
/// Tokens that are written again in one turn.
const REFILL_A_TURN: u32 = 256;

/// What is known of the cluster.
pub(super) struct Sharing {
    pub(super) cluster: Arc<Cluster>,
    pub(super) strangers: Strangers,
    sync: Sync,
}

/// How far store and NATS have been compared since the connection began.
enum Sync {
    /// There is no connection.
    Away,
    /// What NATS has is being read.
    Reading(Compared),
    /// What NATS lacks is being written, in the order of hashes; so far.
    Refilling(Compared, TokenHash),
    /// They are the same.
    Done,
}

/// What NATS has.
#[derive(Default)]
struct Compared {
    there: HashSet<TokenKey>,
    /// Tokens of which it has an older state than the store, and that state's revision.
    behind: HashMap<TokenHash, u64>,
    /// How many it did not have, or not as they are, and has now.
    written: usize,
}

/// Why a token was not written.
enum Unshared {
    Store(StoreError),
    Away,
    Conflict(TokenHash),
}

impl From<StoreError> for Unshared {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Sharing {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, strangers: Strangers::default(), sync: Sync::Away }
    }

    /// Whether there is something to be written again.
    pub(super) fn has_work(&self) -> bool {
        matches!(self.sync, Sync::Refilling(..))
    }
}

/// Writes one token, in the store and in NATS, or in neither.
fn share<T>(
    store: &mut Store,
    cluster: &Cluster,
    key: TokenKey,
    write: &mut impl FnMut(&mut Store) -> Result<T, StoreError>,
) -> Result<T, Unshared> {
    store.begin()?;
    let shared = share_in_transaction(store, cluster, key, write);
    match shared {
        Ok(value) => Ok(store.commit().map(|()| value)?),
        Err(error) => {
            store.roll_back();
            Err(error)
        }
    }
}

fn share_in_transaction<T>(
    store: &mut Store,
    cluster: &Cluster,
    key: TokenKey,
    write: &mut impl FnMut(&mut Store) -> Result<T, StoreError>,
) -> Result<T, Unshared> {
    let before = store.shared_token(key)?;
    let value = write(store)?;
    let token = store.shared_token(key)?;
    if before == token {
        return Ok(value);
    }
    let Some(hash) = token.as_ref().or(before.as_ref()).map(|token| token.row.hash) else { return Ok(value) };
    let known = store.revision(&hash)?;
    let (gone, is_new) = (token.is_none(), before.is_none());
    let put = Put { hash, after: known.number, token, is_new };
    let number = cluster.put(put).map_err(|error| match error {
        PutError::Away => Unshared::Away,
        PutError::Conflict => Unshared::Conflict(hash),
    })?;
    store.set_revision(&hash, Revision { number, gone })?;
    if is_new {
        store.set_serial(&hash, cluster.membership().serial_base.saturating_add(number))?;
    }
    Ok(value)
}

impl<S: Shards, C: Fn() -> u64, R: FnMut() -> [u8; 16]> Worker<S, C, R> {
    /// One write of one token's own state: to the store, and where tokens are shared, to all. Where another relay has
    /// written the token meanwhile, that state is taken in and nothing is written.
    pub(super) fn write_token<T>(
        &mut self,
        now_ms: u64,
        key: TokenKey,
        mut write: impl FnMut(&mut Store) -> Result<T, StoreError>,
    ) -> Result<T, Unavailable> {
        self.write_shared(now_ms, key, &mut write, 1)
    }

    /// As [`Self::write_token`], for what is to happen whatever others have written.
    pub(super) fn write_removal_of<T>(
        &mut self,
        now_ms: u64,
        key: TokenKey,
        mut write: impl FnMut(&mut Store) -> Result<T, StoreError>,
    ) -> Result<T, Unavailable> {
        self.write_shared(now_ms, key, &mut write, TRIES)
    }

    fn write_shared<T>(
        &mut self,
        now_ms: u64,
        key: TokenKey,
        write: &mut impl FnMut(&mut Store) -> Result<T, StoreError>,
        tries: usize,
    ) -> Result<T, Unavailable> {
        if self.sharing.is_none() {
            return self.write(now_ms, write);
        }
        for _ in 0..tries {
            match self.share(key, write) {
                Ok(value) => return self.store_backoff.handle_write(now_ms, Ok(value)),
                Err(Unshared::Store(error)) => return self.store_backoff.handle_write(now_ms, Err(error)),
                Err(Unshared::Away) => return Err(Unavailable { retry_after_ms: AWAY_RETRY_MS }),
                Err(Unshared::Conflict(hash)) => self.take_newest(hash),
            }
        }
        Err(Unavailable { retry_after_ms: CONFLICT_RETRY_MS })
    }

    fn share<T>(
        &mut self,
        key: TokenKey,
        write: &mut impl FnMut(&mut Store) -> Result<T, StoreError>,
    ) -> Result<T, Unshared> {
        let Some(sharing) = &self.sharing else { return Ok(write(&mut self.control.store)?) };
        let (cluster, store) = (&sharing.cluster, &mut self.control.store);
        self.store_backoff.health().timed(|| share(store, cluster, key, write))
    }

    /// Writes a new token. `Ok(None)`: there is one of that hash already.
    pub(super) fn create_shared(
        &mut self,
        now_ms: u64,
        key: TokenKey,
        mut write: impl FnMut(&mut Store) -> Result<u64, StoreError>,
    ) -> Result<Option<u64>, Unavailable> {
        match self.share(key, &mut write) {
            Ok(_) => {
                let stored = self.control.store.shared_token(key);
                let stored = self.store_backoff.handle_write(now_ms, stored)?;
                Ok(stored.map(|token| token.row.serial))
            }
            Err(Unshared::Store(StoreError::Exists) | Unshared::Conflict(_)) => Ok(None),
            Err(Unshared::Store(error)) => self.store_backoff.handle_write(now_ms, Err(error)),
            Err(Unshared::Away) => Err(Unavailable { retry_after_ms: AWAY_RETRY_MS }),
        }
    }

    /// Before a token is revoked that the store does not know: another relay may have made it a moment ago.
    pub(super) fn look_for(&mut self, hash: &TokenHash) {
        if self.sharing.is_some() && matches!(self.control.store.shared_token(hash.key()), Ok(None)) {
            self.take_newest(*hash);
        }
    }

    /// Asks NATS for a token and takes it as it is there.
    fn take_newest(&mut self, hash: TokenHash) {
        let Some(sharing) = &self.sharing else { return };
        // Where it cannot be asked, the next try comes to the same.
        if let Ok(Some(change)) = sharing.cluster.read(hash) {
            self.take(&[change], true);
        }
    }

    /// What the cluster's thread says.
    pub(super) fn handle_cluster(&mut self, event: Event) {
        let Some(sharing) = &mut self.sharing else { return };
        match event {
            Event::Begun => sharing.sync = Sync::Reading(Compared::default()),
            Event::Changes(changes) => self.take(&changes, false),
            Event::Current(question) => self.handle_current(question),
            Event::Read => {
                if let Sync::Reading(compared) = &mut sharing.sync {
                    sharing.sync = Sync::Refilling(std::mem::take(compared), TokenHash([0; 32]));
                }
            }
        }
    }

    /// Takes tokens as they are in NATS: into the store, then into the directory. Those that the store has a newer state
    /// of stay, unless that is not asked.
    fn take(&mut self, changes: &[Change], whatever_is_here: bool) {
        let now_ms = self.now_ms();
        let mut fresh = Vec::new();
        for change in changes {
            // Where it cannot be read, it is written.
            let known = self.control.store.revision(&change.hash).unwrap_or_default();
            if let Some(Sharing { sync: Sync::Reading(compared) | Sync::Refilling(compared, _), .. }) =
                &mut self.sharing
            {
                compared.there.insert(change.hash.key());
                if known.number > change.revision {
                    compared.behind.insert(change.hash, change.revision);
                } else {
                    compared.behind.remove(&change.hash);
                }
            }
            if whatever_is_here || known.number < change.revision {
                fresh.push(change);
            }
        }
        if fresh.is_empty() {
            return;
        }
        let age = self.age.minutes();
        let stored = self.write(now_ms, |store| {
            store.begin()?;
            let stored = fresh.iter().try_for_each(|change| take_one(store, change, age));
            match stored {
                Ok(()) => store.commit(),
                Err(error) => {
                    store.roll_back();
                    Err(error)
                }
            }
        });
        for change in &fresh {
            match &change.token {
                None => {
                    if self.shut_out(change.hash.key()) {
                        tracing::info!(id = %change.hash.key().id(), "token revoked by another relay");
                    }
                }
                Some(_) if stored.is_ok() => self.readmit(change.hash.key(), now_ms),
                // Taken in when NATS is read again.
                Some(_) => {}
            }
        }
        if let (Err(_), Some(sharing)) = (stored, &self.sharing) {
            sharing.cluster.begin_again();
        }
    }

    /// Gives a token the entry in the directory that its state in the store asks for.
    fn readmit(&mut self, key: TokenKey, now_ms: u64) {
        let stored = self.control.store.shared_token(key);
        let Ok(Some(SharedToken { row, bound })) = self.store_backoff.handle_read(now_ms, stored) else { return };
        if row.expires_at.is_some_and(|at| at <= now_ms / 1000) {
            self.shut_out(key);
            return;
        }
        if self.admits_as(&row, bound.as_ref()) {
            return;
        }
        self.devices_changed = true;
        let admitted = self.used(&row, now_ms).and_then(|sums| self.admit(&row, bound.map(bound_of), sums, now_ms));
        if admitted.is_err() {
            tracing::error!(id = %key.id(), "a token of another relay cannot be taken in");
        }
    }

    /// Writes some of what NATS lacks.
    pub(super) fn refill(&mut self, now_ms: u64) {
        let Some(sharing) = &mut self.sharing else { return };
        let Sync::Refilling(compared, after) = &mut sharing.sync else { return };
        let followed = self.control.store.followed(after, REFILL_A_TURN);
        let Ok(followed) = self.store_backoff.handle_read(now_ms, followed) else { return };
        let Some(&(last, _)) = followed.last() else {
            let written = compared.written;
            sharing.sync = Sync::Done;
            sharing.cluster.state().set_synced();
            tracing::info!(tokens = self.control.index.len(), written, "the store and NATS have the same tokens");
            return;
        };
        *after = last;
        let mut puts = Vec::new();
        for (hash, revision) in followed {
            let after = match compared.behind.remove(&hash) {
                Some(older) => older,
                None if compared.there.contains(&hash.key()) => continue,
                None => 0,
            };
            // Where it cannot be read, that has been noted, and the next connection tries again.
            let Ok(token) = self.control.store.shared_token(hash.key()) else { continue };
            if token.is_some() != revision.gone {
                puts.push((Put { hash, after, token, is_new: false }, revision.gone));
            }
        }
        self.put_again(now_ms, puts);
    }

    fn put_again(&mut self, now_ms: u64, puts: Vec<(Put, bool)>) {
        let Some(sharing) = self.sharing.as_mut().filter(|_| !puts.is_empty()) else { return };
        let (puts, written): (Vec<_>, Vec<_>) = puts.into_iter().map(|(put, gone)| ((put.hash, gone), put)).unzip();
        let written = sharing.cluster.put_all(written);
        if written.contains(&Err(PutError::Away)) {
            // The next connection begins anew.
            sharing.sync = Sync::Away;
            sharing.cluster.begin_again();
        }
        let (mut conflicts, mut revisions) = (Vec::new(), Vec::new());
        for ((hash, gone), result) in puts.into_iter().zip(written) {
            match result {
                Ok(number) => revisions.push((hash, Revision { number, gone })),
                Err(PutError::Conflict) => conflicts.push(hash),
                Err(PutError::Away) => {}
            }
        }
        if let Some(Sharing { sync: Sync::Refilling(compared, _), .. }) = &mut self.sharing {
            compared.written += revisions.len();
        }
        // Where that fails, they are compared again with the next connection.
        let _ = self.write(now_ms, |store| {
            store.begin()?;
            revisions.iter().try_for_each(|(hash, revision)| store.set_revision(hash, *revision))?;
            store.commit()
        });
        for hash in conflicts {
            self.take_newest(hash);
        }
    }
}

fn take_one(store: &mut Store, change: &Change, age: u64) -> Result<(), StoreError> {
    match &change.token {
        Some(token) => store.replace(token, age)?,
        None => drop(store.revoke(&change.hash)?),
    }
    store.set_revision(&change.hash, Revision { number: change.revision, gone: change.token.is_none() })
}
