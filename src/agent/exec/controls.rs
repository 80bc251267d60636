//! Takes control strings (titles, links, images) out of what a program prints, before the rest is parsed. A terminal
//! waits for the end of such a string for ever, and a program that was killed within one, or that cut it, would have
//! said nothing more; here a string ends with its line at the latest.

/// Where the text that comes next belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// Behind an escape character.
    Escape,
    /// Within a string; whether a bell ends it.
    String { ends_at_bell: bool },
}

/// Takes text, cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Controls {
    state: State,
}

const BELL: char = '\x07';
const CANCEL: char = '\x18';
const SUBSTITUTE: char = '\x1a';
const ESCAPE: char = '\x1b';
/// The one-character form of what ends a string.
const TERMINATOR: char = '\u{9c}';

impl Controls {
    /// The text without strings. The one-character form (C1) of what begins a sequence is written as the two characters
    /// that it stands for, which are all that the parser knows in UTF-8. That of what begins a string is not: text that
    /// was encoded twice is full of them (the last quotation mark of a pair has one), and would be lost.
    pub(super) fn without_strings(&mut self, text: &str) -> String {
        let mut kept = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '\u{9b}' => "\x1b[".chars().for_each(|c| self.take(c, &mut kept)),
                c => self.take(c, &mut kept),
            }
        }
        kept
    }

    fn take(&mut self, c: char, kept: &mut String) {
        self.state = match (self.state, c) {
            (_, ESCAPE) => State::Escape,
            (State::Escape, ']' | 'P' | 'X' | '^' | '_') => {
                // The parser has seen the escape character, and is to forget it.
                kept.push(CANCEL);
                State::String { ends_at_bell: c == ']' }
            }
            // A line that ends within a sequence is carried out there, and the sequence goes on.
            (State::Escape, c) if c.is_control() && !matches!(c, CANCEL | SUBSTITUTE) => State::Escape,
            (State::String { .. }, '\n' | CANCEL | SUBSTITUTE) => State::Text,
            (State::String { .. }, TERMINATOR) | (State::String { ends_at_bell: true }, BELL) => {
                self.state = State::Text;
                return;
            }
            (State::String { .. }, _) => return,
            (State::Text | State::Escape, _) => State::Text,
        };
        if !matches!(self.state, State::String { .. }) {
            kept.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_gone_and_end_with_their_line() {
        for (text, kept) in [
            ("a\x1b]0;title\x07b", "a\x1b\x18b"),
            ("a\x1b]0;title\x1b\\b", "a\x1b\x18\x1b\\b"),
            ("a\x1b]0;title\nb", "a\x1b\x18\nb"),
            ("a\x1bPq\x07data\r\nb", "a\x1b\x18\nb"),
            ("a\x1b_G\x18b\x1b^x\x1ac\x1bXy\nd", "a\x1b\x18\x18b\x1b\x18\x1ac\x1b\x18\nd"),
            ("a\x1b]0;title\x1b[1mb", "a\x1b\x18\x1b[1mb"),
            ("\u{9b}31ma\x1b]0;t\u{9c}b", "\x1b[31ma\x1b\x18b"),
            ("\x1b]0;t\u{9b}1mb", "\x1b\x18\x1b[1mb"),
            ("\u{e2}\u{80}\u{9d} \u{90}\u{98}\u{9e}", "\u{e2}\u{80}\u{9d} \u{90}\u{98}\u{9e}"),
            ("\x1b[]x\x1b(]y", "\x1b[]x\x1b(]y"),
        ] {
            for cut in (0..=text.len()).filter(|&cut| text.is_char_boundary(cut)) {
                let mut controls = Controls::default();
                let first = controls.without_strings(&text[..cut]);
                assert_eq!(first + &controls.without_strings(&text[cut..]), kept, "{text:?} {cut}");
            }
        }
    }
}
