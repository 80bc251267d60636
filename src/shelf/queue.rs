//! The way to the shelf: bounded, and it waits for nobody.

use super::health::ShelfHealth;
use super::message::{Keep, Request};
use crate::session::message::ErrorCode;
use crate::session::{KEEP_RETRY, Refusal};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Bounds of what is on its way to the disk, and of what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBounds {
    /// Messages on their way.
    pub messages_max: u64,
    /// Their bytes.
    pub bytes_max: u64,
}

/// The mailbox, for shards. The thread behind it is started with the first message that is to be kept.
pub struct Mailbox {
    sender: Sender<Request>,
    requests: Receiver<Request>,
    is_started: AtomicBool,
    /// Has the thread started.
    start: Box<dyn Fn() + Send + Sync>,
    messages: AtomicU64,
    bytes: AtomicU64,
    messages_max: AtomicU64,
    bytes_max: AtomicU64,
    /// How it fares.
    pub health: ShelfHealth,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("messages", &self.messages).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Mailbox {
    /// One whose thread is started by now, or is to be by `start`, which must not wait for that.
    #[must_use]
    pub fn new(
        bounds: QueueBounds,
        total_bytes_max: u64,
        is_started: bool,
        start: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let (sender, requests) = unbounded();
        let health = ShelfHealth::default();
        health.set_bytes_max(total_bytes_max);
        Self {
            sender,
            requests,
            is_started: AtomicBool::new(is_started),
            start,
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            messages_max: AtomicU64::new(bounds.messages_max),
            bytes_max: AtomicU64::new(bounds.bytes_max),
            health,
        }
    }

    /// Other bounds hold from now on.
    pub fn set_bounds(&self, bounds: QueueBounds) {
        self.messages_max.store(bounds.messages_max, Relaxed);
        self.bytes_max.store(bounds.bytes_max, Relaxed);
    }

    /// Whether a message of `bytes` can be taken on now.
    ///
    /// # Errors
    /// Which bound keeps it from that.
    pub fn check_room(&self, bytes: u64) -> Result<(), Refusal> {
        let full = |message, retry_after_ms| Refusal { code: ErrorCode::MailboxFull, message, retry_after_ms };
        let (messages, queued) = (self.messages.load(Relaxed), self.bytes.load(Relaxed));
        let retry = Some(KEEP_RETRY.as_millis() as u64);
        if messages >= self.messages_max.load(Relaxed) || queued.saturating_add(bytes) > self.bytes_max.load(Relaxed) {
            return Err(full("the mailbox's disk is behind; try again", retry));
        }
        if self.health.stored().1.saturating_add(queued).saturating_add(bytes) > self.health.bytes_max() {
            return Err(full("the relay's mailbox is full", None));
        }
        Ok(())
    }

    /// Takes a message on, for which there was room.
    pub fn keep(&self, keep: Keep) {
        self.messages.fetch_add(1, Relaxed);
        self.bytes.fetch_add(keep.message.len() as u64, Relaxed);
        self.post(Request::Keep(keep));
    }

    /// Asks for something else.
    pub fn post(&self, request: Request) {
        self.start();
        // The receiving end is here, too.
        let _ = self.sender.send(request);
    }

    /// Has the thread started, unless it has.
    pub fn start(&self) {
        if !self.is_started.load(Relaxed) && !self.is_started.swap(true, Relaxed) {
            (self.start)();
        }
    }

    /// Whether the thread has been started.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.is_started.load(Relaxed)
    }

    /// What is on its way to the disk: messages, and their bytes.
    #[must_use]
    pub fn queued(&self) -> (u64, u64) {
        (self.messages.load(Relaxed), self.bytes.load(Relaxed))
    }

    /// For the thread: what shards ask.
    pub(super) fn requests(&self) -> &Receiver<Request> {
        &self.requests
    }

    /// For the thread: so much is on its way no more.
    pub(super) fn taken(&self, messages: u64, bytes: u64) {
        self.messages.fetch_sub(messages, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}
