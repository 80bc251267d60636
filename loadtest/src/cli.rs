//! The command line.

use crate::hostile;
use crate::scenario::{Opening, chat, idle, pingpong, slow, storm, upload};
use crate::tls::TlsArgs;
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Load test and capacity planning for relays that speak the CoralMux wire contract.
#[derive(Debug, Parser)]
#[command(name = "coralmux-loadtest", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads a command line, program name first. The error is clap's: also `--help` and `--version`.
    pub(crate) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&command().try_get_matches_from(args)?)
    }
}

/// The command line, with what holds for all numbers.
fn command() -> clap::Command {
    Cli::command().mut_subcommands(|command| command.mut_args(number))
}

/// An argument that takes a number refuses what is none by its name, and says what it takes. Whatever follows the flag is
/// its value, `-5` too.
fn number(arg: Arg) -> Arg {
    let kind = arg.get_value_parser().type_id();
    let is = |kinds: &[TypeId]| kinds.iter().any(|known| kind == *known);
    let arg = if is(&[TypeId::of::<usize>()]) {
        arg.value_parser(count)
    } else if is(&[TypeId::of::<f64>()]) {
        arg.value_parser(amount)
    } else if is(&[TypeId::of::<u32>(), TypeId::of::<Percent>()]) {
        arg
    } else {
        return arg;
    };
    let is_flag = arg.get_long().is_some();
    arg.allow_hyphen_values(is_flag)
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number, such as 100".to_owned())
}

fn amount(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "expected a number from 0 on, such as 2.5".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Saturation, or a rate: messages to and fro
    Pingpong(PingpongArgs),
    /// Density: what connections cost that do nothing
    Idle(IdleArgs),
    /// The real mix: a phone asks, the agent streams its answer
    Chat(ChatArgs),
    /// Everybody connects as fast as it goes, then everybody comes back at once
    Storm(StormArgs),
    /// Phones send images, others go on chatting
    Upload(UploadArgs),
    /// Agents stream to phones, a share of which hardly reads
    Slow(SlowArgs),
    /// Start a relay and say what most clients notice while a share of them does the worst that is known
    Hostile(HostileArgs),
    /// Be a relay that does the least a relay can do, on 127.0.0.1, to measure others against
    Reference {
        /// Where to listen
        port: u16,
    },
    /// Start a relay and a reference, each on a core, and print what the relay costs more
    Bench(BenchArgs),
    /// Measure this machine for a minute or two and say how much a relay on it can carry
    Plan(PlanArgs),
    /// Hold idle pairs for another process of this program, whose descriptors do not suffice
    #[command(hide = true)]
    Hold(HoldArgs),
}

/// Which relay, and how the result is shown.
#[derive(Debug, Args)]
#[command(next_help_heading = "Relay and report")]
pub(crate) struct Common {
    /// The relay
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080/ws")]
    pub(crate) url: String,
    /// The relay's process [default: found by its port, where it is on this machine]
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<u32>,
    /// Another relay, tested in turn with the first
    #[arg(long, value_name = "URL")]
    pub(crate) compare: Option<String>,
    /// The other relay's process
    #[arg(long, value_name = "PID", requires = "compare")]
    pub(crate) compare_pid: Option<u32>,
    /// How often the two are tested in turn
    #[arg(long, value_name = "COUNT", default_value_t = 3, requires = "compare")]
    pub(crate) rounds: usize,
    /// Key with which tokens are made
    #[arg(long, value_name = "KEY", env = "RELAY_ADMIN_KEY", hide_env_values = true, default_value = "loadtest")]
    pub(crate) admin_key: String,
    /// Tokens, one a line, instead of new ones
    #[arg(long, value_name = "FILE")]
    pub(crate) tokens: Option<PathBuf>,
    /// Encrypt end to end (version 2): each pair agrees on keys, and each message is sealed and opened for real. The
    /// size of messages is then that of the envelope in clear
    #[arg(long)]
    pub(crate) e2e: bool,
    /// Connections that are opened at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    pub(crate) concurrency: usize,
    /// Time over which the connections are opened [default: as fast as it goes]
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, hide_default_value = true)]
    pub(crate) ramp_up: f64,
    /// Where the result goes as JSON [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where the report for people goes
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

