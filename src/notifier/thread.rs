//! The thread that wakes devices. It runs tokio, because hyper needs it, and waits for nobody: what it asks of control is
//! answered by an event.

use super::figures::Outcome;
use super::sender::{self, Reply, Sender};
use super::vapid::Authorizations;
use super::{Event, Notifier, QUEUE_MAX, Question};
use crate::push::{Answer, FAILURES_MAX, Kind, PushState, Schedule, Subscription, Target};
use crate::sys::time::unix_now;
use ring::rand::SystemRandom;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Names that are looked up at a time: as many as there are requests.
const LOOKUPS_MAX: usize = 64;
/// How soon control is asked again whose queue was full.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// An answer that control has not given by then had no room in the queue.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the thread sleeps at most.
const NAP_MAX: Duration = Duration::from_secs(3600);
/// How often it is logged that push services refuse notifications.
const REFUSALS_EVERY: Duration = Duration::from_secs(3600);
/// Subscriptions whose failures are counted. With more, all counts begin anew: nobody is given up too early.
const FAILING_MAX: usize = 65_536;

/// What has become of a notification.
pub(super) struct Sent {
    target: Target,
    /// What it was sent to, as JSON.
    subscription: Arc<str>,
    kind: Kind,
    host: Box<str>,
    reply: Reply,
    is_second: bool,
}

/// Starts the thread. It runs as long as the relay.
pub(super) fn start(notifier: Arc<Notifier>, events: mpsc::Receiver<Event>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("lookup")
        .max_blocking_threads(LOOKUPS_MAX)
        .build()?;
    let sender = Arc::new(Sender::new(&notifier)?);
    let spawned = thread::Builder::new().name("notifier".to_owned()).spawn(move || {
        runtime.block_on(Worker::new(notifier, sender).run(events));
    });
    spawned.map(drop)
}

/// What the thread knows.
struct Worker {
    notifier: Arc<Notifier>,
    sender: Arc<Sender>,
    random: SystemRandom,
    authorizations: Authorizations,
    began: Instant,
    schedule: Schedule,
    /// Devices whose notification is sent once more, and when.
    second: BTreeSet<(Duration, Target)>,
    /// The same by device: each is there once.
    second_of: HashMap<Target, Duration>,
    /// Devices whose subscription control was asked for, whether it is for a second time, and when.
    asked: HashMap<Target, (bool, Duration)>,
    /// When the oldest of these may have been asked.
    asked_since: Duration,
    /// What control's queue had no room for.
    unasked: VecDeque<Question>,
    /// Notifications that are being sent.
    sending: usize,
    /// How often in a row those to a device have failed, since it subscribed.
    failures: HashMap<Target, (Arc<str>, u8)>,
    refusal_logged: Option<Duration>,
}

impl Worker {
    fn new(notifier: Arc<Notifier>, sender: Arc<Sender>) -> Self {
        Self {
            notifier,
            sender,
            random: SystemRandom::new(),
            authorizations: Authorizations::default(),
            began: Instant::now(),
            schedule: Schedule::default(),
            second: BTreeSet::new(),
            second_of: HashMap::new(),
            asked: HashMap::new(),
            asked_since: Duration::ZERO,
            unasked: VecDeque::new(),
            sending: 0,
            failures: HashMap::new(),
            refusal_logged: None,
        }
    }

    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        loop {
            match tokio::time::timeout(self.nap(), events.recv()).await {
                Ok(Some(event)) => self.handle(event),
                Ok(None) => return,
                Err(_) => {}
            }
            // What has come meanwhile, before anybody is woken: somebody may be there by now.
            while let Ok(event) = events.try_recv() {
                self.handle(event);
            }
            self.poll();
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// How long there is nothing to be done unless something comes.
    fn nap(&self) -> Duration {
        if !self.unasked.is_empty() {
            return ASK_AGAIN;
        }
        let next = self.schedule.next_due().filter(|_| self.has_room());
        let next = next.into_iter().chain(self.second.first().map(|&(at, _)| at)).min();
        next.map_or(NAP_MAX, |at| at.saturating_sub(self.now()).min(NAP_MAX))
    }

    fn has_room(&self) -> bool {
        self.sending + self.asked.len() < QUEUE_MAX
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Kept(target) => self.schedule.handle_kept(self.now(), target),
            Event::Present(target) => {
                self.schedule.handle_present(target);
                self.take_second(target);
            }
            Event::Subscription(target, subscription) => self.handle_subscription(target, subscription),
            Event::Sent(sent) => self.handle_sent(sent),
        }
    }

    /// Does what is due.
    fn poll(&mut self) {
        let now = self.now();
        while let Some(question) = self.unasked.pop_front() {
            if let Some(question) = self.try_ask(question) {
                self.unasked.push_front(question);
                break;
            }
        }
        while let Some(&(_, target)) = self.second.first().filter(|&&(at, _)| at <= now) {
            self.take_second(target);
            self.look_up(target, true);
        }
        if self.asked_since + ANSWER_TIMEOUT <= now {
            self.asked.retain(|_, (_, at)| *at + ANSWER_TIMEOUT > now);
            self.asked_since = now;
        }
        while self.has_room()
            && let Some(target) = self.schedule.poll_wake(now)
        {
            self.look_up(target, false);
        }
        self.notifier
            .figures
            .set_waiting(self.schedule.waiting() + self.second.len() + self.asked.len() + self.sending);
    }

