//! The store: tokens and what they used, in one SQLite file.
//!
//! It belongs to the control thread alone, and every call here blocks on the disk. It must never hold a token's text:
//! tokens are stored as SHA-256. What a call that returned `Ok` has written survives `kill -9` and power loss.

pub mod backup;
mod before;
pub mod check;
mod cluster;
mod devices;
mod error;
mod legacy;
#[cfg(test)]
mod legacy_tests;
mod lock;
mod push;
mod schema;
#[cfg(test)]
mod tests;

pub use cluster::{Membership, Revision, SharedToken};
pub use devices::{BoundRow, DeviceRow};
pub use error::{OpenError, StoreError, StoreState};
pub use legacy::Imported;
pub use schema::Opened;

use crate::proto::limits::LimitsOverride;
use crate::proto::quota::{day_of, first_day_of_month, month_of_day};
use crate::proto::token::{TokenHash, TokenId, TokenKey};
use crate::sys::file::{beside, folder_of, tighten};
use lock::StoreLock;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a call waits for another program's lock before it gives up. The control thread is blocked meanwhile.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// A token as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Its place in the order of creation, from 1; never reused. [`Store::create`] gives it.
    pub serial: u64,
    /// What stands for its text.
    pub hash: TokenHash,
    /// For people.
    pub label: Option<String>,
    /// Unix seconds.
    pub created_at: u64,
    /// Unix second from which it admits no more; `None`: never.
    pub expires_at: Option<u64>,
    /// Its own limits.
    pub limits: LimitsOverride,
    /// The store's age, in minutes, when a client registered it; `None`: it has been used since, or the operator made it.
    pub unused_from: Option<u64>,
}

/// What a token used in the current UTC day and month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageSums {
    /// Payload bytes of the day.
    pub day_bytes: u64,
    /// Payload bytes of the month.
    pub month_bytes: u64,
}

/// What was forwarded on one UTC day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DaySum {
    /// Days since 1970-01-01.
    pub day: u32,
    /// Payload bytes.
    pub bytes: u64,
    /// Tokens that used anything.
    pub tokens: u64,
}

/// What a token used since it was last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The token.
    pub key: TokenKey,
    /// The UTC day (days since 1970-01-01) of the bytes.
    pub day: u32,
    /// Payload bytes forwarded.
    pub bytes: u64,
}

/// The open store. Dropping it closes the file and lets it go.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    opened: Opened,
    // After the connection: fields drop in order, and nobody may open the file before it is closed.
    _lock: StoreLock,
}

impl Store {
    /// Opens the store at `path`: makes it, migrates it, or takes over a file of the old Go relay. One that is migrated is
    /// first copied to a file beside it.
    ///
    /// # Errors
    /// Each [`OpenError`] says what to do about it. The file is as it was, or at a whole schema version.
    pub fn open(path: &Path, now_unix_ms: u64) -> Result<Self, OpenError> {
        let directory = folder_of(path);
        if !directory.is_dir() {
            return Err(OpenError::MissingDirectory { path: path.to_owned(), directory: directory.to_owned() });
        }
        let lock = StoreLock::take(path)?;
        create_private(path)?;
        tighten_all(path);
        let sqlite = |e: rusqlite::Error| OpenError::of_sqlite(path, &e);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
        let opened = schema::prepare(&mut connection, path, now_unix_ms)?;
        let store = Self { connection, path: path.to_owned(), opened, _lock: lock };
        store.forget_usage_before(kept_from(day_of(now_unix_ms))).map_err(sqlite)?;
        Ok(store)
    }

    /// What the file was before it was opened.
    #[must_use]
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `visit` with each token that admits at `now_unix_ms`, in order of creation, and its usage in the UTC day
    /// and month of then.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails; tokens before it have been visited.
    pub fn for_each_token(
        &self,
        now_unix_ms: u64,
        mut visit: impl FnMut(TokenRow, UsageSums),
    ) -> Result<(), StoreError> {
        let today = day_of(now_unix_ms);
        let first = first_day_of_month(month_of_day(today));
        let mut statement = self.connection.prepare(
            "SELECT serial, hash, label, created_at, expires_at, limits, unused_from,
                    coalesce((SELECT bytes FROM usage WHERE token = serial AND day = ?2), 0),
                    coalesce((SELECT sum(bytes) FROM usage WHERE token = serial AND day BETWEEN ?1 AND ?2), 0)
             FROM token WHERE expires_at IS NULL OR expires_at > ?3 ORDER BY serial",
        )?;
        let mut rows = statement.query((first, today, integer(now_unix_ms / 1000)))?;
        while let Some(row) = rows.next()? {
            let sums = UsageSums { day_bytes: natural(row.get(7)?), month_bytes: natural(row.get(8)?) };
            visit(token_row(row)?, sums);
        }
        Ok(())
    }

