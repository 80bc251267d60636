//! The agent's side of a key exchange: it announces itself, and answers.

use super::{End, Keys, Reply, Step};
use crate::error::ExchangeError;
use crate::payload::{Exchange, received};
use crate::{draw, v1, v2};
use serde_json::value::RawValue;

/// Openings that are remembered, so that none is taken twice. What is forgotten costs a phone one more opening.
pub(crate) const OPENINGS_MAX: usize = 1024;

impl End {
    /// A new announcement. In version 1 the old key goes with the old pair; in version 2 the old keys stay until a
    /// phone has opened, for they still reach one that only lost its connection.
    pub(super) fn announce(&mut self) -> Reply {
        if self.secret.is_some() {
            let filler = draw(&mut *self.random);
            return Reply::exchange(&Exchange::announcing(&filler, Some(2)).with_resume(self.resume));
        }
        let pair = v1::KeyPair::generate(&mut *self.random);
        let reply = Reply::exchange(&Exchange::announcing(pair.public(), None));
        (self.keys, self.pair, self.clear) = (None, Some(pair), false);
        reply
    }

    pub(super) fn handle_opening(
        &mut self,
        id: Option<&str>,
        payload: Option<&RawValue>,
    ) -> Result<Step, ExchangeError> {
        let theirs = received(payload)?;
        let Some(secret) = &self.secret else {
            if theirs.noise.is_some() {
                return Err(ExchangeError::Unexpected);
            }
            // A phone that speaks before the announcement gets a pair, too, and the announcement makes it a new one.
            let pair = self.pair.take().unwrap_or_else(|| v1::KeyPair::generate(&mut *self.random));
            let agreed = self.agree(&pair, &theirs.pubkey);
            self.pair = Some(pair);
            return agreed.map(|()| Step { agreed: true, ..Step::default() });
        };
        let (resume, devices) = (self.resume && theirs.resume, theirs.devices);
        let message = theirs.noise.filter(|_| theirs.verified).ok_or(ExchangeError::NotVerified)?;
        let theirs = v2::ephemeral_of(&message).ok_or(ExchangeError::Malformed)?;
        if self.taken.contains(&theirs) {
            // Nobody but the phone can make an opening, but anyone can repeat one. The phone has no keys for a second
            // answer, and an agent that went over to them would understand it no more.
            return Ok(Step::default());
        }
        let ephemeral = draw(&mut *self.random);
        let (session, message) = v2::answer(&self.token, secret, ephemeral, &message, resume)?;
        self.keys = Some(Keys::Verified(session));
        self.remember(theirs);
        let filler = draw(&mut *self.random);
        let exchange = Exchange::announcing(&filler, Some(2)).with_noise(&message).with_resume(resume);
        Ok(Step { reply: Some(Reply::exchange(&Exchange { re: id, ..exchange })), agreed: true, devices })
    }

    fn remember(&mut self, ephemeral: [u8; 32]) {
        if self.taken.len() == OPENINGS_MAX {
            self.taken.pop_front();
        }
        self.taken.push_back(ephemeral);
    }
}