impl Common {
    pub(crate) fn opening(&self) -> Opening {
        let ramp_up = Duration::try_from_secs_f64(self.ramp_up).unwrap_or_default();
        Opening { concurrency: self.concurrency.max(1), ramp_up }
    }
}

/// How long it takes.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Timing {
    /// Length of the measured window
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Time before it under the same load
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub(crate) warm_up: f64,
}

#[derive(Debug, Args)]
pub(crate) struct PingpongArgs {
    /// Pairs of phone and agent
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pairs: usize,
    /// Size of each message
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    bytes: usize,
    /// Messages in flight for each pair
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    depth: usize,
    /// Forwarded messages a second in all, instead of a depth; latency counts from when each was to be sent
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "depth")]
    rate: Option<f64>,
    /// Send each message in a call of its own, instead of all answers to what one read brought in one
    #[arg(long)]
    single_sends: bool,
    /// Sleep while there is nothing to do; otherwise the generator takes all of its core, and the relay does not pay
    /// for waking it
    #[arg(long)]
    sleep: bool,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// Pairs of phone and agent
    #[arg(long, value_name = "COUNT", default_value_t = 4000)]
    pairs: usize,
    /// How many of them exchange messages all the time
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    active: usize,
    /// Size of their messages
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    bytes: usize,
    /// Length of the measured rest
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    seconds: f64,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// Pairs of phone and agent
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pairs: usize,
    /// Chats that begin a second, in all
    #[arg(long, value_name = "PER_SECOND", default_value_t = 50.0)]
    rate: f64,
    /// Size of the phone's message
    #[arg(long, value_name = "BYTES", default_value_t = 400)]
    bytes: usize,
    /// Pieces of each answer
    #[arg(long, value_name = "COUNT", default_value_t = 60)]
    pieces: u32,
    /// Pieces a second of each answer
    #[arg(long, value_name = "PER_SECOND", default_value_t = 30.0)]
    piece_rate: f64,
    /// Size of each piece
    #[arg(long, value_name = "BYTES", default_value_t = 160)]
    piece_bytes: usize,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    /// Pairs of phone and agent
    #[arg(long, value_name = "COUNT", default_value_t = 4000)]
    pairs: usize,
    /// Connections that are opened at the same time when everybody comes back
    #[arg(long, value_name = "COUNT", default_value_t = 2000)]
    herd: usize,
    /// How long each of the two may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    seconds: f64,
    /// A shell command that restarts the relay; everybody comes back from that [default: all clients leave by
    /// themselves, and come back]
    #[arg(long, value_name = "COMMAND")]
    restart: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct UploadArgs {
    /// Pairs whose phones upload
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    pairs: usize,
    /// Size of an image
    #[arg(long, value_name = "BYTES", default_value_t = 5_000_000)]
    bytes: usize,
    /// Pairs that chat meanwhile, once a second each
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    bystanders: usize,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct SlowArgs {
    /// Pairs of phone and agent
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pairs: usize,
    /// The share of phones that hardly read, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    share: f64,
    /// What those read a second
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    slow_bytes: usize,
    /// Messages a second to each phone
    #[arg(long, value_name = "PER_SECOND", default_value_t = 20.0)]
    rate: f64,
    /// Size of each message
    #[arg(long, value_name = "BYTES", default_value_t = 16384)]
    bytes: usize,
    /// Length of the measured window: long enough that the kernel's buffers fill
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
    seconds: f64,
    /// Time before it under the same load
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    warm_up: f64,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct HostileArgs {
    /// The relay's binary
    #[arg(long, value_name = "FILE", default_value = "target/release/coralmux-relay")]
    pub(crate) relay: PathBuf,
    /// The core on which the relay runs
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub(crate) server_core: usize,
    /// The core on which all clients run
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    pub(crate) generator_core: usize,
    /// Pairs of phone and agent
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pairs: usize,
    /// The share of pairs that are hostile
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = percent)]
    hostile: Percent,
    /// What they do, with commas between them, or `mixed` for all at once [default: each kind alone, then mixed]
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) kinds: Vec<String>,
    /// Messages a second of all others together
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1000.0)]
    rate: f64,
    /// Length of each measured window
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0)]
    seconds: f64,
    /// How often calm and attack are measured in turn
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    rounds: usize,
    /// All connections over TLS
    #[arg(long)]
    pub(crate) tls: bool,
    /// Where the result goes as JSON as well
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where the report for people goes
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Flags for the relay
    #[arg(last = true, value_name = "FLAGS")]
    pub(crate) relay_flags: Vec<String>,
}

