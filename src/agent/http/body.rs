//! What a server says that is read whole: errors, and answers that are not streamed. It is cut to a few words before a
//! phone sees it.

use super::{BODY_BYTES_MAX, BackendError, WORDS_MAX};
use coralmux_client::{lenient, retry_after};
use serde_json::Value;
use std::io::Read;
use std::time::Duration;
use ureq::Body;
use ureq::http::Response;

/// The longest time that a server may ask to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Of what a server says, as much is looked at: cut to [`WORDS_MAX`] when a key that is in it has been masked.
const SAID_MAX: usize = 4 * WORDS_MAX;

/// Where the words of an error are, the best first.
const WORDY: [&str; 14] = [
    "message",
    "detail",
    "error",
    "errors",
    "msg",
    "error_msg",
    "error_message",
    "errmsg",
    "error_description",
    "status_msg",
    "base_resp",
    "reason",
    "title",
    "status",
];

/// What is neither an answer nor an error, in words.
pub(crate) fn no_answer(data: &str) -> BackendError {
    BackendError::failed(format!("the AI server sent an invalid answer: {}", words(data)))
}

/// An error of the server, from what it says about it.
pub(crate) fn server_error(error: &Value) -> BackendError {
    let said = error_words(error);
    let said = if said.is_empty() { "an error without a word".to_owned() } else { said };
    BackendError::failed(format!("the AI server: {said}"))
}

/// A JSON text, as far as it can be read at all.
pub(crate) fn json(text: &str) -> Option<Value> {
    lenient::value(text)
}

/// All of a body that is there, up to a bound: of an error some words are better than none.
fn read(answer: Response<Body>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = answer.into_body().into_reader().take(BODY_BYTES_MAX).read_to_end(&mut bytes);
    bytes
}

/// What a status other than success means to the person.
pub(crate) fn refusal(answer: Response<Body>) -> BackendError {
    let status = answer.status().as_u16();
    let retry_after = retry_after(answer.headers()).map(|asked| asked.min(RETRY_AFTER_MAX));
    let body = read(answer);
    let body = String::from_utf8_lossy(&body);
    let said = match json(body.trim_start_matches('\u{feff}')) {
        Some(body) => error_words(&body),
        None => words(&body),
    };
    let meaning = match status {
        300..=399 => "the AI server's address is wrong: it redirects to another one",
        401 | 403 => "the AI server refuses the agent's API key",
        402 => "the AI server wants to be paid first",
        404 => "the AI server does not know this address or model",
        405 => "the AI server's address is wrong: nothing takes questions there",
        407 => "a proxy before the AI server wants a user name",
        408 | 504 => "the AI server took too long",
        413 => "the AI server finds the message too large",
        429 => "the AI server is asked too much",
        500.. => "the AI server has failed",
        _ => "the AI server refuses the question",
    };
    let colon = if said.is_empty() { "" } else { ": " };
    BackendError::Failed { message: format!("{meaning} ({status}){colon}{said}"), retry_after }
}

/// The words of an error, in one of the forms that servers use.
pub(crate) fn error_words(error: &Value) -> String {
    match error {
        Value::Null => String::new(),
        Value::String(text) => words(text),
        Value::Array(errors) => errors.iter().map(error_words).find(|words| !words.is_empty()).unwrap_or_default(),
        Value::Object(fields) => {
            // Numbers and truth values under these names are no words.
            let says = |value: &&Value| value.is_string() || value.is_array() || value.is_object();
            let found = WORDY.iter().filter_map(|name| fields.get(*name)).filter(says).map(error_words);
            found.into_iter().find(|words| !words.is_empty()).unwrap_or_else(|| words(&error.to_string()))
        }
        other => words(&other.to_string()),
    }
}

/// The start of a text, on one line; of a web page its title, or the text that it shows.
pub(crate) fn words(text: &str) -> String {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let shown = if is_page(text) { page_words(text) } else { text.to_owned() };
    let mut line = String::new();
    for word in shown.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().take(SAID_MAX));
        if line.len() > SAID_MAX {
            break;
        }
    }
    line
}

fn starts_with(text: &str, tag: &str) -> bool {
    text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag))
}

/// Whether it is HTML.
pub(crate) fn is_page(text: &str) -> bool {
    ["<!doctype html", "<html", "<head", "<body", "<h1", "<title"].iter().any(|tag| starts_with(text, tag))
}

/// What a page is about.
fn page_words(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let begin = at + lower[at..].find('>')? + 1;
        Some(&page[begin..begin + lower[begin..].find("</title")?])
    });
    if let Some(title) = title.filter(|title| !title.trim().is_empty()) {
        return title.to_owned();
    }
    let mut shown = String::new();
    for piece in page.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or((piece, ""));
        let is_hidden = starts_with(tag, "style") || starts_with(tag, "script");
        if !is_hidden {
            shown.push(' ');
            shown.push_str(text);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_error_is_found_in_whatever_form_it_comes() {
        for (error, said) in [
            (json!({"error": {"message": "m", "type": "t"}}), "m"),
            (json!({"error": "m"}), "m"),
            (json!({"object": "error", "message": "m", "code": 400}), "m"),
            (json!({"detail": "m"}), "m"),
            (json!({"detail": [{"loc": ["body"], "msg": "m", "type": "missing"}]}), "m"),
            (json!([{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}]), "m"),
            (json!({"errors": [{"message": "m"}]}), "m"),
            (json!({"error": {"code": 7}}), "7"),
            (json!({"error": true, "msg": "m"}), "m"),
            (json!({"error": 7, "errmsg": "m"}), "m"),
            (json!({"error": 7}), "7"),
            (json!({"base_resp": {"status_code": 1004, "status_msg": "m"}}), "m"),
            (json!(null), ""),
        ] {
            assert!(error_words(&error).contains(said), "{error}: {}", error_words(&error));
        }
    }

    #[test]
    fn of_a_page_its_title_is_told() {
        for (page, said) in [
            ("<html><head><title>502 Bad\nGateway</title></head><body>x</body>", "502 Bad Gateway"),
            ("<!DOCTYPE HTML><style>p{}</style><body><p>Log <b>in</b>", "Log in"),
            ("<h1>Nope</h1>", "Nope"),
            ("<html><title>\u{130}</title>", "\u{130}"),
            ("a < b\tand  b > c\u{1}", "a < b and b > c"),
        ] {
            assert_eq!(words(page), said, "{page}");
        }
    }
}
