//! Pairs that exchange small messages at a steady rate, and what the mailbox is used for beside them.

use super::{Home, PageEnd, number_at};
use crate::generator::envelope::describe;
use crate::generator::{Handler, Id, Net, SECOND, Template};
use crate::report::outcome::Outcome;
use crate::scenario::connect::{add_pairs, open_all};
use crate::scenario::measure::{Load, measure, warm_up};
use crate::scenario::pace::Pace;
use crate::scenario::traffic::Pingpong;
use crate::scenario::{Run, nanoseconds};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, VecDeque};

const MESSAGE_BYTES: usize = 256;
const WARM_UP: f64 = 0.5;
/// How long what is on its way may take after a window.
const GRACE: f64 = 60.0;

/// What the pairs do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) pairs: usize,
    /// Messages a second of all of them together.
    pub(crate) rate: f64,
    pub(crate) seconds: f64,
}

/// What goes on beside them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// Nothing.
    Rest,
    /// An agent sends so many messages a second, of so many bytes, to a device that is not there.
    Keep { per_second: f64, bytes: usize },
    /// A device takes what waits for it, `waiting` messages, confirming each page after a while; meanwhile its agent sends
    /// `more`, so many a second.
    Drain { waiting: u64, more: u64, per_second: f64, bytes: usize },
}

/// How long a slow device takes for a page.
const PAGE_TIME: u64 = SECOND / 40;

/// The pairs on their connections, and a home beside them.
pub(crate) struct Beside<'a> {
    run: Run<'a>,
    plan: Plan,
    net: Net,
    load: Traffic,
}

struct Traffic {
    chats: Pingpong,
    home: Home,
    /// Its connections.
    device: Id,
    agent: Id,
    task: Task,
    /// When the agent sends, and the number of what it sends next.
    pace: Pace,
    next: u64,
    last: u64,
    kept: u64,
    refused: BTreeMap<String, u64>,
    /// What the device takes next, and the pages that it has not confirmed yet.
    taken: u64,
    pages: VecDeque<(u64, PageEnd)>,
    errors: BTreeMap<String, u64>,
}

impl<'a> Beside<'a> {
    /// Connects the pairs, on the first tokens of the relay. The home's device has been let in, and neither it nor its agent is
    /// connected.
    pub(crate) fn new(run: Run<'a>, home: &Home, plan: Plan) -> Result<Self> {
        let connections = plan.pairs * 2;
        let mut net = Net::new(run.relay.target.clone(), connections + 2)?;
        add_pairs(&mut net, run.relay, plan.pairs);
        open_all(run, &mut net)?;
        let device = home.add_to(&mut net);
        let template = |kind| Template::envelope(kind, MESSAGE_BYTES, 1);
        let load = Traffic {
            chats: Pingpong::new(template("chat.send")?, template("chat.done")?, connections, 0..plan.pairs),
            home: home.clone(),
            device,
            agent: device + 1,
            task: Task::Rest,
            pace: Pace::never(),
            next: 0,
            last: 0,
            kept: 0,
            refused: BTreeMap::new(),
            taken: 0,
            pages: VecDeque::new(),
            errors: BTreeMap::new(),
        };
        Ok(Self { run, plan, net, load })
    }

    /// One window, with this beside it.
    pub(crate) fn window(&mut self, task: Task) -> Result<Outcome> {
        let Self { run, plan, net, load } = self;
        load.begin(net, task)?;
        load.chats.start_at_rate(net, plan.rate / 2.0);
        warm_up(*run, net, load, WARM_UP)?;
        let measured = measure(*run, net, load, plan.seconds, |_, _| false)?;
        load.chats.pause();
        let grace = net.now() + nanoseconds(GRACE);
        net.run(load, grace, |_, load| load.is_done())?;
        if !load.is_done() {
            let (missing, taken) = (load.chats.outstanding(), load.taken);
            bail!("{missing} messages have not arrived {GRACE} s after the window, and the device has taken {taken}");
        }
        load.end(net);
        let count = measured.count;
        let rss_most = measured.series.iter().filter_map(|sample| sample.rss_bytes).max();
        let latency = std::mem::take(&mut load.chats.latency);
        let mut outcome = Outcome::new("beside", &run.relay.target.url, "messages", measured)
            .setting("pairs", plan.pairs)
            .setting("rate", plan.rate)
            .throughput("messages_per_second", "server_cpu_us_per_message", count)
            .figure("kept", std::mem::take(&mut load.kept) as f64)
            .figure("refused", std::mem::take(&mut load.refused).values().sum::<u64>() as f64)
            .figure("drained", std::mem::take(&mut load.taken) as f64)
            .figure_if("rss_most_megabytes", rss_most.map(|bytes| bytes as f64 / 1e6))
            .latency("message", "latency_p50_us", "latency_p99_us", &latency);
        outcome.errors = std::mem::take(&mut load.errors);
        outcome.errors.append(&mut load.chats.errors);
        Ok(outcome)
    }
}

