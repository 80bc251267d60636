//! The proxy that a connection to elsewhere takes, as the environment names it: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
//! `NO_PROXY`, read as curl reads them. What leads to this machine itself must never take one: the proxy would look for it
//! in its own place, and learn what is sent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
pub use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::client::proxy::matcher::Matcher;
use std::net::{IpAddr, ToSocketAddrs};
use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

/// The proxy on the way to `url`; `None`: there is none.
#[must_use]
pub fn proxy_for(url: &Uri) -> Option<Intercept> {
    proxy_of(url, &Matcher::from_env())
}

fn proxy_of(url: &Uri, environment: &Matcher) -> Option<Intercept> {
    if leads_here(url) { None } else { environment.intercept(url) }
}

/// Whether `url` leads to the machine that asks.
#[must_use]
pub fn leads_here(url: &Uri) -> bool {
    let Some(host) = url.host() else { return false };
    let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    let here = |ip: IpAddr| ip.to_canonical().is_loopback() || ip.is_unspecified();
    // Also 127.1 and 0x7f.1, which the system reads as addresses without asking anybody.
    let is_number = host.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()));
    match host.parse() {
        Ok(ip) => here(ip),
        Err(_) if is_number => (host, 0).to_socket_addrs().is_ok_and(|mut all| all.all(|addr| here(addr.ip()))),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// The same for `ureq`.
///
/// # Errors
/// The environment names a proxy of a kind that is not supported; the text says which.
pub fn ureq_proxy_for(url: &Uri) -> Result<Option<Proxy>, String> {
    proxy_for(url).map(|proxy| in_ureq(&proxy)).transpose()
}

fn in_ureq(proxy: &Intercept) -> Result<Proxy, String> {
    let unfit = || format!("the environment's proxy {} cannot be used; it takes http://HOST:PORT", proxy.uri());
    let protocol = match proxy.uri().scheme_str() {
        Some("http") => ProxyProtocol::Http,
        Some("https") => ProxyProtocol::Https,
        _ => return Err(unfit()),
    };
    let mut built = Proxy::builder(protocol).host(proxy.uri().host().ok_or_else(unfit)?);
    if let Some(port) = proxy.uri().port_u16() {
        built = built.port(port);
    }
    let encoded = proxy.basic_auth().and_then(|value| value.to_str().ok()?.strip_prefix("Basic "));
    let login = encoded.and_then(|text| String::from_utf8(STANDARD.decode(text).ok()?).ok());
    if let Some((user, password)) = login.as_deref().and_then(|login| login.split_once(':')) {
        built = built.username(user).password(password);
    }
    built.build().map_err(|_| unfit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn this_machine_is_told_by_the_host_and_by_nothing_in_front_of_it() {
        for here in [
            "http://127.0.0.1:8080",
            "http://127.8.9.1/",
            "https://localhost",
            "https://LocalHost./x",
            "http://relay.localhost",
            "http://[::1]:8080",
            "http://[::ffff:127.0.0.1]",
            "http://0.0.0.0:8080",
            "http://127.1:8080",
            "http://user:word@127.0.0.1",
        ] {
            assert!(leads_here(&url(here)), "{here}");
        }
        for elsewhere in [
            "http://127.0.0.1:x@evil.example",
            "http://localhost@evil.example",
            "http://127.0.0.1.evil.example",
            "http://localhost.evil.example",
            "http://notlocalhost",
            "https://192.0.2.1",
            "https://[2001:db8::1]",
            "http://128.1",
            "/path",
        ] {
            assert!(!leads_here(&url(elsewhere)), "{elsewhere}");
        }
    }

    #[test]
    fn the_environments_proxy_is_for_elsewhere() {
        let environment = Matcher::builder()
            .http("http://plain.example:3128")
            .https("http://me:pass%3Aword@secure.example:3129")
            .no("inner.example, 10.0.0.0/8")
            .build();
        let of = |text: &str| proxy_of(&url(text), &environment).map(|proxy| proxy.uri().to_string());
        assert_eq!(of("http://relay.example").as_deref(), Some("http://plain.example:3128/"));
        assert_eq!(of("https://relay.example").as_deref(), Some("http://secure.example:3129/"));
        for direct in ["https://localhost", "http://127.0.0.1:1", "https://a.inner.example", "https://10.1.2.3:4"] {
            assert_eq!(of(direct), None, "{direct}");
        }
        let proxy = in_ureq(&proxy_of(&url("https://relay.example"), &environment).unwrap()).unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("secure.example", 3129));
        assert_eq!((proxy.username(), proxy.password()), (Some("me"), Some("pass:word")));
        let socks = Matcher::builder().all("socks5://127.0.0.1:1080").build();
        let error = in_ureq(&proxy_of(&url("https://relay.example"), &socks).unwrap()).unwrap_err();
        assert!(error.contains("socks5://127.0.0.1:1080"), "{error}");
    }
}
