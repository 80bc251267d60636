//! `coralmux-agent`, the real program, with a phone at the other end.

use crate::client::{options, wait_for, wait_for_message};
use crate::harness::{Relay, ended, wait_until};
use coralmux_client::{Client, Encryption, Event, Events, Link, Role};
use coralmux_test_support::launch::Process;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// The agent that `cargo build` puts beside the relay.
fn program() -> PathBuf {
    let agent = Path::new(env!("CARGO_BIN_EXE_coralmux-relay")).with_file_name("coralmux-agent");
    assert!(agent.exists(), "{} is not there: cargo build", agent.display());
    agent
}

/// An agent process; killed when it goes out of scope.
pub(crate) struct Agent {
    process: Process,
    output: Arc<Mutex<String>>,
    folder: Arc<TempDir>,
    /// What `coralmux-agent link` needs.
    pairing: Vec<String>,
}

impl Agent {
    pub(crate) fn start(relay: &Relay, flags: &[&str]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), relay, flags)
    }

    fn start_in(folder: Arc<TempDir>, relay: &Relay, flags: &[&str]) -> Self {
        Self::start_at(folder, &format!("ws://{}", relay.address()), flags)
    }

    fn start_at(folder: Arc<TempDir>, url: &str, flags: &[&str]) -> Self {
        let mut command = Command::new(program());
        command
            .args(["--relay", url])
            .args(flags)
            .env("XDG_STATE_HOME", folder.path())
            .env_remove("OPENAI_API_KEY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Process::spawn(&mut command).unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(process.0.stdout.take().unwrap()), Box::new(process.0.stderr.take().unwrap())];
        for stream in streams {
            let output = Arc::clone(&output);
            // Ends with the process.
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut output = output.lock().unwrap();
                    output.push_str(&line);
                    output.push('\n');
                }
            });
        }
        let e2e = flags.iter().position(|flag| *flag == "--e2e").map_or(&[][..], |at| &flags[at..at + 2]);
        let pairing = ["--relay", url].iter().chain(e2e).map(|flag| (*flag).to_owned()).collect();
        Self { process, output, folder, pairing }
    }

    pub(crate) fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// The pairing link, as soon as it is kept.
    pub(crate) fn link(&self) -> Link {
        let mut link = None;
        wait_until("the pairing link", || {
            link = self.shown(&[]).lines().find_map(|line| Link::parse(line.trim()).ok());
            link.is_some()
        });
        link.unwrap()
    }

    /// What `coralmux-agent link` shows.
    fn shown(&self, flags: &[&str]) -> String {
        let mut command = Command::new(program());
        command.arg("link").args(&self.pairing).args(flags).env("XDG_STATE_HOME", self.folder.path());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    /// A phone that was paired by its link, with keys.
    pub(crate) fn phone(&self, relay: &Relay) -> (Client, Events) {
        let link = self.link();
        let encryption = link.secret.map_or(Encryption::Version1, Encryption::Version2);
        let options = options(relay.address(), &link.token, Role::Phone, &encryption);
        let (phone, events) = Client::start(options).unwrap();
        wait_for(&events, "keys", |event| matches!(event, Event::Secure { .. }).then_some(()));
        (phone, events)
    }

    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.process.0), Signal::TERM).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        ended("the agent", &mut self.process)
    }

    fn stop(mut self) {
        self.terminate();
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.output());
    }
}

/// An answer's pieces put together, and the payload of what ended it.
pub(crate) fn answer(events: &Events) -> (String, String, Value) {
    let mut streamed = String::new();
    wait_for(events, "the answer's end", |event| match event {
        Event::Message(message) if message.kind == "chat.stream" => {
            streamed += message.payload["delta"].as_str().unwrap();
            None
        }
        Event::Message(message) if message.kind == "chat.done" => {
            Some(("done".to_owned(), std::mem::take(&mut streamed), message.payload.clone()))
        }
        Event::Error(error) => {
            let retry_after_ms = error.retry_after.map(|after| after.as_millis() as u64);
            let payload = json!({
                "code": error.code, "message": error.message, "ref": error.about, "retry_after_ms": retry_after_ms,
            });
            Some(("error".to_owned(), std::mem::take(&mut streamed), payload))
        }
        _ => None,
    })
}

