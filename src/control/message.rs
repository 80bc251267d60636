//! What shards and the control thread say to each other. Never a frame.

use super::Settings;
use crate::proto::limits::LimitsOverride;
use crate::proto::token::{TokenHash, TokenId, TokenKey};
use crate::session::directory::Slot;
use std::net::IpAddr;

pub use crate::store::Usage;

/// What one page of a list holds at most: tokens, sessions or days.
pub const PAGE_MAX: u32 = 1000;

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
    /// The operator has decided anew: these hold from now on, and tokens are as they stand in the store now.
    Reload(Settings),
    /// End: record what is queued, close the store, return.
    Stop,
}

/// The HTTP connection that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The shard that the connection lives on.
    pub shard: u16,
    /// The connection's serial number on that shard: unique while the process runs.
    pub serial: u64,
}

/// An API call, already authorized by the shard where it needs the admin key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiCall {
    /// `POST /api/v1/pair`: 201 `{"token":…,"id":…,…}`.
    Create(NewToken),
    /// `POST /api/v1/register`: as `Create`, limited for each client address.
    Register {
        /// The client's address (an IPv6 /64 counts as one).
        address: IpAddr,
    },
    /// `GET /api/v1/pair/{token}`: 200 `{"phone":bool,"agent":bool}`.
    Presence(TokenHash),
    /// `DELETE /api/v1/pair/{token}`: 204, also for a token that does not exist.
    Revoke(TokenHash),
    /// `GET /api/v1/tokens?limit=&after=`: a page of tokens in order of creation.
    List {
        /// At most that many tokens, 1 to 1000.
        limit: u32,
        /// The `next` of the page before.
        after: Option<u64>,
    },
    /// `POST /api/v1/tokens/sweep`: deletes tokens that were registered so many days of running ago, or more, and never
    /// used; 200 `{"removed":n,"more":bool}`.
    Sweep {
        /// Days.
        unused_days: u64,
    },
    /// `GET /api/v1/tokens/{id}`: one token with its usage, or 404.
    Show(TokenId),
    /// `PATCH /api/v1/tokens/{id}`: label, expiry, limits; 200 with the token, or 404.
    Update(TokenId, TokenChange),
    /// `GET /api/v1/sessions?limit=&after=`: a page of tokens with somebody online, in order of creation. A page may
    /// have fewer than asked for, and others may follow.
    Sessions {
        /// At most that many tokens, 1 to 1000.
        limit: u32,
        /// The `next` of the page before.
        after: Option<u64>,
    },
    /// `GET /api/v1/usage` and `GET /api/v1/tokens/{id}/usage`: a page of days with the bytes forwarded in each.
    Usage {
        /// Of one token; `None`: of all.
        of: Option<TokenId>,
        /// At most that many days, 1 to 1000.
        limit: u32,
        /// The `next` of the page before.
        after: Option<u64>,
    },
    /// `POST /api/v1/drain`: 202, and the relay ends in order.
    Drain,
    /// `POST /api/v1/backup`: 202, and a copy of the store is being made beside it, under this name.
    Backup(Option<String>),
    /// `GET /api/v1/backup`: how far the last one has come.
    BackupState,
    /// `DELETE /api/v1/tokens/{id}`: as `Revoke`, by public id; 204, or 404.
    RevokeId(TokenId),
    /// `GET` and `PUT /api/v1/log-level`: 200 `{"level":…}`; `Some`: what is logged from now on.
    LogLevel(Option<String>),
}

/// The optional JSON body of `POST /api/v1/pair`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewToken {
    /// For people; at most 200 characters.
    pub label: Option<String>,
    /// Unix second from which the token admits no more.
    pub expires_at: Option<u64>,
    /// The token's own limits.
    pub limits: LimitsOverride,
}

/// The JSON body of `PATCH /api/v1/tokens/{id}`: what is there changes, `null` clears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenChange {
    /// A new label.
    pub label: Option<Option<String>>,
    /// A new expiry.
    pub expires_at: Option<Option<u64>>,
    /// New limits, all of them.
    pub limits: Option<LimitsOverride>,
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
    /// To the caller's shard: the answer to [`Request::Call`].
    Answer {
        /// The waiting connection, by [`Caller::serial`].
        serial: u64,
        /// The answer.
        answer: ApiAnswer,
    },
}

/// The answer to an API call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiAnswer {
    /// The HTTP status code.
    pub status: u16,
    /// The JSON body; empty with 204.
    pub body: String,
    /// Seconds for a `Retry-After` header.
    pub retry_after: Option<u64>,
}

/// How control reaches the shards.
pub trait Shards: Send {
    /// The shard that owns a token.
    fn owner(&self, key: TokenKey) -> u16;
    /// Puts a notice into a shard's mailbox, waiting while it is full; `false` when the shard has ended.
    fn post(&self, shard: u16, notice: Notice) -> bool;
}
