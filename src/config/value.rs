//! How single values are read. The error of each reader is what it accepts, for the sentence "expected …".

use super::{Io, MetricsAddr};
use crate::cluster::{NatsUrl, NatsUrlError};
use crate::push::{Contact, ContactError, HookUrl, HookUrlError, HostRule, HostRuleError, Notification};
use crate::sys::net::Network;
use crate::telemetry::log::LogFormat;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// The largest count: beyond it the sums of rates would not be exact any more, and nobody means it.
const COUNT_MAX: u64 = 1_000_000_000;

/// The largest message that can be allowed: one takes that much memory while it is in progress.
pub(super) const MESSAGE_BYTES_HARD_MAX: u64 = 64 << 20;

/// The smallest that makes sense: control messages must pass.
const MESSAGE_BYTES_MIN: u64 = 1024;

/// A reader's result; the error says what would be right.
type Read<T> = Result<T, String>;

/// What is wrong with a value.
pub(super) struct Wrong {
    /// What would be right; of a secret, what is wrong with it.
    pub(super) expected: String,
    /// Whether the same value may do later.
    pub(super) may_pass: bool,
}

impl Wrong {
    /// With more said of what would be right.
    pub(super) fn and(self, more: &str) -> Self {
        Self { expected: format!("{}; {more}", self.expected), ..self }
    }
}

impl From<String> for Wrong {
    fn from(expected: String) -> Self {
        Self { expected, may_pass: false }
    }
}

impl From<&str> for Wrong {
    fn from(expected: &str) -> Self {
        expected.to_owned().into()
    }
}

/// A whole number up to [`COUNT_MAX`]; 0 lifts the limit.
pub(super) fn count(text: &str) -> Read<u64> {
    let right = || format!("a whole number up to {COUNT_MAX}, such as 30; 0 lifts the limit");
    digits(text).filter(|&n| n <= COUNT_MAX).ok_or_else(right)
}

/// A whole number from 1 to [`COUNT_MAX`].
pub(super) fn some(text: &str) -> Read<u64> {
    let right = || format!("a whole number from 1 to {COUNT_MAX}, such as 256");
    digits(text).filter(|n| (1..=COUNT_MAX).contains(n)).ok_or_else(right)
}

/// A size that is not 0.
pub(super) fn some_size(text: &str) -> Read<u64> {
    size(text).and_then(|bytes| if bytes == 0 { Err("a size above 0, such as 4MiB".to_owned()) } else { Ok(bytes) })
}

/// A time from a minute to a year, in seconds.
pub(super) fn age(text: &str) -> Read<u64> {
    let right = || "a time from 1m to 366d, such as 12h or 7d".to_owned();
    let days = text.trim().strip_suffix('d').and_then(digits).and_then(|days| days.checked_mul(86_400));
    let seconds = days.or_else(|| any_duration(text).map(|any| any.as_secs()));
    seconds.filter(|seconds| (60..=366 * 86_400).contains(seconds)).ok_or_else(right)
}

/// A whole number from 1 to 64.
pub(super) fn devices(text: &str) -> Read<u64> {
    digits(text).filter(|n| (1..=64).contains(n)).ok_or_else(|| "a whole number from 1 to 64".to_owned())
}

/// A whole number from 1 to 1024.
pub(super) fn shards(text: &str) -> Read<u16> {
    let right = || "a whole number from 1 to 1024; without it there is one shard for each usable core".to_owned();
    digits(text).filter(|n| (1..=1024).contains(n)).and_then(|n| u16::try_from(n).ok()).ok_or_else(right)
}

/// Whom push services may write to.
pub(super) fn contact(text: &str) -> Read<Contact> {
    text.parse().map_err(|right: ContactError| right.to_string())
}

/// What notifications say.
pub(super) fn notification(text: &str) -> Read<Notification> {
    Notification::new(text).map_err(str::to_owned)
}

/// Where push services may be.
pub(super) fn push_host(text: &str) -> Read<HostRule> {
    text.parse().map_err(|right: HostRuleError| right.to_string())
}

/// The operator's gateway for notifications.
pub(super) fn hook(text: &str) -> Read<HookUrl> {
    text.parse().map_err(|right: HookUrlError| right.to_string())
}

/// A NATS server.
pub(super) fn nats(text: &str) -> Read<NatsUrl> {
    text.parse().map_err(|right: NatsUrlError| right.to_string())
}

/// What relays that share tokens call themselves: part of the names of buckets.
pub(super) fn cluster_name(text: &str) -> Read<String> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match (1..=32).contains(&text.len()) && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("a name of 1 to 32 characters out of a to z, 0 to 9 and -".to_owned()),
    }
}

