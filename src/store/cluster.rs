//! What a store knows of the cluster that its tokens are shared with. A store that was never in one has no trace of it.

use super::devices::of_device;
use super::{BoundRow, Store, StoreError, TokenRow, hashes_with, integer, limits_text, natural, token_row};
use crate::proto::device::DeviceId;
use crate::proto::token::{TokenHash, TokenKey};
use rusqlite::OptionalExtension;

/// The cluster that a store is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Its name, 32 hex digits that were drawn when it began.
    pub cluster: String,
    /// The highest serial when it began: those of its own tokens are above.
    pub serial_base: u64,
}

/// All that is shared of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedToken {
    /// The token.
    pub row: TokenRow,
    /// What it is bound to.
    pub bound: Option<BoundRow>,
}

/// How far the store has followed the cluster with one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// Of the last write that is in the store; 0: the cluster has not seen the token yet.
    pub number: u64,
    /// It was the token's revocation.
    pub gone: bool,
}

impl Store {
    /// The cluster that the store is part of, if it is.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn membership(&self) -> Result<Option<Membership>, StoreError> {
        let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'cluster'";
        if !self.connection.prepare(table)?.exists([])? {
            return Ok(None);
        }
        let read = |row: &rusqlite::Row<'_>| Ok(Membership { cluster: row.get(0)?, serial_base: natural(row.get(1)?) });
        Ok(self.connection.query_row("SELECT name, serial_base FROM cluster", [], read).optional()?)
    }

    /// The store is part of a cluster from now on. Tokens that the cluster has not seen are known as such.
    ///
    /// # Errors
    /// What kept it from being written; then nothing has been.
    pub fn join(&mut self, membership: &Membership) -> Result<(), StoreError> {
        let transaction = self.connection.transaction()?;
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS cluster (name TEXT NOT NULL, serial_base INTEGER NOT NULL) STRICT;
             -- How far each token has been followed; rows of revoked ones stay.
             CREATE TABLE IF NOT EXISTS shared (
                 hash     BLOB PRIMARY KEY CHECK (length(hash) = 32),
                 revision INTEGER NOT NULL, -- of the last write; 0: the cluster has not seen it
                 gone     INTEGER NOT NULL CHECK (gone IN (0, 1))
             ) STRICT, WITHOUT ROWID;
             INSERT OR IGNORE INTO shared (hash, revision, gone) SELECT hash, 0, 0 FROM token;
             DELETE FROM cluster;",
        )?;
        let row = (&membership.cluster, integer(membership.serial_base));
        transaction.execute("INSERT INTO cluster (name, serial_base) VALUES (?1, ?2)", row)?;
        Ok(transaction.commit()?)
    }

    /// The highest serial that a token has.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn last_serial(&self) -> Result<u64, StoreError> {
        Ok(self
            .connection
            .query_row("SELECT coalesce(max(serial), 0) FROM token", [], |row| row.get(0))
            .map(natural)?)
    }

    /// Begins a transaction that the writes of [`Store`] on single tokens are part of, until [`Store::commit`] or
    /// [`Store::roll_back`].
    ///
    /// # Errors
    /// What keeps the store from being written.
    pub fn begin(&mut self) -> Result<(), StoreError> {
        Ok(self.connection.execute_batch("BEGIN IMMEDIATE")?)
    }

    /// Ends the transaction: what was written since [`Store::begin`] is on the disk.
    ///
    /// # Errors
    /// What kept it from being written; then nothing has been.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.connection.execute_batch("COMMIT").inspect_err(|_| self.roll_back()).map_err(Into::into)
    }

    /// Ends the transaction: nothing has been written since [`Store::begin`].
    pub fn roll_back(&self) {
        // SQLite may have ended the transaction itself, as with a full disk.
        let _ = self.connection.execute_batch("ROLLBACK");
    }

    /// All that is shared of a token, if it is there.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn shared_token(&self, key: TokenKey) -> Result<Option<SharedToken>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT serial, hash, label, created_at, expires_at, limits, unused_from FROM token WHERE hash BETWEEN ?1 AND ?2",
        )?;
        let row = statement.query_row(hashes_with(&key.0.to_be_bytes()), token_row).optional()?;
        let Some(row) = row else { return Ok(None) };
        let bound = self.binding(row.serial)?;
        Ok(Some(SharedToken { row, bound }))
    }

    /// How far a token has been followed.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn revision(&self, hash: &TokenHash) -> Result<Revision, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT revision, gone FROM shared WHERE hash = ?1")?;
        let read = |row: &rusqlite::Row<'_>| Ok(Revision { number: natural(row.get(0)?), gone: row.get(1)? });
        Ok(statement.query_row([hash.0], read).optional()?.unwrap_or_default())
    }

    /// A token has been followed so far; in the transaction of the write itself.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn set_revision(&mut self, hash: &TokenHash, revision: Revision) -> Result<(), StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("INSERT OR REPLACE INTO shared (hash, revision, gone) VALUES (?1, ?2, ?3)")?;
        statement.execute((hash.0, integer(revision.number), revision.gone))?;
        Ok(())
    }

    /// A token that nothing has been used of gets another serial.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn set_serial(&mut self, hash: &TokenHash, serial: u64) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached("UPDATE token SET serial = ?2 WHERE hash = ?1")?;
        statement.execute((hash.0, integer(serial)))?;
        Ok(())
    }

    /// Writes that a token has been used.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn note_used(&mut self, key: TokenKey) -> Result<(), StoreError> {
        let mut statement =
            self.connection.prepare_cached("UPDATE token SET unused_from = NULL WHERE hash BETWEEN ?1 AND ?2")?;
        statement.execute(hashes_with(&key.0.to_be_bytes()))?;
        Ok(())
    }

    /// Writes that a device has connected, at this time and age of the store.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn note_seen(&mut self, key: TokenKey, device: DeviceId, seen_at: u64, age: u64) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "UPDATE device SET seen_at = ?5, seen_age = ?6
             WHERE token = (SELECT serial FROM token WHERE hash BETWEEN ?1 AND ?2) AND hash BETWEEN ?3 AND ?4",
        )?;
        let [a, b, c, d] = of_device(key, device);
        statement.execute((a, b, c, d, integer(seen_at), integer(age)))?;
        Ok(())
    }

    /// Writes a token as the cluster has it; `age`: the store's. How its devices are woken and what it has used is this
    /// relay's own, and stays.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn replace(&mut self, token: &SharedToken, age: u64) -> Result<(), StoreError> {
        let SharedToken { row, bound } = token;
        self.connection
            .prepare_cached(
                "INSERT INTO token (serial, hash, label, created_at, expires_at, limits, unused_from)
                 VALUES ((SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM token WHERE serial = ?1)), ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (hash) DO UPDATE SET label = excluded.label, created_at = excluded.created_at,
                     expires_at = excluded.expires_at, limits = excluded.limits,
                     unused_from = iif(excluded.unused_from IS NULL, NULL, coalesce(unused_from, excluded.unused_from))",
            )?
            .execute((
                integer(row.serial),
                row.hash.0,
                &row.label,
                integer(row.created_at),
                row.expires_at.map(integer),
                limits_text(&row.limits),
                row.unused_from.map(|_| integer(age)),
            ))?;
        let key = row.hash.key();
        let Some(bound) = bound else { return self.unbind(key) };
        self.bind(key, bound.agent, bound.legacy_phone)?;
        let before = self.shared_token(key)?.and_then(|token| token.bound).map_or_else(Vec::new, |bound| bound.devices);
        for gone in before.iter().filter(|old| bound.devices.iter().all(|new| new.key != old.key)) {
            self.remove_device(key, gone.key.device())?;
        }
        let mut put = self.connection.prepare_cached(
            "INSERT INTO device (token, hash, label, added_at, seen_at, seen_age)
             SELECT serial, ?2, ?3, ?4, ?5, ?6 FROM token WHERE hash = ?1
             ON CONFLICT (token, hash) DO UPDATE SET label = excluded.label, added_at = excluded.added_at,
                 seen_age = iif(seen_at = excluded.seen_at, seen_age, excluded.seen_age), seen_at = excluded.seen_at",
        )?;
        for device in &bound.devices {
            let times = (integer(device.added_at), integer(device.seen_at), integer(age));
            put.execute((row.hash.0, device.key.0, &device.label, times.0, times.1, times.2))?;
        }
        Ok(())
    }

    /// At most `limit` tokens with a hash after `after`, revoked ones too, and how far they have been followed.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn followed(&self, after: &TokenHash, limit: u32) -> Result<Vec<(TokenHash, Revision)>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT hash, revision, gone FROM shared WHERE hash > ?1 ORDER BY hash LIMIT ?2")?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok((TokenHash(row.get(0)?), Revision { number: natural(row.get(1)?), gone: row.get(2)? }))
        };
        let rows = statement.query_map((after.0, limit), read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::device::KeyHash;
    use crate::proto::limits::LimitsOverride;
    use crate::push::PushState;
    use crate::store::{DeviceRow, Usage};

    fn row(name: &str, serial: u64) -> TokenRow {
        let limits = LimitsOverride { phone_per_minute: Some(7), ..LimitsOverride::default() };
        let (hash, label) = (TokenHash::of(name), Some(name.to_owned()));
        TokenRow { serial, hash, label, created_at: 1, expires_at: Some(9), limits, unused_from: Some(3) }
    }

    fn device(n: u8, seen_at: u64) -> DeviceRow {
        DeviceRow { key: KeyHash([n; 32]), label: None, added_at: 1, seen_at, push: PushState::None }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("relay.db"), 0).unwrap();
        (home, store)
    }

    #[test]
    fn a_store_that_joins_knows_which_tokens_the_cluster_has_not_seen() {
        let (home, mut store) = store();
        assert_eq!(store.membership().unwrap(), None);
        let serial = store.create(&row("a", 0)).unwrap();
        let membership = Membership { cluster: "0".repeat(32), serial_base: serial };
        store.join(&membership).unwrap();
        store.set_revision(&TokenHash::of("b"), Revision { number: 7, gone: true }).unwrap();
        drop(store);
        let mut store = Store::open(&home.path().join("relay.db"), 0).unwrap();
        assert_eq!(store.membership().unwrap(), Some(membership.clone()));
        store.create(&row("c", 0)).unwrap();
        store.join(&membership).unwrap();
        let mut followed = store.followed(&TokenHash([0; 32]), 9).unwrap();
        followed.sort_by_key(|(_, revision)| *revision != Revision { number: 7, gone: true });
        assert_eq!(followed[0], (TokenHash::of("b"), Revision { number: 7, gone: true }));
        assert_eq!((followed[1].1, followed[2].1, followed.len()), (Revision::default(), Revision::default(), 3));
    }

    #[test]
    fn a_token_becomes_what_the_cluster_has_and_keeps_what_is_this_relays_own() {
        let (_home, mut store) = store();
        let bound = |devices| Some(BoundRow { agent: KeyHash([9; 32]), legacy_phone: false, devices });
        let key = TokenHash::of("a").key();
        let one = SharedToken { row: row("a", 40), bound: bound(vec![device(1, 5), device(2, 5)]) };
        store.replace(&one, 3).unwrap();
        assert_eq!(store.shared_token(key).unwrap().as_ref(), Some(&one));
        assert!(store.put_push(key, KeyHash([1; 32]).device(), Some("{}")).unwrap());
        store.record_usage(&[Usage { key, day: 1, bytes: 5 }]).unwrap();

        let changed = TokenRow { label: None, expires_at: None, unused_from: Some(99), ..row("a", 41) };
        let two = SharedToken { row: changed.clone(), bound: bound(vec![device(1, 5), device(3, 6)]) };
        store.replace(&two, 8).unwrap();
        let stored = store.shared_token(key).unwrap().unwrap();
        assert_eq!(stored.row, TokenRow { serial: 40, unused_from: Some(3), ..changed }, "serial and age stay");
        let devices = stored.bound.unwrap().devices;
        assert_eq!(devices.iter().map(|one| one.key.0[0]).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(devices[0].push, PushState::Ok);
        assert_eq!(store.unseen(3, 9).unwrap(), [(key, KeyHash([1; 32]).device())], "seen at the age that it was");
        assert_eq!(store.usage(40, 86_400_000).unwrap().day_bytes, 5);

        let used = SharedToken { row: TokenRow { unused_from: None, ..row("a", 40) }, bound: None };
        store.replace(&used, 9).unwrap();
        assert_eq!(store.shared_token(key).unwrap(), Some(used));
        let namesake = SharedToken { row: row("b", 40), bound: None };
        store.replace(&namesake, 9).unwrap();
        let serial = store.shared_token(TokenHash::of("b").key()).unwrap().unwrap().row.serial;
        assert_ne!(serial, 40, "a serial that is taken is not taken away");
    }

    #[test]
    fn what_is_rolled_back_was_never_written() {
        let (_home, mut store) = store();
        store.begin().unwrap();
        store.create(&row("a", 0)).unwrap();
        store.roll_back();
        assert_eq!(store.shared_token(TokenHash::of("a").key()).unwrap(), None);
        store.begin().unwrap();
        store.create(&row("a", 0)).unwrap();
        store.set_serial(&TokenHash::of("a"), 1000).unwrap();
        store.commit().unwrap();
        assert_eq!((store.last_serial().unwrap(), store.create(&row("b", 0)).unwrap()), (1000, 1001));
    }
}
