//! `kill -9` at any moment: no token that was acknowledged is missing afterwards, and an import of the old relay's file
//! has either happened or not.
//!
//! The one that gets killed is this test binary again: `child` runs in it when the variable [`CHILD`] is set.

use coralmux::store::{Opened, Store, TokenRow, Usage, UsageSums};
use coralmux_proto::limits::LimitsOverride;
use coralmux_proto::token::{TokenHash, hex, token_text};
use rusqlite::Connection;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Names the store that `child` is to work on.
const CHILD: &str = "CORALMUX_TEST_STORE_CHILD";
/// Repeats a run: the seed that a failing one printed.
const SEED: &str = "CORALMUX_TEST_SEED";

const NOW_MS: u64 = 1_707_422_400_000;
const TODAY: u32 = (NOW_MS / 86_400_000) as u32;

/// The process that gets killed: makes tokens, and prints the hash of each when the store has returned; before it
/// revokes one it says that too, for then the token may be there or not.
#[test]
#[ignore = "run by the crash tests, in a process of its own"]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let mut out = std::io::stdout();
    let mut store = Store::open(Path::new(&path), NOW_MS).unwrap();
    writeln!(out, "\nopen").unwrap();
    let start = u128::from(std::process::id()) << 64;
    for n in 0.. {
        let hash = TokenHash::of(&token_text((start + n).to_be_bytes()));
        let label = Some("x".repeat(n as usize % 200));
        let (created_at, expires_at, limits) = (NOW_MS / 1000, None, LimitsOverride::default());
        store.create(&TokenRow { serial: 0, hash, label, created_at, expires_at, limits, unused_from: None }).unwrap();
        writeln!(out, "made {}", hex(&hash.0)).unwrap();
        if n % 3 == 0 {
            store.record_usage(&[Usage { key: hash.key(), day: TODAY, bytes: 5 }]).unwrap();
            writeln!(out, "used {}", hex(&hash.0)).unwrap();
        }
        if n % 5 == 0 {
            writeln!(out, "goes {}", hex(&hash.0)).unwrap();
            store.revoke(&hash).unwrap();
            writeln!(out, "gone {}", hex(&hash.0)).unwrap();
        }
    }
}

