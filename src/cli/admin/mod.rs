//! `coralmux-relay admin`: operates a running relay over its HTTP API, with the admin key. Tables for people, JSON for
//! programs. It never prints the key.

mod api;
mod show;

use self::api::{Api, ApiError};
use crate::api::PAGE_MAX;
use crate::config;
use crate::console;
use clap::{Args, Parser, Subcommand};
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// Between two looks at a backup.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Operates a running relay over its HTTP API.
///
/// The admin key is read from --key-file, from RELAY_ADMIN_KEY or CORALMUX_ADMIN_KEY, or from relay.db.admin-key in the
/// current directory.
#[derive(Parser)]
#[command(name = "coralmux-relay admin")]
pub struct Admin {
    /// Where the relay answers; also CORALMUX_URL [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", global = true)]
    relay: Option<String>,
    /// File with the admin key
    #[arg(long, value_name = "FILE", global = true)]
    key_file: Option<PathBuf>,
    /// Certificates that the relay's own is checked against, PEM [default: those of the web]
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// JSON instead of tables
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Pairing tokens: make them, look at them, end them
    #[command(subcommand)]
    Tokens(Tokens),
    /// Devices of a token, and the agent that it is bound to
    #[command(subcommand)]
    Devices(Devices),
    /// The mailbox: what waits for whom, and throwing it away
    #[command(subcommand)]
    Mail(Mail),
    /// Who is online
    Sessions,
    /// Bytes forwarded on each day
    Usage {
        /// Of this token alone
        id: Option<String>,
    },
    /// Send all clients away and end the relay
    Drain,
    /// Copy the store while it is in use, into a file beside it
    Backup {
        /// The file's name, ending with .backup [default: the store's with the time]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Copy the mailbox as well, into a second file of that name and .mail
        #[arg(long)]
        mail: bool,
    },
    /// Show what is logged, or change it
    LogLevel {
        /// error, warn, info, debug, trace or off
        level: Option<String>,
    },
}

#[derive(Subcommand)]
enum Tokens {
    /// All tokens, in the order they were made
    List,
    /// One token
    Show {
        /// Its public name, 16 hex digits
        id: String,
    },
    /// Make a token, and show it this once
    Create {
        /// What it is for, at most 200 characters
        #[arg(long)]
        label: Option<String>,
        /// From when it admits no more: RFC 3339, such as 2026-12-31T23:59:59Z
        #[arg(long, value_name = "TIME", conflicts_with = "expires_in")]
        expires_at: Option<String>,
        /// The same, in seconds from now
        #[arg(long, value_name = "SECONDS", value_parser = whole_number, allow_hyphen_values = true)]
        expires_in: Option<u64>,
        #[command(flatten)]
        limits: Box<Limits>,
    },
    /// End a token: its connections are closed
    Revoke {
        /// Its public name, 16 hex digits
        id: String,
    },
    /// Delete tokens that clients registered and nobody ever used
    Sweep {
        /// Those registered so many days of the relay's running ago, or more
        #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = whole_number, allow_hyphen_values = true)]
        unused_days: u64,
    },
    /// Change a token's own limits; those that are not named stay
    Limits {
        /// Its public name, 16 hex digits
        id: String,
        #[command(flatten)]
        limits: Box<Limits>,
        /// First take all that it has of its own away
        #[arg(long)]
        clear: bool,
    },
}

#[derive(Subcommand)]
enum Mail {
    /// How much waits, for whom, and since when
    List {
        /// Of this token alone: its public name, 16 hex digits
        id: Option<String>,
    },
    /// Throw away what waits for a token's receivers: they are told how much they have lost
    Empty {
        /// The token's public name, 16 hex digits
        id: String,
        /// Of this receiver alone: agent, or a device's id
        #[arg(long, value_name = "NAME")]
        receiver: Option<String>,
    },
}

#[derive(Subcommand)]
enum Devices {
    /// All devices of a token, and its agent's key
    List {
        /// The token's public name, 16 hex digits
        id: String,
    },
    /// End a device: its connection is closed, and its key admits no more
    Revoke {
        /// The token's public name, 16 hex digits
        id: String,
        /// The device's id, 16 hex digits
        device: String,
    },
    /// Bind a token to another agent's key; its devices stay
    Bind {
        /// The token's public name, 16 hex digits
        id: String,
        /// SHA-256 of the key, 64 hex digits, as the agent shows it
        agent_key: String,
    },
    /// Unbind a token, which then has no devices: anyone who knows it can bind it, so rather bind it to the new agent's key
    Unbind {
        /// The token's public name, 16 hex digits
        id: String,
    },
}

