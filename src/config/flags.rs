//! The command line as people type it. Values stay texts here: they are checked together with those of the environment
//! and the file, so that each is told wrong in the same words.

use clap::{CommandFactory, FromArgMatches, Parser};
use std::collections::HashSet;
use std::ffi::OsString;

/// What the command line said. The comments are the help text as well, which has plain links.
#[allow(rustdoc::bare_urls)]
#[derive(Parser)]
#[command(
    name = "coralmux-relay",
    version,
    about = "A NAT-transparent WebSocket relay for AI agents.",
    override_usage = "coralmux-relay [OPTIONS]\n       coralmux-relay demo|doctor|admin|healthcheck|completions|man [OPTIONS]",
    next_line_help = true,
    after_help = AFTER_HELP
)]
pub(super) struct Flags {
    /// Where to listen, such as `:8080`, with TLS as `tls://:443`; repeatable [default: :8080]
    #[arg(long, value_name = "HOST:PORT", help_heading = "Listening")]
    pub(super) addr: Vec<String>,
    /// Where to answer each WebSocket message with itself, for tests of a network [default: off]
    #[arg(long, value_name = "HOST:PORT", help_heading = "Listening")]
    pub(super) echo_addr: Option<String>,
    /// Proxy whose X-Forwarded-For counts; repeatable [default: none]
    #[arg(long, value_name = "IP[/BITS]", help_heading = "Listening")]
    pub(super) trusted_proxy: Vec<String>,
    /// Proxy that begins each connection with a PROXY protocol header; repeatable [default: none]
    #[arg(long, value_name = "IP[/BITS]", help_heading = "Listening")]
    pub(super) proxy_protocol: Vec<String>,
    /// Browser origin to admit, such as https://app.example.com; repeatable [default: any]
    #[arg(long, value_name = "ORIGIN", help_heading = "Listening")]
    pub(super) allow_origin: Vec<String>,
    /// Further name that the relay is reached by; repeatable [default: those of --domain]
    #[arg(long, value_name = "NAME", help_heading = "Listening")]
    pub(super) own_name: Vec<String>,
    /// Whether the phone in the browser is served at / [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Listening")]
    pub(super) phone: Option<String>,

    /// Domain to get a certificate for, and to renew it; repeatable [default: none]
    #[arg(long, value_name = "NAME", help_heading = "TLS")]
    pub(super) domain: Vec<String>,
    /// Certificate chain of your own, PEM; repeatable, chosen by name [default: none]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(super) tls_cert: Vec<String>,
    /// Its private key, PEM; repeatable, in the order of --tls-cert [default: none]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(super) tls_key: Vec<String>,
    /// Where HTTP is redirected to https and answers the CA; or off [default: :80 with --domain]
    #[arg(long, value_name = "HOST:PORT", help_heading = "TLS")]
    pub(super) http_addr: Option<String>,
    /// ACME directory that gives out the certificates [default: that of Let's Encrypt]
    #[arg(long, value_name = "URL", help_heading = "TLS")]
    pub(super) acme_directory: Option<String>,
    /// Certificates that the directory's own TLS is checked against, PEM [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(super) acme_ca: Option<String>,
    /// Address that the CA may write to [default: none]
    #[arg(long, value_name = "EMAIL", help_heading = "TLS")]
    pub(super) acme_email: Option<String>,
    /// Key identifier for external account binding, where the CA asks for it [default: none]
    #[arg(long, value_name = "ID", help_heading = "TLS")]
    pub(super) acme_eab_kid: Option<String>,
    /// Its key in base64url; better in the environment or the file [default: none]
    #[arg(long, value_name = "KEY", help_heading = "TLS")]
    pub(super) acme_eab_key: Option<String>,
    /// Where the account's key and the certificates are kept [default: beside the store, .acme]
    #[arg(long, value_name = "DIRECTORY", help_heading = "TLS")]
    pub(super) acme_dir: Option<String>,

