//! The thread that keeps the certificates: it looks after files, asks the CA, and answers on port 80.
//!
//! It runs tokio on its one thread, because `instant-acme` needs it. Nothing that a client of the relay sends comes
//! through this thread, but for the requests to `--http-addr`.

use super::{Failure, exit, http_listener, listeners};
use crate::config::{self, Listen};
use crate::http;
use crate::sys::time::unix_now;
use crate::tls::acme::{self, ChallengeAnswers};
use crate::tls::certificates::Certificates;
use crate::tls::files::{LOOK_EVERY, Pair};
use std::fmt::Display;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use tokio::sync::watch;

/// What there is to keep, with all loaded that is on the disk.
pub(super) struct Prepared {
    pub(super) certificates: Arc<Certificates>,
    pairs: Vec<Pair>,
    acme: Option<acme::Keeper>,
    http: Vec<TcpListener>,
    tokens: Arc<ChallengeAnswers>,
}

/// The thread, running.
pub(super) struct Kept {
    reloads: watch::Sender<()>,
}

impl Prepared {
    /// Loads what is on the disk and binds the addresses for HTTP; `None` where no TLS is spoken.
    pub(super) fn new(tls: &config::Tls) -> Result<Option<Self>, Failure> {
        if !tls.is_on() {
            return Ok(None);
        }
        let certificates = Arc::new(Certificates::default());
        let now = unix_now().as_secs();
        let pairs = tls.pairs.iter().map(|files| Pair::open(&certificates, now, &files.cert, &files.key)).collect();
        let http: Vec<_> = tls.http_addrs.iter().map(|&addr| listeners::bind_http(addr)).collect::<Result<_, _>>()?;
        let tokens = Arc::new(ChallengeAnswers::default());
        let acme = match &tls.acme {
            Some(wanted) => {
                let answers = (!http.is_empty()).then(|| Arc::clone(&tokens));
                let keeper = acme::Keeper::open(wanted, &certificates, answers);
                Some(keeper.map_err(|error| Failure::new(exit::CONFIG, error))?)
            }
            None => None,
        };
        Ok(Some(Self { certificates, pairs, acme, http, tokens }))
    }

    /// Where HTTP is answered, with the ports that the system chose.
    pub(super) fn http_addrs(&self) -> Vec<std::net::SocketAddr> {
        self.http.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Starts the thread. `listen` is where the relay listens: there https is.
    pub(super) fn start(self, listen: &[Listen]) -> Result<Kept, Failure> {
        let failed = |error: &dyn Display| {
            Failure::new(exit::FAILURE, format_args!("cannot start the certificates' thread: {error}"))
        };
        let ports = || listen.iter().filter(|listen| listen.tls).map(|listen| listen.addr.port());
        let tls_port = ports().find(|&port| port == 443).or_else(|| ports().next()).unwrap_or(443);
        let (reloads, reloaded) = watch::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        let spawned = thread::Builder::new()
            .name("certificates".to_owned())
            .spawn(move || runtime.block_on(self.keep(tls_port, reloaded)));
        spawned.map_err(|error| failed(&error))?;
        Ok(Kept { reloads })
    }

    /// Runs until the relay ends.
    async fn keep(self, tls_port: u16, mut reloaded: watch::Receiver<()>) {
        for listener in self.http {
            let tokens = Arc::clone(&self.tokens);
            let respond = move |bytes: &[u8]| {
                let response = http::port80(bytes, |token| tokens.answer(token), tls_port);
                response.unwrap_or_else(|refusal| Some(refusal.response))
            };
            tokio::spawn(async move {
                if let Err(error) = http_listener::serve(listener, respond).await {
                    tracing::error!(%error, "an address for HTTP cannot be served");
                }
            });
        }
        if let Some(acme) = self.acme {
            acme.start(&reloaded);
        }
        let mut pairs = self.pairs;
        loop {
            match tokio::time::timeout(LOOK_EVERY, reloaded.changed()).await {
                Ok(Ok(())) => pairs.iter_mut().for_each(|pair| pair.reload(unix_now().as_secs())),
                Ok(Err(_)) => return,
                Err(_) => pairs.iter_mut().for_each(|pair| pair.look(unix_now().as_secs())),
            }
        }
    }
}

impl Kept {
    /// Loads files again, and asks the CA again where that failed, without waiting for the next time.
    pub(super) fn reload(&self) {
        let _ = self.reloads.send(());
    }
}
