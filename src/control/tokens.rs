//! The API calls. Each returns its answer; what it promises has been written and told to the owner by then.

use super::aging::UNUSED_MINUTES_MAX;
use super::index::entry_of;
use super::message::{Notice, Shards};
use super::{Unavailable, Worker};
use crate::api::views::{LogLevelView, RolesView, TokenPage, TokenView, UsageView};
use crate::api::{ApiAnswer, ApiCall, ErrorCode, NewToken, PAGE_MAX, TokenChange, check_expiry};
use crate::directory::Bound;
use crate::proto::quota::{day_of, month_of_day};
use crate::proto::token::{Role, TokenHash, TokenId, token_text};
use crate::store::{StoreError, StoreState, TokenRow, UsageSums};
use crate::sys::time::{LAST_SECOND, write_rfc3339};
use crate::telemetry::log::{self, LogError};
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

/// Draws of a token until one is new: a second one is never met, unless the random source is broken.
const DRAWS_MAX: usize = 3;

/// An answer, or the one that an error means.
pub(super) type Answer = Result<ApiAnswer, ApiAnswer>;

impl<S: Shards, C: Fn() -> u64, R: FnMut() -> [u8; 16]> Worker<S, C, R> {
    pub(super) fn handle_call(&mut self, call: ApiCall) -> ApiAnswer {
        let answer = match call {
            ApiCall::Create(new) => self.create(new, None),
            ApiCall::Register { address } => self.register(address),
            ApiCall::Presence(hash) => Ok(self.presence(&hash)),
            ApiCall::Revoke(hash) => self.revoke(&hash),
            ApiCall::List { limit, after } => self.list(limit, after),
            ApiCall::Sweep { unused_days } => self.sweep_now(unused_days),
            ApiCall::Show(id) => self.show(id),
            ApiCall::Sessions { limit, after } => self.sessions(limit, after),
            ApiCall::Usage { of, limit, after } => self.days(of, limit, after),
            ApiCall::Drain => Ok(self.drain()),
            ApiCall::Backup { name, mail } => self.begin_backup(name, mail),
            ApiCall::BackupState => Ok(self.backups.state()),
            ApiCall::Update(id, change) => self.update(id, change),
            ApiCall::LogLevel(level) => log_level(level),
            ApiCall::Devices(id) => self.devices(id),
            ApiCall::RemoveDevice(id, device) => self.remove_device(id, device),
            // These are the mailbox's.
            ApiCall::Mail(_) | ApiCall::EmptyMail(..) => Ok(ApiAnswer::no_content()),
            ApiCall::RevokeId(id) => self.find(id).and_then(|row| self.revoke(&row.hash)),
        };
        answer.unwrap_or_else(|error| error)
    }

    /// Makes a token; `unused_from`: a client's own, which expires where it is never used.
    fn create(&mut self, new: NewToken, unused_from: Option<u64>) -> Answer {
        let now_ms = self.now_ms();
        self.store_backoff.poll_open(now_ms)?;
        for _ in 0..DRAWS_MAX {
            let text = token_text((self.control.random)());
            let mut row = TokenRow {
                serial: 0,
                hash: TokenHash::of(&text),
                label: new.label.clone(),
                created_at: now_ms / 1000,
                expires_at: new.expires_at,
                limits: new.limits,
                unused_from,
            };
            let Some(serial) = self.create_row(now_ms, &row)? else { continue };
            row.serial = serial;
            self.admit(&row, None, UsageSums::default(), now_ms)?;
            tracing::info!(id = %row.hash.key().id(), "token made");
            return Ok(ApiAnswer::json(201, &self.view(&row, None, Some(&text), UsageSums::default())));
        }
        tracing::error!("the random source repeats itself: no token made");
        Err(ApiAnswer::error(ErrorCode::Internal, "no new token could be drawn", None))
    }

    /// Writes a new token; its serial, or `None` where there is one of that hash already.
    fn create_row(&mut self, now_ms: u64, row: &TokenRow) -> Result<Option<u64>, Unavailable> {
        if self.sharing.is_some() {
            return self.create_shared(now_ms, row.hash.key(), |store| store.create(row));
        }
        match self.store_backoff.health().timed(|| self.control.store.create(row)) {
            Err(StoreError::Exists) => Ok(None),
            result => self.store_backoff.handle_write(now_ms, result).map(Some),
        }
    }

    fn register(&mut self, address: IpAddr) -> Answer {
        let now_ms = self.now_ms();
        if let Err(wait_ms) = self.registrations.take(now_ms, address) {
            let message = "too many registrations from this address";
            return Err(ApiAnswer::error(ErrorCode::RateLimited, message, Some(wait_ms)));
        }
        self.create(NewToken::default(), Some(self.age.minutes()))
            .inspect_err(|_| self.registrations.give_back(address))
    }

