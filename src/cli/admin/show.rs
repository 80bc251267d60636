//! What the API answered, for people: tables, a progress bar, sizes.

use super::LIMITS;
use serde_json::Value;

/// A column: its title, its text in a row, and whether that is a number.
pub(super) struct Column {
    title: &'static str,
    text: fn(&Value) -> String,
    is_number: bool,
}

const fn left(title: &'static str, text: fn(&Value) -> String) -> Column {
    Column { title, text, is_number: false }
}

const fn right(title: &'static str, text: fn(&Value) -> String) -> Column {
    Column { title, text, is_number: true }
}

/// Of `tokens list`.
pub(super) const TOKENS: &[Column] = &[
    left("ID", |row| word(&row["id"])),
    left("LABEL", |row| word(&row["label"])),
    left("CREATED", |row| word(&row["created_at"])),
    left("EXPIRES", |row| word(&row["expires_at"])),
    left("ONLINE", online),
    right("TODAY", |row| size(&row["usage"]["day_bytes"])),
    right("MONTH", |row| size(&row["usage"]["month_bytes"])),
];

/// Of `sessions`.
pub(super) const SESSIONS: &[Column] = &[
    left("ID", |row| word(&row["id"])),
    left("LABEL", |row| word(&row["label"])),
    left("PHONE SINCE", |row| word(&row["online_since"]["phone"])),
    left("AGENT SINCE", |row| word(&row["online_since"]["agent"])),
    right("TODAY", |row| size(&row["usage"]["day_bytes"])),
];

/// Of `devices list`.
const DEVICES: &[Column] = &[
    left("DEVICE", |row| word(&row["device"])),
    left("LABEL", |row| word(&row["label"])),
    left("ADDED", |row| word(&row["added_at"])),
    left("SEEN", |row| word(&row["seen_at"])),
    left("ONLINE SINCE", |row| word(&row["online_since"])),
];

/// Of `mail list`.
const MAIL: &[Column] = &[
    left("TOKEN", |row| word(&row["token"])),
    left("RECEIVER", |row| word(&row["receiver"])),
    right("MESSAGES", |row| word(&row["messages"])),
    right("BYTES", |row| size(&row["bytes"])),
    left("SINCE", |row| word(&row["oldest_at"])),
];

/// Of `usage`.
pub(super) const DAYS: &[Column] = &[
    left("DAY", |row| word(&row["day"])),
    right("BYTES", |row| size(&row["bytes"])),
    right("TOKENS", |row| word(&row["tokens"])),
];

/// A value in a cell. Control characters, which a label made by others might have, do not reach the terminal.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        other => other.to_string(),
    }
}

fn size(value: &Value) -> String {
    bytes(value.as_u64().unwrap_or(0))
}

fn online(row: &Value) -> String {
    let there = |role: &str| row["online"][role] == true;
    match (there("phone"), there("agent")) {
        (true, true) => "both",
        (true, false) => "phone",
        (false, true) => "agent",
        (false, false) => "-",
    }
    .to_owned()
}

