//! Keeps the API key out of what a server says. Servers repeat it in their errors: whole, cut, or in other letters.

use crate::backend::BackendError;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::fmt::Write;

/// What replaces a secret.
const MASK: &str = "***";
/// This many characters of the key, one behind the other, are taken for a piece of it. A shorter key, which is none for
/// anybody, is masked as a word of its own alone.
const PIECE_MIN: usize = 6;
/// Keys of the usual servers begin so.
const KEY_STARTS: [&str; 12] =
    ["sk-", "sk_", "pk-", "rk-", "gsk_", "xai-", "hf_", "nvapi-", "AIza", "pplx-", "r8_", "key-"];
/// What follows one of these is a secret.
const KEY_NAMES: [&str; 5] = ["bearer ", "api_key=", "api-key=", "api_key: ", "api-key: "];
/// The shortest text behind such a start that is taken for a key.
const KEY_MIN: usize = 8;

/// The key in all forms in which it may come back.
#[derive(Default)]
pub(super) struct Mask {
    forms: Vec<Vec<u8>>,
}

/// An error in the words of a program, which may have somebody's key in them.
pub(crate) fn without_keys(error: BackendError) -> BackendError {
    match error {
        BackendError::Failed { message, retry_after } => {
            BackendError::Failed { message: Mask::default().apply(&message), retry_after }
        }
        BackendError::Cancelled => BackendError::Cancelled,
    }
}

impl Mask {
    pub(super) fn new(key: Option<&str>) -> Self {
        let Some(key) = key.filter(|key| !key.is_empty()) else { return Self::default() };
        let mut hex = String::new();
        let mut percent = String::new();
        for byte in key.bytes() {
            // Writing to a String does not fail.
            let _ = write!(hex, "{byte:02x}");
            let _ = if byte.is_ascii_alphanumeric() {
                write!(percent, "{}", char::from(byte))
            } else {
                write!(percent, "%{byte:02x}")
            };
        }
        let mut forms = vec![key.to_owned(), hex, percent, key.chars().rev().collect()];
        // Base64 of a text that has the key somewhere: one form for each place within three bytes.
        for skip in 0..3 {
            let bytes = &key.as_bytes()[skip.min(key.len())..];
            let whole = &bytes[..bytes.len() / 3 * 3];
            forms.extend([STANDARD_NO_PAD.encode(whole), URL_SAFE_NO_PAD.encode(whole)]);
        }
        let mut forms: Vec<Vec<u8>> = forms.into_iter().map(|form| form.to_ascii_lowercase().into_bytes()).collect();
        forms.retain(|form| !form.is_empty());
        forms.sort_unstable();
        forms.dedup();
        Self { forms }
    }

    /// The text with `***` in place of the key, of pieces of it, and of what looks like a key.
    pub(super) fn apply(&self, text: &str) -> String {
        let lower = text.to_ascii_lowercase().into_bytes();
        let mut is_secret = vec![false; text.len()];
        for form in &self.forms {
            mark_pieces(&lower, form, &mut is_secret);
        }
        mark_alike(text, &lower, &mut is_secret);
        let mut masked = String::with_capacity(text.len());
        let mut is_in = false;
        for (at, c) in text.char_indices() {
            if !is_secret[at] {
                masked.push(c);
            } else if !is_in {
                masked.push_str(MASK);
            }
            is_in = is_secret[at];
        }
        masked
    }
}

/// Marks what is a piece of the key.
fn mark_pieces(text: &[u8], form: &[u8], is_secret: &mut [bool]) {
    let least = PIECE_MIN.min(form.len());
    let is_word = |at: usize| text.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii());
    for (at, piece) in text.windows(least).enumerate() {
        let is_within = form.len() < PIECE_MIN && (at.checked_sub(1).is_some_and(is_word) || is_word(at + least));
        if !is_within && form.windows(least).any(|part| part == piece) {
            is_secret[at..at + least].fill(true);
        }
    }
}

/// Marks what has the look of a key.
fn mark_alike(text: &str, lower: &[u8], is_secret: &mut [bool]) {
    let is_of_key = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~+/=*".contains(byte);
    let length_from = |at: usize| text.as_bytes()[at..].iter().take_while(|byte| is_of_key(byte)).count();
    for start in KEY_STARTS {
        for (at, _) in text.match_indices(start) {
            let follows = at.checked_sub(1).is_some_and(|before| text.as_bytes()[before].is_ascii_alphanumeric());
            let length = length_from(at);
            if !follows && length >= KEY_MIN {
                is_secret[at..at + length].fill(true);
            }
        }
    }
    for name in KEY_NAMES {
        for at in (0..lower.len()).filter(|&at| lower[at..].starts_with(name.as_bytes())) {
            let from = at + name.len();
            let length = length_from(from);
            if length >= KEY_MIN {
                is_secret[from..from + length].fill(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    const KEY: &str = "Zq9.very/secret+key_0123456789";

    #[test]
    fn the_key_is_masked_in_whatever_form_it_comes_back() {
        let mask = Mask::new(Some(KEY));
        let percent = "Zq9%2Every%2Fsecret%2Bkey%5F0123456789";
        for said in [
            format!("no such key: {KEY}."),
            format!("no such key: {}...", &KEY[..12]),
            format!("no such key: ...{}", &KEY[15..]),
            format!("no such key: \"{}\"", KEY.to_uppercase()),
            format!("no such key: {percent}"),
            format!("Authorization: Basic {}", STANDARD.encode(format!("user:{KEY}"))),
            format!("Authorization: Basic {}", STANDARD.encode(format!(":{KEY}"))),
            STANDARD.encode(format!("Bearer {KEY}")),
        ] {
            let masked = mask.apply(&said);
            assert!(masked.contains(MASK), "{said}: {masked}");
            let lower = masked.to_lowercase();
            for form in &mask.forms {
                let form = String::from_utf8_lossy(form).into_owned();
                for at in 0..form.len() - PIECE_MIN {
                    assert!(!lower.contains(&form[at..at + PIECE_MIN]), "{said}: {masked}");
                }
            }
        }
    }

    #[test]
    fn what_looks_like_a_key_is_masked_too_and_nothing_else_is() {
        let mask = Mask::new(Some(KEY));
        for (said, told) in [
            (
                "Incorrect API key provided: sk-proj-abcdefgh****WXYZ. See https://x.y/z",
                "Incorrect API key provided: *** See https://x.y/z",
            ),
            ("Bearer abcdefghijkl is unknown", "Bearer *** is unknown"),
            ("?api_key=abcdefghijkl&x=1", "?api_key=***&x=1"),
            ("the task-list of the model Meta-Llama-3.1-70B", "the task-list of the model Meta-Llama-3.1-70B"),
            ("gr\u{fc}\u{df}e an die \u{1f980}", "gr\u{fc}\u{df}e an die \u{1f980}"),
        ] {
            assert_eq!(mask.apply(said), told);
            assert_eq!(Mask::new(None).apply(said), told);
        }
        assert_eq!(Mask::new(Some("ab")).apply("x ab y about (ab)"), "x *** y about (***)");
    }
}
