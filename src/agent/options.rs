//! The agent's command line.

use super::pairing::Codes;
use crate::client::RelayUrl;
use crate::proto::token::is_token_text;
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, CommandFactory, Parser, ValueEnum};
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
    group(ArgGroup::new("what_answers").required(true).args(["echo", "openai", "exec"]))
)]
pub(super) struct Options {
    /// The relay, such as wss://relay.example.com
    #[arg(long, value_name = "URL", env = "CORALMUX_AGENT_RELAY")]
    pub(super) relay: RelayUrl,
    /// The pairing token [default: the one that is kept, or a new one from the relay]
    #[arg(long, value_name = "TOKEN", env = "CORALMUX_AGENT_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// Where token and pairing secret are kept [default: a file for each relay in ~/.local/state/coralmux-agent]
    #[arg(long, value_name = "FILE")]
    pub(super) state: Option<PathBuf>,
    /// Forget what is kept, and pair anew
    #[arg(long)]
    pub(super) new: bool,
    /// End-to-end encryption: 2 is verified by the link's secret; 1 is for phones that know no other
    #[arg(long, value_name = "VERSION", default_value = "2")]
    pub e2e: E2e,
    /// Which QR codes to show
    #[arg(long, value_name = "WHICH", default_value = "both")]
    pub(super) qr: Codes,
    /// The agent's name, for the phone
    #[arg(long, value_name = "NAME", default_value = "CoralMux agent")]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) backend: BackendOptions,
    /// Trust the certificates of this PEM file at the relay, too
    #[arg(long, value_name = "FILE", help_heading = "TLS to the relay")]
    pub(super) ca_file: Option<PathBuf>,
    /// Trust any certificate: for tests; whoever sits between can be the relay
    #[arg(long, conflicts_with = "ca_file", help_heading = "TLS to the relay")]
    pub(super) insecure_any_certificate: bool,
    /// How long answers under way may take after SIGTERM or Ctrl-C, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub(super) shutdown_timeout: Duration,
}

/// What answers.
#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct BackendOptions {
    /// Say again what the phone says
    #[arg(long, help_heading = "What answers (one of three)")]
    pub(super) echo: bool,
    /// An AI server with OpenAI's chat API, such as http://localhost:11434/v1 for Ollama
    #[arg(long, value_name = "URL", requires = "model", value_parser = ai_server, help_heading = "What answers (one of three)")]
    pub(super) openai: Option<String>,
    /// A program, run by the shell for each message: text on its standard input, its output is the answer
    #[arg(long, value_name = "COMMAND", value_parser = command, help_heading = "What answers (one of three)")]
    pub(super) exec: Option<String>,
    /// Variable that the program gets although it has a secret of the agent's; may be given several times
    #[arg(long, value_name = "NAME", conflicts_with_all = ["echo", "openai"], help_heading = "Program")]
    pub(super) exec_env: Vec<String>,
    /// The model's name
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["echo", "exec"], help_heading = "AI server")]
    pub(super) model: Option<String>,
    /// Variable of the environment that has the API key
    #[arg(long, value_name = "NAME", default_value = "OPENAI_API_KEY", help_heading = "AI server")]
    pub(super) api_key_env: String,
    /// File that has the API key
    #[arg(long, conflicts_with_all = ["echo", "exec"], value_name = "FILE", help_heading = "AI server")]
    pub(super) api_key_file: Option<PathBuf>,
    /// Trust the certificates of this PEM file at the AI server, and no others [default: the public ones]
    #[arg(long, conflicts_with_all = ["echo", "exec"], value_name = "FILE", help_heading = "AI server")]
    pub(super) openai_ca_file: Option<PathBuf>,
    /// Said to the model before the conversation
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["echo", "exec"], help_heading = "AI server")]
    pub(super) system: Option<String>,
    /// Turns of the conversation that the model is told
    #[arg(long, value_name = "COUNT", default_value = "40", value_parser = turns, help_heading = "AI server")]
    pub(super) context: usize,
    /// How long the AI server may say nothing, or the program may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub(super) timeout: Duration,
}

const AFTER_HELP: &str = "\
Examples:
  coralmux-agent --relay wss://relay.example.com --openai http://localhost:11434/v1 --model llama3.2
  coralmux-agent --relay wss://relay.example.com --exec 'python my_bot.py'

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

impl Options {
    /// What the command line says.
    pub(super) fn read(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let options = Self::try_parse_from(args)?;
        // Not by a value parser: its complaint would show the text, which may be a link with the secret in it.
        if options.token.as_deref().is_some_and(|token| !is_token_text(token)) {
            let text = "--token (or CORALMUX_AGENT_TOKEN) is no token: `oc_pair_` and 32 of the digits 0-9 and a-f";
            return Err(Self::command().error(ErrorKind::ValueValidation, text));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, clap::Error> {
        Options::read(line.split(' '))
    }

    #[test]
    fn the_command_line_has_sense() {
        Options::command().debug_assert();
        let options = read("coralmux-agent --relay wss://r --openai http://h/v1 --model m").unwrap();
        assert_eq!((options.e2e, options.relay.to_string().as_str()), (E2e::Version2, "wss://r/ws"));
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
        ] {
            let error = read(&format!("coralmux-agent --relay wss://r {flags}")).unwrap_err();
            assert!(error.to_string().contains(named) && error.exit_code() == 2, "{flags}: {error}");
            assert!(!error.to_string().contains("0123456789"), "a token is not shown: {error}");
        }
        let token = token.to_lowercase();
        assert!(read(&format!("coralmux-agent --relay wss://r {token}")).is_ok());
    }
}
