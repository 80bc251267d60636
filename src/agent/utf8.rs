//! Text from bytes that come in pieces, cut anywhere.

/// Keeps the start of a character until the rest has come.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The bytes of a character that is not whole: at most 3.
    pending: Vec<u8>,
}

impl Decoder {
    /// The text of `bytes`, with what was kept in front. What is not UTF-8 becomes U+FFFD.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.pending.len());
        let mut kept = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            kept += chunk.valid().len();
            let invalid = chunk.invalid();
            let is_at_end = kept + invalid.len() == self.pending.len();
            if is_at_end && is_start(invalid) {
                break;
            }
            if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                kept += invalid.len();
            }
        }
        self.pending.drain(..kept);
        text
    }

    /// What is left at the end of all bytes: nothing, or one U+FFFD.
    pub(super) fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.pending).is_empty() { "" } else { "\u{fffd}" }
    }
}

/// Whether more bytes could make a character of these.
fn is_start(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_same_wherever_it_is_cut() {
        let whole = "a\u{fc}\u{20ac}\u{1f980}z";
        for first in 0..=whole.len() {
            for second in first..=whole.len() {
                let mut decoder = Decoder::default();
                let bytes = whole.as_bytes();
                let mut text = decoder.feed(&bytes[..first]);
                text += &decoder.feed(&bytes[first..second]);
                text += &decoder.feed(&bytes[second..]);
                assert_eq!((text.as_str(), decoder.finish()), (whole, ""), "{first} {second}");
            }
        }
    }

    #[test]
    fn what_is_no_text_shows() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(b"a\xffb\xc3"), "a\u{fffd}b");
        assert_eq!(decoder.feed(b"c\xe2\x82"), "\u{fffd}c");
        assert_eq!(decoder.finish(), "\u{fffd}");
        assert_eq!(decoder.finish(), "");
    }
}
