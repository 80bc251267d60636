//! What others have said, made fit for a terminal: the one place through which everything foreign goes that is printed.

use coralmux_console as console;

/// The text on one line. Line breaks and tabs become a space; what a terminal would act on, or what would show the rest
/// in another order than it has (escapes, bells, bidirectional controls), is written as `\u{1b}`.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let mut after_break = false;
    for c in text.chars() {
        let is_break = matches!(c, '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}');
        match c {
            _ if is_break && after_break => {}
            _ if is_break => line.push(' '),
            _ if c.is_control() || is_bidi_control(c) => line.extend(c.escape_unicode()),
            _ => line.push(c),
        }
        after_break = is_break;
    }
    line
}

/// Tells the person of something that went wrong, on a line of standard error.
pub(super) fn warn(text: &str) {
    console::warn(printable(text));
}

/// Marks, embeddings, overrides and isolates (Unicode Standard Annex 9).
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_shown_instead() {
        for (said, shown) in [
            ("plain, gr\u{fc}\u{df}e \u{1f980}", "plain, gr\u{fc}\u{df}e \u{1f980}"),
            ("a\x1b[2Jb\x07\x7f\u{9b}1m", "a\\u{1b}[2Jb\\u{7}\\u{7f}\\u{9b}1m"),
            ("one\r\ntwo\n\n\tthree\u{2028}four", "one two three four"),
            ("\u{202e}evil\u{202c} \u{2066}x\u{2069}", "\\u{202e}evil\\u{202c} \\u{2066}x\\u{2069}"),
            ("    indented", "    indented"),
        ] {
            assert_eq!(printable(said), shown);
        }
    }
}
