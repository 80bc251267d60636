//! The control thread: it alone owns the store, and answers what shards ask of it.
//!
//! What it promises is on the disk before it is said: store first, then the owner's shard, then the caller. It never
//! waits for a shard's answer, and a store that fails does not end it: forwarding goes on, usage waits in memory.

mod aging;
mod backup;
mod cluster;
mod devices;
#[cfg(test)]
mod devices_tests;
mod health;
mod index;
mod mail;
pub mod message;
mod operations;
mod push;
mod register;
mod reload;
mod store_backoff;
mod strangers;
#[cfg(test)]
mod tests;
mod tokens;
mod usage;

pub use health::StoreHealth;
pub use index::{Index, load};

use crate::api::{ApiAnswer, ApiCall, Caller, ErrorCode};
use crate::cluster::Cluster;
use crate::directory::{Directory, TokenEntry};
use crate::notifier::Notifier;
use crate::proto::limits::Limits;
use crate::proto::token::TokenKey;
use crate::shelf::Mailbox;
use crate::store::{Store, StoreError};
use crate::telemetry::lifecycle::Lifecycle;
use aging::Age;
use backup::Backups;
use cluster::Sharing;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use message::{Notice, Request, Shards, Usage};
use register::RegisterLimit;
use sharded_slab::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store_backoff::{StoreBackoff, Unavailable};
use usage::PendingUsage;

/// How long the thread sleeps at most: expiry and a store that failed are looked at this often.
const TICK: Duration = Duration::from_secs(1);
/// Requests that are taken before usage is written and expiry looked at.
const REQUESTS_A_TURN: usize = 256;
/// Usage records in one transaction, so that a call does not wait long behind it.
const USAGE_A_TRANSACTION: usize = 2048;
/// Tokens that expire in one turn at most.
const EXPIRED_A_TURN: usize = 1024;

/// What the operator decided.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Registrations an hour for each client address; 0: no limit.
    pub register_per_hour: u64,
    /// The limits of tokens without limits of their own.
    pub limits: Limits,
    /// Devices that a token may have.
    pub devices_max: u64,
}

/// All that the control thread owns.
pub struct Control<S, C, R> {
    /// The open store.
    pub store: Store,
    /// What [`load`] made of it.
    pub index: Index,
    /// The directory that [`load`] filled.
    pub directory: Arc<Directory>,
    /// The way to the shards.
    pub shards: S,
    /// Where the store's health is shown.
    pub health: Arc<StoreHealth>,
    /// Where the thread says that it lives.
    pub lifecycle: Arc<Lifecycle>,
    /// The mailbox; `None`: there is none.
    pub mailbox: Option<Arc<Mailbox>>,
    /// What the operator decided.
    pub settings: Settings,
    /// Who wakes devices; `None`: nobody does.
    pub notifier: Option<Arc<Notifier>>,
    /// The relays that tokens are shared with; `None`: there are none.
    pub cluster: Option<Arc<Cluster>>,
    /// Makes the relay drain.
    pub drain: Box<dyn Fn() + Send>,
    /// The time in Unix milliseconds.
    pub clock: C,
    /// 16 bytes from the system's secure random source, new with each call.
    pub random: R,
}

/// Serves requests until [`Request::Stop`], or until all senders are gone; then writes what waits and closes the store.
pub fn run<S, C, R>(control: Control<S, C, R>, requests: &Receiver<Request>)
where
    S: Shards,
    C: Fn() -> u64,
    R: FnMut() -> [u8; 16],
{
    let mut worker = Worker::new(control);
    loop {
        worker.control.lifecycle.heartbeats.beat_control(Instant::now());
        let mut next = match requests.recv_timeout(worker.poll_timeout()) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return worker.stop(),
        };
        let mut taken = 0;
        while let Some(request) = next {
            match request {
                Request::Stop => return worker.stop(),
                Request::Reload(settings) => worker.reload(settings),
                Request::Usage(usage) => worker.handle_usage(&usage),
                Request::Change { key, change, asked } => worker.handle_change(key, change, asked),
                Request::Seen(seen) => worker.handle_seen(&seen),
                Request::Push(question) => worker.handle_question(question),
                Request::CatchUp(from) => worker.handle_stranger(from),
                Request::Cluster(event) => worker.handle_cluster(event),
                Request::Call { from, call: call @ (ApiCall::Mail(_) | ApiCall::EmptyMail(..)) } => {
                    worker.pass_on(from, call);
                }
                Request::Call { from, call } => {
                    let answer = worker.handle_call(call);
                    worker.answer(from, answer);
                }
            }
            taken += 1;
            next = if taken < REQUESTS_A_TURN { requests.try_recv().ok() } else { None };
        }
        worker.handle_tick();
    }
}

/// The thread's state.
struct Worker<S, C, R> {
    control: Control<S, C, R>,
    store_backoff: StoreBackoff,
    registrations: RegisterLimit,
    pending: PendingUsage,
    backups: Backups,
    age: Age,
    /// How tokens are shared; `None`: they are not.
    sharing: Option<Sharing>,
    /// Whom tokens admit, or how devices are woken, has changed since devices were last counted.
    devices_changed: bool,
}

