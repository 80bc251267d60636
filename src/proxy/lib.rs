//! The proxy that a connection to elsewhere takes, as the environment names it: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
//! `NO_PROXY`, read as curl reads them. What leads to this machine itself must never take one: the proxy would look for it
//! in its own place, and learn what is sent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
pub use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::client::proxy::matcher::Matcher;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

/// A proxy, and who says so.
#[derive(Clone, Debug)]
pub struct Named {
    /// The variable that names it.
    pub variable: &'static str,
    /// What it names.
    pub proxy: Intercept,
}

/// Without what it takes to log in.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.proxy.uri().to_string();
        write!(f, "the proxy {} of {}", uri.trim_end_matches('/'), self.variable)
    }
}

impl Named {
    /// Why it cannot be used by whoever speaks to a proxy without TLS.
    ///
    /// # Errors
    /// It is of another kind; the text names it.
    pub fn plain(self) -> Result<Self, String> {
        if self.proxy.uri().scheme_str() == Some("http") { Ok(self) } else { Err(self.unfit()) }
    }

    fn unfit(&self) -> String {
        format!("{self} cannot be used; it takes {RIGHT}")
    }
}

/// What a variable is to be.
const RIGHT: &str = "http://HOST:PORT";

/// The proxy on the way to `url`; `None`: there is none.
///
/// # Errors
/// What the environment says cannot be read. To go without a proxy then would be to go where the operator did not want.
pub fn proxy_for(url: &Uri) -> Result<Option<Named>, String> {
    proxy_of(url, |name| std::env::var_os(name))
}