impl Traffic {
    fn begin(&mut self, net: &mut Net, task: Task) -> Result<()> {
        self.task = task;
        (self.next, self.last) = match task {
            Task::Rest => (0, 0),
            Task::Keep { .. } => (0, u64::MAX),
            Task::Drain { waiting, more, .. } => (waiting, waiting + more),
        };
        if !matches!(task, Task::Rest) {
            net.open(self.agent)?;
        }
        Ok(())
    }

    fn end(&mut self, net: &mut Net) {
        self.pace = Pace::never();
        self.pages.clear();
        net.close(self.agent);
        net.close(self.device);
    }

    /// Whether the pairs have all that they sent, and the device has all that it was to take.
    fn is_done(&self) -> bool {
        let is_drained = match self.task {
            Task::Drain { .. } => self.taken == self.last && self.pages.is_empty(),
            Task::Rest | Task::Keep { .. } => true,
        };
        self.chats.outstanding() == 0 && is_drained
    }

    fn is_home(&self, id: Id) -> bool {
        id >= self.device
    }

    fn note(&mut self, what: &str) {
        *self.errors.entry(what.to_owned()).or_default() += 1;
    }

    fn handle_device(&mut self, kind: &str, head: &[u8], now: u64) {
        match (kind, PageEnd::read(head)) {
            ("chat.done", _) => {
                if number_at(head, "\"id\":") != Some(self.taken) {
                    self.note("a message out of order");
                }
                self.taken += 1;
            }
            ("relay.mail", Some(end)) if end.upto > 0 => self.pages.push_back((now + PAGE_TIME, end)),
            ("relay.mail" | "status", _) => {}
            _ => self.note(kind),
        }
    }

    fn handle_agent(&mut self, kind: &str) {
        match kind {
            "relay.kept" => self.kept += 1,
            "MAILBOX_FULL" => *self.refused.entry(kind.to_owned()).or_default() += 1,
            "relay.device" | "relay.mail" | "status" => {}
            _ => self.note(kind),
        }
    }
}

impl Handler for Traffic {
    fn handle_ready(&mut self, net: &mut Net, id: Id, now: u64) {
        match self.task {
            Task::Keep { per_second, .. } if id == self.agent => self.pace = Pace::new(now, per_second),
            Task::Drain { .. } if id == self.agent => {
                if let Err(error) = net.open(self.device) {
                    self.note(&format!("{error:#}"));
                }
            }
            Task::Drain { per_second, .. } if id == self.device => self.pace = Pace::new(now, per_second),
            Task::Rest | Task::Keep { .. } | Task::Drain { .. } => {}
        }
    }

    fn handle_message(&mut self, net: &mut Net, id: Id, bytes: u64, head: &[u8], now: u64) {
        if !self.is_home(id) {
            self.chats.handle_message(net, id, bytes, head, now);
        } else if id == self.device {
            self.handle_device(&describe(head), head, now);
        } else {
            self.handle_agent(&describe(head));
        }
    }

    fn handle_read_done(&mut self, net: &mut Net, id: Id, now: u64) {
        if !self.is_home(id) {
            self.chats.handle_read_done(net, id, now);
        }
    }

    fn handle_closed(&mut self, _net: &mut Net, _id: Id, why: String) {
        self.note(&why);
    }

    fn handle_time(&mut self, net: &mut Net, now: u64) -> u64 {
        let bytes = match self.task {
            Task::Keep { bytes, .. } | Task::Drain { bytes, .. } => bytes,
            Task::Rest => 0,
        };
        while self.next < self.last && self.pace.take(now).is_some() {
            net.send_text(self.agent, &self.home.letter(self.next, bytes));
            self.next += 1;
        }
        while let Some(&(due, end)) = self.pages.front()
            && due <= now
        {
            self.pages.pop_front();
            net.send_text(self.device, &end.confirmation());
        }
        let page = self.pages.front().map_or(u64::MAX, |(due, _)| *due);
        let letter = if self.next < self.last { self.pace.next() } else { u64::MAX };
        self.chats.handle_time(net, now).min(page).min(letter)
    }
}

impl Load for Traffic {
    fn count(&self) -> u64 {
        self.chats.count()
    }

    fn set_recording(&mut self, recording: bool) {
        self.chats.set_recording(recording);
    }
}