    /// Key of the admin API; also RELAY_ADMIN_KEY [default: made and kept beside the store]
    #[arg(long, value_name = "KEY", help_heading = "Tokens")]
    pub(super) admin_key: Option<String>,
    /// The token store, an SQLite file; it is made if need be [default: relay.db]
    #[arg(long, value_name = "FILE", help_heading = "Tokens")]
    pub(super) db: Option<String>,
    /// Whether clients may register themselves [default: on]
    #[arg(long, value_name = "on|off", help_heading = "Tokens")]
    pub(super) registration: Option<String>,
    /// Registrations an hour for each client address [default: 5]
    #[arg(long, value_name = "COUNT", help_heading = "Tokens")]
    pub(super) register_rate: Option<String>,

    /// Messages a minute from a phone [default: 30]
    #[arg(long, value_name = "COUNT", help_heading = "Limits for each token (0: none)")]
    pub(super) phone_rate: Option<String>,
    /// Messages a minute from an agent, chat.stream not counted [default: 120]
    #[arg(long, value_name = "COUNT", help_heading = "Limits for each token (0: none)")]
    pub(super) agent_rate: Option<String>,
    /// chat.stream messages a second from an agent [default: 100]
    #[arg(long, value_name = "COUNT", help_heading = "Limits for each token (0: none)")]
    pub(super) stream_rate: Option<String>,
    /// Bytes a UTC day [default: 500MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Limits for each token (0: none)")]
    pub(super) daily_quota: Option<String>,
    /// Bytes a UTC month [default: 10GiB]
    #[arg(long, value_name = "SIZE", help_heading = "Limits for each token (0: none)")]
    pub(super) monthly_quota: Option<String>,
    /// The largest message, at most 64MiB, which 0 means too [default: 5MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Limits for each token (0: none)")]
    pub(super) max_message: Option<String>,

    /// Connections in all [default: 0, as many as the open-files limit allows]
    #[arg(long, value_name = "COUNT", help_heading = "Limits of the relay (0: none)")]
    pub(super) max_connections: Option<String>,
    /// Connections that have not authenticated yet, in all [default: 8192]
    #[arg(long, value_name = "COUNT", help_heading = "Limits of the relay (0: none)")]
    pub(super) max_unauthenticated: Option<String>,
    /// Connections that have not authenticated yet, for each client address [default: 64]
    #[arg(long, value_name = "COUNT", help_heading = "Limits of the relay (0: none)")]
    pub(super) max_unauthenticated_per_address: Option<String>,
    /// Memory of each shard for messages under way [default: a quarter of memory, shared]
    #[arg(long, value_name = "SIZE", help_heading = "Share of the machine")]
    pub(super) memory_budget: Option<String>,
    /// Threads that serve connections, each on a core [default: one for each usable core]
    #[arg(long, value_name = "COUNT", help_heading = "Share of the machine")]
    pub(super) shards: Option<String>,

    /// From connecting to authenticated [default: 10s]
    #[arg(long, value_name = "TIME", help_heading = "Times")]
    pub(super) auth_timeout: Option<String>,
    /// Between the pings to each connection [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Times")]
    pub(super) ping_interval: Option<String>,
    /// Silence after which a connection is given up; longer than the ping interval [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "Times")]
    pub(super) idle_timeout: Option<String>,
    /// How long a connection may take nothing of what waits for it [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Times")]
    pub(super) write_timeout: Option<String>,
    /// On SIGTERM, the time over which clients are sent away [default: 1ms each, at most 10s]
    #[arg(long, value_name = "TIME", help_heading = "Times")]
    pub(super) drain_window: Option<String>,
    /// From SIGTERM to the end, at the latest [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Times")]
    pub(super) drain_deadline: Option<String>,

    /// Where to serve /metrics and /health [default: 127.0.0.1:9464, if that is free]
    #[arg(long, value_name = "HOST:PORT|off", help_heading = "Program")]
    pub(super) metrics_addr: Option<String>,
    /// TOML file with these flags as keys, without the dashes in front [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Program")]
    pub(super) config: Option<String>,
    /// Lines for people, programs or systemd; auto: what fits standard error [default: auto]
    #[arg(long, value_name = "auto|human|json|journal", help_heading = "Program")]
    pub(super) log_format: Option<String>,
    /// The least that is logged: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", help_heading = "Program")]
    pub(super) log_level: Option<String>,
}

