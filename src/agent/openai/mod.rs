//! A backend that is an AI server with the chat API of OpenAI: Ollama, llama.cpp, vLLM, LM Studio, OpenClaw's gateway
//! and others. The answer is streamed by server-sent events; images go along as data URLs.

mod finish;
mod reading;
mod reply;
mod request;
mod think;

use super::backend::{Backend, BackendError, Outcome, Output, Question};
use super::cancel::Cancel;
use super::http::{self, OpenError, Server};
use reading::Answering;
use serde_json::json;
use std::sync::OnceLock;

/// Which AI server is asked, and for what.
#[derive(Clone)]
pub(super) struct Settings {
    /// The server; its address goes up to and with `/v1`; without any path `/v1` is added.
    pub(super) server: http::Settings,
    /// The model's name.
    pub(super) model: String,
    /// Said to the model first.
    pub(super) system: Option<String>,
    /// The server keeps conversations: it is told which one it is, and of what is said the newest turn alone.
    pub(super) is_stateful: bool,
}

/// See the module.
pub(super) struct OpenAi {
    settings: Settings,
    server: Server,
    endpoint: String,
    /// The pairing's public name.
    pairing: OnceLock<String>,
}

impl OpenAi {
    /// A backend that asks this server.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub(super) fn new(settings: Settings) -> Result<Self, OpenError> {
        let server = Server::new(settings.server.clone())?;
        let endpoint = server.endpoint("/v1", "/chat/completions");
        Ok(Self { settings, server, endpoint, pairing: OnceLock::new() })
    }

    fn ask(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        let skipped = if self.settings.is_stateful { question.turns.len().saturating_sub(1) } else { 0 };
        let messages = request::messages(self.settings.system.as_deref(), &question.turns[skipped..]);
        let mut body = json!({"model": self.settings.model, "stream": true, "messages": messages});
        if self.settings.is_stateful {
            let pairing = self.pairing.get().map_or("", String::as_str);
            body["user"] = json!(format!("coralmux:{pairing}:{}", question.chat));
        }
        let answer = self.server.post(&self.endpoint, &body, cancel)?;
        let mut answering = Answering::default();
        self.server.receive(answer, &mut answering, output, cancel)?;
        answering.end(output)
    }
}

impl Backend for OpenAi {
    fn answer(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        self.server.told(self.ask(question, output, cancel), cancel)
    }

    fn handle_paired(&self, pairing: &str) {
        // Once: a pairing that is made anew is another process's.
        let _ = self.pairing.set(pairing.to_owned());
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
