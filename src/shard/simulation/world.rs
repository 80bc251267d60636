//! A whole relay in one process, its clients and the time that passes for all of them.

use super::Digest;
use super::client::Client;
use super::control::Control;
use super::inspect::{self, Sizes, Totals};
use super::ledger::{Broken, Ledger};
use super::plan::{Ending, Plan, limits, own_limits};
use super::rogue::Rogue;
use super::scene::{Mood, PROXY, Scene, TRUSTED_PROXY};
use super::stream::relay_tls;
use crate::control::message::Request;
use crate::directory::Directory;
use crate::http::{RequestPolicy, RequestPolicyOptions};
use crate::proto::limits::LimitsOverride;
use crate::ring::simulated::{Clock, Port, Random, Simulated, Socket};
use crate::ring::{Completion, Net};
use crate::shard::command::{Command, DrainPlan, Listener, Queues};
use crate::shard::shared::{Rules, Shared};
use crate::shard::{Links, Settings, Shard};
use crate::telemetry::lifecycle::Lifecycle;
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, bounded};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Requests that control has not taken, few enough to be met.
const REQUESTS_MAX: usize = 4;
/// Steps in which all that is under way has to come to its end.
const CALM_STEPS_MAX: usize = 6000;
/// Two minutes before midnight, on the last day of a month.
const UNIX_AT_START: Duration = Duration::from_secs(1_709_251_080);
/// Sessions are forgotten a minute after both have left.
const AFTERMATH: Duration = Duration::from_secs(75);

/// See the module.
pub(super) struct World {
    pub(super) scene: Scene,
    shards: Vec<Shard<Simulated>>,
    completions: Vec<Completion<Socket>>,
    shared: Arc<Shared>,
    clients: Vec<Client>,
    rogues: Vec<Rogue>,
    rogues_to_come: usize,
}

impl World {
    pub(super) fn new(seed: u64, is_hungry: bool) -> Self {
        let mut random = Random::new(seed);
        let mut plan = Plan::draw(&mut random, is_hungry);
        plan.bind_some(&mut Random::new(!seed));
        let clock = Clock::new(UNIX_AT_START);
        let (control_sender, requests) = bounded(REQUESTS_MAX);
        let directory = Arc::new(Directory::default());
        let shared = Arc::new(shared(&plan, &clock, &directory));
        let (senders, commands): (Vec<_>, Vec<_>) = (0..plan.shards).map(|_| bounded(plan.commands_max)).unzip();
        let nets: Vec<_> =
            (0..plan.shards).map(|_| Simulated::new(clock.clone(), random.draw(), plan.faults)).collect();
        let queues = Queues::new(senders.into_iter().zip(nets.iter().map(Net::waker)).collect());
        let mut shards = Vec::new();
        for ((id, net), commands) in (0..).zip(nets).zip(commands) {
            let (queues, control, shared) = (queues.clone(), control_sender.clone(), Arc::clone(&shared));
            let links = Links { id, commands, queues, control, shared };
            shards.push(Shard::new(net, plan.settings.clone(), links, random.draw()));
        }
        let mut control = begin(requests, queues, directory, &plan, &mut random);
        let [ports, echo_ports, tls_ports] = listen(&mut control, &plan, random.chance(200));
        control.settle();
        let clients = plan.clients.iter().map(|&(token, role, device)| Client::new(token, role, device)).collect();
        let rogues_to_come = plan.rogues;
        let (ledger, digest, mood) = (Ledger::default(), Digest::default(), Mood::Busy);
        let scene = Scene { plan, random, clock, ledger, digest, control, mood, ports, echo_ports, tls_ports };
        shards.iter_mut().for_each(Shard::start);
        Self { scene, shards, completions: Vec::new(), shared, clients, rogues: Vec::new(), rogues_to_come }
    }

