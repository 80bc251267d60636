//! What an AI server sends, whatever it says that it is: a stream of events, or JSON. The bytes tell, not the content
//! type: servers send errors and whole answers under any.

use super::reply::Reply;
use crate::backend::{BackendError, Outcome, Output};
use crate::http::body::{no_answer, server_error};
use crate::http::sse::{Kind, Parser, TooLong};
use crate::http::{BODY_BYTES_MAX, Reading, WORDS_MAX, body};
use coralmux_client::lenient;
use serde_json::value::RawValue;
use serde_json::{Deserializer, Value};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The start of a text that is neither is kept for the error, in bytes.
const START_BYTES_MAX: usize = 16 * WORDS_MAX;

/// An answer that is being read.
#[derive(Debug, Default)]
pub(super) struct Answering {
    form: Form,
    reply: Reply,
    parser: Parser,
}

/// What the bytes are.
#[derive(Debug)]
enum Form {
    /// Nothing but a byte order mark and blanks so far.
    Unknown(Vec<u8>),
    /// One JSON text, or several.
    Json(Vec<u8>),
    /// Events; and the start of it, in case they are none.
    Events(Vec<u8>),
}

impl Default for Form {
    fn default() -> Self {
        Self::Unknown(Vec::new())
    }
}

impl Reading for Answering {
    fn feed(&mut self, bytes: &[u8], output: &mut dyn Output) -> Result<(), BackendError> {
        match &mut self.form {
            Form::Json(text) => {
                text.extend_from_slice(bytes);
                if text.len() as u64 > BODY_BYTES_MAX { Err(TooLong.into()) } else { Ok(()) }
            }
            Form::Events(start) => {
                let room = START_BYTES_MAX.saturating_sub(start.len()).min(bytes.len());
                start.extend_from_slice(&bytes[..room]);
                self.parse(bytes, output)
            }
            Form::Unknown(before) => {
                before.extend_from_slice(bytes);
                let known = std::mem::take(before);
                let text = known.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&known).trim_ascii_start();
                let is_unknown = text.is_empty() || BYTE_ORDER_MARK.starts_with(text);
                if is_unknown && known.len() < START_BYTES_MAX {
                    self.form = Form::Unknown(known);
                    return Ok(());
                }
                let is_json = text.starts_with(b"{") || text.starts_with(b"[");
                let text = text.to_vec();
                self.form = if is_json { Form::Json(Vec::new()) } else { Form::Events(Vec::new()) };
                self.feed(&text, output)
            }
        }
    }

    fn is_over(&self) -> bool {
        self.reply.is_over()
    }

    fn has_finished(&self) -> bool {
        self.reply.has_finished()
    }
}

impl Answering {
    fn parse(&mut self, bytes: &[u8], output: &mut dyn Output) -> Result<(), BackendError> {
        let reply = &mut self.reply;
        self.parser.feed(bytes, |kind, data| take(reply, kind, data, output))
    }

    /// No more comes: how the answer has ended.
    ///
    /// # Errors
    /// It is none, or only a part of one.
    pub(super) fn end(mut self, output: &mut dyn Output) -> Result<Outcome, BackendError> {
        match self.form {
            Form::Unknown(_) => return Err(BackendError::failed("the AI server's answer is empty")),
            Form::Json(texts) => {
                let texts = String::from_utf8_lossy(&texts);
                let texts = lenient::with_numbers(&texts);
                let is_whole = take_texts(&mut self.reply, &texts, output)?;
                if !is_whole {
                    self.reply.break_off();
                } else if !self.reply.handle_whole() {
                    return Err(no_answer(&texts));
                }
            }
            Form::Events(start) => {
                let reply = &mut self.reply;
                self.parser.finish(|kind, data| {
                    // What no blank line ends may be half of an event.
                    let is_whole = kind == Kind::Error || data.trim() == "[DONE]" || body::json(data).is_some();
                    if is_whole {
                        return take(reply, kind, data, output);
                    }
                    // Half of the mark that ends all lacks nothing.
                    if !"[DONE]".starts_with(data.trim()) {
                        reply.break_off();
                    }
                    Ok(())
                })?;
                if !self.parser.is_stream() {
                    return Err(no_answer_at_all(&String::from_utf8_lossy(&start)));
                }
            }
        }
        self.reply.end(output)
    }
}

fn take(reply: &mut Reply, kind: Kind, data: &str, output: &mut dyn Output) -> Result<(), BackendError> {
    if reply.is_over() {
        return Ok(());
    }
    if kind == Kind::Error {
        return Err(server_error(&body::json(data).unwrap_or_else(|| Value::String(data.to_owned()))));
    }
    reply.take(data, kind == Kind::Bare, output)
}

/// Takes JSON texts that follow one another: one as a rule. Whether the last of them is whole.
fn take_texts(reply: &mut Reply, texts: &str, output: &mut dyn Output) -> Result<bool, BackendError> {
    for text in Deserializer::from_str(texts).into_iter::<&RawValue>() {
        match text {
            Ok(text) => reply.take(text.get(), false, output)?,
            Err(error) if error.is_eof() => return Ok(false),
            Err(_) => return Err(no_answer(texts)),
        }
    }
    Ok(true)
}

fn no_answer_at_all(text: &str) -> BackendError {
    if body::is_page(text.trim_start()) {
        let words = body::words(text);
        return BackendError::failed(format!(
            "a web page answers in the AI server's place, check its address: {words}"
        ));
    }
    no_answer(text)
}