    fn presence(&self, hash: &TokenHash) -> ApiAnswer {
        let entry = self.entry(hash.key());
        let online = |role| entry.as_ref().is_some_and(|entry| entry.online_since(role).is_some());
        ApiAnswer::json(200, &RolesView { phone: online(Role::Phone), agent: online(Role::Agent) })
    }

    /// 204 for any token. Where the store fails, the token is shut out all the same, until a restart; the answer says
    /// so, and repeating the call mends it.
    fn revoke(&mut self, hash: &TokenHash) -> Answer {
        let now_ms = self.now_ms();
        self.look_for(hash);
        let written = self
            .store_backoff
            .poll_open(now_ms)
            .and_then(|()| self.write_removal_of(now_ms, hash.key(), |store| store.revoke(hash)));
        let admitted = self.shut_out(hash.key());
        match written {
            Ok(deleted) => {
                if deleted || admitted {
                    tracing::info!(id = %hash.key().id(), "token revoked");
                }
                Ok(ApiAnswer::no_content())
            }
            Err(unavailable) => {
                let message = "the token is shut out until the relay restarts, but the token store cannot be written \
                               now; try again later to make it last";
                Err(ApiAnswer::error(ErrorCode::StoreUnavailable, message, Some(unavailable.retry_after_ms)))
            }
        }
    }

    fn list(&mut self, limit: u32, after: Option<u64>) -> Answer {
        let now_ms = self.now_ms();
        self.poll_readable(now_ms)?;
        let limit = limit.clamp(1, PAGE_MAX);
        // One more than asked for tells whether there is a next page.
        let rows = self.control.store.list(after.unwrap_or(0), limit + 1);
        let mut rows = self.store_backoff.handle_read(now_ms, rows)?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let tokens = self.views(&rows, now_ms)?;
        let next = rows.last().filter(|_| more).map(|row| row.serial);
        Ok(ApiAnswer::json(200, &TokenPage { tokens, next }))
    }

    fn show(&mut self, id: TokenId) -> Answer {
        let row = self.find(id)?;
        self.show_row(&row)
    }

    fn show_row(&mut self, row: &TokenRow) -> Answer {
        let now_ms = self.now_ms();
        let sums = self.used(row, now_ms)?;
        let bound = self.bound_row(row)?;
        Ok(ApiAnswer::json(200, &self.view(row, bound.as_ref(), None, sums)))
    }

    fn update(&mut self, id: TokenId, change: TokenChange) -> Answer {
        let now_ms = self.now_ms();
        let before = self.find(id)?;
        let mut row = before.clone();
        row.label = change.label.unwrap_or(row.label);
        row.expires_at = change.expires_at.unwrap_or(row.expires_at);
        row.limits = change.limits.unwrap_or(row.limits);
        if let Some(at) = row.expires_at.filter(|_| row.expires_at != before.expires_at) {
            check_expiry(at, now_ms / 1000)?;
        }
        self.store_backoff.poll_open(now_ms)?;
        if !self.write_token(now_ms, row.hash.key(), |store| store.update(&row))? {
            return Err(not_found());
        }
        let alive = row.expires_at.is_none_or(|at| at > now_ms / 1000);
        let mut bound = self.bound_row(&row)?;
        if let Some(agent) = change.agent_key {
            bound = self.set_agent_key(row.hash.key(), agent, bound)?;
        }
        let has_changed = (row.expires_at, row.limits) != (before.expires_at, before.limits);
        if alive && (has_changed || change.agent_key.is_some()) {
            let sums = self.used(&row, now_ms)?;
            self.admit(&row, bound, sums, now_ms)?;
        }
        self.show_row(&row)
    }

    /// Puts a token's entry into the directory, in the place of one that it had, and tells its owner.
    pub(super) fn admit(
        &mut self,
        row: &TokenRow,
        bound: Option<Bound>,
        sums: UsageSums,
        now_ms: u64,
    ) -> Result<(), ApiAnswer> {
        let key = row.hash.key();
        let entry = entry_of(row, bound, sums, now_ms);
        if let Some(old) = self.entry(key) {
            // The owner writes the new entry from the notice on; until then readers see what was.
            for role in [Role::Phone, Role::Agent] {
                entry.set_online(role, old.online_since(role));
            }
            entry.set_used(old.was_used());
        }
        let Some(slot) = self.control.directory.insert(entry) else {
            return Err(ApiAnswer::error(ErrorCode::Full, "this relay has no room for another token", Some(60_000)));
        };
        if let Some(old) = self.control.index.insert(key, slot, row.expires_at) {
            self.control.index.retire(now_ms, old);
        }
        self.control.index.note_unused(row);
        self.tell_owner(key, Notice::Admit { key, slot });
        Ok(())
    }

