//! Bodies that are read whole: errors, and answers that are not streamed. What a server says is cut to a few words
//! before a phone sees it.

use super::{BODY_BYTES_MAX, BackendError, WORDS_MAX};
use crate::client::retry_after;
use serde_json::Value;
use std::io::{self, Read};
use std::time::Duration;
use ureq::Body;
use ureq::http::Response;

/// The longest time that a server may ask to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Whether the answer is one JSON text.
pub(super) fn is_json(answer: &Response<Body>) -> bool {
    let kind = answer.headers().get("content-type").and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/json"))
}

/// All of a body, up to a bound.
pub(super) fn read(answer: Response<Body>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    answer.into_body().into_reader().take(BODY_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a status other than 200 means to the person.
pub(super) fn refusal(answer: Response<Body>) -> BackendError {
    let status = answer.status().as_u16();
    let retry_after = retry_after(answer.headers()).map(|asked| asked.min(RETRY_AFTER_MAX));
    let body = read(answer).unwrap_or_default();
    let said = match serde_json::from_slice::<Value>(&body) {
        Ok(body) => error_words(body.get("error").unwrap_or(&body)),
        Err(_) => words(&String::from_utf8_lossy(&body)),
    };
    let meaning = match status {
        300..=399 => "the AI server's address is wrong: it redirects to another one",
        401 | 403 => "the AI server refuses the agent's API key",
        404 => "the AI server does not know this address or model",
        413 => "the AI server finds the message too large",
        429 => "the AI server is asked too much",
        500.. => "the AI server has failed",
        _ => "the AI server refuses the question",
    };
    let colon = if said.is_empty() { "" } else { ": " };
    BackendError::Failed { message: format!("{meaning} ({status}){colon}{said}"), retry_after }
}

/// The words of an error object, in one of the forms that servers use.
pub(super) fn error_words(error: &Value) -> String {
    let text = error.get("message").or_else(|| error.get("detail")).unwrap_or(error);
    match text {
        Value::String(text) => words(text),
        Value::Null => String::new(),
        other => words(&other.to_string()),
    }
}

/// The start of a text, on one line.
pub(super) fn words(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect();
    line.truncate(line.trim_end().len());
    line
}
