//! Server-sent events (HTML standard, section 9.2), as far as AI servers use them, and as loosely as they write them.

use crate::backend::BackendError;

/// The longest event, in bytes. Some servers send a whole answer as one.
pub(crate) const EVENT_BYTES_MAX: usize = 8 << 20;

/// An event was longer than [`EVENT_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl From<TooLong> for BackendError {
    fn from(_: TooLong) -> Self {
        Self::failed("the AI server sends what is too long to be a piece of an answer")
    }
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The data of an event.
    Data,
    /// The data of an `event: error`, or the value of a field `error`, which llama.cpp sends.
    Error,
    /// A line that is a JSON object and no field: some servers write their last error so.
    Bare,
}

/// Takes bytes, cut anywhere; gives events.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// The `data` lines of the event that is not whole yet, each with a line feed behind it.
    data: Vec<u8>,
    /// The event that is not whole yet is called `error`.
    is_error: bool,
    /// The last byte was a carriage return: a line feed that follows it belongs to it.
    after_return: bool,
    /// A line was over.
    has_begun: bool,
    /// A field or a comment was read: it is a stream of events.
    is_stream: bool,
}

impl Parser {
    /// Takes bytes; calls `handle` with the data of each event that they complete.
    ///
    /// # Errors
    /// An event is too long, or what `handle` says.
    pub(crate) fn feed<E: From<TooLong>>(
        &mut self,
        bytes: &[u8],
        mut handle: impl FnMut(Kind, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        for &byte in bytes {
            let follows_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if follows_return => {}
                b'\n' | b'\r' => self.end_line(&mut handle)?,
                byte => {
                    if self.line.len() + self.data.len() >= EVENT_BYTES_MAX {
                        return Err(TooLong.into());
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(())
    }

    /// The stream has ended: calls `handle` with the event that no blank line has ended.
    ///
    /// # Errors
    /// What `handle` says.
    pub(crate) fn finish<E>(&mut self, mut handle: impl FnMut(Kind, &str) -> Result<(), E>) -> Result<(), E> {
        if !self.line.is_empty() {
            self.end_line(&mut handle)?;
        }
        self.end_event(&mut handle)
    }

    /// Whether anything that was read is of a stream of events.
    pub(crate) fn is_stream(&self) -> bool {
        self.is_stream
    }

    fn end_event<E>(&mut self, handle: &mut impl FnMut(Kind, &str) -> Result<(), E>) -> Result<(), E> {
        let mut data = std::mem::take(&mut self.data);
        let kind = if std::mem::take(&mut self.is_error) { Kind::Error } else { Kind::Data };
        match data.pop() {
            Some(_) => handle(kind, &String::from_utf8_lossy(&data)),
            None => Ok(()),
        }
    }

    fn end_line<E>(&mut self, handle: &mut impl FnMut(Kind, &str) -> Result<(), E>) -> Result<(), E> {
        let mut line = std::mem::take(&mut self.line);
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        if is_first && line.starts_with("\u{feff}".as_bytes()) {
            line.drain(..3);
        }
        if line.is_empty() {
            return self.end_event(handle);
        }
        let result = self.handle_line(&line, handle);
        line.clear();
        self.line = line;
        result
    }

    fn handle_line<E>(&mut self, line: &[u8], handle: &mut impl FnMut(Kind, &str) -> Result<(), E>) -> Result<(), E> {
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = colon.map_or((line, &b""[..]), |at| (&line[..at], &line[at + 1..]));
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let is_known = matches!(name, b"" | b"data" | b"error" | b"event" | b"id" | b"retry");
        self.is_stream |= is_known;
        match name {
            b"data" => {
                let is_end = value.trim_ascii() == b"[DONE]";
                // Some servers leave the blank lines out. In one JSON text no line that ends with a closing brace is
                // followed by one that opens another.
                let is_next = is_end || value.trim_ascii_start().starts_with(b"{");
                if is_next && !self.is_error && self.data.trim_ascii_end().ends_with(b"}") {
                    self.end_event(handle)?;
                }
                if is_end && !self.is_error && self.data.is_empty() {
                    return handle(Kind::Data, "[DONE]");
                }
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"error" => handle(Kind::Error, &String::from_utf8_lossy(value))?,
            b"event" => self.is_error = value.trim_ascii() == b"error",
            _ if !is_known && line.starts_with(b"{") => handle(Kind::Bare, &String::from_utf8_lossy(line))?,
            // Comments and other fields say nothing to a client of these servers.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Result<Vec<(Kind, String)>, TooLong> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        let mut keep = |kind, data: &str| {
            events.push((kind, data.to_owned()));
            Ok::<_, TooLong>(())
        };
        for piece in pieces {
            parser.feed(piece, &mut keep)?;
        }
        parser.finish(&mut keep)?;
        Ok(events)
    }

    const STREAM: &str = "\u{feff}data: first\n\n: hello\r\n\r\ndata: {\"a\":\"\u{fc}\u{1f980}\"}\n\nevent: x\rdata:one\r\
         data: two\r\rid: 1\r\n\r\ndata\r\n\r\ndataset: no\n\nevent: error\ndata: bad\n\nevent: message\ndata: good\n\n\
         error: {\"code\":400}\ndata: [DONE]\n\n{\"error\":\"bare\"}\ndata: not ended";

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_cut() {
        let expected = [
            (Kind::Data, "first"),
            (Kind::Data, "{\"a\":\"\u{fc}\u{1f980}\"}"),
            (Kind::Data, "one\ntwo"),
            (Kind::Data, ""),
            (Kind::Error, "bad"),
            (Kind::Data, "good"),
            (Kind::Error, "{\"code\":400}"),
            (Kind::Data, "[DONE]"),
            (Kind::Bare, "{\"error\":\"bare\"}"),
            (Kind::Data, "not ended"),
        ]
        .map(|(kind, data)| (kind, data.to_owned()));
        let bytes = STREAM.as_bytes();
        for cut in 0..=bytes.len() {
            assert_eq!(events(&[&bytes[..cut], &bytes[cut..]]).unwrap(), expected, "{cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(events(&single).unwrap(), expected);
    }

    #[test]
    fn where_blank_lines_are_left_out_each_event_comes_with_the_next_one() {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        let mut come = |text: &str| {
            parser.feed(text.as_bytes(), |_, data| {
                events.push(data.to_owned());
                Ok::<_, TooLong>(())
            })?;
            Ok::<_, TooLong>(std::mem::take(&mut events))
        };
        assert!(come("data: {\"a\":1}\n").unwrap().is_empty());
        assert_eq!(come("id: 2\ndata: {\"b\":\n").unwrap(), ["{\"a\":1}"]);
        assert!(come("data: {}}\n").unwrap().is_empty(), "a JSON text in two lines");
        assert_eq!(come("data: {\"c\":1}\n").unwrap(), ["{\"b\":\n{}}"]);
        assert_eq!(come("data: [DONE]\n").unwrap(), ["{\"c\":1}", "[DONE]"]);
        assert!(come("\n\n").unwrap().is_empty());
    }

    #[test]
    fn what_has_no_field_is_no_stream() {
        for (text, is_stream) in [
            ("Internal Server Error", false),
            ("<!DOCTYPE html>\n<p>x</p>\n", false),
            ("", false),
            ("\n\n: x\n", true),
            ("data: x\n", true),
        ] {
            let mut parser = Parser::default();
            let ignore = |_: Kind, _: &str| Ok::<_, TooLong>(());
            parser.feed(text.as_bytes(), ignore).and_then(|()| parser.finish(ignore)).unwrap();
            assert_eq!(parser.is_stream(), is_stream, "{text}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let line = vec![b'x'; EVENT_BYTES_MAX];
        assert!(events(&[&line]).is_ok());
        assert_eq!(events(&[&line, b"y"]), Err(TooLong));
        assert_eq!(events(&[b"data: ", &line[6..], b"\ndata: more"]), Err(TooLong));
    }
}
