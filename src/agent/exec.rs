//! A backend that is a program: the question on its standard input, its standard output streamed as it is printed.
//!
//! Each question starts the program anew, by the system's shell, in a process group of its own, which is killed when
//! the answer has ended, in whatever way, and when the agent ends. What it prints on standard error goes to the agent's.

mod controls;
#[cfg(target_os = "linux")]
mod family;
mod program;
mod screen;

use super::backend::{Backend, BackendError, Outcome, Output, Question};
use super::cancel::Cancel;
use super::printable::warn;
use super::utf8::Decoder;
use program::Program;
use screen::Screen;
use std::io;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Reads that wait for the answer's way out; then the program waits.
const READS_MAX: usize = 4;
/// What the program has started may print for this long when the program itself has ended.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked whether a program that prints has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// What a program is not told: tokens and keys that are the agent's, or the relay's on the same machine.
const SECRETS: [&str; 4] = ["CORALMUX_AGENT_TOKEN", "CORALMUX_ADMIN_KEY", "OPENAI_API_KEY", "RELAY_ADMIN_KEY"];

/// See the module.
#[derive(Debug)]
pub(super) struct Exec {
    command: String,
    timeout: Duration,
    /// Variables of the environment that the program does not get.
    hidden: Vec<String>,
    running: Mutex<Running>,
}

/// The running programs, as many as answers.
#[derive(Debug, Default)]
struct Running {
    programs: Vec<Program>,
    /// No other is started.
    ended: bool,
}

/// What the threads around the program tell.
enum Told {
    Printed(Vec<u8>),
    /// Its output has ended.
    End,
    /// Look whether it was cancelled.
    Look,
}

impl Exec {
    /// A backend that runs `command` for each question, for at most `timeout`. Of the variables that have secrets, and of
    /// those in `hidden`, the program gets none but those in `passed`.
    #[must_use]
    pub(super) fn new(command: String, timeout: Duration, hidden: &[&str], passed: &[String]) -> Self {
        program::prepare();
        let hidden = SECRETS.iter().chain(hidden).filter(|name| !passed.iter().any(|passed| passed == **name));
        let hidden = hidden.map(|name| (*name).to_owned()).collect();
        Self { command, timeout, hidden, running: Mutex::default() }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // Nothing in here panics while it holds the lock.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, question: &Question) -> io::Result<Program> {
        let mut running = self.running();
        if running.ended {
            return Err(io::Error::other("the agent ends"));
        }
        let mut command = shell(&self.command);
        for name in &self.hidden {
            command.env_remove(name);
        }
        let mark = program::new_mark();
        let child = command
            .env("CORALMUX_CHAT_ID", &question.chat)
            .env(program::MARK, &mark)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let program = Program::new(child, mark);
        running.programs.push(program.clone());
        Ok(program)
    }

    fn forget(&self, program: &Program) {
        self.running().programs.retain(|other| !other.is(program));
    }
}

#[cfg(unix)]
fn shell(line: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).process_group(0);
    command
}

#[cfg(not(unix))]
fn shell(line: &str) -> Command {
    let mut command = Command::new("cmd");
    command.args(["/C", line]);
    command
}

impl Backend for Exec {
    fn answer(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        if question.text().is_empty() && !question.images().is_empty() {
            return Err(BackendError::failed("this agent takes text only"));
        }
        let program = self.spawn(question).map_err(|error| {
            warn(&format!("exec: cannot start: {error}"));
            BackendError::failed("the agent's program cannot be started")
        })?;
        let (sender, told) = sync_channel(READS_MAX);
        program.attend(question.text().to_owned(), &sender);
        let killed = program.clone();
        cancel.on_cancel(move || {
            killed.kill();
            // Full: then there is something to take, and it is looked after each.
            let _ = sender.try_send(Told::Look);
        });
        let printed = self.pass_on(&program, &told, output, cancel);
        let status = program.end_by(*printed.as_ref().unwrap_or(&Instant::now()));
        cancel.forget();
        self.forget(&program);
        printed?;
        match status {
            _ if cancel.is_cancelled() => Err(BackendError::Cancelled),
            Some(status) if status.success() => Ok(Outcome::Whole),
            Some(status) => Err(BackendError::failed(format!("the agent's program failed ({status})"))),
            None => Err(self.too_long()),
        }
    }

    fn end(&self) {
        let mut running = self.running();
        running.ended = true;
        running.programs.iter().for_each(Program::kill_all);
    }

    fn kind(&self) -> &'static str {
        "exec"
    }
}

impl Exec {
    fn too_long(&self) -> BackendError {
        BackendError::failed(format!("the agent's program took longer than {} s", self.timeout.as_secs()))
    }

    /// Passes on what the program prints, to its end, and for a moment longer what it leaves behind prints. By when the
    /// program itself has to end.
    fn pass_on(
        &self,
        program: &Program,
        told: &Receiver<Told>,
        output: &mut dyn Output,
        cancel: &Cancel,
    ) -> Result<Instant, BackendError> {
        let deadline = Instant::now() + self.timeout;
        let mut printed = Printed::default();
        let mut grace_ends = None;
        loop {
            let now = Instant::now();
            if grace_ends.is_none() && program.has_exited() {
                grace_ends = Some(now + GRACE);
            }
            let by = grace_ends.map_or(deadline, |at: Instant| at.min(deadline));
            let next = told.recv_timeout(by.saturating_duration_since(now).min(LOOK_INTERVAL));
            if cancel.is_cancelled() {
                return Err(BackendError::Cancelled);
            }
            let now = Instant::now();
            match next {
                Ok(Told::Printed(bytes)) => output.push(&printed.feed(now, &bytes))?,
                Ok(Told::Look) => {}
                Ok(Told::End) | Err(RecvTimeoutError::Disconnected) => {
                    printed.finish(now, output)?;
                    return Ok(deadline);
                }
                Err(RecvTimeoutError::Timeout) => output.push(&printed.poll(now))?,
            }
            if grace_ends.is_some_and(|at| now >= at) {
                printed.finish(now, output)?;
                return Ok(deadline);
            }
            if now >= deadline {
                printed.finish(now, output)?;
                return Err(self.too_long());
            }
        }
    }
}

/// What the program prints, on its way to the phone.
#[derive(Default)]
struct Printed {
    decoder: Decoder,
    screen: Screen,
}

impl Printed {
    fn feed(&mut self, now: Instant, bytes: &[u8]) -> String {
        let text = self.decoder.feed(bytes);
        self.screen.feed(now, &text)
    }

    fn poll(&mut self, now: Instant) -> String {
        self.screen.poll(now)
    }

    /// Nothing more is printed.
    fn finish(&mut self, now: Instant, output: &mut dyn Output) -> Result<(), BackendError> {
        let text = self.screen.feed(now, self.decoder.finish());
        let shown = self.screen.finish();
        output.push(&text)?;
        output.push(&shown.text)?;
        shown.whole.map_or(Ok(()), |whole| output.amend(whole))
    }
}

#[cfg(all(test, unix))]
mod tests;
