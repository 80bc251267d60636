//! Tokens that were registered and never used: they expire after 30 days in which the relay ran.
//!
//! What counts is the store's age, which grows by what passes between two looks at the clock and never by more than a minute
//! at once: a clock that jumps, and a relay that was stopped for long, delete nothing.

use super::message::Shards;
use super::tokens::Answer;
use super::{Unavailable, Worker};
use crate::api::ApiAnswer;
use crate::api::views::SweepView;
use crate::proto::token::TokenKey;

/// After so many minutes without any use a token expires.
pub(super) const UNUSED_MINUTES_MAX: u64 = 30 * 24 * 60;
/// What passes between two looks at the most, whatever the clock says.
const STEP_MS_MAX: u64 = 60_000;
/// How often the store is told its age, and unused tokens are looked for there.
const SWEEP_MINUTES: u64 = 10;
/// Tokens in one transaction.
const A_TRANSACTION: usize = 1024;

/// How old the store is.
#[derive(Debug)]
pub(super) struct Age {
    minutes: u64,
    /// Of the minute that has begun.
    rest_ms: u64,
    /// When the clock was last looked at.
    seen_ms: u64,
    /// What the store knows.
    written: u64,
    /// The age at which the store is told next, and looked through.
    sweep_at: u64,
}

impl Age {
    pub(super) fn new(minutes: u64, now_ms: u64) -> Self {
        Self { minutes, rest_ms: 0, seen_ms: now_ms, written: minutes, sweep_at: minutes + 1 }
    }

    pub(super) fn minutes(&self) -> u64 {
        self.minutes
    }

    /// Looks at the clock; whether another minute is over.
    fn advance(&mut self, now_ms: u64) -> bool {
        self.rest_ms += now_ms.saturating_sub(self.seen_ms).min(STEP_MS_MAX);
        self.seen_ms = now_ms;
        let minutes = self.rest_ms / 60_000;
        self.rest_ms %= 60_000;
        self.minutes += minutes;
        minutes != 0
    }
}

impl<S: Shards, C: Fn() -> u64, R: FnMut() -> [u8; 16]> Worker<S, C, R> {
    /// Notes what has been used meanwhile, and lets tokens expire that never were.
    pub(super) fn age(&mut self, now_ms: u64) {
        if !self.age.advance(now_ms) || self.store_backoff.poll_open(now_ms).is_err() {
            return;
        }
        let sweeps = self.age.minutes >= self.age.sweep_at;
        let mut used = self.used_meanwhile();
        // Where the store fails, that has been noted, and the next minute tries again.
        while used.len() == A_TRANSACTION && self.write_used(now_ms, &used).is_ok() {
            used = self.used_meanwhile();
        }
        if (!used.is_empty() || sweeps) && self.write_used(now_ms, &used).is_err() {
            return;
        }
        if sweeps {
            // Where the store fails, that has been noted.
            let _ = self.forget_unseen(now_ms);
            let oldest = self.age.minutes.checked_sub(UNUSED_MINUTES_MAX);
            let swept = oldest.map_or(Ok(0), |oldest| self.sweep(now_ms, oldest));
            // A full share means that there are more.
            let is_done = matches!(swept, Ok(count) if count < A_TRANSACTION);
            self.age.sweep_at = self.age.minutes + if is_done { SWEEP_MINUTES } else { 1 };
        }
    }

    /// Deletes tokens that have waited for so many days, a share of them at a time.
    pub(super) fn sweep_now(&mut self, unused_days: u64) -> Answer {
        let now_ms = self.now_ms();
        self.poll_readable(now_ms)?;
        self.store_backoff.poll_open(now_ms)?;
        let oldest = self.age.minutes.checked_sub(unused_days.saturating_mul(24 * 60));
        let removed = oldest.map_or(Ok(0), |oldest| self.sweep(now_ms, oldest))?;
        Ok(ApiAnswer::json(200, &SweepView { removed, more: removed == A_TRANSACTION }))
    }

    /// Deletes a share of the tokens that were registered at this age of the store or before and never used; how many.
    fn sweep(&mut self, now_ms: u64, registered_by: u64) -> Result<usize, Unavailable> {
        let unused = self.control.store.unused(registered_by, A_TRANSACTION as u32);
        let unused = self.store_backoff.handle_read(now_ms, unused)?;
        let mut swept = 0;
        for hash in &unused {
            if self.entry(hash.key()).is_some_and(|entry| entry.was_used()) {
                continue;
            }
            self.write_token(now_ms, hash.key(), |store| store.revoke(hash))?;
            self.shut_out(hash.key());
            swept += 1;
        }
        if swept != 0 {
            tracing::info!(tokens = swept, "tokens deleted that were registered and never used");
        }
        Ok(swept)
    }

    /// A share of the tokens that have been used since they were registered, which the store does not know yet.
    fn used_meanwhile(&self) -> Vec<TokenKey> {
        let was_used = |key: &TokenKey| self.entry(*key).is_some_and(|entry| entry.was_used());
        self.control.index.unused().filter(was_used).take(A_TRANSACTION).collect()
    }

    pub(super) fn write_used(&mut self, now_ms: u64, used: &[TokenKey]) -> Result<(), Unavailable> {
        let minutes = self.age.minutes;
        if self.sharing.is_some() {
            // The others may not take for unused what is used here.
            used.iter().try_for_each(|&key| self.write_token(now_ms, key, |store| store.note_used(key)))?;
        }
        self.write(now_ms, |store| store.mark_used(minutes, used))?;
        self.age.written = minutes;
        self.control.index.forget_unused(used);
        Ok(())
    }

    /// What is still to be written when the relay ends.
    pub(super) fn write_last_used(&mut self, now_ms: u64) {
        loop {
            let used = self.used_meanwhile();
            let is_known = used.is_empty() && self.age.written == self.age.minutes;
            if is_known || self.write_used(now_ms, &used).is_err() {
                return;
            }
        }
    }
}
