//! A copy of the store while it is in use, as it was at one moment (SQLite's online backup).

use super::error::StoreError;
use crate::sys::file::{beside, make_anew, put_in_place};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Pages copied between two looks at how far it is.
const PAGES_A_STEP: i32 = 256;
/// How long another program's lock is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How far a copy has come; anyone may look.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    pages: AtomicU64,
}

impl Progress {
    /// Pages copied, and pages in all.
    #[must_use]
    pub fn pages(&self) -> (u64, u64) {
        (self.done.load(Relaxed), self.pages.load(Relaxed))
    }
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Reading the store or writing the copy failed in SQLite.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file could not be made, or not be made to last.
    #[error("the file cannot be written: {0}")]
    Io(#[from] std::io::Error),
}

/// Copies the store at `from` to a new file `to`, readable for its owner alone; returns its bytes. It has its own
/// connection and keeps one read transaction, so that writers go on and the copy is of one moment. Blocks for as long as
/// the disk takes. `to` is there with all of it, or not at all.
///
/// # Errors
/// [`BackupError`]; what was begun is removed.
pub fn copy(from: &Path, to: &Path, progress: &Progress) -> Result<u64, BackupError> {
    let part = beside(to, ".part");
    let made = copy_to(from, &part, progress).and_then(|bytes| {
        put_in_place(&part, to)?;
        Ok(bytes)
    });
    if made.is_err() {
        let _ = fs::remove_file(&part);
    }
    made
}

fn copy_to(from: &Path, part: &Path, progress: &Progress) -> Result<u64, BackupError> {
    let sqlite = |error: rusqlite::Error| BackupError::Store(error.into());
    make_anew(part)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(part, flags).map_err(sqlite)?;
    let source = Connection::open_with_flags(from, flags).map_err(sqlite)?;
    source.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    // The transaction holds the moment: else each write of the relay would begin the copy anew.
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(sqlite)?;
    {
        let backup = Backup::new(&source, &mut copy).map_err(sqlite)?;
        loop {
            let step = backup.step(PAGES_A_STEP).map_err(sqlite)?;
            let so_far = backup.progress();
            let (pages, left) = (so_far.pagecount.max(0) as u64, so_far.remaining.max(0) as u64);
            progress.pages.store(pages, Relaxed);
            progress.done.store(pages - left.min(pages), Relaxed);
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
    source.execute_batch("COMMIT").map_err(sqlite)?;
    copy.close().map_err(|(_, error)| sqlite(error))?;
    Ok(fs::metadata(part)?.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::limits::LimitsOverride;
    use crate::proto::token::TokenHash;
    use crate::store::{Store, TokenRow};

    const NOW_MS: u64 = 1_770_000_000_000;

    fn fill(store: &mut Store, tokens: std::ops::Range<u64>) {
        for number in tokens {
            let row = TokenRow {
                serial: 0,
                hash: TokenHash::of(&number.to_string()),
                label: Some("x".repeat(2000)),
                created_at: 1,
                expires_at: None,
                limits: LimitsOverride::default(),
                unused_from: None,
            };
            store.create(&row).unwrap();
        }
    }

    #[test]
    fn a_copy_of_a_store_in_use_opens_and_has_all_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("relay.db"), directory.path().join("x.backup"));
        let mut store = Store::open(&from, NOW_MS).unwrap();
        fill(&mut store, 0..1000);
        let progress = Progress::default();
        let bytes = copy(&from, &to, &progress).unwrap();
        let (done, pages) = progress.pages();
        assert!(done == pages && pages > 2 * PAGES_A_STEP as u64 && bytes == pages * 4096, "{done} {pages} {bytes}");
        fill(&mut store, 1000..1001);
        let copied = Store::open(&to, NOW_MS).unwrap();
        assert_eq!(copied.list(0, 2000).unwrap().len(), 1000);
        assert_eq!(store.list(0, 2000).unwrap().len(), 1001);
        assert!(!directory.path().join("x.backup.part").exists());
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("relay.db");
        drop(Store::open(&from, NOW_MS).unwrap());
        let to = directory.path().join("taken.backup");
        fs::create_dir(&to).unwrap();
        assert!(matches!(copy(&from, &to, &Progress::default()), Err(BackupError::Io(_))));
        assert!(!directory.path().join("taken.backup.part").exists());
        let missing = directory.path().join("missing.db");
        assert!(matches!(
            copy(&missing, &directory.path().join("y.backup"), &Progress::default()),
            Err(BackupError::Store(_))
        ));
        assert!(!directory.path().join("y.backup.part").exists());
    }
}
