//! The shards' threads and the control thread: how they start, find each other, and end.

use super::listeners::Listeners;
use super::supervise::Order;
use super::{Failure, control_settings, exit, random, unix_ms};
use crate::config::Config;
use crate::control::message::Request;
use crate::control::{self, Control, Index, StoreHealth};
use crate::ring::{Ring, Waker};
use crate::shard::command::{Command, Queues, channel};
use crate::shard::shared::Shared;
use crate::shard::{Links, Settings, Shard};
use crate::store::Store;
use crate::sys::machine::cpus::usable_cpus;
use crossbeam_channel::{Receiver, Sender, bounded};
use glommio::{LocalExecutorBuilder, Placement};
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
type ShardThread = glommio::ExecutorJoinHandle<std::io::Result<()>>;

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

/// Starts one pinned thread a shard. Each builds its ring, says how it is woken, and waits to be told of the others.
pub(super) fn start_shards(
    config: &Config,
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
        let (start_sender, start) = bounded::<Queues>(1);
        senders.push(sender);
        starters.push(start_sender);
        let (control, shared, settings, ready) =
            (control.clone(), Arc::clone(shared), settings.clone(), ready_sender.clone());
        let ended = Ended { count: Arc::clone(&ended_count), orders: orders.clone() };
        let placement = match cpus.len() {
            0 => Placement::Unbound,
            count => Placement::Fixed(cpus[usize::from(id) % count]),
        };
        let thread = LocalExecutorBuilder::new(placement)
            .name(&format!("shard-{id}"))
            .io_memory(GLOMMIO_IO_MEMORY_BYTES)
            .preempt_timer(GLOMMIO_TURN)
            .spawn(move || async move {
                let _ended = ended;
                let ring = match Ring::new() {
                    Ok(ring) => ring,
                    Err(error) => {
                        let _ = ready.send(Err(format!("shard {id}: cannot build its ring: {error}")));
                        return Err(error);
                    }
                };
                let _ = ready.send(Ok((id, ring.waker())));
                drop(ready);
                // Nothing else runs on this executor, so waiting here holds nobody up. It ends when the start fails.
                let Ok(queues) = start.recv() else { return Ok(()) };
                let links = Links { id, commands, queues, control, shared };
                let served = Shard::new(ring, settings, links, u64::from_ne_bytes(random())).run().await;
                if let Err(error) = &served {
                    // Half a relay is worse than none: the service manager starts a whole one.
                    tracing::error!(shard = id, %error, "the shard's ring has failed");
                    crate::telemetry::log::flush();
                    std::process::exit(i32::from(exit::FAILURE));
                }
                served
            })
            .map_err(|error| Failure::new(exit::FAILURE, format_args!("cannot start shard {id}: {error}")))?;
        threads.push(thread);
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
        lifecycle: Arc::clone(&shared.lifecycle),
        settings: control_settings(config),
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