fn proxy_of(url: &Uri, env: impl Fn(&str) -> Option<OsString>) -> Result<Option<Named>, String> {
    // A server's program that speaks CGI has HTTP_PROXY from whoever asks it.
    if leads_here(url) || env("REQUEST_METHOD").is_some() {
        return Ok(None);
    }
    let first = |names: [&'static str; 2]| names.into_iter().find_map(|name| Some((name, env(name)?)));
    let of_scheme = match url.scheme_str() {
        Some("http") => first(["HTTP_PROXY", "http_proxy"]),
        Some("https") => first(["HTTPS_PROXY", "https_proxy"]),
        _ => return Ok(None),
    };
    let set = |named: &(&str, OsString)| !named.1.is_empty();
    let Some((variable, value)) = of_scheme.filter(set).or_else(|| first(["ALL_PROXY", "all_proxy"]).filter(set))
    else {
        return Ok(None);
    };
    let except =
        first(["NO_PROXY", "no_proxy"]).map(|(_, list)| list.to_string_lossy().into_owned()).unwrap_or_default();
    let through = |proxy: &str| Matcher::builder().all(proxy.to_owned()).no(except.clone()).build().intercept(url);
    if through("http://any.invalid").is_none() {
        return Ok(None);
    }
    let proxy =
        value.to_str().filter(|text| !has_torn_login(text)).and_then(through).filter(|proxy| has_address(proxy.uri()));
    match proxy {
        Some(proxy) => Ok(Some(Named { variable, proxy })),
        None => {
            Err(format!("{variable} is {:?}, which names no proxy; it takes {RIGHT}", shown(&value.to_string_lossy())))
        }
    }
}

/// Whether a name or a password has a `/` that is not `%2F`, so that part of it would be taken for the host.
fn has_torn_login(value: &str) -> bool {
    let behind_scheme = value.split_once("://").map_or(value, |(_, rest)| rest);
    behind_scheme.split_once('/').is_some_and(|(_, path)| path.contains('@'))
}

/// Whether there is a host, and either no port or one that is a number.
fn has_address(proxy: &Uri) -> bool {
    let host = proxy.host().unwrap_or_default();
    let named = proxy.authority().is_some_and(|authority| authority.as_str() == host);
    !host.is_empty() && (named || proxy.port_u16().is_some_and(|port| port > 0))
}

/// A variable's value without a name and a password.
fn shown(value: &str) -> String {
    match (value.split_once("://"), value.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
        (None, Some((_, place))) => place.to_owned(),
        (_, None) => value.to_owned(),
    }
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
/// Those of [`proxy_for`], and that it names a proxy of a kind that is not supported; the text says which.
pub fn ureq_proxy_for(url: &Uri) -> Result<Option<Proxy>, String> {
    proxy_for(url)?.map(|proxy| in_ureq(&proxy)).transpose()
}

fn in_ureq(named: &Named) -> Result<Proxy, String> {
    let (unfit, proxy) = (|| named.unfit(), &named.proxy);
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

    fn of(text: &str, environment: &[(&str, &str)]) -> Result<Option<Named>, String> {
        let env = |name: &str| environment.iter().find(|(of, _)| *of == name).map(|(_, value)| OsString::from(value));
        proxy_of(&url(text), env)
    }

    #[test]
    fn the_environments_proxy_is_for_elsewhere() {
        let environment = [
            ("HTTP_PROXY", "http://plain.example:3128"),
            ("https_proxy", "http://me:pass%3Aword@secure.example:3129"),
            ("NO_PROXY", "inner.example, 10.0.0.0/8"),
        ];
        let shown = |text: &str| of(text, &environment).unwrap().map(|named| named.to_string());
        let plain = "the proxy http://plain.example:3128 of HTTP_PROXY";
        assert_eq!(shown("http://relay.example").as_deref(), Some(plain));
        let secure = "the proxy http://secure.example:3129 of https_proxy";
        assert_eq!(shown("https://relay.example").as_deref(), Some(secure));
        for direct in ["https://localhost", "http://127.0.0.1:1", "https://a.inner.example", "https://10.1.2.3:4"] {
            assert_eq!(shown(direct), None, "{direct}");
        }
        let proxy = in_ureq(&of("https://relay.example", &environment).unwrap().unwrap()).unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("secure.example", 3129));
        assert_eq!((proxy.username(), proxy.password()), (Some("me"), Some("pass:word")));
        let socks = of("https://relay.example", &[("ALL_PROXY", "socks5://127.0.0.1:1080")]).unwrap().unwrap();
        for error in [in_ureq(&socks).unwrap_err(), socks.plain().unwrap_err()] {
            assert!(error.contains("socks5://127.0.0.1:1080 of ALL_PROXY"), "{error}");
        }
    }

    #[test]
    fn what_names_no_proxy_is_an_error_and_no_way_around_one() {
        for wrong in [
            "garbage://x",
            "http://[::1",
            "http://",
            "http://:3128",
            "http://proxy.example:99999",
            "http://proxy.example:0",
            "http://proxy.example:port",
            " ",
            "http://proxy example:3128",
            "ftp://me:secret@proxy.example:21",
            "me:secret@proxy.example:99999",
            "http://me:sec@ret/secret@proxy.example:99999",
        ] {
            for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
                let error = of("https://relay.example", &[(variable, wrong)]).unwrap_err();
                assert!(error.contains(variable) && error.contains("http://HOST:PORT"), "{error}");
                assert!(!error.contains("secret") && !error.contains("ret/"), "{error}");
                let direct = of("https://localhost", &[(variable, wrong)]).unwrap();
                assert!(direct.is_none(), "this machine needs none");
                let except = of("https://relay.example", &[(variable, wrong), ("no_proxy", "relay.example")]).unwrap();
                assert!(except.is_none(), "nor who is excepted");
            }
            assert!(of("https://relay.example", &[("HTTP_PROXY", wrong)]).unwrap().is_none(), "is for others");
        }
        for right in ["proxy.example:3128", "proxy.example", "http://[2001:db8::1]:3128/", "http://proxy.example"] {
            assert!(of("https://relay.example", &[("HTTPS_PROXY", right)]).unwrap().is_some(), "{right}");
        }
        let empty = [("HTTPS_PROXY", ""), ("ALL_PROXY", "http://all.example:1")];
        assert_eq!(of("https://relay.example", &empty).unwrap().unwrap().variable, "ALL_PROXY");
        assert!(of("https://relay.example", &[("HTTPS_PROXY", "")]).unwrap().is_none());
    }
}
