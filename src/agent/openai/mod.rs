//! A backend that is an AI server with the chat API of OpenAI: Ollama, llama.cpp, vLLM, LM Studio, OpenClaw's gateway
//! and others. The answer is streamed by server-sent events; images go along as data URLs.
//!
//! It must never show the API key, neither in an error nor in a log.

mod body;
mod sse;

use super::backend::{Backend, BackendError, Output, Question};
use super::cancel::Cancel;
use super::history::Turn;
use crate::client::{TlsError, Trust, http_agent};
use serde::Deserialize;
use serde_json::{Value, json};
use sse::Parser;
use std::fmt;
use std::io::Read;
use std::time::{Duration, Instant};

/// To look up the name and to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The whole of an answer, however steadily it comes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);
/// An error's or a whole answer's body.
const BODY_BYTES_MAX: u64 = 8 << 20;
/// An answer that is not streamed is shown by pieces of this many bytes.
const READ_BYTES: usize = 8 << 10;
/// The longest text of a server that is passed on in an error.
const WORDS_MAX: usize = 300;

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

/// See the module.
pub(super) struct OpenAi {
    settings: Settings,
    agent: ureq::Agent,
    endpoint: String,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenAi({}, {})", self.endpoint, self.settings.model)
    }
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Text>,
    message: Option<Text>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Text {
    content: Option<String>,
}

impl From<sse::TooLong> for BackendError {
    fn from(_: sse::TooLong) -> Self {
        Self::failed("the AI server sends what is too long to be a piece of an answer")
    }
}

impl OpenAi {
    /// A backend that asks this server.
    ///
    /// # Errors
    /// The CA file cannot be read.
    pub(super) fn new(settings: Settings) -> Result<Self, TlsError> {
        let agent = http_agent(&settings.trust)?
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout))
            .timeout_per_write(Some(settings.timeout))
            .max_redirects(0)
            .build()
            .new_agent();
        let url = settings.url.trim_end_matches('/');
        let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        let endpoint = format!("{url}{}/chat/completions", if has_path { "" } else { "/v1" });
        Ok(Self { settings, agent, endpoint })
    }

    fn post(&self, question: &Question) -> Result<ureq::http::Response<ureq::Body>, BackendError> {
        let messages = self.settings.system.iter().map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<Value> = messages.chain(question.turns.iter().map(message)).collect();
        let body = json!({"model": self.settings.model, "stream": true, "messages": messages});
        let mut request = self.agent.post(&self.endpoint).header("Accept", "text/event-stream, application/json");
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

    /// Passes on a stream of events, to its end.
    fn stream(&self, mut body: impl Read, output: &mut dyn Output, cancel: &Cancel) -> Result<(), BackendError> {
        let (mut parser, mut is_complete) = (Parser::default(), false);
        let mut bytes = vec![0; READ_BYTES];
        let started = Instant::now();
        while !is_complete {
            let read = body.read(&mut bytes);
            if cancel.is_cancelled() {
                return Err(BackendError::Cancelled);
            }
            let count = read.map_err(|error| self.broken(&error))?;
            if count == 0 {
                break;
            }
            if started.elapsed() > ANSWER_TIMEOUT {
                return Err(BackendError::failed("the AI server does not come to an end"));
            }
            parser.feed(&bytes[..count], |data| {
                is_complete |= data == "[DONE]" || handle_chunk(data, output)?;
                Ok::<_, BackendError>(())
            })?;
        }
        // Some servers say only that the answer is finished, others only `[DONE]`.
        if is_complete {
            Ok(())
        } else {
            Err(BackendError::failed("the AI server stopped in the middle of its answer"))
        }
    }

    fn broken(&self, error: &std::io::Error) -> BackendError {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(error @ ureq::Error::Timeout(_)) => self.unreachable(error),
            _ => BackendError::failed(format!("the connection to the AI server broke: {error}")),
        }
    }
}

impl Backend for OpenAi {
    fn answer(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<(), BackendError> {
        let answer = self.post(question)?;
        if cancel.is_cancelled() {
            return Err(BackendError::Cancelled);
        }
        if answer.status().as_u16() != 200 {
            return Err(body::refusal(answer));
        }
        if body::is_json(&answer) {
            // A server that does not stream: all at once.
            let whole = body::read(answer).map_err(|error| self.broken(&error))?;
            handle_chunk(&String::from_utf8_lossy(&whole), output)?;
            return Ok(());
        }
        self.stream(answer.into_body().into_reader(), output, cancel)
    }

    fn kind(&self) -> &'static str {
        "openai"
    }

    fn model(&self) -> Option<&str> {
        Some(&self.settings.model)
    }
}

/// A turn as the API has it.
fn message(turn: &Turn) -> Value {
    let role = turn.speaker.name();
    if turn.images.is_empty() {
        let text = if turn.text.is_empty() && turn.image_count != 0 { "(an image)" } else { turn.text.as_str() };
        return json!({"role": role, "content": text});
    }
    let images = turn.images.iter().map(|image| {
        let url = format!("data:{};base64,{}", image.mime, image.data);
        json!({"type": "image_url", "image_url": {"url": url}})
    });
    let text = (!turn.text.is_empty()).then(|| json!({"type": "text", "text": turn.text}));
    json!({"role": role, "content": text.into_iter().chain(images).collect::<Vec<_>>()})
}

/// Passes on the text of one event. Whether it says that the answer is finished.
fn handle_chunk(data: &str, output: &mut dyn Output) -> Result<bool, BackendError> {
    if data.trim().is_empty() {
        return Ok(false);
    }
    let chunk: Chunk = serde_json::from_str(data)
        .map_err(|_| BackendError::failed(format!("the AI server sends what is no answer: {}", body::words(data))))?;
    if let Some(error) = chunk.error {
        return Err(BackendError::failed(format!("the AI server: {}", body::error_words(&error))));
    }
    let mut is_finished = false;
    if let Some(choice) = chunk.choices.into_iter().next() {
        is_finished = choice.finish_reason.is_some();
        if let Some(text) = choice.delta.or(choice.message).and_then(|text| text.content) {
            output.push(&text)?;
        }
    }
    Ok(is_finished)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::backend::Image;
    use crate::agent::history::Speaker;

    #[test]
    fn the_address_gets_v1_only_where_it_has_no_path() {
        for (url, endpoint) in [
            ("http://localhost:11434", "http://localhost:11434/v1/chat/completions"),
            ("http://localhost:11434/", "http://localhost:11434/v1/chat/completions"),
            ("https://ai.example.com/v1", "https://ai.example.com/v1/chat/completions"),
            ("https://ai.example.com/api/v3/", "https://ai.example.com/api/v3/chat/completions"),
        ] {
            let settings = Settings {
                url: url.to_owned(),
                model: "m".to_owned(),
                api_key: None,
                system: None,
                timeout: Duration::from_secs(1),
                trust: Trust::PublicRoots,
            };
            assert_eq!(OpenAi::new(settings).unwrap().endpoint, endpoint, "{url}");
        }
    }

    #[test]
    fn images_are_data_urls_and_forgotten_ones_leave_a_word() {
        let image = Image { mime: "image/png".to_owned(), data: "AAAA".to_owned() };
        let mut turn = Turn::new(Speaker::User, "what is it?".to_owned(), vec![image], 0);
        assert_eq!(
            message(&turn),
            json!({"role": "user", "content": [
                {"type": "text", "text": "what is it?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]})
        );
        turn.images.clear();
        turn.text.clear();
        assert_eq!(message(&turn), json!({"role": "user", "content": "(an image)"}));
    }
}
