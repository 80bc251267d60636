//! The questions to the person that are open, and what came of the newest ones (PROTOCOL.md, Questions to the person): each
//! is decided once, by an answer, by time, or because nobody asks any more.

use super::asking::{Ask, Decided, Decision};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coralmux_client::{Client, Keep, To, random, unix_ms};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Questions that are open at once.
const OPEN_MAX: usize = 16;
/// Questions that are over whose outcomes are remembered.
const OVER_MAX: usize = 64;

/// See the module.
pub(super) struct Asks {
    client: Client,
    /// How long a question waits.
    timeout: Duration,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Oldest first; at most [`OPEN_MAX`].
    open: Vec<Open>,
    /// What `chat.answered` said of each, by its name; at most [`OVER_MAX`].
    over: VecDeque<(String, Map<String, Value>)>,
}

struct Open {
    name: String,
    chat: String,
    ask: Ask,
    /// `chat_id` and `ref`, as in the other messages of the answer.
    fields: Map<String, Value>,
    expires: Instant,
    expires_at_ms: u64,
    way: Way,
    decided: Decided,
}

/// How a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By `chat.ask`.
    Message,
    /// As text of the answer.
    Plain,
}

/// How a question is over.
enum Over<'a> {
    Answered(&'a Decision),
    Expired,
    Cancelled(&'a str),
}

impl Asks {
    /// None is open.
    pub(super) fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics while it holds the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, at `now`; in plain text whoever calls does. Gives the question's name; it is empty where nothing is asked
    /// and `decided` has heard that already.
    pub(super) fn open(
        &self,
        now: Instant,
        ask: Ask,
        chat: &str,
        fields: &Map<String, Value>,
        way: Way,
        decided: Decided,
    ) -> String {
        let Some(ask) = ask.bounded() else {
            decided(Decision::Nothing);
            return String::new();
        };
        let mut inner = self.inner();
        if inner.open.len() >= OPEN_MAX {
            drop(inner);
            decided(by_default(&ask));
            return String::new();
        }
        let mut bytes = [0; 12];
        random(&mut bytes);
        let name = URL_SAFE_NO_PAD.encode(bytes);
        let expires_at_ms = unix_ms().saturating_add(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX));
        let (chat, fields, expires) = (chat.to_owned(), fields.clone(), now + self.timeout);
        let open = Open { name: name.clone(), chat, ask, fields, expires, expires_at_ms, way, decided };
        self.send(&open, To::All);
        inner.open.push(open);
        name
    }

    fn send(&self, open: &Open, to: To) {
        if open.way == Way::Plain {
            return;
        }
        let mut payload = open.fields.clone();
        payload.extend(open.ask.fields());
        payload.insert("ask".to_owned(), json!(open.name));
        payload.insert("expires_at".to_owned(), json!(open.expires_at_ms));
        // The client has ended, or nothing could be sent for long: the question expires.
        let _ = self.client.send_kept(to, "chat.ask", &payload, Keep::Wake);
    }

    /// Asks again what is open: the phone may be another page than the one that was asked. Devices have had it, or get it
    /// when they come.
    pub(super) fn send_again(&self) {
        self.inner().open.iter().for_each(|open| self.send(open, To::Only(None)));
    }

    /// Takes a `chat.answer`.
    ///
    /// # Errors
    /// It fits no option, in words; the question stays open.
    pub(super) fn handle_answer(&self, payload: &Value) -> Result<(), &'static str> {
        let Some(name) = payload["ask"].as_str() else { return Err("the answer does not say what it answers") };
        let mut inner = self.inner();
        let Some(at) = inner.open.iter().position(|open| open.name == name && open.way == Way::Message) else {
            let over = inner.over.iter().find(|(over, _)| over == name).map(|(_, said)| said.clone());
            drop(inner);
            self.say(over.unwrap_or_else(|| unknown(name, payload)));
            return Ok(());
        };
        let decision = inner.open[at].ask.read(payload)?;
        let open = inner.open.remove(at);
        self.end(inner, open, &Over::Answered(&decision));
        Ok(())
    }

    /// The oldest question of this conversation that is asked in plain text, if it is this text that answers it, or with
    /// it as it is asked. `None`: there is none.
    pub(super) fn handle_text(&self, chat: &str, text: &str) -> Option<Result<(), String>> {
        let mut inner = self.inner();
        let at = inner.open.iter().position(|open| open.chat == chat && open.way == Way::Plain)?;
        let Some(decision) = inner.open[at].ask.read_plain(text) else { return Some(Err(plain(&inner.open[at]))) };
        let open = inner.open.remove(at);
        self.end(inner, open, &Over::Answered(&decision));
        Some(Ok(()))
    }

    /// The oldest question of this conversation that is asked in plain text, as text.
    pub(super) fn plain_text(&self, chat: &str) -> Option<String> {
        self.inner().open.iter().find(|open| open.chat == chat && open.way == Way::Plain).map(plain)
    }

    /// Ends what has waited long enough. Gives the conversations in which a question in plain text is over.
    pub(super) fn poll(&self, now: Instant) -> Vec<String> {
        let mut chats = Vec::new();
        loop {
            let mut inner = self.inner();
            let Some(at) = inner.open.iter().position(|open| open.expires <= now) else { return chats };
            let open = inner.open.remove(at);
            if open.way == Way::Plain {
                chats.push(open.chat.clone());
            }
            self.end(inner, open, &Over::Expired);
        }
    }

    /// Nobody asks this any more. Whether it was asked in plain text.
    pub(super) fn withdraw(&self, name: &str) -> bool {
        let mut inner = self.inner();
        let Some(at) = inner.open.iter().position(|open| open.name == name) else { return false };
        let open = inner.open.remove(at);
        let is_plain = open.way == Way::Plain;
        self.end(inner, open, &Over::Cancelled("The agent does not ask this any more"));
        is_plain
    }

    /// The answer that these questions belonged to has ended.
    pub(super) fn withdraw_all(&self, chat: &str) {
        loop {
            let mut inner = self.inner();
            let Some(at) = inner.open.iter().position(|open| open.chat == chat) else { return };
            let open = inner.open.remove(at);
            self.end(inner, open, &Over::Cancelled("The answer that needed this has ended"));
        }
    }

    fn end(&self, mut inner: MutexGuard<'_, Inner>, open: Open, over: &Over<'_>) {
        let mut said = open.fields;
        let (outcome, decision) = match over {
            Over::Answered(decision) => ("answered", (*decision).clone()),
            Over::Expired => ("expired", by_default(&open.ask)),
            Over::Cancelled(notice) => {
                said.insert("notice".to_owned(), json!(notice));
                ("cancelled", Decision::Nothing)
            }
        };
        said.insert("ask".to_owned(), json!(open.name));
        said.insert("outcome".to_owned(), json!(outcome));
        match &decision {
            Decision::Chosen(id) => said.insert("option".to_owned(), json!(id)),
            Decision::Said(text) => said.insert("text".to_owned(), json!(text)),
            Decision::Nothing => None,
        };
        if open.way == Way::Message {
            inner.over.push_back((open.name, said.clone()));
            if inner.over.len() > OVER_MAX {
                inner.over.pop_front();
            }
        }
        drop(inner);
        (open.decided)(decision);
        if open.way == Way::Message {
            self.say(said);
        }
    }

    fn say(&self, said: Map<String, Value>) {
        // The client has ended, or nothing could be sent for long: there is nobody to tell.
        let _ = self.client.send("chat.answered", &said);
    }
}

fn plain(open: &Open) -> String {
    open.ask.plain(open.expires.saturating_duration_since(Instant::now()))
}

fn by_default(ask: &Ask) -> Decision {
    ask.default.clone().map_or(Decision::Nothing, Decision::Chosen)
}

/// What is said of a question that is not known.
fn unknown(name: &str, payload: &Value) -> Map<String, Value> {
    let name: String = name.chars().take(64).collect();
    let mut said = Map::new();
    said.insert("ask".to_owned(), json!(name));
    said.insert("outcome".to_owned(), json!("unknown"));
    said.insert(
        "notice".to_owned(),
        json!("The agent does not know this question any more; it may have been restarted"),
    );
    if let Some(chat) = payload["chat_id"].as_str().filter(|chat| chat.len() <= super::chats::CHAT_BYTES_MAX) {
        said.insert("chat_id".to_owned(), json!(chat));
    }
    if let Some(agent) = payload["agent"].as_str().filter(|agent| super::agents::is_id(agent)) {
        said.insert("agent".to_owned(), json!(agent));
    }
    said
}
