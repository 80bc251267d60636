//! Programs that the agent starts: by the system's shell, in a process group of their own, without the agent's secrets,
//! and killed with all that they have started, at the latest when the agent ends.

#[cfg(target_os = "linux")]
mod family;
mod program;

pub(super) use program::{Program, show_lines};

use program::MARK;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// What a program is not told: tokens and keys that are the agent's, or the relay's on the same machine.
const SECRETS: [&str; 4] = ["CORALMUX_AGENT_TOKEN", "CORALMUX_ADMIN_KEY", "OPENAI_API_KEY", "RELAY_ADMIN_KEY"];

/// The longest line that is read: results of tools have whole files in them.
const LINE_BYTES_MAX: u64 = 32 << 20;

/// The running programs of a backend.
#[derive(Debug)]
pub(super) struct Programs {
    /// Variables of the environment that they do not get.
    hidden: Vec<String>,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    programs: Vec<Program>,
    /// No other is started.
    ended: bool,
}

/// A program's ends of the pipes to it.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

impl Programs {
    /// None runs. Of the variables that have secrets, and of those in `hidden`, programs get none but those in `passed`.
    #[must_use]
    pub(super) fn new(hidden: &[&str], passed: &[String]) -> Self {
        program::prepare();
        let hidden = SECRETS.iter().chain(hidden).filter(|name| !passed.iter().any(|passed| passed == **name));
        Self { hidden: hidden.map(|name| (*name).to_owned()).collect(), running: Mutex::default() }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // Nothing in here panics while it holds the lock.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what the shell makes of `line`, with what `prepare` adds.
    ///
    /// # Errors
    /// The system refuses, or the agent ends.
    pub(super) fn spawn(&self, line: &str, prepare: impl FnOnce(&mut Command)) -> io::Result<(Program, Pipes)> {
        let mut running = self.running();
        if running.ended {
            return Err(io::Error::other("the agent ends"));
        }
        let mut command = shell(line);
        for name in &self.hidden {
            command.env_remove(name);
        }
        let mark = program::new_mark();
        command.env(MARK, &mark);
        prepare(&mut command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let program = Program::new(child, mark);
        running.programs.push(program.clone());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else { return Err(io::Error::other("no pipes")) };
        Ok((program, Pipes { stdin, stdout, stderr }))
    }

    /// It has ended, and with it all that it has started.
    pub(super) fn forget(&self, program: &Program) {
        self.running().programs.retain(|other| !other.is(program));
    }

    /// Kills all, and starts no more.
    pub(super) fn end(&self) {
        let mut running = self.running();
        running.ended = true;
        running.programs.iter().for_each(Program::kill_all);
    }
}

/// Reads the lines that a program writes, to the end of its output. Half a line there is none. Whether one was too long, and
/// the rest is not read.
pub(super) fn read_lines(stdout: ChildStdout, mut handle: impl FnMut(&str)) -> bool {
    let (mut stdout, mut line) = (BufReader::new(stdout), Vec::new());
    loop {
        line.clear();
        match stdout.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(1..) if line.ends_with(b"\n") => handle(&String::from_utf8_lossy(&line)),
            Ok(count) => return count as u64 == LINE_BYTES_MAX,
            Err(_) => return false,
        }
    }
}

/// Writes what is sent to a program's input, by a thread of its own: one that does not read holds up nobody. Ends when the
/// program has closed its input, or nobody is left to send.
pub(super) fn write_lines(mut stdin: ChildStdin) -> Sender<Vec<u8>> {
    let (lines, to_write) = channel::<Vec<u8>>();
    thread::spawn(move || to_write.iter().try_for_each(|line| stdin.write_all(&line).and_then(|()| stdin.flush())));
    lines
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
