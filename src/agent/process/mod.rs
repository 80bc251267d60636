//! Programs that the agent starts: by the system's shell, in a process group of their own, without the agent's secrets,
//! and killed with all that they have started, at the latest when the agent ends.

#[cfg(target_os = "linux")]
mod family;
mod program;

pub(super) use program::{Program, show_lines};

use program::MARK;
use std::io;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a program is not told: tokens and keys that are the agent's, or the relay's on the same machine.
const SECRETS: [&str; 4] = ["CORALMUX_AGENT_TOKEN", "CORALMUX_ADMIN_KEY", "OPENAI_API_KEY", "RELAY_ADMIN_KEY"];

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
