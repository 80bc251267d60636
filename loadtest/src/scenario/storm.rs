//! `storm`: everybody connects as fast as it goes, and then everybody comes back at once: because all clients left
//! together, or because the relay was restarted under them. After a restart they wait as the relay's own clients do, so
//! that the figures show how far a crowd is spread.

use super::connect::add_pairs;
use super::measure::{Load, Measured, measure};
use super::{Relay, Run};
use crate::generator::{Handler, Id, Net, SECOND};
use crate::report::latency::Recorder;
use crate::report::outcome::Outcome;
use anyhow::{Context as _, Result, bail, ensure};
use coralmux_client::{Backoff, Reason};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A client that was turned away comes back after this, twice as long each time.
const BACKOFF: u64 = SECOND / 10;
const BACKOFF_DOUBLINGS: u32 = 5;
/// Tries are counted in intervals of this length.
const INTERVAL: u64 = SECOND / 10;
/// Between the two storms, for the relay to notice that everybody is gone.
const CALM: f64 = 0.5;

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    /// Connections that are on their way at the same time when everybody comes back.
    pub(crate) herd: usize,
    /// How long each storm may take.
    pub(crate) seconds: f64,
    /// What restarts the relay.
    pub(crate) restart: Option<String>,
}

/// Opens all connections and keeps at it until all are authenticated.
struct Storm {
    concurrency: usize,
    /// The next one that has not been opened yet.
    next: Id,
    /// Those that were turned away: when to try again, and how often they were.
    again: BinaryHeap<Reverse<(u64, Id)>>,
    tries: Vec<u32>,
    /// How the clients wait, where they are those of a relay that is restarted.
    backoffs: Vec<Backoff>,
    /// Tries in the present interval, which one that is, and the most in any.
    recent: (u64, u64),
    most_tries: u64,
    authenticated: u64,
    latency: Recorder,
    errors: BTreeMap<String, u64>,
    /// The relay is being restarted: how many of the connections it had it has closed.
    closed: Option<u64>,
}

impl Storm {
    fn new(connections: usize, concurrency: usize) -> Self {
        Self {
            concurrency,
            next: 0,
            again: BinaryHeap::new(),
            tries: vec![0; connections],
            backoffs: Vec::new(),
            recent: (0, 0),
            most_tries: 0,
            authenticated: 0,
            latency: Recorder::default(),
            errors: BTreeMap::new(),
            closed: None,
        }
    }

    /// All connections are there, and the relay is about to be restarted.
    fn under_restart(connections: usize, concurrency: usize) -> Self {
        let backoffs = (0..connections).map(|_| Backoff::default()).collect();
        Self { next: connections, closed: Some(0), backoffs, ..Self::new(connections, concurrency) }
    }

    fn is_over(&self, net: &Net) -> bool {
        let all_closed = self.closed.is_none_or(|closed| closed == net.len() as u64);
        all_closed && net.ready() == net.len()
    }

    fn retry(&mut self, id: Id, now: u64, why: String) {
        *self.errors.entry(why).or_default() += 1;
        let wait = match self.backoffs.get_mut(id) {
            Some(backoff) => wait_after(backoff, None),
            None => BACKOFF << self.tries[id].min(BACKOFF_DOUBLINGS),
        };
        self.tries[id] += 1;
        self.again.push(Reverse((now + wait, id)));
    }

    fn open(&mut self, net: &mut Net, id: Id, now: u64) {
        let (count, interval) = self.recent;
        self.recent = if interval == now / INTERVAL { (count + 1, interval) } else { (1, now / INTERVAL) };
        self.most_tries = self.most_tries.max(self.recent.0);
        if let Err(error) = net.open(id) {
            self.retry(id, now, format!("{error:#}"));
        }
    }
}

/// How long a client of the relay's own waits after a connection that worked for `held`, or a try that failed.
pub(super) fn wait_after(backoff: &mut Backoff, held: Option<Duration>) -> u64 {
    let random = getrandom::u32().expect("Linux always has randomness once it has booted");
    backoff.handle_loss(held, &Reason::Silent, None, random).as_nanos() as u64
}

impl Handler for Storm {
    fn handle_ready(&mut self, net: &mut Net, id: Id, now: u64) {
        self.authenticated += 1;
        self.latency.record(net.age(id, now));
    }

    fn handle_message(&mut self, _net: &mut Net, _id: Id, _bytes: u64, _head: &[u8], _now: u64) {}