fn ask(phone: &Client, text: &str) -> String {
    phone.send("chat.send", &json!({"text": text})).unwrap()
}

/// A question whose answer has begun when the agent is told to stop.
fn stop_amid_answer(relay: &Relay, agent: &Agent) -> (Client, Events) {
    let (phone, events) = agent.phone(relay);
    ask(&phone, "x");
    wait_for_message(&events, "chat.stream");
    agent.terminate();
    (phone, events)
}

/// The files in a folder and its folders.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn an_agent_registers_itself_pairs_by_its_link_and_comes_back_the_same() {
    let relay = Relay::start(&[]);
    let agent = Agent::start(&relay, &["--echo"]);
    let (phone, events) = agent.phone(&relay);
    let id = ask(&phone, "good morning");
    let (end, streamed, payload) = answer(&events);
    assert_eq!((end.as_str(), streamed.as_str()), ("done", "You said: good morning"));
    assert_eq!(payload, json!({"full_text": "You said: good morning", "ref": id}));
    let (token, folder) = (agent.link().token, Arc::clone(&agent.folder));
    let shown = agent.shown(&[]);
    assert!(shown.contains(&format!("http://{}/#token={token}&k=", relay.address())), "{shown}");
    assert!(shown.matches('\u{2588}').count() > 100, "QR codes:\n{shown}");
    assert!(!agent.shown(&["--qr", "none"]).contains('\u{2588}'));
    // Its output is not a terminal, and may be a log.
    let output = agent.output();
    assert!(!output.contains(&token) && output.contains("coralmux-agent link --relay ws://"), "{output}");
    let kept = files(folder.path());
    assert!(kept.iter().any(|file| file.extension().is_some_and(|extension| extension == "json")), "{kept:?}");
    for file in kept {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    agent.stop();
    wait_for(&events, "its going", |event| (*event == Event::PeerOffline).then_some(()));
    // The same pairing after a restart: the phone goes on without doing anything.
    let agent = Agent::start_in(Arc::clone(&folder), &relay, &["--echo"]);
    ask(&phone, "again");
    assert_eq!(answer(&events).1, "You said: again");
    assert_eq!(agent.link().token, token);
    agent.stop();
    let agent = Agent::start_in(folder, &relay, &["--echo", "--new"]);
    wait_until("another pairing", || agent.link().token != token);
}

#[test]
fn a_kept_pairing_stays_until_the_relay_has_accepted_another() {
    let relay = Relay::start(&[]);
    let agent = Agent::start(&relay, &["--echo"]);
    let kept = agent.link();
    wait_until("its keeping", || agent.output().contains("are kept in"));
    let folder = Arc::clone(&agent.folder);
    agent.stop();
    let run = |token: &str, exit_code| {
        let mut agent = Agent::start_in(Arc::clone(&folder), &relay, &["--echo", "--token", token]);
        assert_eq!(agent.wait().code(), Some(exit_code), "{}", agent.output());
    };
    run("WRONG", 2);
    run(&format!("oc_pair_{}", "0".repeat(32)), 3);
    let agent = Agent::start_in(Arc::clone(&folder), &relay, &["--echo"]);
    wait_until("its coming", || relay.online(&kept.token).1);
    let found = agent.link();
    assert_eq!(found.token, kept.token);
    assert_eq!(found.secret.unwrap().as_bytes(), kept.secret.unwrap().as_bytes());
    agent.stop();
    let other = relay.token();
    let agent = Agent::start_in(Arc::clone(&folder), &relay, &["--echo", "--token", &other]);
    wait_until("its keeping", || agent.output().contains("are kept in"));
    agent.stop();
    assert_eq!(Agent::start_in(folder, &relay, &["--echo"]).link().token, other);
}

