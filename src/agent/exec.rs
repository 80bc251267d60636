//! A backend that is a program: the question on its standard input, its standard output streamed as it is printed.
//!
//! Each question starts the program anew, by the system's shell, in a process group of its own, which is killed when
//! the answer has ended, in whatever way, and when the agent ends. What it prints on standard error goes to the agent's.

mod controls;
mod json;
mod screen;

use super::backend::{Backend, BackendError, Outcome, Output, Question};
use super::cancel::Cancel;
use super::printable::warn;
use super::process::{Pipes, Program, Programs, show_lines};
use super::utf8::Decoder;
pub(super) use json::JsonLines;
use screen::Screen;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// What is read of the program's output at once.
const READ_BYTES: usize = 16 << 10;
/// Reads that wait for the answer's way out; then the program waits.
const READS_MAX: usize = 4;
/// What the program has started may print for this long when the program itself has ended.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked whether a program that prints has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub(super) struct Exec {
    command: String,
    timeout: Duration,
    programs: Programs,
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
        Self { command, timeout, programs: Programs::new(hidden, passed) }
    }
}

/// Starts the threads that write the program's input and read its outputs. They end with it.
fn attend(pipes: Pipes, text: String, sender: &SyncSender<Told>) {
    let Pipes { mut stdin, mut stdout, stderr } = pipes;
    // A program that does not read its input closes it; that is its own business.
    thread::spawn(move || stdin.write_all(text.as_bytes()));
    let sender = sender.clone();
    thread::spawn(move || {
        let mut bytes = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = stdout.read(&mut bytes) {
            if sender.send(Told::Printed(bytes[..count].to_vec())).is_err() {
                return;
            }
        }
        // Nobody listens any more: then nobody waits.
        let _ = sender.send(Told::End);
    });
    thread::spawn(move || show_lines("exec", stderr));
}

impl Backend for Exec {
    fn answer(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<Outcome, BackendError> {
        if question.text().is_empty() && !question.images().is_empty() {
            return Err(BackendError::failed("this agent takes text only"));
        }
        let spawned = self.programs.spawn(&self.command, |command| {
            command.env("CORALMUX_CHAT_ID", &question.chat);
            command.env("CORALMUX_ASKED_AT", question.asked_at_ms().to_string());
        });
        let (program, pipes) = spawned.map_err(|error| {
            warn(&format!("exec: cannot start: {error}"));
            BackendError::failed("the agent's program cannot be started")
        })?;
        let (sender, told) = sync_channel(READS_MAX);
        attend(pipes, question.text().to_owned(), &sender);
        let killed = program.clone();
        cancel.on_cancel(move || {
            killed.kill();
            // Full: then there is something to take, and it is looked after each.
            let _ = sender.try_send(Told::Look);
        });
        let printed = self.pass_on(&program, &told, output, cancel);
        let status = program.end_by(*printed.as_ref().unwrap_or(&Instant::now()));
        cancel.forget();
        self.programs.forget(&program);
        printed?;
        match status {
            _ if cancel.is_cancelled() => Err(BackendError::Cancelled),
            Some(status) if status.success() => Ok(Outcome::Whole),
            Some(status) => Err(BackendError::failed(format!("the agent's program failed ({status})"))),
            None => Err(self.too_long()),
        }
    }

    fn end(&self) {
        self.programs.end();
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
