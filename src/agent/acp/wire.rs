//! The agent's program and JSON-RPC with it: one JSON text a line on its standard input and output. What it says is read as
//! loosely as can be; lines that are no JSON are its logs.

use crate::printable::warn;
use crate::process::{Pipes, Program, Programs, read_lines, show_lines, write_lines};
use coralmux_client::lenient;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::process::ChildStdout;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What waits for a turn's attention; then the program waits.
const WAITING_MAX: usize = 64;
/// Lines that are no JSON of which the agent tells; a program that logs there does so for long.
const STRAY_LINES_MAX: u32 = 10;
/// For its end, when its output has ended.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// What the program says to a turn.
#[derive(Debug)]
pub(super) enum Said {
    /// The `update` of a `session/update`.
    Update(Value),
    /// A request for permission, and its id.
    Permission(Value, Value),
    /// What a call has come to.
    Reply(Result<Value, Refusal>),
}

/// What the program says against a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: i64,
    pub(super) message: String,
}

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum Fault {
    Refused(Refusal),
    /// It said nothing for so long.
    Silent(Duration),
    /// The program has ended.
    Gone,
}

/// The running program. It ends with this.
pub(super) struct Connection {
    program: Program,
    /// Lines for it. As many as there are turns, and what they say: a turn waits for the program before it says more.
    lines: Sender<Vec<u8>>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    calls: u64,
    /// Who waits for the result of a call.
    waiting: HashMap<u64, SyncSender<Said>>,
    /// Who listens to a session.
    turns: HashMap<String, SyncSender<Said>>,
    /// How the program ended, in words.
    ended: Option<String>,
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    // Nothing that holds this lock panics.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a line is.
enum LineKind {
    Reply(u64),
    Update,
    Permission,
    /// Of a method that this client does not have.
    Request,
    Other,
}

impl LineKind {
    fn of(message: &Value) -> Self {
        let id = &message["id"];
        match message["method"].as_str() {
            Some("session/update") => Self::Update,
            Some("session/request_permission") if !id.is_null() => Self::Permission,
            Some(_) if !id.is_null() => Self::Request,
            Some(_) => Self::Other,
            // Some give the number back as text.
            None => id.as_u64().or_else(|| id.as_str()?.parse().ok()).map_or(Self::Other, Self::Reply),
        }
    }
}

/// A turn's ears.
pub(super) fn ears() -> (SyncSender<Said>, Receiver<Said>) {
    sync_channel(WAITING_MAX)
}

impl Connection {
    /// Starts the program in `directory`.
    pub(super) fn start(programs: &Arc<Programs>, command: &str, directory: &Path) -> io::Result<Self> {
        let (program, pipes) = programs.spawn(command, |command| {
            command.current_dir(directory);
        })?;
        let Pipes { stdin, stdout, stderr } = pipes;
        let lines = write_lines(stdin);
        thread::spawn(move || show_lines("acp", stderr));
        let inner = Arc::<Mutex<Inner>>::default();
        let reader = Reader {
            programs: Arc::clone(programs),
            program: program.clone(),
            lines: lines.clone(),
            inner: Arc::clone(&inner),
            stray: 0,
        };
        thread::spawn(move || reader.run(stdout));
        Ok(Self { program, lines, inner })
    }

    fn write(&self, message: &Value) {
        write(&self.lines, message);
    }

    /// Calls; the result goes to `ears`, behind all that the program said before it.
    pub(super) fn call(&self, method: &str, params: Value, ears: SyncSender<Said>) {
        let mut inner = lock(&self.inner);
        if inner.ended.is_some() {
            // Dropped: whoever listens hears that nobody speaks.
            return;
        }
        inner.calls += 1;
        let id = inner.calls;
        inner.waiting.insert(id, ears);
        drop(inner);
        self.write(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
    }

    /// Calls, and waits for the result.
    pub(super) fn request(&self, method: &str, params: Value, timeout: Duration) -> Result<Value, Fault> {
        let (sender, replies) = ears();
        self.call(method, params, sender);
        let deadline = Instant::now() + timeout;
        loop {
            match replies.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Said::Reply(reply)) => return reply.map_err(Fault::Refused),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err(Fault::Silent(timeout)),
                Err(RecvTimeoutError::Disconnected) => return Err(Fault::Gone),
            }
        }
    }

