//! The file by itself, and the thread with shards that only note what they are told.

use super::file::File;
use super::message::{Keep, Report, Request, Shards};
use super::{Mailbox, QueueBounds, Shelf, run};
use crate::proto::device::DeviceId;
use crate::proto::token::TokenKey;
use crate::session::{Asked, Party, Pile};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

const KEY: TokenKey = TokenKey(7 << 64 | 9);
const OTHER: TokenKey = TokenKey(8 << 64);
const ONE: Party = Party::Device(DeviceId(u64::MAX));
const TWO: Party = Party::Device(DeviceId(2));

fn keep(key: TokenKey, to: Party, from: Party, bytes: usize) -> Keep {
    let asked = Asked { serial: 1, reference: Some("\"r\"".into()), device: None };
    Keep { key, to, from, wake: true, age_max_sec: 100, asked, message: vec![b'x'; bytes] }
}

fn put(file: &mut File, keeps: &[Keep]) -> Vec<u64> {
    let batch = file.begin().unwrap();
    let numbers = keeps.iter().map(|keep| batch.keep(keep, 1000, 5)).collect::<Result<_, _>>().unwrap();
    batch.commit().unwrap();
    numbers
}

fn open(home: &Path) -> File {
    File::open(&home.join("relay.db.mail")).unwrap()
}

#[test]
fn pages_have_32_messages_or_64_kib_and_one_message_at_the_least() {
    let home = tempfile::tempdir().unwrap();
    let mut file = open(home.path());
    let lengths = [100_000, 40_000, 20_000, 30_000];
    put(&mut file, &lengths.map(|bytes| keep(KEY, ONE, Party::Agent, bytes)));
    put(&mut file, &(0..40).map(|_| keep(KEY, TWO, Party::Agent, 10)).collect::<Vec<_>>());
    let mut pages = Vec::new();
    let (mut after, mut left) = (0, 1);
    while left != 0 {
        let page = file.read(KEY, ONE, after).unwrap();
        assert!(page.upto > after);
        (after, left) = (page.upto, page.left);
        pages.push((page.messages, page.left));
    }
    assert_eq!(pages, [(1, 3), (2, 1), (1, 0)]);
    let page = file.read(KEY, TWO, 0).unwrap();
    assert_eq!((page.messages, page.left, page.frames.len()), (32, 8, 32 * 12));
    let nothing = file.read(OTHER, TWO, 3).unwrap();
    assert_eq!((nothing.messages, nothing.upto, nothing.left), (0, 3, 0));
}

#[test]
fn what_is_deleted_forgotten_emptied_or_expired_is_told_exactly() {
    let home = tempfile::tempdir().unwrap();
    let mut file = open(home.path());
    let numbers = put(
        &mut file,
        &[
            keep(KEY, Party::Agent, ONE, 1),
            keep(KEY, Party::Agent, TWO, 2),
            keep(KEY, ONE, Party::Agent, 4),
            keep(KEY, TWO, Party::Agent, 8),
            keep(OTHER, TWO, Party::Agent, 16),
        ],
    );
    let batch = file.begin().unwrap();
    assert_eq!(batch.delete(KEY, Party::Agent, numbers[0], 0).unwrap(), [(ONE, Pile::one(1))]);
    assert_eq!(batch.delete(KEY, Party::Agent, numbers[0], 0).unwrap(), []);
    // Of a device goes what it has sent, too.
    assert_eq!(
        batch.forget(KEY, Some(TWO)).unwrap(),
        (vec![(Party::Agent, Pile::one(2))], Pile { messages: 2, bytes: 10 })
    );
    assert_eq!(batch.expire(1099).unwrap(), []);
    assert_eq!(batch.empty(KEY, None).unwrap(), [(ONE, Party::Agent, Pile::one(4))]);
    assert_eq!(batch.expire(1100).unwrap(), [(OTHER, TWO, Party::Agent, 16)]);
    batch.commit().unwrap();
    assert_eq!(file.sizes().unwrap(), (0, 0));
    let mut lost = Vec::new();
    file.for_each_lost(|key, of, count| lost.push((key, of, count))).unwrap();
    assert_eq!(lost, [(KEY, ONE, 1), (OTHER, TWO, 1)]);
    let batch = file.begin().unwrap();
    batch.delete(KEY, ONE, 0, 1).unwrap();
    batch.commit().unwrap();
    let mut left = 0;
    file.for_each_lost(|_, _, _| left += 1).unwrap();
    assert_eq!(left, 1);
}