    /// A device's notification is not sent once more.
    fn take_second(&mut self, target: Target) {
        if let Some(at) = self.second_of.remove(&target) {
            self.second.remove(&(at, target));
        }
    }

    fn look_up(&mut self, target: Target, is_second: bool) {
        self.asked.insert(target, (is_second, self.now()));
        self.ask(Question::Subscription(target));
    }

    fn ask(&mut self, question: Question) {
        if let Some(question) = self.try_ask(question) {
            self.unasked.push_back(question);
        }
    }

    /// Gives the question back where control has no room for it.
    fn try_ask(&self, question: Question) -> Option<Question> {
        let ask = self.notifier.ask.get()?;
        ask(question).err()
    }

    /// What control says that a device has subscribed to.
    fn handle_subscription(&mut self, target: Target, json: Option<String>) {
        let Some((is_second, _)) = self.asked.remove(&target) else { return };
        let Some(json) = json else {
            self.schedule.handle_present(target);
            self.failures.remove(&target);
            return;
        };
        if !self.schedule.is_away(target) {
            return;
        }
        let Ok(Some(subscription)) = Subscription::parse(&json) else {
            tracing::error!(id = %target.token.id(), device = %target.device, "the store's subscription is damaged");
            return;
        };
        let rules = self.notifier.rules();
        let unix_seconds = unix_now().as_secs();
        let authorization = |origin| {
            let contact = rules.contact.as_ref()?;
            self.authorizations.of(&self.notifier, origin, contact, unix_seconds, &self.random).ok()
        };
        let Some(outgoing) = sender::outgoing(&rules, &subscription, &self.random, authorization) else {
            // Its device is told when it comes, and may subscribe to something else.
            return self.end(target, json.into(), PushState::Refused);
        };
        self.sending += 1;
        let (notifier, sender) = (Arc::clone(&self.notifier), Arc::clone(&self.sender));
        let (kind, subscription) = (subscription.kind(), json.into());
        tokio::spawn(async move {
            let host = outgoing.host.clone();
            let reply = sender.send(outgoing).await;
            // The thread reads until the relay ends.
            let _ =
                notifier.events.send(Event::Sent(Sent { target, subscription, kind, host, reply, is_second })).await;
        });
    }

    fn handle_sent(&mut self, sent: Sent) {
        let Sent { target, subscription, kind, host, reply, is_second } = sent;
        self.sending -= 1;
        let figures = &self.notifier.figures;
        match reply.answer {
            Answer::Delivered => {
                figures.count(kind, Outcome::Delivered);
                figures.note_delivery(&host);
                self.failures.remove(&target);
            }
            Answer::Gone => {
                figures.count(kind, Outcome::Gone);
                self.end(target, subscription, PushState::Gone);
            }
            Answer::Refused => {
                figures.count(kind, Outcome::Refused);
                let status = reply.status.unwrap_or_default();
                figures.note_refusal(&host, status, Instant::now());
                self.log_refusal(&host, status);
                self.end(target, subscription, PushState::Refused);
            }
            Answer::Later(wait) => {
                figures.count(kind, Outcome::Failed);
                if self.count_failure(target, &subscription) >= FAILURES_MAX {
                    return self.end(target, subscription, PushState::Gone);
                }
                // Who was there since needs no waking.
                if !is_second && self.schedule.is_away(target) {
                    self.take_second(target);
                    let at = self.now() + wait;
                    self.second.insert((at, target));
                    self.second_of.insert(target, at);
                }
            }
        }
    }

    /// How often in a row it has failed now.
    fn count_failure(&mut self, target: Target, subscription: &Arc<str>) -> u8 {
        if self.failures.len() >= FAILING_MAX {
            self.failures.clear();
        }
        let (of, count) = self.failures.entry(target).or_insert_with(|| (Arc::clone(subscription), 0));
        if of != subscription {
            (*of, *count) = (Arc::clone(subscription), 0);
        }
        *count += 1;
        *count
    }

    /// A device cannot be woken any more by what it subscribed to.
    fn end(&mut self, target: Target, subscription: Arc<str>, state: PushState) {
        self.failures.remove(&target);
        // With another subscription it is woken at once.
        self.schedule.handle_present(target);
        self.ask(Question::End { target, subscription, state });
    }

    fn log_refusal(&mut self, host: &str, status: u16) {
        let now = self.now();
        if self.refusal_logged.is_none_or(|at| at + REFUSALS_EVERY <= now) {
            self.refusal_logged = Some(now);
            tracing::warn!(
                %host,
                status,
                "a push service refuses this relay's notifications; see that --push-contact is an address of yours, and \
                 that the clock is right"
            );
        }
    }
}