    /// Writes a new token; its serial in `row` is ignored. Returns the one that it got.
    ///
    /// # Errors
    /// [`StoreError::Exists`] for a hash that is there already; else what kept it from being written.
    pub fn create(&mut self, row: &TokenRow) -> Result<u64, StoreError> {
        self.connection
            .prepare_cached(
                "INSERT INTO token (hash, label, created_at, expires_at, limits, unused_from)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute((
                row.hash.0,
                &row.label,
                integer(row.created_at),
                row.expires_at.map(integer),
                limits_text(&row.limits),
                row.unused_from.map(integer),
            ))?;
        Ok(natural(self.connection.last_insert_rowid()))
    }

    /// Takes a token and its usage out; `false` if it is not there.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn revoke(&mut self, hash: &TokenHash) -> Result<bool, StoreError> {
        Ok(self.connection.prepare_cached("DELETE FROM token WHERE hash = ?1")?.execute([hash.0])? != 0)
    }

    /// Writes label, expiry and limits of the token with `row.hash`; `false` if it is not there.
    ///
    /// # Errors
    /// What kept it from being written.
    pub fn update(&mut self, row: &TokenRow) -> Result<bool, StoreError> {
        let changed = self
            .connection
            .prepare_cached("UPDATE token SET label = ?2, expires_at = ?3, limits = ?4 WHERE hash = ?1")?
            .execute((row.hash.0, &row.label, row.expires_at.map(integer), limits_text(&row.limits)))?;
        Ok(changed != 0)
    }

    /// At most `limit` tokens with a serial after `after`, expired ones too, in order of creation.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn list(&self, after: u64, limit: u32) -> Result<Vec<TokenRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT serial, hash, label, created_at, expires_at, limits, unused_from FROM token
             WHERE serial > ?1 ORDER BY serial LIMIT ?2",
        )?;
        let rows = statement.query_map((integer(after), limit), token_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The token with this public name, also when it has expired.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn find(&self, id: TokenId) -> Result<Option<TokenRow>, StoreError> {
        let (from, to) = hashes_with(&id.0.to_be_bytes());
        let mut statement = self.connection.prepare_cached(
            "SELECT serial, hash, label, created_at, expires_at, limits, unused_from FROM token WHERE hash BETWEEN ?1 AND ?2",
        )?;
        Ok(statement.query_row((from, to), token_row).optional()?)
    }

    /// What a token used in the UTC day and month of `now_unix_ms`; nothing for one that is not there.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn usage(&self, serial: u64, now_unix_ms: u64) -> Result<UsageSums, StoreError> {
        let today = day_of(now_unix_ms);
        let mut statement = self.connection.prepare_cached(
            "SELECT coalesce(sum(bytes) FILTER (WHERE day = ?3), 0), coalesce(sum(bytes), 0)
             FROM usage WHERE token = ?1 AND day BETWEEN ?2 AND ?3",
        )?;
        let range = (integer(serial), first_day_of_month(month_of_day(today)), today);
        let read = |row: &Row<'_>| Ok(UsageSums { day_bytes: natural(row.get(0)?), month_bytes: natural(row.get(1)?) });
        Ok(statement.query_row(range, read)?)
    }

    /// At most `limit` days after `after` on which something was used, the first one first: by the token of that
    /// serial, or by all.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn usage_by_day(&self, serial: Option<u64>, after: Option<u64>, limit: u32) -> Result<Vec<DaySum>, StoreError> {
        // A month of very many bytes is more than SQLite's integers hold: `total` gives a float then, which is cut to the
        // largest integer.
        let mut statement = self.connection.prepare_cached(
            "SELECT day, CAST(total(bytes) AS INTEGER), count(*) FROM usage
             WHERE (?1 IS NULL OR token = ?1) AND day > ?2 GROUP BY day ORDER BY day LIMIT ?3",
        )?;
        let read =
            |row: &Row<'_>| Ok(DaySum { day: row.get(0)?, bytes: natural(row.get(1)?), tokens: natural(row.get(2)?) });
        let rows = statement.query_map((serial.map(integer), after.map_or(-1, integer), limit), read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds to what tokens used, in one transaction; tokens that are not there are passed over.
    ///
    /// # Errors
    /// What kept it from being written; then nothing has been added.
    pub fn record_usage(&mut self, usage: &[Usage]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut find = transaction.prepare_cached("SELECT serial FROM token WHERE hash BETWEEN ?1 AND ?2")?;
            // Sums stay in the range of SQLite's integers: one that would leave it stays as it is.
            let mut add = transaction.prepare_cached(
                "INSERT INTO usage (token, day, bytes) VALUES (?1, ?2, ?3)
                 ON CONFLICT (token, day) DO UPDATE
                 SET bytes = bytes + min(excluded.bytes, 9223372036854775807 - bytes)",
            )?;
            // A token's old days go when it is used again, a few at a time and in a page that is at hand.
            let mut forget = transaction.prepare_cached("DELETE FROM usage WHERE token = ?1 AND day < ?2")?;
            for one in usage {
                let range = hashes_with(&one.key.0.to_be_bytes());
                let serial: Option<i64> = find.query_row(range, |row| row.get(0)).optional()?;
                if let Some(serial) = serial {
                    add.execute((serial, one.day, integer(one.bytes)))?;
                    forget.execute((serial, kept_from(one.day)))?;
                }
            }
        }
        Ok(transaction.commit()?)
    }

    /// How long the relay has run with this store, in minutes, as it was last written.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn age(&self) -> Result<u64, StoreError> {
        Ok(self.connection.query_row("SELECT max(minutes) FROM age", [], |row| row.get(0)).map(natural)?)
    }

    /// Writes the store's age, and that these tokens have been used.
    ///
    /// # Errors
    /// What kept it from being written; then nothing has been.
    pub fn mark_used(&mut self, age: u64, used: &[TokenKey]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            transaction.prepare_cached("UPDATE age SET minutes = ?1")?.execute([integer(age)])?;
            let mut mark =
                transaction.prepare_cached("UPDATE token SET unused_from = NULL WHERE hash BETWEEN ?1 AND ?2")?;
            for key in used {
                mark.execute(hashes_with(&key.0.to_be_bytes()))?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// At most `limit` tokens that were registered at this age of the store or before and have never been used, the oldest
    /// first.
    ///
    /// # Errors
    /// [`StoreError`] when reading fails.
    pub fn unused(&self, registered_by: u64, limit: u32) -> Result<Vec<TokenHash>, StoreError> {
        // A token that has forwarded anything was used, whatever else was written.
        let mut statement = self.connection.prepare_cached(
            "SELECT hash FROM token WHERE unused_from <= ?1
             AND NOT EXISTS (SELECT 1 FROM usage WHERE usage.token = serial) ORDER BY unused_from LIMIT ?2",
        )?;
        let rows = statement.query_map((integer(registered_by), limit), |row| row.get(0).map(TokenHash))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Writes something that changes nothing: whether the store can be written again.
    ///
    /// # Errors
    /// What still keeps it from being written.
    pub fn probe(&mut self) -> Result<(), StoreError> {
        Ok(self.connection.pragma_update(None, "user_version", schema::VERSION)?)
    }

    /// Moves the write-ahead log into the file and closes both.
    ///
    /// # Errors
    /// What kept the log from being moved; nothing is lost then, the next start moves it.
    pub fn close(self) -> Result<(), StoreError> {
        truncate_log(&self.connection)?;
        self.connection.close().map_err(|(_, error)| error.into())
    }

    /// Lets go of days that no quota counts any more.
    fn forget_usage_before(&self, day: u32) -> rusqlite::Result<()> {
        self.connection.execute("DELETE FROM usage WHERE day < ?1", [day]).map(drop)
    }

    /// For tests: a bound to the file's size, in pages, so that it fills up.
    #[cfg(test)]
    pub(crate) fn set_pages_max(&self, pages: u32) {
        let set = self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()));
        assert_eq!(set, Ok(()));
    }
}

