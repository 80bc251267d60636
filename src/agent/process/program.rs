//! A running program: its process, its process group, and what it has started beyond that.

use crate::printable::warn;
use coralmux_client::random;
use coralmux_proto::token::hex;
use std::io::Read;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The variable that names the answer: all that the program starts inherits it.
pub(super) const MARK: &str = "CORALMUX_ANSWER";
/// The longest line of standard error that is shown, in bytes.
const LINE_BYTES_MAX: usize = 4096;
/// How often it is looked whether a program that is about to end has ended, and one that was killed.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const WAIT_STEP: Duration = Duration::from_millis(10);

/// Before the first program is started.
pub(super) fn prepare() {
    #[cfg(target_os = "linux")]
    super::family::adopt();
}

/// A new value of [`MARK`].
pub(super) fn new_mark() -> String {
    let mut bytes = [0; 16];
    random(&mut bytes);
    hex(&bytes)
}

/// The running program, also for whoever cancels it.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    process: Arc<Mutex<Process>>,
    /// By which its descendants are known, where they still have their environment.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code))]
    mark: Arc<str>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// It was waited for: its number may be someone else's by now.
    is_reaped: bool,
}

impl Program {
    pub(super) fn new(child: Child, mark: String) -> Self {
        Self { process: Arc::new(Mutex::new(Process { child, is_reaped: false })), mark: mark.into() }
    }

    /// Whether both are the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.process, &other.process)
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        // Nothing in here panics while it holds the lock.
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its end until `deadline`; then it is killed, and there is no status. What it has started is killed in
    /// any case.
    pub(crate) fn end_by(&self, deadline: Instant) -> Option<ExitStatus> {
        while !self.has_exited() && Instant::now() < deadline {
            thread::sleep(WAIT_STEP);
        }
        let has_exited = self.has_exited();
        self.kill_all();
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
    pub(crate) fn has_exited(&self) -> bool {
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

    /// Kills it and its process group.
    pub(crate) fn kill(&self) {
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

impl Program {
    /// Kills it and all that it has started, in whatever process group.
    pub(crate) fn kill_all(&self) {
        self.kill();
        #[cfg(target_os = "linux")]
        super::family::kill(&self.mark);
    }
}

impl Process {
    fn reap(&mut self) -> Option<ExitStatus> {
        self.is_reaped = true;
        self.child.wait().ok()
    }
}

/// Shows the lines that a program writes on standard error, to their end.
pub(crate) fn show_lines(kind: &str, mut stderr: impl Read) {
    let mut bytes = [0; 1024];
    let mut line = Vec::new();
    let show = |line: &mut Vec<u8>| {
        warn(&format!("{kind}: {}", String::from_utf8_lossy(line)));
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
