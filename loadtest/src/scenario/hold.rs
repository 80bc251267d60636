//! Pairs that other processes of this program hold, where one may not have as many descriptors.
//!
//! A holder reads its tokens from standard input, connects, says so in a line, answers pings, and ends when standard
//! input does, which it also does when the process that started it is gone.

use super::connect::{add_pairs, open_all};
use super::{Opening, Relay, Run};
use crate::cli::HoldArgs;
use crate::generator::{Handler, Id, Net, SECOND};
use crate::report::progress::Progress;
use crate::target::Target;
use anyhow::{Context as _, Result, bail, ensure};
use coralmux_test_support::launch::Process;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::ops::Range;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, TryRecvError};
use std::time::Duration;

/// How often a holder looks whether it is still wanted.
const LOOK: u64 = SECOND / 10;
/// A test that takes more processes than this is a mistake.
const PROCESSES_MAX: usize = 64;
/// What a holder says when all its pairs are connected.
const READY: &str = "ready";

/// Processes that hold pairs, until this goes.
pub(super) struct Holders {
    holders: Vec<Holder>,
}

struct Holder {
    process: Process,
    /// Open for as long as the pairs are to be held.
    input: Option<ChildStdin>,
}

impl Holders {
    /// Connects the pairs of these tokens in as many processes as it takes; none for an empty range.
    pub(super) fn start(run: Run<'_>, pairs: Range<usize>) -> Result<Self> {
        let each = (Net::capacity() / 2).max(1);
        let count = pairs.len().div_ceil(each);
        ensure!(count <= PROCESSES_MAX, "{} pairs take {count} processes: raise the limit of open files", pairs.len());
        let mut holders = Vec::with_capacity(count);
        for first in pairs.clone().step_by(each) {
            let share = first..pairs.end.min(first + each);
            run.progress.begin(&format!("process {} of {count} connects", holders.len() + 1), share.len() as u64 * 2);
            holders.push(Holder::start(run, share)?);
        }
        Ok(Self { holders })
    }

    pub(super) fn processes(&self) -> usize {
        self.holders.len()
    }

    /// Lets the pairs go, and tells whether all were held to the end.
    pub(super) fn end(mut self) -> Result<()> {
        for holder in &mut self.holders {
            drop(holder.input.take());
            let status = holder.process.0.wait()?;
            ensure!(status.success(), "a process that held pairs ended before its time: {status}");
        }
        Ok(())
    }
}

impl Holder {
    fn start(run: Run<'_>, pairs: Range<usize>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["hold", &run.relay.target.url])
            .args([pairs.start * 2, pairs.len(), run.opening.concurrency].map(|number| number.to_string()))
            .args(run.relay.target.tls.iter().flat_map(|tls| tls.args.to_args()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let process = Process::spawn(&mut command).context("another process, to hold pairs")?;
        let mut holder = Self { process, input: None };
        let mut input = holder.process.0.stdin.take().context("the holder has no standard input")?;
        for token in &run.relay.tokens[pairs] {
            writeln!(input, "{token}")?;
        }
        holder.input = Some(input);
        let mut line = String::new();
        BufReader::new(holder.process.0.stdout.take().context("the holder has no standard output")?)
            .read_line(&mut line)?;
        if line.trim_end() != READY {
            bail!("a process that was to hold pairs ended: {}", holder.process.0.wait()?);
        }
        Ok(holder)
    }
}

/// Connected, and nothing else is to be done; that one is gone is an error.
#[derive(Default)]
struct Holding {
    failure: Option<String>,
}

impl Handler for Holding {
    fn handle_message(&mut self, _net: &mut Net, _id: Id, _bytes: u64, _head: &[u8], _now: u64) {}

    fn handle_closed(&mut self, _net: &mut Net, _id: Id, why: String) {
        self.failure.get_or_insert(why);
    }
}

/// Is a holder.
pub(crate) fn serve(args: &HoldArgs) -> Result<()> {
    let mut input = BufReader::new(std::io::stdin());
    let mut tokens = Vec::with_capacity(args.pairs);
    for line in input.by_ref().lines().take(args.pairs) {
        tokens.push(line?);
    }
    ensure!(tokens.len() == args.pairs, "{} tokens came, and {} are needed", tokens.len(), args.pairs);
    let (still_wanted, wanted) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = input.read(&mut [0]);
        drop(still_wanted);
    });
    let relay = Relay { target: Target::resolve(&args.url, &args.tls)?, process: None, memory_at_start: None, tokens };
    let progress = Progress::hidden();
    let opening = Opening { concurrency: args.concurrency, ramp_up: Duration::ZERO };
    let mut net = Net::beside(relay.target.clone(), args.connections_before, args.pairs * 2)?;
    add_pairs(&mut net, &relay, args.pairs);
    open_all(Run { relay: &relay, opening, progress: &progress }, &mut net)?;
    println!("{READY}");
    let mut holding = Holding::default();
    while wanted.try_recv() == Err(TryRecvError::Empty) {
        let until = net.now() + LOOK;
        net.run(&mut holding, until, |_, holding| holding.failure.is_some())?;
        if let Some(why) = holding.failure {
            bail!("a connection that was held is gone: {why}");
        }
    }
    Ok(())
}
