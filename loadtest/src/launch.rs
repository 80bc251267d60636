//! Relay and reference as processes on cores of their own, for as long as they are needed.

use crate::scenario::Relay;
use crate::server;
use crate::target::Target;
use crate::tls::TlsArgs;
use crate::tokens;
use anyhow::{Context as _, Result, bail, ensure};
use coralmux_test_support::launch::{self, Process, free_address};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const ADMIN_KEY: &str = "loadtest";
/// Less than the hostile pairs of a usual test can have promised to them.
const ATTACKED_MEMORY: &str = "64MiB";
const START_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// What is started.
pub(crate) struct Binaries {
    pub(crate) relay: PathBuf,
    /// Takes a port as its argument; none for the reference of this program.
    pub(crate) reference: Option<PathBuf>,
}

/// A relay with a plain port and a TLS port.
pub(crate) struct Secured {
    _server: Server,
    pub(crate) plain: Relay,
    pub(crate) tls: Relay,
}

/// A relay that is attacked, with the limits that it has by default.
pub(crate) struct Attacked {
    _server: Server,
    /// Without tokens.
    pub(crate) relay: Relay,
}

impl Attacked {
    /// So many new tokens, with the body that goes with the request for each.
    pub(crate) fn tokens(&self, count: usize, body: &str) -> Result<Vec<String>> {
        tokens::make_with(&self.relay.target, ADMIN_KEY, count, body)
    }
}

/// What a certificate's key is for.
#[derive(Clone, Copy)]
pub(crate) enum KeyKind {
    P256,
    Rsa2048,
}

/// A process with its directory, both only for as long as this lives.
pub(crate) struct Server {
    process: Process,
    directory: Option<PathBuf>,
}

impl Server {
    /// The relay with a shard on each of `cores` and an empty store, and so many tokens.
    pub(crate) fn relay(binaries: &Binaries, cores: &[usize], pairs: usize) -> Result<(Self, Relay)> {
        let directory = new_directory()?;
        let address = free_address()?;
        let command = Self::relay_command(binaries, cores, &directory, address);
        Self::start(command, Some(directory), address, pairs)
    }

    /// The relay with one shard and its store in a folder that stays, with flags of the test's; and so many tokens.
    pub(crate) fn in_folder(
        binaries: &Binaries,
        core: usize,
        folder: &Path,
        flags: &[&str],
        pairs: usize,
    ) -> Result<(Self, Relay)> {
        let address = free_address()?;
        let mut command = Self::relay_command(binaries, &[core], folder, address);
        command.args(flags);
        Self::start(command, None, address, pairs)
    }

