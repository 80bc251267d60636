//! `coralmux-relay demo`: a relay, an echo agent and the link to pair a phone, by one command.
//!
//! Everything is real: the relay with its store, the agent on the public client, the encryption. On the loopback it
//! speaks plain HTTP. For other machines it makes a certificate of its own, because browsers encrypt only on pages
//! that came by TLS. It must never leave a temporary folder behind, nor listen beyond the loopback unasked.

mod folder;

use crate::agent::agents::Agents;
use crate::agent::devices::{Admission, Desk};
use crate::agent::echo::Echo;
use crate::agent::pairing::Codes;
use crate::agent::printable::printable;
use crate::agent::state::{self, State};
use crate::agent::{Settings, control, has_colours, new_secret, say, serve, terminal};
use crate::client::{
    AgentKeys, Client, Devices, Encryption, Folder as Files, Options, RegisterError, RelayUrl, Role, Trust, register,
};
use crate::config::{self, Config};
use crate::console;
use crate::server::{self, Inherited, exit};
use crate::sys::file::replace;
use crate::telemetry;
use clap::Parser;
use folder::Folder;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Where the demo listens if nothing else is said, and nobody else does.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// By when the relay has to answer.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks whether it does.
const START_STEP: Duration = Duration::from_millis(50);
/// What the relay is told where neither the command line nor the environment says otherwise: a quiet log, and an end
/// that does not keep anyone waiting.
const DEFAULTS: [(&str, &str); 3] =
    [("CORALMUX_LOG_LEVEL", "warn"), ("CORALMUX_DRAIN_DEADLINE", "2s"), ("CORALMUX_METRICS_ADDR", "off")];

/// What the command line said.
#[derive(Debug, Parser)]
#[command(
    name = "coralmux-relay demo",
    version,
    about = "A relay, an echo agent, and the link to pair a phone in the browser. Ctrl-C ends all of it."
)]
struct Flags {
    /// Where to listen [default: 127.0.0.1:8080, or another port where that is taken]; `:8080` for other machines, too
    #[arg(long, value_name = "HOST:PORT")]
    addr: Option<String>,
    /// Keep store, token and pairing here [default: a temporary folder, removed at the end]
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// Flags for the relay
    #[arg(last = true, value_name = "RELAY FLAGS")]
    relay: Vec<OsString>,
}

/// The command line, for completions and the manual.
#[must_use]
pub fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Where the demo is to be found.
struct Location {
    listen: SocketAddr,
    url: RelayUrl,
    /// The certificate and its key, made for this address; `None`: plain HTTP.
    certificate: Option<(PathBuf, PathBuf)>,
}

/// Runs the demo until it is stopped; gives the process's exit code. `args` begin with the program's name.
#[must_use]
pub fn run(args: Vec<OsString>, inherited: Inherited) -> u8 {
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            // To the right stream; a closed one is nobody's loss.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(exit::CONFIG);
        }
    };
    let opened = wanted_address(flags.addr.as_deref()).map_err(|error| (exit::CONFIG, error)).and_then(|wanted| {
        let folder = Folder::open(flags.data.as_deref()).map_err(|error| (exit::FAILURE, error))?;
        let place = Location::choose(wanted, folder.path()).map_err(|error| {
            let in_use = error.kind() == io::ErrorKind::AddrInUse;
            (if in_use { exit::ADDRESS_IN_USE } else { exit::FAILURE }, error)
        })?;
        Ok((folder, place))
    });
    let (folder, place) = match opened {
        Ok(opened) => opened,
        Err((exit_code, error)) => {
            console::warn(format_args!("coralmux-relay demo: {error}"));
            return exit_code;
        }
    };
    let config = match configure(&flags, folder.path(), &place) {
        Ok(config) => config,
        Err(exit_code) => return exit_code,
    };
    // Kept across restarts only where the store is.
    let kept = flags.data.is_some().then(|| folder.path().join("agent.json"));
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // Beside the relay's own handler: the agent knows of the end before the relay closes its connection. Failing,
        // the agent ends when the relay has.
        let _ = flag::register(signal, Arc::clone(&stop));
    }
    let told = Arc::clone(&stop);
    let devices = folder.path().to_owned();
    let agent = thread::spawn(move || attend(&place, kept.as_deref(), &devices, &told));
    let exit_code = server::run(&config, inherited);
    telemetry::log::flush();
    stop.store(true, Ordering::Relaxed);
    // It panics as little as the relay does; if it did, the relay's own end counts.
    let _ = agent.join();
    if exit_code == exit::OK {
        say("The demo has ended.");
    }
    exit_code
}