#[test]
fn an_agent_of_version_1_shows_the_fingerprint_that_its_phone_shows() {
    let relay = Relay::start(&[]);
    let agent = Agent::start(&relay, &["--echo", "--e2e", "1"]);
    let link = agent.link();
    assert!(link.secret.is_none());
    let (_phone, events) =
        Client::start(options(relay.address(), &link.token, Role::Phone, &Encryption::Version1)).unwrap();
    // Where both come at the same time keys are agreed twice: the last ones count.
    let mut number = None;
    wait_until("the fingerprint", || {
        while let Ok(Some(event)) = events.next_within(Duration::ZERO) {
            if let Event::Secure { version: 1, fingerprint } = event {
                number = fingerprint;
            }
        }
        number.as_ref().is_some_and(|number| agent.output().contains(number))
    });
}

#[test]
fn what_the_phone_asks_about_the_agent_is_answered() {
    let relay = Relay::start(&[]);
    let agent = Agent::start(&relay, &["--echo", "--name", "Kitchen"]);
    let (phone, events) = agent.phone(&relay);
    let id = phone.send("agent.list", &json!({})).unwrap();
    let listed = wait_for_message(&events, "agent.list.result").payload;
    assert_eq!((&listed["agents"][0]["name"], &listed["ref"]), (&json!("Kitchen"), &json!(id)));
    phone.send("system.status", &json!({})).unwrap();
    let status = wait_for_message(&events, "system.status.result").payload;
    assert_eq!((&status["status"], &status["backend"]), (&json!("ok"), &json!("echo")));
    ask(&phone, "remember");
    answer(&events);
    phone.send("chat.history", &json!({"limit": 10})).unwrap();
    let history = wait_for_message(&events, "chat.history.result").payload;
    let said: Vec<_> =
        history["messages"].as_array().unwrap().iter().map(|turn| (&turn["role"], &turn["text"])).collect();
    assert!(history.get("more").is_none(), "{history}");
    phone.send("chat.history", &json!({"limit": 1})).unwrap();
    assert_eq!(wait_for_message(&events, "chat.history.result").payload["more"], true);
    for odd in [json!(-1), json!(1.5), json!("10")] {
        let id = phone.send("chat.history", &json!({"limit": odd})).unwrap();
        assert_eq!(answer(&events).2["ref"], json!(id), "{odd}");
    }
    assert_eq!(said, [(&json!("user"), &json!("remember")), (&json!("assistant"), &json!("You said: remember"))]);
}

#[test]
fn another_question_in_the_same_chat_ends_the_answer_and_other_chats_go_on() {
    let relay = Relay::start(&[]);
    let command = "read word; echo $word; case $word in stay*) sleep 1000;; esac";
    let agent = Agent::start(&relay, &["--exec", command]);
    let (phone, events) = agent.phone(&relay);
    let ask = |chat: &str, text: &str| phone.send("chat.send", &json!({"chat_id": chat, "text": text})).unwrap();
    let piece = |text: &str| {
        wait_for(&events, text, |event| match event {
            Event::Message(message) if message.payload["delta"] == text => Some(message.payload["chat_id"].clone()),
            _ => None,
        })
    };
    let first = ask("a", "stay1\n");
    assert_eq!(piece("stay1\n"), "a");
    ask("b", "stay2\n");
    assert_eq!(piece("stay2\n"), "b", "beside the one of a");
    let second = ask("a", "short\n");
    let (_, _, payload) = answer(&events);
    assert_eq!(payload, json!({"chat_id": "a", "ref": first, "full_text": "stay1\n", "cancelled": true}));
    let (_, streamed, payload) = answer(&events);
    assert_eq!((streamed.as_str(), &payload["ref"]), ("short\n", &json!(second)));
    phone.send("chat.cancel", &json!({"chat_id": "b"})).unwrap();
    assert_eq!(answer(&events).2["cancelled"], true);
}

#[test]
fn a_failing_program_is_a_backend_error_and_its_standard_error_is_in_the_log() {
    let relay = Relay::start(&[]);
    let agent = Agent::start(&relay, &["--exec", "echo so far; echo the reason >&2; exit 7"]);
    let (phone, events) = agent.phone(&relay);
    let id = ask(&phone, "x");
    let (end, streamed, payload) = answer(&events);
    assert_eq!((end.as_str(), streamed.as_str()), ("error", "so far\n"));
    assert_eq!((&payload["code"], &payload["ref"]), (&json!("BACKEND_ERROR"), &json!(id)));
    wait_until("the log", || agent.output().contains("exec: the reason"));
}