/// Copies that vote: an odd number.
pub(super) fn replicas(text: &str) -> Read<u8> {
    match text.trim() {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("1, 3 or 5".to_owned()),
    }
}

/// Bytes: `500MiB`, `10GiB`, `64KB`, `1_000_000`.
pub(super) fn size(text: &str) -> Read<u64> {
    let right = || "a size: bytes, or with KB, MB, GB, TB, KiB, MiB, GiB or TiB behind, such as 500MiB".to_owned();
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(right()),
    };
    // The store counts in signed 64-bit integers.
    digits(number).and_then(|n| n.checked_mul(factor)).filter(|&n| n <= i64::MAX as u64).ok_or_else(right)
}

/// The largest message: a size within its bounds; 0 means the upper one.
pub(super) fn message_size(text: &str) -> Read<u64> {
    let right = || "a size from 1KiB to 64MiB, such as 5MiB; 0 means 64MiB".to_owned();
    match size(text).map_err(|_| right())? {
        0 => Ok(MESSAGE_BYTES_HARD_MAX),
        bytes if (MESSAGE_BYTES_MIN..=MESSAGE_BYTES_HARD_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(right()),
    }
}

/// `500ms`, `10s`, `2m`, `1h`, from 10 milliseconds to a day.
pub(super) fn duration(text: &str) -> Read<Duration> {
    let right = || "a time from 10ms to 24h, such as 500ms, 10s, 2m or 1h".to_owned();
    let any = any_duration(text).ok_or_else(right)?;
    let bounds = Duration::from_millis(10)..=Duration::from_secs(86_400);
    if bounds.contains(&any) { Ok(any) } else { Err(right()) }
}

/// As [`duration`], and `0s` for none.
pub(super) fn duration_or_none(text: &str) -> Read<Duration> {
    match any_duration(text) {
        Some(Duration::ZERO) => Ok(Duration::ZERO),
        _ => duration(text).map_err(|right| format!("{right}; 0s for none")),
    }
}

fn any_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '_')?);
    let number = digits(number)?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

/// Decimal digits, with `_` between them where people like.
fn digits(text: &str) -> Option<u64> {
    let text = text.trim();
    let well = text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    well.then(|| text.replace('_', "").parse().ok()).flatten()
}

/// `on` or `off`.
pub(super) fn switch(text: &str) -> Read<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" => Ok(true),
        "off" | "false" | "no" => Ok(false),
        _ => Err("on or off".to_owned()),
    }
}

/// `host:port`, all addresses of the host; `:port` is every interface.
pub(super) fn listen(text: &str) -> Result<Vec<SocketAddr>, Wrong> {
    let right = || "an address and port, such as :8080, 127.0.0.1:8080, [::1]:8080 or localhost:8080".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(right)?;
    let port = port.parse::<u16>().map_err(|_| right())?;
    if host.is_empty() {
        return Ok(vec![everywhere(port)]);
    }
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    if host.contains(['[', ']', ':', '/']) {
        return Err(right().into());
    }
    // Names are known late on a machine that starts.
    let unknown = |error: std::io::Error| Wrong { expected: right(), may_pass: true }.and(&format!("{host}: {error}"));
    Ok((host, port).to_socket_addrs().map_err(unknown)?.collect())
}

/// Every interface, IPv4 too.
pub(super) fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

/// One address to listen on, or `off`.
pub(super) fn metrics_addr(text: &str) -> Result<MetricsAddr, Wrong> {
    if text == "off" {
        return Ok(MetricsAddr::Off);
    }
    let all = listen(text).map_err(|wrong| wrong.and("or off"))?;
    Ok(all.first().copied().map_or(MetricsAddr::Off, MetricsAddr::Given))
}

/// An IP address, or a network in CIDR notation.
pub(super) fn network(text: &str) -> Read<Network> {
    let right = || "an IP address or a network, such as 10.0.0.1, 10.0.0.0/8 or fd00::/8".to_owned();
    text.parse().map_err(|_| right())
}

/// `scheme://host` or `scheme://host:port` as browsers send it, `null`, or `*` for any.
pub(super) fn origin(text: &str) -> Read<String> {
    let lower = text.to_ascii_lowercase();
    let host = lower.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, host)| host);
    let well = |host: &str| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '*']);
    if lower == "*" || lower == "null" || host.is_some_and(well) {
        return Ok(lower);
    }
    Err("an origin as browsers send it, such as https://app.example.com, without a path; or * for any".to_owned())
}

