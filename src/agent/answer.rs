//! An answer's way to the phone, while it is made: its text, what is done beside it, and what the person is asked.

use super::activity::{Activity, Pace};
use super::asking::{Ask, Decided, Decision};
use super::asks::{Asks, Way as AskWay};
use super::backend::{BackendError, Ending, Outcome, Output};
use super::files::{self, File};
use super::history::{History, Speaker, Turn};
use coralmux_client::{ANSWER_BYTES_MAX, Client, Keep, SendError, Stream, To, new_id, unix_ms};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Answers that have ended, and that the relay may still refuse.
const ENDED_MAX: usize = 64;

/// What the answers of an agent have in common.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) asks: Asks,
    pub(super) history: Mutex<History>,
    /// The newest `chat.done` messages: at most [`ENDED_MAX`].
    ended: Mutex<VecDeque<Done>>,
}

/// The id of a `chat.done`, who heard it, and what each message of its answer has.
type Done = (String, Hearers, Map<String, Value>);

/// Who hears an answer, and who of those that are away is woken for its end.
#[derive(Clone, Copy)]
pub(super) struct Hearers {
    pub(super) to: To,
    pub(super) keep: Keep,
}

impl Hearers {
    /// Of what nobody in particular has asked.
    const ALL: Self = Self { to: To::All, keep: Keep::Wake };
}

/// The answer's way to the phone. Clones are the same answer's.
#[derive(Clone)]
pub(super) struct Answer {
    shared: Arc<Shared>,
    /// Which conversation it is of, inside and in messages.
    place: String,
    named: Map<String, Value>,
    shows: Shows,
    way: Arc<Mutex<Way>>,
}

/// What a phone says that it can show. What it cannot is part of the text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shows {
    /// Questions to the person (`chat.ask`).
    pub(super) questions: bool,
    /// The agent's files (`chat.file`).
    pub(super) files: bool,
}

enum Way {
    Open(Said),
    /// The person was asked in plain text, which has ended the message; what is said meanwhile waits.
    Asking {
        held: String,
    },
    /// The answer has ended, by whomever.
    Ended,
}

/// What the phone gets under one `ref`.
struct Said {
    stream: Stream,
    /// Who hears it.
    to: Hearers,
    /// What each of its messages has beside its text.
    fields: Map<String, Value>,
    /// How many files it had.
    files: usize,
    /// It goes on with what another one began: blank lines at its start have nothing to be between.
    goes_on: bool,
}

/// How an answer ended.
enum How {
    Ended(Outcome),
    Cancelled,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one of these locks panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(client: Client, asks: Asks, history: History) -> Self {
        Self { client, asks, history: Mutex::new(history), ended: Mutex::default() }
    }

    pub(super) fn send_error(
        &self,
        to: Hearers,
        mut fields: Map<String, Value>,
        message: &str,
        retry_after_ms: Option<u64>,
    ) {
        fields.insert("code".to_owned(), json!("BACKEND_ERROR"));
        fields.insert("message".to_owned(), json!(message));
        if let Some(ms) = retry_after_ms {
            fields.insert("retry_after_ms".to_owned(), json!(ms));
        }
        // The client has ended, or nothing could be sent for long: there is nobody to tell.
        let _ = self.client.send_kept(to.to, "chat.error", &fields, to.keep);
    }

    /// The relay lets no message of this size through. If it ended an answer, the phone still waits for an end.
    pub(super) fn handle_too_large(&self, id: &str) {
        let mut ended = lock(&self.ended);
        if let Some((_, to, fields)) = ended.iter().position(|(done, ..)| done == id).and_then(|at| ended.remove(at)) {
            drop(ended);
            self.send_error(to, fields, "the relay does not forward an answer of this size", None);
        }
    }

    fn remember(&self, place: &str, said: &Said, ending: Option<Ending>) {
        let turn = Turn::new(Speaker::Assistant, said.stream.text().to_owned(), Vec::new(), unix_ms());
        lock(&self.history).push(place, Turn { file_count: said.files, ending, ..turn });
    }

    /// Says that a message is complete, or how it was cut short, and remembers it.
    fn end(&self, said: Said, place: &str, how: How) {
        let mut more = Map::new();
        if said.files != 0 {
            more.insert("files".to_owned(), json!(said.files));
        }
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
        if !said.is_empty() {
            self.remember(place, &said, ending);
        }
        let Said { stream, to, fields, .. } = said;
        // As above, if it fails. The phone can ask for the history.
        let Ok(id) = stream.finish(more) else { return };
        let mut ended = lock(&self.ended);
        ended.push_back((id, to, fields));
        if ended.len() > ENDED_MAX {
            ended.pop_front();
        }
    }
}

