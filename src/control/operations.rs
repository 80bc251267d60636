//! The calls of an operator who looks at the whole relay: who is online, what was used, and the end.

use super::Worker;
use super::message::Shards;
use super::tokens::Answer;
use crate::api::views::{DayPage, DayView, DrainView, SessionPage};
use crate::api::{ApiAnswer, PAGE_MAX};
use crate::proto::token::{Role, TokenId};
use crate::sys::time::write_rfc3339;

/// Tokens looked at for one page of sessions, so that a relay with very many tokens and few of them online does not
/// keep the others waiting.
const LOOKED_AT_MAX: u32 = 10_000;

impl<S: Shards, C: Fn() -> u64, R: FnMut() -> [u8; 16]> Worker<S, C, R> {
    pub(super) fn sessions(&mut self, limit: u32, after: Option<u64>) -> Answer {
        let now_ms = self.now_ms();
        self.poll_readable(now_ms)?;
        let (limit, mut after) = (limit.clamp(1, PAGE_MAX) as usize, after.unwrap_or(0));
        let (mut online, mut next) = (Vec::new(), None);
        for _ in 0..LOOKED_AT_MAX / PAGE_MAX {
            let rows = self.control.store.list(after, PAGE_MAX);
            let rows = self.store_backoff.handle_read(now_ms, rows)?;
            let is_last = rows.len() < PAGE_MAX as usize;
            for row in rows {
                after = row.serial;
                if self.is_online(row.hash.key()) {
                    online.push(row);
                    if online.len() == limit {
                        break;
                    }
                }
            }
            let is_full = online.len() == limit;
            next = (is_full || !is_last).then_some(after);
            if is_full || is_last {
                break;
            }
        }
        let sessions = self.views(&online, now_ms)?;
        Ok(ApiAnswer::json(200, &SessionPage { sessions, next }))
    }

    fn is_online(&self, key: crate::proto::token::TokenKey) -> bool {
        self.entry(key)
            .is_some_and(|entry| [Role::Phone, Role::Agent].iter().any(|&role| entry.online_since(role).is_some()))
    }

    pub(super) fn days(&mut self, of: Option<TokenId>, limit: u32, after: Option<u64>) -> Answer {
        let serial = match of {
            Some(id) => Some(self.find(id)?.serial),
            None => None,
        };
        let now_ms = self.now_ms();
        self.poll_readable(now_ms)?;
        let limit = limit.clamp(1, PAGE_MAX);
        let days = self.control.store.usage_by_day(serial, after, limit + 1);
        let mut days = self.store_backoff.handle_read(now_ms, days)?;
        let more = days.len() > limit as usize;
        days.truncate(limit as usize);
        let next = days.last().filter(|_| more).map(|day| u64::from(day.day));
        let view = |day: crate::store::DaySum| DayView {
            day: write_rfc3339(u64::from(day.day) * 86_400)[..10].to_owned(),
            bytes: day.bytes,
            tokens: day.tokens,
        };
        Ok(ApiAnswer::json(200, &DayPage { days: days.into_iter().map(view).collect(), next }))
    }

    pub(super) fn drain(&self) -> ApiAnswer {
        (self.control.drain)();
        ApiAnswer::json(202, &DrainView { draining: true })
    }
}
