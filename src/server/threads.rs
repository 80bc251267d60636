//! The shards' threads and the control thread: how they start, find each other, and end.

use super::listeners::Listeners;
use super::supervise::Order;
use super::{Failure, control_settings, exit, random, unix_ms};
use crate::config::Config;
use crate::control::message::Request;
use crate::control::{self, Control, Index, StoreHealth};
use crate::preflight::Driver;
use crate::ring::{Epoll, Net, Ring, Waker};
use crate::shard::command::{Command, Queues, channel};
use crate::shard::shared::Shared;
use crate::shard::{Links, Settings, Shard};
use crate::shelf::{Mailbox, SUFFIX, Shelf};
use crate::store::Store;
use crate::sys::file::beside;
use crate::sys::machine::cpus::{stay_on, usable_cpus};
use crate::sys::time::unix_now;
use crossbeam_channel::{Receiver, Sender, bounded};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Requests of shards that control has not taken yet.
const REQUESTS_MAX: usize = 16 * 1024;
/// glommio's own buffers, which the relay does not use: the least it takes.
const GLOMMIO_IO_MEMORY_BYTES: usize = 64 << 10;
/// How often a shard lets glommio look after itself. It has nothing else to run.
const GLOMMIO_TURN: Duration = Duration::from_secs(1);

/// A shard's thread: glommio's for the ring, a plain one for epoll.
pub(super) enum ShardThread {
    Glommio(ExecutorJoinHandle<io::Result<()>>),
    Plain(JoinHandle<io::Result<()>>),
}

impl ShardThread {
    /// Waits for its end; whether it ended in order.
    pub(super) fn join(self) -> bool {
        match self {
            Self::Glommio(thread) => matches!(thread.join(), Ok(Ok(()))),
            Self::Plain(thread) => matches!(thread.join(), Ok(Ok(()))),
        }
    }
}

/// The shards' threads.
pub(super) struct Shards {
    /// The way to the main thread.
    orders: Sender<Order>,
    /// How many have ended.
    pub(super) ended: Arc<AtomicU16>,
    pub(super) threads: Vec<ShardThread>,
    pub(super) queues: Queues,
    pub(super) control: Sender<Request>,
}

impl Shards {
    /// Hands each shard its listeners: it accepts from now on.
    pub(super) fn listen(&self, listeners: Listeners) {
        for (shard, listeners) in listeners.of_shards.into_iter().enumerate() {
            let _ = self.queues.post(shard as u16, Command::Listen(listeners));
        }
    }
}

/// Tells the main thread that a shard has ended, however it ended.
struct Ended {
    count: Arc<AtomicU16>,
    orders: Sender<Order>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.count.fetch_add(1, Relaxed);
        // Full, it holds orders enough to make the main thread look.
        let _ = self.orders.try_send(Order::LookForEnded);
    }
}

/// What a shard's thread begins with.
struct Beginning {
    id: u16,
    settings: Settings,
    commands: Receiver<Command<OwnedFd>>,
    /// Where it is told of the others.
    queues: Receiver<Queues>,
    control: Sender<Request>,
    shared: Arc<Shared>,
    /// Where it says how it is woken, or why it cannot begin.
    ready: Sender<Result<(u16, Waker), String>>,
    ended: Ended,
}

impl Beginning {
    /// On the shard's thread: says how it is woken, and waits to be told of the others. `None`: the start has failed
    /// elsewhere.
    fn shard<N: Net<Socket = OwnedFd>>(self, net: io::Result<N>) -> io::Result<Option<(Shard<N>, Ended)>> {
        let Self { id, settings, commands, queues, control, shared, ready, ended } = self;
        let net = match net {
            Ok(net) => net,
            Err(error) => {
                let driver = shared.driver.name;
                let _ = ready.send(Err(format!("shard {id}: cannot set {driver} up: {error}")));
                return Err(error);
            }
        };
        let _ = ready.send(Ok((id, net.waker())));
        drop(ready);
        // Nothing else runs on this thread, so waiting here holds nobody up. It ends when the start fails.
        let Ok(queues) = queues.recv() else { return Ok(None) };
        let links = Links { id, commands, queues, control, shared };
        let mut shard = Shard::new(net, settings, links, u64::from_ne_bytes(random()));
        shard.start();
        Ok(Some((shard, ended)))
    }

    /// Starts its thread, on the CPU of that number.
    fn spawn(self, driver: Driver, cpu: Option<usize>) -> Result<ShardThread, Failure> {
        let id = self.id;
        let failed = |error: String| Failure::new(exit::FAILURE, format_args!("cannot start shard {id}: {error}"));
        match driver {
            Driver::Uring(_) => LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
                .name(&format!("shard-{id}"))
                .io_memory(GLOMMIO_IO_MEMORY_BYTES)
                .preempt_timer(GLOMMIO_TURN)
                .spawn(move || run_under_glommio(self))
                .map(ShardThread::Glommio)
                .map_err(|error| failed(error.to_string())),
            Driver::Epoll(_) => thread::Builder::new()
                .name(format!("shard-{id}"))
                .spawn(move || run(self, cpu))
                .map(ShardThread::Plain)
                .map_err(|error| failed(error.to_string())),
        }
    }
}

