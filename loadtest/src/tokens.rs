//! Pairing tokens for a test: made through the relay's API, or read from a file.

use crate::target::Target;
use anyhow::{Context as _, Result, bail, ensure};
use rustls::StreamOwned;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// How many requests are sent before the first of their answers is read.
const PIPELINED: usize = 32;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A connection, plain or not.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// The first `count` tokens of a file, one a line.
pub(crate) fn from_file(path: &Path, count: usize) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let tokens: Vec<_> = text.lines().map(str::trim).filter(|l| !l.is_empty()).take(count).map(str::to_owned).collect();
    ensure!(tokens.len() == count, "{} has {} tokens, and {count} are needed", path.display(), tokens.len());
    Ok(tokens)
}

/// `count` new tokens, by `POST /api/v1/pair`.
pub(crate) fn make(target: &Target, admin_key: &str, count: usize) -> Result<Vec<String>> {
    make_with(target, admin_key, count, "")
}

/// The same with a body, in which a token may have limits of its own.
pub(crate) fn make_with(target: &Target, admin_key: &str, count: usize, body: &str) -> Result<Vec<String>> {
    let stream = TcpStream::connect_timeout(&target.address, ANSWER_TIMEOUT)
        .with_context(|| format!("cannot reach {}", target.url))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut stream: Box<dyn Stream> = match &target.tls {
        None => Box::new(stream),
        Some(tls) => Box::new(StreamOwned::new(tls.connection()?, stream)),
    };
    let request = format!(
        "POST /api/v1/pair HTTP/1.1\r\nHost: {}\r\nX-Admin-Key: {admin_key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        target.authority,
        body.len()
    );
    let (mut tokens, mut buffer) = (Vec::with_capacity(count), Vec::new());
    while tokens.len() < count {
        let batch = PIPELINED.min(count - tokens.len());
        stream.write_all(request.repeat(batch).as_bytes()).context("asking for tokens")?;
        for _ in 0..batch {
            let body = read_answer(&mut *stream, &mut buffer).context("asking for tokens")?;
            let json: serde_json::Value = serde_json::from_slice(&body).context("the relay's answer is not JSON")?;
            let token = json["token"].as_str().context("the relay's answer has no token")?;
            tokens.push(token.to_owned());
        }
    }
    Ok(tokens)
}

/// The body of the next answer; `buffer` keeps what belongs to those after it.
fn read_answer(stream: &mut dyn Stream, buffer: &mut Vec<u8>) -> Result<Vec<u8>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut answer = httparse::Response::new(&mut headers);
        if let httparse::Status::Complete(start) = answer.parse(buffer)? {
            let length = answer.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
            let length: usize = match length {
                Some(header) => std::str::from_utf8(header.value)?.trim().parse()?,
                None => bail!("the answer has no Content-Length"),
            };
            ensure!(length <= ANSWER_BYTES_MAX, "the answer has {length} bytes");
            if buffer.len() >= start + length {
                let code = answer.code.unwrap_or_default();
                let body = buffer[start..start + length].to_vec();
                buffer.drain(..start + length);
                ensure!(code == 201, "HTTP {code}: {}", String::from_utf8_lossy(&body).trim());
                return Ok(body);
            }
        }
        ensure!(buffer.len() <= ANSWER_BYTES_MAX, "the answer does not end");
        let mut chunk = [0; 16 << 10];
        match stream.read(&mut chunk)? {
            0 => bail!("the relay closed the connection"),
            count => buffer.extend_from_slice(&chunk[..count]),
        }
    }
}