#[test]
fn sigterm_lets_the_running_answer_finish_and_takes_no_other() {
    let relay = Relay::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let command = format!("echo begun; while [ ! -e {} ]; do sleep 0.01; done; echo finished", go.display());
    let mut agent = Agent::start(&relay, &["--exec", &command]);
    let (phone, events) = stop_amid_answer(&relay, &agent);
    wait_until("the signal to be heard", || agent.output().contains("Stopping"));
    phone.send("chat.send", &json!({"text": "y", "chat_id": "other"})).unwrap();
    let (end, _, payload) = answer(&events);
    assert_eq!((end.as_str(), &payload["message"]), ("error", &json!("the agent is stopping")));
    fs::write(go, "").unwrap();
    let (end, _, payload) = answer(&events);
    assert_eq!((end.as_str(), &payload["full_text"]), ("done", &json!("begun\nfinished\n")));
    assert!(agent.wait().success());
}

#[test]
fn sigterm_does_not_wait_forever() {
    let relay = Relay::start(&[]);
    let mut agent = Agent::start(&relay, &["--exec", "echo begun; sleep 1000", "--shutdown-timeout", "1"]);
    let (_phone, events) = stop_amid_answer(&relay, &agent);
    let (_, _, payload) = answer(&events);
    assert_eq!((&payload["full_text"], &payload["cancelled"]), (&json!("begun\n"), &json!(true)));
    assert!(agent.wait().success());
}

#[test]
fn a_second_signal_ends_the_agent_and_its_program_at_once() {
    let relay = Relay::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let command = format!("sleep 1000 & echo $! > {}; echo begun; wait", pid_file.display());
    let mut agent = Agent::start(&relay, &["--exec", &command]);
    let _phone = stop_amid_answer(&relay, &agent);
    wait_until("the signal to be heard", || agent.output().contains("Stopping"));
    agent.terminate();
    assert_eq!(agent.wait().code(), Some(1));
    let status = format!("/proc/{}/stat", fs::read_to_string(pid_file).unwrap().trim());
    // Gone, or a zombie that nobody reaps here.
    wait_until("the program's end", || !fs::read_to_string(&status).is_ok_and(|text| !text.contains(") Z ")));
}

#[test]
fn an_agent_waits_at_its_first_start_for_a_relay_that_is_away() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("ws://{nobody}");
    let mut agent = Agent::start_at(Arc::new(tempfile::tempdir().unwrap()), &url, &["--echo"]);
    wait_until("the line", || agent.output().contains(&format!("Cannot reach {url}/ws: ")));
    assert!(agent.output().contains("; trying again in "), "{}", agent.output());
    agent.terminate();
    assert!(agent.wait().success(), "{}", agent.output());
}

#[test]
fn exit_codes_say_why_an_agent_ended() {
    let relay = Relay::start(&[]);
    let token = relay.token();
    // Of version 2, for the token would be bound to the first agent's key.
    let mut first = Agent::start(&relay, &["--echo", "--e2e", "2", "--token", &token]);
    wait_until("the first", || relay.online(&token).1);
    let mut second = Agent::start(&relay, &["--echo", "--e2e", "2", "--token", &token]);
    assert_eq!(first.wait().code(), Some(4), "{}", first.output());
    wait_until("the second", || relay.online(&token).1);
    assert_eq!(relay.call("DELETE", &format!("/api/v1/pair/{token}"), None).0, 204);
    assert_eq!(second.wait().code(), Some(3), "{}", second.output());
    let mut third = Agent::start(&relay, &["--echo", "--token", &token]);
    assert_eq!(third.wait().code(), Some(3), "{}", third.output());
    let mut fourth = Agent::start(&relay, &["--echo", "--nonsense"]);
    assert_eq!(fourth.wait().code(), Some(2), "{}", fourth.output());
    let closed = Relay::start(&["--registration", "off"]);
    let mut fifth = Agent::start(&closed, &["--echo"]);
    assert_eq!(fifth.wait().code(), Some(1));
    wait_until("the reason", || fifth.output().contains("does not let clients register"));
}
