//! Devices (PROTOCOL.md, "Devices" and "Version 3"): an agent's, each with keys and a stream of its own, and this end where
//! it is one.
//!
//! [`Book`] is what an agent knows of all of them, [`Of`] its end toward one, [`Own`] the end of a device. They store
//! themselves ([`Store`]) before what must not be lost leaves. What a message means is the session's business.

mod book;
mod of;
mod own;
mod store;
mod stored;

pub use own::{Device, DeviceError};
pub use store::{Folder, Store, make_folder, replace};

pub use book::{BookError, NoLink, first_link};

pub(crate) use book::{Book, Request};
pub(crate) use of::{NotSealed, Of};
pub(crate) use own::{Own, Said};

use crate::envelope::{random, unix_ms};
use coralmux_e2e::PairingSecret;
use coralmux_e2e::v3::{DeviceId, Now, StaticKey};
use serde_json::value::RawValue;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Devices of one agent.
pub const DEVICES_MAX: usize = 8;
/// A link that was asked for is good for so long.
pub const INVITE_LIFE: Duration = Duration::from_secs(10 * 60);
/// What the owner wants and the client's thread has not done.
pub(crate) const COMMANDS_MAX: usize = 64;
/// The type of what an agent says first to a device. It has no number: a device seals nothing before.
pub(crate) const WELCOME: &str = "device.welcome";
/// A plain slot that was not used for so long is closed, where there are devices.
pub(crate) const PLAIN_LIFE_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Whom a message is from, or for: one of an agent's devices, or `None`: the phone in the plain slot; at a phone the
/// agent.
pub type Lane = Option<DeviceId>;

/// For whom a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Every device of an agent, and the phone of the plain slot where one has been there; at a phone the agent.
    All,
    /// One of them.
    Only(Lane),
    /// An agent's devices, but for one.
    Devices {
        /// That one.
        but: Option<DeviceId>,
    },
}

/// What an agent knows of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its name between the ends and the relay.
    pub device: DeviceId,
    /// What it calls itself, or was called since: at most 64 characters, without anything that a terminal would act on.
    pub name: String,
    /// `web`, for example; bounded in the same way.
    pub platform: String,
    /// When it came, in Unix milliseconds.
    pub added_at: u64,
    /// When it was last there, in Unix milliseconds, to the hour.
    pub seen_at: u64,
    /// It may revoke all others.
    pub owner: bool,
    /// Which device asked for its link.
    pub by: Lane,
    /// Six digits, until it is admitted.
    pub code: Option<String>,
    /// It is there now.
    pub online: bool,
}

/// A device that has shown the secret of a link, and is to be admitted or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Its name between the ends and the relay.
    pub device: DeviceId,
    /// What it calls itself.
    pub name: String,
    /// `web`, for example.
    pub platform: String,
    /// Six digits, which it shows as well.
    pub code: String,
    /// Which device asked for its link.
    pub by: Lane,
    /// The word that its link was asked for with; empty for that of the first start, and after a restart.
    pub tag: String,
}

/// An agent's long-lived keys.
#[derive(Clone)]
pub struct AgentKeys {
    /// Of the encryption.
    pub key: Arc<StaticKey>,
    /// By which the relay knows the agent.
    pub relay_key: [u8; 32],
}

impl AgentKeys {
    /// New ones.
    #[must_use]
    pub fn generate() -> Self {
        let mut relay_key = [0; 32];
        random(&mut relay_key);
        Self { key: Arc::new(StaticKey::generate(&mut |bytes: &mut [u8]| random(bytes))), relay_key }
    }
}

impl fmt::Debug for AgentKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentKeys(***)")
    }
}

/// An agent's devices, as [`Client::start_with_devices`](crate::Client::start_with_devices) takes them.
#[derive(Clone, Debug)]
pub struct Devices {
    /// The agent's keys.
    pub keys: AgentKeys,
    /// Where all of it is kept.
    pub store: Arc<dyn Store>,
    /// The link of the first start has never been shown before: its secret admits one device.
    pub is_new: bool,
    /// The plain slot stays open, whether it is used or not.
    pub legacy_phone: bool,
    /// The state is of a backup: what was recorded since does not open again.
    pub restored: bool,
}

/// What an owner wants of its devices.
#[derive(Debug)]
pub(crate) enum Command {
    /// The device that has joined is one from now on.
    Admit(DeviceId),
    /// It is not; or a device is none any more, and with it what it has invited, if that is wanted.
    Revoke { device: DeviceId, invited: bool },
    /// It hears this first of all.
    Welcome(DeviceId, Box<RawValue>),
    /// Phones that know no devices are not let in any more.
    ClosePlain,
    /// It is called so.
    Rename(DeviceId, String),
    /// It may revoke all others, and nobody else may.
    Owner(DeviceId),
    /// A link for another device, on behalf of one or of the agent itself. What comes of it is told with this word.
    Invite { by: Lane, tag: String },
}

/// The first look at the clock, and what it showed: more than nothing, so that what was before it is not all the same
/// moment.
static START: OnceLock<Instant> = OnceLock::new();
const AT_START: Duration = Duration::from_secs(1);

/// Both clocks.
pub(crate) fn clocks(now: Instant) -> Now {
    let start = *START.get_or_init(|| now);
    let monotonic = now.saturating_duration_since(start) + AT_START;
    Now { monotonic, unix: Duration::from_millis(unix_ms()) }
}

/// The moment at which the monotonic one of both shows this.
fn at(monotonic: Duration) -> Instant {
    *START.get_or_init(Instant::now) + monotonic.saturating_sub(AT_START)
}

pub(crate) fn fill(bytes: &mut [u8]) {
    random(bytes);
}

/// A new secret for a link.
pub(crate) fn new_secret() -> PairingSecret {
    PairingSecret::generate(&mut fill)
}
