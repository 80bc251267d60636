//! The store over real files: what is written is there after reopening, and what is wrong with a file is told apart.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const DAY_MS: u64 = 86_400_000;
/// 2024-02-08T20:00:00Z.
const NOW_MS: u64 = 1_707_422_400_000;
const TODAY: u32 = (NOW_MS / DAY_MS) as u32;

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.db");
    (directory, path)
}

fn open(path: &Path) -> Store {
    Store::open(path, NOW_MS).unwrap()
}

fn row(name: &str) -> TokenRow {
    TokenRow {
        serial: 0,
        hash: TokenHash::of(name),
        label: None,
        created_at: NOW_MS / 1000,
        expires_at: None,
        limits: LimitsOverride::default(),
        unused_from: None,
    }
}

fn usage(name: &str, day: u32, bytes: u64) -> Usage {
    Usage { key: TokenHash::of(name).key(), day, bytes }
}

fn tokens(store: &Store, now_unix_ms: u64) -> Vec<(TokenHash, u64, u64)> {
    let mut found = Vec::new();
    let visit = |row: TokenRow, sums: UsageSums| found.push((row.hash, sums.day_bytes, sums.month_bytes));
    store.for_each_token(now_unix_ms, visit).unwrap();
    found
}

#[test]
fn a_token_reads_back_as_it_was_written_also_after_reopening() {
    let (_directory, path) = directory();
    let limits = LimitsOverride { phone_per_minute: Some(0), daily_quota_bytes: Some(u64::MAX), ..Default::default() };
    let mut full = TokenRow { label: Some("Büro 7".into()), expires_at: Some(9_000_000_000), limits, ..row("a") };
    let mut store = open(&path);
    assert_eq!(store.opened(), Opened::Made);
    full.serial = store.create(&full).unwrap();
    assert_eq!(store.create(&row("b")), Ok(full.serial + 1));
    assert_eq!(store.create(&row("b")), Err(StoreError::Exists));
    drop(store);

    let store = open(&path);
    assert_eq!(store.opened(), Opened::Found { version: schema::VERSION });
    assert_eq!(store.find(full.hash.key().id()), Ok(Some(full.clone())));
    assert_eq!(store.find(TokenId(1)), Ok(None));
    assert_eq!(store.list(0, 1), Ok(vec![full.clone()]));
    assert_eq!(store.list(full.serial, 9).unwrap().len(), 1);
    assert_eq!(tokens(&store, NOW_MS), [(full.hash, 0, 0), (TokenHash::of("b"), 0, 0)]);
}

#[test]
fn expired_tokens_do_not_admit_and_can_still_be_found() {
    let (_directory, path) = directory();
    let mut store = open(&path);
    let expired = TokenRow { expires_at: Some(NOW_MS / 1000), ..row("a") };
    store.create(&expired).unwrap();
    assert_eq!(tokens(&store, NOW_MS), []);
    assert_eq!(tokens(&store, NOW_MS - 1000).len(), 1);
    assert!(store.find(expired.hash.key().id()).unwrap().is_some());
}

#[test]
fn update_and_revoke_say_whether_the_token_stood() {
    let (_directory, path) = directory();
    let mut store = open(&path);
    store.create(&row("a")).unwrap();
    let changed = TokenRow { label: Some("new".into()), serial: 1, ..row("a") };
    assert_eq!((store.update(&changed), store.update(&row("b"))), (Ok(true), Ok(false)));
    assert_eq!(store.list(0, 9), Ok(vec![changed]));
    store.record_usage(&[usage("a", TODAY, 5)]).unwrap();
    assert_eq!((store.revoke(&TokenHash::of("a")), store.revoke(&TokenHash::of("a"))), (Ok(true), Ok(false)));
    // The same token again would be a new one: neither its serial nor its usage comes back.
    assert_eq!(store.create(&row("a")), Ok(2));
    assert_eq!(tokens(&store, NOW_MS), [(TokenHash::of("a"), 0, 0)]);
}

