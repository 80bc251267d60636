//! A backend that is a program: the question on its standard input, its standard output streamed as it is printed.
//!
//! Each question starts the program anew, by the system's shell, in a process group of its own, which is killed when
//! the answer has ended, in whatever way, and when the agent ends. What it prints on standard error goes to the agent's.

use super::backend::{Backend, BackendError, Outcome, Output, Question};
use super::cancel::Cancel;
use super::printable::printable;
use super::utf8::Decoder;
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What is read of the program's output at once.
const READ_BYTES: usize = 16 << 10;
/// Reads that wait for the answer's way out; then the program waits.
const READS_MAX: usize = 4;
/// The longest line of standard error that is shown, in bytes.
const LINE_BYTES_MAX: usize = 4096;
/// What the program has started may print for this long when the program itself has ended.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked whether a program that prints has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How often it is looked whether a program that has closed its output has ended.
const WAIT_STEP: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Exec {
    command: String,
    timeout: Duration,
    running: Mutex<Running>,
}

/// The programs under way, as many as answers.
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
    /// A backend that runs `command` for each question, for at most `timeout`.
    #[must_use]
    pub(super) fn new(command: String, timeout: Duration) -> Self {
        Self { command, timeout, running: Mutex::default() }
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
        let child = command
            .env("CORALMUX_CHAT_ID", &question.chat)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let program = Program::new(child);
        running.programs.push(program.clone());
        Ok(program)
    }

    fn forget(&self, program: &Program) {
        self.running().programs.retain(|other| !Arc::ptr_eq(&other.process, &program.process));
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
            eprintln!("exec: cannot start: {error}");
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
        running.programs.iter().for_each(Program::kill);
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
        let mut decoder = Decoder::default();
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
            match next {
                Ok(Told::Printed(bytes)) => output.push(&decoder.feed(&bytes))?,
                Ok(Told::Look) => {}
                Ok(Told::End) | Err(RecvTimeoutError::Disconnected) => {
                    output.push(decoder.finish())?;
                    return Ok(deadline);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if grace_ends.is_some_and(|at| now >= at) {
                output.push(decoder.finish())?;
                return Ok(deadline);
            }
            if now >= deadline {
                return Err(self.too_long());
            }
        }
    }
}

/// The running program, also for whoever cancels it.
#[derive(Clone, Debug)]
struct Program {
    process: Arc<Mutex<Process>>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// It was waited for: its number may be someone else's by now.
    is_reaped: bool,
}

impl Program {
    fn new(child: Child) -> Self {
        Self { process: Arc::new(Mutex::new(Process { child, is_reaped: false })) }
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        // As above.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the threads that write its input and read its outputs. They end with it.
    fn attend(&self, text: String, sender: &SyncSender<Told>) {
        let (stdin, stdout, stderr) = {
            let child = &mut self.process().child;
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        };
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

    /// Waits for its end until `deadline`; then it is killed, and there is no status. What it has started is killed in
    /// any case.
    fn end_by(&self, deadline: Instant) -> Option<ExitStatus> {
        while !self.has_exited() && Instant::now() < deadline {
            thread::sleep(WAIT_STEP);
        }
        let has_exited = self.has_exited();
        self.kill();
        if has_exited {
            return self.process().reap();
        }
        // Reaped by a thread of its own: a process that the kernel cannot end must not hold up the answer.
        let program = self.clone();
        thread::spawn(move || {
            while !program.has_exited() {
                thread::sleep(LOOK_INTERVAL);
            }
            program.process().reap()
        });
        None
    }

    /// Whether it has ended. Its number stays its own, and that of its group, until it is reaped.
    fn has_exited(&self) -> bool {
        #[cfg(unix)]
        {
            use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
            let process = self.process();
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            process.is_reaped || !matches!(waitid(WaitId::Pid(Pid::from_child(&process.child)), options), Ok(None))
        }
        #[cfg(not(unix))]
        {
            let mut process = self.process();
            process.is_reaped || !matches!(process.child.try_wait(), Ok(None))
        }
    }

    /// Kills it and what it has started.
    fn kill(&self) {
        let mut process = self.process();
        if process.is_reaped {
            return;
        }
        #[cfg(unix)]
        {
            use rustix::process::{Pid, Signal, kill_process_group};
            // All of them have ended, or are ended by this.
            let _ = kill_process_group(Pid::from_child(&process.child), Signal::KILL);
        }
        // As above.
        let _ = process.child.kill();
    }
}

impl Process {
    fn reap(&mut self) -> Option<ExitStatus> {
        self.is_reaped = true;
        self.child.wait().ok()
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
