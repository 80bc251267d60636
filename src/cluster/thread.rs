//! The thread that talks to NATS. It runs tokio, because its client needs one, and connects again as long as the relay runs.

use super::refusal::StartError;
use super::session::{OpenError, Session};
use super::state::State;
use super::{Call, Found, Options, Sink};
use crossbeam_channel::{Sender, bounded};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// How long a start waits for NATS.
const START_WAIT: Duration = Duration::from_secs(10);
/// Between two tries of a start.
const START_PAUSE: Duration = Duration::from_millis(250);
/// The first pause after a connection; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// A connection that has lasted so long is followed by the first pause again.
const LASTING: Duration = Duration::from_secs(30);

/// What control says to the thread.
pub(super) struct Inputs {
    pub(super) calls: mpsc::Receiver<Call>,
    pub(super) questions: watch::Receiver<u64>,
    pub(super) sink: oneshot::Receiver<Sink>,
}

/// Starts the thread; what it finds first.
pub(super) fn start(options: Options, inputs: Inputs, state: Arc<State>) -> Result<Found, StartError> {
    let failed = |error: std::io::Error| StartError::Thread(error.to_string());
    // The client of NATS takes the process's provider; it stands already where another client was started before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (first, found) = bounded(1);
    let run = move || runtime.block_on(run(options, inputs, state, first));
    thread::Builder::new().name("cluster".to_owned()).spawn(run).map_err(failed)?;
    found.recv().unwrap_or_else(|_| Err(StartError::Thread("it has ended".to_owned())))
}

async fn run(mut options: Options, inputs: Inputs, state: Arc<State>, first: Sender<Result<Found, StartError>>) {
    let Inputs { mut calls, mut questions, sink } = inputs;
    let mut session = match begin(&options).await {
        Ok((session, found)) => {
            let (Found::Made(membership) | Found::There(membership) | Found::Away(membership, _)) = &found;
            // From now on it is this one or none.
            options.member_of = Some(membership.clone());
            match &found {
                Found::Away(_, why) => state.disconnect(why.clone()),
                Found::Made(_) | Found::There(_) => state.connect(),
            }
            let _ = first.send(Ok(found));
            session
        }
        Err(error) => {
            let _ = first.send(Err(error));
            return;
        }
    };
    // The start goes on meanwhile. It ends where that has failed.
    let Ok(sink) = sink.await else { return };
    let mut pause = PAUSE_MIN;
    loop {
        let why = match session.take() {
            Some(session) => {
                let since = Instant::now();
                state.connect();
                tracing::info!("connected to NATS: tokens are shared");
                let why = session.run(&mut calls, &mut questions, &sink, &state).await;
                if since.elapsed() >= LASTING {
                    pause = PAUSE_MIN;
                }
                tracing::warn!(
                    %why,
                    "NATS is away: messages are forwarded and tokens admit, but tokens can be neither made nor changed"
                );
                why
            }
            None => String::new(),
        };
        if !why.is_empty() {
            state.disconnect(why);
        }
        refuse_all(&mut calls);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        match Session::open(&options).await {
            Ok((opened, _)) => session = Some(opened),
            Err(OpenError::Away(why)) => state.disconnect(why),
            Err(OpenError::Refused(refusal)) => {
                tracing::error!(%refusal, "NATS is not used");
                state.disconnect(refusal.to_string());
            }
        }
    }
}

/// The first look, which may be repeated for a while.
async fn begin(options: &Options) -> Result<(Option<Session>, Found), StartError> {
    let deadline = Instant::now() + START_WAIT;
    loop {
        let why = match Session::open(options).await {
            Ok((session, found)) => return Ok((Some(session), found)),
            Err(OpenError::Refused(refusal)) => return Err(StartError::Refused(refusal)),
            Err(OpenError::Away(why)) => why,
        };
        match &options.member_of {
            // The store has all that is needed.
            Some(membership) => return Ok((None, Found::Away(membership.clone(), why))),
            None if Instant::now() >= deadline => return Err(StartError::Away(why)),
            None => tokio::time::sleep(START_PAUSE).await,
        }
    }
}

/// What was asked before it was known that NATS is away.
fn refuse_all(calls: &mut mpsc::Receiver<Call>) {
    // Who asked learns it from the answer that is dropped.
    while calls.try_recv().is_ok() {}
}
