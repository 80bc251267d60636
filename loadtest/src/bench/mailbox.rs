//! `bench --mailbox`: what others notice of the mailbox, and of its disk.

use super::{Bench, ratio};
use crate::bench::table::{Bound, Row};
use crate::disk::Disk;
use crate::launch::{Server, new_directory};
use crate::report::compare::Comparison;
use crate::report::outcome::Outcome;
use crate::report::progress::Progress;
use crate::scenario::mail::beside::{Beside, Plan, Task};
use crate::scenario::mail::{Errand, Home, come_back, run_errand};
use crate::scenario::{Opening, Relay, Run};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Messages that wait for each device that comes back, and the bytes of each.
const WAITING: u64 = 3;
const LETTER_BYTES: usize = 1024;
/// Pairs beside the mailbox, and what they send a second all together.
const PAIRS: usize = 100;
const RATE: f64 = 2000.0;
/// What is kept beside them.
const KEEP: Task = Task::Keep { per_second: 500.0, bytes: LETTER_BYTES };
/// What a slow device drains: 4 MiB, and 1,000 messages that come meanwhile.
const HEAP: u64 = 140;
const HEAP_BYTES: usize = 30_000;
const DRAIN: Task = Task::Drain { waiting: HEAP, more: 1000, per_second: 500.0, bytes: 400 };
const DISK_BYTES: u64 = 256 << 20;
/// Bounds that none of these meets: what is kept of a run is not drained.
const FLAGS: [&str; 4] = ["--mailbox-bytes", "1GiB", "--mailbox-messages", "1000000"];
/// A disk that is neither slow nor full any more is seen as such after a second.
const SETTLE: Duration = Duration::from_secs(2);

impl Bench<'_> {
    /// All rows about the mailbox.
    pub(super) fn mailbox(&mut self) -> Result<()> {
        self.mailbox_come_back()?;
        self.mailbox_disk()?;
        self.mailbox_drain()
    }

    /// Everybody comes back to a relay that has just started, with and without mail.
    fn mailbox_come_back(&mut self) -> Result<()> {
        let name = "p99 of auth.ok when devices with mail come back after a restart, of the same without";
        if !self.wants(name) {
            return Ok(());
        }
        let stores = Stores::new()?;
        let (server, relay) = self.at(&stores.present, self.args.devices)?;
        let homes = Home::each(&relay)?;
        let errand = |relay: &Relay, errand| run_errand(relay, &homes, errand, &Progress::new("mailbox"));
        errand(&relay, Errand::Enrol)?;
        server.stop()?;
        stores.save(&stores.without)?;
        let (server, relay) = self.at(&stores.present, 0)?;
        errand(&relay, Errand::Fill { messages: WAITING, bytes: LETTER_BYTES })?;
        server.stop()?;
        stores.save(&stores.with)?;
        let restarted = |from: &Path, waiting: u64, name: &str| {
            stores.restore(from)?;
            let (_server, relay) = self.at(&stores.present, 0)?;
            let plan = come_back::Plan { waiting, seconds: 120.0 };
            let outcome = one(&relay, name, |run| come_back::run(run, &homes, &plan))?;
            without_errors(outcome)
        };
        let mut rounds = Vec::new();
        for number in 1..=self.args.rounds.max(1) {
            let with = restarted(&stores.with, WAITING, &format!("{number}/{} with mail", self.args.rounds))?;
            let without = restarted(&stores.without, 0, &format!("{number}/{} without", self.args.rounds))?;
            rounds.push((with, without));
        }
        let result = Comparison::new("with mail", "without", rounds);
        let drained = result.rounds.iter().map(|(with, _)| with.figures["all_back_seconds"]).fold(0.0, f64::max);
        let row = Row::ratio(name, Bound::AtMost(1.25), ratio(&result, "auth_p99_us")?, "µs");
        self.table.put(row.noted(&format!("{} devices, all drained after {drained:.1} s", homes.len())));
        Ok(())
    }

    /// Pairs while messages are kept on a disk that is as it should be, slow, or full.
    fn mailbox_disk(&mut self) -> Result<()> {
        let names = ["as it should be", "slow", "full"];
        let names = names.map(|state| format!("p99 of pairs while messages are kept and the disk is {state}, of calm"));
        if !names.iter().any(|name| self.wants(name)) {
            return Ok(());
        }
        let disk = Disk::mount(new_directory()?, DISK_BYTES)?;
        let (server, relay) = self.at(&disk.path(), PAIRS + 1)?;
        let home = enrolled(&relay)?;
        let mut results = [const { Vec::new() }; 3];
        one(&relay, "disk", |run| {
            let mut beside = Beside::new(run, &home, self.pairs())?;
            for _ in 0..self.args.rounds.max(1) {
                let calm = without_errors(beside.window(Task::Rest)?)?;
                let fine = beside.window(KEEP)?;
                ensure!(fine.figures["refused"] == 0.0, "{} messages were refused", fine.figures["refused"]);
                results[0].push((without_errors(fine)?, calm.clone()));
                let slow = disk.slow_down();
                let outcome = beside.window(KEEP);
                slow.end()?;
                results[1].push((without_errors(outcome?)?, calm.clone()));
                let full = disk.fill()?;
                let outcome = beside.window(KEEP)?;
                ensure!(outcome.figures["refused"] > 0.0, "nothing was refused on a full disk");
                drop(full);
                results[2].push((without_errors(outcome)?, calm));
                std::thread::sleep(SETTLE);
            }
            Ok(())
        })?;
        server.stop()?;
        for (name, rounds) in names.iter().zip(results) {
            let result = Comparison::new("kept", "calm", rounds);
            let median = |figure: &str| result.ratio.get(figure).map_or(0.0, |ratio| ratio.values.0);
            let note = format!("{:.0} kept and {:.0} refused in a round", median("kept"), median("refused"));
            let row = Row::ratio(name, Bound::AtMost(1.25), ratio(&result, "latency_p99_us")?, "µs");
            self.table.put(row.noted(&note));
        }
        Ok(())
    }

    /// Pairs while a device takes its time with what waits for it.
    fn mailbox_drain(&mut self) -> Result<()> {
        let name = "p99 of pairs while a slow device drains 4 MiB and 1,000 more messages, of calm";
        if !self.wants(name) {
            return Ok(());
        }
        let folder = Folder(new_directory()?);
        let (server, relay) = self.at(&folder.0, PAIRS + 1)?;
        let home = enrolled(&relay)?;
        let rounds = one(&relay, "drain", |run| {
            let mut beside = Beside::new(run, &home, self.pairs())?;
            let mut rounds = Vec::new();
            for _ in 0..self.args.rounds.max(1) {
                let calm = without_errors(beside.window(Task::Rest)?)?;
                let fill = Errand::Fill { messages: HEAP, bytes: HEAP_BYTES };
                run_errand(&relay, std::slice::from_ref(&home), fill, &Progress::hidden())?;
                rounds.push((without_errors(beside.window(DRAIN)?)?, calm));
            }
            Ok(rounds)
        })?;
        server.stop()?;
        let result = Comparison::new("draining", "calm", rounds);
        let most = result.rounds.iter().filter_map(|(one, _)| one.figures.get("rss_most_megabytes"));
        let note = format!("at most {:.0} MB resident", most.copied().fold(0.0, f64::max));
        let row = Row::ratio(name, Bound::AtMost(1.5), ratio(&result, "latency_p99_us")?, "µs");
        self.table.put(row.noted(&note));
        Ok(())
    }

    fn at(&self, folder: &Path, tokens: usize) -> Result<(Server, Relay)> {
        Server::in_folder(&self.binaries, self.args.server_core, folder, &FLAGS, tokens)
    }

    fn pairs(&self) -> Plan {
        Plan { pairs: PAIRS, rate: RATE, seconds: self.args.seconds }
    }
}

