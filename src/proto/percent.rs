//! Percent-encoding, read (RFC 3986 section 2.1).

use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Undoes percent-encoding, once; `None` for a broken escape and for what is not UTF-8 afterwards.
#[must_use]
pub fn decode(text: &str) -> Option<Cow<'_, str>> {
    // The library lets broken escapes through as they are.
    let is_whole = |escape: &str| escape.len() >= 2 && escape.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    let all_whole = text.split('%').skip(1).all(is_whole);
    all_whole.then(|| percent_decode_str(text).decode_utf8().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_undone_once() {
        for (text, decoded) in [
            ("/ws", Some("/ws")),
            ("/%77s", Some("/ws")),
            ("%c3%A4%25", Some("ä%")),
            ("%2541", Some("%41")),
            ("%", None),
            ("%4", None),
            ("%4g", None),
            ("%+1", None),
            ("%ff", None),
        ] {
            assert_eq!(decode(text).as_deref(), decoded, "{text}");
        }
    }
}
