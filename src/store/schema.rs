//! The tables, how a file is told to be ours, and the ordered steps from each version to the next.

use super::error::OpenError;
use super::{before, legacy};
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;

/// `CMXR`: marks an SQLite file as a relay's store.
pub(super) const APPLICATION_ID: i64 = 0x434d_5852;

/// Step `n` leads from version `n` to `n + 1`. Never edit a step that was released.
pub(super) const STEPS: [&str; 4] = [
    "
    CREATE TABLE token (
        serial     INTEGER PRIMARY KEY AUTOINCREMENT, -- order of creation, never reused: the API pages by it
        hash       BLOB NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256 of the token
        label      TEXT,
        created_at INTEGER NOT NULL, -- Unix seconds
        expires_at INTEGER,          -- Unix seconds; NULL: never
        limits     TEXT              -- JSON; NULL: the operator's
    ) STRICT;
    CREATE TABLE usage (
        token INTEGER NOT NULL REFERENCES token (serial) ON DELETE CASCADE,
        day   INTEGER NOT NULL, -- UTC, days since 1970-01-01
        bytes INTEGER NOT NULL CHECK (bytes >= 0),
        PRIMARY KEY (token, day)
    ) STRICT, WITHOUT ROWID;
",
    "
    -- The store's age when the token was registered, in minutes; NULL: it was used, or the operator made it, or it is from
    -- before this column.
    ALTER TABLE token ADD COLUMN unused_from INTEGER;
    CREATE INDEX token_unused ON token (unused_from) WHERE unused_from IS NOT NULL;
    -- How long the relay has run with this store: no clock that jumps makes tokens older.
    CREATE TABLE age (minutes INTEGER NOT NULL) STRICT;
    INSERT INTO age (minutes) VALUES (0);
",
    "
    -- Tokens that admit only their agent's key and whom that admits.
    CREATE TABLE binding (
        token        INTEGER PRIMARY KEY REFERENCES token (serial) ON DELETE CASCADE,
        agent        BLOB NOT NULL CHECK (length(agent) = 32), -- SHA-256 of the agent's key
        legacy_phone INTEGER NOT NULL CHECK (legacy_phone IN (0, 1))
    ) STRICT;
    CREATE TABLE device (
        token    INTEGER NOT NULL REFERENCES binding (token) ON DELETE CASCADE,
        hash     BLOB NOT NULL CHECK (length(hash) = 32), -- SHA-256 of the device's key
        label    TEXT,
        added_at INTEGER NOT NULL, -- Unix seconds
        seen_at  INTEGER NOT NULL, -- Unix seconds, of the first time on a day
        seen_age INTEGER NOT NULL, -- the store's age then, in minutes
        PRIMARY KEY (token, hash)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX device_seen ON device (seen_age);
",
    "
    -- How devices are woken.
    CREATE TABLE push (
        token        INTEGER NOT NULL,
        device       BLOB NOT NULL,
        state        TEXT NOT NULL CHECK (state IN ('ok', 'gone', 'refused')),
        subscription TEXT, -- JSON; NULL: it is gone
        PRIMARY KEY (token, device),
        FOREIGN KEY (token, device) REFERENCES device (token, hash) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    -- Keys of the relay's own.
    CREATE TABLE secret (
        name  TEXT PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
",
];

/// The newest version that this program knows.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// What the store was before it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// New or empty: made.
    Made,
    /// A store of this relay, at this schema version before.
    Found {
        /// Its version before migrations.
        version: i64,
    },
    /// A file of the old Go relay, taken over.
    Imported(legacy::Imported),
}

/// What kind of file it is, from what it says of itself.
pub(super) enum Kind {
    Empty,
    /// A store of this relay, at this schema version.
    Ours(i64),
    /// The old Go relay's.
    Legacy,
}

/// Brings an open file to [`VERSION`]: makes, migrates or imports it. What is migrated is kept as it was, beside it.
pub(super) fn prepare(connection: &mut Connection, path: &Path, now_unix_ms: u64) -> Result<Opened, OpenError> {
    let sqlite = |e: rusqlite::Error| OpenError::of_sqlite(path, &e);
    let kind = recognize(connection, path)?;
    check_pages(connection, path)?;
    set_up(connection).map_err(sqlite)?;
    let opened = match kind {
        Kind::Ours(version) => {
            if version < VERSION {
                before::keep(path)?;
            }
            migrate(connection, version).map_err(sqlite)?;
            Opened::Found { version }
        }
        Kind::Empty => {
            migrate(connection, 0).map_err(sqlite)?;
            Opened::Made
        }
        Kind::Legacy => {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(sqlite)?;
            transaction.execute_batch(STEPS[0]).map_err(sqlite)?;
            let imported = legacy::import(&transaction, now_unix_ms).map_err(sqlite)?;
            mark(&transaction, 1).map_err(sqlite)?;
            transaction.commit().map_err(sqlite)?;
            migrate(connection, 1).map_err(sqlite)?;
            Opened::Imported(imported)
        }
    };
    // Also after a crash between the import and its end.
    legacy::scrub_if_due(connection).map_err(sqlite)?;
    Ok(opened)
}

/// The settings of each connection.
fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    // Readers such as a backup with `sqlite3 … .backup` do not block the writer.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // A token whose 201 was sent must survive a power loss: each commit waits for the disk.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)
}

/// Tells what kind of file it is. Changes nothing.
pub(super) fn recognize(connection: &Connection, path: &Path) -> Result<Kind, OpenError> {
    let sqlite = |e: rusqlite::Error| OpenError::of_sqlite(path, &e);
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(sqlite);
    let (application, version) = (number("application_id")?, number("user_version")?);
    if application == APPLICATION_ID {
        return if version > VERSION {
            Err(OpenError::Newer { path: path.to_owned(), found: version, known: VERSION })
        } else {
            Ok(Kind::Ours(version.max(0)))
        };
    }
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").map_err(sqlite)?;
    let names = tables.query_map([], |row| row.get::<_, String>(0)).map_err(sqlite)?;
    let names = names.collect::<Result<Vec<_>, _>>().map_err(sqlite)?;
    if application == 0 && legacy::is_legacy(connection, &names).map_err(sqlite)? {
        Ok(Kind::Legacy)
    } else if application == 0 && version == 0 && names.is_empty() {
        Ok(Kind::Empty)
    } else {
        Err(OpenError::Foreign { path: path.to_owned() })
    }
}

/// Finds damage before anything is built on it.
pub(super) fn check_pages(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let said = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match said {
        Ok(said) if said == "ok" => Ok(()),
        Ok(detail) => Err(OpenError::Corrupt { path: path.to_owned(), detail }),
        Err(error) => Err(OpenError::of_sqlite(path, &error)),
    }
}

/// Runs the steps from `version` on in one transaction: the file is at `version` or at [`VERSION`].
fn migrate(connection: &mut Connection, version: i64) -> rusqlite::Result<()> {
    if version == VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    for step in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    mark(&transaction, VERSION)?;
    transaction.commit()
}

/// Says in the file whose it is and which version; part of the transaction around it.
pub(super) fn mark(connection: &Connection, version: i64) -> rusqlite::Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", version)
}