impl<S: Shards, C: Fn() -> u64, R: FnMut() -> [u8; 16]> Worker<S, C, R> {
    fn new(control: Control<S, C, R>) -> Self {
        Self {
            store_backoff: StoreBackoff::new(Arc::clone(&control.health)),
            registrations: RegisterLimit::new(control.settings.register_per_hour),
            pending: PendingUsage::default(),
            backups: Backups::default(),
            // A store that cannot be read now is as young as a new one: nothing expires before its time.
            age: Age::new(control.store.age().unwrap_or(0), (control.clock)()),
            sharing: control.cluster.clone().map(Sharing::new),
            devices_changed: true,
            control,
        }
    }

    fn now_ms(&self) -> u64 {
        (self.control.clock)()
    }

    /// How long to wait for a request: not at all while usage waits that the store would take.
    fn poll_timeout(&self) -> Duration {
        let backlog = self.pending.len() != 0 && self.store_backoff.poll_open(self.now_ms()).is_ok();
        let backlog = backlog || self.sharing.as_ref().is_some_and(Sharing::has_work);
        match &self.sharing {
            _ if backlog => Duration::ZERO,
            Some(sharing) => sharing.strangers.poll_timeout(self.now_ms()).unwrap_or(TICK),
            None => TICK,
        }
    }

    fn answer(&self, to: Caller, answer: ApiAnswer) {
        // A shard that has ended has no connection left that waits.
        let _ = self.control.shards.post(to.shard, Notice::Answer { serial: to.serial, answer });
    }

    fn tell_owner(&self, key: TokenKey, notice: Notice) {
        // A shard that has ended admits nobody.
        let _ = self.control.shards.post(self.control.shards.owner(key), notice);
    }

    fn handle_usage(&mut self, usage: &[Usage]) {
        let dropped = self.pending.add(usage);
        if dropped != 0 {
            self.store_backoff.health().add_usage_dropped(dropped);
        }
    }

    /// What is due once a turn: usage, expiry, entries that were replaced, a store that failed.
    fn handle_tick(&mut self) {
        let now_ms = self.now_ms();
        self.flush(now_ms);
        self.refill(now_ms);
        self.poll_strangers(now_ms);
        for _ in 0..EXPIRED_A_TURN {
            let Some(key) = self.control.index.expired(now_ms / 1000) else { break };
            self.shut_out(key);
            tracing::info!(id = %key.id(), "token expired");
        }
        self.age(now_ms);
        self.count_devices();
        while let Some(slot) = self.control.index.poll_retired(now_ms) {
            self.control.directory.remove(slot);
        }
        if !self.store_backoff.health().is_ok() && self.store_backoff.poll_open(now_ms).is_ok() {
            let probed = self.control.store.probe();
            let _ = self.store_backoff.handle_write(now_ms, probed);
        }
    }

    /// The directory's entry of a token that admits.
    fn entry(&self, key: TokenKey) -> Option<Entry<'_, TokenEntry>> {
        self.control.index.slot(key).and_then(|slot| self.control.directory.entry(slot))
    }

    /// One write to the store: how long it took and how it went is noted.
    fn write<T>(
        &mut self,
        now_ms: u64,
        write: impl FnOnce(&mut Store) -> Result<T, StoreError>,
    ) -> Result<T, Unavailable> {
        let written = self.store_backoff.health().timed(|| write(&mut self.control.store));
        self.store_backoff.handle_write(now_ms, written)
    }

    /// Writes one transaction of the usage that waits; what fails goes on waiting.
    fn write_usage(&mut self, now_ms: u64) -> Result<(), Unavailable> {
        let batch = self.pending.batch(USAGE_A_TRANSACTION);
        self.write(now_ms, |store| store.record_usage(&batch))?;
        self.pending.remove(&batch);
        Ok(())
    }

    /// Writes usage that waits, one transaction a turn.
    fn flush(&mut self, now_ms: u64) {
        if self.pending.len() != 0 && self.store_backoff.poll_open(now_ms).is_ok() {
            // It has been noted.
            let _ = self.write_usage(now_ms);
        }
        self.store_backoff.health().set_usage_waiting(now_ms, self.pending.len() as u64);
    }

    /// The token admits no more: out of the directory, and its owner closes what is open. Whether it did admit.
    fn shut_out(&mut self, key: TokenKey) -> bool {
        self.devices_changed = true;
        let Some(slot) = self.control.index.remove(key) else { return false };
        self.control.directory.remove(slot);
        self.tell_owner(key, Notice::Revoke { key });
        true
    }

    /// Writes what waits and closes the store.
    fn stop(mut self) {
        let now_ms = self.now_ms();
        while self.pending.len() != 0 {
            // Tried even where a pause is due: there is no later.
            if self.write_usage(now_ms).is_err() {
                tracing::error!(records = self.pending.len(), "usage is lost: the store could not be written");
                break;
            }
        }
        self.write_last_used(now_ms);
        if let Err(error) = self.control.store.close() {
            tracing::warn!(%error, "the store's log stays beside it; the next start takes it in");
        }
    }
}

impl From<Unavailable> for ApiAnswer {
    fn from(unavailable: Unavailable) -> Self {
        let message = "the token store cannot be written now; try again later";
        Self::error(ErrorCode::StoreUnavailable, message, Some(unavailable.retry_after_ms))
    }
}
