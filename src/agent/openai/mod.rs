//! A backend that is an AI server with the chat API of OpenAI: Ollama, llama.cpp, vLLM, LM Studio, OpenClaw's gateway
//! and others. The answer is streamed by server-sent events; images go along as data URLs.
//!
//! It must never show the API key, neither in an error nor in a log.

mod body;
mod finish;
mod mask;
mod reading;
mod reply;
mod request;
mod sse;
mod think;

use super::backend::{Backend, BackendError, Ending, Outcome, Output, Question};
use super::cancel::Cancel;
use coralmux_client::{TlsError, Trust, http_agent, is_of_own_network, proxy_of};
use mask::Mask;
use reading::Reading;
use serde_json::json;
use std::fmt;
use std::io::Read;
use std::time::{Duration, Instant};
use thiserror::Error;
use ureq::http::Uri;

/// To look up the name and to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The whole of an answer, however steadily it comes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);
/// An error's body, or that of an answer which is not streamed.
const BODY_BYTES_MAX: u64 = 8 << 20;
/// What is read at once.
const READ_BYTES: usize = 8 << 10;
/// The longest text of a server that is passed on in an error, in characters; and with the agent's words before it.
const WORDS_MAX: usize = 300;
const MESSAGE_MAX: usize = WORDS_MAX + 100;

/// Where the AI server is and what it is asked for.
#[derive(Clone)]
pub(super) struct Settings {
    /// Its address, up to and with `/v1`; without any path `/v1` is added.
    pub(super) url: String,
    /// The model's name.
    pub(super) model: String,
    /// Sent as a bearer token, where there is one.
    pub(super) api_key: Option<String>,
    /// Said to the model first.
    pub(super) system: Option<String>,
    /// How long the server may say nothing, before its first word and between two.
    pub(super) timeout: Duration,
    /// Whom to believe over TLS.
    pub(super) trust: Trust,
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

/// See the module.
pub(super) struct OpenAi {
    settings: Settings,
    http: ureq::config::Config,
    endpoint: String,
    mask: Mask,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenAi({}, {})", self.endpoint, self.settings.model)
    }
}

impl OpenAi {
    /// A backend that asks this server, through a proxy where the environment names one for it.
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
        let url = settings.url.trim_end_matches('/');
        let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        let endpoint = format!("{url}{}/chat/completions", if has_path { "" } else { "/v1" });
        let mask = Mask::new(settings.api_key.as_deref());
        Ok(Self { settings, http, endpoint, mask })
    }

    /// Whether others than those of one's own network can read the key on the way.
    pub(super) fn is_exposed(&self) -> bool {
        let Ok(url) = self.settings.url.parse::<Uri>() else { return false };
        let is_plain = url.scheme_str() == Some("http");
        self.settings.api_key.is_some() && is_plain && url.host().is_some_and(|host| !is_of_own_network(host))
    }

    fn post(&self, question: &Question, cancel: &Cancel) -> Result<ureq::http::Response<ureq::Body>, BackendError> {
        let messages = request::messages(self.settings.system.as_deref(), &question.turns);
        let body = json!({"model": self.settings.model, "stream": true, "messages": messages});
        // Of this question alone: a server that says nothing would hold a cancelled answer up until the timeout.
        let agent = self.http.new_agent();
        let connections = agent.clone();
        cancel.on_cancel(move || connections.shutdown());
        let mut request = agent.post(&self.endpoint).header("Accept", "text/event-stream, application/json");
        if let Some(key) = &self.settings.api_key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        request.send_json(body).map_err(|error| self.unreachable(&error))
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
    fn receive(&self, mut body: impl Read, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        let mut reading = Reading::default();
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
        reading.end(output)
    }

    fn broken(&self, error: &std::io::Error) -> BackendError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(error @ ureq::Error::Timeout(_)) => self.unreachable(error),
            _ => BackendError::failed(format!("the connection to the AI server broke: {error}")),
        }
    }
}

impl OpenAi {
    fn ask(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        let answer = self.post(question, cancel)?;
        if cancel.is_cancelled() {
            return Err(BackendError::Cancelled);
        }
        if !answer.status().is_success() {
            return Err(body::refusal(answer));
        }
        self.receive(answer.into_body().into_reader(), output, cancel)
    }

    /// What the server has said, without the key and no longer than it may be.
    fn told(&self, said: &str) -> String {
        let mut told = self.mask.apply(said);
        if let Some((at, _)) = told.char_indices().nth(MESSAGE_MAX) {
            told.truncate(at);
            told.push('\u{2026}');
        }
        told
    }
}

impl Backend for OpenAi {
    fn answer(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        let answered = self.ask(question, output, cancel);
        cancel.forget();
        match answered {
            // Its connection was cut for that.
            Err(_) if cancel.is_cancelled() => Err(BackendError::Cancelled),
            Ok(Outcome::Partial(Ending { finish, notice })) => {
                Ok(Outcome::Partial(Ending { finish, notice: self.told(&notice) }))
            }
            Err(BackendError::Failed { message, retry_after }) => {
                Err(BackendError::Failed { message: self.told(&message), retry_after })
            }
            other => other,
        }
    }

    fn kind(&self) -> &'static str {
        "openai"
    }

    fn model(&self) -> Option<&str> {
        Some(&self.settings.model)
    }
}

#[cfg(test)]
mod tests;
