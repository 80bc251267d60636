//! The pairing link: for apps, and for the browser.

use super::PairingSecret;
use super::v3::AgentPrint;
use coralmux_proto::percent;
use std::borrow::Cow;
use std::fmt::Write;

/// The longest link that is read, in bytes.
const LINK_BYTES_MAX: usize = 4096;

/// What a phone needs to reach its agent. `Debug` masks the secret, and shows the token: it is not for logs either.
#[derive(Clone, Debug)]
pub struct Link {
    /// The pairing token: ASCII letters, digits, `_` and `-`.
    pub token: String,
    /// The relay's address: `ws://` or `wss://`, and for the browser's link the path `/ws`.
    pub relay: String,
    /// Version 2's secret, or what admits one device; without it version 1.
    pub secret: Option<PairingSecret>,
    /// Version 3: the agent's key. A phone that knows devices enrols as one, with this agent and no other.
    pub agent: Option<AgentPrint>,
}

/// A text that is not a pairing link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Neither `openclaw://pair?...` nor `https://.../#token=...`.
    #[error("not a pairing link: it begins neither with openclaw://pair? nor with http")]
    Form,
    /// Too long to be one.
    #[error("a pairing link has at most {LINK_BYTES_MAX} bytes")]
    TooLong,
    /// A percent sign without two hex digits, or text that is not UTF-8.
    #[error("the pairing link has a broken percent escape")]
    Escape,
    /// There is none, or one with characters that no token has.
    #[error("the pairing link has no token")]
    Token,
    /// There is none, or one that is not `ws://` or `wss://`.
    #[error("the pairing link has no relay address that begins with ws:// or wss://")]
    Relay,
    /// There is one, and it is not 43 characters of base64url.
    #[error("the pairing link's secret is damaged: copy the whole link")]
    Secret,
    /// There is one, and it is not 22 characters of base64url; or there is one without a secret.
    #[error("what the pairing link says about its agent is damaged: copy the whole link")]
    Agent,
}

impl PartialEq for Link {
    fn eq(&self, other: &Self) -> bool {
        self.for_apps() == other.for_apps()
    }
}

impl Link {
    /// Reads either form of a link.
    ///
    /// # Errors
    /// It is not a link, or a part is missing or damaged. A damaged secret is never taken for none.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.len() > LINK_BYTES_MAX {
            return Err(LinkError::TooLong);
        }
        if let Some(query) = text.strip_prefix("openclaw://pair?") {
            return Self::of_fields(query, None);
        }
        let (page, fragment) = text.split_once('#').ok_or(LinkError::Form)?;
        let (scheme, rest) = page.split_once("://").ok_or(LinkError::Form)?;
        let scheme = match scheme {
            "https" => "wss",
            "http" => "ws",
            _ => return Err(LinkError::Form),
        };
        // The page asks for `ws` in its own folder: the relay may be behind a prefix.
        let address = rest.split('?').next().unwrap_or_default();
        let folder = address.rfind('/').map_or(address, |at| &address[..at]);
        Self::of_fields(fragment, Some(format!("{scheme}://{folder}/ws")))
    }

    fn of_fields(fields: &str, relay: Option<String>) -> Result<Self, LinkError> {
        let (mut token, mut relay, mut secret, mut agent) = (None, relay, None, None);
        for field in fields.split('&') {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            match name {
                "token" => token = Some(unescaped(value)?),
                "relay" => relay = Some(unescaped(value)?),
                "k" => secret = Some(PairingSecret::parse(value).ok_or(LinkError::Secret)?),
                "a" => agent = Some(AgentPrint::parse(value).ok_or(LinkError::Agent)?),
                _ => {} // from a later version
            }
        }
        let sound = |token: &String| {
            !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        let relay = relay.filter(|relay| host_of(relay).is_some()).ok_or(LinkError::Relay)?;
        if agent.is_some() && secret.is_none() {
            return Err(LinkError::Agent);
        }
        Ok(Self { token: token.filter(sound).ok_or(LinkError::Token)?, relay, secret, agent })
    }

    /// `openclaw://pair?token=...&relay=...&k=...`, for apps and QR codes.
    #[must_use]
    pub fn for_apps(&self) -> String {
        format!("openclaw://pair?token={}&relay={}{}", self.token, escaped(&self.relay), self.secret_fields())
    }

    /// `https://relay.example/#token=...&k=...`, for the page that the relay itself serves. `None` where the relay's
    /// address does not end with `/ws`: the page would look for it there.
    #[must_use]
    pub fn for_browsers(&self) -> Option<String> {
        let host = host_of(&self.relay)?;
        let (scheme, _) = self.relay.split_once("://")?;
        let page = if scheme == "wss" { "https" } else { "http" };
        let path = self.relay[scheme.len() + "://".len() + host.len()..].strip_suffix("/ws")?;
        let own = !path.contains(['?', '#']);
        own.then(|| format!("{page}://{host}{path}/#token={}{}", self.token, self.secret_fields()))
    }

    fn secret_fields(&self) -> String {
        let mut fields = self.secret.as_ref().map_or_else(String::new, |secret| format!("&k={}", *secret.expose()));
        if let Some(agent) = &self.agent {
            let _ = write!(fields, "&a={agent}"); // a String takes all
        }
        fields
    }
}

