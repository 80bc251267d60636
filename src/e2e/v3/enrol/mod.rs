//! How a device becomes one: three messages with the secret of a link, and a code of six digits for people to compare.

mod agent;
mod device;

pub use agent::{Enrolments, Joined};
pub use device::{Enrolled, Enrolment};

use super::NAME_CHARS_MAX;
use super::error::EnrolError;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What the third message says.
#[derive(Serialize, Deserialize)]
struct About {
    r: String,
    name: String,
    platform: String,
}

impl About {
    fn new(r: &[u8; 32], name: &str, platform: &str) -> Self {
        Self { r: URL_SAFE_NO_PAD.encode(r), name: name.to_owned(), platform: platform.to_owned() }
    }

    fn write(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec(self).expect("a struct of strings is JSON"))
    }

    fn parse(payload: &[u8]) -> Result<Self, EnrolError> {
        let object = payload.trim_ascii_start().starts_with(b"{"); // serde would take an array for a struct, too
        object.then(|| serde_json::from_slice(payload).ok()).flatten().ok_or(EnrolError::Malformed)
    }

    fn r(&self) -> Option<[u8; 32]> {
        URL_SAFE_NO_PAD.decode(&self.r).ok()?.try_into().ok()
    }

    /// Both are shown beside the code, in a terminal, too.
    fn is_shown(&self) -> bool {
        [&self.name, &self.platform].into_iter().all(|text| cleaned(text) == **text)
    }
}

/// A name as a device may have it: without control and bidirectional characters, cut to [`NAME_CHARS_MAX`].
#[must_use]
pub fn cleaned(name: &str) -> String {
    name.chars().filter(|c| is_shown(*c)).take(NAME_CHARS_MAX).collect()
}

fn is_shown(c: char) -> bool {
    let bidirectional =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !(c.is_control() || bidirectional || matches!(c, '\u{2028}' | '\u{2029}'))
}
