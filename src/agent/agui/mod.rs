//! A backend that is served by AG-UI, the Agent User Interaction Protocol: Pydantic AI, LangGraph, CrewAI and others offer
//! it. A run is a request, and its events are server-sent. What a run is interrupted for is asked on the phone.

mod events;
mod interrupt;

use super::asking::Decision;
use super::backend::{Backend, BackendError, Outcome, Output, Question};
use super::cancel::Cancel;
use super::history::{Speaker, Turn};
use super::http::{self, OpenError, Server};
use coralmux_client::new_id;
use events::Events;
use interrupt::Interrupt;
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Runs of one answer: each but the first goes on where the person was asked.
const RUNS_MAX: usize = 50;
/// How often it is looked whether an answer that waits for the person was cancelled.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Which server is asked.
#[derive(Clone)]
pub(super) struct Settings {
    /// The server; its address is that of the runs.
    pub(super) server: http::Settings,
    /// The server keeps conversations: of what is said it is told the newest turn alone.
    pub(super) is_stateful: bool,
}

/// See the module.
pub(super) struct AgUi {
    server: Server,
    url: String,
    is_stateful: bool,
    /// The pairing's public name.
    pairing: OnceLock<String>,
}

impl AgUi {
    /// A backend that asks this server.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub(super) fn new(settings: Settings) -> Result<Self, OpenError> {
        let (url, is_stateful) = (settings.server.url.clone(), settings.is_stateful);
        Ok(Self { server: Server::new(settings.server)?, url, is_stateful, pairing: OnceLock::new() })
    }

    fn ask(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        let skipped = if self.is_stateful { question.turns.len().saturating_sub(1) } else { 0 };
        let mut messages: Vec<Value> = question.turns[skipped..].iter().map(message).collect();
        let pairing = self.pairing.get().map_or("", String::as_str);
        let mut input = json!({
            "threadId": format!("coralmux:{pairing}:{}", question.chat), "state": {}, "tools": [], "context": [],
            "forwardedProps": {},
        });
        let mut events = Events::default();
        for _ in 0..RUNS_MAX {
            input["runId"] = json!(new_id());
            input["messages"] = json!(messages);
            let body = self.server.post(&self.url, &input, cancel)?;
            self.server.receive(body, &mut events, output, cancel)?;
            let Some(interrupts) = events.end()? else { return Ok(Outcome::Whole) };
            cancel.forget();
            messages = events.messages(messages);
            input["resume"] = json!(decide(&interrupts, output, cancel)?);
        }
        Err(BackendError::failed("the AI server asks more often than one answer may"))
    }
}

/// Asks the person about each; gives what the next run is told.
fn decide(interrupts: &[Interrupt], output: &mut dyn Output, cancel: &Cancel) -> Result<Vec<Value>, BackendError> {
    let mut entries = Vec::new();
    for interrupt in interrupts {
        let (sender, decisions) = channel();
        // Nobody listens any more: then the answer was cancelled.
        output.ask(interrupt.ask(), Box::new(move |decision| drop(sender.send(decision))));
        let decision = loop {
            match decisions.recv_timeout(LOOK_INTERVAL) {
                Ok(decision) => break decision,
                Err(RecvTimeoutError::Timeout) if !cancel.is_cancelled() => {}
                Err(RecvTimeoutError::Timeout) => return Err(BackendError::Cancelled),
                Err(RecvTimeoutError::Disconnected) => break Decision::Nothing,
            }
        };
        entries.push(interrupt.entry(&decision));
    }
    Ok(entries)
}

/// A turn as a message.
fn message(turn: &Turn) -> Value {
    let (role, text) = (turn.speaker.name(), turn.text_with_age());
    let images =
        turn.images.iter().filter(|_| turn.speaker == Speaker::User).map(
            |image| json!({"type": "image", "source": {"type": "data", "value": image.data, "mimeType": image.mime}}),
        );
    let images: Vec<Value> = images.collect();
    if images.is_empty() {
        return json!({"id": new_id(), "role": role, "content": text});
    }
    let text = (!text.is_empty()).then(|| json!({"type": "text", "text": text}));
    json!({"id": new_id(), "role": role, "content": text.into_iter().chain(images).collect::<Vec<_>>()})
}

impl Backend for AgUi {
    fn answer(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        self.server.told(self.ask(question, output, cancel), cancel)
    }

    fn handle_paired(&self, pairing: &str) {
        // Once: a pairing that is made anew is another process's.
        let _ = self.pairing.set(pairing.to_owned());
    }

    fn kind(&self) -> &'static str {
        "ag-ui"
    }
}