/// A value, or `default` for the relay's own; 0 lifts the limit.
#[derive(Args)]
#[group(skip)]
struct Limits {
    /// Messages a minute from the phone
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    phone_rate: Option<String>,
    /// Messages a minute from the agent
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    agent_rate: Option<String>,
    /// chat.stream messages a second from the agent
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    stream_rate: Option<String>,
    /// Bytes a UTC day, such as 1GiB
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    daily_quota: Option<String>,
    /// Bytes a UTC month
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    monthly_quota: Option<String>,
    /// The largest message
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    max_message: Option<String>,
    /// Bytes that are kept for its receivers that are not there; 0 keeps nothing, also below
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    mailbox_bytes: Option<String>,
    /// Messages that are kept for one receiver
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    mailbox_messages: Option<String>,
    /// Messages of one device that are kept for the agent
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true)]
    mailbox_device_messages: Option<String>,
    /// The largest message that is kept
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    mailbox_message: Option<String>,
    /// How many seconds a message is kept
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    mailbox_age: Option<String>,
}

/// A token's limits, in the order of the fields of [`Limits`]: the flag, the API's name, and whether it is a size.
const LIMITS: [(&str, &str, bool); 11] = [
    ("phone-rate", "phone_per_minute", false),
    ("agent-rate", "agent_per_minute", false),
    ("stream-rate", "stream_per_second", false),
    ("daily-quota", "daily_quota_bytes", true),
    ("monthly-quota", "monthly_quota_bytes", true),
    ("max-message", "message_bytes_max", true),
    ("mailbox-bytes", "mailbox_bytes_max", true),
    ("mailbox-messages", "mailbox_messages_max", false),
    ("mailbox-device-messages", "mailbox_device_messages_max", false),
    ("mailbox-message", "mailbox_message_bytes_max", true),
    ("mailbox-age", "mailbox_age_max_sec", false),
];

impl Limits {
    /// In the order of [`LIMITS`].
    fn given(&self) -> [&Option<String>; 11] {
        let Self { phone_rate, agent_rate, stream_rate, daily_quota, monthly_quota, max_message, .. } = self;
        let Self { mailbox_bytes, mailbox_messages, mailbox_device_messages, mailbox_message, mailbox_age, .. } = self;
        [
            phone_rate,
            agent_rate,
            stream_rate,
            daily_quota,
            monthly_quota,
            max_message,
            mailbox_bytes,
            mailbox_messages,
            mailbox_device_messages,
            mailbox_message,
            mailbox_age,
        ]
    }

    /// Puts what is named into `limits`, under the API's names.
    fn put(&self, limits: &mut Map<String, Value>) -> Result<(), ApiError> {
        for ((flag, name, is_size), given) in LIMITS.into_iter().zip(self.given()) {
            let read = if is_size { config::read_size } else { config::read_count };
            match given.as_deref() {
                None => {}
                Some("default") => drop(limits.remove(name)),
                Some(text) => {
                    let number = read(text).map_err(|right| {
                        ApiError::Usage(format!("--{flag}: {text:?} is invalid; expected default, or {right}"))
                    })?;
                    limits.insert(name.to_owned(), number.into());
                }
            }
        }
        Ok(())
    }
}

fn whole_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "expected a whole number, such as 30".to_owned())
}

/// Runs `admin` with its own arguments; the exit code is 0, 1 where something failed, 2 where the command line is wrong.
pub(super) fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let admin: Admin = match super::parse(args) {
        Ok(admin) => admin,
        Err(exit_code) => return exit_code,
    };
    match admin.act() {
        Ok(()) => 0,
        Err(error) => {
            console::warn(format_args!("coralmux-relay admin: {error}"));
            if matches!(error, ApiError::Usage(_)) { 2 } else { 1 }
        }
    }
}

