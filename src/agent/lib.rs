//! The agent: the other end of a phone, with an AI server, a program or an echo behind it.
//!
//! [`run`] is `coralmux-agent`; [`serve()`] is its life, which `coralmux-relay demo` uses too. It knows `client` and
//! nothing of the relay's inside. It must never show the token, the pairing secret or an API key anywhere but in the
//! pairing link.

// They panic where nobody reads any more: `say` and `warn` do not.
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

mod acp;
pub mod activity;
mod agent_protocol;
pub mod agents;
mod agui;
mod answer;
pub mod asking;
mod asks;
pub mod backend;
mod backends;
pub mod cancel;
mod chats;
mod commands;
pub mod control;
pub mod devices;
pub mod echo;
mod exec;
pub mod files;
pub mod history;
mod http;
mod openai;
mod options;
pub mod pairing;
mod paragraphs;
pub mod printable;
mod process;
mod question;
mod serve;
pub mod state;
pub mod terminal;
mod utf8;

pub use serve::{Ending, Settings, serve};

use agents::Agents;
use coralmux_client::{
    AgentKeys, Backoff, Client, Devices, Encryption, Events, Folder, Link, NoLink, PairingSecret, RegisterError,
    RelayUrl, Role, StartError, Trust, make_folder, random, register,
};
use coralmux_proto::token::hex;
use devices::{Admission, Desk};
use options::{E2e, Options, Pairing, Task};
use printable::{printable, warn};
use sha2::{Digest, Sha256};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use state::{State, StateError};
use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use thiserror::Error;

/// It was asked to stop, and stopped in order.
pub const STOPPED: u8 = 0;
/// Something failed that has no code of its own.
pub const FAILED: u8 = 1;
/// The relay refuses the token, or it was revoked: starting again will not help.
pub const REFUSED: u8 = 3;
/// Another agent has this token's place.
pub const REPLACED: u8 = 4;