    /// The whole life of a relay.
    pub(super) fn run(&mut self) -> Result<(), Broken> {
        for _ in 0..self.scene.plan.steps {
            self.step()?;
        }
        self.calm_down()?;
        match self.scene.plan.ending {
            Ending::Left => self.end_empty(),
            Ending::Drained => self.end_drained(),
        }
    }

    /// A little time passes, and whoever wants to does something.
    fn step(&mut self) -> Result<(), Broken> {
        let scene = &mut self.scene;
        let ms = match scene.random.below(100) {
            0 => 1_000,
            1..=4 => 100,
            _ => scene.random.below(scene.plan.step_ms + 1),
        };
        scene.clock.advance(Duration::from_millis(ms as u64));
        if scene.mood == Mood::Busy {
            self.begin_something();
        }
        for client in &mut self.clients {
            if self.scene.random.chance(700) {
                client.act(&mut self.scene)?;
            }
        }
        let mut at = 0;
        while at < self.rogues.len() {
            match self.rogues[at].act(&mut self.scene)? {
                true => at += 1,
                false => drop(self.rogues.swap_remove(at)),
            }
        }
        let scene = &mut self.scene;
        scene.control.act(&mut scene.random);
        for index in 0..self.shards.len() {
            if self.scene.random.chance(800) {
                self.turn(index)?;
            }
        }
        self.check_shared()
    }

    fn begin_something(&mut self) {
        let scene = &mut self.scene;
        if self.rogues_to_come > 0 && scene.random.chance(200) {
            self.rogues_to_come -= 1;
            self.rogues.extend(Rogue::come(scene));
        }
        if self.scene.plan.is_hungry && self.scene.random.chance(20) {
            self.rogues_to_come += self.rogues.len();
            self.rogues.drain(..).for_each(Rogue::reset);
        }
        let scene = &mut self.scene;
        if scene.random.chance(scene.plan.decisions) {
            let own = own_limits(&mut scene.random);
            scene.control.decide(&mut scene.random, own);
        }
        if scene.random.chance(scene.plan.decisions / 4) {
            let settings = Settings { limits: limits(&mut scene.random), ..scene.plan.settings.clone() };
            self.tell_all(|| Command::Settings(Box::new(settings.clone())));
        }
    }

    fn tell_all(&mut self, command: impl Fn() -> Command<Socket>) {
        for shard in 0..self.scene.plan.shards {
            self.scene.control.tell(shard, command());
        }
    }

    fn turn(&mut self, index: usize) -> Result<(), Broken> {
        let shard = &mut self.shards[index];
        if shard.has_ended() {
            return Ok(());
        }
        shard.turn(&mut self.completions).map_err(|error| format!("net: {error}"))?;
        inspect::check(shard).map_err(|broken| format!("{broken} (shard {index})"))
    }

    fn sizes(&self) -> Vec<Sizes> {
        self.shards.iter().map(inspect::sizes).collect()
    }

    /// What all shards count together is what they have together.
    fn check_shared(&self) -> Result<(), Broken> {
        let caps = self.scene.plan.caps;
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        let (sockets, unauthenticated) = (load(&self.shared.sockets), load(&self.shared.unauthenticated));
        for (name, now, max) in
            [("sockets", sockets, caps.connections_max), ("unauthenticated", unauthenticated, caps.unauthenticated_max)]
        {
            if max != 0 && now > max {
                return Err(format!("bound: {now} {name}, at most {max}"));
            }
        }
        if self.shards.iter().any(|shard| inspect::commands(shard) > 0) {
            // A connection may be on its way from one shard to another.
            return Ok(());
        }
        let sizes = self.sizes();
        let sum = |of: fn(&Sizes) -> usize| sizes.iter().map(of).sum::<usize>() as u64;
        for (name, counted, found) in [
            ("sockets", sockets, sum(|it| it.connections - it.turned_away)),
            ("unauthenticated", unauthenticated, sum(|it| it.unauthenticated)),
            ("connections", load(&self.shared.connections), sum(|it| it.open)),
            ("sessions", load(&self.shared.sessions), sum(|it| it.live_sessions)),
        ] {
            if counted != found {
                return Err(format!("gauge: {name} of all shards says {counted}, and there are {found}"));
            }
        }
        Ok(())
    }

