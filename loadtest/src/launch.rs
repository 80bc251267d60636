//! Relay and reference as processes on cores of their own, for as long as they are needed.

use crate::scenario::Relay;
use crate::server::Process;
use crate::target::Target;
use crate::tls::TlsArgs;
use crate::tokens;
use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const ADMIN_KEY: &str = "loadtest";
/// Every limit that the load would meet is lifted; checks, metrics and keepalive stay.
const LIFTED: [&str; 8] = [
    "--phone-rate",
    "--agent-rate",
    "--stream-rate",
    "--daily-quota",
    "--monthly-quota",
    "--register-rate",
    "--max-unauthenticated-per-address",
    "--max-unauthenticated",
];
const START_TRIES: u32 = 200;
const START_WAIT: Duration = Duration::from_millis(50);

/// What is started.
pub(crate) struct Binaries {
    pub(crate) relay: PathBuf,
    /// Takes a port as its argument; none for the reference of this program.
    pub(crate) reference: Option<PathBuf>,
}

/// A process that is killed when this goes.
pub(crate) struct Server {
    child: Child,
    directory: Option<PathBuf>,
}

impl Server {
    /// The relay with a shard on each of `cores` and an empty store, and so many tokens.
    pub(crate) fn relay(binaries: &Binaries, cores: &[usize], pairs: usize) -> Result<(Self, Relay)> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("coralmux-bench-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let address = free_address()?;
        let mut command = pinned(cores, &binaries.relay);
        command.args(["--addr", &address.to_string(), "--admin-key", ADMIN_KEY, "--log-level", "warn"]);
        command.args(["--shards", &cores.len().to_string()]).arg("--db").arg(directory.join("relay.db"));
        command.args(LIFTED.iter().flat_map(|flag| [*flag, "0"]));
        Self::start(command, Some(directory), address, pairs)
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

    fn start(
        mut command: Command,
        directory: Option<PathBuf>,
        address: SocketAddr,
        pairs: usize,
    ) -> Result<(Self, Relay)> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut server = Self { child: child.with_context(|| format!("cannot start {command:?}"))?, directory };
        let mut tries = 0;
        while TcpStream::connect(address).is_err() {
            tries += 1;
            if let Some(status) = server.child.try_wait()? {
                bail!("{command:?} ended: {status}");
            }
            if tries == START_TRIES {
                bail!("{command:?} does not listen on {address}");
            }
            std::thread::sleep(START_WAIT);
        }
        let process = Process { pid: server.child.id() };
        let memory_at_start = Some(process.memory()?);
        let target = Target::resolve(&format!("ws://{address}/ws"), &TlsArgs::default())?;
        let tokens = tokens::make(&target, ADMIN_KEY, pairs)?;
        Ok((server, Relay { target, process: Some(process), memory_at_start, tokens }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
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

/// A port that nobody uses just now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
