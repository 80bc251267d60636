//! The mailbox's file: one SQLite database beside the store. Every call blocks on the disk. What a call that returned `Ok` has
//! written survives `kill -9` and power loss.

use super::calls::Waiting;
use super::message::{Found, Keep, PageRead};
use crate::proto::device::DeviceId;
use crate::proto::frame::Opcode;
use crate::proto::token::TokenKey;
use crate::session::message::frame_of;
use crate::session::{Party, Pile};
use crate::store::StoreError;
use crate::sys::file::{beside, tighten};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the file says it is: `CMml`, in SQLite's header.
const APPLICATION_ID: i64 = 0x434d_6d6c;
const VERSION: i64 = 1;

/// How long a call waits for another program's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// A page has so many messages at the most.
const PAGE_MESSAGES_MAX: u32 = 32;
/// It has one at the least, and no further one that takes it beyond so many bytes.
const PAGE_BYTES_MAX: usize = 64 << 10;
/// Messages that expire in one transaction at the most.
pub(super) const EXPIRED_MAX: u32 = 1024;
/// Free pages that are given back to the file system at a time.
const FREED_PAGES: u32 = 1024;

const SCHEMA: &str = "
    CREATE TABLE message (
        seq    INTEGER PRIMARY KEY AUTOINCREMENT, -- appended at the end of the tree; never used again
        token  BLOB NOT NULL,    -- the first half of the SHA-256 of the token's text
        device INTEGER NOT NULL, -- for whom: 0, the agent; else the device id
        sender INTEGER NOT NULL, -- from whom, likewise
        at     INTEGER NOT NULL, -- Unix second of the wall clock, for people
        until  INTEGER NOT NULL, -- second of the mailbox's own clock from which it is not delivered any more
        bytes  INTEGER NOT NULL,
        wake   INTEGER NOT NULL,
        frame  BLOB NOT NULL     -- the message, as it came
    ) STRICT;
    CREATE INDEX receiver ON message (token, device, seq, sender, bytes, at);
    CREATE INDEX age ON message (until);
    -- Expired since the receiver was last here.
    CREATE TABLE lost (
        token  BLOB NOT NULL,
        device INTEGER NOT NULL,
        count  INTEGER NOT NULL,
        PRIMARY KEY (token, device)
    ) STRICT, WITHOUT ROWID;
    -- The mailbox's own clock, and the wall clock at the same time.
    CREATE TABLE clock (told INTEGER NOT NULL, wall INTEGER NOT NULL) STRICT;
";

/// The open file.
pub(super) struct File {
    connection: Connection,
    path: PathBuf,
    inode: (u64, u64),
}

/// What one transaction deletes and adds.
pub(super) struct Batch<'a> {
    transaction: rusqlite::Transaction<'a>,
}

impl File {
    /// Opens the file at `path`, and makes it where it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        create_private(path)?;
        for suffix in ["", "-wal", "-shm"] {
            tighten(&beside(path, suffix));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let number = |connection: &Connection, pragma: &str| {
            connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
        };
        let (application, version) = (number(&connection, "application_id")?, number(&connection, "user_version")?);
        if (application, version) != (0, 0) && application != APPLICATION_ID {
            return Err(StoreError::Corrupt(format!("{} is a file of another program", path.display())));
        }
        if version > VERSION {
            return Err(StoreError::Corrupt(format!("{} was written by a newer relay", path.display())));
        }
        if version == 0 {
            // Before the first table, or it has no effect.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        if version == 0 {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
        }
        let inode = inode_of(path).ok_or_else(|| StoreError::Io(format!("{} is gone", path.display())))?;
        Ok(Self { connection, path: path.to_owned(), inode })
    }

    /// Which file it is, whatever its name is now.
    pub(super) fn inode(&self) -> (u64, u64) {
        self.inode
    }

    /// Whether the name is that of another file now, or of none.
    pub(super) fn is_replaced(&self) -> bool {
        inode_of(&self.path) != Some(self.inode)
    }

