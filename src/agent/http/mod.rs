//! Servers that are asked over HTTP: requests, answers that come in pieces, and what goes wrong with either, in words.
//!
//! It must never show the API key, neither in an error nor in a log.

pub(super) mod body;
pub(super) mod mask;
pub(super) mod sse;

use super::backend::{BackendError, Ending, Outcome, Output};
use super::cancel::Cancel;
use coralmux_client::{TlsError, Trust, http_agent, is_of_own_network, proxy_of};
use mask::Mask;
use serde_json::Value;
use std::io::Read;
use std::time::{Duration, Instant};
use thiserror::Error;
use ureq::http::Uri;

/// To look up the name and to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The whole of an answer, however steadily it comes.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);
/// An error's body, or that of an answer which is not streamed.
pub(super) const BODY_BYTES_MAX: u64 = 8 << 20;
/// What is read at once.
const READ_BYTES: usize = 8 << 10;
/// The longest text of a server that is passed on in an error, in characters; and with the agent's words before it.
pub(super) const WORDS_MAX: usize = 300;
const MESSAGE_MAX: usize = WORDS_MAX + 100;

/// Where a server is, and how it is asked.
#[derive(Clone)]
pub(super) struct Settings {
    /// Its address.
    pub(super) url: String,
    /// Sent as a bearer token, where there is one.
    pub(super) api_key: Option<String>,
    /// How long the server may say nothing, before its first word and between two.
    pub(super) timeout: Duration,
    /// Whom to believe over TLS.
    pub(super) trust: Trust,
}

impl Settings {
    /// Whether others than those of one's own network can read the key on the way.
    pub(super) fn is_exposed(&self) -> bool {
        let Ok(url) = self.url.parse::<Uri>() else { return false };
        let is_plain = url.scheme_str() == Some("http");
        self.api_key.is_some() && is_plain && url.host().is_some_and(|host| !is_of_own_network(host))
    }
}

/// Why a server cannot be asked.
#[derive(Debug, Error)]
pub(super) enum OpenError {
    /// The trusted certificates cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The environment names a proxy of a kind that is not supported.
    #[error("{0}")]
    Proxy(String),
}

/// Reads an answer that comes in pieces.
pub(super) trait Reading {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// An error that is among them, or the bytes are no answer.
    fn feed(&mut self, bytes: &[u8], output: &mut dyn Output) -> Result<(), BackendError>;

    /// Whether nothing more is to be read.
    fn is_over(&self) -> bool;

    /// Whether nothing of the answer is missing if no more comes.
    fn has_finished(&self) -> bool;
}

/// See the module.
pub(super) struct Server {
    settings: Settings,
    http: ureq::config::Config,
    mask: Mask,
}