    /// Has it end in good order.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.process.0), Signal::TERM).context("cannot stop the relay")?;
        let status = self.process.wait_for_end(STOP_TIMEOUT)?.context("the relay does not end")?;
        ensure!(status.success(), "the relay ended: {status}");
        Ok(())
    }

    fn relay_command(binaries: &Binaries, cores: &[usize], directory: &Path, address: SocketAddr) -> Command {
        let mut command = pinned(cores, &binaries.relay);
        launch::relay(&mut command, address, ADMIN_KEY, &directory.join("relay.db"));
        command.args(["--log-level", "warn", "--shards", &cores.len().to_string()]);
        // Checks, metrics and keepalive stay.
        launch::lift_limits(&mut command, &[]);
        command
    }

    /// A relay as above that speaks TLS on a second port, and so many tokens for each of the two.
    pub(crate) fn secured(
        binaries: &Binaries,
        core: usize,
        pairs: usize,
        settings: &TlsArgs,
        kind: KeyKind,
    ) -> Result<Secured> {
        let directory = new_directory()?;
        let (cert, key) = certificate(&directory, kind)?;
        let (address, secured) = (free_address()?, free_address()?);
        let mut command = Self::relay_command(binaries, &[core], &directory, address);
        command.args(["--addr", &format!("tls://{secured}")]).arg("--tls-cert").arg(&cert).arg("--tls-key").arg(&key);
        let (server, plain) = Self::start(command, Some(directory), address, pairs)?;
        let settings = TlsArgs { ca: Some(cert), ..settings.clone() };
        let target = Target::resolve(&format!("wss://{secured}/ws"), &settings)?;
        let tokens = tokens::make(&target, ADMIN_KEY, pairs)?;
        let tls = Relay { target, tokens, memory_at_start: Some(server.measured().memory()?), ..plain.clone() };
        Ok(Secured { _server: server, plain, tls })
    }

    /// The relay with one shard and little memory for messages, which speaks TLS alone if so wished. `flags` go last.
    pub(crate) fn attacked(binary: &Path, core: usize, tls: bool, flags: &[String]) -> Result<Attacked> {
        let (directory, address) = (new_directory()?, free_address()?);
        let mut command = pinned(&[core], binary);
        command.args(["--admin-key", ADMIN_KEY, "--log-level", "warn", "--shards", "1"]);
        command.args(["--memory-budget", ATTACKED_MEMORY, "--metrics-addr", "off"]);
        command.arg("--db").arg(directory.join("relay.db")).args(flags);
        let (url, settings) = match tls {
            false => {
                command.args(["--addr", &address.to_string()]);
                (format!("ws://{address}/ws"), TlsArgs::default())
            }
            true => {
                let (cert, key) = certificate(&directory, KeyKind::P256)?;
                command.args(["--addr", &format!("tls://{address}")]);
                command.arg("--tls-cert").arg(&cert).arg("--tls-key").arg(&key);
                (format!("wss://{address}/ws"), TlsArgs { ca: Some(cert), ..TlsArgs::default() })
            }
        };
        let mut server = Self::spawn(command, Some(directory))?;
        server.listens(address)?;
        let process = server.measured();
        let relay = Relay {
            target: Target::resolve(&url, &settings)?,
            process: Some(process),
            memory_at_start: Some(process.memory()?),
            tokens: Vec::new(),
        };
        Ok(Attacked { _server: server, relay })
    }

    /// HAProxy that speaks TLS in front of `behind`, and so many tokens. What it costs is the cost of both.
    pub(crate) fn haproxy(binary: &Path, core: usize, behind: &Relay, pairs: usize) -> Result<(Self, Relay)> {
        let directory = new_directory()?;
        let (cert, key) = certificate(&directory, KeyKind::P256)?;
        let both = directory.join("both.pem");
        std::fs::write(&both, [std::fs::read(&cert)?, std::fs::read(&key)?].concat())?;
        let address = free_address()?;
        let settings = directory.join("haproxy.cfg");
        let text = format!(
            "global\n nbthread 1\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n \
             timeout server 1h\nlisten relay\n bind {address} ssl crt {} alpn http/1.1\n server relay {}\n",
            both.display(),
            behind.target.address
        );
        std::fs::write(&settings, text)?;
        let mut command = pinned(&[core], binary);
        command.arg("-f").arg(&settings).arg("-db");
        let target =
            Target::resolve(&format!("wss://{address}/ws"), &TlsArgs { ca: Some(cert), ..TlsArgs::default() })?;
        let mut server = Self::spawn(command, Some(directory))?;
        server.listens(address)?;
        let process = server::Process { behind: behind.process.map(|process| process.pid), ..server.measured() };
        let tokens = tokens::make(&target, ADMIN_KEY, pairs)?;
        Ok((server, Relay { target, process: Some(process), memory_at_start: None, tokens }))
    }

    /// The reference, and so many tokens.
    pub(crate) fn reference(binaries: &Binaries, core: usize, pairs: usize) -> Result<(Self, Relay)> {
        let address = free_address()?;
        let mut command = match &binaries.reference {
            Some(path) => pinned(&[core], path),
            None => {
                let mut command = pinned(&[core], &std::env::current_exe()?);
                command.arg("reference");
                command
            }
        };
        command.arg(address.port().to_string());
        Self::start(command, None, address, pairs)
    }

    fn start(command: Command, directory: Option<PathBuf>, address: SocketAddr, pairs: usize) -> Result<(Self, Relay)> {
        let mut server = Self::spawn(command, directory)?;
        server.listens(address)?;
        let process = server.measured();
        let memory_at_start = Some(process.memory()?);
        let target = Target::resolve(&format!("ws://{address}/ws"), &TlsArgs::default())?;
        let tokens = tokens::make(&target, ADMIN_KEY, pairs)?;
        Ok((server, Relay { target, process: Some(process), memory_at_start, tokens }))
    }

    /// A process that says nothing on standard output, with the directory that goes with it.
    pub(crate) fn spawn(mut command: Command, directory: Option<PathBuf>) -> Result<Self> {
        let process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
        Ok(Self { process, directory })
    }

    /// Waits until it listens there.
    fn listens(&mut self, address: SocketAddr) -> Result<()> {
        Ok(self.process.wait_until_listening(address, START_TIMEOUT)?)
    }

    fn measured(&self) -> server::Process {
        server::Process::from(self.process.0.id())
    }
}

/// A folder of this process for what a test needs.
pub(crate) fn new_directory() -> Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("coralmux-bench-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// A certificate for 127.0.0.1 and its key, made by openssl.
fn certificate(directory: &Path, kind: KeyKind) -> Result<(PathBuf, PathBuf)> {
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    let new_key: &[_] = match kind {
        KeyKind::P256 => &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        KeyKind::Rsa2048 => &["-newkey", "rsa:2048"],
    };
    let output = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2"])
        .args(new_key)
        .args(["-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .context("cannot run openssl")?;
    if !output.status.success() {
        bail!("openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok((cert, key))
}

impl Drop for Server {
    fn drop(&mut self) {
        // Before its directory goes.
        let _ = self.process.0.kill();
        let _ = self.process.0.wait();
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

/// Keeps this thread on a core.
pub(crate) fn pin_to(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot run on core {core}"))
}

/// The cores that this process may use.
pub(crate) fn usable_cores() -> Result<Vec<usize>> {
    let cores = sched_getaffinity(None).context("which cores may be used")?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core)).collect())
}

/// `binary` on some cores. taskset becomes the program that it starts, so the process is the program's.
fn pinned(cores: &[usize], binary: &Path) -> Command {
    let list: Vec<_> = cores.iter().map(ToString::to_string).collect();
    let mut command = Command::new("taskset");
    command.args(["-c", &list.join(",")]).arg(binary);
    command
}