    /// Whether it is still the file of that name: what is written to one that was removed is lost.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        // SQLite makes the log anew in a file that was removed under it only when it is opened anew.
        let has_log = beside(&self.path, "-wal").exists();
        if inode_of(&self.path) == Some(self.inode) && has_log {
            return Ok(());
        }
        Err(StoreError::Io(format!("{} was removed or replaced while it was open", self.path.display())))
    }

    pub(super) fn begin(&mut self) -> Result<Batch<'_>, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Ok(Batch { transaction })
    }

    /// Calls `visit` with what is in it, by receiver and sender.
    pub(super) fn for_each(&self, mut visit: impl FnMut(Found)) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT token, device, sender, count(*), sum(bytes), max(seq), max(bytes) FROM message
             GROUP BY token, device, sender",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let pile = Pile { messages: natural(row, 3)?, bytes: natural(row, 4)? };
            visit(Found {
                key: key_of(row, 0)?,
                to: party_of(row.get(1)?),
                from: party_of(row.get(2)?),
                pile,
                newest: natural(row, 5)?,
                longest: natural(row, 6)?,
            });
        }
        Ok(())
    }

    /// Calls `visit` with how many messages each receiver has lost.
    pub(super) fn for_each_lost(&self, mut visit: impl FnMut(TokenKey, Party, u64)) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare("SELECT token, device, count FROM lost")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            visit(key_of(row, 0)?, party_of(row.get(1)?), natural(row, 2)?);
        }
        Ok(())
    }

    /// Messages in it, and their bytes.
    pub(super) fn sizes(&self) -> Result<(u64, u64), StoreError> {
        let sql = "SELECT count(*), coalesce(sum(bytes), 0) FROM message INDEXED BY receiver";
        Ok(self.connection.query_row(sql, [], |row| Ok((natural(row, 0)?, natural(row, 1)?)))?)
    }

    /// For whom something waits, of a token or of all: at most `limit` receivers, those first for whom most bytes do.
    pub(super) fn waiting(&self, key: Option<TokenKey>, limit: u32) -> Result<Vec<Waiting>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT token, device, count(*), sum(bytes), min(at) FROM message INDEXED BY receiver
             WHERE ?1 IS NULL OR token = ?1 GROUP BY token, device ORDER BY sum(bytes) DESC LIMIT ?2",
        )?;
        let read = |row: &Row<'_>| {
            let pile = Pile { messages: natural(row, 2)?, bytes: natural(row, 3)? };
            Ok(Waiting { key: key_of(row, 0)?, of: party_of(row.get(1)?), pile, oldest_at: natural(row, 4)? })
        };
        let rows = statement.query_map((key.map(|key| key.0.to_be_bytes()), limit), read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Reads a page of what waits for a receiver.
    pub(super) fn read(&self, key: TokenKey, of: Party, after: u64) -> Result<PageRead, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, frame FROM message WHERE token = ?1 AND device = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4",
        )?;
        let of = number_of(of);
        let mut rows = statement.query((key.0.to_be_bytes(), of, integer(after), PAGE_MESSAGES_MAX))?;
        let mut page = PageRead { upto: after, ..PageRead::default() };
        while let Some(row) = rows.next()? {
            let message = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            if page.messages != 0 && page.frames.len() + message.len() > PAGE_BYTES_MAX {
                break;
            }
            page.frames.extend_from_slice(&frame_of(Opcode::Text, message));
            page.messages += 1;
            page.upto = natural(row, 0)?;
        }
        let mut count = self
            .connection
            .prepare_cached("SELECT count(*) FROM message WHERE token = ?1 AND device = ?2 AND seq > ?3")?;
        page.left = count.query_row((key.0.to_be_bytes(), of, integer(page.upto)), |row| natural(row, 0))?;
        Ok(page)
    }

    /// The clock as it was last saved: its own time, and the wall clock's.
    pub(super) fn clock(&self) -> Result<Option<(u64, u64)>, StoreError> {
        let read = |row: &Row<'_>| Ok((natural(row, 0)?, natural(row, 1)?));
        Ok(self.connection.query_row("SELECT told, wall FROM clock", [], read).optional()?)
    }

    /// Gives pages back to the file system that nothing is in any more.
    pub(super) fn shrink(&self) -> Result<(), StoreError> {
        let free: u32 = self.connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
        if free > FREED_PAGES {
            self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({FREED_PAGES})"))?;
        }
        Ok(())
    }

    /// Moves the log into the file and closes both.
    pub(super) fn close(self) -> Result<(), StoreError> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        self.connection.close().map_err(|(_, error)| error.into())
    }
}