/// Takes the rights of others off the store's files. Anyone who may open the lock file could hold the lock, and keep the relay
/// from starting; nothing in it is believed, so one that everybody could write will do.
fn tighten_all(path: &Path) {
    // SQLite and the lock go by the file's own name, wherever a symbolic link to it is.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    for suffix in ["", "-wal", "-shm", ".lock"] {
        tighten(&beside(&real, suffix));
    }
}

/// Makes the file readable for its owner alone before SQLite would make it readable for all; SQLite gives the files
/// beside it the same mode.
fn create_private(path: &Path) -> Result<(), OpenError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(OpenError::of_system(path, &error)),
        _ => Ok(()),
    }
}

/// Moves the write-ahead log into the file and empties it.
fn truncate_log(connection: &Connection) -> rusqlite::Result<()> {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    Err(rusqlite::Error::SqliteFailure(code, Some("a reader keeps the write-ahead log".into())))
}

/// The first day that is kept: the month before is still of use to people.
fn kept_from(today: u32) -> u32 {
    first_day_of_month(month_of_day(today).saturating_sub(1))
}

/// The least and the greatest hash that begin with `prefix`.
fn hashes_with(prefix: &[u8]) -> ([u8; 32], [u8; 32]) {
    let (mut from, mut to) = ([0; 32], [0xff; 32]);
    for (at, &byte) in prefix.iter().enumerate().take(32) {
        (from[at], to[at]) = (byte, byte);
    }
    (from, to)
}

fn token_row(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    let limits: Option<String> = row.get(5)?;
    let limits = match limits {
        None => LimitsOverride::default(),
        Some(text) => serde_json::from_str(&text)
            .map_err(|e| rusqlite::Error::FromSqlConversionFailure(5, rusqlite::types::Type::Text, Box::new(e)))?,
    };
    Ok(TokenRow {
        serial: natural(row.get(0)?),
        hash: TokenHash(row.get(1)?),
        label: row.get(2)?,
        created_at: natural(row.get(3)?),
        expires_at: row.get::<_, Option<i64>>(4)?.map(natural),
        limits,
        unused_from: row.get::<_, Option<i64>>(6)?.map(natural),
    })
}

fn limits_text(limits: &LimitsOverride) -> Option<String> {
    // A struct of numbers always has a JSON text; none would mean the operator's limits.
    (!limits.is_empty()).then(|| serde_json::to_string(limits).ok()).flatten()
}

/// SQLite's integers are signed; larger values become the largest.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The store writes no negative number.
fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
