//! Version 3: devices, each with keys of its own that outlast connections and restarts (PROTOCOL.md, "Version 3").
//!
//! | end | first | then, for as long as the device is one |
//! | --- | --- | --- |
//! | device | [`Enrolment`], with a link's `k` and `a` | [`DeviceEnd`] |
//! | agent | [`Enrolments`], all the `k` that are open | [`AgentEnd`], one for each device |
//!
//! An enrolment is three `key_exchange` messages and gives both ends the keys of the first session. Later sessions are
//! an opening and an answer. Each message of a session has a key of its own, which is gone when it has been used.
//!
//! Pure: time ([`Now`]) and randomness are passed in. Whatever changes an end's state says that it has to be stored
//! (`store`), and [`DeviceEnd::store`] and [`AgentEnd::store`] give the text to store. It must never seal two texts
//! with one key and nonce, whatever becomes of what was stored; open a message twice, unless it was set back; or read
//! anything in clear.

mod agent;
mod chain;
mod device;
mod enrol;
mod error;
mod handshake;
mod keys;
mod sessions;
mod state;
mod wire;

#[cfg(test)]
mod tests;

use serde_json::value::RawValue;
use std::time::Duration;

pub use agent::AgentEnd;
pub use device::DeviceEnd;
pub use enrol::{Enrolled, Enrolment, Enrolments, Joined, cleaned};
pub use error::{EnrolError, OpenError, SealError, StateError};
pub use keys::{AgentPrint, Code, DeviceId, Invite, PublicBytes, StaticKey};
pub use wire::KeyExchange;

/// First messages of an enrolment that an agent answers with one `k`.
pub const FIRST_MAX: usize = 8;
/// Tries that a device makes with one link.
pub const TRIES_MAX: u32 = 3;
/// After so much silence a device begins its enrolment anew.
pub const ENROL_SILENCE: Duration = Duration::from_secs(10);
/// Open `k` of one agent: the invites that a relay takes, and the link of the first start.
pub const OPEN_MAX: usize = 5;
/// Characters of a device's name, and of its platform.
pub const NAME_CHARS_MAX: usize = 64;

/// Confirmed sessions that are opened with.
pub const RECEIVING_MAX: usize = 4;
/// Unconfirmed ones that an agent keeps of one device.
pub const UNCONFIRMED_MAX: usize = 2;
/// For so long an agent keeps them.
pub const UNCONFIRMED_LIFE: Duration = Duration::from_secs(60);
/// Openings that an agent answers, of one device and in [`OPENINGS_SPAN`].
pub const OPENINGS_MAX: usize = 12;
/// See [`OPENINGS_MAX`].
pub const OPENINGS_SPAN: Duration = Duration::from_secs(60);
/// A device opens, and an agent complains, at most once in this time.
pub const HEAL_INTERVAL: Duration = Duration::from_secs(5);
/// A device opens anew when its session is older,
pub const SESSION_AGE: Duration = Duration::from_secs(60 * 60);
/// or has had more messages in either direction.
pub const SESSION_MESSAGES: u64 = 4096;
/// A session is deleted so long after a newer one was confirmed: mail lives 7 days.
pub const OUTLIVES: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// So many messages may be missing before one that is opened.
pub const AHEAD_MAX: u64 = 4096;
/// With more missing, one that does not open
pub const WIND_FREE: u64 = 64;
/// has all such refused for so long.
pub const WIND_PAUSE: Duration = Duration::from_secs(1);

const _: () = assert!(chain::AHEAD <= WIND_FREE && WIND_FREE < AHEAD_MAX);

/// The two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since any moment, and never going back: for rates.
    pub monotonic: Duration,
    /// Since 1970: for what has to outlast a restart. It may jump.
    pub unix: Duration,
}

/// A sealed payload.
#[derive(Debug)]
#[must_use = "it is to be sent, and to be stored first where it says so"]
pub struct Sent {
    /// To send in place of the payload.
    pub payload: Box<RawValue>,
    /// The end's state has to be durable before this leaves.
    pub store: bool,
}

/// An opened message. The end's state has changed: it has to be durable before the message is acknowledged.
#[derive(Debug)]
pub struct Opened {
    /// The payload in clear.
    pub payload: Box<RawValue>,
    /// How many messages of its session before it did not come.
    pub skipped: u64,
    /// Agent: it was the first of its session, which is used for sending from now on. Device: it was the first of
    /// all, and admits the device. Either end says now what it lacks.
    pub confirmed: bool,
}