/// Bytes as people read them: at most four digits and a unit.
pub(super) fn bytes(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            let digits = usize::from(unit != "B" && amount < 100.0);
            return format!("{amount:.digits$} {unit}");
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

/// Rows under their titles, in columns as wide as they need to be.
pub(super) fn table(columns: &[Column], rows: &[Value]) -> String {
    let titles = columns.iter().map(|column| column.title.to_owned()).collect();
    let cells = rows.iter().map(|row| columns.iter().map(|column| (column.text)(row)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(titles).chain(cells).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let padded = line.iter().zip(columns).zip(&widths).map(|((cell, column), &width)| match column.is_number {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        text.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// One token, a line for each thing.
pub(super) fn token(token: &Value) -> String {
    let mut lines = Vec::new();
    if let Some(secret) = token["token"].as_str() {
        lines.push(format!("token    {secret}   (shown this once)"));
    }
    for (name, value) in [("id", "id"), ("label", "label"), ("created", "created_at"), ("expires", "expires_at")] {
        lines.push(format!("{name:<8} {}", word(&token[value])));
    }
    if let Some(time) = token["unused_expires_at"].as_str() {
        lines.push(format!("never used: expires {time} unless somebody connects with it"));
    }
    if let Some(key) = token["agent_key"].as_str() {
        lines.push(format!("bound    to the agent with key {key}, {} devices", word(&token["devices"])));
    }
    lines.push(format!("online   {}", online(token)));
    let usage = &token["usage"];
    lines.push(format!("used     {} today, {} this month", size(&usage["day_bytes"]), size(&usage["month_bytes"])));
    let (own, effective) = (&token["limits"], &token["effective"]);
    for (flag, name, is_size) in LIMITS {
        let value = match effective[name].as_u64() {
            Some(0) => "none".to_owned(),
            Some(amount) if is_size => bytes(amount),
            _ => word(&effective[name]),
        };
        let whose = if own[name].is_null() { "" } else { "   (its own)" };
        lines.push(format!("{flag:<24} {value}{whose}"));
    }
    lines.join("\n")
}

/// What a token is bound to, and its devices.
pub(super) fn devices(bound: &Value) -> String {
    if bound["agent_key"].is_null() {
        return "not bound to an agent's key: it admits whoever knows the token".to_owned();
    }
    let plain = if bound["legacy_phone"] == true { "admitted" } else { "not admitted" };
    let head = format!("agent key    {}\nplain phone  {plain}\n", word(&bound["agent_key"]));
    match bound["devices"].as_array().map(Vec::as_slice) {
        None | Some([]) => format!("{head}no devices"),
        Some(rows) => format!("{head}{}", table(DEVICES, rows)),
    }
}

/// What waits in the mailbox.
pub(super) fn mail(waiting: &Value) -> String {
    let all = format!("{} messages, {}", word(&waiting["messages"]), size(&waiting["bytes"]));
    match waiting["receivers"].as_array().map(Vec::as_slice) {
        None | Some([]) => "nothing waits".to_owned(),
        Some(rows) => {
            let more = if waiting["more"] == true { "\nand more receivers, for whom less waits" } else { "" };
            format!("{all}\n{}{more}", table(MAIL, rows))
        }
    }
}

/// How far a backup has come.
pub(super) fn bar(state: &Value) -> String {
    const WIDTH: usize = 30;
    let (done, pages) = (state["pages_done"].as_u64().unwrap_or(0), state["pages"].as_u64().unwrap_or(0));
    let share = if pages == 0 { 0.0 } else { done.min(pages) as f64 / pages as f64 };
    let full = (share * WIDTH as f64) as usize;
    format!("[{}{}] {:3.0}%", "#".repeat(full), ".".repeat(WIDTH - full), share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_hides_control_characters() {
        let rows = [
            json!({"id": "00ff", "label": "kit\u{1b}[2Jchen", "online_since": {"phone": null, "agent": "2026-02-09T07:30:00Z"},
                   "usage": {"day_bytes": 1536}}),
            json!({"id": "1", "label": null, "online_since": {}, "usage": {"day_bytes": 7}}),
        ];
        let text = table(SESSIONS, &rows);
        let expected = "ID    LABEL         PHONE SINCE  AGENT SINCE             TODAY\n\
                        00ff  kit?[2Jchen   -            2026-02-09T07:30:00Z  1.5 KiB\n\
                        1     -             -            -                         7 B\n";
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn sizes_and_bars() {
        for (amount, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (524_288_000, "500 MiB"),
            (10 << 30, "10.0 GiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(bytes(amount), text);
        }
        assert_eq!(bar(&json!({"pages_done": 1, "pages": 2})), format!("[{}{}]  50%", "#".repeat(15), ".".repeat(15)));
        assert_eq!(bar(&json!({})), format!("[{}]   0%", ".".repeat(30)));
        assert!(bar(&json!({"pages_done": 9, "pages": 2})).ends_with("100%"));
    }
}