    /// Says something to which there is no result.
    pub(super) fn notify(&self, method: &str, params: Value) {
        self.write(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    /// Answers a request of the program.
    pub(super) fn respond(&self, id: &Value, result: Value) {
        self.write(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
    }

    /// Has what is said in a session heard.
    pub(super) fn listen(&self, session: &str, ears: SyncSender<Said>) {
        let mut inner = lock(&self.inner);
        if inner.ended.is_none() {
            inner.turns.insert(session.to_owned(), ears);
        }
    }

    /// Nobody listens to this session any more.
    pub(super) fn ignore(&self, session: &str) {
        lock(&self.inner).turns.remove(session);
    }

    /// How the program has ended, in words.
    pub(super) fn ended(&self) -> Option<String> {
        lock(&self.inner).ended.clone()
    }

    /// Ends the program, which nothing is asked of any more, although it takes a moment to be gone.
    pub(super) fn kill(&self) {
        lock(&self.inner).ended.get_or_insert_with(|| "the agent's program had to be ended".to_owned());
        self.program.kill_all();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.kill();
    }
}

fn write(lines: &Sender<Vec<u8>>, message: &Value) {
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    // It has ended: whoever waits for it is told.
    let _ = lines.send(line);
}

/// Reads what the program says, to its end.
struct Reader {
    programs: Arc<Programs>,
    program: Program,
    lines: Sender<Vec<u8>>,
    inner: Arc<Mutex<Inner>>,
    stray: u32,
}

impl Reader {
    fn run(mut self, stdout: ChildStdout) {
        let is_too_long = read_lines(stdout, |line| self.handle(line));
        let status = self.program.end_by(Instant::now() + END_TIMEOUT);
        self.programs.forget(&self.program);
        let words = match status {
            _ if is_too_long => "the agent's program wrote a line without end".to_owned(),
            Some(status) => format!("the agent's program has ended ({status})"),
            None => "the agent's program has closed its output".to_owned(),
        };
        warn(&format!("acp: {words}"));
        let mut inner = lock(&self.inner);
        inner.ended = Some(words);
        inner.waiting.clear();
        inner.turns.clear();
    }

    fn handle(&mut self, line: &str) {
        let line = line.trim();
        let message = lenient::value(line).filter(Value::is_object);
        let Some(mut message) = message else {
            if !line.is_empty() && self.stray < STRAY_LINES_MAX {
                self.stray += 1;
                warn(&format!("acp: not JSON: {}", crate::activity::cut(line, 200)));
            }
            return;
        };
        match LineKind::of(&message) {
            LineKind::Reply(call) => {
                let waiting = lock(&self.inner).waiting.remove(&call);
                let reply = match message.get_mut("error") {
                    Some(error) if !error.is_null() => Err(refusal(error)),
                    _ => Ok(message["result"].take()),
                };
                // Who does not wait any more has what it wanted.
                let _ = waiting.map(|waiting| waiting.send(Said::Reply(reply)));
            }
            LineKind::Update => {
                let turn = self.turn(&message);
                let _ = turn.map(|turn| turn.send(Said::Update(message["params"]["update"].take())));
            }
            LineKind::Permission => {
                let (turn, id) = (self.turn(&message), message["id"].take());
                let said = Said::Permission(id.clone(), message["params"].take());
                if turn.is_none_or(|turn| turn.send(said).is_err()) {
                    let outcome = json!({"outcome": {"outcome": "cancelled"}});
                    write(&self.lines, &json!({"jsonrpc": "2.0", "id": id, "result": outcome}));
                }
            }
            LineKind::Request => {
                let error = json!({"code": -32601, "message": "this client has no such method"});
                write(&self.lines, &json!({"jsonrpc": "2.0", "id": message["id"], "error": error}));
            }
            LineKind::Other => {}
        }
    }

    fn turn(&self, message: &Value) -> Option<SyncSender<Said>> {
        let session = message["params"]["sessionId"].as_str()?;
        lock(&self.inner).turns.get(session).cloned()
    }
}

fn refusal(error: &Value) -> Refusal {
    let text = |value: &Value| value.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned);
    let detail = [&error["data"]["details"], &error["data"]["message"], &error["data"]].into_iter().find_map(text);
    let message = text(&error["message"]).unwrap_or_else(|| "an error without a word".to_owned());
    // "Internal error" alone says nothing.
    let message =
        detail.filter(|detail| *detail != message).map_or(message.clone(), |detail| format!("{message}: {detail}"));
    Refusal { code: error["code"].as_i64().unwrap_or_default(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_known_by_its_method_and_id() {
        let kind = |message: Value| match LineKind::of(&message) {
            LineKind::Reply(call) => format!("reply {call}"),
            LineKind::Update => "update".to_owned(),
            LineKind::Permission => "permission".to_owned(),
            LineKind::Request => "request".to_owned(),
            LineKind::Other => "other".to_owned(),
        };
        for (message, is) in [
            (json!({"id": 7, "result": {}}), "reply 7"),
            (json!({"id": "7", "error": {}}), "reply 7"),
            (json!({"method": "session/update", "params": {}}), "update"),
            (json!({"method": "session/request_permission", "id": "x"}), "permission"),
            (json!({"method": "session/request_permission"}), "other"),
            (json!({"method": "fs/read_text_file", "id": 0}), "request"),
            (json!({"method": "$/progress"}), "other"),
            (json!({"id": "x"}), "other"),
            (json!({}), "other"),
        ] {
            assert_eq!(kind(message.clone()), is, "{message}");
        }
    }

    #[test]
    fn an_error_is_told_with_its_details() {
        let words = |error: Value| refusal(&error).message;
        let said = json!({"code": -32603, "message": "Internal error", "data": {"details": "no model"}});
        assert_eq!(words(said), "Internal error: no model");
        assert_eq!(words(json!({"code": 1, "message": "m", "data": "m"})), "m");
        assert_eq!(words(json!(null)), "an error without a word");
    }
}
