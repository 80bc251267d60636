//! The agent's command line.

use super::agents::{AGENTS_MAX, FIRST, is_id};
use super::pairing::Codes;
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use coralmux_client::RelayUrl;
use coralmux_proto::token::is_token_text;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use ureq::http::Uri;

/// What the command line said.
#[derive(Debug, Parser)]
#[command(
    name = "coralmux-agent",
    version,
    about = "Puts an AI server, or any program, at the other end of a phone, through a CoralMux relay.",
    after_help = AFTER_HELP,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true,
    group(what_answers())
)]
struct CommandLine {
    #[command(subcommand)]
    subcommand: Option<Also>,
    #[command(flatten)]
    options: Options,
}

/// What else can be asked for.
#[derive(Debug, Subcommand)]
enum Also {
    /// Show the pairing link of an agent that has been started before
    Link(Pairing),
    /// Make a device: shows a link, and asks who comes by it. The agent has to run
    Pair(Pairing),
    /// List the devices of the agent that runs
    Devices(Pairing),
    /// Revoke a device, and what it has invited
    Revoke(Revoke),
    /// Name the device that may revoke all others
    Owner(Owner),
}

/// Which device is revoked.
#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    pub(super) pairing: Pairing,
    /// Its id, as `devices` lists it; `plain`: phones that know no devices
    #[arg(value_name = "DEVICE")]
    pub(super) device: String,
    /// Keep the devices that it has invited
    #[arg(long)]
    pub(super) keep_invited: bool,
}

/// Which device is the owner.
#[derive(Debug, Args)]
pub(super) struct Owner {
    #[command(flatten)]
    pub(super) pairing: Pairing,
    /// Its id, as `devices` lists it
    #[arg(value_name = "DEVICE")]
    pub(super) device: String,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Task {
    /// Be the agent.
    Serve(Box<Options>),
    /// Show the link.
    ShowLink(Pairing),
    /// Pair another device with the agent that runs.
    Pair(Pairing),
    /// Have the agent that runs do something, which is said in one answer.
    Ask(Pairing, Value),
}

/// Which pairing.
#[derive(Debug, Args)]
pub(super) struct Pairing {
    /// The relay, such as wss://relay.example.com [env: CORALMUX_AGENT_RELAY]
    #[arg(long, value_name = "URL")]
    relay: Option<RelayUrl>,
    /// Where token and pairing secret are kept [default: a file for each relay in ~/.local/state/coralmux-agent]
    #[arg(long, value_name = "FILE")]
    pub(super) state: Option<PathBuf>,
    /// End-to-end encryption: 3 gives each device keys of its own, and takes 2 from phones that know no devices; 2 is
    /// verified by the link's secret alone; 1 is for phones that know no other
    #[arg(long, value_name = "VERSION", default_value = "3")]
    pub(super) e2e: E2e,
    /// Which QR codes to show
    #[arg(long, value_name = "WHICH", default_value = "both")]
    pub(super) qr: Codes,
}

/// How to be the agent.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pairing: Pairing,
    /// The pairing token [default: the one that is kept, or a new one from the relay] [env: CORALMUX_AGENT_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub(super) token: Option<String>,
    /// Forget what is kept, and pair anew
    #[arg(long)]
    pub(super) new: bool,
    /// The agent's name, for the phone
    #[arg(long, value_name = "NAME", default_value = "CoralMux agent")]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) backend: BackendOptions,
    /// Another agent behind the same pairing, which the person chooses on the phone: its id and what answers, with any of
    /// the flags for that, such as 'coder --name Coder --acp "opencode acp"'; may be given several times
    #[arg(long, value_name = "AGENT", value_parser = another, help_heading = "Several agents")]
    pub(super) another: Vec<Another>,
    /// Trust the certificates of this PEM file at the relay, too
    #[arg(long, value_name = "FILE", help_heading = "TLS to the relay")]
    pub(super) ca_file: Option<PathBuf>,
    /// Trust any certificate: for tests; anyone on the network path can pose as the relay
    #[arg(long, conflicts_with = "ca_file", help_heading = "TLS to the relay")]
    pub(super) insecure_any_certificate: bool,
    /// How long a question to the person waits for an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds, allow_hyphen_values = true)]
    pub(super) ask_timeout: Duration,
    /// Let in every device that has a link, without asking at the terminal
    #[arg(long, help_heading = "Devices")]
    pub(super) yes: bool,
    /// Go on letting in a phone that knows no devices, even if none has come for 7 days
    #[arg(long, help_heading = "Devices")]
    pub(super) legacy_phone: bool,
    /// The state file comes from a backup: what was recorded since is not taken again
    #[arg(long, conflicts_with = "new", help_heading = "Devices")]
    pub(super) restored: bool,
    /// How long answers in progress may take after SIGTERM or Ctrl-C, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds, allow_hyphen_values = true)]
    pub(super) shutdown_timeout: Duration,
}