    /// Nobody begins anything: what is under way comes to its end, and nothing of it is lost.
    fn calm_down(&mut self) -> Result<(), Broken> {
        self.scene.mood = Mood::Calm;
        if self.scene.random.chance(500) {
            self.rogues.clear();
        }
        let mut last = Ok(());
        for _ in 0..CALM_STEPS_MAX {
            self.step()?;
            if self.clients.iter().all(|client| client.is_settled(&self.scene.ledger)) {
                last = self.scene.ledger.check();
                if last.is_ok() {
                    return Ok(());
                }
            }
        }
        last?;
        let clients: Vec<_> = self.clients.iter().map(Client::describe).collect();
        Err(format!("stuck: {clients:#?}"))
    }

    /// All clients go; the relay has nothing left of them.
    fn end_empty(&mut self) -> Result<(), Broken> {
        for client in &mut self.clients {
            client.leave(&mut self.scene);
        }
        self.rogues.clear();
        self.pass(AFTERMATH)?;
        for (index, sizes) in self.sizes().into_iter().enumerate() {
            if sizes != Sizes::default() {
                return Err(format!("rest: shard {index} has kept {sizes:?}"));
            }
        }
        self.check_totals()
    }

    /// The relay sends all clients away and ends.
    fn end_drained(&mut self) -> Result<(), Broken> {
        let plan = DrainPlan {
            window: Duration::from_millis(self.scene.random.below(3000) as u64),
            deadline: Duration::from_secs(60),
            seed: self.scene.random.draw(),
        };
        self.shared.lifecycle.drain();
        self.tell_all(|| Command::Drain(plan));
        for _ in 0..self.scene.random.below(200) {
            self.step()?;
        }
        for client in &mut self.clients {
            client.leave(&mut self.scene);
        }
        self.rogues.clear();
        self.pass(Duration::from_secs(30))?;
        for (index, shard) in self.shards.iter_mut().enumerate() {
            if !shard.has_ended() {
                return Err(format!("rest: shard {index} does not end: {:?}", inspect::sizes(shard)));
            }
            shard.finish();
            self.scene.control.settle();
        }
        self.check_totals()
    }

    /// Time passes with nobody there.
    fn pass(&mut self, time: Duration) -> Result<(), Broken> {
        let until = self.scene.clock.elapsed() + time;
        while self.scene.clock.elapsed() < until {
            let left = until - self.scene.clock.elapsed();
            // Deadlines are close together at first.
            let step = if left > time / 4 * 3 { 100 } else { 1000 };
            self.scene.clock.advance(Duration::from_millis(step));
            self.scene.control.settle();
            for index in 0..self.shards.len() {
                self.turn(index)?;
                self.turn(index)?;
            }
            self.check_shared()?;
        }
        Ok(())
    }

    /// What was counted adds up.
    fn check_totals(&mut self) -> Result<(), Broken> {
        self.scene.control.settle();
        let mut all = Totals::default();
        for shard in &self.shards {
            let totals = inspect::totals(shard);
            all.accepted += totals.accepted;
            all.closed += totals.closed;
            all.forwarded += totals.forwarded;
            all.forwarded_bytes += totals.forwarded_bytes;
        }
        let (ledger, control) = (&self.scene.ledger, &self.scene.control);
        if all.accepted != all.closed {
            return Err(format!("counter: {} were accepted and {} closed", all.accepted, all.closed));
        }
        if all.forwarded_bytes != control.used_bytes {
            return Err(format!("counter: {} bytes forwarded, {} reported", all.forwarded_bytes, control.used_bytes));
        }
        if ledger.delivered > all.forwarded {
            return Err(format!("counter: {} messages forwarded, {} came", all.forwarded, ledger.delivered));
        }
        for host in (0..=255).flat_map(|host| [[192, 0, 2, host], [198, 51, 100, host], [203, 0, 113, host]]) {
            if !self.shared.addresses.try_enter(IpAddr::from(host), 1) {
                return Err(format!("rest: {host:?} is still counted"));
            }
            self.shared.addresses.leave(IpAddr::from(host));
        }
        Ok(())
    }