/// How often it is looked whether a signal has come.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);
/// The longest that the relay can ask to wait with a registration.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// How long `link` waits for an agent that has just been started to be confirmed by the relay, and how often it looks.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);
/// As above.
const CONFIRMED_POLL: Duration = Duration::from_millis(100);
/// How long is waited before a registration is tried again: first, and at most.
const REGISTER_WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why the agent cannot start.
#[derive(Debug, Error)]
enum Failure {
    #[error("{0}")]
    Client(#[from] StartError),
    #[error("{0}")]
    State(#[from] StateError),
    #[error("no token: {0}")]
    Register(#[from] RegisterError),
    #[error("{0}")]
    Backend(#[from] backends::Failure),
    #[error("no pairing is kept in {path}: start the agent first", path = .path.display())]
    NotPaired { path: PathBuf },
    #[error("signals: {0}")]
    Signals(io::Error),
    #[error("{path}: {error}", path = .path.display())]
    Folder { path: PathBuf, error: io::Error },
    #[cfg(unix)]
    #[error("no agent runs with {path}: start it first; its terminal shows links, too, and lets devices in", path = .path.display())]
    NotRunning { path: PathBuf },
    #[cfg(unix)]
    #[error("the agent: {0}")]
    Control(io::Error),
    #[error("{0}")]
    Refused(String),
}

/// Runs the agent to its end; gives the process's exit code.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let task = match Task::read(args, |name| std::env::var(name).ok()) {
        Ok(task) => task,
        Err(error) => {
            // To the right stream; a closed one is nobody's loss.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(FAILED);
        }
    };
    let done = match &task {
        Task::Serve(options) => start(options),
        Task::ShowLink(pairing) => show_link(pairing).map(|()| Ending::Stopped),
        Task::Pair(pairing) => commands::pair(pairing).map(|()| Ending::Stopped),
        Task::Ask(pairing, request) => commands::ask(pairing, request).map(|()| Ending::Stopped),
    };
    match done {
        Ok(Ending::Stopped) => STOPPED,
        Ok(ending) => {
            let (text, exit_code) = farewell(&ending);
            warn(&format!("coralmux-agent: {text}"));
            exit_code
        }
        Err(failure) => {
            warn(&format!("coralmux-agent: {failure}"));
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
    let trust = match (&options.ca_file, options.insecure_any_certificate) {
        (_, true) => Trust::InsecureAnyCertificate,
        (Some(path), false) => Trust::PublicRootsAnd(path.clone()),
        (None, false) => Trust::PublicRoots,
    };
    let relay = options.pairing.relay();
    let agents = backends::open_all(options, &state_path(&options.pairing)?)?;
    if relay.is_exposed() {
        warn(&format!(
            "coralmux-agent: warning: {relay} has no TLS: on the way anyone can read the token and take this agent's place. Use wss://."
        ));
    }
    let stop = listen_for_signals(agents.clone()).map_err(Failure::Signals)?;
    // Two agents with the same keys would each undo what the other does.
    let _lock =
        (options.pairing.e2e == E2e::Version3).then(|| state::lock(&state_path(&options.pairing)?)).transpose()?;
    let Some(Kept { path, mut state, is_new }) = open_state(options, &trust, &stop)? else {
        return Ok(Ending::Stopped);
    };
    let link = link_of(&options.pairing, &state);
    agents.handle_paired(&hex(&Sha256::digest(&state.token)[..8]));
    let mut client = coralmux_client::Options::new(relay.clone(), state.token.clone(), Role::Agent);
    client.trust = trust;
    client.encryption = link.secret.clone().map_or(Encryption::Version1, Encryption::Version2);
    let settings = Settings {
        ask_timeout: options.ask_timeout,
        shutdown_timeout: options.shutdown_timeout,
        history: (options.pairing.e2e == E2e::Version3)
            .then(|| state::devices_path(&path, &state.token).join("history.json")),
    };
    let (client, events, desk) = if options.pairing.e2e == E2e::Version3 {
        let keys = state.keys.clone().unwrap_or_else(AgentKeys::generate);
        let folder = state::devices_path(&path, &state.token);
        let (client, events) = start_with_devices(options, client, &keys, (&folder, is_new))?;
        if state.keys.is_none() {
            state.keys = Some(keys);
            if !is_new {
                state::write(&path, relay, &state)?;
            }
        }
        (client, events, Some(desk(options, &folder)?))
    } else {
        match colours() {
            Some(colours) => say(&pairing::instructions(&link, options.pairing.qr, colours)),
            None => say(&elsewhere(&options.pairing)),
        }
        let (client, events) = Client::start(client)?;
        (client, events, None)
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
    let ending = serve((&client, &events), &agents, &settings, &stop, &say, &welcomed, desk);
    agents.end();
    failed.take().map_or(Ok(ending), |error| Err(error.into()))
}

fn start_with_devices(
    options: &Options,
    client: coralmux_client::Options,
    keys: &AgentKeys,
    (folder, is_new): (&Path, bool),
) -> Result<(Client, Events), StartError> {
    let devices = Devices {
        keys: keys.clone(),
        store: Arc::new(Folder::new(folder)),
        is_new,
        legacy_phone: options.legacy_phone,
        restored: options.restored,
    };
    Client::start_with_devices(client, &devices)
}

/// What the agent's devices are let in with.
fn desk(options: &Options, folder: &Path) -> Result<Desk, Failure> {
    let colours = colours();
    let lines = terminal::lines().filter(|_| colours.is_some());
    let admission = match (options.yes, &lines) {
        (true, _) => Admission::All,
        (false, Some(_)) => Admission::Ask,
        (false, None) => Admission::First,
    };
    make_folder(folder).map_err(|error| Failure::Folder { path: folder.to_owned(), error })?;
    let controls = control::listen(folder);
    if let Err(error) = &controls
        && cfg!(unix)
    {
        warn(&format!("coralmux-agent: `devices`, `pair` and `revoke` will not reach this agent: {error}"));
    }
    let (codes, elsewhere) = (options.pairing.qr, elsewhere(&options.pairing));
    let legacy_phone = options.legacy_phone;
    Ok(Desk { admission, codes, colours, elsewhere, lines, controls: controls.ok(), legacy_phone })
}

/// Whether the terminal takes colours, if there is one.
fn colours() -> Option<bool> {
    io::stdout().is_terminal().then(has_colours)
}

/// What is said instead of the link where it would stay in a log, for anyone who reads it.
fn elsewhere(pairing: &Pairing) -> String {
    format!("The pairing link is shown on a terminal only, or by `{}`.", link_command("link", pairing))
}

/// The pairing link of what is kept, for phones that know no devices.
fn link_of(pairing: &Pairing, state: &State) -> Link {
    let secret = (pairing.e2e != E2e::Version1).then(|| state.secret.clone());
    Link { token: state.token.clone(), relay: pairing.relay().to_string(), secret, agent: None }
}

/// What does this with this pairing.
fn link_command(what: &str, pairing: &Pairing) -> String {
    let mut command = format!("coralmux-agent {what} --relay {}", pairing.relay());
    if let Some(path) = &pairing.state {
        command += &format!(" --state {}", path.display());
    }
    match pairing.e2e {
        E2e::Version1 => command += " --e2e 1",
        E2e::Version2 => command += " --e2e 2",
        E2e::Version3 => {}
    }
    command
}

/// Shows the link on request, wherever that goes.
fn show_link(pairing: &Pairing) -> Result<(), Failure> {
    let path = state_path(pairing)?;
    let state = state::read(&path)?.ok_or_else(|| Failure::NotPaired { path: path.clone() })?;
    let mut link = link_of(pairing, &state);
    if let (E2e::Version3, Some(keys)) = (pairing.e2e, &state.keys) {
        let store = Folder::new(state::devices_path(&path, &state.token));
        link = confirmed_link(&link, keys, &store).map_err(|error| {
            let more = match error {
                NoLink::Used => format!("; `{}` makes another one", link_command("pair", pairing)),
                NoLink::Unconfirmed => String::new(),
            };
            Failure::Refused(format!("{error}{more}"))
        })?;
    }
    say(&pairing::instructions(&link, pairing.qr, has_colours()));
    Ok(())
}

/// The link to show: an agent that was started a moment ago may still be asking the relay.
fn confirmed_link(plain: &Link, keys: &AgentKeys, store: &Folder) -> Result<Link, NoLink> {
    let until = Instant::now() + CONFIRMED_WITHIN;
    loop {
        match coralmux_client::first_link(plain, keys, store) {
            Err(NoLink::Unconfirmed) if Instant::now() < until => thread::sleep(CONFIRMED_POLL),
            found => return found,
        }
    }
}

fn state_path(pairing: &Pairing) -> Result<PathBuf, StateError> {
    match &pairing.state {
        Some(path) => Ok(path.clone()),
        None => state::default_path(pairing.relay(), |name| std::env::var(name).ok()),
    }
}

/// Shows a line to the person; one that cannot be written is nobody's loss.
pub fn say(line: &str) {
    coralmux_console::say(line);
}

/// Whether standard output is a terminal that takes colours (<https://no-color.org>).
#[must_use]
pub fn has_colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The first signal sets the flag, the second ends the process and what the backends have started.
fn listen_for_signals(agents: Agents) -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register(signal, Arc::clone(&signalled))?;
    }
    let to_stop = Arc::clone(&stop);
    // A thread and not the handler: what ends a process group takes locks.
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            if signalled.swap(false, Ordering::Relaxed) && to_stop.swap(true, Ordering::Relaxed) {
                agents.end();
                std::process::exit(i32::from(FAILED));
            }
            thread::sleep(SIGNAL_INTERVAL);
        }
    })?;
    Ok(stop)
}

