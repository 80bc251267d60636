//! Server-sent events (HTML standard, section 9.2), as far as AI servers use them: the `data` of each event.

/// The longest event, in bytes. A longer one is an error: a piece of an answer has a few.
pub(super) const EVENT_BYTES_MAX: usize = 1 << 20;

/// An event was longer than [`EVENT_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Takes bytes, cut anywhere; gives events.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// The `data` lines of the event that is not whole yet, each with a line feed behind it.
    data: Vec<u8>,
    /// The last byte was a carriage return: a line feed that follows it belongs to it.
    after_return: bool,
}

impl Parser {
    /// Takes bytes; calls `handle` with the data of each event that they complete.
    ///
    /// # Errors
    /// An event is too long, or what `handle` says.
    pub(super) fn feed<E: From<TooLong>>(
        &mut self,
        bytes: &[u8],
        mut handle: impl FnMut(&str) -> Result<(), E>,
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

    fn end_line<E>(&mut self, handle: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let mut data = std::mem::take(&mut self.data);
            return match data.pop() {
                Some(_) => handle(&String::from_utf8_lossy(&data)),
                None => Ok(()),
            };
        }
        // Other fields, and comments, which begin with a colon, say nothing to a client of these servers.
        if let Some(value) = line.strip_prefix(b"data") {
            match value {
                [] => self.data.push(b'\n'),
                [b':', value @ ..] => {
                    self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
                    self.data.push(b'\n');
                }
                _ => {}
            }
        }
        self.line = line;
        self.line.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Result<Vec<String>, TooLong> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.feed(piece, |data| {
                events.push(data.to_owned());
                Ok::<_, TooLong>(())
            })?;
        }
        Ok(events)
    }

    const STREAM: &str = "\u{feff}: hello\r\n\r\ndata: {\"a\":\"\u{fc}\u{1f980}\"}\n\nevent: x\rdata:one\rdata: two\r\r\
         id: 1\r\n\r\ndata\r\n\r\ndataset: no\n\ndata: [DONE]\n\ndata: not ended\n";

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_cut() {
        let expected = ["{\"a\":\"\u{fc}\u{1f980}\"}", "one\ntwo", "", "[DONE]"];
        let bytes = STREAM.as_bytes();
        for cut in 0..=bytes.len() {
            assert_eq!(events(&[&bytes[..cut], &bytes[cut..]]).unwrap(), expected, "{cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(events(&single).unwrap(), expected);
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let line = vec![b'x'; EVENT_BYTES_MAX];
        assert!(events(&[&line]).is_ok());
        assert_eq!(events(&[&line, b"y"]), Err(TooLong));
        assert_eq!(events(&[b"data: ", &line[6..], b"\ndata: more"]), Err(TooLong));
    }
}
