//! Takes over the file of the old Go relay, whose tokens are in clear text: `tokens(token TEXT PRIMARY KEY, created_at)`
//! and `bandwidth(id, token, bytes, recorded_at)`, one row a message. Afterwards no token may be left in the file.

use crate::proto::quota::{day_of, month_of_day};
use crate::proto::token::TokenHash;
use crate::sys::time::read_lenient;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};
use std::collections::HashMap;

/// What was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Tokens.
    pub tokens: u64,
    /// Rows of `tokens` without a text to hash.
    pub tokens_skipped: u64,
    /// Payload bytes of this UTC month, over all tokens.
    pub month_bytes: u64,
    /// Rows of `bandwidth` whose time or size could not be read.
    pub usage_skipped: u64,
}

/// Whether a file has the old relay's tables.
pub(super) fn is_legacy(connection: &Connection, tables: &[String]) -> rusqlite::Result<bool> {
    let has = |table: &str, columns: &[&str]| -> rusqlite::Result<bool> {
        let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
        let found = statement.query_map([table], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        Ok(columns.iter().all(|column| found.iter().any(|name| name == column)))
    };
    let usage = tables.iter().any(|name| name == "bandwidth");
    Ok(has("tokens", &["token", "created_at"])? && (!usage || has("bandwidth", &["token", "bytes", "recorded_at"])?))
}

/// Copies tokens and this month's usage into the new tables and drops the old ones, in the caller's transaction.
pub(super) fn import(connection: &Connection, now_unix_ms: u64) -> rusqlite::Result<Imported> {
    // Pages that the dropped tables leave are overwritten with zeros.
    connection.query_row("PRAGMA secure_delete = ON", [], |_| Ok(()))?;
    let mut imported = Imported::default();
    import_tokens(connection, now_unix_ms, &mut imported)?;
    if has_table(connection, "bandwidth")? {
        import_usage(connection, now_unix_ms, &mut imported)?;
        connection.execute_batch("DROP TABLE bandwidth")?;
    }
    // The table's existence says that the file still has to be scrubbed; it goes when that is done.
    connection.execute_batch("DROP TABLE tokens; CREATE TABLE scrub_due (unused INTEGER) STRICT;")?;
    Ok(imported)
}

/// Rewrites a file that held tokens in clear, so that none is left in free pages or in the write-ahead log.
pub(super) fn scrub_if_due(connection: &Connection) -> rusqlite::Result<()> {
    if !has_table(connection, "scrub_due")? {
        return Ok(());
    }
    connection.execute_batch("VACUUM")?;
    super::truncate_log(connection)?;
    connection.execute_batch("DROP TABLE scrub_due")
}

fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let found =
        connection.query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1", [name], |_| Ok(()));
    Ok(found.optional()?.is_some())
}

fn import_tokens(connection: &Connection, now_unix_ms: u64, imported: &mut Imported) -> rusqlite::Result<()> {
    let mut insert = connection.prepare("INSERT OR IGNORE INTO token (hash, created_at) VALUES (?1, ?2)")?;
    let mut select = connection.prepare("SELECT token, created_at FROM tokens ORDER BY rowid")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let Some(hash) = hash_of(row.get_ref(0)?) else {
            imported.tokens_skipped += 1;
            continue;
        };
        let created_at = unix_of(row.get_ref(1)?).unwrap_or(now_unix_ms / 1000);
        imported.tokens += insert.execute((hash.0, super::integer(created_at)))? as u64;
    }
    Ok(())
}

fn import_usage(connection: &Connection, now_unix_ms: u64, imported: &mut Imported) -> rusqlite::Result<()> {
    let month = month_of_day(day_of(now_unix_ms));
    let mut serials: HashMap<Vec<u8>, i64> = HashMap::new();
    let mut find = connection.prepare("SELECT hash, serial FROM token")?;
    let mut rows = find.query([])?;
    while let Some(row) = rows.next()? {
        serials.insert(row.get(0)?, row.get(1)?);
    }
    let mut sums: HashMap<(i64, u32), u64> = HashMap::new();
    let mut select = connection.prepare("SELECT token, bytes, recorded_at FROM bandwidth")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (token, bytes) = (hash_of(row.get_ref(0)?), number_of(row.get_ref(1)?));
        let (Some(hash), Some(bytes), Some(unix)) = (token, bytes, unix_of(row.get_ref(2)?)) else {
            imported.usage_skipped += 1;
            continue;
        };
        let day = day_of(unix.saturating_mul(1000));
        // Usage of a token that was deleted counts for nobody.
        if let Some(&serial) = serials.get(hash.0.as_slice()).filter(|_| month_of_day(day) == month) {
            *sums.entry((serial, day)).or_default() += bytes;
        }
    }
    let mut insert = connection.prepare("INSERT INTO usage (token, day, bytes) VALUES (?1, ?2, ?3)")?;
    for ((serial, day), bytes) in sums {
        insert.execute((serial, day, super::integer(bytes)))?;
        imported.month_bytes += bytes;
    }
    Ok(())
}

fn hash_of(value: ValueRef<'_>) -> Option<TokenHash> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => std::str::from_utf8(bytes).ok().map(TokenHash::of),
        _ => None,
    }
}

fn number_of(value: ValueRef<'_>) -> Option<u64> {
    match value {
        ValueRef::Integer(number) => u64::try_from(number).ok(),
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok()?.trim().parse().ok(),
        _ => None,
    }
}

/// A column's time as a Unix second: text, or a number of seconds, milliseconds, micro- or nanoseconds, told apart by
/// their size (each reads as a year between 1971 and 5138).
fn unix_of(value: ValueRef<'_>) -> Option<u64> {
    const UNITS: [(u64, u64); 4] = [
        (100_000_000_000, 1),
        (100_000_000_000_000, 1000),
        (100_000_000_000_000_000, 1_000_000),
        (u64::MAX, 1_000_000_000),
    ];
    let scaled = |number: u64| UNITS.iter().find(|(below, _)| number < *below).map(|(_, unit)| number / unit);
    match value {
        ValueRef::Integer(number) => u64::try_from(number).ok().and_then(scaled),
        ValueRef::Real(number) if number >= 0.0 => scaled(number as u64),
        ValueRef::Text(bytes) => {
            let text = std::str::from_utf8(bytes).ok()?;
            read_lenient(text).or_else(|| text.trim().parse().ok().and_then(scaled))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_each_form_that_a_column_may_have() {
        let second = Some(1_707_422_400);
        assert_eq!(unix_of(ValueRef::Text(b"2024-02-08 20:00:00")), second);
        assert_eq!(unix_of(ValueRef::Text(b"1707422400")), second);
        assert_eq!(unix_of(ValueRef::Integer(1_707_422_400)), second);
        assert_eq!(unix_of(ValueRef::Integer(1_707_422_400_999)), second);
        assert_eq!(unix_of(ValueRef::Integer(1_707_422_400_000_001)), second);
        assert_eq!(unix_of(ValueRef::Integer(1_707_422_400_000_000_001)), second);
        assert_eq!(unix_of(ValueRef::Real(1_707_422_400.5)), second);
        assert_eq!(unix_of(ValueRef::Null), None);
        assert_eq!(unix_of(ValueRef::Integer(-1)), None);
        assert_eq!(unix_of(ValueRef::Real(f64::NAN)), None);
    }
}