/// Host and port of a WebSocket address.
fn host_of(relay: &str) -> Option<&str> {
    let rest = relay.strip_prefix("wss://").or_else(|| relay.strip_prefix("ws://"))?;
    rest.split(['/', '?', '#']).next().filter(|host| !host.is_empty())
}

/// Percent-encoded but for RFC 3986's unreserved characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}"); // a String takes all
        }
    }
    escaped
}

fn unescaped(text: &str) -> Result<String, LinkError> {
    percent::decode(text).map(Cow::into_owned).ok_or(LinkError::Escape)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "oc_pair_0123456789abcdef0123456789abcdef";

    fn link(relay: &str, secret: bool) -> Link {
        let secret = secret.then(|| PairingSecret::from_bytes([0xfb; 32]));
        Link { token: TOKEN.into(), relay: relay.into(), secret, agent: None }
    }

    #[test]
    fn both_forms_read_back() {
        for relay in
            ["wss://relay.example/ws", "ws://127.0.0.1:8080/ws", "ws://[::1]:8080/ws", "wss://x.example/a/b/ws"]
        {
            for secret in [false, true] {
                let link = link(relay, secret);
                for text in [link.for_apps(), link.for_browsers().unwrap()] {
                    let read = Link::parse(&text).unwrap();
                    assert_eq!((&read.token, &read.relay), (&link.token, &link.relay), "{text}");
                    assert_eq!(read.secret.map(|secret| *secret.as_bytes()), secret.then_some([0xfb; 32]), "{text}");
                }
            }
        }
    }

    #[test]
    fn the_forms_are_those_of_the_contract() {
        let link = link("wss://relay.example/ws", true);
        let key = "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s";
        let relay = "wss%3A%2F%2Frelay.example%2Fws";
        assert_eq!(link.for_apps(), format!("openclaw://pair?token={TOKEN}&relay={relay}&k={key}"));
        assert_eq!(link.for_browsers().unwrap(), format!("https://relay.example/#token={TOKEN}&k={key}"));
        let other = |relay: &str| Link { relay: relay.into(), ..link.clone() }.for_browsers();
        assert!(other("wss://relay.example/a/ws").unwrap().starts_with("https://relay.example/a/#token="));
        for relay in
            ["wss://relay.example/other", "wss://relay.example/?/ws", "wss://relay.example/#/ws", "wss://relay.example"]
        {
            assert_eq!(other(relay), None, "{relay}");
        }
        for page in [
            "https://relay.example",
            "https://relay.example/",
            "https://relay.example/index.html",
            "https://relay.example/?x=/y",
        ] {
            assert_eq!(
                Link::parse(&format!("{page}#token={TOKEN}")).unwrap().relay,
                "wss://relay.example/ws",
                "{page}"
            );
        }
    }

    #[test]
    fn what_existing_apps_read_is_read_unescaped_too() {
        let read = Link::parse(&format!("openclaw://pair?token={TOKEN}&relay=ws://10.0.0.2:8080/ws&new=1\n")).unwrap();
        assert_eq!(read.relay, "ws://10.0.0.2:8080/ws");
        assert!(read.secret.is_none());
    }

    #[test]
    fn what_is_missing_or_damaged_is_named() {
        let cases = [
            (String::new(), LinkError::Form),
            ("ftp://relay.example/#token=a".into(), LinkError::Form),
            ("https://relay.example/".into(), LinkError::Form),
            ("https:///#token=a".into(), LinkError::Relay),
            (format!("openclaw://pair?token={TOKEN}"), LinkError::Relay),
            (format!("openclaw://pair?token={TOKEN}&relay=https%3A%2F%2Fx%2Fws"), LinkError::Relay),
            ("openclaw://pair?relay=ws://x/ws".into(), LinkError::Token),
            ("openclaw://pair?token=a%20b&relay=ws://x/ws".into(), LinkError::Token),
            ("openclaw://pair?token=%4&relay=ws://x/ws".into(), LinkError::Escape),
            ("openclaw://pair?token=%ff&relay=ws://x/ws".into(), LinkError::Escape),
            ("openclaw://pair?token=a&relay=ws://x/ws&k=short".into(), LinkError::Secret),
            ("openclaw://pair?token=a&relay=ws://x/ws&k=".into(), LinkError::Secret),
            (format!("openclaw://pair?token=a&relay=ws://x/ws&k={}&a=short", "A".repeat(43)), LinkError::Agent),
            (format!("openclaw://pair?token=a&relay=ws://x/ws&k={}&a=", "A".repeat(43)), LinkError::Agent),
            (format!("openclaw://pair?token=a&relay=ws://x/ws&a={}", "A".repeat(22)), LinkError::Agent),
            ("a".repeat(LINK_BYTES_MAX + 1), LinkError::TooLong),
        ];
        for (text, error) in cases {
            assert_eq!(Link::parse(&text).err(), Some(error), "{text}");
        }
    }
}