/// The home of the last token, whose device has been let in.
fn enrolled(relay: &Relay) -> Result<Home> {
    let home = Home::new(relay.tokens.last().context("no tokens")?)?;
    run_errand(relay, std::slice::from_ref(&home), Errand::Enrol, &Progress::hidden())?;
    Ok(home)
}

fn one<T>(relay: &Relay, name: &str, scenario: impl FnOnce(Run<'_>) -> Result<T>) -> Result<T> {
    let progress = Progress::new(name);
    let opening = Opening { concurrency: 64, ramp_up: Duration::ZERO };
    let outcome = scenario(Run { relay, opening, progress: &progress });
    progress.end();
    outcome
}

fn without_errors(outcome: Outcome) -> Result<Outcome> {
    ensure!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    Ok(outcome)
}

/// A folder that goes when this does.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A relay's store, and copies of it.
struct Stores {
    present: PathBuf,
    with: PathBuf,
    without: PathBuf,
    _all: Folder,
}

impl Stores {
    fn new() -> Result<Self> {
        let all = Folder(new_directory()?);
        let [present, with, without] = ["present", "with", "without"].map(|name| all.0.join(name));
        for folder in [&present, &with, &without] {
            fs::create_dir(folder)?;
        }
        Ok(Self { present, with, without, _all: all })
    }

    fn save(&self, to: &Path) -> Result<()> {
        copy(&self.present, to)
    }

    fn restore(&self, from: &Path) -> Result<()> {
        for file in fs::read_dir(&self.present)? {
            fs::remove_file(file?.path())?;
        }
        copy(from, &self.present)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in fs::read_dir(from)? {
        let file = file?;
        fs::copy(file.path(), to.join(file.file_name())).with_context(|| format!("{}", file.path().display()))?;
    }
    Ok(())
}
