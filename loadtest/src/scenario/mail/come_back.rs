//! All devices of a relay that has just started come back, as the relay's own clients do, and take what waits for them.

use super::{Home, PageEnd};
use crate::generator::envelope::describe;
use crate::generator::{Handler, Id, Net, SECOND};
use crate::report::latency::Recorder;
use crate::report::outcome::Outcome;
use crate::scenario::Run;
use crate::scenario::measure::{Load, measure};
use crate::scenario::storm::wait_after;
use anyhow::{Result, bail};
use coralmux_client::Backoff;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// What is expected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Messages that wait for each device.
    pub(crate) waiting: u64,
    /// How long it may take.
    pub(crate) seconds: f64,
}

struct Crowd {
    backoffs: Vec<Backoff>,
    /// When each comes that is not there yet.
    due: BinaryHeap<Reverse<(u64, Id)>>,
    authenticated: u64,
    latency: Recorder,
    /// Of each device: messages that it has taken.
    taken: Vec<u64>,
    /// Messages that are still to come, to all.
    missing: u64,
    /// From its first moment here to the end of a device's drain.
    drained: Recorder,
    errors: BTreeMap<String, u64>,
}

impl Crowd {
    fn new(net: &Net, plan: &Plan) -> Self {
        let mut backoffs: Vec<_> = (0..net.len()).map(|_| Backoff::default()).collect();
        let now = net.now();
        // They had been connected for longer than any connection that counts as brief.
        let first = backoffs.iter_mut().enumerate().step_by(2);
        let due = first.map(|(id, backoff)| Reverse((now + wait_after(backoff, Some(Duration::MAX)), id))).collect();
        Self {
            due,
            authenticated: 0,
            latency: Recorder::default(),
            taken: vec![0; backoffs.len()],
            missing: plan.waiting * (backoffs.len() as u64 / 2),
            drained: Recorder::default(),
            errors: BTreeMap::new(),
            backoffs,
        }
    }

    fn is_over(&self, net: &Net) -> bool {
        net.ready() == net.len() / 2 && self.missing == 0
    }

    fn retry(&mut self, id: Id, now: u64, why: String) {
        *self.errors.entry(why).or_default() += 1;
        let wait = wait_after(&mut self.backoffs[id], None);
        self.due.push(Reverse((now + wait, id)));
    }
}

impl Handler for Crowd {
    fn handle_ready(&mut self, net: &mut Net, id: Id, now: u64) {
        self.authenticated += 1;
        self.latency.record(net.age(id, now));
    }

    fn handle_message(&mut self, net: &mut Net, id: Id, _bytes: u64, head: &[u8], now: u64) {
        match describe(head).as_str() {
            "chat.done" => {
                self.taken[id] += 1;
                self.missing = self.missing.saturating_sub(1);
            }
            "relay.mail" => {
                let Some(end) = PageEnd::read(head) else {
                    *self.errors.entry("relay.mail that cannot be read".to_owned()).or_default() += 1;
                    return;
                };
                if end.upto > 0 {
                    net.send_text(id, &end.confirmation());
                }
                if end.left == 0 {
                    self.drained.record(net.age(id, now));
                }
            }
            "status" => {}
            other => *self.errors.entry(other.to_owned()).or_default() += 1,
        }
    }

    fn handle_closed(&mut self, net: &mut Net, id: Id, why: String) {
        self.retry(id, net.now(), why);
    }

    fn handle_time(&mut self, net: &mut Net, now: u64) -> u64 {
        while let Some(&Reverse((due, id))) = self.due.peek()
            && due <= now
        {
            self.due.pop();
            if let Err(error) = net.open(id) {
                self.retry(id, now, format!("{error:#}"));
            }
        }
        self.due.peek().map_or(now + SECOND, |Reverse((due, _))| *due)
    }
}

impl Load for Crowd {
    fn count(&self) -> u64 {
        self.authenticated
    }

    fn set_recording(&mut self, _recording: bool) {}
}

/// They come, and have taken all that waited. Who took another number of messages than waited is an error.
pub(crate) fn run(run: Run<'_>, homes: &[Home], plan: &Plan) -> Result<Outcome> {
    let mut net = Net::new(run.relay.target.clone(), homes.len())?;
    for home in homes {
        home.add_to(&mut net);
    }
    let mut crowd = Crowd::new(&net, plan);
    let measured = measure(run, &mut net, &mut crowd, plan.seconds, |net, crowd| crowd.is_over(net))?;
    if !crowd.is_over(&net) {
        let (ready, missing) = (net.ready(), crowd.missing);
        bail!("{ready} of {} devices came in time, {missing} messages are missing; {:?}", homes.len(), crowd.errors);
    }
    let wrong = crowd.taken.iter().step_by(2).filter(|taken| **taken != plan.waiting).count();
    if wrong > 0 {
        crowd.errors.insert("another number of messages".to_owned(), wrong as u64);
    }
    let (seconds, count) = (measured.usage.seconds, measured.count);
    let mut outcome = Outcome::new("come back", &run.relay.target.url, "connections", measured)
        .setting("devices", homes.len())
        .setting("waiting", plan.waiting)
        .throughput("connections_per_second", "server_cpu_us_per_connection", count)
        .figure("all_back_seconds", seconds)
        .latency("auth.ok", "auth_p50_us", "auth_p99_us", &crowd.latency)
        .latency("drained", "drained_p50_us", "drained_p99_us", &crowd.drained);
    outcome.errors = crowd.errors;
    Ok(outcome)
}