impl Admin {
    fn act(&self) -> Result<(), ApiError> {
        let env = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let relay = self.relay.clone().or_else(|| env("CORALMUX_URL"));
        let relay = relay.unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
        let key = api::key(self.key_file.as_deref(), env)?;
        let api = Api::new(&relay, key, self.ca.as_deref())?;
        match &self.what {
            What::Tokens(tokens) => self.tokens(&api, tokens),
            What::Devices(devices) => self.devices(&api, devices),
            What::Mail(mail) => self.mail(&api, mail),
            What::Sessions => self.list(&api, "/api/v1/sessions", "sessions", show::SESSIONS),
            What::Usage { id: None } => self.list(&api, "/api/v1/usage", "days", show::DAYS),
            What::Usage { id: Some(id) } => self.list(&api, &format!("{}/usage", path_of(id)?), "days", show::DAYS),
            What::Drain => {
                let answer = api.call("POST", "/api/v1/drain", None)?;
                self.say(&answer, "draining: clients are told to reconnect, then the relay exits");
                Ok(())
            }
            What::Backup { name, mail } => self.backup(&api, name.as_deref(), *mail),
            What::LogLevel { level } => {
                let answer = match level {
                    Some(level) => api.call("PUT", "/api/v1/log-level", Some(json!({ "level": level })))?,
                    None => api.call("GET", "/api/v1/log-level", None)?,
                };
                self.say(&answer, answer["level"].as_str().unwrap_or_default());
                Ok(())
            }
        }
    }

    fn devices(&self, api: &Api, what: &Devices) -> Result<(), ApiError> {
        match what {
            Devices::List { id } => {
                let bound = api.call("GET", &format!("{}/devices", path_of(id)?), None)?;
                self.say(&bound, &show::devices(&bound));
            }
            Devices::Revoke { id, device } => {
                let (path, of) = (path_of(id)?, checked(device, "a device's id", "devices list")?);
                api.call("DELETE", &format!("{path}/devices/{of}"), None)?;
                self.say(&json!({ "revoked": device }), &format!("{device} is a device of {id} no more"));
            }
            Devices::Bind { id, agent_key } => self.bind(api, id, Some(agent_key))?,
            Devices::Unbind { id } => self.bind(api, id, None)?,
        }
        Ok(())
    }

    fn mail(&self, api: &Api, what: &Mail) -> Result<(), ApiError> {
        match what {
            Mail::List { id } => {
                let path = id.as_deref().map_or(Ok("/api/v1".to_owned()), path_of)?;
                let waiting = api.call("GET", &format!("{path}/mail"), None)?;
                self.say(&waiting, &show::mail(&waiting));
            }
            Mail::Empty { id, receiver } => {
                let path = path_of(id)?;
                let of = match receiver.as_deref() {
                    None => String::new(),
                    Some("agent") => "/agent".to_owned(),
                    Some(device) => format!("/{}", checked(device, "agent or a device's id", "mail list")?),
                };
                api.call("DELETE", &format!("{path}/mail{of}"), None)?;
                self.say(&json!({ "emptied": id, "receiver": receiver }), "nothing waits there any more");
            }
        }
        Ok(())
    }

    fn bind(&self, api: &Api, id: &str, agent_key: Option<&String>) -> Result<(), ApiError> {
        let token = api.call("PATCH", &path_of(id)?, Some(json!({ "agent_key": agent_key })))?;
        self.say(&token, &show::token(&token));
        Ok(())
    }

    fn tokens(&self, api: &Api, what: &Tokens) -> Result<(), ApiError> {
        let token = match what {
            Tokens::List => return self.list(api, "/api/v1/tokens", "tokens", show::TOKENS),
            Tokens::Show { id } => api.call("GET", &path_of(id)?, None)?,
            Tokens::Create { label, expires_at, expires_in, limits } => {
                let mut own = Map::new();
                limits.put(&mut own)?;
                let mut body = json!({ "label": label, "limits": own });
                match (expires_at, expires_in) {
                    (Some(time), _) => body["expires_at"] = time.as_str().into(),
                    (_, Some(seconds)) => body["expires_in_sec"] = (*seconds).into(),
                    _ => {}
                }
                api.call("POST", "/api/v1/pair", Some(body))?
            }
            Tokens::Revoke { id } => {
                api.call("DELETE", &path_of(id)?, None)?;
                self.say(&json!({ "revoked": id }), &format!("{id} admits no more"));
                return Ok(());
            }
            Tokens::Sweep { unused_days } => {
                let mut removed = 0;
                loop {
                    let body = json!({ "unused_days": unused_days });
                    let answer = api.call("POST", "/api/v1/tokens/sweep", Some(body))?;
                    removed += answer["removed"].as_u64().unwrap_or(0);
                    if answer["more"] != true {
                        break;
                    }
                }
                self.say(&json!({ "removed": removed }), &format!("{removed} tokens removed that were never used"));
                return Ok(());
            }
            Tokens::Limits { id, limits, clear } => {
                let path = path_of(id)?;
                limits.put(&mut Map::new())?;
                // What is there is replaced as a whole.
                let mut own = match api.call("GET", &path, None)?["limits"].take() {
                    Value::Object(own) if !clear => own,
                    _ => Map::new(),
                };
                own.retain(|_, value| !value.is_null());
                limits.put(&mut own)?;
                api.call("PATCH", &path, Some(json!({ "limits": own })))?
            }
        };
        self.say(&token, &show::token(&token));
        Ok(())
    }

