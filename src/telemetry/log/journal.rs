//! journald's native protocol: a datagram for each event, with its fields (systemd.io/JOURNAL_NATIVE_PROTOCOL).
//!
//! Each field of an event is a field of the journal, in capitals: `journalctl -u coralmux-relay REASON=slow_consumer`.

use super::lines::Lines;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// The way to journald. It is not connected, so that journald may restart.
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// Whether standard error goes to journald (systemd.exec(5), `JOURNAL_STREAM`).
    pub(super) fn is_standard_error() -> bool {
        let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
        let Ok(stat) = rustix::fs::fstat(io::stderr().as_fd()) else { return false };
        named == format!("{}:{}", stat.st_dev, stat.st_ino)
    }

    /// To the machine's journald.
    pub(super) fn open() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned() })
    }

    /// Sends an event that [`Fields`] wrote. Where journald is away it goes to standard error, which systemd keeps too.
    pub(super) fn send(&self, datagram: &[u8]) {
        if self.socket.send_to(datagram, &self.path).is_err() {
            let _ = io::stderr().write_all(datagram);
        }
    }
}

/// Writes events in the form of the protocol.
pub(super) struct Fields {
    lines: Lines,
}

impl Fields {
    pub(super) fn new(lines: Lines) -> Self {
        Self { lines }
    }
}

impl<S: Subscriber> Layer<S> for Fields {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut datagram = Datagram::default();
        let metadata = event.metadata();
        // syslog(3)
        let priority = match *metadata.level() {
            Level::ERROR => "3",
            Level::WARN => "4",
            Level::INFO => "6",
            Level::DEBUG | Level::TRACE => "7",
        };
        datagram.put("PRIORITY", priority);
        datagram.put("SYSLOG_IDENTIFIER", "coralmux-relay");
        datagram.put("TARGET", metadata.target());
        event.record(&mut datagram);
        self.lines.push(datagram.bytes);
    }
}

#[derive(Default)]
struct Datagram {
    bytes: Vec<u8>,
}

impl Datagram {
    fn put(&mut self, name: &str, value: &str) {
        self.bytes.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            self.bytes.push(b'\n');
            self.bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.bytes.push(b'=');
        }
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(b'\n');
    }
}

impl Visit for Datagram {
    fn record_str(&mut self, field: &Field, value: &str) {
        // The program's own names: letters, digits and underscores.
        let name = field.name().to_ascii_uppercase().replace('.', "_");
        self.put(&name, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::Sink;
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn an_event_is_one_datagram_with_its_fields() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let lines = Lines::start(Sink::Journal(Journal::at(&path).unwrap())).unwrap();
        let subscriber = tracing_subscriber::registry().with(Fields::new(lines.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(conn = 7, reason = "two\nlines", "closed");
        });
        lines.flush();
        let mut datagram = [0; 1024];
        let length = journald.recv(&mut datagram).unwrap();
        let mut expected = b"PRIORITY=4\nSYSLOG_IDENTIFIER=coralmux-relay\n".to_vec();
        expected.extend_from_slice(format!("TARGET={}\n", module_path!()).as_bytes());
        expected.extend_from_slice(b"MESSAGE=closed\nCONN=7\nREASON\n\x09\0\0\0\0\0\0\0two\nlines\n");
        assert_eq!(String::from_utf8_lossy(&datagram[..length]), String::from_utf8_lossy(&expected));
    }
}
