//! Log lines on their way out: a bounded queue and a thread that writes. A thread that logs never waits; lines that find
//! no room are counted and dropped.

use super::journal::Journal;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Lines that wait at most: half a megabyte, most of them being short.
const LINES_MAX: usize = 2048;
/// Bytes that are written at once.
const WRITE_BYTES: usize = 64 << 10;
/// How long an end waits for the last lines.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

enum Item {
    Line(Vec<u8>),
    /// Say so when all before it has been written.
    Flush(Sender<()>),
}

/// Where lines go in the end.
pub(super) enum Sink {
    /// A stream, such as standard error.
    Stream(Box<dyn Write + Send>),
    /// journald, a datagram a line.
    Journal(Journal),
}

/// The queue's end for those who log.
#[derive(Clone)]
pub(super) struct Lines {
    queue: Sender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    /// Starts the thread that writes to `sink`.
    pub(super) fn start(sink: Sink) -> io::Result<Self> {
        Self::start_with(sink, LINES_MAX)
    }

    fn start_with(sink: Sink, lines_max: usize) -> io::Result<Self> {
        let (queue, items) = bounded(lines_max);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(sink, &items, &counter))?;
        Ok(Self { queue, dropped })
    }

    /// Puts a line in, or lets it go and counts it.
    pub(super) fn push(&self, line: Vec<u8>) {
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines that were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until all that was put in has been written, or for a second where nobody takes it.
    pub(super) fn flush(&self) {
        let (done, written) = bounded(1);
        if self.queue.send_timeout(Item::Flush(done), FLUSH_PATIENCE).is_ok() {
            let _ = written.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

/// One event is one write: see [`tracing_subscriber::fmt::MakeWriter`].
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(mut sink: Sink, items: &Receiver<Item>, dropped: &AtomicU64) {
    let mut told = 0;
    let mut batch = Vec::new();
    while let Ok(first) = items.recv() {
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Item::Line(line) => match &mut sink {
                    Sink::Stream(_) => batch.extend_from_slice(&line),
                    Sink::Journal(journal) => journal.send(&line),
                },
                Item::Flush(done) => {
                    write_batch(&mut sink, &mut batch);
                    let _ = done.send(());
                }
            }
            next = if batch.len() < WRITE_BYTES { items.try_recv().ok() } else { None };
        }
        write_batch(&mut sink, &mut batch);
        let lines = dropped.load(Relaxed);
        if lines != told && items.is_empty() {
            tracing::warn!(lines = lines - told, "log lines were dropped: the reader is too slow");
            told = lines;
        }
    }
}

fn write_batch(sink: &mut Sink, batch: &mut Vec<u8>) {
    if let Sink::Stream(stream) = sink {
        // The log's reader has gone: nobody is left to tell.
        let _ = stream.write_all(batch);
        let _ = stream.flush();
    }
    batch.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Takes nothing until it is let.
    struct Slow {
        entered: Sender<()>,
        let_go: Receiver<()>,
        page: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.try_send(());
            let _ = self.let_go.recv();
            self.page.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_does_not_wait_and_what_finds_no_room_is_counted() {
        let (entered, stuck) = bounded(1);
        let (let_it, let_go) = bounded(0);
        let page = Arc::new(Mutex::new(Vec::new()));
        let sink = Sink::Stream(Box::new(Slow { entered, let_go, page: Arc::clone(&page) }));
        let lines = Lines::start_with(sink, 10).unwrap();
        lines.push(b"0\n".to_vec());
        stuck.recv().unwrap();
        // The sink is stuck: this would never end if a push waited.
        for number in 1..100_000 {
            lines.push(format!("{number}\n").into_bytes());
        }
        assert!(lines.dropped() >= 100_000 - 30, "{}", lines.dropped());
        drop(let_it);
        lines.flush();
        let written = String::from_utf8(page.lock().unwrap().clone()).unwrap();
        assert!(written.starts_with("0\n1\n"), "{written}");
        assert_eq!(written.lines().count() as u64 + lines.dropped(), 100_000);
    }
}