/// One more agent behind the same pairing, on a command line of its own.
#[derive(Clone, Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, group(what_answers()))]
pub(super) struct Another {
    /// What messages call it
    #[arg(value_name = "ID", value_parser = another_id)]
    pub(super) id: String,
    /// Its name, for the phone [default: its id]
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) backend: BackendOptions,
}

/// What answers.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub(super) struct BackendOptions {
    /// Say again what the phone says
    #[arg(long, help_heading = "What answers (one of these)")]
    pub(super) echo: bool,
    /// An AI server with OpenAI's chat API, such as http://localhost:11434/v1 for Ollama
    #[arg(long, value_name = "URL", requires = "model", value_parser = ai_server, help_heading = "What answers (one of these)")]
    pub(super) openai: Option<String>,
    /// A program, run by the shell for each message: text on its standard input, its output is the answer
    #[arg(long, value_name = "COMMAND", value_parser = command, help_heading = "What answers (one of these)")]
    pub(super) exec: Option<String>,
    /// The program of --exec speaks in lines of JSON: images and history in, pieces, activity and questions out
    #[arg(long, conflicts_with_all = ["echo", "openai", "acp", "ag_ui", "agent_protocol"], help_heading = "Program")]
    pub(super) exec_json: bool,
    /// An agent that speaks the Agent Client Protocol, run by the shell: 'openclaw acp', 'opencode acp', 'qwen --acp'
    #[arg(long, value_name = "COMMAND", value_parser = command, help_heading = "What answers (one of these)")]
    pub(super) acp: Option<String>,
    /// A server of AG-UI, the Agent User Interaction Protocol; the address of its runs
    #[arg(long, value_name = "URL", value_parser = ai_server, help_heading = "What answers (one of these)")]
    pub(super) ag_ui: Option<String>,
    /// A server of the Agent Protocol (AutoGPT), such as http://localhost:8000; each message is a task
    #[arg(long, value_name = "URL", value_parser = ai_server, help_heading = "What answers (one of these)")]
    pub(super) agent_protocol: Option<String>,
    /// Folder that the agent of --acp works in [default: the current one]
    #[arg(long, value_name = "FOLDER", conflicts_with_all = SERVERS, conflicts_with = "exec", help_heading = "Program")]
    pub(super) acp_dir: Option<PathBuf>,
    /// Variable that the program gets although it has a secret of the agent's; may be given several times
    #[arg(long, value_name = "NAME", conflicts_with_all = SERVERS, help_heading = "Program")]
    pub(super) exec_env: Vec<String>,
    /// The model's name
    #[arg(long, value_name = "MODEL", conflicts_with_all = NO_CHAT_API, help_heading = "AI server")]
    pub(super) model: Option<String>,
    /// Variable of the environment that has the API key
    #[arg(long, value_name = "NAME", default_value = "OPENAI_API_KEY", help_heading = "AI server")]
    pub(super) api_key_env: String,
    /// File that has the API key
    #[arg(long, conflicts_with_all = PROGRAMS, value_name = "FILE", help_heading = "AI server")]
    pub(super) api_key_file: Option<PathBuf>,
    /// Trust the certificates of this PEM file at the AI server, and no others [default: the public ones]
    #[arg(long, conflicts_with_all = PROGRAMS, value_name = "FILE", help_heading = "AI server")]
    pub(super) openai_ca_file: Option<PathBuf>,
    /// Said to the model before the conversation
    #[arg(long, value_name = "TEXT", conflicts_with_all = NO_CHAT_API, help_heading = "AI server")]
    pub(super) system: Option<String>,
    /// The AI server keeps conversations: tell it which one it is, and of what is said the newest turn alone
    #[arg(long, conflicts_with_all = PROGRAMS, conflicts_with = "agent_protocol", help_heading = "AI server")]
    pub(super) stateful: bool,
    /// Turns of the conversation that the model is told
    #[arg(long, value_name = "COUNT", default_value = "40", value_parser = turns, allow_hyphen_values = true, help_heading = "AI server")]
    pub(super) context: usize,
    /// How long the AI server or the agent of --acp may say nothing, or the program of --exec may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds, allow_hyphen_values = true)]
    pub(super) timeout: Duration,
}