/// A path of the store.
pub(super) fn store_path(text: &str) -> Read<PathBuf> {
    // SQLite would take a store in memory, whose tokens end with the process, or a file whose name says otherwise.
    if text.trim().is_empty() || text.starts_with(":memory:") || text.starts_with("file:") {
        return Err("the path of a file, such as /var/lib/coralmux/relay.db".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// A path of a file or directory.
pub(super) fn path(text: &str) -> Read<PathBuf> {
    if text.trim().is_empty() { Err("a path".to_owned()) } else { Ok(PathBuf::from(text)) }
}

pub(super) fn io(text: &str) -> Read<Io> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(Io::Auto),
        "uring" | "io_uring" => Ok(Io::Uring),
        "epoll" => Ok(Io::Epoll),
        _ => Err("auto, uring or epoll".to_owned()),
    }
}

pub(super) fn log_format(text: &str) -> Read<LogFormat> {
    match text.to_ascii_lowercase().as_str() {
        "auto" => Ok(LogFormat::Auto),
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        "journal" => Ok(LogFormat::Journal),
        _ => Err("auto, human, json or journal".to_owned()),
    }
}

pub(super) fn log_level(text: &str) -> Read<LevelFilter> {
    let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&text.to_ascii_lowercase().as_str());
    let right = || "error, warn, info, debug, trace or off".to_owned();
    if known { text.parse().map_err(|_| right()) } else { Err(right()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("500MiB", 524_288_000),
            ("10GiB", 10_737_418_240),
            ("64KB", 64_000),
            ("1_000_000", 1_000_000),
            ("0", 0),
            ("64 kib", 65_536),
            (" 7 ", 7),
            ("3b", 3),
            ("8388607TiB", 8_388_607 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "500M", "1.5GiB", "-1", "_1", "8388608TiB", "99999999999999999999", "1 000", "0x10"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        let cases = [("10s", 10_000), ("500ms", 500), ("2m", 120_000), ("24h", 86_400_000), ("10ms", 10)];
        for (text, ms) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "10", "0s", "9ms", "25h", "-1s", "1.5s", "10 s", "10S", "1d", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(duration_or_none("0s"), Ok(Duration::ZERO));
        assert!(duration_or_none("1ms").is_err());
    }

    #[test]
    fn counts() {
        assert_eq!(count("0"), Ok(0));
        assert_eq!(count("1_000"), Ok(1000));
        assert_eq!(count("1000000000"), Ok(COUNT_MAX));
        for bad in ["", "-1", "1.0", "1000000001", "many", "+1"] {
            assert!(count(bad).is_err(), "{bad}");
        }
        assert_eq!(shards("4"), Ok(4));
        assert!(shards("0").is_err() && shards("1025").is_err());
    }

    #[test]
    fn addresses() {
        let one = |text: &str| listen(text).ok().unwrap().iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        assert_eq!(one(":8080"), ["[::]:8080"]);
        assert_eq!(one("127.0.0.1:0"), ["127.0.0.1:0"]);
        assert_eq!(one("[::1]:65535"), ["[::1]:65535"]);
        assert!(one("localhost:80").iter().all(|a| a == "127.0.0.1:80" || a == "[::1]:80"));
        for bad in ["", "8080", ":", ":65536", "::1:80", "127.0.0.1", "http://x:80", "[::1:80", ":http"] {
            assert!(listen(bad).is_err_and(|wrong| !wrong.may_pass), "{bad}");
        }
    }

    #[test]
    fn a_name_that_does_not_resolve_may_do_so_later() {
        let wrong = listen("relay.invalid:8080").err().unwrap();
        assert!(wrong.may_pass && wrong.expected.contains("relay.invalid: "), "{}", wrong.expected);
    }

    #[test]
    fn origins() {
        assert_eq!(origin("HTTPS://App.Example.com:8443"), Ok("https://app.example.com:8443".to_owned()));
        assert_eq!(origin("*"), Ok("*".to_owned()));
        for bad in ["", "app.example.com", "https://", "https://a/b", "://x", "https://*.example.com", "https://a/"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn levels_formats_switches_and_paths() {
        assert_eq!(log_level("WARN"), Ok(LevelFilter::WARN));
        assert!(log_level("3").is_err() && log_level("").is_err());
        assert_eq!(log_format("JSON"), Ok(LogFormat::Json));
        assert_eq!((io("Epoll"), io("io_uring")), (Ok(Io::Epoll), Ok(Io::Uring)));
        assert!(io("kqueue").is_err());
        assert_eq!((switch("off"), switch("true")), (Ok(false), Ok(true)));
        assert!(switch("").is_err());
        assert!(store_path(":memory:").is_err() && store_path(" ").is_err() && store_path("relay.db").is_ok());
    }
}