    fn handle_closed(&mut self, net: &mut Net, id: Id, why: String) {
        if let Some(closed) = &mut self.closed
            && self.tries[id] == 0
        {
            // That is what a restart does, and no error.
            *closed += 1;
            self.tries[id] = 1;
            // It worked for longer than any that counts as brief.
            let wait = wait_after(&mut self.backoffs[id], Some(Duration::MAX));
            self.again.push(Reverse((net.now() + wait, id)));
            return;
        }
        self.retry(id, net.now(), why);
    }

    fn handle_time(&mut self, net: &mut Net, now: u64) -> u64 {
        while net.opening() < self.concurrency {
            if let Some(&Reverse((due, id))) = self.again.peek()
                && due <= now
            {
                self.again.pop();
                self.open(net, id, now);
            } else if self.next < net.len() {
                self.next += 1;
                self.open(net, self.next - 1, now);
            } else {
                break;
            }
        }
        match self.again.peek() {
            Some(Reverse((due, _))) if net.opening() < self.concurrency => *due,
            _ => now + SECOND,
        }
    }
}

impl Load for Storm {
    fn count(&self) -> u64 {
        self.authenticated
    }

    fn set_recording(&mut self, _recording: bool) {}
}

/// One storm, and what it was like.
fn weather(run: Run<'_>, net: &mut Net, plan: &Plan, mut storm: Storm) -> Result<(Storm, Measured)> {
    let measured = measure(run, net, &mut storm, plan.seconds, |net, storm| storm.is_over(net))?;
    if !storm.is_over(net) {
        let closed = storm.closed.map_or(String::new(), |closed| format!("{closed} were closed by the relay; "));
        bail!("{closed}{} of {} connections authenticated in time; {:?}", net.ready(), net.len(), storm.errors);
    }
    Ok((storm, measured))
}

/// Everybody is gone and comes back.
fn come_back(run: Run<'_>, net: &mut Net, plan: &Plan) -> Result<(Storm, Measured)> {
    let Some(command) = &plan.restart else {
        (0..net.len()).for_each(|id| net.close(id));
        std::thread::sleep(Duration::from_secs_f64(CALM));
        let storm = Storm::new(net.len(), plan.herd);
        return weather(run, net, plan, storm);
    };
    let mut restart = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot run the restart command")?;
    // The process that was measured is not the one that they come back to.
    let relay = Relay { process: None, ..run.relay.clone() };
    let storm = Storm::under_restart(net.len(), plan.herd);
    let result = weather(Run { relay: &relay, ..run }, net, plan, storm);
    let status = restart.wait()?;
    ensure!(status.success(), "the restart command {command:?} failed: {status}");
    result
}

/// Runs it once.
pub(crate) fn run(run: Run<'_>, plan: &Plan) -> Result<Outcome> {
    ensure!(plan.pairs > 0, "a storm takes at least one pair");
    let mut net = Net::new(run.relay.target.clone(), plan.pairs * 2)?;
    add_pairs(&mut net, run.relay, plan.pairs);
    let storm = Storm::new(net.len(), run.opening.concurrency);
    let (first, measured) = weather(run, &mut net, plan, storm)?;
    let authenticated = measured.count;
    let (back, again) = come_back(run, &mut net, plan)?;
    let back_cost = again.usage.server_cpu_us.map(|us| us / again.count as f64);
    let mut outcome = Outcome::new("storm", &run.relay.target.url, "connections", measured)
        .setting("pairs", plan.pairs)
        .setting("concurrency", run.opening.concurrency)
        .setting("herd", plan.herd)
        .setting("restart", plan.restart.clone())
        .throughput("connections_per_second", "server_cpu_us_per_connection", authenticated)
        .figure("all_back_seconds", again.usage.seconds)
        .figure_if("server_cpu_us_per_return", back_cost)
        .figure("most_tries_in_100_ms", back.most_tries as f64)
        .latency("connect", "connect_p50_us", "connect_p99_us", &first.latency)
        .latency("come back", "come_back_p50_us", "come_back_p99_us", &back.latency);
    let begun = outcome.usage.seconds;
    outcome.series.extend(again.series.into_iter().map(|mut sample| {
        sample.at += begun + CALM;
        sample
    }));
    outcome.errors = first.errors;
    for (why, count) in back.errors {
        *outcome.errors.entry(why).or_default() += count;
    }
    Ok(outcome)
}