fn what_answers() -> ArgGroup {
    ArgGroup::new("what_answers").required(true).args(["echo", "openai", "exec", "acp", "ag_ui", "agent_protocol"])
}

/// What answers without an AI server, what does without a program, and what has no chat API of OpenAI.
const PROGRAMS: [&str; 3] = ["echo", "exec", "acp"];
const SERVERS: [&str; 4] = ["echo", "openai", "ag_ui", "agent_protocol"];
const NO_CHAT_API: [&str; 5] = ["echo", "exec", "acp", "ag_ui", "agent_protocol"];

const AFTER_HELP: &str = "\
A proxy that the environment names (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY) is used for the relay and the AI server,
and never for this machine.

Examples:
  coralmux-agent --relay wss://relay.example.com --openai http://localhost:11434/v1 --model llama3.2
  coralmux-agent --relay wss://relay.example.com --exec 'python my_bot.py'
  coralmux-agent --relay wss://relay.example.com --acp 'openclaw acp'
  coralmux-agent link --relay wss://relay.example.com
  coralmux-agent pair --relay wss://relay.example.com

Exit codes: 0 stopped, 1 failed, 2 wrong command line, 3 the token is refused or revoked, 4 replaced by another agent.";

/// Versions of the end-to-end encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum E2e {
    /// Version 1.
    #[value(name = "1")]
    Version1,
    /// Version 2.
    #[value(name = "2")]
    Version2,
    /// Version 3, and version 2 for phones that do not know it.
    #[value(name = "3")]
    Version3,
}

/// The longest time that can be asked for.
const SECONDS_MAX: u64 = 24 * 3600;

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (1..=SECONDS_MAX).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("a number of seconds from 1 to {SECONDS_MAX}"))
}

fn turns(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| (1..=200).contains(count)).ok_or_else(|| "a number from 1 to 200".to_owned())
}

/// An address that `/chat/completions` can be put behind.
fn ai_server(text: &str) -> Result<String, String> {
    let url = text.parse::<Uri>().ok().filter(|url| {
        let plain = url.query().is_none() && url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        matches!(url.scheme_str(), Some("http" | "https")) && plain && url.host().is_some_and(|host| !host.is_empty())
    });
    url.map(|_| text.to_owned()).ok_or_else(|| {
        "an address such as http://localhost:11434/v1, without user name and query (a key: --api-key-file)".to_owned()
    })
}

fn command(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("a command for the shell".to_owned()) } else { Ok(text.to_owned()) }
}

fn another_id(text: &str) -> Result<String, String> {
    match text {
        FIRST => Err(format!("{FIRST} is the agent that is not named")),
        text if is_id(text) => Ok(text.to_owned()),
        _ => Err("an id has 1 to 64 of the characters A-Z a-z 0-9 _ -".to_owned()),
    }
}

fn another(text: &str) -> Result<Another, String> {
    let words = shlex::split(text).ok_or("a quotation mark is not closed")?;
    Another::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        let complaint = text.split("\n\n").next().unwrap_or_default();
        complaint.trim_start_matches("error: ").to_owned()
    })
}

