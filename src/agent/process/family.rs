//! Descendants of programs that have left their process group, as a daemon does (`setsid`): found in `/proc` and killed.
//!
//! The agent is made the reaper of its orphans, so that each of them stays its descendant. Whose they are tells a variable
//! of their environment, or a parent that has it. One that has neither is killed when no other answer is being made.
//! All of it is as much as can be done without a control group; a program that wants to get away can.

use super::program::MARK;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, set_child_subreaper, waitid,
};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::thread;
use std::time::Duration;

/// Looks for what a killed process may have started just before.
const ROUNDS_MAX: usize = 50;
/// Between two looks: for the kernel to end what was killed.
const ROUND_STEP: Duration = Duration::from_millis(4);

/// Orphans of this process's descendants become its children.
pub(super) fn adopt() {
    // Old or foreign kernels: then the process group is all that is killed.
    let _ = set_child_subreaper(Some(getpid()));
}

/// Kills all descendants that bear this mark, and what they have started.
pub(super) fn kill(mark: &str) {
    for _ in 0..ROUNDS_MAX {
        let Some(family) = Family::look() else { return };
        family.reap();
        let doomed = family.of_mark(mark);
        if doomed.is_empty() {
            return;
        }
        for process in doomed {
            process.kill();
        }
        thread::sleep(ROUND_STEP);
    }
}

/// The processes that can be seen, and the agent among them.
struct Family {
    agent: Process,
    processes: Vec<Process>,
}

/// Group and session are numbers as `/proc` has them: 0 where their leader is outside of the agent's namespace, which is
/// how a program entered into a container finds itself.
struct Process {
    pid: Pid,
    parent: i32,
    group: i32,
    session: i32,
    is_zombie: bool,
    mark: Option<String>,
}

impl Process {
    fn read(number: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        // The name in front may have blanks and parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let is_zombie = matches!(fields.next()?, "Z" | "X");
        let mut next = || fields.next()?.parse().ok();
        let (parent, group, session) = (next()?, next()?, next()?);
        Some(Self { pid: Pid::from_raw(number)?, parent, group, session, is_zombie, mark: mark_of(number) })
    }

    fn kill(&self) {
        // The number may have become another's since: a handle is of one process, which is looked at once more.
        let Ok(handle) = pidfd_open(self.pid, PidfdFlags::empty()) else { return };
        let is_same = Self::read(self.pid.as_raw_pid())
            .is_some_and(|now| (now.group, now.session, &now.mark) == (self.group, self.session, &self.mark));
        if is_same {
            // It has ended, or is ended by this.
            let _ = pidfd_send_signal(handle, Signal::KILL);
        }
    }
}

fn mark_of(number: i32) -> Option<String> {
    let environment = fs::read(format!("/proc/{number}/environ")).ok()?;
    let marked = environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="));
    marked.map(|mark| String::from_utf8_lossy(mark).into_owned())
}

impl Family {
    /// Nothing where `/proc` is of another namespace, in which the same numbers are others.
    fn look() -> Option<Self> {
        let number = getpid().as_raw_pid();
        if fs::read_link("/proc/self").ok()?.to_str()?.parse() != Ok(number) {
            return None;
        }
        let entries = fs::read_dir("/proc").ok()?.flatten();
        let processes = entries.filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?)).collect();
        Some(Self { agent: Process::read(number)?, processes })
    }

    /// It was started by a descendant that has ended. Programs themselves are in the agent's session, as leaders of groups.
    fn is_adopted(&self, process: &Process) -> bool {
        let is_program = process.group == process.pid.as_raw_pid();
        let is_of_other_group = process.group != self.agent.group;
        process.parent == self.agent.pid.as_raw_pid() && (self.has_left(process) || is_of_other_group && !is_program)
    }

    /// It is in another session than the agent.
    fn has_left(&self, process: &Process) -> bool {
        process.session != self.agent.session
    }

    fn of_mark(&self, mark: &str) -> Vec<&Process> {
        let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
        for process in &self.processes {
            children.entry(process.parent).or_default().push(process);
        }
        let descendants = |of: Vec<i32>| {
            let (mut found, mut open) = (HashSet::new(), of);
            while let Some(parent) = open.pop() {
                for child in children.get(&parent).into_iter().flatten() {
                    let number = child.pid.as_raw_pid();
                    if found.insert(number) {
                        open.push(number);
                    }
                }
            }
            found
        };
        let mine = descendants(vec![self.agent.pid.as_raw_pid()]);
        let is_mine = |process: &Process| mine.contains(&process.pid.as_raw_pid());
        let marked = |process: &Process| is_mine(process) && process.mark.as_deref() == Some(mark);
        let is_last = !self
            .processes
            .iter()
            .any(|process| is_mine(process) && process.mark.as_deref().is_some_and(|of| of != mark));
        let stray = |process: &Process| {
            is_last
                && process.mark.is_none()
                && !process.is_zombie
                && self.is_adopted(process)
                && self.has_left(process)
        };
        let roots: Vec<i32> = self
            .processes
            .iter()
            .filter(|process| marked(process) || stray(process))
            .map(|process| process.pid.as_raw_pid())
            .collect();
        let mut doomed = descendants(roots.clone());
        doomed.extend(roots);
        self.processes.iter().filter(|p| doomed.contains(&p.pid.as_raw_pid()) && !p.is_zombie).collect()
    }

    /// What was adopted and has ended is nobody else's to wait for.
    fn reap(&self) {
        for process in self.processes.iter().filter(|process| process.is_zombie && self.is_adopted(process)) {
            // It is one's own child, and has ended.
            let _ = waitid(WaitId::Pid(process.pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}