#[test]
fn usage_adds_up_by_utc_day_and_month() {
    let (_directory, path) = directory();
    let mut store = open(&path);
    store.create(&row("a")).unwrap();
    store.create(&row("b")).unwrap();
    let first = TODAY - 7;
    let batch = [
        usage("a", TODAY, 10),
        usage("a", TODAY, 5),
        usage("a", first, 100),
        usage("a", first - 1, 1000),
        usage("b", TODAY - 1, 7),
        usage("nobody", TODAY, 9),
    ];
    store.record_usage(&batch).unwrap();
    store.record_usage(&[usage("a", TODAY, 1)]).unwrap();
    drop(store);
    let store = open(&path);
    assert_eq!(tokens(&store, NOW_MS), [(TokenHash::of("a"), 16, 116), (TokenHash::of("b"), 0, 7)]);
    assert_eq!(store.usage(1, NOW_MS), Ok(UsageSums { day_bytes: 16, month_bytes: 116 }));
    assert_eq!(store.usage(3, NOW_MS), Ok(UsageSums::default()));
    let first_of_march = (u64::from(TODAY) + 22) * DAY_MS;
    assert_eq!(tokens(&store, first_of_march), [(TokenHash::of("a"), 0, 0), (TokenHash::of("b"), 0, 0)]);
}

#[test]
fn a_sum_beyond_all_bounds_stands_still() {
    let (_directory, path) = directory();
    let mut store = open(&path);
    store.create(&row("a")).unwrap();
    for _ in 0..3 {
        store.record_usage(&[usage("a", TODAY, u64::MAX)]).unwrap();
    }
    assert_eq!(store.usage(1, NOW_MS).unwrap().day_bytes, i64::MAX as u64);
}

