//! A backend that is a program which speaks in lines of JSON: the question with its images and what was said before on its
//! standard input, and pieces of the answer, files, activity and questions to the person on its standard output. Each question
//! starts the program anew, as [`Exec`](super::Exec) does.

use super::{GRACE, LOOK_INTERVAL, READS_MAX};
use crate::activity::{Activity, Doing, cut};
use crate::asking::{Ask, Choice, Decision};
use crate::backend::{Backend, BackendError, Ending, Outcome, Output, Question};
use crate::cancel::Cancel;
use crate::files::File;
use crate::http::mask::without_keys;
use crate::printable::warn;
use crate::process::{Pipes, Programs, read_lines, show_lines, write_lines};
use coralmux_client::lenient;
use serde_json::{Value, json};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines of which the agent tells that it can do nothing with them.
const STRAY_LINES_MAX: u32 = 10;
/// The longest words of a program about its error, in characters.
const WORDS_MAX: usize = 300;
/// Why an answer can be partial (PROTOCOL.md, Forwarding).
const FINISHES: [&str; 4] = ["length", "content_filter", "tool_calls", "refusal"];

/// See the module.
#[derive(Debug)]
pub(crate) struct JsonLines {
    command: String,
    timeout: Duration,
    programs: Programs,
}

/// What the program's output brings.
enum Told {
    Line(String),
    End { is_too_long: bool },
}

/// What the person has decided of which question.
type Decided = (String, Decision);

/// An answer while the program makes it.
struct Turn {
    /// To the program.
    lines: Sender<Vec<u8>>,
    /// Its questions that are open: what it and the phone call each.
    asked: Vec<(String, String)>,
    decisions: (Sender<Decided>, Receiver<Decided>),
    stray: u32,
}

impl JsonLines {
    /// As [`Exec::new`](super::Exec::new). While the person is asked, the time does not count.
    pub(crate) fn new(command: String, timeout: Duration, hidden: &[&str], passed: &[String]) -> Self {
        Self { command, timeout, programs: Programs::new(hidden, passed) }
    }
}

/// The question as the program is told it.
fn asked(question: &Question) -> Value {
    let images = question.images().iter().map(|image| json!({"mime": image.mime, "data": image.data}));
    let images: Vec<Value> = images.collect();
    let before = &question.turns[..question.turns.len().saturating_sub(1)];
    let before = before.iter().map(|turn| json!({"role": turn.speaker.name(), "text": turn.text}));
    let history: Vec<Value> = before.collect();
    let (chat, asked_at) = (&question.chat, question.asked_at_ms());
    let mut asked = json!({"type": "question", "chat_id": chat, "text": question.text(), "asked_at": asked_at});
    asked["images"] = json!(images);
    asked["history"] = json!(history);
    asked
}

impl Backend for JsonLines {
    fn answer(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        let spawned = self.programs.spawn(&self.command, |command| {
            command.env("CORALMUX_CHAT_ID", &question.chat);
            command.env("CORALMUX_ASKED_AT", question.asked_at_ms().to_string());
        });
        let (program, pipes) = spawned.map_err(|error| {
            warn(&format!("exec: cannot start: {error}"));
            BackendError::failed("the agent's program cannot be started")
        })?;
        let Pipes { stdin, stdout, stderr } = pipes;
        let (sender, told) = sync_channel(READS_MAX);
        thread::spawn(move || show_lines("exec", stderr));
        thread::spawn(move || {
            // Nobody listens any more: then the program is about to be killed.
            let is_too_long = read_lines(stdout, |line| drop(sender.send(Told::Line(line.to_owned()))));
            let _ = sender.send(Told::End { is_too_long });
        });
        let mut turn = Turn { lines: write_lines(stdin), asked: Vec::new(), decisions: channel(), stray: 0 };
        turn.say(&asked(question));
        let killed = program.clone();
        cancel.on_cancel(move || killed.kill());
        let said = turn.run(&told, output, cancel, self.timeout);
        drop(turn);
        let status = program.end_by(Instant::now() + if said.is_ok() { GRACE } else { Duration::ZERO });
        cancel.forget();
        self.programs.forget(&program);
        match (said.map_err(without_keys)?, status) {
            _ if cancel.is_cancelled() => Err(BackendError::Cancelled),
            (Some(outcome), _) => Ok(outcome),
            (None, Some(status)) if status.success() => Ok(Outcome::Whole),
            (None, Some(status)) => Err(BackendError::failed(format!("the agent's program failed ({status})"))),
            (None, None) => Err(BackendError::failed("the agent's program closed its output and went on")),
        }
    }

    fn end(&self) {
        self.programs.end();
    }

    fn kind(&self) -> &'static str {
        "exec"
    }
}

