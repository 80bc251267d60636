//! Bodies that come in chunks (RFC 9112 section 7.1). Extensions and trailers are checked and ignored.

use super::head::{HEAD_TOO_LARGE, bad_request, has_bare_newline};
use super::response::Problem;
use super::{BODY_BYTES_MAX, FIELDS_MAX, FRAMING_BYTES_MAX};
use crate::api::ErrorCode;

/// The least that ends a body after the data of a chunk: its line end, the last chunk, the empty trailer section.
const REST_BYTES_MIN: usize = b"\r\n0\r\n\r\n".len();

/// What the beginning of a body holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// It is incomplete. The body ends at an empty line, or there is more to see at this many bytes.
    NeedMore(usize),
    /// The whole body.
    Whole {
        /// What the chunks carry.
        body: Vec<u8>,
        /// The length of the chunks with their framing and the trailers.
        len: usize,
    },
}

/// Reads a body from the beginning of `bytes`: at most [`BODY_BYTES_MAX`] of data and [`FRAMING_BYTES_MAX`] around it.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Problem> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let framing = framing_left(bytes, at, body.len());
        let Some(line_len) = framing.iter().position(|&b| b == b'\n').map(|end| end + 1) else {
            return look_again(bytes, at, body.len());
        };
        let size = chunk_size(&framing[..line_len])?;
        at += line_len;
        if size == 0 {
            return trailers(bytes, at, body);
        }
        if size > BODY_BYTES_MAX - body.len() || at - body.len() + REST_BYTES_MIN > FRAMING_BYTES_MAX {
            return Err(TOO_LARGE);
        }
        let Some((data, line_end)) = bytes[at..].split_at_checked(size) else {
            return Ok(Decoded::NeedMore(at + size + REST_BYTES_MIN));
        };
        match line_end {
            [b'\r', b'\n', ..] => {}
            [] | [b'\r'] => return Ok(Decoded::NeedMore(at + size + REST_BYTES_MIN)),
            _ => return Err(bad_request("a chunk is longer than its size says")),
        }
        body.extend_from_slice(data);
        at += size + b"\r\n".len();
    }
}

/// The bytes from `at` on that may still be framing, behind `data` bytes of data.
fn framing_left(bytes: &[u8], at: usize, data: usize) -> &[u8] {
    &bytes[at..bytes.len().min(data + FRAMING_BYTES_MAX)]
}

/// For framing from `at` on whose end is still to come: looking at each byte that comes would be quadratic work.
fn look_again(bytes: &[u8], at: usize, data: usize) -> Result<Decoded, Problem> {
    if bytes.len() - data >= FRAMING_BYTES_MAX {
        return Err(TOO_LARGE);
    }
    Ok(Decoded::NeedMore(bytes.len() + (bytes.len() - at).max(b"0\r\n".len())))
}

/// The size in the line of a chunk, with what ends the line.
fn chunk_size(line: &[u8]) -> Result<usize, Problem> {
    let Some(line) = line.strip_suffix(b"\r\n") else {
        return Err(bad_request("the size of a chunk ends without a carriage return"));
    };
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at(digits);
    let extension = extension.trim_ascii_start();
    let is_text = |&b: &u8| b == b'\t' || !b.is_ascii_control();
    if digits.is_empty() || !(extension.is_empty() || extension[0] == b';') || !line.iter().all(is_text) {
        return Err(bad_request("the size of a chunk is not a hexadecimal number"));
    }
    let digit = |&b: &u8| char::from(b).to_digit(16).map_or(0, |digit| digit as usize);
    Ok(digits.iter().map(digit).fold(0, |size: usize, digit| size.saturating_mul(16).saturating_add(digit)))
}

/// Reads the trailers, from `at` on.
fn trailers(bytes: &[u8], at: usize, body: Vec<u8>) -> Result<Decoded, Problem> {
    let framing = framing_left(bytes, at, body.len());
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(framing, &mut fields) {
        Ok(httparse::Status::Complete((len, _))) if has_bare_newline(&framing[..len]) => {
            Err(bad_request("a line of the trailers ends without a carriage return"))
        }
        Ok(httparse::Status::Complete((len, _))) => Ok(Decoded::Whole { body, len: at + len }),
        Ok(httparse::Status::Partial) => look_again(bytes, at, body.len()),
        Err(httparse::Error::TooManyHeaders) => Err(HEAD_TOO_LARGE),
        Err(_) => Err(bad_request("the trailers are not header fields")),
    }
}

