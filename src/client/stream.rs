//! An answer that is sent while it is made.

use super::devices::{Lane, To};
use super::envelope::new_id;
use super::options::PIECE_BYTES_MAX;
use super::{Client, Keep, SendError};
use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest answer, in bytes of its text: `chat.done` repeats all of it, JSON may double it and encryption adds a
/// third.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// An answer under way: text goes in, `chat.stream` messages come out, at most 80 a second for all answers of a
/// client; what is written faster, or while the connection is away, travels in larger pieces. `seq` counts the pieces
/// from 1.
#[derive(Debug)]
pub struct Stream {
    client: Client,
    to: To,
    keep: Keep,
    number: u64,
    /// How many pieces were made of it for each peer.
    pieces: BTreeMap<Lane, u64>,
    fields: Arc<Map<String, Value>>,
    full_text: String,
}

impl Stream {
    pub(super) fn new(client: Client, to: To, fields: Map<String, Value>) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            client,
            to,
            keep: Keep::Wake,
            number,
            pieces: BTreeMap::new(),
            fields: Arc::new(fields),
            full_text: String::new(),
        }
    }

    /// How the relay keeps its end for whoever is away, instead of waking all of them.
    #[must_use]
    pub fn with_keep(self, keep: Keep) -> Self {
        Self { keep, ..self }
    }

    /// Adds text to the answer. Waits while too much is waiting to be sent.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] where the answer would get longer than [`ANSWER_BYTES_MAX`]; and as
    /// [`Client::send`].
    pub fn push(&mut self, text: &str) -> Result<(), SendError> {
        if text.is_empty() {
            return Ok(());
        }
        let bytes = self.full_text.len() + text.len();
        if bytes > ANSWER_BYTES_MAX {
            return Err(SendError::TooLarge { bytes, max: ANSWER_BYTES_MAX });
        }
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, more) = split_at_most(rest, PIECE_BYTES_MAX);
            let (deadline, shared) = (self.client.deadline(), &self.client.shared);
            shared.push_text(self.to, self.number, &mut self.pieces, &self.fields, piece, deadline)?;
            self.full_text.push_str(piece);
            rest = more;
        }
        Ok(())
    }

    /// What was written so far.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.full_text
    }

    /// Replaces what was written so far, for [`finish`](Self::finish): pieces that were sent were only a preview of it.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] where it is longer than [`ANSWER_BYTES_MAX`].
    pub fn amend(&mut self, text: String) -> Result<(), SendError> {
        if text.len() > ANSWER_BYTES_MAX {
            return Err(SendError::TooLarge { bytes: text.len(), max: ANSWER_BYTES_MAX });
        }
        self.full_text = text;
        Ok(())
    }

    /// Ends the answer: sends `chat.done` with `full_text`, and `more` beside it. Gives that message's id.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn finish(self, more: Map<String, Value>) -> Result<String, SendError> {
        let mut payload = (*self.fields).clone();
        payload.insert("full_text".to_owned(), json!(self.full_text));
        payload.extend(more);
        let id = new_id();
        self.client.send_raw((self.to, self.keep), &id, "chat.done", to_raw_value(&payload)?, Some(self.number))?;
        Ok(id)
    }
}

/// The longest start of `text` that has at most `bytes_max` bytes, which are at least 4, and the rest.
fn split_at_most(text: &str, bytes_max: usize) -> (&str, &str) {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_split_between_characters() {
        assert_eq!(split_at_most("aüb", 2), ("a", "üb"));
        assert_eq!(split_at_most("aüb", 9), ("aüb", ""));
    }
}
