//! The mailbox: messages for receivers that are not there, in a file beside the store, with a thread of its own. Neither
//! tokens nor messages between those who are there ever wait for its disk.
//!
//! What is kept is said only when it is on the disk. All that has been asked for while the disk was busy goes into one
//! transaction. A file that fails, or is gone, is opened anew; until then what was to be kept is refused.

mod calls;
mod clock;
mod file;
mod health;
pub mod message;
mod queue;
#[cfg(test)]
mod tests;

pub use health::ShelfHealth;
pub use queue::{Mailbox, QueueBounds};

use crate::proto::token::TokenKey;
use crate::session::{Party, Pile};
use crate::store::StoreError;
use clock::Clock;
use crossbeam_channel::RecvTimeoutError;
use file::{Batch, File};
use message::{Keep, Kept, Page, Read, Report, Request, Shards};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the file is called, behind the store's name.
pub const SUFFIX: &str = ".mail";

/// How long the thread sleeps at the most.
const TICK: Duration = Duration::from_secs(1);
/// While messages come faster than the disk takes them one by one, so long is waited for more of them: a flood of them wears
/// the disk no more than a hundred writes a second do.
const GATHER: Duration = Duration::from_millis(10);
/// How often messages are looked for that have expired.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Requests in one transaction at the most, so that no answer waits long behind the others.
const BATCH_MAX: usize = 4096;
/// How often a failure that goes on is logged.
const REMIND: Duration = Duration::from_secs(60);

/// All that the thread owns.
pub struct Shelf<S> {
    /// The file; made if it is missing.
    pub path: PathBuf,
    /// What shards ask, and how it fares.
    pub mailbox: Arc<Mailbox>,
    /// The way to the shards.
    pub shards: S,
    /// The most bytes that may be in the file.
    pub bytes_max: u64,
    /// The Unix second of the wall clock.
    pub wall: Box<dyn Fn() -> u64 + Send>,
}