    /// Reading works where only writing fails, but waits for another program's lock and does not get it.
    pub(super) fn poll_readable(&self, now_ms: u64) -> Result<(), ApiAnswer> {
        if self.store_backoff.health().state() == StoreState::Locked {
            self.store_backoff.poll_open(now_ms)?;
        }
        Ok(())
    }

    pub(super) fn find(&mut self, id: TokenId) -> Result<TokenRow, ApiAnswer> {
        let now_ms = self.now_ms();
        self.poll_readable(now_ms)?;
        let found = self.control.store.find(id);
        self.store_backoff.handle_read(now_ms, found)?.ok_or_else(not_found)
    }

    /// What a token used: from the directory while it admits, which the owner keeps up to date; else from the store.
    pub(super) fn used(&mut self, row: &TokenRow, now_ms: u64) -> Result<UsageSums, ApiAnswer> {
        let today = day_of(now_ms);
        if let Some(entry) = self.entry(row.hash.key()) {
            let (day, month) = (entry.day.load(Relaxed), entry.month.load(Relaxed));
            return Ok(UsageSums {
                day_bytes: if day == today { entry.day_bytes.load(Relaxed) } else { 0 },
                month_bytes: if month == month_of_day(today) { entry.month_bytes.load(Relaxed) } else { 0 },
            });
        }
        let stored = self.control.store.usage(row.serial, now_ms);
        let stored = self.store_backoff.handle_read(now_ms, stored)?;
        let waiting = self.pending.bytes(row.hash.key(), today);
        Ok(UsageSums { day_bytes: stored.day_bytes + waiting, month_bytes: stored.month_bytes + waiting })
    }

    /// Tokens with what they used, for a page.
    pub(super) fn views<'a>(&mut self, rows: &'a [TokenRow], now_ms: u64) -> Result<Vec<TokenView<'a>>, ApiAnswer> {
        let mut view = |row: &'a TokenRow| {
            let (sums, bound) = (self.used(row, now_ms)?, self.bound_row(row)?);
            Ok(self.view(row, bound.as_ref(), None, sums))
        };
        rows.iter().map(&mut view).collect()
    }

    fn view<'a>(
        &self,
        row: &'a TokenRow,
        bound: Option<&Bound>,
        token: Option<&'a str>,
        sums: UsageSums,
    ) -> TokenView<'a> {
        let effective = row.limits.over(&self.control.settings.limits);
        let entry = self.entry(row.hash.key());
        let is_unused = entry.as_ref().is_none_or(|entry| !entry.was_used());
        let unused_from = row.unused_from.filter(|_| is_unused);
        let since = |role| entry.as_ref().and_then(|entry| entry.online_since(role)).map(u64::from);
        let (phone, agent) = (since(Role::Phone), since(Role::Agent));
        TokenView {
            token,
            id: row.hash.key().id().to_string(),
            label: row.label.as_deref(),
            created_at: write_rfc3339(row.created_at),
            expires_at: row.expires_at.map(write_rfc3339),
            unused_expires_at: unused_from.map(|from| {
                let left = (from + UNUSED_MINUTES_MAX).saturating_sub(self.age.minutes());
                write_rfc3339((self.now_ms() / 1000 + left * 60).min(LAST_SECOND))
            }),
            agent_key: bound.map(|bound| bound.agent.to_string()),
            devices: bound.map_or(0, |bound| bound.devices.len()),
            limits: row.limits,
            usage: UsageView {
                day_bytes: sums.day_bytes,
                month_bytes: sums.month_bytes,
                daily_quota_bytes: effective.daily_quota_bytes,
                monthly_quota_bytes: effective.monthly_quota_bytes,
            },
            effective,
            online: RolesView { phone: phone.is_some(), agent: agent.is_some() },
            online_since: RolesView { phone: phone.map(write_rfc3339), agent: agent.map(write_rfc3339) },
        }
    }
}

/// What is logged, after changing it if `level` says so.
fn log_level(level: Option<String>) -> Answer {
    if let Some(level) = level {
        let refused = |error: LogError| ApiAnswer::error(ErrorCode::InvalidRequest, &error.to_string(), None);
        log::set_level(&level).map_err(refused)?;
    }
    Ok(ApiAnswer::json(200, &LogLevelView { level: log::level() }))
}

fn not_found() -> ApiAnswer {
    ApiAnswer::error(ErrorCode::NotFound, "there is no such token", None)
}
