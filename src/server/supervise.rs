//! The main thread once the relay runs: it carries out orders, and ends everything in order.

use super::certificates::Kept;
use super::lapses::Lapses;
use super::notify::Notify;
use super::stalls::Stalls;
use super::threads::{Shards, start_shelf};
use super::{exit, random};
use crate::config::{Config, Secret};
use crate::control::message::Request;
use crate::shard::command::{Command, DrainPlan};
use crate::shard::shared::Shared;
use crate::shelf;
use crate::sys::time::unix_now;
use crate::telemetry::lifecycle::{SHARD_STUCK_AFTER, Stage};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What the control thread has for its last writes, after the shards have ended.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// The window of a drain that has none set: so much for each connection, that is 1,000 reconnects a second.
const WINDOW_A_CONNECTION: Duration = Duration::from_millis(1);
/// It is not longer than this, however many there are: 100,000 come back at 10,000 a second.
const WINDOW_MAX: Duration = Duration::from_secs(10);

/// How often the threads are looked at where no service manager wants to hear of them.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the main thread is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// End in order.
    Drain {
        /// Who asked.
        by: &'static str,
    },
    /// Read the configuration and the certificates again.
    Reload,
    /// A shard has ended: it may be the last one.
    LookForEnded,
    /// A message is to be kept for the first time.
    StartShelf,
}

/// The relay, accepting.
pub(super) struct Running {
    pub(super) config: Config,
    /// The admin key in force.
    pub(super) key: Secret,
    /// How many files may be open.
    pub(super) nofile: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) shards: Shards,
    pub(super) control: JoinHandle<()>,
    /// The mailbox's thread, once it has been started.
    pub(super) shelf: Option<JoinHandle<()>>,
    pub(super) kept: Option<Kept>,
    pub(super) ordered: Receiver<Order>,
    pub(super) notify: Notify,
    pub(super) stalls: Stalls,
    pub(super) lapses: Lapses,
}

impl Running {
    /// Carries out orders until all shards have ended, then ends control: shards first, for they report their last
    /// usage to it.
    pub(super) fn until_stopped(mut self) -> u8 {
        self.notify.ready(&self.status());
        let mut look_at = Instant::now();
        while !self.have_ended() {
            let now = Instant::now();
            if look_at <= now {
                look_at = now + self.notify.period().unwrap_or(LOOK_EVERY);
                self.look_after(now);
            }
            match self.ordered.recv_deadline(look_at) {
                Ok(Order::Drain { by }) => self.drain(by),
                Ok(Order::Reload) => self.reload(),
                Ok(Order::StartShelf) => self.start_shelf(),
                Ok(Order::LookForEnded) | Err(RecvTimeoutError::Timeout) => {}
                // The thread that listens for signals has an end of the channel, and lives as long as the process.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let mut exit_code = exit::OK;
        for thread in self.shards.threads {
            if !thread.join() {
                exit_code = exit::FAILURE;
            }
        }
        if self.shards.control.send(Request::Stop).is_err() || self.control.join().is_err() {
            exit_code = exit::FAILURE;
        }
        if let (Some(thread), Some(mailbox)) = (self.shelf, &self.shared.mailbox) {
            mailbox.post(shelf::message::Request::Stop);
            if thread.join().is_err() {
                exit_code = exit::FAILURE;
            }
        }
        tracing::info!("stopped");
        exit_code
    }

    fn start_shelf(&mut self) {
        let Some(mailbox) = self.shared.mailbox.as_ref().filter(|_| self.shelf.is_none()) else { return };
        match start_shelf(&self.config, mailbox, &self.shards.queues) {
            Ok(thread) => self.shelf = Some(thread),
            Err(failure) => tracing::error!("{}", failure.text),
        }
    }

    /// Tells the service manager that the relay lives, as long as all its shards do. A store that hangs is no reason to
    /// be killed for: messages are forwarded all the same.
    fn look_after(&mut self, now: Instant) {
        let beats = &self.shared.lifecycle.heartbeats;
        self.stalls.log(now, beats);
        if let Some(all) = &self.shared.certificates {
            self.lapses.log(&all.statuses(), unix_now().as_secs());
        }
        match beats.stuck(now, SHARD_STUCK_AFTER) {
            None => self.notify.alive(&self.status()),
            Some(shard) => self.notify.status(&format!("shard {shard} is stuck")),
        }
    }

    pub(super) fn status(&self) -> String {
        let what = if self.shared.lifecycle.stage() == Stage::Draining { "draining" } else { "serving" };
        let connections = self.shared.connections.load(Relaxed);
        format!("{what} {connections} connections in {} sessions", self.shared.sessions.load(Relaxed))
    }

    fn have_ended(&self) -> bool {
        self.shards.ended.load(Relaxed) == self.shared.shards
    }

    fn drain(&self, by: &str) {
        if self.shared.lifecycle.stage() == Stage::Draining {
            return;
        }
        self.shared.lifecycle.drain();
        let connections = self.shared.sockets.load(Relaxed);
        let (window, deadline) = (self.window(connections), self.config.drain_deadline);
        tracing::info!(
            by,
            connections,
            window_ms = window.as_millis() as u64,
            deadline_ms = deadline.as_millis() as u64,
            "draining: no new connections, clients are told to reconnect; a second signal exits at once"
        );
        self.notify.stopping(&self.status());
        give_up_after(deadline + LAST_WRITES);
        for shard in 0..self.shards.queues.shards() {
            let seed = u64::from_ne_bytes(random());
            let _ = self.shards.queues.post(shard, Command::Drain(DrainPlan { window, deadline, seed }));
        }
    }

    fn window(&self, connections: u64) -> Duration {
        self.config.drain_window.unwrap_or_else(|| {
            let needed = WINDOW_A_CONNECTION.saturating_mul(u32::try_from(connections).unwrap_or(u32::MAX));
            // The last ones to be told have time to answer.
            needed.min(WINDOW_MAX).min(self.config.drain_deadline / 2)
        })
    }
}

/// Ends the process when its threads have not ended by then: a disk that hangs must not keep it.
fn give_up_after(within: Duration) {
    thread::spawn(move || {
        thread::sleep(within);
        tracing::error!("the threads did not end in time");
        crate::telemetry::log::flush();
        std::process::exit(i32::from(exit::FAILURE));
    });
}
