//! Clients of the mailbox: agents with one device each, what they say to the relay, and what waits for the devices.

pub(crate) mod beside;
pub(crate) mod come_back;
mod errand;

pub(crate) use errand::{Errand, run as run_errand};

use super::Relay;
use crate::generator::envelope::{Role, keyed_auth_frame};
use crate::generator::{Id, Net};
use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

/// A token that is bound to an agent, which has one device: what the two show the relay.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    token: String,
    agent_key: String,
    device_key: String,
    /// As the relay and the agent name the device.
    device: String,
    invite: String,
    invite_hash: String,
}

impl Home {
    /// New keys for a token.
    pub(crate) fn new(token: &str) -> Result<Self> {
        let mut random = [0; 80];
        getrandom::fill(&mut random).context("no randomness")?;
        let (agent_key, rest) = random.split_at(32);
        let (device_key, invite) = rest.split_at(32);
        let id = Sha256::digest(device_key);
        Ok(Self {
            token: token.to_owned(),
            agent_key: BASE64_URL_SAFE_NO_PAD.encode(agent_key),
            device_key: BASE64_URL_SAFE_NO_PAD.encode(device_key),
            device: id[..8].iter().map(|byte| format!("{byte:02x}")).collect(),
            invite: BASE64_URL_SAFE_NO_PAD.encode(invite),
            invite_hash: BASE64_STANDARD.encode(Sha256::digest(invite)),
        })
    }

    /// One for each of the relay's tokens.
    pub(crate) fn each(relay: &Relay) -> Result<Vec<Self>> {
        relay.tokens.iter().map(|token| Self::new(token)).collect()
    }

    /// Its device and its agent, side by side, the device first.
    fn add_to(&self, net: &mut Net) -> Id {
        let device = keyed_auth_frame(&self.token, Role::Phone, &self.device_key, Some(&self.invite));
        let agent = keyed_auth_frame(&self.token, Role::Agent, &self.agent_key, None);
        let id = net.add_with(device);
        net.add_with(agent);
        id
    }

    /// A message of the agent to the device that is to be kept, of exactly `bytes` bytes where that is enough for it.
    fn letter(&self, number: u64, bytes: usize) -> Vec<u8> {
        let with = |text: &str| {
            format!(
                r#"{{"v":1,"type":"chat.done","id":"{number}","ts":1707451200000,"device":"{}","keep":"quiet","payload":{{"full_text":"{text}"}}}}"#,
                self.device
            )
        };
        let missing = bytes.saturating_sub(with("").len());
        with(&"x".repeat(missing)).into_bytes()
    }
}

/// A message to the relay.
fn order(kind: &str, id: &str, payload: &str) -> Vec<u8> {
    format!(r#"{{"v":1,"type":"{kind}","id":"{id}","ts":1707451200000,"payload":{payload}}}"#).into_bytes()
}

/// A page of the mailbox ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PageEnd {
    upto: u64,
    left: u64,
}

impl PageEnd {
    /// Of a `relay.mail` whose beginning is `head`.
    fn read(head: &[u8]) -> Option<Self> {
        Some(Self { upto: number_at(head, "\"upto\":")?, left: number_at(head, "\"left\":")? })
    }

    fn confirmation(self) -> Vec<u8> {
        order("relay.mail.ack", "k", &format!(r#"{{"upto":{}}}"#, self.upto))
    }
}

/// The number behind a key.
fn number_at(head: &[u8], key: &str) -> Option<u64> {
    let text = String::from_utf8_lossy(head);
    let digits = text.split_once(key)?.1.trim_start_matches('"');
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_the_size_asked_for_and_a_number_that_is_found_again() {
        let home = Home::new("token").unwrap();
        let letter = home.letter(17, 400);
        assert_eq!(letter.len(), 400);
        let json: serde_json::Value = serde_json::from_slice(&letter).unwrap();
        assert_eq!((&json["device"], &json["keep"]), (&home.device.clone().into(), &"quiet".into()));
        assert_eq!(number_at(&letter[..100], "\"id\":"), Some(17));
    }

    #[test]
    fn the_end_of_a_page_is_read() {
        let text = br#"{"type":"relay.mail","id":"r","payload":{"upto":4711,"left":5,"lost":0}}"#;
        assert_eq!(PageEnd::read(text), Some(PageEnd { upto: 4711, left: 5 }));
        assert_eq!(PageEnd::read(b"{}"), None);
    }
}
