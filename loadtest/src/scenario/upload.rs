//! `upload`: phones send images as fast as they are acknowledged, and others go on chatting.

use super::Run;
use super::connect::{connect_pairs, role_of};
use super::measure::{Load, measure, warm_up};
use super::traffic::Pingpong;
use crate::generator::{Handler, Id, Net, Template};
use crate::report::outcome::Outcome;
use anyhow::{Result, ensure};

/// Size of an acknowledgement, and of the messages of those who chat.
const SMALL_BYTES: usize = 256;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Pairs that upload.
    pub(crate) pairs: usize,
    /// Size of an image.
    pub(crate) bytes: usize,
    /// Pairs that chat meanwhile, each once a second.
    pub(crate) bystanders: usize,
    pub(crate) seconds: f64,
    pub(crate) warm_up: f64,
}

/// Uploads on the first pairs, chats on the others.
struct Uploads {
    uploads: Pingpong,
    chats: Pingpong,
    /// Connections that upload or receive uploads: the first so many.
    uploading: usize,
}

impl Uploads {
    fn of(&mut self, id: Id) -> (&mut Pingpong, Id) {
        if id < self.uploading { (&mut self.uploads, id) } else { (&mut self.chats, id) }
    }
}

impl Handler for Uploads {
    fn handle_message(&mut self, net: &mut Net, id: Id, bytes: u64, head: &[u8], now: u64) {
        let (game, id) = self.of(id);
        game.handle_message(net, id, bytes, head, now);
    }

    fn handle_read_done(&mut self, net: &mut Net, id: Id, now: u64) {
        let (game, id) = self.of(id);
        game.handle_read_done(net, id, now);
    }

    fn handle_closed(&mut self, net: &mut Net, id: Id, why: String) {
        let why =
            format!("{} {}: {why}", if id < self.uploading { "uploading" } else { "chatting" }, role_of(id).name());
        self.of(id).0.handle_closed(net, id, why);
    }

    fn handle_time(&mut self, net: &mut Net, now: u64) -> u64 {
        self.chats.handle_time(net, now)
    }
}

impl Load for Uploads {
    fn count(&self) -> u64 {
        self.uploads.answers()
    }

    fn set_recording(&mut self, recording: bool) {
        self.uploads.set_recording(recording);
        self.chats.set_recording(recording);
    }
}

/// Runs it once.
pub(crate) fn run(run: Run<'_>, plan: &Plan) -> Result<Outcome> {
    let (mut net, _) = connect_pairs(run, plan.pairs + plan.bystanders)?;
    let small = |kind| Template::envelope(kind, SMALL_BYTES, 1);
    let image = Template::envelope("chat.send", plan.bytes, 1)?;
    let mut load = Uploads {
        uploads: Pingpong::new(image, small("chat.done")?, net.len(), 0..plan.pairs),
        chats: Pingpong::new(small("chat.send")?, small("chat.done")?, net.len(), plan.pairs..net.len() / 2),
        uploading: plan.pairs * 2,
    };
    load.uploads.start(&mut net, 1);
    if plan.bystanders > 0 {
        load.chats.start_at_rate(&net, plan.bystanders as f64);
    }
    warm_up(run, &mut net, &mut load, plan.warm_up)?;
    let measured = measure(run, &mut net, &mut load, plan.seconds, |_, _| false)?;
    let uploads = measured.count;
    ensure!(uploads > 0, "no upload was acknowledged; {:?}", load.uploads.errors);
    let megabytes_per_second = uploads as f64 * plan.bytes as f64 / 1e6 / measured.usage.seconds;
    let mut outcome = Outcome::new("upload", &run.relay.target.url, "uploads", measured)
        .setting("pairs", plan.pairs)
        .setting("bytes", plan.bytes)
        .setting("bystanders", plan.bystanders)
        .throughput("uploads_per_second", "server_cpu_us_per_upload", uploads)
        .figure("megabytes_per_second", megabytes_per_second)
        .latency("upload", "upload_p50_us", "upload_p99_us", &load.uploads.round_trip)
        .latency("chat meanwhile", "chat_p50_us", "chat_p99_us", &load.chats.latency);
    outcome.errors = load.uploads.errors;
    outcome.errors.extend(load.chats.errors);
    Ok(outcome)
}
