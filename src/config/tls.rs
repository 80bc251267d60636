//! The settings of TLS: certificates from files, certificates that the relay gets itself, and where it listens.

use super::error::ConfigError;
use super::settings;
use super::source::Sources;
use super::value::{self, Wrong};
use crate::sys::file::beside;
use crate::tls::acme::{Acme, Binding};
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The directory that is asked for certificates unless another one is named: Let's Encrypt.
pub(super) const DEFAULT_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Domains that one relay can be asked to get certificates for.
const DOMAINS_MAX: usize = 100;

/// A place to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address. `[::]` means every interface, IPv4 too.
    pub addr: SocketAddr,
    /// Whether TLS is spoken there; there is a certificate then, or one will be got.
    pub tls: bool,
}

/// A certificate that the operator keeps in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// The chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates in files, in the order in which they were named.
    pub pairs: Vec<PairFiles>,
    /// Certificates to get.
    pub acme: Option<Acme>,
    /// Where HTTP is answered with redirects to https, and with HTTP-01 challenges; empty: nowhere.
    pub http_addrs: Vec<SocketAddr>,
}

impl Tls {
    /// Whether TLS is spoken at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.acme.is_some() || !self.pairs.is_empty()
    }
}

/// The settings of TLS as they are given, each valid on its own.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) domains: Vec<String>,
    pub(super) certs: Vec<PathBuf>,
    pub(super) keys: Vec<PathBuf>,
    pub(super) http_addrs: Option<Vec<SocketAddr>>,
    pub(super) directory: Option<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) email: Option<String>,
    pub(super) binding_kid: Option<String>,
    pub(super) binding_key: Option<Vec<u8>>,
    pub(super) dir: Option<PathBuf>,
}

impl Draft {
    /// All of them together, with the store at `db`.
    pub(super) fn resolve(self, from: &Sources<'_>, db: &Path) -> Result<Tls, ConfigError> {
        let pairs = pair_up(self.certs, self.keys)?;
        let binding = bind(self.binding_kid, self.binding_key)?;
        let domains = without_repeats(self.domains);
        if domains.len() > DOMAINS_MAX {
            return Err(ConfigError::Conflict(format!("--domain: at most {DOMAINS_MAX} names")));
        }
        if domains.is_empty() {
            check_that_none_needs_a_domain(from)?;
        }
        let acme = (!domains.is_empty()).then(|| Acme {
            domains,
            directory: self.directory.unwrap_or_else(|| DEFAULT_DIRECTORY.to_owned()),
            ca: self.ca,
            email: self.email,
            binding,
            dir: self.dir.unwrap_or_else(|| beside(db, ".acme")),
        });
        let standard = || if acme.is_some() { vec![value::everywhere(80)] } else { Vec::new() };
        let http_addrs = self.http_addrs.unwrap_or_else(standard);
        if !http_addrs.is_empty() && acme.is_none() && pairs.is_empty() {
            let text = "--http-addr redirects to https, for which a certificate is needed: give --domain, or --tls-cert \
                        and --tls-key";
            return Err(ConfigError::Conflict(text.to_owned()));
        }
        Ok(Tls { pairs, acme, http_addrs })
    }
}

fn pair_up(certs: Vec<PathBuf>, keys: Vec<PathBuf>) -> Result<Vec<PairFiles>, ConfigError> {
    if certs.len() != keys.len() {
        return Err(ConfigError::Conflict(format!(
            "--tls-cert and --tls-key go together, first to first, second to second: here are {} and {}",
            certs.len(),
            keys.len()
        )));
    }
    Ok(certs.into_iter().zip(keys).map(|(cert, key)| PairFiles { cert, key }).collect())
}

fn bind(kid: Option<String>, key: Option<Vec<u8>>) -> Result<Option<Binding>, ConfigError> {
    match (kid, key) {
        (Some(kid), Some(key)) => Ok(Some(Binding { kid, key })),
        (None, None) => Ok(None),
        _ => {
            let text = "--acme-eab-kid and --acme-eab-key go together: the CA gives out both";
            Err(ConfigError::Conflict(text.to_owned()))
        }
    }
}

