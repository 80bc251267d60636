//! The HTTP API as values: the calls that can be made, the answers, their JSON, and the codes of all errors.
//!
//! `http` reads requests into these and writes them into responses, `control` carries calls out; neither knows the other.
//! What a call's own bytes can tell is checked when it is read, and not again. Nothing here does I/O or reads a clock.

mod answer;
mod body;
mod error;
mod health;
pub mod views;

pub use answer::ApiAnswer;
pub use body::{backup_name, log_level, new_token, token_change, unused_days};
pub use error::{ApiError, ErrorCode, check_expiry, error_body};
pub use health::{Driver, HealthReport, Unready};

use coralmux_proto as proto;
use coralmux_sys as sys;
use proto::device::{DeviceId, KeyHash};
use proto::limits::LimitsOverride;
use proto::token::{TokenHash, TokenId};
use std::net::IpAddr;

/// The description of the API (OpenAPI 3.1), as `/api/v1/openapi.json` gives it.
pub const OPENAPI: &str = include_str!("openapi.json");

/// What one page of a list holds at most: tokens, sessions or days.
pub const PAGE_MAX: u32 = 1000;

/// The longest label, in characters.
pub const LABEL_CHARACTERS_MAX: usize = 200;

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
    /// `POST /api/v1/backup`: 202, and a copy of the store is being made beside it.
    Backup {
        /// Its name.
        name: Option<String>,
        /// The mailbox is copied as well, beside it.
        mail: bool,
    },
    /// `GET /api/v1/backup`: how far the last one has come.
    BackupState,
    /// `DELETE /api/v1/tokens/{id}`: as `Revoke`, by public id; 204, or 404.
    RevokeId(TokenId),
    /// `GET /api/v1/tokens/{id}/devices`: what it is bound to and its devices, or 404.
    Devices(TokenId),
    /// `DELETE /api/v1/tokens/{id}/devices/{device}`: 204, or 404.
    RemoveDevice(TokenId, DeviceId),
    /// `GET /api/v1/mail` and `GET /api/v1/tokens/{id}/mail`: what waits for whom, of all tokens or of one; 200, or 404.
    Mail(Option<TokenId>),
    /// `DELETE /api/v1/tokens/{id}/mail` and `DELETE /api/v1/tokens/{id}/mail/{receiver}`: throws away what waits for a
    /// receiver, or for all of the token; 204, or 404.
    EmptyMail(TokenId, Option<MailReceiver>),
    /// `GET` and `PUT /api/v1/log-level`: 200 `{"level":…}`; `Some`: what is logged from now on.
    LogLevel(Option<String>),
}

/// The HTTP connection that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The shard that the connection lives on.
    pub shard: u16,
    /// The connection's serial number on that shard: unique while the process runs.
    pub serial: u64,
}

/// For whom messages wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailReceiver {
    /// The token's agent.
    Agent,
    /// A device of the token.
    Device(DeviceId),
}

impl MailReceiver {
    /// Reads `agent`, or the id of a device.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "agent" { Some(Self::Agent) } else { DeviceId::parse(text).map(Self::Device) }
    }
}

/// The optional JSON body of `POST /api/v1/pair`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewToken {
    /// For people; at most [`LABEL_CHARACTERS_MAX`] characters.
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
    /// The key of the agent that it is bound to from now on; `None` within: it is not bound, and has no devices.
    pub agent_key: Option<Option<KeyHash>>,
}
