//! The keys of one pair of device and agent: several sessions to open with, one to seal with.

use super::chain::{Chain, Label, NUMBER_MAX, Sending};
use super::error::{OpenError, SealError};
use super::keys::{DeviceId, Secret, Sid};
use super::wire::{Sealed, enclose};
use super::{AHEAD_MAX, Now, OUTLIVES, RECEIVING_MAX, Sent, WIND_FREE, WIND_PAUSE};
use crate::payload::{as_json, padded};
use crate::{PAYLOAD_BYTES_MAX, Random, draw};
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::time::Duration;

/// A session to open with.
#[derive(Clone, Debug)]
pub(super) struct Receiving {
    pub(super) sid: Sid,
    pub(super) chain: Chain,
    /// Unix time of its confirmation.
    pub(super) since: Duration,
}

/// Both directions of a session, as a handshake leaves them.
pub(super) struct Fresh {
    pub(super) receiving: Receiving,
    pub(super) sending: Sending,
}

impl Fresh {
    pub(super) fn new(sid: Sid, receive: Secret, send: Secret, now: Now) -> Self {
        let receiving = Receiving { sid, chain: Chain::new(receive, 0), since: now.unix };
        Self { receiving, sending: Sending::new(sid, Chain::new(send, 0)) }
    }
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Sessions {
    pub(super) device: DeviceId,
    /// Confirmed ones, the newest first: at most [`RECEIVING_MAX`].
    pub(super) receiving: VecDeque<Receiving>,
    /// Of the newest confirmed session.
    pub(super) sending: Sending,
    /// Since it connected, nothing has waited in the mailbox, or all of that is acknowledged.
    drained: bool,
    /// Monotonic: before it no long wind is tried.
    wind_again: Duration,
    /// What is sealed is padded to a multiple of this many bytes.
    padding: usize,
}

impl Sessions {
    pub(super) fn new(device: DeviceId, receiving: VecDeque<Receiving>, sending: Sending) -> Self {
        Self { device, receiving, sending, drained: false, wind_again: Duration::ZERO, padding: 1 }
    }

    pub(super) fn of(device: DeviceId, Fresh { receiving, sending }: Fresh) -> Self {
        Self::new(device, VecDeque::from([receiving]), sending)
    }

    pub(super) fn set_padding(&mut self, step: usize) {
        self.padding = step;
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    /// The mailbox may have something again.
    pub(super) fn handle_connected(&mut self) {
        self.drained = false;
    }

    /// Nothing waits in it, or all of that is acknowledged.
    pub(super) fn handle_drained(&mut self) {
        self.drained = true;
        self.delete_superseded();
    }

    /// Makes a session the newest confirmed one, and the one to seal with.
    pub(super) fn confirm(&mut self, Fresh { receiving, sending }: Fresh, now: Now) {
        self.receiving.push_front(Receiving { since: now.unix, ..receiving });
        self.receiving.truncate(RECEIVING_MAX);
        self.sending = sending;
        if self.drained {
            self.delete_superseded();
        }
    }

    /// Drops what has outlived its mail.
    pub(super) fn expire(&mut self, now: Now) {
        let newer = self.receiving.iter().map(|session| session.since);
        let gone = newer.map(|since| now.unix >= since + OUTLIVES).position(|gone| gone);
        if let Some(newer) = gone {
            self.receiving.truncate(newer + 1);
        }
    }

    /// What is older than the newest session in which a message has opened came before it, or comes no more.
    fn delete_superseded(&mut self) {
        if let Some(newest) = self.receiving.iter().position(|session| session.chain.next() > 0) {
            self.receiving.truncate(newest + 1);
        }
    }

    pub(super) fn seal(
        &mut self,
        random: &mut (impl Random + ?Sized),
        kind: &str,
        id: Option<&str>,
        payload: Option<&RawValue>,
    ) -> Result<Sent, SealError> {
        let payload = payload.unwrap_or(nothing());
        let bytes = payload.get().len();
        if kind.contains('\0') {
            return Err(SealError::Kind);
        }
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(SealError::TooLong { bytes });
        }
        if self.sending.next() > NUMBER_MAX {
            return Err(SealError::Exhausted);
        }
        let text = padded(payload, self.padding);
        let label = Label { device: self.device, sid: self.sending.sid, kind, id: id.unwrap_or_default() };
        let (number, nonce, sealed, store) = self.sending.seal(label, &draw(random), text.as_bytes());
        Ok(Sent { payload: enclose(self.sending.sid, number, &nonce, &sealed), store })
    }

    /// The place of a session in the list.
    pub(super) fn position(&self, sid: Sid) -> Option<usize> {
        self.receiving.iter().position(|session| session.sid == sid)
    }

    /// Opens a message of the confirmed session at this place.
    pub(super) fn open_at(
        &mut self,
        place: usize,
        now: Now,
        kind: &str,
        id: Option<&str>,
        sealed: Sealed,
    ) -> Result<(Box<RawValue>, u64), OpenError> {
        let session = self.receiving[place].clone();
        let (chain, payload, skipped) = self.open_in(&session, now, kind, id, sealed)?;
        self.receiving[place].chain = chain;
        if self.drained {
            self.delete_superseded();
        }
        Ok((payload, skipped))
    }

    /// Opens a message of a session: its chain from now on, the payload, and how many were skipped.
    pub(super) fn open_in(
        &mut self,
        session: &Receiving,
        now: Now,
        kind: &str,
        id: Option<&str>,
        Sealed { number, nonce, ciphertext, .. }: Sealed,
    ) -> Result<(Chain, Box<RawValue>, u64), OpenError> {
        let expected = session.chain.next();
        let skipped = number.checked_sub(expected).ok_or(OpenError::Repeated { number, expected })?;
        if skipped > AHEAD_MAX {
            return Err(OpenError::TooFar);
        }
        if skipped > WIND_FREE && now.monotonic < self.wind_again {
            return Err(OpenError::TooSoon);
        }
        let mut chain = session.chain.clone();
        chain.wind(skipped);
        let label = Label { device: self.device, sid: session.sid, kind, id: id.unwrap_or_default() };
        let Some(text) = chain.open(label, &nonce, ciphertext) else {
            if skipped > WIND_FREE {
                self.wind_again = now.monotonic + WIND_PAUSE;
            }
            return Err(OpenError::Forged);
        };
        let payload = as_json(text).map_err(|_| OpenError::NotJson)?;
        chain.wind(1);
        Ok((chain, payload, skipped))
    }
}

/// The payload of a message that has none.
fn nothing<'a>() -> &'a RawValue {
    serde_json::from_str("{}").expect("it is JSON")
}
