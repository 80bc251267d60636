//! The hostile pairs at work: a thread for each, on the generator's core and behind the measuring thread.

use crate::adversary::{Attacker, Kind, Stream, Tally, Victim, Wrap};
use crate::target::Target;
use anyhow::{Result, anyhow};
use rustls::StreamOwned;
use std::io;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle};

/// An attack that goes on until this goes.
pub(super) struct Attack {
    over: Arc<AtomicBool>,
    tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    /// Each token's pair does one of the kinds, in turn.
    pub(super) fn start(target: &Target, tokens: &[String], kinds: &[&'static Kind]) -> Result<Self> {
        let mut attack = Self { over: Arc::default(), tally: Arc::default(), threads: Vec::new() };
        let victim = victim(target);
        // Threads are scheduled as the one that starts them.
        let begin = || -> Result<()> {
            step_back();
            for (token, kind) in tokens.iter().zip(kinds.iter().cycle()) {
                let (over, tally) = (Arc::clone(&attack.over), Arc::clone(&attack.tally));
                let (victim, token, kind) = (victim.clone(), token.clone(), *kind);
                attack.threads.push(Builder::new().name(kind.name.to_owned()).spawn(move || {
                    Attacker { victim: &victim, token: &token, over: &over, tally: &tally }.run(kind);
                })?);
            }
            Ok(())
        };
        std::thread::scope(|scope| scope.spawn(begin).join()).map_err(|_| anyhow!("cannot begin"))??;
        Ok(attack)
    }

    /// Connections that were opened, and megabytes that were sent.
    pub(super) fn done(&self) -> (f64, f64) {
        let of = |count: &AtomicU64| count.load(Relaxed) as f64;
        (of(&self.tally.connections), of(&self.tally.sent_bytes) / 1e6)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        // One that panicked has said so.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// This thread, and those that it starts, run only while no other wants the core: what the measuring thread, which shares
/// it, measures is to be the relay, and not how long the scheduler lets an attacker go on.
fn step_back() {
    let thread = rustix::thread::gettid().to_string();
    let outcome = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).stderr(Stdio::null()).status();
    if !outcome.is_ok_and(|status| status.success()) {
        eprintln!("chrt (util-linux) cannot make the attackers yield the core: what is measured is worse than it is");
    }
}

fn victim(target: &Target) -> Victim {
    let wrap = target.tls.clone().map(|tls| -> Wrap {
        Arc::new(move |socket: TcpStream| {
            let connection = tls.connection().map_err(io::Error::other)?;
            Ok(Box::new(StreamOwned::new(connection, socket)) as Box<dyn Stream>)
        })
    });
    Victim { address: target.address, wrap }
}