/// Serves requests until [`Request::Stop`]; then closes the file.
pub fn run<S: Shards>(shelf: Shelf<S>) {
    let mailbox = Arc::clone(&shelf.mailbox);
    let requests = mailbox.requests();
    let mut worker = Worker::new(shelf);
    worker.open();
    loop {
        match requests.recv_timeout(TICK) {
            Ok(first) => {
                if worker.is_busy {
                    std::thread::sleep(GATHER);
                }
                let batch: Vec<_> = std::iter::once(first).chain(requests.try_iter()).take(BATCH_MAX).collect();
                if !worker.handle_batch(batch) {
                    return worker.stop();
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return worker.stop(),
        }
        worker.handle_tick();
    }
}

/// What is to be deleted, now or when the file can be written again.
#[derive(Debug)]
enum Removal {
    Delete { key: TokenKey, of: Party, upto: u64, lost: u64 },
    Forget { key: TokenKey, of: Option<Party> },
}

struct Worker<S> {
    shelf: Shelf<S>,
    file: Option<File>,
    /// Which file was open last.
    was: Option<(u64, u64)>,
    clock: Clock,
    started: Instant,
    sweep_at: Duration,
    look_at: Duration,
    logged: Option<Instant>,
    /// What could not be deleted. Bounded by what shards have told receivers: two pages each, and what was revoked.
    removals: Vec<Removal>,
    stored: Pile,
    /// More than one message was to be kept at a time.
    is_busy: bool,
}

impl<S: Shards> Worker<S> {
    fn new(shelf: Shelf<S>) -> Self {
        let clock = Clock::start(None, (shelf.wall)(), Duration::ZERO);
        let started = Instant::now();
        Self {
            shelf,
            file: None,
            was: None,
            clock,
            started,
            sweep_at: Duration::ZERO,
            look_at: Duration::ZERO,
            logged: None,
            removals: Vec::new(),
            stored: Pile::default(),
            is_busy: false,
        }
    }

    fn now(&mut self) -> u64 {
        self.clock.advance((self.shelf.wall)(), self.started.elapsed())
    }

    fn tell_owner(&self, key: TokenKey, report: Report) {
        // A shard that has ended has nobody left whom it concerns.
        let _ = self.shelf.shards.post(self.shelf.shards.owner(key), report);
    }

    fn tell_all(&self, report: impl Fn() -> Report) {
        for shard in 0..self.shelf.shards.count() {
            let _ = self.shelf.shards.post(shard, report());
        }
    }

    /// Opens the file, and tells the shards what is in it.
    fn open(&mut self) {
        match self.load() {
            Ok(()) => self.note(None),
            Err(error) => {
                self.fail(&error);
                // Who waits for what is in it waits for nothing.
                if self.was.is_none() {
                    self.tell_all(|| Report::Loaded);
                }
            }
        }
    }

    fn load(&mut self) -> Result<(), StoreError> {
        let mut file = File::open(&self.shelf.path)?;
        let saved = file.clock()?;
        let is_first = self.was.is_none();
        let is_other = !is_first && self.was != Some(file.inode());
        if is_first {
            self.clock = Clock::start(saved, (self.shelf.wall)(), self.started.elapsed());
            // What has expired while nobody looked is not handed out any more.
            let told = self.now();
            while !sweep(&mut file, told, self.clock.saved())?.is_empty() {}
        }
        self.tell_all(|| Report::Opened { is_other });
        file.for_each(|found| self.tell_owner(found.key, Report::Found(found)))?;
        if is_first || is_other {
            file.for_each_lost(|key, of, count| self.tell_owner(key, Report::Lost { key, of, count }))?;
        }
        let (messages, bytes) = file.sizes()?;
        self.stored = Pile { messages, bytes };
        self.was = Some(file.inode());
        self.file = Some(file);
        self.publish();
        self.tell_all(|| Report::Loaded);
        self.look_at_disk();
        Ok(())
    }

    fn publish(&self) {
        self.shelf.mailbox.health.set_stored(self.stored.messages, self.stored.bytes);
    }

    /// How much the file may hold: no more than half of what is free, itself counted as free.
    fn look_at_disk(&self) {
        let free = rustix::fs::statvfs(crate::sys::file::folder_of(&self.shelf.path));
        let free = free.map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let bytes_max = self.shelf.bytes_max.min(free.saturating_add(self.stored.bytes) / 2);
        self.shelf.mailbox.health.set_bytes_max(bytes_max);
    }

    /// Takes note of how it went.
    fn note(&mut self, error: Option<&StoreError>) {
        let is_news = self.shelf.mailbox.health.note(error);
        let is_due = self.logged.is_none_or(|logged| logged.elapsed() >= REMIND);
        match error {
            Some(error) if is_news || is_due => {
                self.logged = Some(Instant::now());
                let state = self.shelf.mailbox.health.state().name();
                tracing::error!(
                    state, %error, file = %self.shelf.path.display(),
                    "the mailbox cannot be used: messages for receivers that are not there are refused, all else goes on"
                );
            }
            None if is_news => tracing::info!("the mailbox can be used again"),
            _ => {}
        }
    }

    /// The file is opened anew before it is used again.
    fn fail(&mut self, error: &StoreError) {
        self.let_go();
        self.note(Some(error));
    }

    /// Closes the file. One that is made in the place of one that was removed may have its number.
    fn let_go(&mut self) {
        if self.file.take().is_some_and(|file| file.is_replaced()) {
            self.was = Some((0, 0));
        }
    }

    /// Carries out what was asked for together; `false`: it is to end.
    fn handle_batch(&mut self, batch: Vec<Request>) -> bool {
        let (mut keeps, mut reads, mut calls, mut goes_on) = (Vec::new(), Vec::new(), Vec::new(), true);
        for request in batch {
            match request {
                Request::Keep(keep) => keeps.push(keep),
                Request::Read(read) => reads.push(read),
                Request::Delete { key, of, upto, lost } => self.removals.push(Removal::Delete { key, of, upto, lost }),
                Request::Forget { key, of } => {
                    // What it was for is on the disk before it goes.
                    self.write(&mut keeps);
                    self.removals.push(Removal::Forget { key, of });
                    self.write(&mut keeps);
                }
                Request::Call { from, key, call } => calls.push((from, key, call)),
                Request::Stop => goes_on = false,
            }
        }
        self.is_busy = keeps.len() > 1;
        self.write(&mut keeps);
        for (from, key, call) in calls {
            self.handle_call(from, key, call);
        }
        for read in reads {
            self.read(read);
        }
        goes_on
    }

    /// One transaction: what is to be kept, and what is to be deleted.
    fn write(&mut self, keeps: &mut Vec<Keep>) {
        if keeps.is_empty() && self.removals.is_empty() {
            return;
        }
        if self.file.is_none() {
            self.open();
        }
        let keeps = std::mem::take(keeps);
        let told = self.now();
        let wall = (self.shelf.wall)();
        let begun = Instant::now();
        let written = match &mut self.file {
            Some(file) => write(file, &keeps, &self.removals, (told, wall)),
            None => Err(StoreError::Io("the file is not open".to_owned())),
        };
        let (messages, bytes) = keeps.iter().fold((0, 0), |(m, b), keep| (m + 1, b + keep.message.len() as u64));
        self.shelf.mailbox.taken(messages, bytes);
        match written {
            Ok(Written { numbers, removed, forgotten }) => {
                self.shelf.mailbox.health.add_commit(begun.elapsed());
                self.note(None);
                self.stored.messages += messages;
                self.stored.bytes += bytes;
                self.removals.clear();
                for (key, to, from, pile) in removed {
                    self.took(pile);
                    self.tell_owner(key, Report::Removed { key, to, from, pile });
                }
                for (key, of, pile) in forgotten {
                    self.took(pile);
                    if let Some(of) = of {
                        self.tell_owner(key, Report::Forgotten { key, of });
                    }
                }
                self.publish();
                for (keep, number) in keeps.into_iter().zip(numbers) {
                    self.answer(keep, Some(number));
                }
            }
            Err(error) => {
                if self.file.is_some() {
                    self.fail(&error);
                }
                for keep in keeps {
                    self.answer(keep, None);
                }
            }
        }
    }

    fn took(&mut self, pile: Pile) {
        self.stored.messages = self.stored.messages.saturating_sub(pile.messages);
        self.stored.bytes = self.stored.bytes.saturating_sub(pile.bytes);
    }

    fn answer(&self, keep: Keep, number: Option<u64>) {
        let Keep { key, to, from, wake, asked, message, .. } = keep;
        let bytes = message.len() as u64;
        self.tell_owner(key, Report::Kept(Box::new(Kept { key, to, from, wake, bytes, asked, number })));
    }

    fn read(&mut self, Read { key, of, after, page }: Read) {
        if self.file.is_none() {
            self.open();
        }
        let read = self.file.as_ref().map(|file| file.read(key, of, after));
        let read = match read {
            Some(Ok(read)) => Some(read),
            Some(Err(error)) => {
                self.fail(&error);
                None
            }
            None => None,
        };
        self.tell_owner(key, Report::Page(Box::new(Page { key, of, page, read })));
    }

    /// What is done whether anybody asks or not.
    fn handle_tick(&mut self) {
        let now = self.started.elapsed();
        if now >= self.look_at {
            self.look_at = now + TICK;
            if self.file.as_ref().is_some_and(|file| file.check().is_err()) {
                self.let_go();
            }
            if self.file.is_none() {
                self.open();
            }
            self.write(&mut Vec::new());
            self.look_at_disk();
        }
        if now >= self.sweep_at {
            self.sweep_at = now + if self.sweep() { TICK } else { SWEEP_EVERY };
        }
    }

    /// Deletes what has expired. Whether there may be more of it.
    fn sweep(&mut self) -> bool {
        let told = self.now();
        let clock = self.clock.saved();
        let Some(file) = &mut self.file else { return false };
        let swept = if self.stored.messages == 0 { Ok(Vec::new()) } else { sweep(file, told, clock) };
        let swept = swept.and_then(|swept| file.shrink().map(|()| swept));
        let expired = match swept {
            Ok(expired) => expired,
            Err(error) => {
                self.fail(&error);
                return false;
            }
        };
        let is_more = expired.len() >= file::EXPIRED_MAX as usize;
        if !expired.is_empty() {
            tracing::info!(messages = expired.len(), "messages in the mailbox have expired");
            self.shelf.mailbox.health.add_expired(expired.len() as u64);
        }
        for (key, to, from, bytes) in expired {
            self.took(Pile::one(bytes));
            self.tell_owner(key, Report::Removed { key, to, from, pile: Pile::one(bytes) });
            self.tell_owner(key, Report::Lost { key, of: to, count: 1 });
        }
        self.publish();
        is_more
    }

    /// Closes the file.
    fn stop(mut self) {
        self.now();
        let clock = self.clock.saved();
        let Some(mut file) = self.file.take() else { return };
        let saved = file.begin().and_then(|batch| {
            batch.save_clock(clock)?;
            batch.commit()
        });
        if let Err(error) = saved.and_then(|()| file.close()) {
            tracing::warn!(%error, "the mailbox's log stays beside it; the next start takes it in");
        }
    }
}

/// What a transaction has done.
struct Written {
    numbers: Vec<u64>,
    /// Token, for whom, from whom, how much.
    removed: Vec<(TokenKey, Party, Party, Pile)>,
    forgotten: Vec<(TokenKey, Option<Party>, Pile)>,
}

fn write(
    file: &mut File,
    keeps: &[Keep],
    removals: &[Removal],
    (told, wall): (u64, u64),
) -> Result<Written, StoreError> {
    let batch = file.begin()?;
    let mut written = Written { numbers: Vec::with_capacity(keeps.len()), removed: Vec::new(), forgotten: Vec::new() };
    for keep in keeps {
        written.numbers.push(batch.keep(keep, told, wall)?);
    }
    for removal in removals {
        remove(&batch, removal, &mut written)?;
    }
    batch.commit()?;
    // What was written to a file that has been removed is nowhere.
    file.check()?;
    Ok(written)
}

fn remove(batch: &Batch<'_>, removal: &Removal, written: &mut Written) -> Result<(), StoreError> {
    match *removal {
        Removal::Delete { key, of, upto, lost } => {
            let removed = batch.delete(key, of, upto, lost)?;
            written.removed.extend(removed.into_iter().map(|(from, pile)| (key, of, from, pile)));
        }
        Removal::Forget { key, of } => {
            let (others, mut all) = batch.forget(key, of)?;
            for (to, pile) in others {
                all.messages -= pile.messages;
                all.bytes -= pile.bytes;
                let from = of.unwrap_or(Party::Agent);
                written.removed.push((key, to, from, pile));
            }
            written.forgotten.push((key, of, all));
        }
    }
    Ok(())
}

/// Deletes what waits for a receiver, or for all of a token, and notes that it is lost: for whom, from whom, how much.
fn empty(file: &mut File, key: TokenKey, of: Option<Party>) -> Result<Vec<(Party, Party, Pile)>, StoreError> {
    let batch = file.begin()?;
    let removed = batch.empty(key, of)?;
    batch.commit()?;
    file.check()?;
    Ok(removed)
}

fn sweep(file: &mut File, told: u64, clock: (u64, u64)) -> Result<Vec<(TokenKey, Party, Party, u64)>, StoreError> {
    let batch = file.begin()?;
    let expired = batch.expire(told)?;
    batch.save_clock(clock)?;
    batch.commit()?;
    Ok(expired)
}