impl Turn {
    /// Passes on what the program says. How it said that the answer has ended; `None`: its output has.
    fn run(
        &mut self,
        told: &Receiver<Told>,
        output: &mut dyn Output,
        cancel: &Cancel,
        timeout: Duration,
    ) -> Result<Option<Outcome>, BackendError> {
        let (mut left, mut looked) = (timeout, Instant::now());
        loop {
            let next = told.recv_timeout(LOOK_INTERVAL);
            if cancel.is_cancelled() {
                return Err(BackendError::Cancelled);
            }
            let passed = std::mem::replace(&mut looked, Instant::now()).elapsed();
            if self.asked.is_empty() {
                left = left.saturating_sub(passed);
            }
            match next {
                Ok(Told::Line(line)) => {
                    if let Some(outcome) = self.take(&line, output)? {
                        return Ok(Some(outcome));
                    }
                }
                Ok(Told::End { is_too_long: true }) => {
                    return Err(BackendError::failed("the agent's program wrote a line without end"));
                }
                Ok(Told::End { .. }) | Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            while let Ok((id, decision)) = self.decisions.1.try_recv() {
                self.tell(id, decision);
            }
            if left.is_zero() {
                return Err(BackendError::failed(format!(
                    "the agent's program took longer than {} s",
                    timeout.as_secs()
                )));
            }
        }
    }

    fn say(&self, message: &Value) {
        // It has closed its input: that is its own business.
        let _ = self.lines.send(format!("{message}\n").into_bytes());
    }

    /// Tells the program what came of its question.
    fn tell(&mut self, id: String, decision: Decision) {
        self.asked.retain(|(asked, _)| *asked != id);
        self.say(&match decision {
            Decision::Chosen(option) => json!({"type": "answer", "id": id, "option": option}),
            Decision::Said(text) => json!({"type": "answer", "id": id, "text": text}),
            Decision::Nothing => json!({"type": "answer", "id": id}),
        });
    }

    /// Takes a line. Gives how the answer has ended, if it says that.
    fn take(&mut self, line: &str, output: &mut dyn Output) -> Result<Option<Outcome>, BackendError> {
        let Some(said) = lenient::value(line).filter(Value::is_object) else {
            if !line.trim().is_empty() {
                self.complain(&format!("not JSON: {line}"));
            }
            return Ok(None);
        };
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        match text("type").as_str() {
            "text" => output.push(&text("text"))?,
            "thinking" => output.thinking(&text("text")),
            "activity" => output.activity(&Activity {
                doing: match text("status").as_str() {
                    "done" => Doing::Done,
                    "error" => Doing::Failed,
                    _ => Doing::Running,
                },
                tool: text("tool"),
                message: text("message"),
                detail: text("detail"),
                call: text("call_id"),
            }),
            "file" => match File::of_base64(&text("name"), &text("mime"), &text("data")) {
                Some(file) => output.file(file)?,
                None => self.complain(&format!("a file whose data is not base64: {}", text("name"))),
            },
            "ask" => self.ask(&said, output),
            "withdraw" => {
                let id = text("id");
                let name = self.asked.iter().find(|(asked, _)| *asked == id).map(|(_, name)| name.clone());
                name.iter().for_each(|name| output.withdraw(name));
            }
            "error" => {
                let message = text("message");
                let words =
                    if message.trim().is_empty() { "the agent's program failed" } else { cut(&message, WORDS_MAX) };
                return Err(BackendError::failed(words));
            }
            "done" => return Ok(Some(outcome(&said))),
            // Of a program that knows more.
            _ => {}
        }
        Ok(None)
    }

    fn complain(&mut self, what: &str) {
        if self.stray < STRAY_LINES_MAX {
            self.stray += 1;
            warn(&format!("exec: {}", cut(what, 200)));
        }
    }

    fn ask(&mut self, said: &Value, output: &mut dyn Output) {
        let of = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let options = said["options"].as_array().into_iter().flatten();
        let ask = Ask {
            text: of(said, "text"),
            options: options.map(|o| Choice { id: of(o, "id"), label: of(o, "label"), kind: of(o, "kind") }).collect(),
            free: said["free"] == true,
            default: said["default"].as_str().map(str::to_owned),
            call: of(said, "call_id"),
        };
        let (id, decisions) = (of(said, "id"), self.decisions.0.clone());
        let asked = id.clone();
        // Nobody listens any more: then the program has ended.
        let name = output.ask(ask, Box::new(move |decision| drop(decisions.send((asked, decision)))));
        self.asked.push((id, name));
    }
}

fn outcome(said: &Value) -> Outcome {
    let notice = cut(said["notice"].as_str().unwrap_or_default(), 400).to_owned();
    match said["finish"].as_str() {
        None if notice.is_empty() => Outcome::Whole,
        finish => {
            let finish = FINISHES.into_iter().find(|known| finish == Some(known)).unwrap_or("other");
            Outcome::Partial(Ending { finish, notice })
        }
    }
}