impl Said {
    fn new(shared: &Shared, to: Hearers, fields: Map<String, Value>, goes_on: bool) -> Self {
        let stream = shared.client.stream_to(to.to, fields.clone()).with_keep(to.keep);
        Self { stream, to, fields, files: 0, goes_on }
    }

    fn is_empty(&self) -> bool {
        self.stream.text().is_empty() && self.files == 0
    }

    fn push(&mut self, text: &str) -> Result<(), SendError> {
        let begins = self.goes_on && self.stream.text().is_empty();
        self.stream.push(if begins { text.trim_start() } else { text })
    }
}

/// What a message has that is no answer to one of the phone.
fn unasked(named: &Map<String, Value>) -> Map<String, Value> {
    let mut fields = named.clone();
    fields.insert("ref".to_owned(), json!(new_id()));
    fields.insert("unasked".to_owned(), json!(true));
    fields
}

impl Answer {
    /// An answer in this conversation, for these, with these fields in each of its messages: `ref`, and what names the
    /// conversation.
    pub(super) fn new(
        shared: &Arc<Shared>,
        place: &str,
        to: Hearers,
        fields: Map<String, Value>,
        shows: Shows,
    ) -> Self {
        let mut named = fields.clone();
        named.remove("ref");
        let way = Arc::new(Mutex::new(Way::Open(Said::new(shared, to, fields, false))));
        Self { shared: Arc::clone(shared), place: place.to_owned(), named, shows, way }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(*lock(&self.way), Way::Ended)
    }

    /// Whether the person was asked in plain text, and has not answered.
    pub(super) fn is_asking(&self) -> bool {
        matches!(*lock(&self.way), Way::Asking { .. })
    }

    /// Ends it where it is.
    pub(super) fn cancel(&self) {
        let way = std::mem::replace(&mut *lock(&self.way), Way::Ended);
        self.shared.asks.withdraw_all(&self.place);
        if let Way::Open(said) = way {
            self.shared.end(said, &self.place, How::Cancelled);
        }
    }

    /// The backend has ended. Gives what the phone is told of a failure; `None` where nothing is left to say.
    pub(super) fn finish(&self, result: Result<Outcome, BackendError>) -> Option<BackendError> {
        let mut way = lock(&self.way);
        // Then whoever cancelled it has told the phone, and questions are another answer's.
        if matches!(*way, Way::Ended) {
            return None;
        }
        self.shared.asks.withdraw_all(&self.place);
        self.reopen(&mut way, None);
        let Way::Open(said) = std::mem::replace(&mut *way, Way::Ended) else { return None };
        drop(way);
        match result {
            Ok(outcome) => self.shared.end(said, &self.place, How::Ended(outcome)),
            Err(BackendError::Cancelled) => self.shared.end(said, &self.place, How::Cancelled),
            Err(BackendError::Failed { message, retry_after }) => {
                if said.is_empty() {
                    lock(&self.shared.history).forget_question(&self.place);
                } else {
                    let ending = Ending { finish: "error", notice: message.clone() };
                    self.shared.remember(&self.place, &said, Some(ending));
                }
                let ms = retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
                self.shared.send_error(said.to, said.fields, &message, ms);
                return Some(BackendError::Failed { message, retry_after });
            }
        }
        None
    }

    /// Says this, and no more.
    pub(super) fn end_with(&self, text: &str) {
        let way = std::mem::replace(&mut *lock(&self.way), Way::Ended);
        let Way::Open(mut said) = way else { return };
        // It is within an answer's bounds.
        let _ = said.stream.push(text);
        self.shared.end(said, &self.place, How::Ended(Outcome::Whole));
    }

    /// What was asked in plain text is over: the answer goes on, as that to the message with these fields, or unasked.
    pub(super) fn go_on(&self, asked: Option<(Hearers, Map<String, Value>)>) {
        let mut way = lock(&self.way);
        self.reopen(&mut way, asked);
        // Whatever else was asked meanwhile.
        if let Some(text) = self.shared.asks.plain_text(&self.place) {
            self.ask_plainly(&mut way, &text);
        }
    }

    fn reopen(&self, way: &mut Way, asked: Option<(Hearers, Map<String, Value>)>) {
        let Way::Asking { held } = way else { return };
        let (to, fields) = asked.unwrap_or_else(|| (Hearers::ALL, unasked(&self.named)));
        let mut said = Said::new(&self.shared, to, fields, true);
        // It is within an answer's bounds.
        let _ = said.push(held);
        *way = Way::Open(said);
    }

    /// Ends what was said so far with a question.
    fn ask_plainly(&self, way: &mut Way, text: &str) {
        let Way::Open(mut said) = std::mem::replace(way, Way::Asking { held: String::new() }) else { return };
        let gap = if said.stream.text().is_empty() { "" } else { "\n\n" };
        // Where it is too long for that, what was said so far is all the same.
        let _ = said.stream.push(&format!("{gap}{text}"));
        self.shared.end(said, &self.place, How::Ended(Outcome::Whole));
    }

