//! The sockets that the service manager passed to this process (systemd's socket activation, sd_listen_fds(3)).

use rustix::net::sockopt::socket_acceptconn;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

static CLAIMED: AtomicBool = AtomicBool::new(false);

/// Takes the listening sockets that were passed, marked to be closed when another program is executed. To be called
/// first of all. The second call gets nothing.
///
/// The numbers come from the environment (`LISTEN_FDS`, and `LISTEN_PID` names this process), which only the one who started
/// the process has written: what it says was open before the program ran belongs to nobody here. Where it lies, a number may be
/// that of something the program opened itself. So only listening sockets are taken, and only before there are other
/// threads.
///
/// # Errors
/// The environment promises sockets that are not there, or does not read; or there are other threads already.
pub fn claim() -> io::Result<Vec<OwnedFd>> {
    if CLAIMED.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    // An empty variable says nothing, here as for every setting.
    let is_said = |name: &str| std::env::var_os(name).is_some_and(|text| !text.is_empty());
    if !is_said("LISTEN_PID") || !is_said("LISTEN_FDS") {
        return Ok(Vec::new());
    }
    // This looks whether they are open.
    let passed: Vec<_> = sd_notify::listen_fds()?.collect();
    if !passed.is_empty() && has_threads() {
        return Err(io::Error::other("the service manager's sockets have to be taken before threads are started"));
    }
    for (number, &fd) in passed.iter().enumerate() {
        // SAFETY: it is open, and borrowed for this question alone.
        if !socket_acceptconn(unsafe { BorrowedFd::borrow_raw(fd) }).unwrap_or(false) {
            let text =
                format!("socket {number} of those that the service manager passed is not a listening TCP socket");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    }
    // SAFETY: they are open, were opened for this process by the one that started it (see above), and are claimed once.
    Ok(passed.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}

/// Where it cannot be told, there are none: the call is the first thing that the program does.
fn has_threads() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    /// Runs a test that is ignored in a process of its own, to which `passed` is passed as a service manager does it.
    fn run(test: &str, passed: impl Into<Stdio>) {
        let script = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" --exact "$1" --ignored --nocapture 3<&0"#;
        let child = Command::new("sh")
            .args(["-c", script, std::env::current_exe().unwrap().to_str().unwrap(), test])
            .stdin(passed)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&child.stderr)
        );
    }

    fn listener() -> OwnedFd {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    #[test]
    fn sockets_are_not_taken_once_there_are_threads() {
        run("inherited::tests::claims_in_a_thread", listener());
    }

    #[test]
    #[ignore = "run by the one above, in a process of its own"]
    fn claims_in_a_thread() {
        let error = std::thread::spawn(|| claim().unwrap_err()).join().unwrap();
        assert!(error.to_string().contains("before threads"), "{error}");
        assert!(claim().unwrap().is_empty(), "the second call gets nothing");
    }

    #[test]
    fn what_is_not_a_listening_socket_is_known_as_such() {
        let file = File::open("/dev/null").unwrap();
        assert!(!socket_acceptconn(file.as_fd()).unwrap_or(false));
        let connected = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!socket_acceptconn(connected.as_fd()).unwrap_or(false));
        assert!(socket_acceptconn(listener()).unwrap());
    }
}