fn without_repeats(all: Vec<String>) -> Vec<String> {
    let mut domains = Vec::new();
    for domain in all {
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    domains
}

fn check_that_none_needs_a_domain(from: &Sources<'_>) -> Result<(), ConfigError> {
    let mut names = settings::all().map(|setting| setting.name).filter(|name| name.starts_with("acme-"));
    match names.find_map(|name| from.given(name)) {
        None => Ok(()),
        Some(given) => {
            let text = "there is no --domain to get a certificate for; give one";
            Err(ConfigError::Conflict(format!("{}: {text}", given.origin)))
        }
    }
}

/// Adds the default addresses to those of `--addr`: port 443 where there are certificates and no address is for TLS, and
/// port 8080 where there would be no address at all. Returns a caution about each address that was probably meant for TLS
/// and has none.
pub(super) fn add_defaults(listen: &mut Vec<Listen>, tls: &Tls) -> Result<Vec<String>, ConfigError> {
    let has_tls = listen.iter().any(|listen| listen.tls);
    if has_tls && !tls.is_on() {
        let text = "--addr with tls:// needs a certificate: give --domain to have one got, or --tls-cert and --tls-key";
        return Err(ConfigError::Conflict(text.to_owned()));
    }
    let mut cautions = Vec::new();
    if tls.is_on() && !has_tls {
        let open = listen.iter().filter(|listen| !listen.addr.ip().is_loopback());
        cautions.extend(open.map(|listen| in_clear(listen.addr)));
        listen.push(Listen { addr: value::everywhere(443), tls: true });
    }
    if listen.is_empty() {
        listen.push(Listen { addr: value::everywhere(8080), tls: false });
    }
    Ok(cautions)
}

fn in_clear(addr: SocketAddr) -> String {
    let typed = if addr.ip().is_unspecified() { format!(":{}", addr.port()) } else { addr.to_string() };
    format!(
        "--addr {typed} is without TLS, and TLS is spoken on port 443: for TLS on that address give --addr \
         tls://{typed}; for both as they are, say so with --addr tls://:443 --addr {typed}"
    )
}

pub(super) fn listen_addr(text: &str) -> Result<Vec<Listen>, Wrong> {
    let (tls, addr) = match text.strip_prefix("tls://") {
        Some(addr) => (true, addr),
        None => (false, text),
    };
    let addrs = value::listen(addr).map_err(|wrong| wrong.and("or the same with tls:// in front, for TLS"))?;
    Ok(addrs.into_iter().map(|addr| Listen { addr, tls }).collect())
}

pub(super) fn http_addr(text: &str) -> Result<Vec<SocketAddr>, Wrong> {
    match text {
        "off" => Ok(Vec::new()),
        text => value::listen(text).map_err(|wrong| wrong.and("or off")),
    }
}

/// What is wrong with a key for external account binding, in words without the key.
pub(super) const NO_BINDING_KEY: &str =
    "not a key for external account binding; expected the CA's HMAC key in base64url";

pub(super) fn binding_key(text: &str) -> Result<Vec<u8>, &'static str> {
    let text = text.trim();
    let decoded = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text));
    decoded.ok().filter(|key| !key.is_empty()).ok_or(NO_BINDING_KEY)
}

/// A DNS name of at least two labels, in lower case.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let right = "a DNS name such as relay.example.com";
    if text.starts_with("*.") {
        return Err(format!("{right}; a wildcard certificate has to come from files (--tls-cert, --tls-key)"));
    }
    if !text.is_ascii() {
        return Err(format!("{right}, one with other letters in its xn-- form"));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = name.rsplit('.').next().is_none_or(|last| last.bytes().all(|b| b.is_ascii_digit()));
    let well = name.len() <= 253 && name.contains('.') && name.split('.').all(label) && !is_address;
    if well { Ok(name) } else { Err(right.to_owned()) }
}

pub(super) fn directory(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").and_then(|rest| rest.split('/').next());
    match host {
        Some(host) if !host.is_empty() && !text.contains(char::is_whitespace) => Ok(text.to_owned()),
        _ => Err(format!("the https URL of an ACME directory, such as {DEFAULT_DIRECTORY}")),
    }
}

pub(super) fn email(text: &str) -> Result<String, String> {
    let well = |(user, host): (&str, &str)| !user.is_empty() && !host.is_empty();
    let right = || "one e-mail address, such as admin@example.com".to_owned();
    let plain = !text.contains(|c: char| c.is_whitespace() || c == ',' || c == '?');
    text.split_once('@').filter(|parts| well(*parts) && plain).map(|_| text.to_owned()).ok_or_else(right)
}

pub(super) fn binding_kid(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("the key identifier that the CA gave out".to_owned()),
        kid => Ok(kid.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_dns_names() {
        assert_eq!(domain("Relay.Example.COM."), Ok("relay.example.com".to_owned()));
        assert_eq!(domain("xn--bcher-kva.example"), Ok("xn--bcher-kva.example".to_owned()));
        let long = "a".repeat(64) + ".example";
        for bad in ["", "relay", "192.0.2.1", "::1", "a..b", "-a.b", "a_b.c", "https://a.b", "a.b:443", "a.b/", &long] {
            assert!(domain(bad).is_err(), "{bad}");
        }
        assert!(domain("*.example.com").unwrap_err().contains("--tls-cert"));
        assert!(domain("bücher.example").unwrap_err().contains("xn--"));
    }

    #[test]
    fn directories_addresses_and_emails() {
        assert!(directory(DEFAULT_DIRECTORY).is_ok() && directory("https://localhost:14000/dir").is_ok());
        for bad in ["", "http://ca.example/dir", "https://", "https:///dir", "ca.example", "https://a b/"] {
            assert!(directory(bad).is_err(), "{bad}");
        }
        assert!(email("admin@example.com").is_ok());
        for bad in ["", "admin", "@example.com", "admin@", "a@b, c@d", "mailto:a@b?x", "a b@c"] {
            assert!(email(bad).is_err(), "{bad}");
        }
        let one = |text: &str| listen_addr(text).ok().unwrap()[0];
        assert_eq!(one("tls://:443"), Listen { addr: "[::]:443".parse().unwrap(), tls: true });
        assert_eq!(one("127.0.0.1:80"), Listen { addr: "127.0.0.1:80".parse().unwrap(), tls: false });
        assert!(listen_addr("https://:443").is_err() && listen_addr("tls://").is_err());
        assert!(http_addr("off").is_ok_and(|all| all.is_empty()));
    }
}
