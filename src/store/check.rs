//! Looking at a store without opening it as its owner: for who wants to know whether a relay could.

use super::schema::APPLICATION_ID;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// How long another program's lock is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No file, or an empty one.
    Nothing,
    /// A store, which SQLite finds whole.
    Store {
        /// How many tokens it has.
        tokens: u64,
    },
    /// A store of the Go relay.
    GoRelay,
}

/// Why a relay could not use it.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Another program holds a lock in the file, which may be whole.
    #[error("locked by another program (an open `sqlite3` shell, a backup, the old relay?)")]
    Locked,
    /// SQLite cannot read it.
    #[error("it cannot be read: {0}")]
    Unreadable(rusqlite::Error),
    /// SQLite finds it damaged, or no database at all.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// A database of something else.
    #[error("it is a database of another program")]
    Foreign,
}

impl From<rusqlite::Error> for CheckError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Unreadable(error),
        }
    }
}

/// Looks at the file at `path`, reading all of it; a relay may be using it meanwhile.
///
/// # Errors
/// [`CheckError`].
pub fn check(path: &Path) -> Result<Found, CheckError> {
    if std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
        return Ok(Found::Nothing);
    }
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if said != "ok" {
        return Err(CheckError::Damaged(said));
    }
    let id: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if id == APPLICATION_ID {
        let tokens: i64 = connection.query_row("SELECT count(*) FROM token", [], |row| row.get(0))?;
        return Ok(Found::Store { tokens: u64::try_from(tokens).unwrap_or(0) });
    }
    let of_go = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'tokens'";
    match connection.query_row(of_go, [], |row| row.get(0))? {
        0_i64 => Err(CheckError::Foreign),
        _ => Ok(Found::GoRelay),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use std::fs;

    #[test]
    fn each_kind_of_file_is_told_from_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert_eq!(check(&path("missing.db")).unwrap(), Found::Nothing);
        let store = Store::open(&path("relay.db"), 1_770_000_000_000).unwrap();
        assert_eq!(check(&path("relay.db")).unwrap(), Found::Store { tokens: 0 }, "while a relay uses it");
        drop(store);
        Connection::open(path("go.db")).unwrap().execute_batch("CREATE TABLE tokens (token TEXT, created_at)").unwrap();
        assert_eq!(check(&path("go.db")).unwrap(), Found::GoRelay);
        Connection::open(path("other.db")).unwrap().execute_batch("CREATE TABLE recipes (x)").unwrap();
        assert!(matches!(check(&path("other.db")), Err(CheckError::Foreign)));
        fs::write(path("text.db"), "no database at all, but long enough ".repeat(200)).unwrap();
        assert!(matches!(check(&path("text.db")), Err(CheckError::Damaged(_))));
        let locker = Connection::open(path("go.db")).unwrap();
        locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert!(matches!(check(&path("go.db")), Err(CheckError::Locked)));
        // A page in the middle is overwritten.
        let mut bytes = fs::read(path("relay.db")).unwrap();
        assert!(bytes.len() >= 3 * 4096);
        bytes[4096..8192].fill(0xff);
        fs::write(path("torn.db"), bytes).unwrap();
        assert!(check(&path("torn.db")).is_err());
    }
}
