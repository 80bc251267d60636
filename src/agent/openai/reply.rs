//! What an AI server says, put together: text, thoughts, a refusal, an error, and how it ended. Servers differ in where
//! they write each of these; all places that are known are looked at.

use super::body::{self, words};
use super::finish::{self, Finish};
use super::think::Filter;
use crate::agent::backend::{BackendError, Outcome, Output};
use serde_json::Value;

/// Where servers put a model's thoughts.
const THOUGHTS: [&str; 5] = ["reasoning_content", "reasoning", "reasoning_text", "reasoning_details", "thinking"];

/// An answer as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// A choice has come: it is an answer.
    has_begun: bool,
    /// It comes in pieces.
    has_deltas: bool,
    think: Filter,
    /// Text was passed on.
    has_text: bool,
    /// The model has thought.
    has_thought: bool,
    /// What was passed on, or some of it, is a refusal.
    is_refusal: bool,
    /// The newest reason for the end.
    finish: Option<Finish>,
    /// Text came behind it: it was not the end.
    is_stale: bool,
    /// The server said that there is no more, or sent the answer as one JSON text.
    is_over: bool,
}

impl Reply {
    /// Takes one JSON text of the server; text that is none is an error, unless `is_loose`.
    pub(super) fn take(&mut self, data: &str, is_loose: bool, output: &mut dyn Output) -> Result<(), BackendError> {
        let data = data.trim();
        if data.is_empty() {
            return Ok(());
        }
        if matches!(data, "[DONE]" | "\"[DONE]\"") {
            self.is_over = true;
            return Ok(());
        }
        match body::json(data) {
            Some(value) => self.take_value(&value, output),
            None if is_loose => Ok(()),
            None => Err(no_answer(data)),
        }
    }

    /// Takes one message of the server.
    pub(super) fn take_value(&mut self, value: &Value, output: &mut dyn Output) -> Result<(), BackendError> {
        if let Value::Array(values) = value {
            return values.iter().try_for_each(|value| self.take_value(value, output));
        }
        if let Some(error) = error_in(value) {
            return Err(server_error(error));
        }
        let choices = &value["choices"];
        let of_index_0 = |choices: &'_ Vec<Value>| choices.iter().position(|choice| choice["index"] == 0).unwrap_or(0);
        let choice = match choices {
            Value::Array(list) => list.get(of_index_0(list)),
            Value::Object(_) => Some(choices),
            _ => None,
        };
        choice.map_or(Ok(()), |choice| self.take_choice(choice, output))
    }

    fn take_choice(&mut self, choice: &Value, output: &mut dyn Output) -> Result<(), BackendError> {
        self.has_begun = true;
        if let Some(error) = error_in(choice) {
            return Err(server_error(error));
        }
        let (delta, message) = (&choice["delta"], &choice["message"]);
        self.has_deltas |= delta.is_object();
        self.take_text(delta, output)?;
        // Some write pieces where others write whole answers; and a last event may repeat what came in deltas.
        if !self.has_deltas {
            self.take_text(message, output)?;
            self.push(choice["text"].as_str().unwrap_or_default(), output)?;
        }
        if let Some(finish) = choice["finish_reason"].as_str().and_then(Finish::read) {
            if let Finish::Failed(reason) = &finish {
                return Err(BackendError::failed(format!("the AI server broke its answer off ({reason})")));
            }
            (self.finish, self.is_stale) = (Some(finish), false);
        }
        Ok(())
    }

    fn take_text(&mut self, message: &Value, output: &mut dyn Output) -> Result<(), BackendError> {
        if THOUGHTS.iter().any(|name| says_something(&message[name])) {
            self.think(output);
        }
        self.take_content(&message["content"], output)?;
        self.take_refusal(&message["refusal"], output)
    }

