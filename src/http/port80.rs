//! Requests on port 80: what the CA asks for, and everybody else is sent to https. Nothing of the relay is served, for
//! nothing that is said here is secret.

use super::Refusal;
use super::head::Head;
use super::response::Response;

/// Where the CA looks.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The response to the request at the beginning of `bytes`; the connection is closed after it. `None`: the head is
/// incomplete. `challenge` has the answer to a challenge, by its token; `tls_port` is where https is.
///
/// # Errors
/// [`Refusal`] for what is not an HTTP request.
pub fn port80(
    bytes: &[u8],
    challenge: impl Fn(&str) -> Option<String>,
    tls_port: u16,
) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(head) = Head::read(bytes)? else { return Ok(None) };
    let head_only = head.method == "HEAD";
    // A proxy's form has the host in front (RFC 9112 section 3.2.2).
    let (host, path) = match head.target.strip_prefix("http://") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => (head.host.and_then(|host| str::from_utf8(host).ok()).unwrap_or_default(), head.target),
    };
    let path = if path.is_empty() { "/" } else { path };
    if let (Some(token), "GET" | "HEAD") = (path.strip_prefix(CHALLENGES), head.method) {
        return Ok(Some(match challenge(token) {
            Some(answer) => plain(200, "", &answer, head_only),
            None => plain(404, "", "no such challenge", head_only),
        }));
    }
    let Some(host) = host_name(host).filter(|_| path.starts_with('/')) else {
        return Ok(Some(plain(400, "", "the request names no host", head_only)));
    };
    let port = if tls_port == 443 { String::new() } else { format!(":{tls_port}") };
    let location = format!("Location: https://{host}{port}{path}\r\n");
    Ok(Some(plain(308, &location, "use https\n", head_only)))
}

/// The name in a Host header without its port, if it can be part of a URL.
fn host_name(host: &str) -> Option<&str> {
    let name = match host.strip_prefix('[') {
        Some(rest) => host.get(..rest.find(']')? + 2)?,
        None => host.split(':').next()?,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_well = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.len() <= 253 && name.chars().all(plain),
    };
    is_well.then_some(name)
}

/// A text for people. Nothing is said of caching: a browser may remember the way to https.
fn plain(status: u16, headers: &str, text: &str, head_only: bool) -> Vec<u8> {
    let content_type = "text/plain; charset=utf-8";
    Response { content_type, headers, cached: true, ..Response::new(status, text.as_bytes(), false, head_only) }.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(request: &str) -> String {
        answer(request, 443).expect("the head is whole")
    }

    fn answer(request: &str, tls_port: u16) -> Option<String> {
        let challenge = |token: &str| (token == "token-1").then(|| "token-1.thumbprint".to_owned());
        let response = port80(request.as_bytes(), challenge, tls_port).unwrap_or_else(|refusal| Some(refusal.response));
        response.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_challenge_is_answered_by_its_token() {
        let request = |method, token| {
            asked(&format!("{method} /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: a.example\r\n\r\n"))
        };
        let answer = request("GET", "token-1");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\ntoken-1.thumbprint"), "{answer}");
        let answer = request("HEAD", "token-1");
        assert!(answer.contains("\r\nContent-Length: 18\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(request("GET", "token-2").starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn everything_else_goes_to_https() {
        for (request, to) in [
            ("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "https://a.example/"),
            ("POST /api/v1/pair?x=1 HTTP/1.1\r\nHOST: a.example:80\r\n\r\n", "https://a.example/api/v1/pair?x=1"),
            ("GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n", "https://b.example/x"),
            ("GET http://b.example HTTP/1.1\r\nHost: a.example\r\n\r\n", "https://b.example/"),
            ("POST /large HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\n", "https://a.example/large"),
            ("GET /ws HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", "https://[2001:db8::1]/ws"),
            (
                "DELETE /.well-known/acme-challenge/token-1 HTTP/1.1\r\nHost: a\r\n\r\n",
                "https://a/.well-known/acme-challenge/token-1",
            ),
        ] {
            let answer = asked(request);
            assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
            assert!(answer.contains(&format!("\r\nLocation: {to}\r\n")), "{answer}");
        }
        let other = answer("GET /x HTTP/1.1\r\nHost: a:8080\r\n\r\n", 8443).unwrap();
        assert!(other.contains("\r\nLocation: https://a:8443/x\r\n"), "{other}");
    }

    #[test]
    fn what_names_no_host_or_is_no_request_is_refused() {
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example/x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::zz]\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "\u{16}\u{3}\u{1}\r\n\r\n",
        ] {
            let answer = asked(request);
            assert!(answer.starts_with("HTTP/1.1 400 "), "{request}: {answer}");
        }
        assert_eq!(answer("GET / HTTP/1.1\r\nHost: a", 443), None);
    }
}