impl Server {
    /// A server, through a proxy where the environment names one for it.
    ///
    /// # Errors
    /// The CA file cannot be read, or the proxy is of a kind that is not supported.
    pub(super) fn new(settings: Settings) -> Result<Self, OpenError> {
        let http = http_agent(&settings.trust)?
            .proxy(proxy_of(&settings.url).map_err(OpenError::Proxy)?)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout))
            .timeout_per_write(Some(settings.timeout))
            .max_redirects(0)
            .build();
        let mask = Mask::new(settings.api_key.as_deref());
        Ok(Self { settings, http, mask })
    }

    /// The address, and `path` behind it; an address without any path has `base` between.
    pub(super) fn endpoint(&self, base: &str, path: &str) -> String {
        let url = self.settings.url.trim_end_matches('/');
        let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        format!("{url}{}{path}", if has_path { "" } else { base })
    }

    /// Posts; gives the body of an answer that is a success. A cancelled one is cut off.
    ///
    /// # Errors
    /// There is none, in words.
    pub(super) fn post(&self, url: &str, body: &Value, cancel: &Cancel) -> Result<ureq::Body, BackendError> {
        // Of this question alone: a server that says nothing would hold a cancelled answer up until the timeout.
        let agent = self.http.new_agent();
        let connections = agent.clone();
        cancel.on_cancel(move || connections.shutdown());
        let mut request = agent.post(url).header("Accept", "text/event-stream, application/json");
        if let Some(key) = &self.settings.api_key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let answer = request.send_json(body).map_err(|error| self.unreachable(&error))?;
        if cancel.is_cancelled() {
            return Err(BackendError::Cancelled);
        }
        if answer.status().is_success() { Ok(answer.into_body()) } else { Err(body::refusal(answer)) }
    }

    fn unreachable(&self, error: &ureq::Error) -> BackendError {
        let seconds = self.settings.timeout.as_secs();
        let host = self.settings.url.split_once("://").map_or("", |(_, rest)| rest).split('/').next().unwrap_or("");
        BackendError::failed(match error {
            ureq::Error::Timeout(_) => format!("the AI server said nothing for {seconds} s"),
            error => format!("the AI server at {host} cannot be reached: {error}"),
        })
    }

    /// Passes on what the server says, to its end.
    ///
    /// # Errors
    /// It breaks off, or is no answer.
    pub(super) fn receive(
        &self,
        body: ureq::Body,
        reading: &mut dyn Reading,
        output: &mut dyn Output,
        cancel: &Cancel,
    ) -> Result<(), BackendError> {
        let mut body = body.into_reader();
        let mut bytes = vec![0; READ_BYTES];
        let started = Instant::now();
        while !reading.is_over() {
            let read = body.read(&mut bytes);
            if cancel.is_cancelled() {
                return Err(BackendError::Cancelled);
            }
            match read {
                Ok(0) => break,
                Ok(count) => reading.feed(&bytes[..count], output)?,
                // Nothing of the answer is missing.
                Err(_) if reading.has_finished() => break,
                Err(error) => return Err(self.broken(&error)),
            }
            if started.elapsed() > ANSWER_TIMEOUT {
                return Err(BackendError::failed("the AI server does not come to an end"));
            }
        }
        Ok(())
    }

    /// All of an answer that is one JSON text.
    ///
    /// # Errors
    /// It breaks off, or is none.
    pub(super) fn json(&self, body: ureq::Body, cancel: &Cancel) -> Result<Value, BackendError> {
        let mut bytes = Vec::new();
        let read = body.into_reader().take(BODY_BYTES_MAX).read_to_end(&mut bytes);
        if cancel.is_cancelled() {
            return Err(BackendError::Cancelled);
        }
        read.map_err(|error| self.broken(&error))?;
        let text = String::from_utf8_lossy(&bytes);
        body::json(&text).ok_or_else(|| body::no_answer(&text))
    }

    fn broken(&self, error: &std::io::Error) -> BackendError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(error @ ureq::Error::Timeout(_)) => self.unreachable(error),
            _ => BackendError::failed(format!("the connection to the AI server broke: {error}")),
        }
    }

    /// How an answer has ended, for the phone: without the key, and no longer than it may be.
    ///
    /// # Errors
    /// Those of the answer.
    pub(super) fn told(
        &self,
        answered: Result<Outcome, BackendError>,
        cancel: &Cancel,
    ) -> Result<Outcome, BackendError> {
        cancel.forget();
        match answered {
            // Its connection was cut for that.
            Err(_) if cancel.is_cancelled() => Err(BackendError::Cancelled),
            Ok(Outcome::Partial(Ending { finish, notice })) => {
                Ok(Outcome::Partial(Ending { finish, notice: self.masked(&notice) }))
            }
            Err(BackendError::Failed { message, retry_after }) => {
                Err(BackendError::Failed { message: self.masked(&message), retry_after })
            }
            other => other,
        }
    }

    fn masked(&self, said: &str) -> String {
        let mut told = self.mask.apply(said);
        if let Some((at, _)) = told.char_indices().nth(MESSAGE_MAX) {
            told.truncate(at);
            told.push('\u{2026}');
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, api_key: Option<&str>) -> Settings {
        let (url, api_key) = (url.to_owned(), api_key.map(str::to_owned));
        Settings { url, api_key, timeout: Duration::from_secs(1), trust: Trust::PublicRoots }
    }

    #[test]
    fn a_key_that_others_can_read_on_the_way_is_warned_of() {
        for (url, key, is_exposed) in [
            ("http://ai.example.com/v1", Some("k"), true),
            ("http://192.0.2.1", Some("k"), true),
            ("HTTP://ai.example.com", Some("k"), true),
            ("http://ai.example.com", None, false),
            ("https://ai.example.com", Some("k"), false),
            ("http://[::1]:8080", Some("k"), false),
            ("http://localhost:11434/v1", Some("k"), false),
            ("http://ollama:11434", Some("k"), false),
        ] {
            assert_eq!(settings(url, key).is_exposed(), is_exposed, "{url}");
        }
    }

    #[test]
    fn what_is_told_is_cut_behind_the_masking_of_the_key() {
        let key = "Zq9.very.secret.key.0123456789";
        let server = Server::new(settings("http://x", Some(key))).unwrap();
        for before in 0..2 * MESSAGE_MAX {
            let told = server.masked(&format!("{} {key}", "\u{fc}".repeat(before)));
            assert!(told.chars().count() <= MESSAGE_MAX + 1 && !told.contains("Zq9"), "{told}");
        }
    }
}
