//! What answers: a text goes in, an answer comes out while it is made.

use super::activity::Activity;
use super::asking::{Ask, Decided, Decision};
use super::cancel::Cancel;
use super::files::File;
use super::history::Turn;
use std::borrow::Cow;
use std::time::Duration;
use thiserror::Error;

/// An image that the phone sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its media type: `image/png`, for example.
    pub mime: String,
    /// Its bytes in standard base64, as they came.
    pub data: String,
}

/// What the phone asks.
#[derive(Clone, Debug)]
pub struct Question {
    /// Which conversation it belongs to; empty where the phone keeps only one.
    pub chat: String,
    /// What was said before, oldest first, and what is asked now as the last turn.
    pub turns: Vec<Turn>,
}

impl Question {
    /// What is asked now. There is always one; an empty one stands in for it.
    #[must_use]
    pub fn text(&self) -> &str {
        self.turns.last().map_or("", |turn| turn.text.as_str())
    }

    /// The same for who understands words: of what was asked long ago it says so.
    #[must_use]
    pub fn text_with_age(&self) -> Cow<'_, str> {
        self.turns.last().map_or(Cow::Borrowed(""), Turn::text_with_age)
    }

    /// When it was asked, in Unix milliseconds.
    #[must_use]
    pub fn asked_at_ms(&self) -> u64 {
        self.turns.last().map_or(0, |turn| turn.at_ms)
    }

    /// The images that came with it.
    #[must_use]
    pub fn images(&self) -> &[Image] {
        self.turns.last().map_or(&[], |turn| turn.images.as_slice())
    }
}

/// Why there is no answer, or not all of it.
#[derive(Debug, Error)]
pub enum BackendError {
    /// The answer is not wanted any more.
    #[error("the answer was cancelled")]
    Cancelled,
    /// The backend failed; in words that the phone may show.
    #[error("{message}")]
    Failed {
        /// What happened.
        message: String,
        /// When to try again, where the backend says so.
        retry_after: Option<Duration>,
    },
}

impl BackendError {
    /// A failure without a time to try again.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), retry_after: None }
    }
}

/// How an answer ended that did not fail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It is complete.
    #[default]
    Whole,
    /// It is not, or not simply so.
    Partial(Ending),
}

/// Why an answer is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// In one word, for programs (PROTOCOL.md, Forwarding).
    pub finish: &'static str,
    /// In words, for the person; empty where `finish` says it all.
    pub notice: String,
}

/// Where an answer's text goes while it is made.
pub trait Output {
    /// Adds text to the answer.
    ///
    /// # Errors
    /// The answer is not wanted any more, or has become too long: the backend ends.
    fn push(&mut self, text: &str) -> Result<(), BackendError>;

    /// Replaces the whole answer: what was pushed has shown it while it was made, and is no longer right.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    fn amend(&mut self, text: String) -> Result<(), BackendError>;

    /// The model thinks, and says nothing yet. May be called for each piece of its thoughts, which may be empty.
    fn thinking(&mut self, _thought: &str) {}

    /// Gives the person a file.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    fn file(&mut self, _file: File) -> Result<(), BackendError> {
        Ok(())
    }

    /// Something is done beside the text.
    fn activity(&mut self, _activity: &Activity) {}

    /// Asks the person. `decided` hears what comes of it, while the answer goes on. Gives the question's name.
    fn ask(&mut self, _ask: Ask, decided: Decided) -> String {
        decided(Decision::Nothing);
        String::new()
    }

    /// A question need not be answered any more.
    fn withdraw(&mut self, _name: &str) {}
}

/// Answers questions, several at once, each on a thread of its own.
pub trait Backend: Send + Sync {
    /// Answers, and returns when the answer has ended, and how. Ends soon after it was cancelled.
    ///
    /// # Errors
    /// Why there is no answer, or only the part of it that was pushed.
    fn answer(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError>;

    /// The agent has a pairing, and this is its public name.
    fn handle_paired(&self, _pairing: &str) {}

    /// The process ends: ends at once what was started outside of it, and starts nothing more.
    fn end(&self) {}

    /// What kind it is, in one word.
    fn kind(&self) -> &'static str;

    /// The model's name, where there is one.
    fn model(&self) -> Option<&str> {
        None
    }
}