const AFTER_HELP: &str = "\
Each flag is also an environment variable (--phone-rate: CORALMUX_PHONE_RATE) and a key of the file
(phone-rate = 30). A flag goes before the environment, the environment before the file. What is
repeatable also takes several values with commas between them. One dash does as well as two.

SIZE: bytes, or with KB, MB, GB (1000) or KiB, MiB, GiB (1024) behind. TIME: 500ms, 10s, 2m, 1h.

coralmux-relay healthcheck: asks the relay that runs with these settings; exit code 0 if it is well.";

impl Flags {
    /// The names of all flags that take a value, without dashes.
    pub(super) fn names() -> Vec<String> {
        let command = Self::command();
        command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect()
    }

    /// The flag whose name is nearly `name`, if there is one.
    pub(super) fn near(name: &str) -> Option<String> {
        let name = name.replace('_', "-").to_lowercase();
        let likeness = |flag: &String| strsim::jaro_winkler(flag, &name);
        let nearest = Self::names().into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        nearest.filter(|flag| likeness(flag) > 0.8)
    }

    /// Reads a command line, program name first. The error is clap's: also `--help` and `--version`.
    pub(super) fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        // A number below 0 is a value like another, which its reader then refuses by the flag's name.
        let command = Self::command().mut_args(|arg| match arg.get_action().takes_values() {
            true => arg.allow_negative_numbers(true),
            false => arg,
        });
        Self::from_arg_matches(&command.try_get_matches_from(with_two_dashes(args))?)
    }
}

/// People type `-addr :8080` as well as `--addr :8080`: a known flag with one dash gets its second one. One that is
/// nearly known gets it too, so that the error names the flag that was meant.
fn with_two_dashes(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut known: HashSet<String> = Flags::names().into_iter().collect();
    known.extend(["help".to_owned(), "version".to_owned()]);
    let mut flags_ended = false;
    args.into_iter()
        .map(|arg| {
            flags_ended |= arg == "--";
            let name = arg.to_str().and_then(|text| text.strip_prefix('-')).map(|text| text.split('=').next());
            match name {
                Some(Some(name)) if !flags_ended && (known.contains(name) || is_misspelt(name)) => {
                    let mut long = OsString::from("-");
                    long.push(arg);
                    long
                }
                _ => arg,
            }
        })
        .collect()
}

/// Whether a name of more than one letter is nearly that of a flag.
fn is_misspelt(name: &str) -> bool {
    name.len() > 1 && !name.starts_with('-') && Flags::near(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dashes(args: &[&str]) -> Vec<String> {
        with_two_dashes(args.iter().map(OsString::from)).into_iter().map(|a| a.into_string().unwrap()).collect()
    }

    #[test]
    fn a_known_flag_with_one_dash_gets_two() {
        assert_eq!(dashes(&["x", "-addr", ":8080", "-admin-key=-x=y"]), ["x", "--addr", ":8080", "--admin-key=-x=y"]);
        assert_eq!(dashes(&["x", "-help", "-version"]), ["x", "--help", "--version"]);
    }

    #[test]
    fn everything_else_stays_as_it_was() {
        let same = ["x", "--addr", "-h", "-V", "-", "-5", "-xyz", "--db=-addr", "--", "-addr"];
        assert_eq!(dashes(&same), same);
    }

    #[test]
    fn clap_finds_no_fault_with_the_flags() {
        Flags::command().debug_assert();
    }

    #[test]
    fn the_help_fits_100_columns_and_names_each_flag_with_its_default() {
        let help = Flags::command().render_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
        }
        for name in Flags::names() {
            let at = help.find(&format!("--{name} <")).unwrap_or_else(|| panic!("--{name}"));
            let entry = help[at..].lines().nth(1).unwrap();
            assert!(entry.contains("[default: "), "--{name}: {entry}");
        }
    }
}