/// The relay's configuration. `Err`: the exit code, and why was said.
fn configure(flags: &Flags, folder: &Path, place: &Location) -> Result<Config, u8> {
    let mut args: Vec<OsString> = vec!["coralmux-relay".into(), "--db".into(), folder.join("relay.db").into()];
    let scheme = if place.certificate.is_some() { "tls://" } else { "" };
    args.extend(["--addr".into(), format!("{scheme}{}", place.listen).into()]);
    if let Some((certificate, key)) = &place.certificate {
        args.extend(["--tls-cert".into(), certificate.into(), "--tls-key".into(), key.into()]);
    }
    args.extend(flags.relay.iter().cloned());
    // Where the folder is temporary so is the key, and nobody needs to see it.
    let mut key = [0; 16];
    let key = (flags.data.is_none() && getrandom::fill(&mut key).is_ok()).then(|| crate::proto::token::hex(&key));
    let env = |name: &str| {
        let default = || DEFAULTS.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned());
        let made = || key.clone().filter(|_| name == "RELAY_ADMIN_KEY");
        // An empty one says nothing; what an empty admin key is, is for the configuration to say.
        let says = |text: &String| name.ends_with("ADMIN_KEY") || !text.is_empty();
        std::env::var(name).ok().filter(says).or_else(default).or_else(made)
    };
    let config = config::resolve(args, env).map_err(|error| error.tell("coralmux-relay demo"))?;
    telemetry::log::init(config.log_format, &config.log_level.to_string()).map_err(|error| {
        console::warn(format_args!("coralmux-relay demo: {error}"));
        exit::CONFIG
    })?;
    Ok(config)
}

/// What `--addr` says; `None` where it is not given.
fn wanted_address(addr: Option<&str>) -> io::Result<Option<SocketAddr>> {
    let Some(given) = addr else { return Ok(None) };
    let text = if given.starts_with(':') { format!("0.0.0.0{given}") } else { given.to_owned() };
    let wrong = |error: &dyn std::fmt::Display| {
        io::Error::other(format!("--addr '{given}': {error}; it is HOST:PORT or :PORT, with a port up to 65535"))
    };
    let mut addresses = text.to_socket_addrs().map_err(|error| wrong(&error))?;
    addresses.next().map(Some).ok_or_else(|| wrong(&"it has no address"))
}

impl Location {
    fn choose(given: Option<SocketAddr>, folder: &Path) -> io::Result<Self> {
        let wanted = given.unwrap_or(USUAL);
        // Bound for a moment, to know the port, and whether it can be had at all.
        let bound = match TcpListener::bind(wanted) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && given.is_none() => {
                TcpListener::bind((wanted.ip(), 0))
            }
            bound => bound,
        };
        let listen = bound
            .and_then(|listener| listener.local_addr())
            .map_err(|error| io::Error::new(error.kind(), format!("--addr {wanted}: {error}")))?;
        let host = if listen.ip().is_unspecified() { own_address() } else { listen.ip() };
        let address = SocketAddr::new(host, listen.port());
        let certificate = (!host.is_loopback()).then(|| certify(host, folder)).transpose()?;
        let scheme = if certificate.is_some() { "wss" } else { "ws" };
        let url = format!("{scheme}://{address}").parse();
        let url = url.map_err(|error| io::Error::other(format!("{address}: {error}")))?;
        Ok(Self { listen, url, certificate })
    }

    fn trust(&self) -> Trust {
        self.certificate.as_ref().map_or(Trust::PublicRoots, |(path, _)| Trust::PublicRootsAnd(path.clone()))
    }
}

