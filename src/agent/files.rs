//! Images and other files that a backend gives the person (PROTOCOL.md, Files from the agent), within their bounds; in words
//! for a phone that shows none.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_json::{Map, Value, json};

/// The longest file: in base64, and sealed, which is base64 again, it is one message.
pub(super) const BYTES_MAX: usize = 2_621_440;
/// Files of an answer.
pub(super) const FILES_MAX: usize = 16;
/// The longest name and media type, in characters.
const NAME_MAX: usize = 100;
const MIME_MAX: usize = 100;
const UNKNOWN: &str = "application/octet-stream";
/// By the ends of their names: what phones show. Anything else they store.
const IMAGES: [(&str, &str); 5] =
    [("png", "image/png"), ("jpg", "image/jpeg"), ("jpeg", "image/jpeg"), ("gif", "image/gif"), ("webp", "image/webp")];
/// Some leave the padding out.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file for the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    name: String,
    mime: String,
    data: Vec<u8>,
}

impl File {
    /// A file of this name and media type, either of which may be empty. `None`: `data` is not base64.
    #[must_use]
    pub fn of_base64(name: &str, mime: &str, data: &str) -> Option<Self> {
        Some(Self { name: name.to_owned(), mime: mime.to_owned(), data: LENIENT.decode(data.trim()).ok()? })
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.data.len() > BYTES_MAX
    }

    /// The same with a name that a phone can store it by, as the answer's file of this number, and with a media type.
    pub(super) fn named(self, number: usize) -> Self {
        let given: Vec<char> = self.name.chars().filter(|c| !c.is_control() && !"/\\".contains(*c)).collect();
        let mut name: String = given[given.len().saturating_sub(NAME_MAX)..].iter().collect();
        if name.is_empty() {
            let known = IMAGES.iter().find(|(_, mime)| *mime == self.mime);
            name = known.map_or_else(|| format!("file-{number}"), |(end, _)| format!("image-{number}.{end}"));
        }
        let mime: String = self.mime.chars().take(MIME_MAX).collect();
        let mime = if mime.is_empty() { mime_of(&name).to_owned() } else { mime };
        Self { name, mime, ..self }
    }

    /// As fields of a payload.
    pub(super) fn fields(&self) -> Map<String, Value> {
        let data = STANDARD.encode(&self.data);
        [("name", &self.name), ("mime", &self.mime), ("data", &data)]
            .into_iter()
            .map(|(name, text)| (name.to_owned(), json!(text)))
            .collect()
    }

    /// What is said in its place.
    pub(super) fn words(&self, why: &str) -> String {
        let kind = if self.mime.starts_with("image/") { "Image" } else { "File" };
        format!("\n\n[{kind} {}, {}: {why}.]\n\n", self.name, size(self.data.len()))
    }
}

fn mime_of(name: &str) -> &'static str {
    let end = name.rsplit_once('.').map_or("", |(_, end)| end);
    IMAGES.iter().find(|(known, _)| known.eq_ignore_ascii_case(end)).map_or(UNKNOWN, |(_, mime)| mime)
}

fn size(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{} KB", (bytes + 500) / 1_000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, mime: &str) -> (String, String) {
        let file = File::of_base64(name, mime, "AAAA").unwrap().named(3);
        (file.name, file.mime)
    }

    #[test]
    fn a_name_is_one_that_a_phone_can_store_a_file_by() {
        for (given, kept) in [
            ("a.png", "a.png"),
            ("/etc/passwd", "etcpasswd"),
            ("..\\a\u{1b}\n", "..a"),
            ("", "file-3"),
            ("/", "file-3"),
            (&format!("a{}", "x".repeat(NAME_MAX)), &"x".repeat(NAME_MAX)),
        ] {
            assert_eq!(named(given, "").0, kept);
        }
        assert_eq!(named("", "image/jpeg").0, "image-3.jpg");
    }

    #[test]
    fn a_media_type_that_is_not_given_follows_from_the_name() {
        for (name, mime) in [("a.PNG", "image/png"), ("a.jpeg", "image/jpeg"), ("png", UNKNOWN), ("a.html", UNKNOWN)] {
            assert_eq!(named(name, "").1, mime);
        }
        assert_eq!(named("a.png", &"x".repeat(101)).1, "x".repeat(MIME_MAX));
    }

    #[test]
    fn data_is_base64_with_its_padding_or_without() {
        for (data, length) in [("", 0), ("AAAA", 3), (" AA==\n", 1), ("AA", 1)] {
            assert_eq!(File::of_base64("", "", data).unwrap().data.len(), length, "{data:?}");
        }
        for data in ["A", "AA-_", "\u{e4}", "AAAA AAAA"] {
            assert_eq!(File::of_base64("", "", data), None, "{data:?}");
        }
    }

    #[test]
    fn what_is_not_sent_is_told_with_its_size() {
        let file = |bytes| File { name: "a".to_owned(), mime: String::new(), data: vec![0; bytes] };
        assert_eq!(file(7).words("why"), "\n\n[File a, 7 bytes: why.]\n\n");
        assert_eq!((size(1_499), size(2_621_441)), ("1 KB".to_owned(), "2.6 MB".to_owned()));
        assert!(!file(BYTES_MAX).is_too_large() && file(BYTES_MAX + 1).is_too_large());
    }
}
