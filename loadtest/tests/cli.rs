//! The program as it is used: a scenario over real sockets against the reference relay.

use coralmux_test_support::launch::{Process, free_address};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_coralmux-loadtest");

struct Reference {
    process: Process,
    address: SocketAddr,
}

impl Reference {
    fn start() -> Self {
        let address = free_address().unwrap();
        let mut process =
            Process::spawn(Command::new(PROGRAM).args(["reference", &address.port().to_string()])).unwrap();
        process.wait_until_listening(address, Duration::from_secs(10)).unwrap();
        Self { process, address }
    }

    /// The scenario's JSON result against this.
    fn load(&self, arguments: &[&str]) -> Value {
        let url = format!("ws://{}/ws", self.address);
        let output =
            Command::new(PROGRAM).args(arguments).args(["--url", &url]).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn figure(result: &Value, name: &str) -> f64 {
    result["figures"][name].as_f64().unwrap_or_else(|| panic!("{name} in {result}"))
}

#[test]
fn pingpong_counts_what_the_relay_forwarded_and_what_it_cost() {
    let reference = Reference::start();
    let result = reference.load(&["pingpong", "--pairs", "10", "--depth", "3", "--seconds", "1", "--warm-up", "0.1"]);
    assert_eq!(result["errors"], serde_json::json!({}));
    assert!(figure(&result, "messages_per_second") > 100.0);
    assert!(figure(&result, "server_cpu_us_per_message") > 0.1);
    let latency = &result["latency_us"]["message"];
    assert!(latency["p50"].as_f64() <= latency["p99"].as_f64() && latency["p99"].as_f64() <= latency["max"].as_f64());
    assert!(latency["count"].as_u64().unwrap() > 100);
}

#[test]
fn a_rate_is_kept_and_large_messages_arrive_whole() {
    let reference = Reference::start();
    let timing = ["--seconds", "1", "--warm-up", "0.1"];
    let rate = [&["pingpong", "--pairs", "5", "--rate", "400", "--sleep"][..], &timing].concat();
    let per_second = figure(&reference.load(&rate), "messages_per_second");
    assert!((300.0..500.0).contains(&per_second), "{per_second}");
    let large = [&["pingpong", "--pairs", "2", "--bytes", "700000"][..], &timing].concat();
    let result = reference.load(&large);
    assert!(figure(&result, "messages_per_second") >= 1.0);
    assert_eq!(result["errors"], serde_json::json!({}));
}

#[test]
fn chats_are_answered_piece_by_piece_and_everybody_comes_back_after_a_storm() {
    let reference = Reference::start();
    let chat = ["chat", "--pairs", "10", "--rate", "20", "--pieces", "5", "--piece-rate", "50", "--seconds", "1"];
    let result = reference.load(&chat);
    assert_eq!(result["errors"], serde_json::json!({}));
    assert!(figure(&result, "chats_completed_per_second") > 10.0);
    assert!(result["latency_us"]["first piece"]["count"].as_u64().unwrap() >= 10);
    let result = reference.load(&["storm", "--pairs", "50", "--herd", "100"]);
    assert_eq!(result["latency_us"]["come back"]["count"], 100);
    assert!(figure(&result, "connections_per_second") > 10.0);
}

#[test]
fn two_relays_are_compared_and_the_report_stands_alone() {
    let (one, two) = (Reference::start(), Reference::start());
    let html = std::env::temp_dir().join(format!("coralmux-loadtest-{}.html", std::process::id()));
    let compare = format!("ws://{}/ws", two.address);
    let result = one.load(&[
        "pingpong",
        "--pairs",
        "2",
        "--seconds",
        "0.3",
        "--warm-up",
        "0.1",
        "--rounds",
        "2",
        "--compare",
        &compare,
        "--html",
        html.to_str().unwrap(),
    ]);
    assert_eq!(result["ratio"]["server_cpu_us_per_message"]["each"].as_array().unwrap().len(), 2);
    let report = std::fs::read_to_string(&html).unwrap();
    std::fs::remove_file(&html).unwrap();
    assert!(report.contains("<polyline") && report.contains("Ratios"));
    for outside in ["src=", "href=", "@import", "url("] {
        assert!(!report.contains(outside), "{outside}");
    }
}

#[test]
fn clients_that_encrypt_agree_on_keys_and_open_what_the_other_sealed() {
    let reference = Reference::start();
    let timing = ["--e2e", "--seconds", "1", "--warm-up", "0.1"];
    for scenario in [
        &["pingpong", "--pairs", "4", "--depth", "3"][..],
        &["pingpong", "--pairs", "2", "--bytes", "300000"],
        &["chat", "--pairs", "4", "--rate", "20", "--pieces", "5", "--piece-rate", "50"],
    ] {
        let result = reference.load(&[scenario, &timing].concat());
        assert_eq!(result["errors"], serde_json::json!({}), "{scenario:?}");
        assert!(result["counted"] != "messages" || figure(&result, "messages_per_second") > 1.0, "{scenario:?}");
    }
}

#[test]
fn what_one_process_has_no_descriptors_for_others_hold() {
    let reference = Reference::start();
    let url = format!("ws://{}/ws", reference.address);
    // The limit is this shell's and its children's: 100 descriptors, and 120 connections at the relay.
    let command = format!("ulimit -n 100 && exec {PROGRAM} idle --pairs 60 --seconds 1 --url {url}");
    let output = Command::new("sh").args(["-c", &command]).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["settings"]["generator_processes"], &result["settings"]["pairs"]), (&2.into(), &60.into()));
    assert_eq!(result["errors"], serde_json::json!({}));
}

