//! A backend that is any agent which speaks the Agent Client Protocol (version 1, JSON-RPC over standard input and output):
//! OpenClaw, opencode, Qwen Code, Gemini CLI and others. One program for all conversations, with a session for each; it is
//! started with the first question, and again with the next one when it has ended.
//!
//! It reads JSON as it comes instead of by the types of the crate `agent-client-protocol`: that brings an asynchronous
//! runtime and forty crates for six methods, and its types refuse whole messages for what they do not know.

mod sessions;
mod turn;
mod update;
mod wire;

use super::backend::{Backend, BackendError, Outcome, Output, Question};
use super::cancel::Cancel;
use super::http::mask::without_keys;
use super::printable::warn;
use super::process::Programs;
use serde_json::{Value, json};
use sessions::Sessions;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use turn::Turn;
use wire::{Connection, Fault};

/// For the program to start and to open a session.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Conversations whose place is remembered.
const PLACES_MAX: usize = 256;
/// The version of the protocol.
const VERSION: u64 = 1;
/// The code of an error that asks the person to sign in.
const AUTH_REQUIRED: i64 = -32000;
/// Said where a conversation goes on in a session that knows nothing of it.
const FORGOTTEN: &str = "*The agent has begun a new session: it does not know what was said before.*\n\n";

/// What the agent's program is.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// For the shell.
    pub(super) command: String,
    /// Where it works.
    pub(super) directory: PathBuf,
    /// Where it is kept which session is which conversation.
    pub(super) sessions: PathBuf,
    /// How long it may say nothing.
    pub(super) timeout: Duration,
}

/// See the module.
pub(super) struct Acp {
    settings: Settings,
    programs: Arc<Programs>,
    /// The running program.
    running: Mutex<Option<Arc<Running>>>,
    /// Which session is which conversation.
    sessions: Mutex<Sessions>,
    /// Of each conversation, so that its turns come one after the other.
    places: Mutex<HashMap<String, Arc<Mutex<Place>>>>,
}

/// A program that has said what it can.
struct Running {
    connection: Arc<Connection>,
    loads: bool,
    resumes: bool,
    takes_images: bool,
}