    /// Prints all pages of a list.
    fn list(&self, api: &Api, path: &str, name: &str, columns: &[show::Column]) -> Result<(), ApiError> {
        let (mut rows, mut next) = (Vec::new(), String::new());
        loop {
            let mut page = api.call("GET", &format!("{path}?limit={PAGE_MAX}{next}"), None)?;
            if let Value::Array(more) = page[name].take() {
                rows.extend(more);
            }
            match page["next"].as_u64() {
                Some(after) => next = format!("&after={after}"),
                None => break,
            }
        }
        self.say(&json!({ name: rows }), &show::table(columns, &rows));
        Ok(())
    }

    fn backup(&self, api: &Api, name: Option<&str>, mail: bool) -> Result<(), ApiError> {
        let bar = !self.json && std::io::stderr().is_terminal();
        let path = if mail { "/api/v1/backup?mail=1" } else { "/api/v1/backup" };
        let mut state = api.call("POST", path, Some(json!({ "name": name })))?;
        while state["state"] == "running" {
            if bar {
                console::print_error(format_args!("\r{}", show::bar(&state)));
            }
            std::thread::sleep(LOOK_EVERY);
            state = api.call("GET", "/api/v1/backup", None)?;
        }
        if bar {
            console::warn(format_args!("\r{}", show::bar(&state)));
        }
        if state["state"] != "done" {
            return Err(ApiError::Refused(state["error"].as_str().unwrap_or("the backup is gone").to_owned()));
        }
        let bytes = state["bytes"].as_u64().unwrap_or(0);
        self.say(&state, &format!("{} ({})", state["file"].as_str().unwrap_or_default(), show::bytes(bytes)));
        Ok(())
    }

    fn say(&self, json: &Value, text: &str) {
        let text = if self.json { json.to_string() } else { text.to_owned() };
        console::say(text.trim_end());
    }
}

/// The path of a token, by its public name.
fn path_of(id: &str) -> Result<String, ApiError> {
    Ok(format!("/api/v1/tokens/{}", checked(id, "a token's id", "tokens list")?))
}

/// An id, which goes into a path.
fn checked<'a>(id: &'a str, what: &str, see: &str) -> Result<&'a str, ApiError> {
    let well = id.len() == 16 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let wrong = || ApiError::Usage(format!("{id:?} is not {what}: those have 16 hex digits (see `{see}`)"));
    well.then_some(id).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        limits: Limits,
    }

    #[test]
    fn each_limit_goes_under_its_own_name() {
        for (flag, name, is_size) in LIMITS {
            let put = |value: &str, own: &mut Map<String, Value>| {
                let flags = Flags::try_parse_from(["x", &format!("--{flag}"), value]).unwrap();
                flags.limits.put(own)
            };
            let mut own = Map::new();
            put("7", &mut own).unwrap();
            assert_eq!(Value::Object(own.clone()), json!({ name: 7 }), "{flag}");
            let refused = put("7KiB", &mut own).map_err(|error| error.to_string());
            match is_size {
                true => assert_eq!(own[name], 7 << 10, "{flag}: {refused:?}"),
                false => assert!(refused.unwrap_err().contains(flag), "{flag}"),
            }
            put("default", &mut own).unwrap();
            assert!(own.is_empty(), "{flag}: {own:?}");
            let below_zero = put("-5", &mut own).unwrap_err().to_string();
            assert!(below_zero.starts_with(&format!("--{flag}: \"-5\" is invalid; expected ")), "{below_zero}");
        }
    }

    #[test]
    fn a_number_below_zero_is_refused_by_the_flags_name_with_what_it_takes() {
        for (call, flag) in [("create", "--expires-in <SECONDS>"), ("sweep", "--unused-days <COUNT>")] {
            let (name, _) = flag.split_once(' ').unwrap();
            for typed in [vec![name, "-5"], vec![&format!("{name}=-5")]] {
                let line = ["x", "tokens", call].into_iter().chain(typed);
                let text = Admin::try_parse_from(line).err().unwrap().to_string();
                assert!(text.contains(&format!("'-5' for '{flag}': expected a whole number")), "{text}");
            }
        }
    }
}