impl Task {
    /// What the command line and the environment say. A variable that is empty says nothing.
    pub(super) fn read(
        args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, clap::Error> {
        let line = CommandLine::try_parse_from(args)?;
        let env = |name: &str| env(name).filter(|text| !text.trim().is_empty());
        let mut task = match line.subcommand {
            Some(Also::Link(pairing)) => Self::ShowLink(pairing),
            Some(Also::Pair(pairing)) => Self::Pair(pairing),
            Some(Also::Devices(pairing)) => Self::Ask(pairing, json!({"do": "devices"})),
            Some(Also::Revoke(Revoke { pairing, device, keep_invited })) => {
                Self::Ask(pairing, json!({"do": "revoke", "device": device, "keep_invited": keep_invited}))
            }
            Some(Also::Owner(Owner { pairing, device })) => {
                Self::Ask(pairing, json!({"do": "owner", "device": device}))
            }
            None => Self::Serve(Box::new(line.options)),
        };
        let pairing = match &mut task {
            Self::Serve(options) => &mut options.pairing,
            Self::ShowLink(pairing) | Self::Pair(pairing) | Self::Ask(pairing, _) => pairing,
        };
        if pairing.relay.is_none() {
            let text = env("CORALMUX_AGENT_RELAY").ok_or_else(|| {
                wrong(ErrorKind::MissingRequiredArgument, "--relay URL (or CORALMUX_AGENT_RELAY) is missing")
            })?;
            let relay = text.parse().map_err(|error| {
                wrong(
                    ErrorKind::ValueValidation,
                    format!("CORALMUX_AGENT_RELAY is not the address of a relay: {error}"),
                )
            })?;
            pairing.relay = Some(relay);
        }
        if let Self::Serve(options) = &mut task {
            let mut ids: Vec<&str> = options.another.iter().map(|another| another.id.as_str()).collect();
            ids.sort_unstable();
            if let Some([id, _]) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(wrong(
                    ErrorKind::ValueValidation,
                    format!("--another: there are two agents with the id {id}"),
                ));
            }
            if ids.len() >= AGENTS_MAX {
                let text = format!("--another: there are {AGENTS_MAX} agents at most, the first one among them");
                return Err(wrong(ErrorKind::ValueValidation, text));
            }
            options.token = options.token.take().or_else(|| env("CORALMUX_AGENT_TOKEN"));
            // Not by a value parser: its complaint would show the text, which may be a link with the secret in it.
            if options.token.as_deref().is_some_and(|token| !is_token_text(token)) {
                let text =
                    "--token (or CORALMUX_AGENT_TOKEN) is not a token: `oc_pair_` and 32 of the digits 0-9 and a-f";
                return Err(wrong(ErrorKind::ValueValidation, text));
            }
        }
        Ok(task)
    }
}

fn wrong(kind: ErrorKind, text: impl std::fmt::Display) -> clap::Error {
    CommandLine::command().error(kind, text)
}

