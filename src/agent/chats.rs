//! The answers in progress: one for each conversation, several at once, cancelled by the next question.

use super::agents::{self, Agents};
use super::answer::{Answer, Desk, Hearers, Shared, Shows, lock};
use super::asks::Asks;
use super::backend::{Backend, Image, Question};
use super::cancel::Cancel;
use super::history::{History, Speaker, Turn};
use super::printable::warn;
use coralmux_client::{Client, DeviceId, Keep, Lane, MESSAGE_BYTES_MAX, To, unix_ms};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Backends at work at once, those that have not noticed yet that they were cancelled among them.
pub(super) const ANSWERS_MAX: usize = 16;

/// Questions that wait for one of these to end: after a long absence many come at once.
pub(super) const WAITING_MAX: usize = 64;

/// The longest name of a conversation, in bytes.
pub(super) const CHAT_BYTES_MAX: usize = 256;
/// Turns in `chat.history.result`, in bytes of their JSON: sealed, a third is added, and it has to be one message.
const HISTORY_BYTES_MAX: usize = 3 << 20;
/// The same for a device: what is on its way to one is below 192 KiB, so that it does not hold up the others.
const DEVICE_HISTORY_BYTES_MAX: usize = 128 << 10;
const _: () = assert!(HISTORY_BYTES_MAX / 3 * 4 + (64 << 10) < MESSAGE_BYTES_MAX);

/// A question as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// The message's id: the answer's messages repeat it as `ref`.
    pub(super) id: String,
    /// Its `chat_id`, if it had one.
    pub(super) chat: Option<String>,
    /// Which agent it is for, if it says so.
    pub(super) agent: Option<String>,
    /// Its text.
    pub(super) text: String,
    /// Its images.
    pub(super) images: Vec<Image>,
    /// What the phone shows.
    pub(super) shows: Shows,
    /// Who asks.
    pub(super) from: Lane,
    /// When, in Unix milliseconds by the sender's clock, if it says so.
    pub(super) sent_at_ms: Option<u64>,
}

impl Asked {
    /// Who hears the answer. A plain phone hears nothing of what devices ask: it takes the next answer for its own.
    fn answer_to(&self) -> Hearers {
        match self.from {
            Some(device) => Hearers { to: To::Devices { but: None }, keep: Keep::WakeFor(device) },
            None => Hearers { to: To::All, keep: Keep::Wake },
        }
    }
}

/// See the module.
pub(super) struct Chats {
    shared: Arc<Shared>,
    agents: Agents,
    /// By the conversations' places among those of all agents.
    running: HashMap<String, Running>,
    /// Oldest first, at most one a conversation.
    waiting: VecDeque<Asked>,
    /// Threads of backends.
    threads: Arc<AtomicUsize>,
}

/// An answer in progress, for whoever cancels it.
struct Running {
    answer: Answer,
    cancel: Cancel,
    /// Who asked.
    from: Lane,
}

impl Chats {
    /// No answer is in progress. `ask_timeout`: how long a question to the person waits.
    pub(super) fn new(client: Client, agents: Agents, ask_timeout: Duration, history: History) -> Self {
        let asks = Asks::new(client.clone(), ask_timeout);
        let shared = Arc::new(Shared::new(client, asks, history));
        Self { shared, agents, running: HashMap::new(), waiting: VecDeque::new(), threads: Arc::default() }
    }

