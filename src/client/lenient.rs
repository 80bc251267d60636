//! JSON of other people's programs, read as far as it can be.
//!
//! JSON allows what Rust's types do not: half a surrogate pair, numbers that no `f64` holds, nesting without end. And
//! some programs write numbers that are none (`NaN`, `-Infinity`) as words, which JSON does not have. None of it is a
//! reason to throw a whole message away.

use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Nesting that is kept; what lies deeper becomes `null`. `serde_json` reads 127 levels.
const DEPTH_MAX: usize = 120;

/// The value of a JSON text. Half a surrogate pair becomes U+FFFD, a number out of range the largest that there is, and
/// what is nested too deeply, or no number at all, `null`. `None`: it is not JSON.
pub fn value(text: &str) -> Option<Value> {
    if let Ok(value) = serde_json::from_str(text) {
        return Some(value);
    }
    let text = &*with_numbers(text);
    // This checks the grammar and nothing else, and does not recurse.
    serde_json::from_str::<&RawValue>(text).ok()?;
    serde_json::from_str(&mended(text.as_bytes())).ok()
}

/// The text with `null` in place of the words that are written for numbers that are none, as Python and C write them.
pub fn with_numbers(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let is_of_word = |byte: &u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.' | b'_');
    let (mut at, mut kept, mut mended) = (0, 0, String::new());
    while at < bytes.len() {
        let from = at;
        if bytes[at] == b'"' {
            at = end_of_string(bytes, at);
            continue;
        }
        at += bytes[at..].iter().take_while(|byte| is_of_word(byte)).count();
        let word = bytes[from..at].strip_prefix(b"-").unwrap_or(&bytes[from..at]);
        if [&b"nan"[..], b"inf", b"infinity"].iter().any(|name| word.eq_ignore_ascii_case(name)) {
            mended += &text[kept..from];
            mended += "null";
            kept = at;
        }
        at = at.max(from + 1);
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    mended += &text[kept..];
    Cow::Owned(mended)
}

/// A text that is JSON by its grammar, with what no value can hold replaced.
fn mended(text: &[u8]) -> String {
    let mut mended = Vec::with_capacity(text.len());
    let (mut at, mut depth) = (0, 0usize);
    while at < text.len() {
        let from = at;
        match text[at] {
            b'"' => {
                at = end_of_string(text, at);
                if depth <= DEPTH_MAX {
                    mend_string(&text[from..at], &mut mended);
                }
                continue;
            }
            b'-' | b'0'..=b'9' => {
                while at < text.len() && matches!(text[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') {
                    at += 1;
                }
                if depth <= DEPTH_MAX {
                    mend_number(&text[from..at], &mut mended);
                }
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth == DEPTH_MAX + 1 {
                    mended.extend_from_slice(b"null");
                }
            }
            _ => {}
        }
        if depth <= DEPTH_MAX {
            mended.push(text[at]);
        }
        if matches!(text[at], b'}' | b']') {
            depth -= 1;
        }
        at += 1;
    }
    // Whole tokens were copied, or replaced by ASCII.
    String::from_utf8(mended).unwrap_or_default()
}

/// Behind the closing quote of the string that begins at `at`.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    at += 1;
    while at < text.len() && text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

fn mend_string(string: &[u8], mended: &mut Vec<u8>) {
    let unit = |at: usize| {
        let digits = string.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    while at < string.len() {
        let taken = match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                mended.extend_from_slice(b"\\ufffd");
                at += 6;
                continue;
            }
            (Some(_), _) => 6,
            (None, _) if string[at] == b'\\' => 2,
            (None, _) => 1,
        };
        mended.extend_from_slice(&string[at..at + taken]);
        at += taken;
    }
}

fn mend_number(number: &[u8], mended: &mut Vec<u8>) {
    let is_infinite = std::str::from_utf8(number).is_ok_and(|text| text.parse().is_ok_and(f64::is_infinite));
    if is_infinite {
        let largest = if number[0] == b'-' { f64::MIN } else { f64::MAX };
        mended.extend_from_slice(format!("{largest:e}").as_bytes());
    } else {
        mended.extend_from_slice(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_json_allows_and_values_do_not_is_replaced() {
        for (text, read) in [
            (r#"{"a":"x\ud83e"}"#, json!({"a": "x\u{fffd}"})),
            (
                r#"["\udd80\ud83e\udd80\\ud83e\ud83e\u0041\"", -1e999, 1e999, 1.5]"#,
                json!(["\u{fffd}\u{1f980}\\ud83e\u{fffd}A\"", f64::MIN, f64::MAX, 1.5]),
            ),
            (r#"{"\ud800":"\ud800\ud800\udc00"}"#, json!({"\u{fffd}": "\u{fffd}\u{10000}"})),
            (r#""plain""#, json!("plain")),
            (
                r#"{"a":NaN,"b":[-Infinity , Infinity,nan,-inf],"NaN":"Infinity \" NaN","c":1e999}"#,
                json!({"a": null, "b": [null, null, null, null], "NaN": "Infinity \" NaN", "c": f64::MAX}),
            ),
            ("NaN", json!(null)),
        ] {
            assert_eq!(value(text), Some(read), "{text}");
        }
        let digits = "9".repeat(5000);
        assert_eq!(value(&format!("[{digits}]")), Some(json!([f64::MAX])));
    }

    #[test]
    fn what_is_nested_too_deeply_is_null_and_the_rest_is_read() {
        let deep = format!("{}\"]\",1{}", "[{\"a\":".repeat(50_000), "}]".repeat(50_000)).replacen(",1}", "}", 1);
        let read = value(&format!(r#"{{"text":"hi","x":{deep},"y":2}}"#)).unwrap();
        assert_eq!((&read["text"], &read["y"]), (&json!("hi"), &json!(2)));
        assert!(read.to_string().contains("null"));
    }

    #[test]
    fn what_is_no_json_is_none() {
        for text in [
            "",
            "{",
            "[1,]",
            r#"{"a":"\ud8"}"#,
            "\"\\ud83e",
            "NaNs",
            "[--NaN]",
            "{NaN:1}",
            "{\"a\" 1}",
            "[\"\u{1}\\ud800\"]",
        ] {
            assert_eq!(value(text), None, "{text}");
        }
    }

    /// A JSON text of the kinds that are hard.
    fn text() -> impl Strategy<Value = String> {
        let string = prop::collection::vec(
            prop::sample::select(vec![
                "\\ud83e", "\\udd80", "\\\\", "\\\"", "\\u0041", "ud800", "x", "\u{fc}", "[", "}", ",", "1e999",
            ]),
            0..8,
        );
        let string = string.prop_map(|parts| format!("\"{}\"", parts.concat()));
        let plain = prop::sample::select(vec!["1e999", "-1e999", "0", "-0.5e-3", "null", "true", "[]", "{}"]);
        let leaf = prop_oneof![string.clone(), plain.prop_map(str::to_owned)];
        leaf.prop_recursive(200, 400, 3, move |inner| {
            let member = (string.clone(), inner.clone()).prop_map(|(name, value)| format!("{name} :{value}"));
            prop_oneof![
                prop::collection::vec(inner, 0..3).prop_map(|items| format!("[ {} ]", items.join(","))),
                prop::collection::vec(member, 0..3).prop_map(|members| format!("{{{}}}", members.join("\n,"))),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_json_by_its_grammar_has_a_value(text in text()) {
            prop_assert!(value(&text).is_some(), "{}", text);
        }

        #[test]
        fn what_is_no_json_by_its_grammar_has_none(text in text(), at: prop::sample::Index, junk in "[\\[\\]{}\",:\\\\x]") {
            let mut places = text.char_indices().map(|(place, _)| place).collect::<Vec<_>>();
            places.push(text.len());
            let place = places[at.index(places.len())];
            let text = format!("{}{junk}{}", &text[..place], &text[place..]);
            prop_assert_eq!(value(&text).is_some(), serde_json::from_str::<&RawValue>(&text).is_ok(), "{}", text);
        }
    }
}