    /// Text, or parts of it.
    fn take_content(&mut self, content: &Value, output: &mut dyn Output) -> Result<(), BackendError> {
        match content {
            Value::String(text) => self.push(text, output),
            Value::Array(parts) => parts.iter().try_for_each(|part| self.take_content(part, output)),
            Value::Object(part) => {
                if part.get("thinking").is_some_and(says_something) {
                    self.think(output);
                }
                self.take_refusal(part.get("refusal").unwrap_or(&Value::Null), output)?;
                match part.get("text").or_else(|| part.get("content")) {
                    // Some write the text as an object that has it once more.
                    Some(Value::Object(text)) => {
                        self.push(text.get("value").and_then(Value::as_str).unwrap_or_default(), output)
                    }
                    Some(text) => self.push(text.as_str().unwrap_or_default(), output),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn take_refusal(&mut self, refusal: &Value, output: &mut dyn Output) -> Result<(), BackendError> {
        let text = refusal.as_str().unwrap_or_default();
        self.is_refusal |= !text.is_empty();
        self.push(text, output)
    }

    fn think(&mut self, output: &mut dyn Output) {
        self.has_thought = true;
        output.thinking();
    }

    fn push(&mut self, text: &str, output: &mut dyn Output) -> Result<(), BackendError> {
        if text.is_empty() {
            return Ok(());
        }
        let shown = self.think.feed(text);
        if self.think.is_thinking() {
            self.think(output);
        }
        self.show(&shown, output)
    }

    fn show(&mut self, text: &str, output: &mut dyn Output) -> Result<(), BackendError> {
        if text.is_empty() {
            return Ok(());
        }
        self.is_stale = true;
        self.has_text = true;
        output.push(text)
    }

    /// All was one JSON text, or several, and is whole. Whether there is anything of an answer in it, be it without a word.
    pub(super) fn handle_whole(&mut self) -> bool {
        self.is_over |= self.has_begun && !self.has_deltas;
        self.has_begun
    }

    /// Whether nothing more is to be read.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether the model has come to an end behind which nothing was said: a connection that breaks then has lost
    /// nothing.
    pub(super) fn has_finished(&self) -> bool {
        self.is_over || self.finish.is_some() && !self.is_stale
    }

    /// The server says no more: how the answer has ended.
    ///
    /// # Errors
    /// It is none, or only a part of one.
    pub(super) fn end(mut self, output: &mut dyn Output) -> Result<Outcome, BackendError> {
        let is_ended = self.is_over || self.finish.is_some();
        let is_cut = !is_ended || matches!(self.finish, Some(Finish::Length | Finish::Filter));
        let rest = self.think.finish(is_cut);
        self.show(&rest, output)?;
        if !is_ended {
            return Err(BackendError::failed("the AI server stopped in the middle of its answer"));
        }
        if !self.has_text {
            return Err(BackendError::failed(Finish::emptiness(self.finish.as_ref(), self.has_thought)));
        }
        let ending = self.finish.as_ref().and_then(Finish::ending);
        Ok(match ending.or_else(|| self.is_refusal.then(finish::refused)) {
            Some(ending) => Outcome::Partial(ending),
            None => Outcome::Whole,
        })
    }
}

/// What is neither an answer nor an error, in words.
pub(super) fn no_answer(data: &str) -> BackendError {
    BackendError::failed(format!("the AI server sends what is no answer: {}", words(data)))
}

/// An error of the server, from what it says about it.
pub(super) fn server_error(error: &Value) -> BackendError {
    let said = body::error_words(error);
    let said = if said.is_empty() { "an error without a word".to_owned() } else { said };
    BackendError::failed(format!("the AI server: {said}"))
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}

/// The error of a message, in one of the forms that servers use.
fn error_in(value: &Value) -> Option<&Value> {
    let given = ["error", "errors"].into_iter().map(|name| &value[name]).find(|error| says_something(error));
    // vLLM's old form is all error; FastAPI says `detail`; gateways say `message`.
    let is_answer =
        ["choices", "delta", "message"].iter().any(|name| value[name].is_array() || value[name].is_object());
    let is_error = value["object"] == "error" || value["type"] == "error";
    let is_complaint = ["detail", "message"].iter().any(|name| says_something(&value[name]));
    given.or_else(|| (!is_answer && (is_error || is_complaint)).then_some(value))
}