#[test]
fn everybody_comes_back_to_a_relay_that_was_restarted() {
    let reference = Reference::start();
    let (pid, port) = (reference.process.0.id(), reference.address.port());
    let restart = format!("kill {pid}; exec timeout 20 {PROGRAM} reference {port} >/dev/null 2>&1 & sleep 0.2");
    let result = reference.load(&["storm", "--pairs", "20", "--restart", &restart]);
    assert_eq!(result["latency_us"]["come back"]["count"], 40);
    assert!(figure(&result, "all_back_seconds") > 0.0);
    assert!(figure(&result, "most_tries_in_100_ms") >= 1.0);
}

/// The relay that `cargo build` puts beside this program.
fn relay() -> PathBuf {
    let relay = Path::new(PROGRAM).with_file_name("coralmux-relay");
    assert!(relay.exists(), "{} is not there: cargo build", relay.display());
    relay
}

#[test]
fn the_others_tell_what_they_notice_of_an_attack() {
    let folder = std::env::temp_dir().join(format!("coralmux-loadtest-hostile-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (json, html) = (folder.join("hostile.json"), folder.join("hostile.html"));
    let output = Command::new(PROGRAM)
        .args(["hostile", "--kinds", "http-idle,ping-messages", "--pairs", "10", "--hostile", "20%", "--rate", "100"])
        .args(["--rounds", "2", "--seconds", "1", "--relay", relay().to_str().unwrap()])
        .args(["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
    let rows: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let report = std::fs::read_to_string(&html).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    for (row, kind) in rows.as_array().unwrap().iter().zip(["http-idle", "ping-messages"]) {
        assert_eq!((&row["kind"], &row["cut_off"], &row["lost_messages"]), (&kind.into(), &0.into(), &0.into()));
        assert_eq!(row["comparison"]["ratio"]["latency_p99_us"]["each"].as_array().unwrap().len(), 2);
        for round in row["comparison"]["rounds"].as_array().unwrap() {
            assert!(figure(&round[0], "hostile_connections") >= 4.0, "{round}");
            assert_eq!(figure(&round[1], "hostile_connections"), 0.0, "{round}");
            assert!(figure(&round[1], "messages_per_second") > 50.0, "{round}");
        }
        assert!(report.contains(kind) && String::from_utf8_lossy(&output.stdout).contains(kind));
    }
}

#[test]
fn what_others_notice_of_the_mailbox_is_measured() {
    let json = std::env::temp_dir().join(format!("coralmux-loadtest-mailbox-{}.json", std::process::id()));
    let rows_of = |only: &str| {
        let output = Command::new(PROGRAM)
            .args(["bench", "--mailbox", "--devices", "20", "--rounds", "1", "--seconds", "0.5", "--only", only])
            .args(["--relay", relay().to_str().unwrap(), "--json", json.to_str().unwrap()])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{only}: {}", output.status);
        let rows: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        std::fs::remove_file(&json).unwrap();
        let rows = rows.as_array().unwrap().clone();
        assert!(rows.iter().all(|row| row["value"].as_f64().unwrap() > 0.0), "{rows:?}");
        rows
    };
    assert!(rows_of("come back")[0]["note"].as_str().unwrap().contains("20 devices, all drained"));
    assert_eq!(rows_of("slow device").len(), 1);
    if rustix::process::geteuid().is_root() {
        let rows = rows_of("the disk is");
        let counts = |row: &Value| {
            let note = row["note"].as_str().unwrap().rsplit_once("; ").unwrap().1.to_owned();
            let words: Vec<u64> = note.split(' ').filter_map(|word| word.parse().ok()).collect();
            (words[0], words[1])
        };
        // In so short a window a slow disk may take nothing.
        let [(kept, refused), _, (full_kept, full_refused)] = [0, 1, 2].map(|at| counts(&rows[at]));
        assert!(kept > 0 && refused == 0 && full_kept < kept && full_refused > 0, "{rows:?}");
    }
}

#[test]
fn a_relay_that_is_not_there_is_named() {
    let output = Command::new(PROGRAM).args(["pingpong", "--url", "ws://127.0.0.1:1/ws"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("ws://127.0.0.1:1/ws"));
}
