//! The answers in progress: one for each conversation, several at once, cancelled by the next question.

use super::answer::{Answer, Desk, Shared, lock};
use super::asks::Asks;
use super::backend::{Backend, Image, Question};
use super::cancel::Cancel;
use super::history::{Speaker, Turn};
use super::printable::warn;
use coralmux_client::{Client, MESSAGE_BYTES_MAX, unix_ms};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Backends at work at once, those that have not noticed yet that they were cancelled among them.
pub(super) const ANSWERS_MAX: usize = 16;

/// The longest name of a conversation, in bytes.
pub(super) const CHAT_BYTES_MAX: usize = 256;
/// Turns in `chat.history.result`, in bytes of their JSON: sealed, a third is added, and it has to be one message.
const HISTORY_BYTES_MAX: usize = 3 << 20;
const _: () = assert!(HISTORY_BYTES_MAX / 3 * 4 + (64 << 10) < MESSAGE_BYTES_MAX);

/// A question as it came.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// The message's id: the answer's messages repeat it as `ref`.
    pub(super) id: String,
    /// Its `chat_id`, if it had one.
    pub(super) chat: Option<String>,
    /// Its text.
    pub(super) text: String,
    /// Its images.
    pub(super) images: Vec<Image>,
    /// The phone shows questions (`chat.ask`).
    pub(super) shows_questions: bool,
}

/// See the module.
pub(super) struct Chats {
    shared: Arc<Shared>,
    backend: Arc<dyn Backend>,
    /// Turns that the backend is told.
    context_turns: usize,
    running: HashMap<String, Running>,
    /// Threads of backends.
    threads: Arc<AtomicUsize>,
}

/// An answer in progress, for whoever cancels it.
struct Running {
    answer: Answer,
    cancel: Cancel,
}

impl Chats {
    /// No answer is in progress. `ask_timeout`: how long a question to the person waits.
    pub(super) fn new(client: Client, backend: Arc<dyn Backend>, context_turns: usize, ask_timeout: Duration) -> Self {
        let asks = Asks::new(client.clone(), ask_timeout);
        let shared = Arc::new(Shared::new(client, asks));
        Self { shared, backend, context_turns, running: HashMap::new(), threads: Arc::default() }
    }

    /// Starts an answer; one that is in progress in the same conversation ends where it is, unless it has asked the person
    /// in plain text: then this is what the person says to that.
    pub(super) fn ask(&mut self, asked: Asked) {
        let chat = asked.chat.clone().unwrap_or_default();
        if self.running.get(&chat).is_some_and(|running| running.answer.is_asking()) && self.decide(&chat, &asked) {
            return;
        }
        self.cancel(&chat);
        self.running.retain(|_, running| !running.answer.has_ended());
        if chat.len() > CHAT_BYTES_MAX {
            return self.refuse(&asked, "the chat_id is too long");
        }
        if self.threads.load(Ordering::Relaxed) >= ANSWERS_MAX {
            return self.refuse(&asked, "the agent answers too many questions at once: try again in a while");
        }
        let fields = fields(&asked);
        let turn = Turn::new(Speaker::User, asked.text, asked.images, unix_ms());
        let turns = {
            let mut history = lock(&self.shared.history);
            history.push(&chat, turn);
            history.context(&chat, self.context_turns)
        };
        let answer = Answer::new(&self.shared, &chat, fields.clone(), asked.shows_questions);
        let cancel = Cancel::default();
        let work = Work {
            backend: Arc::clone(&self.backend),
            question: Question { chat: chat.clone(), turns },
            answer: answer.clone(),
            cancel: cancel.clone(),
            _count: Count::one_more(&self.threads),
        };
        match thread::Builder::new().name("answer".to_owned()).spawn(move || work.run()) {
            Ok(_) => {
                self.running.insert(chat, Running { answer, cancel });
            }
            Err(error) => {
                lock(&self.shared.history).forget_question(&chat);
                let message = format!("the agent has no thread for the answer: {error}");
                self.shared.send_error(fields, &message, None);
            }
        }
    }

    /// What the person says to a question that was asked in plain text. Whether there is one.
    fn decide(&self, chat: &str, asked: &Asked) -> bool {
        // An image is no answer to it.
        let text = if asked.images.is_empty() { asked.text.as_str() } else { "" };
        let Some(decided) = self.shared.asks.handle_text(chat, text) else { return false };
        let turn = Turn::new(Speaker::User, asked.text.clone(), Vec::new(), unix_ms());
        lock(&self.shared.history).push(chat, turn);
        match (decided, self.running.get(chat)) {
            (Ok(()), Some(running)) => running.answer.go_on(Some(fields(asked))),
            (Ok(()), None) => {}
            (Err(question), _) => {
                let answer = Answer::new(&self.shared, chat, fields(asked), asked.shows_questions);
                answer.end_with(&question);
            }
        }
        true
    }

    /// Takes a `chat.answer` to a question to the person.
    pub(super) fn handle_answer(&self, id: &str, payload: &Value) {
        if let Err(fault) = self.shared.asks.handle_answer(payload) {
            let asked = Asked { id: id.to_owned(), ..Asked::default() };
            self.refuse(&asked, fault);
        }
    }

    /// Asks again what the person was asked and has not answered.
    pub(super) fn ask_again(&self) {
        self.shared.asks.send_again();
    }

    /// Ends questions to the person that have waited long enough.
    pub(super) fn poll(&self, now: Instant) {
        for chat in self.shared.asks.poll(now) {
            if let Some(running) = self.running.get(&chat) {
                running.answer.go_on(None);
            }
        }
    }

    /// Ends the answer of this conversation where it is, if one is in progress.
    pub(super) fn cancel(&mut self, chat: &str) {
        let Some(running) = self.running.remove(chat) else { return };
        running.cancel.cancel();
        running.answer.cancel();
    }

    /// The relay lets no message of this size through. If it ended an answer, the phone still waits for an end.
    pub(super) fn handle_too_large(&self, id: &str) {
        self.shared.handle_too_large(id);
    }

    /// Ends all answers where they are.
    pub(super) fn cancel_all(&mut self) {
        for chat in self.running.keys().cloned().collect::<Vec<_>>() {
            self.cancel(&chat);
        }
    }

    /// How many answers are in progress.
    #[must_use]
    pub(super) fn running(&self) -> usize {
        self.running.values().filter(|running| !running.answer.has_ended()).count()
    }

    /// The last turns of a conversation, as `chat.history.result` has them, and whether there are older ones.
    #[must_use]
    pub(super) fn history(&self, chat: &str, limit: usize) -> (Value, bool) {
        lock(&self.shared.history).to_json(chat, limit, HISTORY_BYTES_MAX)
    }

    /// Tells the phone that its question is not answered.
    pub(super) fn refuse(&self, asked: &Asked, message: &str) {
        self.shared.send_error(fields(asked), message, None);
    }
}

/// What each message has beside the text of an answer.
fn fields(asked: &Asked) -> Map<String, Value> {
    let mut fields = Map::new();
    if let Some(chat) = &asked.chat {
        fields.insert("chat_id".to_owned(), json!(chat));
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