#[test]
fn a_file_of_another_program_or_of_a_newer_relay_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("relay.db.mail");
    for (application, version) in [(1, 1), (0x434d_6d6c, 2)] {
        let other = rusqlite::Connection::open(&path).unwrap();
        other.pragma_update(None, "application_id", application).unwrap();
        other.pragma_update(None, "user_version", version).unwrap();
        drop(other);
        assert!(File::open(&path).is_err());
    }
}

/// Two shards that note what they are told.
#[derive(Clone, Default)]
struct Noted(Arc<Mutex<Vec<(u16, Report)>>>);

impl Shards for Noted {
    fn owner(&self, key: TokenKey) -> u16 {
        u16::from(key == OTHER)
    }

    fn count(&self) -> u16 {
        2
    }

    fn post(&self, shard: u16, report: Report) -> bool {
        self.0.lock().unwrap().push((shard, report));
        true
    }
}

#[test]
fn what_was_asked_before_the_end_is_done_and_the_next_run_finds_it() {
    let home = tempfile::tempdir().unwrap();
    let serve = |requests: Vec<Request>| {
        let bounds = QueueBounds { messages_max: 3, bytes_max: 1000 };
        let mailbox = Arc::new(Mailbox::new(bounds, 1 << 20, true, Box::new(|| {})));
        let noted = Noted::default();
        for request in requests {
            match request {
                Request::Keep(keep) => mailbox.keep(keep),
                other => mailbox.post(other),
            }
        }
        let shelf = Shelf {
            path: home.path().join("relay.db.mail"),
            mailbox: Arc::clone(&mailbox),
            shards: noted.clone(),
            bytes_max: 1 << 20,
            wall: Box::new(|| 1_709_208_000),
        };
        mailbox.post(Request::Stop);
        thread::spawn(move || run(shelf)).join().unwrap();
        let noted = std::mem::take(&mut *noted.0.lock().unwrap());
        (mailbox, noted)
    };
    let keeps = [keep(KEY, ONE, Party::Agent, 10), keep(OTHER, ONE, Party::Agent, 20), keep(KEY, ONE, TWO, 30)];
    let (mailbox, noted) = serve(keeps.into_iter().map(Request::Keep).collect());
    let numbers = noted.iter().filter_map(|(shard, report)| match report {
        Report::Kept(kept) => Some((*shard, kept.number.unwrap(), kept.bytes)),
        _ => None,
    });
    assert_eq!(numbers.collect::<Vec<_>>(), [(0, 1, 10), (1, 2, 20), (0, 3, 30)]);
    assert_eq!((mailbox.queued(), mailbox.health.stored()), ((0, 0), (3, 60)));
    assert!(mailbox.check_room(1 << 20).is_err() && mailbox.check_room(900).is_ok());

    let (mailbox, noted) = serve(vec![Request::Delete { key: KEY, of: ONE, upto: 1, lost: 0 }]);
    let found: Vec<_> = noted
        .iter()
        .filter_map(|(shard, report)| match report {
            Report::Found(found) => Some((*shard, found.from, found.pile, found.newest)),
            _ => None,
        })
        .collect();
    assert_eq!(found.len(), 3);
    assert!(found.contains(&(0, TWO, Pile::one(30), 3)) && found.contains(&(1, Party::Agent, Pile::one(20), 2)));
    let loaded = noted.iter().position(|(_, report)| matches!(report, Report::Loaded)).unwrap();
    assert!(noted[..loaded].iter().filter(|(_, report)| matches!(report, Report::Found(_))).count() == 3);
    assert!(noted.iter().any(|(_, report)| matches!(report, Report::Removed { pile, .. } if *pile == Pile::one(10))));
    assert_eq!(mailbox.health.stored(), (2, 50));
}