const TOO_LARGE: Problem =
    Problem::new(ErrorCode::BodyTooLarge, "a request body has at most 4096 bytes, and as many around its chunks");

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &str) -> Option<(String, usize)> {
        match decode(bytes.as_bytes()) {
            Ok(Decoded::Whole { body, len }) => Some((String::from_utf8(body).unwrap(), len)),
            _ => None,
        }
    }

    fn status(bytes: &[u8]) -> String {
        let response = decode(bytes).unwrap_err().response(false, false);
        String::from_utf8_lossy(&response[9..12]).into_owned()
    }

    #[test]
    fn chunks_are_joined_and_what_is_around_them_is_ignored() {
        for (text, body) in [
            ("0\r\n\r\n", ""),
            ("000\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("5\r\nhello\r\n1\r\n \r\n005\r\nworld\r\n0\r\n\r\n", "hello world"),
            ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
            ("4\r\n\n\r\n\r\r\n0\r\n\r\n", "\n\r\n\r"),
            ("5;a=b;c=\"d;e\"\r\nhello\r\n0 ; last\r\n\r\n", "hello"),
            ("5\r\nhello\r\n0\r\nX: y\r\nContent-Length: 7\r\n\r\n", "hello"),
        ] {
            let next = format!("{text}GET / HTTP/1.1\r\n");
            assert_eq!(whole(&next), Some((body.to_owned(), text.len())), "{text:?}");
            for end in 0..text.len() {
                assert!(
                    matches!(decode(&text.as_bytes()[..end]), Ok(Decoded::NeedMore(more)) if more > end),
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn what_two_readers_could_see_differently_is_refused() {
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5 \rhello\r\n",
            "5 5\r\nhello\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\r\nhello\r\n",
            "5;a\rb\r\nhello\r\n0\r\n\r\n",
            "5;a\0\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello\r0\r\n\r\n",
            "4\r\nhello\r\n0\r\n\r\n",
            "6\r\nhello\r\n0\r\n\r\n",
            "0\r\nGET / HTTP/1.1\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n y\r\n\r\n",
            "0\r\n\n",
            "0\n\r\n",
        ] {
            assert_eq!(status(text.as_bytes()), "400", "{text:?}");
        }
    }

    #[test]
    fn data_and_framing_are_bounded() {
        let data = "a".repeat(BODY_BYTES_MAX);
        let text = format!("1000\r\n{data}\r\n0\r\n\r\n");
        assert_eq!(whole(&text), Some((data, text.len())));
        assert_eq!(status(b"1001\r\n"), "413");
        assert_eq!(status(b"fffffffffffffffffffffffff\r\n"), "413");
        assert_eq!(status(format!("fff\r\n{}\r\n2\r\n", "a".repeat(0xfff)).as_bytes()), "413");
        // The longest extension, the longest trailer and the most chunks that fit, and one byte or chunk more.
        for (before, after) in [("0;", "\r\n\r\n"), ("0\r\nX: ", "\r\n\r\n"), ("1\r\na\r\n0;", "\r\n\r\n")] {
            let data = usize::from(before.starts_with('1'));
            let filler = "x".repeat(FRAMING_BYTES_MAX + data - before.len() - after.len());
            let text = format!("{before}{filler}{after}");
            assert_eq!(whole(&text).map(|(_, len)| len), Some(text.len()), "{before:?}");
            let end = text.len() - 1;
            assert!(matches!(decode(&text.as_bytes()[..end]), Ok(Decoded::NeedMore(_))), "{before:?}");
            let text = format!("{before}x{filler}{after}");
            assert_eq!(status(text.as_bytes()), "413", "{before:?}");
            assert_eq!(status(&text.as_bytes()[..end + 1]), "413", "{before:?}");
        }
        let chunk = "1\r\na\r\n";
        let most = (FRAMING_BYTES_MAX - "0\r\n\r\n".len()) / (chunk.len() - 1);
        assert_eq!(whole(&format!("{}0\r\n\r\n", chunk.repeat(most))).map(|(body, _)| body.len()), Some(most));
        assert_eq!(status(chunk.repeat(most + 1).as_bytes()), "413");
        let many = "X: y\r\n".repeat(FIELDS_MAX + 1);
        assert_eq!(status(format!("0\r\n{many}\r\n").as_bytes()), "431");
    }
}
