//! One question to the agent and its answer (`session/prompt`), with what it asks the person on the way.

use super::update::Telling;
use super::wire::{Connection, Refusal, Said, ears};
use crate::asking::{Ask, Choice, Decision};
use crate::backend::{BackendError, Ending, Outcome, Output};
use crate::cancel::Cancel;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How often it is looked whether the answer was cancelled or a question answered.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// For an agent that was asked to stop; then its program is killed.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// A request for permission that the person has not answered.
struct Asked {
    /// The request's id.
    id: Value,
    /// The tool call that it is about.
    call: String,
    /// What the question is called at the phone.
    name: String,
}

/// What the person has decided of which request.
type Decided = (Value, Decision);

/// See the module.
pub(super) struct Turn<'a> {
    connection: &'a Arc<Connection>,
    session: &'a str,
    /// How long the agent may say nothing.
    timeout: Duration,
    telling: Telling,
    asked: Vec<Asked>,
    decisions: (Sender<Decided>, Receiver<Decided>),
    /// When it last said anything.
    heard: Instant,
    /// It was asked to stop: until when it may take for that, and why it was.
    stopping: Option<(Instant, BackendError)>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(connection: &'a Arc<Connection>, session: &'a str, timeout: Duration) -> Self {
        Self {
            connection,
            session,
            timeout,
            telling: Telling::default(),
            asked: Vec::new(),
            decisions: channel(),
            heard: Instant::now(),
            stopping: None,
        }
    }

    /// Asks, and passes on what is said, to the end.
    pub(super) fn run(
        mut self,
        prompt: Vec<Value>,
        output: &mut dyn Output,
        cancel: &Cancel,
    ) -> Result<Outcome, BackendError> {
        let (mouth, said) = ears();
        self.connection.listen(self.session, mouth.clone());
        self.connection.call("session/prompt", json!({"sessionId": self.session, "prompt": prompt}), mouth);
        let (connection, session) = (Arc::clone(self.connection), self.session.to_owned());
        cancel.on_cancel(move || connection.notify("session/cancel", json!({"sessionId": session})));
        let result = self.listen(&said, output, cancel);
        self.connection.ignore(self.session);
        for asked in std::mem::take(&mut self.asked) {
            output.withdraw(&asked.name);
        }
        result
    }

    fn listen(
        &mut self,
        said: &Receiver<Said>,
        output: &mut dyn Output,
        cancel: &Cancel,
    ) -> Result<Outcome, BackendError> {
        loop {
            let next = said.recv_timeout(LOOK_INTERVAL);
            let now = Instant::now();
            if self.stopping.is_none() && cancel.is_cancelled() {
                // The hook has asked it to.
                self.give_up(now, BackendError::Cancelled, output);
            }
            match next {
                Ok(said) => {
                    self.heard = now;
                    if let Some(reply) = self.take(said, output) {
                        return self.end(reply);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.gone()),
            }
            self.pass_decisions_on(now);
            self.look(now, output)?;
        }
    }

    /// What is done with time.
    fn look(&mut self, now: Instant, output: &mut dyn Output) -> Result<(), BackendError> {
        if let Some((_, why)) = self.stopping.take_if(|(by, _)| *by <= now) {
            // It does not stop, and the next question would wait behind it.
            self.connection.kill();
            return Err(why);
        }
        let is_silent = now >= self.heard + self.timeout && self.asked.is_empty();
        if is_silent && self.stopping.is_none() {
            self.connection.notify("session/cancel", json!({"sessionId": self.session}));
            let words = format!("the agent said nothing for {} s", self.timeout.as_secs());
            self.give_up(now, BackendError::failed(words), output);
        }
        Ok(())
    }

    /// From now on the answer is not wanted. Whatever waits for the person is answered, as the protocol asks for.
    fn give_up(&mut self, now: Instant, why: BackendError, output: &mut dyn Output) {
        self.stopping = Some((now + CANCEL_TIMEOUT, why));
        for asked in std::mem::take(&mut self.asked) {
            self.connection.respond(&asked.id, outcome(None));
            output.withdraw(&asked.name);
        }
    }

    /// Takes what was said. Gives the result of the whole turn.
    fn take(&mut self, said: Said, output: &mut dyn Output) -> Option<Result<Value, Refusal>> {
        match said {
            Said::Reply(reply) => return Some(reply),
            Said::Permission(id, _) if self.stopping.is_some() => self.connection.respond(&id, outcome(None)),
            Said::Permission(id, params) => self.ask(id, &params, output),
            Said::Update(_) if self.stopping.is_some() => {}
            Said::Update(update) => match self.telling.take(&update, output) {
                Ok(None) => {}
                Ok(Some(call)) => self.forget_call(&call, output),
                Err(error) => {
                    self.connection.notify("session/cancel", json!({"sessionId": self.session}));
                    self.give_up(Instant::now(), error, output);
                }
            },
        }
        None
    }

    fn ask(&mut self, id: Value, params: &Value, output: &mut dyn Output) {
        let option = |option: &Value| {
            let text = |name: &str| option[name].as_str().unwrap_or_default().to_owned();
            Choice { id: text("optionId"), label: text("name"), kind: text("kind") }
        };
        let options: Vec<Choice> = params["options"].as_array().into_iter().flatten().map(option).collect();
        let call = params["toolCall"]["toolCallId"].as_str().unwrap_or_default().to_owned();
        let ask = Ask {
            text: self.telling.question(&params["toolCall"]),
            // Without an answer nothing is permitted, and nothing forbidden for ever.
            default: options.iter().find(|option| option.kind == "reject_once").map(|option| option.id.clone()),
            options,
            free: false,
            call: call.clone(),
        };
        let (decisions, of) = (self.decisions.0.clone(), id.clone());
        // Nobody listens any more: then the request was answered.
        let name = output.ask(ask, Box::new(move |decision| drop(decisions.send((of, decision)))));
        self.asked.push(Asked { id, call, name });
    }

    /// What the call would have needed permission for is over.
    fn forget_call(&mut self, call: &str, output: &mut dyn Output) {
        for asked in self.asked.extract_if(.., |asked| asked.call == call) {
            self.connection.respond(&asked.id, outcome(None));
            output.withdraw(&asked.name);
        }
    }

    fn pass_decisions_on(&mut self, now: Instant) {
        while let Ok((id, decision)) = self.decisions.1.try_recv() {
            // One that is not known was answered already.
            let Some(at) = self.asked.iter().position(|asked| asked.id == id) else { continue };
            self.asked.swap_remove(at);
            let option = if let Decision::Chosen(option) = &decision { Some(option.as_str()) } else { None };
            self.connection.respond(&id, outcome(option));
            self.heard = now;
        }
    }

    fn end(&mut self, reply: Result<Value, Refusal>) -> Result<Outcome, BackendError> {
        if let Some((_, why)) = self.stopping.take() {
            return Err(why);
        }
        let answer = reply.map_err(|refusal| BackendError::failed(format!("the agent: {}", refusal.message)))?;
        let part = |finish, notice: &str| Ok(Outcome::Partial(Ending { finish, notice: notice.to_owned() }));
        match answer["stopReason"].as_str().unwrap_or_default() {
            "cancelled" => Err(BackendError::Cancelled),
            "refusal" => part("refusal", "The agent refuses to go on."),
            "max_tokens" => part("length", "The answer is not complete: the model's limit was reached."),
            "max_turn_requests" => {
                part("other", "The answer is not complete: the agent may not ask its model any further.")
            }
            _ if self.telling.has_files() => Ok(Outcome::Whole),
            _ if !self.telling.text().has_text() && self.telling.text().has_acted() => {
                part("other", "The agent has ended its turn without saying anything.")
            }
            _ if !self.telling.text().has_text() => {
                Err(BackendError::failed("the agent has ended its turn without a word"))
            }
            _ => Ok(Outcome::Whole),
        }
    }

    fn gone(&mut self) -> BackendError {
        match self.stopping.take() {
            Some((_, why)) => why,
            None => {
                let words = self.connection.ended().unwrap_or_else(|| "the agent's program has ended".to_owned());
                BackendError::failed(format!("{words} in the middle of its answer. The next message starts it anew."))
            }
        }
    }
}

/// The answer to a request for permission.
fn outcome(option: Option<&str>) -> Value {
    match option {
        Some(option) => json!({"outcome": {"outcome": "selected", "optionId": option}}),
        None => json!({"outcome": {"outcome": "cancelled"}}),
    }
}