impl Pairing {
    /// The relay.
    pub(super) fn relay(&self) -> &RelayUrl {
        self.relay.as_ref().expect("Task::read gives none without")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, clap::Error> {
        read_with(line, |_| None)
    }

    fn read_with(line: &str, env: impl Fn(&str) -> Option<String>) -> Result<Options, clap::Error> {
        match Task::read(line.split(' '), env)? {
            Task::Serve(options) => Ok(*options),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_command_line_has_sense() {
        CommandLine::command().debug_assert();
        let options = read("coralmux-agent --relay wss://r --openai http://h/v1 --model m").unwrap();
        assert_eq!((options.pairing.e2e, options.pairing.relay().to_string().as_str()), (E2e::Version3, "wss://r/ws"));
    }

    #[test]
    fn the_link_can_be_asked_for_and_nothing_else_with_it() {
        let read = |line: &str| Task::read(line.split(' '), |_| None);
        for line in
            ["coralmux-agent link --relay wss://r", "coralmux-agent link --relay wss://r --state f --qr none --e2e 1"]
        {
            assert!(matches!(read(line), Ok(Task::ShowLink(_))), "{line}: {:?}", read(line));
        }
        for line in [
            "coralmux-agent link",
            "coralmux-agent link --relay wss://r --echo",
            "coralmux-agent --relay wss://r link",
            "coralmux-agent --echo link --relay wss://r",
        ] {
            assert_eq!(read(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_environment_stands_in_and_an_empty_variable_says_nothing() {
        let token = "oc_pair_0123456789abcdef0123456789abcdef";
        let env = |relay: &'static str, token: &'static str| {
            move |name: &str| match name {
                "CORALMUX_AGENT_RELAY" => Some(relay.to_owned()),
                "CORALMUX_AGENT_TOKEN" => Some(token.to_owned()),
                _ => None,
            }
        };
        let options = read_with("coralmux-agent --echo", env("wss://r", token)).unwrap();
        assert_eq!((options.pairing.relay().host(), options.token.as_deref()), ("r", Some(token)));
        let options = read_with("coralmux-agent --relay wss://s --echo", env("", " ")).unwrap();
        assert_eq!((options.pairing.relay().host(), options.token), ("s", None));
        for (relay, token) in [("", ""), ("ftp://r", ""), ("wss://r", "x")] {
            let error = read_with("coralmux-agent --echo", env(relay, token)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }

    #[test]
    fn each_agent_has_a_command_line_of_its_own() {
        let read = |others: &[&str]| -> Result<_, clap::Error> {
            let others = others.iter().flat_map(|other| ["--another", other]);
            let line = ["coralmux-agent", "--relay", "wss://r", "--echo"].into_iter().chain(others);
            match Task::read(line, |_| None)? {
                Task::Serve(options) => Ok(options.another),
                other => panic!("{other:?}"),
            }
        };
        let others = read(&["coder --acp 'a \"b c\"' --timeout 5 --name 'Mr. C'", "b --echo"]).unwrap();
        assert_eq!((others[0].id.as_str(), others[0].name.as_deref()), ("coder", Some("Mr. C")));
        assert_eq!(others[0].backend.acp.as_deref(), Some("a \"b c\""));
        assert_eq!((others[0].backend.timeout, others[1].backend.timeout.as_secs()), (Duration::from_secs(5), 300));
        for (other, words) in [
            ("", "required"),
            ("coder", "<--echo|"),
            ("co/der --echo", "A-Z a-z 0-9"),
            ("default --echo", "not named"),
            ("coder --echo --exec cat", "cannot be used with"),
            ("coder --relay wss://s --echo", "'--relay'"),
            ("coder --exec 'cat", "quotation mark"),
            ("coder --openai http://h/v1", "--model"),
        ] {
            let error = read(&[other]).unwrap_err().to_string();
            assert!(error.contains("--another") && error.contains(words), "{other}: {error}");
        }
        assert!(read(&["a --echo", "a --echo"]).unwrap_err().to_string().contains("two agents with the id a"));
        let many: Vec<String> = (0..AGENTS_MAX).map(|number| format!("a{number} --echo")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(read(&many).unwrap_err().to_string().contains("16 agents at most"));
        assert_eq!(read(&many[1..]).unwrap().len(), AGENTS_MAX - 1);
    }

    #[test]
    fn there_is_one_backend() {
        for line in [
            "coralmux-agent --relay wss://r",
            "coralmux-agent --relay wss://r --echo --exec cat",
            "coralmux-agent --relay wss://r --openai http://h/v1",
            "coralmux-agent --echo",
            "coralmux-agent --relay ftp://r --echo",
            "coralmux-agent --relay wss://r --echo --timeout 0",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_flag() {
        let token = "--echo --token oc_pair_0123456789abcdef0123456789ABCDEF";
        for (flags, named) in [
            ("--echo --token WRONG", "--token"),
            (token, "--token"),
            ("--openai notaurl --model m", "--openai"),
            ("--openai ftp://h/v1 --model m", "--openai"),
            ("--openai http://me:key@h/v1 --model m", "--openai"),
            ("--openai http://h/v1?a=b --model m", "--openai"),
            ("--exec ", "--exec"),
            ("--echo --model m", "--model"),
            ("--exec cat --system s", "--system"),
            ("--echo --exec-json", "--exec"),
            ("--ag-ui http://h --model m", "--model"),
            ("--ag-ui h", "--ag-ui"),
            ("--agent-protocol http://h --stateful", "--stateful"),
            ("--acp x --stateful", "--stateful"),
            ("--echo --acp-dir /", "--acp-dir"),
            ("--exec x --acp-dir /", "--acp-dir"),
            ("--ag-ui http://h --exec-env A", "--exec-env"),
            ("--echo --timeout -5", "'-5' for '--timeout <SECONDS>': a number of seconds from 1"),
            ("--echo --timeout=-5", "'-5' for '--timeout <SECONDS>': a number of seconds from 1"),
            ("--echo --shutdown-timeout -5s", "'-5s' for '--shutdown-timeout <SECONDS>': a number of seconds from 1"),
            ("--openai http://h/v1 --model m --context -5", "'-5' for '--context <COUNT>': a number from 1 to 200"),
        ] {
            let error = read(&format!("coralmux-agent --relay wss://r {flags}")).unwrap_err();
            assert!(error.to_string().contains(named) && error.exit_code() == 2, "{flags}: {error}");
            assert!(!error.to_string().contains("0123456789"), "a token is not shown: {error}");
        }
        let token = token.to_lowercase();
        assert!(read(&format!("coralmux-agent --relay wss://r {token}")).is_ok());
    }
}
