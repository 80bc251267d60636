//! The first message: it has to admit its connection, here or on the shard that owns its token.

use super::handover::Destination;
use super::newcomer::Stage;
use crate::proto::device::{Credential, InviteHash, KeyHash};
use crate::proto::owner::owner;
use crate::proto::token::{Role, TokenHash};
use crate::ring::{Conn, Net};
use crate::session::message::RelayMessage;
use crate::shard::Shard;
use crate::shard::bounds::JOIN_DELAY;
use crate::shard::close::CloseReason;
use crate::shard::net::connection::{Entry, Phase};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::Duration;

/// The first message (wire contract: `auth`).
#[derive(Deserialize)]
struct AuthMessage<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    payload: Option<AuthPayload<'a>>,
}

#[derive(Deserialize)]
struct AuthPayload<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow)]
    role: Cow<'a, str>,
    /// The extension, by its version; any JSON may stand there.
    #[serde(borrow, default)]
    ext: Option<&'a RawValue>,
    /// What is read with the extension alone; else any JSON may stand there, too.
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    invite: Option<&'a RawValue>,
}

/// What a first message claims to be, and shows for it.
#[derive(Clone, Copy)]
pub(in crate::shard) struct Claim {
    pub(in crate::shard) hash: TokenHash,
    pub(in crate::shard) role: Role,
    /// It has asked for the extension.
    pub(in crate::shard) ext: bool,
    /// Its key, with the extension alone.
    pub(in crate::shard) shown: Option<Credential>,
}

/// The extension's key and invite.
fn read_credential(role: Role, payload: &AuthPayload<'_>) -> Result<Option<Credential>, &'static str> {
    let Some(key) = payload.key else { return Ok(None) };
    let key = bytes(key).ok_or("the key must be 32 bytes, as 43 characters of base64url")?;
    let invite = match payload.invite.filter(|_| role == Role::Phone) {
        None => None,
        Some(invite) => {
            let invite = bytes(invite).ok_or("the invite must be 16 bytes, as 22 characters of base64url")?;
            Some(InviteHash::of(&invite))
        }
    };
    Ok(Some(Credential { key: KeyHash::of(&key), invite }))
}

/// So many bytes in base64url without padding, from JSON.
fn bytes<const N: usize>(json: &RawValue) -> Option<[u8; N]> {
    let text: Cow<'_, str> = serde_json::from_str(json.get()).ok()?;
    URL_SAFE_NO_PAD.decode(text.as_bytes()).ok()?.try_into().ok()
}

impl<N: Net> Shard<N> {
    /// The first message: it has to admit, here or on the shard that owns its token.
    pub(in crate::shard) fn handle_first_message(&mut self, conn: Conn, message: &str) {
        let parsed: AuthMessage<'_> = match serde_json::from_str(message) {
            Ok(parsed) => parsed,
            Err(_) => return self.refuse_auth(conn, "the first message must be an auth message with token and role"),
        };
        if parsed.kind != "auth" {
            return self.refuse_auth(conn, "the first message must be of type auth");
        }
        let Some(payload) = parsed.payload else {
            return self.refuse_auth(conn, "the auth message has no payload");
        };
        let Some(role) = Role::parse(&payload.role) else {
            return self.refuse_auth(conn, "the role must be phone or agent");
        };
        if self.is_draining() {
            return self.close(conn, CloseReason::Restart);
        }
        let ext = payload.ext.is_some_and(|version| version.get() == "1");
        let shown = match ext.then(|| read_credential(role, &payload)).transpose() {
            Ok(shown) => shown.flatten(),
            Err(text) => return self.refuse_auth(conn, text),
        };
        let hash = TokenHash::of(&payload.token);
        let claim = Claim { hash, role, ext, shown };
        let owner = owner(hash.key(), self.queues.shards());
        if owner == self.id {
            if !self.sessions.knows(hash.key()) {
                // Control posts a new token here before it answers who asked for it, so it may be in the queue. What
                // comes through the queue itself, as hand-overs do, comes behind it anyway.
                self.run_commands();
                if self.net[conn].phase() != Phase::Auth {
                    // A command said that all connections are to end.
                    return;
                }
            }
            return self.admit(conn, claim);
        }
        let destination = Box::new(Destination::new(owner, claim));
        self.transition(conn, Entry::Stage(Stage::Moving(destination)));
    }

    /// Answers a first message that does not admit; addresses that fail often wait for it.
    pub(in crate::shard) fn refuse_auth(&mut self, conn: Conn, message: &'static str) {
        let Some(newcomer) = self.net[conn].newcomer() else { return };
        let (serial, address) = (newcomer.serial, newcomer.address);
        let delay = self.shared.addresses.delay_after_failure(address, self.pulse.unix_ms() / 1000);
        self.log.refused(serial, address, message, self.pulse.instant());
        if delay.is_zero() {
            return self.fail_auth(conn, message);
        }
        self.slow_refusal(conn, Some(message), delay);
    }

    /// The token has authenticated too often, or who could let it in is away: the connection is sent away, and not at once.
    pub(in crate::shard) fn put_off(&mut self, conn: Conn) {
        self.slow_refusal(conn, None, JOIN_DELAY);
    }

    fn slow_refusal(&mut self, conn: Conn, message: Option<&'static str>, delay: Duration) {
        self.transition(conn, Entry::Stage(Stage::Slowed(message)));
        let due = self.pulse.tick_after(delay);
        self.net[conn].due = due;
        self.pulse.arm(conn, due);
    }

    /// Sends the refusal that [`Shard::refuse_auth`] or [`Shard::put_off`] began.
    pub(in crate::shard) fn finish_refusal(&mut self, conn: Conn) {
        match self.net[conn].newcomer().and_then(|newcomer| newcomer.refusal()) {
            Some(message) => self.fail_auth(conn, message),
            None => self.close(conn, CloseReason::Busy),
        }
    }

    fn fail_auth(&mut self, conn: Conn, message: &'static str) {
        self.counters.auth_refused();
        self.tell(conn, RelayMessage::AuthFail { message });
        self.close(conn, CloseReason::Unauthorized);
        self.arm(conn);
    }
}
