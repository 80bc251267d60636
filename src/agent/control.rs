//! How `coralmux-agent devices`, `pair`, `revoke` and `owner` reach the agent that runs: a socket in the folder of its
//! devices, for its owner alone. A request is a line of JSON, and so is each answer.

use serde_json::Value;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

/// A command of another process.
#[derive(Debug)]
pub struct Control {
    /// What it wants.
    pub request: Value,
    /// Where the answers go.
    pub reply: Caller,
}

/// Who has sent a command, as long as it is there.
#[derive(Clone, Debug)]
pub struct Caller {
    answers: mpsc::Sender<Value>,
    gone: Arc<AtomicBool>,
}

impl Caller {
    /// Answers it. Whether it is still there.
    pub fn send(&self, answer: Value) -> bool {
        !self.is_gone() && self.answers.send(answer).is_ok()
    }

    /// The process has ended, or has closed its connection.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

#[cfg(unix)]
pub use unix::{Connection, listen};

#[cfg(unix)]
mod unix {
    use super::{Arc, AtomicBool, Caller, Control, Ordering, Path, Value, io, mpsc};
    use std::fs::File;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    /// The socket's name in the folder.
    const NAME: &str = "control";
    /// The longest line that is read.
    const LINE_BYTES_MAX: u64 = 16 << 10;
    /// Connections at once.
    const CALLERS_MAX: usize = 8;
    /// For so long a caller may say nothing while a person decides.
    const IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

    /// Does something with the socket's path. One that is too long for a socket (108 bytes) is gone about, where the system
    /// can.
    fn at<T>(folder: &Path, act: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
        match act(&folder.join(NAME)) {
            Err(error) if cfg!(target_os = "linux") && error.kind() == io::ErrorKind::InvalidInput => {
                let open = File::open(folder)?;
                act(&PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())).join(NAME))
            }
            done => done,
        }
    }

    /// Listens until the process ends.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen(folder: &Path) -> io::Result<mpsc::Receiver<Control>> {
        // Of an agent that was killed; the lock keeps two from running at once.
        match std::fs::remove_file(folder.join(NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = at(folder, |path| UnixListener::bind(path))?;
        std::fs::set_permissions(folder.join(NAME), std::fs::Permissions::from_mode(0o600))?;
        let (sender, controls) = mpsc::sync_channel(CALLERS_MAX);
        let callers = Arc::new(AtomicUsize::new(0));
        std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                if callers.fetch_add(1, Ordering::Relaxed) >= CALLERS_MAX {
                    callers.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let (sender, callers) = (sender.clone(), Arc::clone(&callers));
                let attended = std::thread::Builder::new().name("control".to_owned()).spawn({
                    let callers = Arc::clone(&callers);
                    move || {
                        // A caller that has gone is nobody's loss.
                        let _ = attend(&stream, &sender);
                        callers.fetch_sub(1, Ordering::Relaxed);
                    }
                });
                if attended.is_err() {
                    callers.fetch_sub(1, Ordering::Relaxed);
                }
            }
        })?;
        Ok(controls)
    }

    /// However attending ends, whoever waits for the caller hears of it.
    struct SetOnDrop(Arc<AtomicBool>);

    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn attend(stream: &UnixStream, controls: &mpsc::SyncSender<Control>) -> io::Result<()> {
        stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
        let mut lines = BufReader::new(stream.try_clone()?.take(LINE_BYTES_MAX));
        let (sender, answers) = mpsc::channel::<Value>();
        let reply = Caller { answers: sender, gone: Arc::default() };
        let _gone = SetOnDrop(Arc::clone(&reply.gone));
        let mut writer = stream.try_clone()?;
        std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            for answer in answers {
                if writeln!(writer, "{answer}").is_err() {
                    return;
                }
            }
        })?;
        let mut line = String::new();
        while lines.read_line(&mut line)? != 0 {
            let request = serde_json::from_str(&line).unwrap_or_default();
            if controls.send(Control { request, reply: reply.clone() }).is_err() {
                break;
            }
            line.clear();
            lines.get_mut().set_limit(LINE_BYTES_MAX);
        }
        Ok(())
    }

    /// The other side: a command that talks to the agent.
    #[derive(Debug)]
    pub struct Connection {
        stream: UnixStream,
        lines: BufReader<UnixStream>,
    }

    impl Connection {
        /// Connects to the agent that runs. `None`: none does.
        #[must_use]
        pub fn connect(folder: &Path) -> Option<Self> {
            let stream = at(folder, |path| UnixStream::connect(path)).ok()?;
            let lines = BufReader::new(stream.try_clone().ok()?);
            Some(Self { stream, lines })
        }

        /// Asks for something.
        ///
        /// # Errors
        /// The agent has ended.
        pub fn ask(&mut self, request: &Value) -> io::Result<()> {
            writeln!(self.stream, "{request}")
        }

        /// The next answer.
        ///
        /// # Errors
        /// The agent has ended.
        pub fn answer(&mut self) -> io::Result<Value> {
            let mut line = String::new();
            if self.lines.read_line(&mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the agent has ended"));
            }
            Ok(serde_json::from_str(&line)?)
        }
    }
}

/// Windows has no such sockets in Rust's library: there the commands work at the agent's own terminal alone.
#[cfg(not(unix))]
pub fn listen(_: &Path) -> io::Result<mpsc::Receiver<Control>> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
