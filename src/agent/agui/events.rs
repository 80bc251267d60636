//! The events of a run, as text and activity, and as the messages that the next run is told.

use super::interrupt::Interrupt;
use crate::activity::{Activity, Doing};
use crate::backend::{BackendError, Output};
use crate::http::Reading;
use crate::http::body::{self, no_answer, server_error};
use crate::http::sse::{Kind, Parser};
use crate::paragraphs::Paragraphs;
use coralmux_client::new_id;
use serde_json::{Value, json};

/// What is kept of messages for a run that is interrupted, in bytes; further pieces are left out.
const MESSAGES_BYTES_MAX: usize = 4 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Events {
    parser: Parser,
    /// Of all runs of the answer.
    text: Paragraphs,
    said: Said,
}

/// What one run has said.
#[derive(Debug, Default)]
struct Said {
    /// Its messages, and their bytes.
    messages: Vec<Value>,
    bytes: usize,
    /// All messages of the conversation, where the server says them.
    snapshot: Option<Vec<Value>>,
    /// The last event of the run.
    finished: Option<Value>,
}

impl Events {
    /// No more comes of this run. What it was interrupted for; `None`: the answer is complete.
    ///
    /// # Errors
    /// It is only a part of one, or empty.
    pub(super) fn end(&mut self) -> Result<Option<Vec<Interrupt>>, BackendError> {
        let Some(finished) = &self.said.finished else {
            return Err(BackendError::failed("the AI server stopped in the middle of its answer"));
        };
        let interrupts = Interrupt::all(finished);
        if !interrupts.is_empty() {
            return Ok(Some(interrupts));
        }
        if finished["outcome"]["type"] == "cancelled" {
            return Err(BackendError::failed("the AI server cancelled its answer"));
        }
        if self.text.has_text() { Ok(None) } else { Err(BackendError::failed("the AI server sent an empty answer")) }
    }

    /// The messages that the run after this one is told; it has begun with `before`.
    pub(super) fn messages(&mut self, mut before: Vec<Value>) -> Vec<Value> {
        self.parser = Parser::default();
        let said = std::mem::take(&mut self.said);
        if let Some(snapshot) = said.snapshot {
            return snapshot;
        }
        before.extend(said.messages);
        before
    }
}

impl Reading for Events {
    fn feed(&mut self, bytes: &[u8], output: &mut dyn Output) -> Result<(), BackendError> {
        let Self { parser, text, said } = self;
        parser.feed(bytes, |kind, data| {
            let event = body::json(data);
            match (kind, event) {
                (Kind::Data, Some(event)) if event.is_object() => said.take(event, text, output),
                (Kind::Data, _) if data.trim().is_empty() || data.trim() == "[DONE]" => Ok(()),
                (_, Some(event)) => Err(server_error(&event)),
                (_, None) => Err(no_answer(data)),
            }
        })
    }

    fn is_over(&self) -> bool {
        self.said.finished.is_some()
    }

    fn has_finished(&self) -> bool {
        self.is_over()
    }
}

