//! Taking over the file of the old Go relay.

use super::*;
use std::fs;

/// 2024-02-08T20:00:00Z.
const NOW_MS: u64 = 1_707_422_400_000;
const TODAY: u32 = (NOW_MS / 86_400_000) as u32;

/// The schema as the old relay makes it.
const OLD_SCHEMA: &str = "
    CREATE TABLE tokens (token TEXT PRIMARY KEY, created_at DATETIME DEFAULT CURRENT_TIMESTAMP);
    CREATE TABLE bandwidth (
        id INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT NOT NULL, bytes INTEGER NOT NULL,
        recorded_at DATETIME DEFAULT CURRENT_TIMESTAMP
    );
    CREATE INDEX idx_bandwidth_token ON bandwidth (token, recorded_at);
";

fn token(n: u32) -> String {
    format!("oc_pair_{n:032x}")
}

fn old_file(path: &Path, journal_mode: &str, tokens: u32) {
    let connection = Connection::open(path).unwrap();
    connection.query_row(&format!("PRAGMA journal_mode = {journal_mode}"), [], |_| Ok(())).unwrap();
    connection.execute_batch(OLD_SCHEMA).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    for n in 0..tokens {
        let sql = "INSERT INTO tokens VALUES (?1, '2024-01-03 04:05:06')";
        connection.execute(sql, [token(n)]).unwrap();
        let sql = "INSERT INTO bandwidth (token, bytes, recorded_at) VALUES (?1, ?2, ?3)";
        for (bytes, at) in [
            (1, "2024-02-08 00:00:00"),
            (2, "2024-02-08T19:59:59Z"),
            (4, "2024-02-01 00:00:00"),
            (8, "2024-01-31 23:59:59"),
            (16, "2024-02-08 00:59:59+01:00"),
        ] {
            connection.execute(sql, (token(n), bytes, at)).unwrap();
        }
    }
    connection.execute_batch("COMMIT").unwrap();
}

/// The files beside `path` in which a token is in clear text.
fn in_clear(path: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(path.parent().unwrap()).unwrap().map(|file| file.unwrap().path());
    let holds = |file: &PathBuf| fs::read(file).unwrap().windows(8).any(|part| part == b"oc_pair_");
    files.filter(holds).collect()
}

fn tokens(store: &Store) -> Vec<(TokenHash, u64, UsageSums)> {
    let mut found = Vec::new();
    store.for_each_token(NOW_MS, |row, sums| found.push((row.hash, row.created_at, sums))).unwrap();
    found
}

#[test]
fn tokens_and_this_months_usage_are_taken_over_and_no_token_stands_in_clear() {
    for mode in ["DELETE", "WAL"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.db");
        old_file(&path, mode, 300);
        assert_eq!(in_clear(&path).as_slice(), std::slice::from_ref(&path), "else the test shows nothing");

        let mut store = Store::open(&path, NOW_MS).unwrap();
        let imported = Imported { tokens: 300, tokens_skipped: 0, month_bytes: 300 * 23, usage_skipped: 0 };
        assert_eq!(store.opened(), Opened::Imported(imported), "{mode}");
        assert_eq!(in_clear(&path), Vec::<PathBuf>::new(), "{mode}");
        let sums = UsageSums { day_bytes: 3, month_bytes: 23 };
        let expected: Vec<_> = (0..300).map(|n| (TokenHash::of(&token(n)), 1_704_254_706, sums)).collect();
        assert_eq!(tokens(&store), expected, "{mode}");
        let key = TokenHash::of(&token(0)).key();
        store.record_usage(&[Usage { key, day: TODAY, bytes: 1 }]).unwrap();
        store.close().unwrap();

        let store = Store::open(&path, NOW_MS).unwrap();
        assert_eq!(store.opened(), Opened::Found { version: schema::VERSION });
        assert_eq!(tokens(&store)[0].2, UsageSums { day_bytes: 4, month_bytes: 24 });
        assert_eq!(in_clear(&path), Vec::<PathBuf>::new());
    }
}

#[test]
fn tokens_that_were_deleted_before_are_gone_from_the_file_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.db");
    old_file(&path, "DELETE", 300);
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA secure_delete = OFF; DELETE FROM bandwidth; DELETE FROM tokens").unwrap();
    drop(connection);
    assert_eq!(in_clear(&path).as_slice(), std::slice::from_ref(&path), "else the test shows nothing");
    let store = Store::open(&path, NOW_MS).unwrap();
    assert_eq!((tokens(&store), in_clear(&path)), (Vec::new(), Vec::new()));
}

#[test]
fn odd_rows_are_passed_over_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(OLD_SCHEMA).unwrap();
    connection
        .execute_batch(
            "INSERT INTO tokens VALUES (NULL, NULL), ('oc_pair_a', 1704254706), ('oc_pair_b', 'long ago');
             INSERT INTO bandwidth (token, bytes, recorded_at) VALUES
                ('oc_pair_a', 5, 1707422399), ('oc_pair_a', -1, 1707422399), ('oc_pair_a', 1, 'then'),
                ('oc_pair_gone', 7, 1707422399);",
        )
        .unwrap();
    drop(connection);
    let store = Store::open(&path, NOW_MS).unwrap();
    let imported = Imported { tokens: 2, tokens_skipped: 1, month_bytes: 5, usage_skipped: 2 };
    assert_eq!(store.opened(), Opened::Imported(imported));
    let (none, five) = (UsageSums::default(), UsageSums { day_bytes: 5, month_bytes: 5 });
    let (a, b) = (TokenHash::of("oc_pair_a"), TokenHash::of("oc_pair_b"));
    assert_eq!(tokens(&store), [(a, 1_704_254_706, five), (b, NOW_MS / 1000, none)]);
}

#[test]
fn a_file_without_the_bandwidth_table_is_taken_over_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.db");
    let sql = "CREATE TABLE tokens (token TEXT PRIMARY KEY, created_at INTEGER); INSERT INTO tokens VALUES ('t', 1)";
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    assert_eq!(tokens(&Store::open(&path, NOW_MS).unwrap()).len(), 1);
}

#[test]
fn an_import_that_fails_leaves_the_old_file_usable_and_the_next_one_succeeds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.db");
    old_file(&path, "DELETE", 50);
    // A table of the new schema's name in the old file makes the import's first statement after BEGIN fail half-way.
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE usage (x)").unwrap();
    Store::open(&path, NOW_MS).unwrap_err();
    let connection = Connection::open(&path).unwrap();
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((count("SELECT count(*) FROM tokens"), count("SELECT count(*) FROM bandwidth")), (50, 250));
    assert_eq!(count("SELECT count(*) FROM sqlite_schema WHERE name = 'token'"), 0);
    connection.execute_batch("DROP TABLE usage").unwrap();
    drop(connection);
    assert_eq!(tokens(&Store::open(&path, NOW_MS).unwrap()).len(), 50);
}

#[test]
fn a_scrub_that_a_crash_cut_short_is_done_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.db");
    old_file(&path, "DELETE", 300);
    // The state between the import's commit and its VACUUM: a reader keeps the scrub from finishing.
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("PRAGMA journal_mode = WAL; BEGIN; SELECT count(*) FROM tokens;").unwrap();
    let error = Store::open(&path, NOW_MS).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    let due = "SELECT count(*) FROM scrub_due";
    assert_eq!(Connection::open(&path).unwrap().query_row(due, [], |row| row.get(0)), Ok(0), "the import is committed");
    drop(reader);
    let store = Store::open(&path, NOW_MS).unwrap();
    assert_eq!((tokens(&store).len(), in_clear(&path)), (300, Vec::new()));
}