/// `10%`, as a share.
#[derive(Clone, Copy, Debug)]
struct Percent(f64);

fn percent(text: &str) -> Result<Percent, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
    let number = number.filter(|number| (0.0..=100.0).contains(number));
    number.map(|number| Percent(number / 100.0)).ok_or_else(|| "expected 0% to 100%".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The relay's binary
    #[arg(long, value_name = "FILE", default_value = "target/release/coralmux-relay")]
    pub(crate) relay: PathBuf,
    /// Another reference, which is started with a port as its argument [default: the one of `reference`]
    #[arg(long, value_name = "FILE")]
    pub(crate) reference: Option<PathBuf>,
    /// The core on which the relays run
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub(crate) server_core: usize,
    /// The core on which the generator runs
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    pub(crate) generator_core: usize,
    /// How often relay and reference are measured in turn: many short rounds tell more than few long ones
    #[arg(long, value_name = "COUNT", default_value_t = 11)]
    pub(crate) rounds: usize,
    /// Length of each measured window
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    pub(crate) seconds: f64,
    /// Only the rows whose name has this in it
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// The rows about TLS instead
    #[arg(long)]
    pub(crate) tls: bool,
    /// The rows about the mailbox instead
    #[arg(long, conflicts_with = "tls")]
    pub(crate) mailbox: bool,
    /// Devices that come back, for those
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) devices: usize,
    /// The proxy that speaks TLS in front of the reference, for those
    #[arg(long, value_name = "FILE", default_value = "haproxy")]
    pub(crate) haproxy: PathBuf,
    /// Where the table goes as JSON as well
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What a process is told that holds pairs. Their tokens come through standard input, one a line.
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// The relay
    pub(crate) url: String,
    /// Connections of the processes before this one
    pub(crate) connections_before: usize,
    /// Pairs to hold
    pub(crate) pairs: usize,
    /// Connections that are opened at the same time
    pub(crate) concurrency: usize,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The relay's binary
    #[arg(long, value_name = "FILE", default_value = "target/release/coralmux-relay")]
    pub(crate) relay: PathBuf,
    /// The 99th percentile of latency, from sender to receiver, that messages may have
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10.0)]
    pub(crate) p99_ms: f64,
    /// Size of the messages
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    pub(crate) bytes: usize,
    /// Pairs that are connected for measuring; what more would cost is extrapolated
    #[arg(long, value_name = "COUNT", default_value_t = 2000)]
    pub(crate) pairs: usize,
    /// Length of each trial of a rate
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Where the plan goes as JSON as well
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl PingpongArgs {
    pub(crate) fn plan(&self) -> pingpong::Plan {
        let Self { pairs, bytes, depth, rate, single_sends, sleep: sleeps, timing, .. } = *self;
        let Timing { seconds, warm_up } = timing;
        pingpong::Plan { pairs, bytes, depth: depth.max(1), rate, seconds, warm_up, single_sends, sleeps }
    }
}