    fn write(&self, text: &str, write: impl FnOnce(&mut Said) -> Result<(), SendError>) -> Result<(), BackendError> {
        let too_long =
            || BackendError::failed(format!("the answer is too long: it ends after {ANSWER_BYTES_MAX} bytes"));
        match &mut *lock(&self.way) {
            Way::Open(said) => write(said).map_err(|error| match error {
                SendError::TooLarge { .. } => too_long(),
                error => BackendError::failed(error.to_string()),
            }),
            Way::Asking { held } if held.len() + text.len() > ANSWER_BYTES_MAX => Err(too_long()),
            Way::Asking { held } => {
                held.push_str(text);
                Ok(())
            }
            Way::Ended => Err(BackendError::Cancelled),
        }
    }

    /// Sends a file, or says in words that there is one.
    fn file(&self, file: File) -> Result<(), BackendError> {
        let words = {
            let mut way = lock(&self.way);
            let sent = if let Way::Open(said) = &*way { said.files } else { 0 };
            let file = file.named(sent + 1);
            match (&mut *way, self.why_not(&file, sent)) {
                (_, Some(why)) => file.words(&why),
                (Way::Open(said), None) => {
                    let mut payload = said.fields.clone();
                    payload.extend(file.fields());
                    said.files += 1;
                    let sent = self.shared.client.send_to(said.to.to, "chat.file", &payload);
                    return sent.map(drop).map_err(|error| BackendError::failed(error.to_string()));
                }
                // It would belong to no message.
                (Way::Asking { .. }, None) => file.words("it came while you were asked something"),
                (Way::Ended, None) => return Err(BackendError::Cancelled),
            }
        };
        self.write(&words, |said| said.push(&words))
    }

    /// Why it is not sent, in words for the person. `sent`: the answer's files so far.
    fn why_not(&self, file: &File, sent: usize) -> Option<String> {
        if file.is_too_large() {
            Some(format!("it is too large to be sent, for it may have {:.1} MB", files::BYTES_MAX as f64 / 1e6))
        } else if sent >= files::FILES_MAX {
            Some(format!("an answer has {} files at most", files::FILES_MAX))
        } else if !self.shows.files {
            Some("this phone does not show files of an agent".to_owned())
        } else {
            None
        }
    }

    /// Sends a message of the answer that is a courtesy: the answer itself follows.
    fn send(&self, kind: &str, more: Map<String, Value>) {
        let Way::Open(said) = &*lock(&self.way) else { return };
        let mut payload = said.fields.clone();
        payload.extend(more);
        let _ = self.shared.client.send_to(said.to.to, kind, &payload);
    }
}

/// The backend's side of an answer.
pub(super) struct Desk {
    answer: Answer,
    pace: Pace,
}

impl Desk {
    pub(super) fn new(answer: Answer) -> Self {
        Self { answer, pace: Pace::new(Instant::now()) }
    }
}

impl Output for Desk {
    fn push(&mut self, text: &str) -> Result<(), BackendError> {
        self.answer.write(text, |said| said.push(text))
    }

    fn amend(&mut self, text: String) -> Result<(), BackendError> {
        self.answer.write("", |said| said.stream.amend(text))
    }

    fn file(&mut self, file: File) -> Result<(), BackendError> {
        self.answer.file(file)
    }

    fn thinking(&mut self, thought: &str) {
        if let Some(fields) = self.pace.pass_thought(Instant::now(), thought) {
            self.answer.send("chat.tool_status", fields);
        }
    }

    fn activity(&mut self, activity: &Activity) {
        if let Some(fields) = self.pace.pass(Instant::now(), activity) {
            self.answer.send("chat.tool_status", fields);
        }
    }

    fn ask(&mut self, ask: Ask, decided: Decided) -> String {
        let answer = &self.answer;
        let mut way = lock(&answer.way);
        let (asks, now) = (&answer.shared.asks, Instant::now());
        let fields = match &*way {
            Way::Ended => {
                drop(way);
                decided(Decision::Nothing);
                return String::new();
            }
            Way::Open(said) => said.fields.clone(),
            Way::Asking { .. } => Map::new(),
        };
        if answer.shows.questions {
            return asks.open(now, ask, &answer.place, &fields, AskWay::Message, decided);
        }
        let name = asks.open(now, ask, &answer.place, &fields, AskWay::Plain, decided);
        if matches!(*way, Way::Open(_))
            && let Some(text) = asks.plain_text(&answer.place)
        {
            answer.ask_plainly(&mut way, &text);
        }
        name
    }

    fn withdraw(&mut self, name: &str) {
        if self.answer.shared.asks.withdraw(name) {
            self.answer.go_on(None);
        }
    }
}
