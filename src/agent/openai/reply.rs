//! What an AI server says, put together: text, thoughts, a refusal, an error, and how it ended. Servers differ in where
//! they write each of these; all places that are known are looked at.

use super::finish::{self, Finish};
use super::think::Filter;
use crate::backend::{BackendError, Outcome, Output};
use crate::http::body::{self, no_answer, server_error};
use serde_json::Value;

/// Where servers put a model's thoughts.
const THOUGHTS: [&str; 5] = ["reasoning_content", "reasoning", "reasoning_text", "reasoning_details", "thinking"];

/// Where servers and gateways complain, if there is no answer beside it.
const COMPLAINTS: [&str; 7] = ["detail", "message", "msg", "error_msg", "error_message", "errmsg", "error_description"];

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
    /// The choice that is read: the others are other answers.
    index: Option<Value>,
    /// The newest reason for the end.
    finish: Option<Finish>,
    /// Text came behind it, or half of something: it was not the end.
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
        let choice = match choices {
            Value::Array(list) => self.own_choice(list),
            Value::Object(_) => self.own_choice(std::slice::from_ref(choices)),
            _ => None,
        };
        choice.map_or(Ok(()), |choice| self.take_choice(choice, output))
    }

    /// The choice that is read: that of index 0, or where there was none to begin with, of the first index that came.
    /// One without an index is it as well.
    fn own_choice<'a>(&mut self, choices: &'a [Value]) -> Option<&'a Value> {
        let first = choices.iter().find(|choice| choice["index"] == 0).or_else(|| choices.first())?;
        if self.index.is_none() && !first["index"].is_null() {
            self.index = Some(first["index"].clone());
        }
        choices.iter().find(|choice| choice["index"].is_null() || Some(&choice["index"]) == self.index.as_ref())
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
            self.is_stale = false;
            // Some close with a reason that says no more than that it is the end.
            if finish != Finish::Stop || !self.is_cut() {
                self.finish = Some(finish);
            }
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
        output.thinking("");
    }

    fn push(&mut self, text: &str, output: &mut dyn Output) -> Result<(), BackendError> {
        if text.is_empty() {
            return Ok(());
        }
        self.is_stale = true;
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
        self.has_text = true;
        output.push(text)
    }

    /// All was one JSON text, or several, and is whole. Whether there is anything of an answer in it, be it without a word.
    pub(super) fn handle_whole(&mut self) -> bool {
        self.is_over |= self.has_begun && !self.has_deltas;
        self.has_begun
    }

    /// What came last is half of something.
    pub(super) fn break_off(&mut self) {
        self.is_stale = true;
    }

    /// The model was stopped before it had said all.
    fn is_cut(&self) -> bool {
        matches!(self.finish, Some(Finish::Length | Finish::Filter))
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
        let is_ended = self.has_finished();
        let is_cut = !is_ended || self.is_cut();
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

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) => true,
    }
}

/// The error of a message, in one of the forms that servers use.
fn error_in(value: &Value) -> Option<&Value> {
    let given = ["error", "errors"].into_iter().map(|name| &value[name]).find(|error| says_something(error));
    // vLLM's old form is all error; FastAPI says `detail`; gateways say `message`.
    let is_answer =
        ["choices", "delta", "message"].iter().any(|name| value[name].is_array() || value[name].is_object());
    let is_error = ["object", "type", "status"].iter().any(|name| value[name] == "error") || value["success"] == false;
    let is_complaint = COMPLAINTS.iter().any(|name| says_something(&value[name]));
    // MiniMax says it beside choices that are null or empty; 0 is success.
    let has_choices = says_something(&value["choices"]);
    let is_refused = !has_choices && says_something(&value["base_resp"]["status_code"]);
    match given {
        // That there is one, or its number: the words are beside it.
        Some(Value::Bool(_) | Value::Number(_)) => Some(value),
        Some(error) => Some(error),
        None => (is_refused || !is_answer && (is_error || is_complaint)).then_some(value),
    }
}
