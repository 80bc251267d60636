//! Backups of the store while the relay runs: one at a time, on a thread of its own, beside the store.

use super::Worker;
use super::message::Shards;
use super::tokens::Answer;
use crate::api::views::BackupView;
use crate::api::{ApiAnswer, ErrorCode};
use crate::shelf::SUFFIX;
use crate::store::backup::{Progress, copy};
use crate::sys::file::beside;
use crate::sys::time::write_rfc3339;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// The last backup, if there was one.
#[derive(Default)]
pub(super) struct Backups {
    last: Option<Arc<Backup>>,
}

struct Backup {
    file: PathBuf,
    progress: Progress,
    /// Bytes of the file, or why there is none; `None` while it is being made.
    outcome: Mutex<Option<Result<u64, String>>>,
}

impl Backup {
    fn outcome(&self) -> MutexGuard<'_, Option<Result<u64, String>>> {
        self.outcome.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Backups {
    /// How far the last one has come.
    pub(super) fn state(&self) -> ApiAnswer {
        self.answer(200)
    }

    fn is_running(&self) -> bool {
        self.last.as_ref().is_some_and(|backup| backup.outcome().is_none())
    }

    fn answer(&self, status: u16) -> ApiAnswer {
        let Some(backup) = &self.last else {
            return ApiAnswer::json(status, &BackupView { state: "none", ..BackupView::default() });
        };
        // What is done is done with all of its pages: it is looked at first.
        let outcome = backup.outcome();
        let (pages_done, pages) = backup.progress.pages();
        let view =
            BackupView { file: Some(backup.file.display().to_string()), pages_done, pages, ..BackupView::default() };
        ApiAnswer::json(
            status,
            &match &*outcome {
                None => BackupView { state: "running", ..view },
                Some(Ok(bytes)) => BackupView { state: "done", bytes: Some(*bytes), ..view },
                Some(Err(error)) => BackupView { state: "failed", error: Some(error.clone()), ..view },
            },
        )
    }
}

/// The file for a backup of this time, beside the store: with a number where there have been others in the same second.
fn unused(store: &Path, time: &str) -> PathBuf {
    let name = store.file_name().unwrap_or_default().to_string_lossy();
    let first = store.with_file_name(format!("{name}.{time}.backup"));
    let more = (2..1000).map(|number| store.with_file_name(format!("{name}.{time}-{number}.backup")));
    std::iter::once(first.clone()).chain(more).find(|file| !file.exists()).unwrap_or(first)
}

impl<S: Shards, C: Fn() -> u64, R: FnMut() -> [u8; 16]> Worker<S, C, R> {
    pub(super) fn begin_backup(&mut self, name: Option<String>, mail: bool) -> Answer {
        if self.backups.is_running() {
            return Err(ApiAnswer::error(ErrorCode::BackupRunning, "a backup is being made", Some(1000)));
        }
        let store = self.control.store.path().to_owned();
        let file = match name {
            Some(name) => store.with_file_name(name),
            None => unused(&store, &write_rfc3339(self.now_ms() / 1000).replace(['-', ':'], "")),
        };
        if file.exists() {
            let message = "there is a file of that name beside the store; give another name";
            return Err(ApiAnswer::error(ErrorCode::Exists, message, None));
        }
        let backup = Arc::new(Backup { file, progress: Progress::default(), outcome: Mutex::new(None) });
        let made = Arc::clone(&backup);
        let work = move || {
            let outcome = copy(&store, &made.file, &made.progress).and_then(|bytes| {
                let from = beside(&store, SUFFIX);
                match mail && from.exists() {
                    true => Ok(bytes + copy(&from, &beside(&made.file, SUFFIX), &made.progress)?),
                    false => Ok(bytes),
                }
            });
            match &outcome {
                Ok(bytes) => tracing::info!(file = %made.file.display(), bytes, "backup made"),
                Err(error) => tracing::error!(file = %made.file.display(), %error, "backup failed"),
            }
            *made.outcome() = Some(outcome.map_err(|error| error.to_string()));
        };
        if let Err(error) = thread::Builder::new().name("backup".to_owned()).spawn(work) {
            return Err(ApiAnswer::error(ErrorCode::Busy, &format!("no thread for the backup: {error}"), Some(1000)));
        }
        self.backups.last = Some(backup);
        Ok(self.backups.answer(202))
    }
}
