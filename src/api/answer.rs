//! What a call is answered with.

use super::error::{ApiError, ErrorCode, error_body, json};
use serde::Serialize;

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

impl ApiAnswer {
    /// An answer with a JSON body.
    #[must_use]
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        Self { status, body: json(body), retry_after: None }
    }

    /// 204.
    #[must_use]
    pub fn no_content() -> Self {
        Self { status: 204, body: String::new(), retry_after: None }
    }

    /// An error; with a time to wait also the `Retry-After` seconds.
    #[must_use]
    pub fn error(code: ErrorCode, message: &str, retry_after_ms: Option<u64>) -> Self {
        Self {
            status: code.status(),
            body: error_body(code, message, retry_after_ms),
            retry_after: retry_after_ms.map(|ms| ms.div_ceil(1000).max(1)),
        }
    }
}

impl From<ApiError> for ApiAnswer {
    fn from(error: ApiError) -> Self {
        Self::error(error.code, &error.message, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_wait_in_milliseconds_and_whole_seconds() {
        let answer = ApiAnswer::error(ErrorCode::RateLimited, "later", Some(1001));
        assert_eq!(answer.body, r#"{"error":{"code":"RATE_LIMITED","message":"later","retry_after_ms":1001}}"#);
        assert_eq!((answer.status, answer.retry_after), (429, Some(2)));
        assert_eq!(ApiAnswer::error(ErrorCode::NotFound, "x", None).retry_after, None);
    }
}
