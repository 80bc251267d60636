//! Thoughts that a model writes into its answer, between `<think>` and `</think>` at the answer's very beginning: models
//! do so behind servers that do not take their thoughts apart.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";
/// Thoughts that are kept, in case they turn out to be the answer, in bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Takes an answer's text in pieces, and keeps the thoughts back.
#[derive(Debug, Default)]
pub(super) enum Filter {
    /// What has come may become `<think>`.
    #[default]
    Undecided,
    /// Perhaps the start of one.
    Pending(String),
    /// In its thoughts: what they are, and whether all of them are still there.
    Thinking { text: String, is_whole: bool },
    /// Blank lines between the thoughts and the answer are dropped.
    AfterThoughts,
    /// The answer itself.
    Open,
}

impl Filter {
    /// Takes the next piece; gives what is to be shown of it.
    pub(super) fn feed(&mut self, piece: &str) -> String {
        let mut text = match std::mem::take(self) {
            Self::Open => {
                *self = Self::Open;
                return piece.to_owned();
            }
            Self::Undecided => piece.to_owned(),
            Self::Pending(before) => before + piece,
            Self::AfterThoughts => return self.after_thoughts(piece),
            Self::Thinking { mut text, is_whole } => {
                let new_from = text.len();
                text.push_str(piece);
                return self.think(text, is_whole, new_from);
            }
        };
        let begin = text.trim_start();
        if begin.starts_with(OPEN) {
            return self.think(text, true, 0);
        }
        if OPEN.starts_with(begin) {
            *self = Self::Pending(std::mem::take(&mut text));
            return String::new();
        }
        *self = Self::Open;
        text
    }

    /// Looks for the closing tag, of which a part may be before `new_from`.
    fn think(&mut self, mut text: String, is_whole: bool, new_from: usize) -> String {
        let from = char_boundary(&text, new_from.saturating_sub(CLOSE.len()));
        if let Some(at) = text[from..].find(CLOSE) {
            return self.after_thoughts(&text[from + at + CLOSE.len()..]);
        }
        let is_whole = is_whole && text.len() <= KEPT_BYTES_MAX;
        if !is_whole {
            // The end may be the start of the closing tag.
            text.drain(..char_boundary(&text, text.len().saturating_sub(CLOSE.len())));
        }
        *self = Self::Thinking { text, is_whole };
        String::new()
    }

    fn after_thoughts(&mut self, rest: &str) -> String {
        let rest = rest.trim_start();
        *self = if rest.is_empty() { Self::AfterThoughts } else { Self::Open };
        rest.to_owned()
    }

    /// Whether thoughts are coming now.
    pub(super) fn is_thinking(&self) -> bool {
        matches!(self, Self::Thinking { .. })
    }

    /// The answer has ended: what was kept back and is text after all. A model that was cut off while it thought
    /// (`is_cut`) has said nothing; one that simply never closes its thoughts means them as the answer.
    pub(super) fn finish(&mut self, is_cut: bool) -> String {
        match std::mem::replace(self, Self::Open) {
            Self::Pending(text) => text,
            Self::Thinking { text, is_whole: true } if !is_cut => text,
            _ => String::new(),
        }
    }
}

/// The last place at or before `at` that is between two characters.
fn char_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&str], is_cut: bool) -> String {
        let mut filter = Filter::default();
        let mut shown: String = pieces.iter().map(|piece| filter.feed(piece)).collect();
        shown += &filter.finish(is_cut);
        shown
    }

    #[test]
    fn thoughts_are_kept_back_wherever_the_text_is_cut() {
        for (text, is_cut, expected) in [
            ("\n<think>\nhm, \u{1f980} <b>\n</think>\n\nAn answer </think>.", false, "An answer </think>."),
            ("<think></think>x", false, "x"),
            ("<thinking>x", false, "<thinking>x"),
            ("  <th", false, "  <th"),
            ("a <think>b</think>", false, "a <think>b</think>"),
            ("<think>never closed", false, "<think>never closed"),
            ("<think>never closed", true, ""),
            ("", false, ""),
        ] {
            for cut in (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
                assert_eq!(shown(&[&text[..cut], &text[cut..]], is_cut), expected, "{text} {cut}");
            }
            let single: Vec<&str> = text.split("").collect();
            assert_eq!(shown(&single, is_cut), expected, "{text}");
        }
    }

    #[test]
    fn endless_thoughts_take_no_endless_memory() {
        let mut filter = Filter::default();
        filter.feed(OPEN);
        for _ in 0..40 {
            assert_eq!(filter.feed(&"\u{fc}".repeat(32 << 10)), "");
        }
        let Filter::Thinking { text, .. } = &filter else { panic!("{filter:?}") };
        assert!(text.len() < 64);
        assert_eq!(filter.feed("</thi"), "");
        assert_eq!(filter.feed("nk>yes"), "yes");
    }
}
