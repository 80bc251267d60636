//! Text of backends that also do things: what is said after something was done is a paragraph of its own.

use super::backend::{BackendError, Output};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Paragraphs {
    has_text: bool,
    /// The text so far ends with white space, or there is none.
    ends_blank: bool,
    /// Something was done since the last text.
    has_acted: bool,
}

impl Paragraphs {
    /// Whether anything was said.
    pub(super) fn has_text(&self) -> bool {
        self.has_text
    }

    /// Whether anything was done since.
    pub(super) fn has_acted(&self) -> bool {
        self.has_acted
    }

    /// Something is done, or another message begins.
    pub(super) fn act(&mut self) {
        self.has_acted = true;
    }

    /// Something is said.
    ///
    /// # Errors
    /// The answer is not wanted any more.
    pub(super) fn push(&mut self, text: &str, output: &mut dyn Output) -> Result<(), BackendError> {
        if text.is_empty() {
            return Ok(());
        }
        let is_apart = !self.has_text || self.ends_blank || text.starts_with(char::is_whitespace);
        if std::mem::take(&mut self.has_acted) && !is_apart {
            output.push("\n\n")?;
        }
        self.has_text = true;
        self.ends_blank = text.ends_with(char::is_whitespace);
        output.push(text)
    }
}