impl Said {
    fn take(&mut self, event: Value, text: &mut Paragraphs, output: &mut dyn Output) -> Result<(), BackendError> {
        let field = |name: &str| event[name].as_str().unwrap_or_default();
        match field("type") {
            "TEXT_MESSAGE_START" => {
                text.act();
                self.message(field("messageId"))["role"] = json!("assistant");
            }
            "TEXT_MESSAGE_CONTENT" | "TEXT_MESSAGE_CHUNK" => {
                self.append(field("messageId"), field("delta"));
                text.push(field("delta"), output)?;
            }
            "TOOL_CALL_START" | "TOOL_CALL_CHUNK" => {
                if !field("toolCallName").is_empty() {
                    text.act();
                    self.call(field("toolCallId"), field("toolCallName"));
                    output.activity(&activity(Doing::Running, field("toolCallName"), field("toolCallId")));
                }
                self.append_arguments(field("toolCallId"), field("delta"));
            }
            "TOOL_CALL_ARGS" => self.append_arguments(field("toolCallId"), field("delta")),
            "TOOL_CALL_RESULT" => {
                text.act();
                let name = self.name_of(field("toolCallId")).unwrap_or_default().to_owned();
                self.keep(json!({"id": event["messageId"], "role": "tool", "toolCallId": event["toolCallId"], "content": event["content"]}));
                let done = activity(Doing::Done, &name, field("toolCallId"));
                output.activity(&Activity { detail: field("content").to_owned(), ..done });
            }
            "STEP_STARTED" => output.activity(&activity(Doing::Running, field("stepName"), "")),
            "STEP_FINISHED" => output.activity(&activity(Doing::Done, field("stepName"), "")),
            "REASONING_MESSAGE_CONTENT" | "REASONING_MESSAGE_CHUNK" | "THINKING_TEXT_MESSAGE_CONTENT" => {
                output.thinking(field("delta"));
            }
            "REASONING_START" | "THINKING_START" => output.thinking(""),
            "MESSAGES_SNAPSHOT" => self.take_snapshot(&event, text, output)?,
            "RUN_FINISHED" => self.finished = Some(event),
            "RUN_ERROR" => return Err(server_error(&event)),
            // States, activities of other surfaces, and what is yet to come.
            _ => {}
        }
        Ok(())
    }

    /// All messages at once, as some servers say them; the last one is the answer where nothing of it was streamed.
    fn take_snapshot(
        &mut self,
        event: &Value,
        text: &mut Paragraphs,
        output: &mut dyn Output,
    ) -> Result<(), BackendError> {
        let Some(messages) = event["messages"].as_array() else { return Ok(()) };
        self.snapshot = Some(messages.clone());
        let last = messages.last().filter(|last| last["role"] == "assistant" && !text.has_text());
        last.map_or(Ok(()), |last| text.push(last["content"].as_str().unwrap_or_default(), output))
    }

    fn keep(&mut self, message: Value) {
        self.bytes += message.to_string().len();
        if self.bytes <= MESSAGES_BYTES_MAX {
            self.messages.push(message);
        }
    }

    /// The message of this name, which begins with this where there is none yet.
    fn message(&mut self, id: &str) -> &mut Value {
        let at = self.messages.iter().position(|message| message["id"] == id).unwrap_or_else(|| {
            self.messages.push(json!({"id": id, "role": "assistant", "content": ""}));
            self.messages.len() - 1
        });
        &mut self.messages[at]
    }

    fn append(&mut self, id: &str, delta: &str) {
        self.bytes += delta.len();
        if self.bytes <= MESSAGES_BYTES_MAX
            && let Value::String(content) = &mut self.message(id)["content"]
        {
            content.push_str(delta);
        }
    }

    fn call(&mut self, id: &str, name: &str) {
        let call = json!({"id": id, "type": "function", "function": {"name": name, "arguments": ""}});
        self.keep(json!({"id": new_id(), "role": "assistant", "toolCalls": [call]}));
    }

    fn find(&mut self, id: &str) -> Option<&mut Value> {
        self.messages.iter_mut().filter_map(|message| message.pointer_mut("/toolCalls/0")).find(|call| call["id"] == id)
    }

    fn name_of(&self, id: &str) -> Option<&str> {
        let mut calls = self.messages.iter().map(|message| &message["toolCalls"][0]);
        calls.find(|call| call["id"] == id)?["function"]["name"].as_str()
    }

    fn append_arguments(&mut self, id: &str, delta: &str) {
        self.bytes += delta.len();
        if self.bytes <= MESSAGES_BYTES_MAX
            && let Some(Value::String(arguments)) = self.find(id).map(|call| &mut call["function"]["arguments"])
        {
            arguments.push_str(delta);
        }
    }
}

fn activity(doing: Doing, tool: &str, call: &str) -> Activity {
    Activity { doing, tool: tool.to_owned(), call: call.to_owned(), ..Activity::default() }
}