/// Where a conversation is.
#[derive(Default)]
struct Place {
    /// The session that is open, and in which program.
    open: Option<(Arc<Running>, String)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks hold is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Acp {
    /// A backend that runs this program, without the agent's secrets but for those in `passed`.
    #[must_use]
    pub(super) fn new(settings: Settings, hidden: &[&str], passed: &[String]) -> Self {
        let sessions = Sessions::open(settings.sessions.clone(), &settings.command, &settings.directory);
        let programs = Arc::new(Programs::new(hidden, passed));
        Self { settings, programs, running: Mutex::default(), sessions: Mutex::new(sessions), places: Mutex::default() }
    }

    fn place(&self, chat: &str) -> Arc<Mutex<Place>> {
        let mut places = lock(&self.places);
        if places.len() >= PLACES_MAX && !places.contains_key(chat) {
            places.retain(|_, place| Arc::strong_count(place) > 1);
        }
        Arc::clone(places.entry(chat.to_owned()).or_default())
    }

    /// The running program, started if there is none.
    fn running(&self) -> Result<Arc<Running>, BackendError> {
        let mut running = lock(&self.running);
        if let Some(running) = running.as_ref().filter(|running| running.connection.ended().is_none()) {
            return Ok(Arc::clone(running));
        }
        let started = Arc::new(self.start()?);
        Ok(Arc::clone(running.insert(started)))
    }

    fn start(&self) -> Result<Running, BackendError> {
        let connection = Connection::start(&self.programs, &self.settings.command, &self.settings.directory);
        let connection = connection.map_err(|error| {
            warn(&format!("acp: cannot start: {error}"));
            BackendError::failed("the agent's program cannot be started")
        })?;
        let params = json!({
            "protocolVersion": VERSION,
            "clientCapabilities": {"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false},
            "clientInfo": {"name": "coralmux-agent", "title": "CoralMux agent", "version": env!("CARGO_PKG_VERSION")},
        });
        let answer = connection
            .request("initialize", params, START_TIMEOUT)
            .map_err(|fault| self.failure(&fault, &connection))?;
        if answer["protocolVersion"].as_u64() != Some(VERSION) {
            let version = &answer["protocolVersion"];
            return Err(BackendError::failed(format!(
                "the agent's program speaks version {version} of the Agent Client Protocol, this agent version {VERSION}"
            )));
        }
        let can = &answer["agentCapabilities"];
        let (loads, takes_images) = (can["loadSession"] == true, can["promptCapabilities"]["image"] == true);
        let resumes = can["sessionCapabilities"]["resume"].is_object();
        Ok(Running { connection: Arc::new(connection), loads, resumes, takes_images })
    }

    /// Opens the conversation's session, or goes on with the one that is open; and whether it knows nothing of what was
    /// said before.
    fn open(&self, place: &mut Place, question: &Question) -> Result<(Arc<Running>, String, bool), BackendError> {
        let running = self.running()?;
        if let Some((of, session)) = &place.open
            && Arc::ptr_eq(of, &running)
        {
            return Ok((running, session.clone(), false));
        }
        place.open = None;
        let kept = lock(&self.sessions).of(&question.chat).map(str::to_owned);
        let was_begun = kept.is_some() || question.turns.len() > 1;
        let found = kept.filter(|session| self.find(&running, session));
        let is_forgotten = found.is_none() && was_begun;
        let session = match found {
            Some(session) => session,
            None => self.begin(&running, &question.chat)?,
        };
        place.open = Some((Arc::clone(&running), session.clone()));
        Ok((running, session, is_forgotten))
    }

    fn params(&self) -> Value {
        json!({"cwd": self.settings.directory, "mcpServers": []})
    }

    /// Whether the program goes on with this session. Some say that they can resume one, and can only load it.
    fn find(&self, running: &Running, session: &str) -> bool {
        let ways = [(running.resumes, "session/resume"), (running.loads, "session/load")];
        ways.iter().filter(|(can, _)| *can).any(|(_, method)| {
            let mut params = self.params();
            params["sessionId"] = json!(session);
            let found = running.connection.request(method, params, START_TIMEOUT);
            if let Err(fault) = &found {
                warn(&format!("acp: {method}: {}", self.failure(fault, &running.connection)));
            }
            found.is_ok()
        })
    }

    fn begin(&self, running: &Running, chat: &str) -> Result<String, BackendError> {
        let answer = running.connection.request("session/new", self.params(), START_TIMEOUT);
        let answer = answer.map_err(|fault| self.failure(&fault, &running.connection))?;
        let Some(session) = answer["sessionId"].as_str().filter(|id| !id.is_empty()) else {
            return Err(BackendError::failed("the agent's program opened a session without a name"));
        };
        if let Err(error) = lock(&self.sessions).keep(chat, session) {
            warn(&format!("acp: the session is not kept: {}: {error}", self.settings.sessions.display()));
        }
        Ok(session.to_owned())
    }

    fn failure(&self, fault: &Fault, connection: &Connection) -> BackendError {
        BackendError::failed(match fault {
            Fault::Refused(refusal) if refusal.code == AUTH_REQUIRED => {
                format!("the agent's program wants to be signed in first, on its own machine: {}", refusal.message)
            }
            Fault::Refused(refusal) => format!("the agent's program: {}", refusal.message),
            Fault::Silent(timeout) => {
                // Whatever holds it up, it is not to hold up the next question.
                connection.kill();
                format!("the agent's program said nothing for {} s and is started anew", timeout.as_secs())
            }
            Fault::Gone => connection.ended().unwrap_or_else(|| "the agent's program has ended".to_owned()),
        })
    }
}

/// The question as blocks of content.
fn prompt(question: &Question) -> Vec<Value> {
    let text = question.text_with_age();
    let text = (!text.is_empty()).then(|| json!({"type": "text", "text": text}));
    let images = question.images().iter();
    let images = images.map(|image| json!({"type": "image", "mimeType": image.mime, "data": image.data}));
    text.into_iter().chain(images).collect()
}

impl Backend for Acp {
    fn answer(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        let place = self.place(&question.chat);
        // The turn before, if it is still about to end.
        let mut place = lock(&place);
        if cancel.is_cancelled() {
            return Err(BackendError::Cancelled);
        }
        let (running, session, is_forgotten) = self.open(&mut place, question)?;
        if !question.images().is_empty() && !running.takes_images {
            return Err(BackendError::failed("this agent takes no images"));
        }
        if is_forgotten {
            output.push(FORGOTTEN)?;
        }
        let turn = Turn::new(&running.connection, &session, self.settings.timeout);
        let result = turn.run(prompt(question), output, cancel);
        cancel.forget();
        result.map_err(without_keys)
    }

    fn end(&self) {
        self.programs.end();
    }

    fn kind(&self) -> &'static str {
        "acp"
    }
}
