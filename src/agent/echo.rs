//! A backend that says again what it hears, word by word: to try the way without an AI.

use super::backend::{Backend, BackendError, Outcome, Output, Question};
use super::cancel::Cancel;
use std::time::Duration;

/// Between two words, as a model takes its time.
const WORD_INTERVAL: Duration = Duration::from_millis(40);
/// All words together take no longer, however many there are.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Echo;

impl Backend for Echo {
    fn answer(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        let text = describe(question);
        let words = text.split_inclusive(' ');
        let count = u32::try_from(words.clone().count()).unwrap_or(u32::MAX).max(1);
        let interval = WORD_INTERVAL.min(ANSWER_TIME / count);
        for word in words {
            output.push(word)?;
            if cancel.sleep(interval) {
                return Err(BackendError::Cancelled);
            }
        }
        Ok(Outcome::Whole)
    }

    fn kind(&self) -> &'static str {
        "echo"
    }
}

fn describe(question: &Question) -> String {
    let images: Vec<String> = question
        .images()
        .iter()
        .map(|image| format!("an image ({}, {} bytes)", image.mime, image.data.trim_end_matches('=').len() * 3 / 4))
        .collect();
    match (question.text(), images.as_slice()) {
        (text, []) => format!("You said: {text}"),
        ("", images) => format!("You sent {}.", images.join(" and ")),
        (text, images) => format!("You sent {} and said: {text}", images.join(" and ")),
    }
}
