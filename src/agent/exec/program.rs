//! A running program: its process, its process group, and what it has started beyond that.

use super::{LOOK_INTERVAL, Told};
use crate::printable::warn;
use coralmux_client::random;
use coralmux_proto::token::hex;
use std::io::{Read, Write};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The variable that names the answer: all that the program starts inherits it.
pub(super) const MARK: &str = "CORALMUX_ANSWER";
/// What is read of the program's output at once.
const READ_BYTES: usize = 16 << 10;
/// The longest line of standard error that is shown, in bytes.
const LINE_BYTES_MAX: usize = 4096;
/// How often it is looked whether a program that has closed its output has ended.
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
pub(super) struct Program {
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

    /// Starts the threads that write its input and read its outputs. They end with it.
    pub(super) fn attend(&self, text: String, sender: &SyncSender<Told>) {
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
    pub(super) fn end_by(&self, deadline: Instant) -> Option<ExitStatus> {
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
    pub(super) fn has_exited(&self) -> bool {
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
    pub(super) fn kill(&self) {
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
    pub(super) fn kill_all(&self) {
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

fn show_lines(mut stderr: impl Read) {
    let mut bytes = [0; 1024];
    let mut line = Vec::new();
    let show = |line: &mut Vec<u8>| {
        warn(&format!("exec: {}", String::from_utf8_lossy(line)));
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