impl IdleArgs {
    pub(crate) fn plan(&self) -> idle::Plan {
        let Self { pairs, active, bytes, seconds, .. } = *self;
        idle::Plan { pairs, active, bytes, seconds }
    }
}

impl ChatArgs {
    pub(crate) fn plan(&self) -> chat::Plan {
        let Self { pairs, rate, bytes, pieces, piece_rate, piece_bytes, .. } = *self;
        let Timing { seconds, warm_up } = self.timing;
        chat::Plan { pairs, rate, bytes, pieces, piece_rate, piece_bytes, seconds, warm_up }
    }
}

impl StormArgs {
    pub(crate) fn plan(&self) -> storm::Plan {
        storm::Plan { pairs: self.pairs, herd: self.herd.max(1), seconds: self.seconds, restart: self.restart.clone() }
    }
}

impl UploadArgs {
    pub(crate) fn plan(&self) -> upload::Plan {
        let Self { pairs, bytes, bystanders, timing: Timing { seconds, warm_up }, .. } = *self;
        upload::Plan { pairs, bytes, bystanders, seconds, warm_up }
    }
}

impl HostileArgs {
    pub(crate) fn plan(&self) -> hostile::Plan {
        let Self { pairs, hostile: Percent(share), rate, seconds, rounds, .. } = *self;
        hostile::Plan { pairs, share, rate, seconds, rounds }
    }
}

impl SlowArgs {
    pub(crate) fn plan(&self) -> slow::Plan {
        let Self { pairs, share, slow_bytes, rate, bytes, seconds, warm_up, .. } = *self;
        slow::Plan { pairs, share, slow_bytes, rate, bytes, seconds, warm_up }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::read(std::iter::once("coralmux-loadtest").chain(line.iter().copied()).map(OsString::from))
    }

    /// What the arguments take that are no numbers.
    const TEXTS: [&str; 7] = ["URL", "KEY", "FILE", "COMMAND", "KIND", "FLAGS", "TEXT"];

    #[test]
    fn a_number_below_zero_is_refused_by_the_flags_name_with_what_it_takes() {
        command().debug_assert();
        let mut seen = 0;
        for scenario in command().get_subcommands() {
            for arg in scenario.get_arguments().filter(|arg| arg.get_action().takes_values()) {
                let unit = arg.get_value_names().map(|names| names[0].as_str()).unwrap_or_default();
                let Some(name) = arg.get_long().filter(|_| !TEXTS.contains(&unit)) else { continue };
                let flag = format!("--{name}");
                for typed in [vec![flag.as_str(), "-5"], vec![&format!("{flag}=-5")]] {
                    let error = read(&[&[scenario.get_name()], &typed[..]].concat()).unwrap_err();
                    let text = error.to_string();
                    let says = format!("error: invalid value '-5' for '{flag} <{unit}>': ");
                    let expected = text.lines().next().unwrap().strip_prefix(&says);
                    let is_told =
                        expected.is_some_and(|it| it.starts_with("expected ") || it.contains(" is not in 0.."));
                    assert!(is_told && error.exit_code() == 2, "{} {flag}: {text}", scenario.get_name());
                }
                seen += 1;
            }
        }
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn numbers_read_as_they_are_typed() {
        let Ok(Cli { command: Command::Slow(slow) }) = read(&["slow", "--share", "0.5", "--pairs=7"]) else { panic!() };
        assert_eq!((slow.plan().share, slow.plan().pairs), (0.5, 7));
        let Ok(Cli { command: Command::Hostile(hostile) }) = read(&["hostile", "--hostile", "20%"]) else { panic!() };
        assert_eq!(hostile.plan().share, 0.2);
        for wrong in ["inf", "NaN", "1e999", "x"] {
            assert!(read(&["slow", "--seconds", wrong]).is_err(), "{wrong}");
        }
        assert!(read(&["hostile", "--hostile", "101%"]).is_err());
    }
}
