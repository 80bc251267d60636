//! A backend that is a program: the question on its standard input, its standard output streamed as it is printed.
//!
//! Each question starts the program anew, by the system's shell, in a process group of its own, which is killed when
//! the answer is cancelled or takes too long. What it prints on standard error goes to the agent's.

use super::backend::{Backend, BackendError, Output, Question};
use super::cancel::Cancel;
use super::printable::printable;
use super::utf8::Decoder;
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What is read of the program's output at once.
const READ_BYTES: usize = 16 << 10;
/// Reads that wait for the answer's way out; then the program waits.
const READS_MAX: usize = 4;
/// The longest line of standard error that is shown, in bytes.
const LINE_BYTES_MAX: usize = 4096;
/// How often it is looked whether a program that has closed its output has ended.
const WAIT_STEP: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Exec {
    command: String,
    timeout: Duration,
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
    /// A backend that runs `command` for each question, for at most `timeout`.
    #[must_use]
    pub(super) fn new(command: String, timeout: Duration) -> Self {
        Self { command, timeout }
    }

    fn spawn(&self, question: &Question) -> io::Result<Child> {
        let mut command = shell(&self.command);
        command
            .env("CORALMUX_CHAT_ID", &question.chat)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
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
    fn answer(&self, question: &Question, output: &mut dyn Output, cancel: &Cancel) -> Result<(), BackendError> {
        if question.text().is_empty() && !question.images().is_empty() {
            return Err(BackendError::failed("this agent takes text only"));
        }
        let child = self.spawn(question).map_err(|error| {
            eprintln!("exec: cannot start: {error}");
            BackendError::failed("the agent's program cannot be started")
        })?;
        let (sender, told) = sync_channel(READS_MAX);
        let program = Program::new(child);
        program.attend(question.text().to_owned(), &sender);
        let killed = program.clone();
        cancel.on_cancel(move || {
            killed.kill();
            // Full: then there is something to take, and it is looked after each.
            let _ = sender.try_send(Told::Look);
        });
        let printed = self.pass_on(&told, output, cancel);
        cancel.forget();
        let status = match printed {
            Ok(deadline) => program.end_by(deadline),
            Err(error) => {
                program.kill();
                program.end_by(Instant::now() + Duration::from_secs(1));
                return Err(error);
            }
        };
        match status {
            _ if cancel.is_cancelled() => Err(BackendError::Cancelled),
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(BackendError::failed(format!("the agent's program failed ({status})"))),
            None => Err(self.too_long()),
        }
    }

    fn kind(&self) -> &'static str {
        "exec"
    }
}

impl Exec {
    fn too_long(&self) -> BackendError {
        BackendError::failed(format!("the agent's program took longer than {} s", self.timeout.as_secs()))
    }

    /// Passes on what the program prints, to its end. By when the program itself has to end.
    fn pass_on(
        &self,
        told: &Receiver<Told>,
        output: &mut dyn Output,
        cancel: &Cancel,
    ) -> Result<Instant, BackendError> {
        let deadline = Instant::now() + self.timeout;
        let mut decoder = Decoder::default();
        loop {
            let next = told.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            if cancel.is_cancelled() {
                return Err(BackendError::Cancelled);
            }
            match next {
                Ok(Told::Printed(bytes)) => output.push(&decoder.feed(&bytes))?,
                Ok(Told::Look) => {}
                Ok(Told::End) | Err(RecvTimeoutError::Disconnected) => {
                    output.push(decoder.finish())?;
                    return Ok(deadline);
                }
                Err(RecvTimeoutError::Timeout) => return Err(self.too_long()),
            }
        }
    }
}

/// The running program, also for whoever cancels it.
#[derive(Clone)]
struct Program {
    child: Arc<Mutex<Child>>,
}

impl Program {
    fn new(child: Child) -> Self {
        Self { child: Arc::new(Mutex::new(child)) }
    }

    fn with<T>(&self, action: impl FnOnce(&mut Child) -> T) -> T {
        action(&mut self.child.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts the threads that write its input and read its outputs. They end with it.
    fn attend(&self, text: String, sender: &SyncSender<Told>) {
        let (stdin, stdout, stderr) = self.with(|child| (child.stdin.take(), child.stdout.take(), child.stderr.take()));
        if let Some(mut stdin) = stdin {
            // A program that does not read its input closes it; that is its own business.
            thread::spawn(move || stdin.write_all(text.as_bytes()));
        }
        if let Some(mut stdout) = stdout {
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
        }
        if let Some(stderr) = stderr {
            thread::spawn(move || show_lines(stderr));
        }
    }

    /// Waits for its end until `deadline`; then kills it, and there is no status.
    fn end_by(&self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            if let Ok(Some(status)) = self.with(Child::try_wait) {
                return Some(status);
            }
            if Instant::now() >= deadline {
                self.kill();
                // Reaped by a thread of its own: a process that the kernel cannot end must not hold up the answer.
                let program = self.clone();
                thread::spawn(move || program.with(|child| child.wait()));
                return None;
            }
            thread::sleep(WAIT_STEP);
        }
    }

    /// Kills it and what it has started.
    fn kill(&self) {
        self.with(|child| {
            #[cfg(unix)]
            {
                use rustix::process::{Pid, Signal, kill_process_group};
                // Only while it was not waited for: later the number may be someone else's.
                if matches!(child.try_wait(), Ok(None)) {
                    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
                }
            }
            // Ended already, or ended by this.
            let _ = child.kill();
        });
    }
}

fn show_lines(mut stderr: impl Read) {
    let mut bytes = [0; 1024];
    let mut line = Vec::new();
    let show = |line: &mut Vec<u8>| {
        eprintln!("exec: {}", printable(&String::from_utf8_lossy(line)));
        line.clear();
    };
    while let Ok(count @ 1..) = stderr.read(&mut bytes) {
        for &byte in &bytes[..count] {
            if byte == b'\n' || line.len() >= LINE_BYTES_MAX {
                show(&mut line);
            }
            if byte != b'\n' {
                line.push(byte);
            }
        }
    }
    if !line.is_empty() {
        show(&mut line);
    }
}

#[cfg(all(test, unix))]
mod tests;