    /// Starts an answer; one that is in progress in the same conversation ends where it is, unless it has asked the person
    /// in plain text: then this is what the person says to that.
    pub(super) fn ask(&mut self, asked: Asked) {
        let agents = self.agents.clone();
        let Some((agent, place)) = agents.find(asked.agent.as_deref(), asked.chat.as_deref()) else {
            return self.refuse(&asked, agents::UNKNOWN);
        };
        if self.running.get(&place).is_some_and(|running| running.answer.is_asking()) && self.decide(&place, &asked) {
            return;
        }
        self.cancel(&place);
        self.running.retain(|_, running| !running.answer.has_ended());
        let chat = asked.chat.clone().unwrap_or_default();
        if chat.len() > CHAT_BYTES_MAX {
            return self.refuse(&asked, "the chat_id is too long");
        }
        if self.is_busy() {
            if self.waiting.len() >= WAITING_MAX {
                return self.refuse(&asked, "the agent answers too many questions at once: try again in a while");
            }
            return self.waiting.push_back(asked);
        }
        let (fields, to, from) = (fields(&asked), asked.answer_to(), asked.from);
        self.show_turn(&asked);
        let turn = Turn::asked(asked.text, asked.images, unix_ms(), asked.sent_at_ms);
        let turns = {
            let mut history = lock(&self.shared.history);
            history.push(&place, turn);
            history.context(&place, agent.context_turns)
        };
        let answer = Answer::new(&self.shared, &place, to, fields.clone(), asked.shows);
        let cancel = Cancel::default();
        let work = Work {
            backend: Arc::clone(&agent.backend),
            question: Question { chat, turns },
            answer: answer.clone(),
            cancel: cancel.clone(),
            _count: Count::one_more(&self.threads),
        };
        match thread::Builder::new().name("answer".to_owned()).spawn(move || work.run()) {
            Ok(_) => {
                self.running.insert(place, Running { answer, cancel, from });
            }
            Err(error) => {
                lock(&self.shared.history).forget_question(&place);
                let message = format!("the agent has no thread for the answer: {error}");
                self.shared.send_error(to, fields, &message, None);
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.threads.load(Ordering::Relaxed) >= ANSWERS_MAX
    }

    /// What the person says to a question that was asked in plain text. Whether there is one.
    fn decide(&self, place: &str, asked: &Asked) -> bool {
        // An image is no answer to it.
        let text = if asked.images.is_empty() { asked.text.as_str() } else { "" };
        let Some(decided) = self.shared.asks.handle_text(place, text) else { return false };
        let turn = Turn::asked(asked.text.clone(), Vec::new(), unix_ms(), asked.sent_at_ms);
        lock(&self.shared.history).push(place, turn);
        self.show_turn(asked);
        match (decided, self.running.get(place)) {
            (Ok(()), Some(running)) => running.answer.go_on(Some((asked.answer_to(), fields(asked)))),
            (Ok(()), None) => {}
            (Err(question), _) => {
                let answer = Answer::new(&self.shared, place, asked.answer_to(), fields(asked), asked.shows);
                answer.end_with(&question);
            }
        }
        true
    }

    /// Takes a `chat.answer` to a question to the person.
    pub(super) fn handle_answer(&self, id: &str, from: Lane, payload: &Value) {
        if let Err(fault) = self.shared.asks.handle_answer(payload) {
            let asked = Asked { id: id.to_owned(), from, ..Asked::default() };
            self.refuse(&asked, fault);
        }
    }

    /// Asks again what the person was asked and has not answered.
    pub(super) fn ask_again(&self) {
        self.shared.asks.send_again();
    }

    /// Ends questions to the person that have waited long enough, and answers those of the person that now can be.
    pub(super) fn poll(&mut self, now: Instant) {
        while !self.is_busy()
            && let Some(asked) = self.waiting.pop_front()
        {
            self.ask(asked);
        }
        for place in self.shared.asks.poll(now) {
            if let Some(running) = self.running.get(&place) {
                running.answer.go_on(None);
            }
        }
    }

    /// Ends the answer of the conversation in this place where it is, if one is in progress.
    pub(super) fn cancel(&mut self, place: &str) {
        let of = |asked: &Asked| self.agents.find(asked.agent.as_deref(), asked.chat.as_deref());
        let is_of_it = |asked: &Asked| of(asked).is_some_and(|(_, other)| other == place);
        if let Some(asked) = self.waiting.iter().position(is_of_it).and_then(|at| self.waiting.remove(at)) {
            self.refuse(&asked, "the question was cancelled before it could be answered");
        }
        let Some(running) = self.running.remove(place) else { return };
        running.cancel.cancel();
        running.answer.cancel();
    }

    /// The relay lets no message of this size through. If it ended an answer, the phone still waits for an end.
    pub(super) fn handle_too_large(&self, id: &str) {
        self.shared.handle_too_large(id);
    }

    /// Shows the other devices what is asked on one, or on a plain phone.
    fn show_turn(&self, asked: &Asked) {
        let client = &self.shared.client;
        if client.devices().iter().all(|info| info.code.is_some() || Some(info.device) == asked.from) {
            return;
        }
        let mut turn = fields(asked);
        turn.insert("role".to_owned(), json!(Speaker::User.name()));
        turn.insert("text".to_owned(), json!(asked.text));
        if !asked.images.is_empty() {
            turn.insert("images".to_owned(), json!(asked.images.len()));
        }
        if let Some(from) = asked.from {
            turn.insert("from".to_owned(), json!(from.as_str()));
        }
        // The client has ended, or nothing could be sent for long: there is nobody to show it to.
        let _ = client.send_to(To::Devices { but: asked.from }, "chat.turn", &turn);
    }

    /// Ends the answers that run for a device.
    pub(super) fn cancel_of(&mut self, device: DeviceId) {
        let of_it = self.running.iter().filter(|(_, running)| running.from == Some(device));
        for place in of_it.map(|(place, _)| place.clone()).collect::<Vec<_>>() {
            self.cancel(&place);
        }
    }

    /// Ends all answers where they are.
    pub(super) fn cancel_all(&mut self) {
        for asked in std::mem::take(&mut self.waiting) {
            self.refuse(&asked, "the agent is stopping");
        }
        for place in self.running.keys().cloned().collect::<Vec<_>>() {
            self.cancel(&place);
        }
    }

    /// How many answers are in progress, or wait for their turn.
    #[must_use]
    pub(super) fn running(&self) -> usize {
        self.waiting.len() + self.running.values().filter(|running| !running.answer.has_ended()).count()
    }

    /// The last turns of a conversation, as `chat.history.result` has them, and whether there are older ones.
    #[must_use]
    pub(super) fn history(&self, place: &str, limit: usize, to: Lane) -> (Value, bool) {
        let bytes_max = if to.is_some() { DEVICE_HISTORY_BYTES_MAX } else { HISTORY_BYTES_MAX };
        lock(&self.shared.history).to_json(place, limit, bytes_max)
    }

    /// Looks at what was said.
    pub(super) fn with_history<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(&lock(&self.shared.history))
    }

    /// Tells the phone that its question is not answered.
    pub(super) fn refuse(&self, asked: &Asked, message: &str) {
        let to = Hearers { to: To::Only(asked.from), ..asked.answer_to() };
        self.shared.send_error(to, fields(asked), message, None);
    }
}

/// What each message has beside the text of an answer.
fn fields(asked: &Asked) -> Map<String, Value> {
    let mut fields = Map::new();
    if let Some(chat) = &asked.chat {
        fields.insert("chat_id".to_owned(), json!(chat));
    }
    if let Some(agent) = &asked.agent {
        fields.insert("agent".to_owned(), json!(agent));
    }
    if !asked.id.is_empty() {
        fields.insert("ref".to_owned(), json!(asked.id));
    }
    fields
}

/// Counts a thread, until it is dropped.
struct Count(Arc<AtomicUsize>);

impl Count {
    fn one_more(threads: &Arc<AtomicUsize>) -> Self {
        threads.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(threads))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the thread of an answer has.
struct Work {
    backend: Arc<dyn Backend>,
    question: Question,
    answer: Answer,
    cancel: Cancel,
    _count: Count,
}

impl Work {
    fn run(self) {
        let mut desk = Desk::new(self.answer.clone());
        let result = self.backend.answer(&self.question, &mut desk, &self.cancel);
        if let Some(failure) = self.answer.finish(result) {
            warn(&format!("No answer: {failure}"));
        }
    }
}