    /// What has been met, by name.
    pub(super) fn met(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.shards
            .iter()
            .flat_map(inspect::met)
            .chain([("acks", self.scene.ledger.acks), ("of devices", self.scene.ledger.of_devices)])
    }

    /// What all that has happened comes to.
    pub(super) fn digest(&self) -> Digest {
        let mut digest = self.scene.digest;
        self.scene.ledger.digest(&mut digest);
        let totals: Vec<_> = self.shards.iter().map(inspect::totals).collect();
        digest.add(format!("{totals:?} {:?} {:?}", self.sizes(), self.scene.clock.elapsed()).as_bytes());
        digest
    }
}

/// Control, and the tokens that there are from the start: their shards hear of them before anything else.
fn begin(
    requests: Receiver<Request>,
    queues: Queues<Socket>,
    directory: Arc<Directory>,
    plan: &Plan,
    random: &mut Random,
) -> Control {
    let mut control = Control::new(requests, queues, directory);
    for token in 0..plan.tokens + plan.rogue_tokens {
        let own = if random.chance(200) { own_limits(random) } else { LimitsOverride::default() };
        control.create(random, own, plan.bound.contains(&token));
    }
    control
}

/// Listeners of each shard, plain, for echoes, and with TLS: of a port of its own, or all of the same.
fn listen(control: &mut Control, plan: &Plan, inherited: bool) -> [Vec<Port>; 3] {
    let ports = |_| -> Vec<Port> {
        let one = Port::default();
        (0..plan.shards).map(|_| if inherited { one.clone() } else { Port::default() }).collect()
    };
    let all = [0, 1, 2].map(ports);
    for shard in 0..plan.shards {
        let of = |kind: usize| Listener {
            socket: all[kind][usize::from(shard)].listener(),
            inherited,
            echo: kind == 1,
            tls: kind == 2,
        };
        let kinds = if plan.has_tls { 3 } else { 2 };
        control.tell(shard, Command::Listen((0..kinds).map(of).collect()));
    }
    all
}

fn shared(plan: &Plan, clock: &Clock, directory: &Arc<Directory>) -> Shared {
    let network = |[a, b, c, d]: [u8; 4]| format!("{a}.{b}.{c}.{d}/32").parse().expect("it is an address");
    let policy = |any_path| {
        RequestPolicy::new(RequestPolicyOptions {
            admin_key: "the admin key",
            trusted_proxies: vec![network(TRUSTED_PROXY)],
            allowed_origins: None,
            names: Vec::new(),
            transport_security: false,
            registration: true,
            phone: false,
            any_path,
        })
    };
    let rules = Rules { caps: plan.caps, proxies: vec![network(PROXY)], gate: policy(false), echo_gate: policy(true) };
    let lifecycle = Lifecycle::new(clock.now(), plan.shards);
    lifecycle.serve();
    Shared {
        rules: ArcSwap::from_pointee(rules),
        directory: Arc::clone(directory),
        store_fault: Box::new(|| None),
        mailbox: None,
        notifier: None,
        cluster: None,
        certificates: None,
        addresses: Default::default(),
        guesses: Default::default(),
        counters: (0..plan.shards).map(|_| Default::default()).collect(),
        lifecycle: Arc::new(lifecycle),
        started: clock.now(),
        shards: plan.shards,
        driver: Default::default(),
        tls: plan.has_tls.then(relay_tls),
        sockets: Default::default(),
        unauthenticated: Default::default(),
        connections: Default::default(),
        sessions: Default::default(),
    }
}
