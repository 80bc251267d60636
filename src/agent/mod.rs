//! The agent: the other end of a phone, with an AI server, a program or an echo behind it.
//!
//! [`run`] is `coralmux-agent`; [`serve`] is its life, which `coralmux-relay demo` uses too. It knows `client` and
//! nothing of the relay's inside. It must never show the token, the pairing secret or an API key anywhere but in the
//! pairing link.

pub mod backend;
pub mod cancel;
mod chats;
pub mod echo;
mod exec;
pub mod history;
mod openai;
mod options;
pub mod pairing;
pub mod printable;
mod serve;
pub mod state;
mod utf8;

pub use serve::{Ending, Settings, serve};

use crate::client::{Client, Encryption, RegisterError, StartError, TlsError, Trust, register};
use crate::e2e::{Link, PairingSecret};
use crate::proto::token::Role;
use backend::Backend;
use openai::OpenAi;
use options::{BackendOptions, E2e, Options};
use printable::printable;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use state::{State, StateError};
use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use thiserror::Error;

/// It was asked to stop, and stopped in order.
pub const STOPPED: u8 = 0;
/// Something failed that has no code of its own.
pub const FAILED: u8 = 1;
/// The relay refuses the token, or it was revoked: starting again will not help.
pub const REFUSED: u8 = 3;
/// Another agent has this token's place.
pub const REPLACED: u8 = 4;

/// Why the agent cannot start.
#[derive(Debug, Error)]
enum Failure {
    #[error("{0}")]
    Client(#[from] StartError),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("{0}")]
    State(#[from] StateError),
    #[error("no token: {0}")]
    Register(#[from] RegisterError),
    #[error("the API key in {path}: {text}", path = .path.display())]
    ApiKey { path: PathBuf, text: String },
    #[error("signals: {0}")]
    Signals(io::Error),
}

/// Runs the agent to its end; gives the process's exit code.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let options = match Options::read(args) {
        Ok(options) => options,
        Err(error) => {
            // To the right stream; a closed one is nobody's loss.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(FAILED);
        }
    };
    match start(&options) {
        Ok(Ending::Stopped) => STOPPED,
        Ok(ending) => {
            let (text, exit_code) = farewell(&ending);
            eprintln!("coralmux-agent: {}", printable(&text));
            exit_code
        }
        Err(failure) => {
            eprintln!("coralmux-agent: {}", printable(&failure.to_string()));
            FAILED
        }
    }
}

fn farewell(ending: &Ending) -> (String, u8) {
    match ending {
        Ending::Stopped => ("stopped".to_owned(), STOPPED),
        Ending::Replaced => ("another agent has this token's place now".to_owned(), REPLACED),
        Ending::Revoked => ("the token was revoked; --new pairs anew".to_owned(), REFUSED),
        Ending::Refused(words) => (format!("the relay refuses the token ({words}); --new pairs anew"), REFUSED),
    }
}

fn start(options: &Options) -> Result<Ending, Failure> {
    let stop = listen_for_signals().map_err(Failure::Signals)?;
    let trust = match (&options.ca_file, options.insecure_any_certificate) {
        (_, true) => Trust::InsecureAnyCertificate,
        (Some(path), false) => Trust::PublicRootsAnd(path.clone()),
        (None, false) => Trust::PublicRoots,
    };
    let backend = open_backend(&options.backend)?;
    let Kept { path, state, is_new } = open_state(options, &trust)?;
    let secret = (options.e2e == E2e::Version2).then(|| state.secret.clone());
    let link = Link { token: state.token.clone(), relay: options.relay.to_string(), secret: secret.clone() };
    say(&pairing::instructions(&link, options.qr.into(), has_colours()));
    let mut client = crate::client::Options::new(options.relay.clone(), state.token.clone(), Role::Agent);
    client.trust = trust;
    client.encryption = secret.map_or(Encryption::Version1, Encryption::Version2);
    let (client, events) = Client::start(client)?;
    let settings = Settings {
        name: options.name.clone(),
        context_turns: options.backend.context,
        shutdown_timeout: options.shutdown_timeout,
    };
    // What was kept before is replaced only when the relay has accepted the new token.
    let unkept = RefCell::new(is_new.then_some(state));
    let failed = RefCell::new(None);
    let welcomed = || {
        let Some(state) = unkept.take() else { return };
        if let Err(error) = keep(&path, options, &state) {
            failed.replace(Some(error));
            stop.store(true, Ordering::Relaxed);
        }
    };
    let ending = serve(&client, &events, backend, &settings, &stop, &say, &welcomed);
    failed.take().map_or(Ok(ending), |error| Err(error.into()))
}

/// Shows a line to the person; one that cannot be written is nobody's loss.
pub fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Whether standard output is a terminal that takes colours (<https://no-color.org>).
#[must_use]
pub fn has_colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The first signal sets the flag, the second ends the process.
fn listen_for_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, i32::from(FAILED), Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn open_backend(options: &BackendOptions) -> Result<Arc<dyn Backend>, Failure> {
    if let Some(command) = &options.exec {
        return Ok(Arc::new(exec::Exec::new(command.clone(), options.timeout)));
    }
    let (Some(url), Some(model)) = (&options.openai, &options.model) else { return Ok(Arc::new(echo::Echo)) };
    let api_key = match &options.api_key_file {
        None => std::env::var(&options.api_key_env).ok(),
        Some(path) => {
            let refused = |text: String| Failure::ApiKey { path: path.clone(), text };
            let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
            if text.trim().is_empty() {
                return Err(refused("the file is empty".to_owned()));
            }
            Some(text)
        }
    };
    let settings = openai::Settings {
        url: url.clone(),
        model: model.clone(),
        api_key: api_key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty()),
        system: options.system.clone(),
        timeout: options.timeout,
        trust: options.openai_ca_file.clone().map_or(Trust::PublicRoots, Trust::PublicRootsAnd),
    };
    Ok(Arc::new(OpenAi::new(settings)?))
}

/// The pairing, and where it is kept.
struct Kept {
    path: PathBuf,
    state: State,
    /// It is not kept yet.
    is_new: bool,
}

fn open_state(options: &Options, trust: &Trust) -> Result<Kept, Failure> {
    let path = match &options.state {
        Some(path) => path.clone(),
        None => state::default_path(&options.relay, |name| std::env::var(name).ok())?,
    };
    let kept = if options.new { None } else { state::read(&path)? };
    if let Some(state) = kept
        && options.token.as_ref().is_none_or(|token| *token == state.token)
    {
        return Ok(Kept { path, state, is_new: false });
    }
    let token = match &options.token {
        Some(token) => token.clone(),
        None => register(&options.relay, trust)?,
    };
    Ok(Kept { path, state: State { token, secret: new_secret() }, is_new: true })
}

fn keep(path: &Path, options: &Options, state: &State) -> Result<(), StateError> {
    state::write(path, &options.relay, state)?;
    say(&format!("Token and pairing secret are kept in {}.", path.display()));
    Ok(())
}

/// A new pairing secret.
#[must_use]
pub fn new_secret() -> PairingSecret {
    PairingSecret::generate(&mut |bytes: &mut [u8]| {
        // The source fails only where the system is broken beyond use.
        getrandom::fill(bytes).expect("the system has a random source");
    })
}
