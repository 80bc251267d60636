//! What is typed while the agent runs: lines, if there is a terminal and the agent is in its foreground. In the background
//! it must not read: the system would stop it.

use std::sync::mpsc;

/// Lines, as they are typed. `None`: standard input is no terminal, or this system has no way to read it with care.
#[cfg(unix)]
#[must_use]
pub fn lines() -> Option<mpsc::Receiver<String>> {
    use std::io::{BufRead, IsTerminal};
    if !std::io::stdin().is_terminal() {
        return None;
    }
    let (sender, lines) = mpsc::sync_channel(16);
    let read = move || {
        let stdin = std::io::stdin();
        loop {
            if !is_typed() {
                std::thread::sleep(INTERVAL);
                continue;
            }
            let mut line = String::new();
            match stdin.lock().read_line(&mut line) {
                // The terminal is gone.
                Ok(0) | Err(_) => return,
                // Nobody asks any more.
                Ok(_) if sender.send(line).is_err() => return,
                Ok(_) => {}
            }
        }
    };
    std::thread::Builder::new().name("terminal".to_owned()).spawn(read).ok()?;
    Some(lines)
}

/// Between two looks whether something was typed.
#[cfg(unix)]
const INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

/// Something was typed, and it was for this process.
#[cfg(unix)]
fn is_typed() -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let stdin = rustix::stdio::stdin();
    let own = rustix::process::getpgrp();
    if rustix::termios::tcgetpgrp(stdin).ok() != Some(own) {
        return false;
    }
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    poll(&mut polled, Some(&rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// See above.
#[cfg(not(unix))]
#[must_use]
pub fn lines() -> Option<mpsc::Receiver<String>> {
    None
}
