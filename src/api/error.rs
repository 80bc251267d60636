//! What can be wrong with a request: each error has a code that programs go by, and each code one HTTP status.

use crate::sys::time::LAST_SECOND;
use serde::Serialize;
use std::borrow::Cow;

/// The codes of the API's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not HTTP as it should be.
    BadRequest,
    /// The JSON of the body is not what the call takes.
    InvalidBody,
    /// The query is not what the call takes.
    InvalidQuery,
    /// Well formed, and something that the relay cannot do.
    InvalidRequest,
    /// HTTP on a port where TLS is spoken.
    TlsRequired,
    /// No admin key, or a wrong one.
    Unauthorized,
    /// A page of this origin may not do that.
    OriginNotAllowed,
    /// The operator makes the tokens.
    RegistrationOff,
    /// There is no such thing.
    NotFound,
    /// There is, and it does not take this method.
    MethodNotAllowed,
    /// A backup is being made.
    BackupRunning,
    /// There is a file of that name.
    Exists,
    /// A body without its length.
    LengthRequired,
    /// A body that is too long.
    BodyTooLarge,
    /// An `Expect` that is not known.
    ExpectationFailed,
    /// A `Host` that is not the relay's.
    Misdirected,
    /// A WebSocket endpoint.
    UpgradeRequired,
    /// Too often.
    RateLimited,
    /// A request head that is too long.
    HeadTooLarge,
    /// The relay's own fault.
    Internal,
    /// A transfer coding.
    NotImplemented,
    /// The relay has no thread for it now.
    Busy,
    /// No room for another connection or token.
    Full,
    /// The relay takes no traffic now.
    NotReady,
    /// The token store cannot be used now.
    StoreUnavailable,
    /// Another version of HTTP.
    VersionNotSupported,
}

impl ErrorCode {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.entry().1
    }

    /// The HTTP status of an answer with this code.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.entry().0
    }

    const fn entry(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "BAD_REQUEST"),
            Self::InvalidBody => (400, "INVALID_BODY"),
            Self::InvalidQuery => (400, "INVALID_QUERY"),
            Self::InvalidRequest => (400, "INVALID_REQUEST"),
            Self::TlsRequired => (400, "TLS_REQUIRED"),
            Self::Unauthorized => (401, "UNAUTHORIZED"),
            Self::OriginNotAllowed => (403, "ORIGIN_NOT_ALLOWED"),
            Self::RegistrationOff => (403, "REGISTRATION_OFF"),
            Self::NotFound => (404, "NOT_FOUND"),
            Self::MethodNotAllowed => (405, "METHOD_NOT_ALLOWED"),
            Self::BackupRunning => (409, "BACKUP_RUNNING"),
            Self::Exists => (409, "EXISTS"),
            Self::LengthRequired => (411, "LENGTH_REQUIRED"),
            Self::BodyTooLarge => (413, "BODY_TOO_LARGE"),
            Self::ExpectationFailed => (417, "EXPECTATION_FAILED"),
            Self::Misdirected => (421, "MISDIRECTED"),
            Self::UpgradeRequired => (426, "UPGRADE_REQUIRED"),
            Self::RateLimited => (429, "RATE_LIMITED"),
            Self::HeadTooLarge => (431, "HEAD_TOO_LARGE"),
            Self::Internal => (500, "INTERNAL"),
            Self::NotImplemented => (501, "NOT_IMPLEMENTED"),
            Self::Busy => (503, "BUSY"),
            Self::Full => (503, "FULL"),
            Self::NotReady => (503, "NOT_READY"),
            Self::StoreUnavailable => (503, "STORE_UNAVAILABLE"),
            Self::VersionNotSupported => (505, "VERSION_NOT_SUPPORTED"),
        }
    }
}

/// Why a call cannot be carried out, however often it is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: Cow<'static, str>,
}

impl ApiError {
    /// An error for programs and people.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Whether a token may be made to expire at a Unix second.
///
/// # Errors
/// It has passed, or no time of the API can name it.
pub fn check_expiry(expires_at: u64, now_unix_sec: u64) -> Result<(), ApiError> {
    let message = match expires_at {
        at if at <= now_unix_sec => "expires_at or expires_in_sec: has to be later than now; to end a token, delete it",
        at if at > LAST_SECOND => "expires_at or expires_in_sec: after the year 9999; null means never",
        _ => return Ok(()),
    };
    Err(ApiError::new(ErrorCode::InvalidRequest, message))
}

/// The JSON of every error: `{"error":{"code":…,"message":…,"retry_after_ms":…}}`.
#[must_use]
pub fn error_body(code: ErrorCode, message: &str, retry_after_ms: Option<u64>) -> String {
    #[derive(Serialize)]
    struct Inner<'a> {
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    }
    #[derive(Serialize)]
    struct Outer<'a> {
        error: Inner<'a>,
    }
    json(&Outer { error: Inner { code: code.name(), message, retry_after_ms } })
}

/// The JSON of a view.
pub(super) fn json(view: &impl Serialize) -> String {
    // Only maps with keys that are not strings and failing `Serialize` impls have no JSON; none is used here.
    serde_json::to_string(view).unwrap_or_default()
}
