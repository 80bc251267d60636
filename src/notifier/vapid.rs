//! The signed tokens by which push services know the relay: one for each service, used again until it is about to end.

use super::Notifier;
use crate::push::{BadKey, Contact, JWT_VALID};
use ring::rand::SecureRandom;
use std::collections::HashMap;
use std::time::Duration;

/// A token is renewed when less than that of its time is left.
const RENEW_BEFORE: Duration = Duration::from_secs(3600);
/// Tokens that are kept. Devices choose the services, so there may be any number; making one takes a tenth of a millisecond.
const KEPT_MAX: usize = 1024;

/// Tokens that are still good.
#[derive(Default)]
pub(super) struct Authorizations {
    /// By origin: when it ends, in Unix seconds, for which contact it is, and the header's value.
    kept: HashMap<String, (u64, Contact, String)>,
}

impl Authorizations {
    /// The value of `Authorization` for a push service.
    pub(super) fn of(
        &mut self,
        notifier: &Notifier,
        origin: String,
        contact: &Contact,
        unix_seconds: u64,
        random: &dyn SecureRandom,
    ) -> Result<String, BadKey> {
        // One from before the clock was set back would end too far ahead.
        let good = unix_seconds + RENEW_BEFORE.as_secs()..=unix_seconds + JWT_VALID.as_secs();
        if let Some((ends, of, value)) = self.kept.get(&origin)
            && good.contains(ends)
            && of == contact
        {
            return Ok(value.clone());
        }
        let ends = unix_seconds + JWT_VALID.as_secs();
        let value = notifier.key.authorization(&origin, ends, contact, random)?;
        if self.kept.len() >= KEPT_MAX {
            self.kept.clear();
        }
        self.kept.insert(origin, (ends, contact.clone(), value.clone()));
        Ok(value)
    }
}