impl Batch<'_> {
    /// Adds a message; its number.
    pub(super) fn keep(&self, keep: &Keep, told: u64, wall: u64) -> Result<u64, StoreError> {
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO message (token, device, sender, at, until, bytes, wake, frame)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        insert.execute((
            keep.key.0.to_be_bytes(),
            number_of(keep.to),
            number_of(keep.from),
            integer(wall),
            integer(told.saturating_add(keep.age_max_sec)),
            integer(keep.message.len() as u64),
            keep.wake,
            &keep.message,
        ))?;
        Ok(u64::try_from(self.transaction.last_insert_rowid()).unwrap_or(0))
    }

    /// Deletes a receiver's messages up to a number, and takes so many off those that it has lost. How many of each sender
    /// there were.
    pub(super) fn delete(
        &self,
        key: TokenKey,
        of: Party,
        upto: u64,
        lost: u64,
    ) -> Result<Vec<(Party, Pile)>, StoreError> {
        let (token, device) = (key.0.to_be_bytes(), number_of(of));
        if lost != 0 {
            self.transaction
                .prepare_cached("UPDATE lost SET count = count - ?3 WHERE token = ?1 AND device = ?2")?
                .execute((token, device, integer(lost)))?;
            self.transaction
                .prepare_cached("DELETE FROM lost WHERE token = ?1 AND device = ?2 AND count <= 0")?
                .execute((token, device))?;
        }
        let mut sums = self.transaction.prepare_cached(
            "SELECT sender, count(*), sum(bytes) FROM message
             WHERE token = ?1 AND device = ?2 AND seq <= ?3 GROUP BY sender",
        )?;
        let read =
            |row: &Row<'_>| Ok((party_of(row.get(0)?), Pile { messages: natural(row, 1)?, bytes: natural(row, 2)? }));
        let removed = sums.query_map((token, device, integer(upto)), read)?.collect::<Result<Vec<_>, _>>()?;
        if !removed.is_empty() {
            self.transaction
                .prepare_cached("DELETE FROM message WHERE token = ?1 AND device = ?2 AND seq <= ?3")?
                .execute((token, device, integer(upto)))?;
        }
        Ok(removed)
    }

    /// Deletes all that is for a party, and all that it has sent; with `None` all of the token. How much of it was for somebody
    /// else, and how much it was in all.
    pub(super) fn forget(&self, key: TokenKey, of: Option<Party>) -> Result<(Vec<(Party, Pile)>, Pile), StoreError> {
        let token = key.0.to_be_bytes();
        let device = of.map(number_of);
        // What the agent has sent is not its own: it is for the devices.
        let sender = device.filter(|&device| device != 0);
        let mut sums = self.transaction.prepare_cached(
            "SELECT device, count(*), sum(bytes) FROM message
             WHERE token = ?1 AND (?2 IS NULL OR device = ?2 OR sender = ?3) GROUP BY device",
        )?;
        let read =
            |row: &Row<'_>| Ok((party_of(row.get(0)?), Pile { messages: natural(row, 1)?, bytes: natural(row, 2)? }));
        let removed = sums.query_map((token, device, sender), read)?.collect::<Result<Vec<_>, _>>()?;
        self.transaction
            .prepare_cached("DELETE FROM message WHERE token = ?1 AND (?2 IS NULL OR device = ?2 OR sender = ?3)")?
            .execute((token, device, sender))?;
        self.transaction
            .prepare_cached("DELETE FROM lost WHERE token = ?1 AND (?2 IS NULL OR device = ?2)")?
            .execute((token, device))?;
        let all = removed.iter().fold(Pile::default(), |all, (_, pile)| Pile {
            messages: all.messages + pile.messages,
            bytes: all.bytes + pile.bytes,
        });
        let others = removed.into_iter().filter(|(party, _)| Some(*party) != of && of.is_some()).collect();
        Ok((others, all))
    }

    /// Deletes what waits for a receiver, or for all of a token, and notes that they have lost it: for whom, from whom, how
    /// much.
    pub(super) fn empty(&self, key: TokenKey, of: Option<Party>) -> Result<Vec<(Party, Party, Pile)>, StoreError> {
        let (token, device) = (key.0.to_be_bytes(), of.map(number_of));
        let mut sums = self.transaction.prepare_cached(
            "SELECT device, sender, count(*), sum(bytes) FROM message
             WHERE token = ?1 AND (?2 IS NULL OR device = ?2) GROUP BY device, sender",
        )?;
        let read = |row: &Row<'_>| {
            let pile = Pile { messages: natural(row, 2)?, bytes: natural(row, 3)? };
            Ok((party_of(row.get(0)?), party_of(row.get(1)?), pile))
        };
        let removed = sums.query_map((token, device), read)?.collect::<Result<Vec<_>, _>>()?;
        self.transaction
            .prepare_cached("DELETE FROM message WHERE token = ?1 AND (?2 IS NULL OR device = ?2)")?
            .execute((token, device))?;
        let mut lose = self.transaction.prepare_cached(
            "INSERT INTO lost (token, device, count) VALUES (?1, ?2, ?3)
             ON CONFLICT (token, device) DO UPDATE SET count = count + excluded.count",
        )?;
        for (to, _, pile) in &removed {
            lose.execute((token, number_of(*to), integer(pile.messages)))?;
        }
        Ok(removed)
    }

    /// Deletes messages that have expired, the oldest first: for whom, from whom and how long each was.
    pub(super) fn expire(&self, told: u64) -> Result<Vec<(TokenKey, Party, Party, u64)>, StoreError> {
        let mut expired = self.transaction.prepare_cached(
            "SELECT seq, token, device, sender, bytes FROM message WHERE until <= ?1 ORDER BY until LIMIT ?2",
        )?;
        let read = |row: &Row<'_>| {
            let party = (key_of(row, 1)?, party_of(row.get(2)?), party_of(row.get(3)?), natural(row, 4)?);
            Ok((row.get::<_, i64>(0)?, party))
        };
        let expired = expired.query_map((integer(told), EXPIRED_MAX), read)?.collect::<Result<Vec<_>, _>>()?;
        let mut delete = self.transaction.prepare_cached("DELETE FROM message WHERE seq = ?1")?;
        let mut lose = self.transaction.prepare_cached(
            "INSERT INTO lost (token, device, count) VALUES (?1, ?2, 1)
             ON CONFLICT (token, device) DO UPDATE SET count = count + 1",
        )?;
        for (seq, (key, to, ..)) in &expired {
            delete.execute([seq])?;
            lose.execute((key.0.to_be_bytes(), number_of(*to)))?;
        }
        Ok(expired.into_iter().map(|(_, one)| one).collect())
    }

    /// Saves the clock.
    pub(super) fn save_clock(&self, (told, wall): (u64, u64)) -> Result<(), StoreError> {
        self.transaction.prepare_cached("DELETE FROM clock")?.execute([])?;
        self.transaction
            .prepare_cached("INSERT INTO clock (told, wall) VALUES (?1, ?2)")?
            .execute((integer(told), integer(wall)))?;
        Ok(())
    }

    /// Puts all of it on the disk.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit()?)
    }
}

/// Makes an empty file that nobody else may read, unless there is one.
fn create_private(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
    made.map(drop).map_err(|error| match error.kind() {
        StorageFull => StoreError::DiskFull,
        PermissionDenied | ReadOnlyFilesystem => StoreError::ReadOnly,
        _ => StoreError::Io(format!("{}: {error}", path.display())),
    })
}

fn inode_of(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// A party as the file has it.
fn number_of(party: Party) -> i64 {
    match party {
        Party::Agent => 0,
        Party::Device(DeviceId(id)) => id.cast_signed(),
    }
}

fn party_of(number: i64) -> Party {
    match number {
        0 => Party::Agent,
        id => Party::Device(DeviceId(id.cast_unsigned())),
    }
}

fn key_of(row: &Row<'_>, column: usize) -> rusqlite::Result<TokenKey> {
    Ok(TokenKey(u128::from_be_bytes(row.get(column)?)))
}

fn natural(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