#[test]
fn days_that_no_quota_counts_any_more_go() {
    let (_directory, path) = directory();
    let mut store = open(&path);
    for name in ["a", "b"] {
        store.create(&row(name)).unwrap();
        store.record_usage(&[usage(name, TODAY - 60, 1), usage(name, TODAY - 30, 1)]).unwrap();
    }
    let days = |store: &Store| -> i64 {
        store.connection.query_row("SELECT count(*) FROM usage", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(days(&store), 4);
    store.record_usage(&[usage("a", TODAY, 1)]).unwrap();
    assert_eq!(days(&store), 4, "60 days ago went, today came");
    drop(store);
    assert_eq!(days(&open(&path)), 3, "and at the next start those of the other token");
}

#[test]
fn no_token_stands_in_clear_and_nobody_else_may_read_the_file() {
    use std::os::unix::fs::MetadataExt;
    let (directory, path) = directory();
    let mut store = open(&path);
    store.create(&row("oc_pair_0123456789abcdef0123456789abcdef")).unwrap();
    for file in fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
        let mode = file.metadata().unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{:?} {mode:o}", file.path());
        let bytes = fs::read(file.path()).unwrap();
        assert!(!bytes.windows(8).any(|part| part == b"oc_pair_"), "{:?}", file.path());
    }
}

#[test]
fn each_commit_waits_for_the_disk() {
    let (_directory, path) = directory();
    let store = open(&path);
    let pragma = |name| store.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((pragma("synchronous"), pragma("foreign_keys")), (2, 1));
    let mode: String = store.connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[test]
fn a_second_relay_on_the_same_file_is_told_so_also_under_another_name() {
    let (directory, path) = directory();
    let store = open(&path);
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in [&path, &link] {
        let error = Store::open(name, NOW_MS).unwrap_err();
        assert!(matches!(error, OpenError::InUse { process: Some(id), .. } if id == std::process::id()), "{error}");
        assert!(error.to_string().contains("in use by another relay (process "), "{error}");
    }
    drop(store);
    open(&link);
}

#[test]
fn a_file_that_another_program_has_locked_is_told_from_one_in_use() {
    let (_directory, path) = directory();
    drop(open(&path));
    let other = Connection::open(&path).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; DELETE FROM token; COMMIT").unwrap();
    let error = Store::open(&path, NOW_MS).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
}

#[test]
fn a_lock_that_comes_later_fails_the_write_and_the_next_one_succeeds() {
    let (_directory, path) = directory();
    let mut store = open(&path);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(store.create(&row("a")), Err(StoreError::Locked));
    assert_eq!(store.probe(), Err(StoreError::Locked));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!((store.probe(), store.create(&row("a"))), (Ok(()), Ok(1)));
}

#[test]
fn a_full_file_fails_the_write_keeps_what_was_and_recovers() {
    let (_directory, path) = directory();
    let mut store = open(&path);
    let pages: u32 = store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    store.set_pages_max(pages);
    let mut made = Vec::new();
    let error = loop {
        let name = format!("{}", made.len());
        let long = TokenRow { label: Some("x".repeat(200)), ..row(&name) };
        match store.create(&long) {
            Ok(serial) => made.push(serial),
            Err(error) => break error,
        }
    };
    assert_eq!(error, StoreError::DiskFull);
    assert_eq!(store.list(0, 1000).unwrap().len(), made.len());
    store.set_pages_max(1000);
    store.create(&row("last")).unwrap();
    drop(store);
    assert_eq!(open(&path).list(0, 1000).unwrap().len(), made.len() + 1);
}

#[test]
fn what_is_no_database_is_told_from_one_of_another_program_and_neither_is_touched() {
    let (_directory, path) = directory();
    fs::write(&path, "these are my notes, keep them; ".repeat(100)).unwrap();
    let before = fs::read(&path).unwrap();
    let error = Store::open(&path, NOW_MS).unwrap_err();
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
    fs::remove_file(&path).unwrap();

    for sql in ["CREATE TABLE songs (name)", "PRAGMA application_id = 7", "PRAGMA user_version = 3"] {
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let before = fs::read(&path).unwrap();
        let error = Store::open(&path, NOW_MS).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }), "{sql}: {error}");
        assert_eq!(fs::read(&path).unwrap(), before, "{sql}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_damaged_file_is_told_so() {
    let (_directory, path) = directory();
    let mut store = open(&path);
    for n in 0..500 {
        store.create(&row(&n.to_string())).unwrap();
    }
    store.close().unwrap();
    let whole = fs::read(&path).unwrap();
    for (what, damaged) in [
        ("overwritten in the middle", {
            let mut bytes = whole.clone();
            let middle = bytes.len() / 2 / 4096 * 4096;
            bytes[middle..middle + 4096].fill(0x5a);
            bytes
        }),
        ("cut off", whole[..whole.len() / 2 / 4096 * 4096].to_vec()),
    ] {
        fs::write(&path, &damaged).unwrap();
        let error = Store::open(&path, NOW_MS).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{what}: {error}");
        assert!(error.to_string().contains(".recover"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "{what}");
    }
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let (_directory, path) = directory();
    drop(open(&path));
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(&path, NOW_MS).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("newer relay (schema 99"), "{error}");
}

#[test]
fn a_missing_directory_and_a_directory_in_the_files_place_are_named() {
    let (directory, _) = directory();
    let error = Store::open(&directory.path().join("no/relay.db"), NOW_MS).unwrap_err();
    assert!(matches!(error, OpenError::MissingDirectory { .. }), "{error}");
    assert!(error.to_string().contains("/no does not exist"), "{error}");
    let in_the_way = directory.path().join("dir.db");
    fs::create_dir(&in_the_way).unwrap();
    let error = Store::open(&in_the_way, NOW_MS).unwrap_err();
    assert!(error.to_string().contains("dir.db"), "{error}");
}

#[test]
fn tokens_of_a_store_that_did_not_know_who_is_unused_count_as_used() {
    let (_directory, path) = directory();
    let before = Connection::open(&path).unwrap();
    before.execute_batch(schema::STEPS[0]).unwrap();
    before.execute("INSERT INTO token (hash, created_at) VALUES (?1, 1)", [TokenHash::of("old").0]).unwrap();
    schema::mark(&before, 1).unwrap();
    drop(before);
    let mut store = open(&path);
    assert_eq!(store.opened(), Opened::Found { version: 1 });
    store.create(&TokenRow { unused_from: Some(0), ..row("new") }).unwrap();
    let forwarded = TokenRow { unused_from: Some(0), ..row("forwarded") };
    store.create(&forwarded).unwrap();
    store.record_usage(&[usage("forwarded", TODAY, 1)]).unwrap();
    store.create(&TokenRow { unused_from: Some(5), ..row("later") }).unwrap();
    assert_eq!(store.unused(4, 9), Ok(vec![TokenHash::of("new")]));
    assert_eq!(store.unused(5, 9), Ok(vec![TokenHash::of("new"), TokenHash::of("later")]));
    assert_eq!((store.unused(5, 1).unwrap().len(), store.age()), (1, Ok(0)));
    store.mark_used(7, &[TokenHash::of("new").key()]).unwrap();
    assert_eq!((store.unused(9, 9), store.age()), (Ok(vec![TokenHash::of("later")]), Ok(7)));
}

/// Migrations run the steps in order, in one transaction that also marks the version.
#[test]
fn a_file_of_version_0_that_is_ours_is_brought_up_to_date() {
    let (_directory, path) = directory();
    Connection::open(&path).unwrap().pragma_update(None, "application_id", schema::APPLICATION_ID).unwrap();
    let mut store = open(&path);
    assert_eq!(store.opened(), Opened::Found { version: 0 });
    store.create(&row("a")).unwrap();
    drop(store);
    assert_eq!(open(&path).opened(), Opened::Found { version: schema::VERSION });
}

/// A store of schema 1 with one token.
fn of_version_1(path: &Path) {
    let before = Connection::open(path).unwrap();
    before.execute_batch(schema::STEPS[0]).unwrap();
    before.execute("INSERT INTO token (hash, created_at) VALUES (?1, 1)", [TokenHash::of("old").0]).unwrap();
    schema::mark(&before, 1).unwrap();
}

#[test]
fn a_store_is_kept_as_it_was_before_its_schema_is_changed_once() {
    let (directory, path) = directory();
    let named = |name: &str| directory.path().join(name);
    let kept = named(concat!("relay.db.before-", env!("CARGO_PKG_VERSION")));
    of_version_1(&path);
    // Copies of earlier upgrades make room for this one, and nothing else does.
    for name in ["relay.db.before-0.0.1", "relay.db.before", "other.db.before-0.0.1", "relay.db.backup"] {
        fs::write(named(name), "x").unwrap();
    }
    drop(open(&path));
    let copy = Connection::open(&kept).unwrap();
    let version: i64 = copy.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let hash: [u8; 32] = copy.query_row("SELECT hash FROM token", [], |row| row.get(0)).unwrap();
    assert_eq!((version, hash), (1, TokenHash::of("old").0));
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!named("relay.db.before-0.0.1").exists());
    assert!(["relay.db.before", "other.db.before-0.0.1", "relay.db.backup"].iter().all(|name| named(name).exists()));
    drop(copy);
    // It is a store like any other, in which the older relay finds all that it left.
    assert_eq!(open(&kept).opened(), Opened::Found { version: 1 });
    fs::remove_file(&kept).unwrap();
    drop(open(&path));
    assert!(!kept.exists(), "where nothing is migrated, nothing is copied");
}

