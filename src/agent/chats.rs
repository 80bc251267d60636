//! The answers in progress: one for each conversation, several at once, cancelled by the next question.

use super::backend::{Backend, BackendError, Ending, Image, Outcome, Output, Question};
use super::cancel::Cancel;
use super::history::{History, Speaker, Turn};
use super::printable::warn;
use coralmux_client::{ANSWER_BYTES_MAX, Client, MESSAGE_BYTES_MAX, SendError, Stream, unix_ms};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Backends at work at once, those that have not noticed yet that they were cancelled among them.
pub(super) const ANSWERS_MAX: usize = 16;

/// Answers that have ended, and that the relay may still refuse.
const ENDED_MAX: usize = 64;

/// Between two messages that say that the model thinks: they count against the agent's rate.
const THINKING_INTERVAL: Duration = Duration::from_secs(30);

/// The longest name of a conversation, in bytes.
pub(super) const CHAT_BYTES_MAX: usize = 256;
/// Turns in `chat.history.result`, in bytes of their JSON: sealed, a third is added, and it has to be one message.
const HISTORY_BYTES_MAX: usize = 3 << 20;
const _: () = assert!(HISTORY_BYTES_MAX / 3 * 4 + (64 << 10) < MESSAGE_BYTES_MAX);

/// A question as it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The message's id: the answer's messages repeat it as `ref`.
    pub(super) id: String,
    /// Its `chat_id`, if it had one.
    pub(super) chat: Option<String>,
    /// Its text.
    pub(super) text: String,
    /// Its images.
    pub(super) images: Vec<Image>,
}

/// See the module.
pub(super) struct Chats {
    client: Client,
    backend: Arc<dyn Backend>,
    /// Turns that the backend is told.
    context_turns: usize,
    history: Arc<Mutex<History>>,
    running: HashMap<String, Running>,
    ended: Arc<Mutex<Ended>>,
    /// Threads of backends.
    threads: Arc<AtomicUsize>,
}

/// The newest `chat.done` messages: the id of each, and what each message of its answer has. At most [`ENDED_MAX`].
type Ended = VecDeque<(String, Map<String, Value>)>;

/// An answer in progress, for whoever cancels it.
struct Running {
    answer: Answer,
    cancel: Cancel,
}

/// The answer's way to the phone; gone when the answer has ended, by whomever.
#[derive(Clone)]
struct Answer {
    stream: Arc<Mutex<Option<Stream>>>,
    client: Client,
    /// What each of its messages has.
    fields: Map<String, Value>,
    /// When the phone was last told that the model thinks.
    thinking: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one of these locks panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Chats {
    /// No answer is in progress.
    pub(super) fn new(client: Client, backend: Arc<dyn Backend>, context_turns: usize) -> Self {
        Self {
            client,
            backend,
            context_turns,
            history: Arc::default(),
            running: HashMap::new(),
            ended: Arc::default(),
            threads: Arc::default(),
        }
    }

    /// Starts an answer; one that is in progress in the same conversation ends where it is.
    pub(super) fn ask(&mut self, asked: Asked) {
        let chat = asked.chat.clone().unwrap_or_default();
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
            let mut history = lock(&self.history);
            history.push(&chat, turn);
            history.context(&chat, self.context_turns)
        };
        let answer = Answer::new(&self.client, &fields);
        let cancel = Cancel::default();
        let work = Work {
            client: self.client.clone(),
            backend: Arc::clone(&self.backend),
            history: Arc::clone(&self.history),
            question: Question { chat: chat.clone(), turns },
            fields: fields.clone(),
            answer: answer.clone(),
            ended: Arc::clone(&self.ended),
            cancel: cancel.clone(),
            _count: Count::one_more(&self.threads),
        };
        match thread::Builder::new().name("answer".to_owned()).spawn(move || work.run()) {
            Ok(_) => {
                self.running.insert(chat, Running { answer, cancel });
            }
            Err(error) => {
                lock(&self.history).forget_question(&chat);
                let message = format!("the agent has no thread for the answer: {error}");
                send_error(&self.client, fields, &message, None);
            }
        }
    }

    /// Ends the answer of this conversation where it is, if one is in progress.
    pub(super) fn cancel(&mut self, chat: &str) {
        let Some(running) = self.running.remove(chat) else { return };
        running.cancel.cancel();
        if let Some(stream) = running.answer.take() {
            end(stream, &self.history, &self.ended, &running.answer.fields, chat, How::Cancelled);
        }
    }

    /// The relay lets no message of this size through. If it ended an answer, the phone still waits for an end.
    pub(super) fn handle_too_large(&self, id: &str) {
        let mut ended = lock(&self.ended);
        if let Some((_, fields)) = ended.iter().position(|(done, _)| done == id).and_then(|at| ended.remove(at)) {
            drop(ended);
            send_error(&self.client, fields, "the relay does not forward an answer of this size", None);
        }
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
        lock(&self.history).to_json(chat, limit, HISTORY_BYTES_MAX)
    }

