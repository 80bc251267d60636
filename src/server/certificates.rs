//! The thread that keeps the certificates: it looks after files, asks the CA, and answers on port 80.
//!
//! Here alone is tokio, with one thread, for `instant-acme` needs it. Nothing that a client of the relay sends comes
//! through this thread, but for the requests to `--http-addr`.

use super::{Failure, exit, unix_ms};
use crate::config;
use crate::tls::certificates::Certificates;
use crate::tls::files::{LOOK_EVERY, Pair};
use crate::tls::settings::server_config;
use rustls::ServerConfig;
use std::sync::Arc;
use std::thread;
use tokio::sync::watch;

/// What there is to keep, all loaded that is on the disk.
pub(super) struct Keeper {
    pub(super) certificates: Arc<Certificates>,
    pairs: Vec<Pair>,
}

/// The thread, running.
pub(super) struct Kept {
    /// The settings of all TLS connections.
    #[expect(dead_code, reason = "until the shards speak TLS")]
    pub(super) server_config: Arc<ServerConfig>,
    reloads: watch::Sender<()>,
}

impl Keeper {
    /// Loads what is on the disk; `None` where no TLS is spoken.
    pub(super) fn prepare(tls: &config::Tls) -> Result<Option<Self>, Failure> {
        if !tls.is_on() {
            return Ok(None);
        }
        let certificates = Arc::new(Certificates::default());
        let pairs = tls.pairs.iter().map(|files| Pair::open(&certificates, unix_s(), &files.cert, &files.key));
        let pairs = pairs.collect::<Result<_, _>>().map_err(|error| Failure::new(exit::CONFIG, error))?;
        Ok(Some(Self { certificates, pairs }))
    }

    /// Starts the thread.
    pub(super) fn start(self) -> Result<Kept, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(exit::FAILURE, format_args!("cannot start the certificates' thread: {error}"))
        };
        let server_config = server_config(Arc::clone(&self.certificates)).map_err(|error| failed(&error))?;
        let (reloads, reloaded) = watch::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        let spawned = thread::Builder::new()
            .name("certificates".to_owned())
            .spawn(move || runtime.block_on(keep_files(self.pairs, reloaded)));
        spawned.map_err(|error| failed(&error))?;
        Ok(Kept { server_config, reloads })
    }
}

impl Kept {
    /// Loads files again and asks the CA again where it is due, without waiting for the next time.
    pub(super) fn reload(&self) {
        let _ = self.reloads.send(());
    }
}

/// Looks after files until the relay ends.
async fn keep_files(mut pairs: Vec<Pair>, mut reloaded: watch::Receiver<()>) {
    loop {
        match tokio::time::timeout(LOOK_EVERY, reloaded.changed()).await {
            Ok(Ok(())) => pairs.iter_mut().for_each(|pair| pair.reload(unix_s())),
            Ok(Err(_)) => return,
            Err(_) => pairs.iter_mut().for_each(|pair| pair.look(unix_s())),
        }
    }
}

fn unix_s() -> u64 {
    unix_ms() / 1000
}