async fn run_under_glommio(beginning: Beginning) -> io::Result<()> {
    let id = beginning.id;
    let Some((mut shard, _ended)) = beginning.shard(Ring::new())? else { return Ok(()) };
    let mut completions = Vec::new();
    while shard.serve(&mut completions).unwrap_or_else(|error| fail(id, &error)) {
        glommio::yield_if_needed().await;
    }
    Ok(())
}

fn run(beginning: Beginning, cpu: Option<usize>) -> io::Result<()> {
    let id = beginning.id;
    if let Some(cpu) = cpu
        && let Err(error) = stay_on(cpu)
    {
        // Some sandboxes know nothing of it. What it costs is speed.
        tracing::warn!(shard = id, cpu, %error, "the shard cannot be kept on its CPU");
    }
    let Some((mut shard, _ended)) = beginning.shard(Epoll::new())? else { return Ok(()) };
    let mut completions = Vec::new();
    while shard.serve(&mut completions).unwrap_or_else(|error| fail(id, &error)) {}
    Ok(())
}

/// Half a relay is worse than none: the service manager starts a whole one.
fn fail(shard: u16, error: &io::Error) -> ! {
    tracing::error!(shard, %error, "what moves the shard's bytes has failed");
    crate::telemetry::log::flush();
    std::process::exit(i32::from(exit::FAILURE));
}

/// Starts one pinned thread a shard. Each sets its driver up, says how it is woken, and waits to be told of the others.
pub(super) fn start_shards(
    config: &Config,
    driver: Driver,
    settings: Settings,
    shared: &Arc<Shared>,
    orders: &Sender<Order>,
) -> Result<(Shards, Receiver<Request>), Failure> {
    let cpus = usable_cpus();
    let (control, requests) = bounded(REQUESTS_MAX);
    let (ready_sender, ready) = bounded::<Result<(u16, Waker), String>>(usize::from(config.shards));
    let ended_count = Arc::new(AtomicU16::new(0));
    let mut threads = Vec::new();
    let mut senders = Vec::new();
    let mut starters = Vec::new();
    for id in 0..config.shards {
        let (sender, commands) = channel();
        let (starter, queues) = bounded::<Queues>(1);
        senders.push(sender);
        starters.push(starter);
        let beginning = Beginning {
            id,
            settings: settings.clone(),
            commands,
            queues,
            control: control.clone(),
            shared: Arc::clone(shared),
            ready: ready_sender.clone(),
            ended: Ended { count: Arc::clone(&ended_count), orders: orders.clone() },
        };
        let cpu = cpus.get(usize::from(id) % cpus.len().max(1)).copied();
        threads.push(beginning.spawn(driver, cpu)?);
    }
    drop(ready_sender);
    let mut wakers: Vec<Option<Waker>> = vec![None; usize::from(config.shards)];
    for _ in 0..config.shards {
        match ready.recv() {
            Ok(Ok((id, waker))) => wakers[usize::from(id)] = Some(waker),
            Ok(Err(text)) => return Err(Failure::new(exit::FAILURE, text)),
            Err(_) => return Err(Failure::new(exit::FAILURE, "a shard ended before it had started")),
        }
    }
    let queues = Queues::new(senders.into_iter().zip(wakers.into_iter().flatten()).collect());
    for starter in starters {
        let _ = starter.send(queues.clone());
    }
    Ok((Shards { orders: orders.clone(), ended: ended_count, threads, queues, control }, requests))
}

/// Of the mailbox's thread: where it shares a core with a shard, those who are there go first. After a restart it would
/// otherwise take the time in which everybody authenticates.
const SHELF_NICE: i32 = 10;

/// Starts the mailbox's thread.
pub(super) fn start_shelf(config: &Config, mailbox: &Arc<Mailbox>, queues: &Queues) -> Result<JoinHandle<()>, Failure> {
    let shelf = Shelf {
        path: beside(&config.db, SUFFIX),
        mailbox: Arc::clone(mailbox),
        shards: queues.clone(),
        bytes_max: config.mailbox_total_bytes,
        wall: Box::new(|| unix_now().as_secs()),
    };
    thread::Builder::new()
        .name("shelf".to_owned())
        .spawn(move || {
            // Where the system refuses that, the thread is like any other.
            let _ = rustix::process::setpriority_process(None, SHELF_NICE);
            crate::shelf::run(shelf);
        })
        .map_err(|error| Failure::new(exit::FAILURE, format_args!("cannot start the mailbox's thread: {error}")))
}

/// Starts the control thread.
pub(super) fn start_control(
    config: &Config,
    store: Store,
    index: Index,
    health: Arc<StoreHealth>,
    shared: &Arc<Shared>,
    shards: &Shards,
    requests: Receiver<Request>,
) -> Result<JoinHandle<()>, Failure> {
    let orders = shards.orders.clone();
    let control = Control {
        store,
        index,
        directory: Arc::clone(&shared.directory),
        shards: shards.queues.clone(),
        health,
        mailbox: shared.mailbox.clone(),
        lifecycle: Arc::clone(&shared.lifecycle),
        settings: control_settings(config),
        notifier: shared.notifier.clone(),
        cluster: shared.cluster.clone(),
        drain: Box::new(move || {
            // Full, it holds orders enough, and who asked can ask again.
            let _ = orders.try_send(Order::Drain { by: "the admin API" });
        }),
        clock: unix_ms,
        random: random::<16>,
    };
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || control::run(control, &requests))
        .map_err(|error| Failure::new(exit::FAILURE, format_args!("cannot start the control thread: {error}")))
}