    /// Tells the phone that its question is not answered.
    pub(super) fn refuse(&self, asked: &Asked, message: &str) {
        send_error(&self.client, fields(asked), message, None);
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

fn send_error(client: &Client, mut fields: Map<String, Value>, message: &str, retry_after_ms: Option<u64>) {
    fields.insert("code".to_owned(), json!("BACKEND_ERROR"));
    fields.insert("message".to_owned(), json!(message));
    if let Some(ms) = retry_after_ms {
        fields.insert("retry_after_ms".to_owned(), json!(ms));
    }
    // The client has ended, or nothing could be sent for long: there is nobody to tell.
    let _ = client.send("chat.error", &fields);
}

fn remember(history: &Mutex<History>, chat: &str, answer: &str, ending: Option<Ending>) {
    let turn = Turn::new(Speaker::Assistant, answer.to_owned(), Vec::new(), unix_ms());
    lock(history).push(chat, Turn { ending, ..turn });
}

/// How an answer ended.
enum How {
    Ended(Outcome),
    Cancelled,
}

/// Says that an answer is complete, or how it was cut short, and remembers it.
fn end(
    stream: Stream,
    history: &Mutex<History>,
    ended: &Mutex<Ended>,
    fields: &Map<String, Value>,
    chat: &str,
    how: How,
) {
    let mut more = Map::new();
    let ending = match how {
        How::Ended(Outcome::Whole) => None,
        How::Ended(Outcome::Partial(ending)) => {
            more.insert("finish".to_owned(), json!(ending.finish));
            more.insert("notice".to_owned(), json!(ending.notice));
            Some(ending)
        }
        How::Cancelled => {
            more.insert("cancelled".to_owned(), json!(true));
            Some(Ending { finish: "cancelled", notice: String::new() })
        }
    };
    if !stream.text().is_empty() {
        remember(history, chat, stream.text(), ending);
    }
    // As above, if it fails. The phone can ask for the history.
    let Ok(id) = stream.finish(more) else { return };
    let mut ended = lock(ended);
    ended.push_back((id, fields.clone()));
    if ended.len() > ENDED_MAX {
        ended.pop_front();
    }
}

impl Answer {
    fn new(client: &Client, fields: &Map<String, Value>) -> Self {
        let stream = client.stream(fields.clone());
        let stream = Arc::new(Mutex::new(Some(stream)));
        Self { stream, client: client.clone(), fields: fields.clone(), thinking: None }
    }

    fn write(&self, write: impl FnOnce(&mut Stream) -> Result<(), SendError>) -> Result<(), BackendError> {
        let mut stream = lock(&self.stream);
        write(stream.as_mut().ok_or(BackendError::Cancelled)?).map_err(|error| match error {
            SendError::TooLarge { .. } => {
                BackendError::failed(format!("the answer is too long: it ends after {ANSWER_BYTES_MAX} bytes"))
            }
            error => BackendError::failed(error.to_string()),
        })
    }

    fn take(&self) -> Option<Stream> {
        lock(&self.stream).take()
    }

    fn has_ended(&self) -> bool {
        lock(&self.stream).is_none()
    }
}

impl Output for Answer {
    fn push(&mut self, text: &str) -> Result<(), BackendError> {
        self.write(|stream| stream.push(text))
    }

    fn amend(&mut self, text: String) -> Result<(), BackendError> {
        self.write(|stream| stream.amend(text))
    }

    fn thinking(&mut self) {
        let now = Instant::now();
        let is_known = self.thinking.is_some_and(|at| now < at + THINKING_INTERVAL);
        if is_known || self.has_ended() {
            return;
        }
        self.thinking = Some(now);
        let mut payload = self.fields.clone();
        payload.insert("status".to_owned(), json!("thinking"));
        payload.insert("message".to_owned(), json!("The model is thinking"));
        // It is a courtesy: the answer itself follows.
        let _ = self.client.send("chat.tool_status", &payload);
    }
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
    client: Client,
    backend: Arc<dyn Backend>,
    history: Arc<Mutex<History>>,
    question: Question,
    /// Of the question, for an error.
    fields: Map<String, Value>,
    answer: Answer,
    ended: Arc<Mutex<Ended>>,
    cancel: Cancel,
    _count: Count,
}

impl Work {
    fn run(mut self) {
        let result = self.backend.answer(&self.question, &mut self.answer, &self.cancel);
        // Gone where it was cancelled: then whoever did that has told the phone.
        let Some(stream) = self.answer.take() else { return };
        let chat = &self.question.chat;
        match result {
            Ok(outcome) => end(stream, &self.history, &self.ended, &self.fields, chat, How::Ended(outcome)),
            Err(BackendError::Cancelled) => {
                end(stream, &self.history, &self.ended, &self.fields, chat, How::Cancelled);
            }
            Err(BackendError::Failed { message, retry_after }) => {
                if stream.text().is_empty() {
                    lock(&self.history).forget_question(chat);
                } else {
                    let ending = Ending { finish: "error", notice: message.clone() };
                    remember(&self.history, chat, stream.text(), Some(ending));
                }
                let ms = retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
                send_error(&self.client, self.fields, &message, ms);
                warn(&format!("No answer: {message}"));
            }
        }
    }
}