/// The pairing, and where it is kept.
struct Kept {
    path: PathBuf,
    state: State,
    /// It is not kept yet.
    is_new: bool,
}

/// `None`: it was stopped before there was one.
fn open_state(options: &Options, trust: &Trust, stop: &AtomicBool) -> Result<Option<Kept>, Failure> {
    let path = state_path(&options.pairing)?;
    let kept = if options.new { None } else { state::read(&path)? };
    if let Some(state) = kept
        && options.token.as_ref().is_none_or(|token| *token == state.token)
    {
        return Ok(Some(Kept { path, state, is_new: false }));
    }
    let token = match &options.token {
        Some(token) => Some(token.clone()),
        None => register_by_and_by(options.pairing.relay(), trust, stop)?,
    };
    Ok(token.map(|token| Kept { path, state: State { token, secret: new_secret(), keys: None }, is_new: true }))
}

/// A token from the relay, as soon as it gives one. `None`: it was stopped.
fn register_by_and_by(relay: &RelayUrl, trust: &Trust, stop: &AtomicBool) -> Result<Option<String>, RegisterError> {
    let (wait_min, wait_max) = REGISTER_WAITS;
    let mut backoff = Backoff::new(wait_min, wait_max);
    while !stop.load(Ordering::Relaxed) {
        let error = match register(relay, trust) {
            Ok(token) => return Ok(Some(token)),
            // Waiting does not help against these.
            Err(error @ (RegisterError::Off | RegisterError::Proxy(_) | RegisterError::Tls(_))) => return Err(error),
            Err(error) => error,
        };
        let asked = match &error {
            RegisterError::TooMany { retry_after } => retry_after.unwrap_or_default().min(RETRY_AFTER_MAX),
            _ => Duration::ZERO,
        };
        let what = if matches!(error, RegisterError::Http(_) | RegisterError::Through { .. }) {
            "Cannot reach"
        } else {
            "No token from"
        };
        let mut jitter = [0; 4];
        random(&mut jitter);
        let next = backoff.next(asked, u32::from_ne_bytes(jitter));
        say(&printable(&format!("{what} {relay}: {error}; trying again in {:.1} s.", next.as_secs_f64())));
        let until = Instant::now() + next;
        while !stop.load(Ordering::Relaxed) && Instant::now() < until {
            thread::sleep(SIGNAL_INTERVAL);
        }
    }
    Ok(None)
}

fn keep(path: &Path, options: &Options, state: &State) -> Result<(), StateError> {
    state::write(path, options.pairing.relay(), state)?;
    state::forget_other_devices(path, &state.token);
    say(&format!("Token and pairing secret are kept in {}.", path.display()));
    Ok(())
}

/// A new pairing secret.
#[must_use]
pub fn new_secret() -> PairingSecret {
    PairingSecret::generate(&mut |bytes: &mut [u8]| random(bytes))
}