/// This machine's address towards others. Nothing is sent: the system only says which address it would send from.
fn own_address() -> IpAddr {
    let asked = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        // An address of RFC 5737, which is nobody's.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    asked.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// A certificate for this address that its own key has signed.
fn certify(host: IpAddr, folder: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let made = rcgen::generate_simple_self_signed(vec![host.to_string(), "localhost".to_owned()])
        .map_err(|error| io::Error::other(error.to_string()))?;
    let (certificate, key) = (folder.join("demo-cert.pem"), folder.join("demo-key.pem"));
    replace(&certificate, made.cert.pem().as_bytes())?;
    replace(&key, made.signing_key.serialize_pem().as_bytes())?;
    Ok((certificate, key))
}

/// The agent's thread: waits for the relay, pairs, shows how, and answers until `stop`. `folder` has the devices.
fn attend(place: &Location, kept: Option<&Path>, folder: &Path, stop: &AtomicBool) {
    if let Err(text) = attend_to(place, kept, folder, stop) {
        console::warn(format_args!("coralmux-relay demo: {}", printable(&text)));
    }
}

fn attend_to(place: &Location, kept: Option<&Path>, folder: &Path, stop: &AtomicBool) -> Result<(), String> {
    let Some((State { token, secret, keys }, is_new)) = pair(place, kept, stop)? else { return Ok(()) };
    let keys = keys.unwrap_or_else(AgentKeys::generate);
    let state = kept.unwrap_or(&folder.join("agent.json")).to_owned();
    let folder = state::devices_path(&state, &token);
    say(&format!("\nThe relay runs at {}, with an echo agent.\n", place.url.http()));
    if place.certificate.is_some() {
        say("Its certificate is self-signed: the browser warns once; choose to continue.\n");
    }
    say("Ctrl-C ends it.\n");
    let mut options = Options::new(place.url.clone(), token.clone(), Role::Agent);
    options.trust = place.trust();
    options.encryption = Encryption::Version2(secret.clone());
    let store = Arc::new(Files::new(&folder));
    let devices = Devices { keys: keys.clone(), store, is_new, legacy_phone: false, restored: false };
    let failed = |error: &dyn std::fmt::Display| format!("the agent: {error}");
    let (client, events) = Client::start_with_devices(options, &devices).map_err(|error| failed(&error))?;
    if let Some(path) = kept {
        let state = State { token: token.clone(), secret: secret.clone(), keys: Some(keys) };
        state::write(path, &place.url, &state).map_err(|error| failed(&error))?;
    }
    let colours = io::stdout().is_terminal().then(has_colours);
    let desk = Desk {
        admission: Admission::All, // it is an echo, and on this machine: a demo asks nobody
        codes: Codes::Browser,
        colours,
        elsewhere: kept_back(kept, &place.url),
        lines: terminal::lines().filter(|_| colours.is_some()),
        controls: control::listen(&folder).ok(),
        legacy_phone: false,
    };
    let settings = Settings {
        ask_timeout: Duration::from_secs(60),
        shutdown_timeout: Duration::from_secs(1),
        history: Some(folder.join("history.json")),
    };
    let echo = Agents::one("Echo".to_owned(), Arc::new(Echo), 1);
    serve((&client, &events), &echo, &settings, stop, &say, &|| (), Some(desk));
    Ok(())
}

/// What is said where the output may go to somebody's log, instead of the link that whoever reads it could chat with.
fn kept_back(kept: Option<&Path>, url: &RelayUrl) -> String {
    let way = match kept {
        Some(path) => {
            format!("this shows it there:\n\n    coralmux-agent link --relay {url} --state {}", path.display())
        }
        None => "start the demo on one".to_owned(),
    };
    format!("The link that pairs a phone is shown on a terminal only; {way}\n")
}

/// The pairing that is kept, or a new one as soon as the relay answers, and whether it is new. `None`: it was stopped.
fn pair(place: &Location, kept: Option<&Path>, stop: &AtomicBool) -> Result<Option<(State, bool)>, String> {
    if let Some(path) = kept
        && let Some(state) = state::read(path).map_err(|error| error.to_string())?
    {
        return Ok(Some((state, false)));
    }
    let started = Instant::now();
    let token = loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match register(&place.url, &place.trust()) {
            Ok(token) => break token,
            Err(RegisterError::Http(_)) if started.elapsed() < START_TIMEOUT => thread::sleep(START_STEP),
            Err(error) => return Err(format!("no token: {error}")),
        }
    };
    Ok(Some((State { token, secret: new_secret(), keys: None }, true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Link;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_loopback_is_plain_and_a_taken_port_is_told_where_it_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let place = Location::choose(wanted_address(Some("127.0.0.1:0")).unwrap(), folder.path()).unwrap();
        assert!(place.certificate.is_none() && place.listen.port() != 0);
        assert_eq!(place.url.to_string(), format!("ws://{}/ws", place.listen));
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = Location::choose(Some(address), folder.path()).err().unwrap();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "the exit code follows from it");
        for wrong in ["nonsense", "127.0.0.1:70000", ":x", ""] {
            let error = wanted_address(Some(wrong)).unwrap_err().to_string();
            assert!(error.contains("--addr") && error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn a_certificate_is_made_that_the_agent_can_trust_and_others_cannot_read_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let host = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
        // A key that others could read, and one as it is made: either is for its owner alone afterwards.
        fs::write(folder.path().join("demo-key.pem"), "old").unwrap();
        fs::set_permissions(folder.path().join("demo-key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        let (certificate, key) = certify(host, folder.path()).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let url: RelayUrl = "wss://192.0.2.7:8080".parse().unwrap();
        let listen = "0.0.0.0:8080".parse().unwrap();
        let place = Location { listen, url, certificate: Some((certificate.clone(), key)) };
        assert_eq!(place.trust(), Trust::PublicRootsAnd(certificate));
        assert!(crate::client::http_agent(&place.trust()).is_ok());
        let link = Link { token: "t".to_owned(), relay: place.url.to_string(), secret: None, agent: None };
        assert_eq!(link.for_browsers().unwrap(), "https://192.0.2.7:8080/#token=t");
    }
}
