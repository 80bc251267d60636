//! Processes that tests and the load generator start: killed when they are no longer needed, whatever happens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The relay's limits that only tests of these limits should meet; 0 lifts each.
const LIMITS: [&str; 8] = [
    "--phone-rate",
    "--agent-rate",
    "--stream-rate",
    "--daily-quota",
    "--monthly-quota",
    "--register-rate",
    "--max-unauthenticated-per-address",
    "--max-unauthenticated",
];

/// Adds flags to a relay's command line, and lifts the limits that they do not set.
pub fn lift_limits(command: &mut Command, flags: &[&str]) {
    let lifted = LIMITS.iter().filter(|limit| !flags.contains(limit));
    command.args(lifted.flat_map(|limit| [*limit, "0"])).args(flags);
}

/// The relay's command line: where it listens, its admin key, where its store is.
pub fn relay(command: &mut Command, address: SocketAddr, admin_key: &str, store: &Path) {
    command.args(["--addr", &address.to_string(), "--admin-key", admin_key, "--db"]).arg(store);
}

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub struct Process(pub Child);

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// What the system says, with the command.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn();
        child.map(Self).map_err(|error| io::Error::new(error.kind(), format!("cannot start {command:?}: {error}")))
    }

    /// Waits until something listens on `address`.
    ///
    /// # Errors
    /// The process ended, or nothing listened for as long as `patience`.
    pub fn wait_until_listening(&mut self, address: SocketAddr, patience: Duration) -> io::Result<()> {
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.0.try_wait()? {
                return Err(io::Error::other(format!("the process that was to listen on {address} ended: {status}")));
            }
            if started.elapsed() > patience {
                return Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing listens on {address}")));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Waits for its end; `None` if it still runs after `patience`.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait_for_end(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            let status = self.0.try_wait()?;
            if status.is_some() || started.elapsed() > patience {
                return Ok(status);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address of this machine with a port that was free a moment ago.
///
/// # Errors
/// What the system says.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