fn start(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["store_crash::child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Small random numbers for moments to kill at (xorshift; the seed is printed).
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
        let seed: u64 = std::env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or_else(fresh);
        println!("{SEED}={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[derive(Default)]
struct Acknowledged {
    made: HashSet<String>,
    used: HashSet<String>,
    goes: HashSet<String>,
    gone: HashSet<String>,
}

impl Acknowledged {
    /// Takes in whole lines; the kill may have cut the last one.
    fn add(&mut self, said: &str) {
        for line in said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            match line.split_once(' ') {
                Some(("made", hash)) => drop(self.made.insert(hash.to_owned())),
                Some(("used", hash)) => drop(self.used.insert(hash.to_owned())),
                Some(("goes", hash)) => drop(self.goes.insert(hash.to_owned())),
                Some(("gone", hash)) => drop(self.gone.insert(hash.to_owned())),
                _ => {}
            }
        }
    }

    /// What is missing or too much in the store.
    fn check(&self, path: &Path, round: u64) {
        let store = Store::open(path, NOW_MS).unwrap_or_else(|e| panic!("round {round}: {e}"));
        let (mut found, mut used) = (HashSet::new(), HashSet::new());
        let visit = |row: TokenRow, sums: UsageSums| {
            found.insert(hex(&row.hash.0));
            if sums.day_bytes == 5 {
                used.insert(hex(&row.hash.0));
            }
        };
        store.for_each_token(NOW_MS, visit).unwrap();
        let missing: Vec<_> = self.made.difference(&self.goes).filter(|hash| !found.contains(*hash)).collect();
        assert!(missing.is_empty(), "round {round}: made, never to be revoked, and missing: {missing:?}");
        let back: Vec<_> = self.gone.intersection(&found).collect();
        assert!(back.is_empty(), "round {round}: revoked and back: {back:?}");
        let kept = self.used.iter().filter(|hash| found.contains(*hash));
        let lost: Vec<_> = kept.filter(|hash| !used.contains(*hash)).collect();
        assert!(lost.is_empty(), "round {round}: usage lost: {lost:?}");
    }
}

#[test]
fn no_acknowledged_token_is_missing_after_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.db");
    let (mut random, mut acknowledged) = (Random::seeded(), Acknowledged::default());
    for round in 0..20 {
        let mut child = start(&path);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        // In some rounds the kill falls into opening, else into work: behind a random number of calls, at a random moment.
        let calls = if round % 4 == 0 { 0 } else { 1 + random.below(100) };
        let mut said = String::new();
        while said.lines().filter(|line| line.len() > 60).count() < calls as usize {
            assert_ne!(lines.read_line(&mut said).unwrap(), 0, "the child ended");
        }
        std::thread::sleep(Duration::from_micros(random.below(if calls == 0 { 30_000 } else { 3000 })));
        child.kill().unwrap();
        lines.read_to_string(&mut said).unwrap();
        child.wait().unwrap();
        acknowledged.add(&said);
        acknowledged.check(&path, round);
    }
    println!("{} made, {} revoked", acknowledged.made.len(), acknowledged.gone.len());
    assert!(acknowledged.made.len() >= 15, "one in each round with calls");
}

/// A file as the old relay leaves it, with one message of 7 bytes for each token.
fn old_file(path: &Path, tokens: u32) {
    let mut old = Connection::open(path).unwrap();
    old.execute_batch(
        "CREATE TABLE tokens (token TEXT PRIMARY KEY, created_at DATETIME DEFAULT CURRENT_TIMESTAMP);
         CREATE TABLE bandwidth (id INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT, bytes INTEGER,
                                 recorded_at DATETIME DEFAULT CURRENT_TIMESTAMP);",
    )
    .unwrap();
    let transaction = old.transaction().unwrap();
    for n in 0..tokens {
        let token = token_text(u128::from(n).to_be_bytes());
        transaction.execute("INSERT INTO tokens (token) VALUES (?1)", [&token]).unwrap();
        let sql = "INSERT INTO bandwidth (token, bytes, recorded_at) VALUES (?1, 7, '2024-02-08 12:00:00')";
        transaction.execute(sql, [&token]).unwrap();
    }
    transaction.commit().unwrap();
}

/// How long `child` takes from its start until the store is open.
fn time_to_open(path: &Path) -> Duration {
    let (started, mut child) = (Instant::now(), start(path));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "open"), "the child ended");
    let time = started.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    time
}

#[test]
fn an_import_that_is_killed_has_happened_or_not_and_is_finished_by_the_next_start() {
    const TOKENS: u32 = 3000;
    let mut random = Random::seeded();
    let (mut before, mut after) = (0, 0);
    let mut whole = Duration::ZERO;
    for round in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.db");
        old_file(&path, TOKENS);
        if round == 0 {
            whole = time_to_open(&path);
            continue;
        }
        // Each round a little later, so that every part of the import is met.
        let mut child = start(&path);
        std::thread::sleep(whole * round / 20 + Duration::from_micros(random.below(5_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(&path, NOW_MS).unwrap_or_else(|e| panic!("round {round}: {e}"));
        match store.opened() {
            Opened::Imported(_) => before += 1,
            _ => after += 1,
        }
        let mut sums = HashMap::new();
        let visit = |row: TokenRow, used: UsageSums| {
            sums.insert(row.hash, used.month_bytes);
        };
        store.for_each_token(NOW_MS, visit).unwrap();
        for n in 0..TOKENS {
            let hash = TokenHash::of(&token_text(u128::from(n).to_be_bytes()));
            assert_eq!(sums.get(&hash), Some(&7), "round {round}: token {n}");
        }
        for file in fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path()) {
            let clear = fs::read(&file).unwrap().windows(8).any(|part| part == b"oc_pair_");
            assert!(!clear, "round {round}: a token in clear in {}", file.display());
        }
    }
    println!("killed before the import was committed: {before}, after: {after}");
}