#[test]
fn a_store_of_which_no_copy_can_be_kept_is_not_migrated() {
    let (directory, path) = directory();
    let in_the_way = directory.path().join(concat!("relay.db.before-", env!("CARGO_PKG_VERSION")));
    fs::create_dir(&in_the_way).unwrap();
    of_version_1(&path);
    let error = Store::open(&path, NOW_MS).unwrap_err();
    assert!(error.to_string().starts_with(in_the_way.to_str().unwrap()), "{error}");
    let store = Connection::open(&path).unwrap();
    assert_eq!(store.pragma_query_value(None, "user_version", |row| row.get(0)), Ok(1));
}

/// Made by the relay 0.1.0 (tests/interop/data/0.1.0/README.md), on the day that it was used.
#[test]
fn the_store_of_the_first_release_is_read_with_all_that_is_in_it() {
    let (_directory, path) = directory();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/data/0.1.0/");
    fs::copy(format!("{data}relay.db"), &path).unwrap();
    let made: serde_json::Value = serde_json::from_slice(&fs::read(format!("{data}made.json")).unwrap()).unwrap();
    let store = Store::open(&path, made["unix_ms"].as_u64().unwrap()).unwrap();
    let hash = |name: &str| TokenHash::of(made["tokens"][name].as_str().unwrap());
    let rows = store.list(0, 100).unwrap();
    let row = |name: &str| rows.iter().find(|row| row.hash == hash(name)).unwrap();
    assert_eq!(rows.len(), 6);
    assert_eq!((row("used").label.as_deref(), row("used").unused_from), (Some("used"), None));
    assert!(row("registered").unused_from.is_some() && row("expired").expires_at.is_some());
    let limits = LimitsOverride {
        message_bytes_max: Some(1_048_576),
        phone_per_minute: Some(7),
        agent_per_minute: Some(0),
        stream_per_second: Some(50),
        daily_quota_bytes: Some(1_000_000),
        monthly_quota_bytes: Some(20_000_000),
        ..LimitsOverride::default()
    };
    assert_eq!(row("limited").limits, limits);
    let used = made["used_bytes"].as_u64().unwrap();
    let sums = tokens(&store, made["unix_ms"].as_u64().unwrap());
    let of_used = sums.iter().find(|(of, ..)| *of == hash("used")).unwrap();
    assert_eq!((of_used.1, of_used.2), (used, used));
    assert!(used > 0);
}
