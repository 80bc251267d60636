//! Reading the operator's decisions again: settings, and what another program has changed in the store's tokens.

use super::index::bound_of;
use super::message::Shards;
use super::{Settings, Worker};
use crate::api::ApiAnswer;
use crate::directory::Bound;
use crate::proto::token::TokenKey;
use crate::store::{BoundRow, TokenRow, UsageSums};
use std::collections::HashSet;

impl<S: Shards, C: Fn() -> u64, R: FnMut() -> [u8; 16]> Worker<S, C, R> {
    /// Puts other settings in force and takes the tokens as the store has them now. Where it cannot be read, the tokens
    /// stay as they were.
    pub(super) fn reload(&mut self, settings: Settings) {
        self.registrations.set_per_hour(settings.register_per_hour);
        self.control.settings = settings;
        match self.read_tokens() {
            Ok((admitted, changed, shut_out)) => {
                tracing::info!(tokens = self.control.index.len(), admitted, changed, shut_out, "tokens read again");
            }
            Err(_) => tracing::warn!("the tokens stay as they were: the store cannot be read"),
        }
    }

    /// Whether a token admits, and as the store has it.
    pub(super) fn admits_as(&self, row: &TokenRow, bound: Option<&BoundRow>) -> bool {
        self.entry(row.hash.key()).is_some_and(|entry| {
            entry.expires_at == row.expires_at
                && entry.limits.as_deref().copied().unwrap_or_default() == row.limits
                && is_bound_as(entry.bound.as_deref(), bound)
        })
    }

    /// How many are new, changed, and gone.
    fn read_tokens(&mut self) -> Result<(u64, u64, u64), ApiAnswer> {
        let now_ms = self.now_ms();
        self.poll_readable(now_ms)?;
        let bindings = self.control.store.bindings();
        let mut bindings = self.store_backoff.handle_read(now_ms, bindings)?;
        let mut standing: HashSet<TokenKey> = HashSet::new();
        let mut differing: Vec<(TokenRow, UsageSums)> = Vec::new();
        let read = self.control.store.for_each_token(now_ms, |row, sums| {
            standing.insert(row.hash.key());
            if !self.admits_as(&row, bindings.get(&row.serial)) {
                differing.push((row, sums));
            }
        });
        self.store_backoff.handle_read(now_ms, read)?;
        let gone: Vec<TokenKey> = self.control.index.keys().filter(|key| !standing.contains(key)).collect();
        let (mut admitted, mut changed) = (0, 0);
        for (row, stored) in &differing {
            let is_new = self.control.index.slot(row.hash.key()).is_none();
            // The directory knows what a token that admits has used up to this second; the store, up to the last one.
            let sums = if is_new { *stored } else { self.used(row, now_ms)? };
            self.admit(row, bindings.remove(&row.serial).map(bound_of), sums, now_ms)?;
            *(if is_new { &mut admitted } else { &mut changed }) += 1;
        }
        let shut_out = gone.len() as u64;
        for key in gone {
            self.shut_out(key);
        }
        Ok((admitted, changed, shut_out))
    }
}

/// Whether a token is bound as the store has it.
fn is_bound_as(bound: Option<&Bound>, stored: Option<&BoundRow>) -> bool {
    match (bound, stored) {
        (None, None) => true,
        (Some(bound), Some(stored)) => {
            let mut keys: Vec<_> = bound.devices.iter().map(|device| device.key.0).collect();
            let mut stored_keys: Vec<_> = stored.devices.iter().map(|device| device.key.0).collect();
            keys.sort_unstable();
            stored_keys.sort_unstable();
            (bound.agent, bound.legacy_phone, keys) == (stored.agent, stored.legacy_phone, stored_keys)
        }
        _ => false,
    }
}
