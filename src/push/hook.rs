//! The operator's hook: an HTTP POST to a gateway of the operator's own, which has the credentials of APNs or FCM.

use http::Uri;
use ring::hmac;
use serde::Serialize;
use std::fmt::{self, Write};
use std::str::FromStr;

/// Where the gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookUrl(Uri);

/// What would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an http or https URL without user, password and fragment")]
pub struct HookUrlError;

impl HookUrl {
    /// What requests are sent to.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0
    }
}

impl FromStr for HookUrl {
    type Err = HookUrlError;

    fn from_str(text: &str) -> Result<Self, HookUrlError> {
        let uri: Uri = text.parse().map_err(|_| HookUrlError)?;
        let has_user = uri.authority().is_none_or(|authority| authority.as_str().contains('@'));
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        (is_http && !has_user && !text.contains('#')).then_some(Self(uri)).ok_or(HookUrlError)
    }
}

impl fmt::Display for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The body of a request.
#[must_use]
pub fn body(handle: &str) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        v: u8,
        handle: &'a str,
        ttl: u32,
    }
    serde_json::to_string(&Body { v: 1, handle, ttl: crate::TTL_SECONDS }).unwrap_or_default()
}

/// The value of `X-CoralMux-Signature`: when the request was made, and HMAC-SHA256 of that time, a dot and the body.
#[must_use]
pub fn sign(secret: &[u8], unix_seconds: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, format!("{unix_seconds}.{body}").as_bytes());
    let mut value = format!("t={unix_seconds},v1=");
    for byte in tag.as_ref() {
        // A string takes whatever is written.
        let _ = write!(value, "{byte:02x}");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_signed_so_that_its_time_and_body_cannot_change() {
        let body = body("apns:ab\"cd");
        assert_eq!(body, r#"{"v":1,"handle":"apns:ab\"cd","ttl":86400}"#);
        // printf '1700000000.%s' "$body" | openssl dgst -sha256 -hmac secret
        let value = sign(b"secret", 1_700_000_000, &body);
        assert_eq!(value, "t=1700000000,v1=147971cf59097d5f86767ce38049558d0088eccc55311ba4e644bc799c7fae81");
        assert_ne!(value, sign(b"secret", 1_700_000_001, &body));
    }

    #[test]
    fn the_url_may_be_of_either_kind_and_has_no_user() {
        for good in ["http://127.0.0.1:9000/wake", "https://hook.example.com", "http://[::1]:9/a?b=c"] {
            assert_eq!(good.parse::<HookUrl>().unwrap().to_string().trim_end_matches('/'), good, "{good}");
        }
        for bad in ["", "hook.example.com", "/wake", "ftp://a/", "http://user@a/", "http://a/#b", "http://"] {
            assert!(bad.parse::<HookUrl>().is_err(), "{bad}");
        }
    }
}
