//! What shards and the control thread say to each other. Never a frame.

use super::Settings;
use crate::api::{ApiAnswer, ApiCall, Caller};
use crate::cluster;
use crate::directory::Slot;
use crate::notifier::Question;
use crate::proto::device::DeviceId;
use crate::proto::token::TokenKey;
use crate::session::message::ErrorCode;
use crate::session::{Asked, Change};

pub use crate::store::Usage;

/// From a shard to control.
#[derive(Debug)]
pub enum Request {
    /// An API call of an HTTP client; answered by [`Notice::Answer`].
    Call {
        /// Where the answer goes.
        from: Caller,
        /// What is asked.
        call: ApiCall,
    },
    /// What a shard's tokens used since it last said so; handed over once a second.
    Usage(Vec<Usage>),
    /// An agent wants to change whom its token admits, or a device how it is woken; answered by [`Notice::Changed`].
    Change {
        /// The token.
        key: TokenKey,
        /// What is wanted.
        change: Change,
        /// By whom.
        asked: Asked,
    },
    /// These devices have connected, each for the first time on a UTC day.
    Seen(Vec<(TokenKey, DeviceId)>),
    /// The notifier asks about a device's subscription.
    Push(Question),
    /// A client cannot be let in by what is known here; answered by [`Notice::CaughtUp`].
    CatchUp(Caller),
    /// What the relays that tokens are shared with have written.
    Cluster(cluster::Event),
    /// The operator has decided anew: these hold from now on, and tokens are as the store has them now.
    Reload(Settings),
    /// End: record what is queued, close the store, return.
    Stop,
}

/// Why whom a token admits has not been changed.
#[derive(Debug)]
pub struct Unchanged {
    /// The code on the wire.
    pub code: ErrorCode,
    /// In plain words.
    pub message: String,
    /// When to try again.
    pub retry_after_ms: Option<u64>,
}

/// What has become of a change of whom a token admits.
#[derive(Debug)]
pub struct Changed {
    /// The token.
    pub key: TokenKey,
    /// What was wanted.
    pub change: Change,
    /// By whom.
    pub asked: Asked,
    /// Whether it is on the disk.
    pub result: Result<(), Unchanged>,
}

/// From control to a shard.
#[derive(Debug)]
pub enum Notice {
    /// To the owner: this token admits from now on (also sent when its expiry or limits changed: a new slot).
    Admit {
        /// The token.
        key: TokenKey,
        /// Its entry in the directory.
        slot: Slot,
    },
    /// To the owner: this token admits no more; both its connections are to be closed.
    Revoke {
        /// The token.
        key: TokenKey,
    },
    /// To the owner: what has become of [`Request::Change`]. Where that has changed anything, [`Notice::Admit`] came before.
    Changed(Box<Changed>),
    /// To the caller's shard: all that relays had written when [`Request::CatchUp`] came has been told to the owners.
    CaughtUp {
        /// The waiting connection, by [`Caller::serial`].
        serial: u64,
        /// Whether it has; else it cannot be had now.
        is_current: bool,
    },
    /// To the caller's shard: the answer to [`Request::Call`].
    Answer {
        /// The waiting connection, by [`Caller::serial`].
        serial: u64,
        /// The answer.
        answer: ApiAnswer,
    },
}

/// How control reaches the shards.
pub trait Shards: Send {
    /// The shard that owns a token.
    fn owner(&self, key: TokenKey) -> u16;
    /// Puts a notice into a shard's queue, waiting while it is full; `false` when the shard has ended.
    fn post(&self, shard: u16, notice: Notice) -> bool;
}
