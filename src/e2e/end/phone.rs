//! The phone's side of a key exchange: it answers the agent's announcements.

use super::{End, Keys, Reply, Step};
use crate::error::ExchangeError;
use crate::payload::{Exchange, Received, received};
use crate::{draw, v1, v2};
use serde_json::value::RawValue;

impl End {
    pub(super) fn handle_announcement(
        &mut self,
        payload: Option<&RawValue>,
        reply_id: &str,
    ) -> Result<Step, ExchangeError> {
        let theirs = received(payload)?;
        match (self.secret.is_some(), theirs.verified) {
            (true, true) if theirs.noise.is_some() => self.handle_answer(&theirs),
            (true, true) => {
                (self.announced, self.offered_resume) = (true, theirs.resume);
                Ok(Step { reply: self.reopen(reply_id), agreed: false, devices: false })
            }
            (true, false) => Err(ExchangeError::Downgrade),
            (false, true) => Err(ExchangeError::SecretMissing),
            (false, false) => self.handle_public_key(&theirs),
        }
    }

    /// A new opening, once the agent has announced version 2. It takes the place of one that was not answered.
    pub(super) fn reopen(&mut self, reply_id: &str) -> Option<Reply> {
        let secret = self.secret.as_ref().filter(|_| self.announced)?;
        let resume = self.resume && self.offered_resume;
        let (opening, message) = v2::Opening::new(&self.token, secret, draw(&mut *self.random), resume);
        (self.opening, self.waiting) = (Some((reply_id.to_owned(), opening)), true);
        let filler = draw(&mut *self.random);
        let exchange = Exchange::announcing(&filler, Some(2)).with_noise(&message);
        Some(Reply::exchange(&exchange.with_resume(resume)))
    }

    fn handle_answer(&mut self, theirs: &Received<'_>) -> Result<Step, ExchangeError> {
        // The answer to an older opening is not an error: the agent had announced itself twice.
        let newest = self.opening.as_mut().filter(|(id, _)| theirs.re.as_deref() == Some(id));
        let (Some((_, opening)), Some(message)) = (newest, &theirs.noise) else { return Ok(Step::default()) };
        self.keys = Some(Keys::Verified(opening.finish(message, theirs.resume)?));
        (self.opening, self.waiting) = (None, false);
        Ok(Step { reply: None, agreed: true, devices: false })
    }

    /// Version 1: a new pair for each of the agent's keys.
    fn handle_public_key(&mut self, theirs: &Received<'_>) -> Result<Step, ExchangeError> {
        let pair = v1::KeyPair::generate(&mut *self.random);
        self.agree(&pair, &theirs.pubkey)?;
        Ok(Step {
            reply: Some(Reply::exchange(&Exchange::announcing(pair.public(), None))),
            agreed: true,
            devices: false,
        })
    }
}
