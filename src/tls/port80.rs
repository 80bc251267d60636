//! Port 80: answers the CA's HTTP-01 challenges (RFC 8555 section 8.3) and sends everybody else to https. It serves
//! nothing of the relay, for nothing that is said here is secret.
//!
//! A connection has one request and a few seconds. Where too many are open, the oldest goes: whoever holds connections
//! open keeps nobody from being answered.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Connections at a time, for each listener.
const CONNECTIONS_MAX: usize = 32;
/// From accept to the end.
const DEADLINE: Duration = Duration::from_secs(5);
/// The largest request head: as long as https takes, for that is where it is sent.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers in it.
const HEADERS_MAX: usize = 64;
/// What is waited after a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Where the CA looks.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The answers to challenges under way.
#[derive(Debug, Default)]
pub struct ChallengeAnswers(Mutex<HashMap<String, String>>);

impl ChallengeAnswers {
    /// Presents an answer until the guard is dropped.
    #[must_use]
    pub fn present(self: &Arc<Self>, token: &str, answer: &str) -> Token {
        self.all().insert(token.to_owned(), answer.to_owned());
        Token { tokens: Arc::clone(self), token: token.to_owned() }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, String>> {
        // Each change is whole before anything in it can panic.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// An answer that is being presented.
#[derive(Debug)]
pub struct Token {
    tokens: Arc<ChallengeAnswers>,
    token: String,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.tokens.all().remove(&self.token);
    }
}

/// Serves a listener until the runtime ends. `tls_port` is where https is.
pub async fn serve(listener: TcpListener, tokens: Arc<ChallengeAnswers>, tls_port: u16) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection for HTTP was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let tokens = Arc::clone(&tokens);
        let connection = tokio::spawn(async move {
            // A client that is gone or too slow is no business of anybody's.
            let _ = tokio::time::timeout(DEADLINE, converse(stream, &tokens, tls_port)).await;
        });
        open.push_back(connection.abort_handle());
    }
}

async fn converse(mut stream: TcpStream, tokens: &ChallengeAnswers, tls_port: u16) -> std::io::Result<()> {
    let mut head = vec![0; HEAD_BYTES_MAX];
    let mut filled = 0;
    let response = loop {
        let read = stream.read(&mut head[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        if let Some(response) = respond(&head[..filled], tokens, tls_port) {
            break response;
        }
        if filled == head.len() {
            break plain("431 Request Header Fields Too Large", "the request's head is too long");
        }
    };
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await?;
    // What the client still sends is taken, or the kernel would answer it with a reset, which can overtake the response.
    while stream.read(&mut head).await? != 0 {}
    Ok(())
}

/// The whole response; `None`: the head is not complete yet.
fn respond(bytes: &[u8], tokens: &ChallengeAnswers, tls_port: u16) -> Option<String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return None,
        Err(_) => return Some(plain("400 Bad Request", "this is no HTTP request")),
    }
    let target = request.path.unwrap_or_default();
    // A proxy's form has the host in front (RFC 9112 section 3.2.2).
    let (host, path) = match target.strip_prefix("http://") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => {
            let host = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
            (host.and_then(|host| std::str::from_utf8(host.value).ok()).unwrap_or_default(), target)
        }
    };
    let path = if path.is_empty() { "/" } else { path };
    if let (Some(token), Some("GET" | "HEAD")) = (path.strip_prefix(CHALLENGES), request.method) {
        let answer = tokens.all().get(token).cloned();
        return Some(match answer {
            Some(answer) => plain("200 OK", &answer),
            None => plain("404 Not Found", "no such challenge"),
        });
    }
    let Some(host) = host_name(host).filter(|_| path.starts_with('/')) else {
        return Some(plain("400 Bad Request", "the request names no host"));
    };
    let port = if tls_port == 443 { String::new() } else { format!(":{tls_port}") };
    Some(response("308 Permanent Redirect", &format!("Location: https://{host}{port}{path}\r\n"), "use https\n"))
}

/// The name in a Host header without its port, if it can stand in a URL.
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

fn plain(status: &str, text: &str) -> String {
    response(status, "", text)
}

fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(request: &str) -> String {
        let tokens = Arc::new(ChallengeAnswers::default());
        let _token = tokens.present("token-1", "token-1.thumbprint");
        respond(request.as_bytes(), &tokens, 443).unwrap()
    }

    #[test]
    fn a_challenge_is_answered_while_it_is_presented() {
        let tokens = Arc::new(ChallengeAnswers::default());
        let token = tokens.present("token-1", "token-1.thumbprint");
        let request = b"GET /.well-known/acme-challenge/token-1 HTTP/1.1\r\nHost: a.example\r\n\r\n";
        let answer = respond(request, &tokens, 443).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\ntoken-1.thumbprint"), "{answer}");
        drop(token);
        assert!(respond(request, &tokens, 443).unwrap().starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn everything_else_goes_to_https() {
        for (request, to) in [
            ("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "https://a.example/"),
            ("POST /api/v1/pair?x=1 HTTP/1.1\r\nHOST: a.example:80\r\n\r\n", "https://a.example/api/v1/pair?x=1"),
            ("GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n", "https://b.example/x"),
            ("GET http://b.example HTTP/1.1\r\nHost: a.example\r\n\r\n", "https://b.example/"),
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
        let other = respond(b"GET /x HTTP/1.1\r\nHost: a:8080\r\n\r\n", &ChallengeAnswers::default(), 8443).unwrap();
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
        assert_eq!(respond(b"GET / HTTP/1.1\r\nHost: a", &ChallengeAnswers::default(), 443), None);
    }
}
