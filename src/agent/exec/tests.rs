use super::*;
use crate::agent::history::{Speaker, Turn};

#[derive(Default)]
struct Kept {
    text: String,
    pieces: usize,
    cancel_at: Option<(usize, Cancel)>,
}

impl Output for Kept {
    fn push(&mut self, text: &str) -> Result<(), BackendError> {
        self.text.push_str(text);
        self.pieces += usize::from(!text.is_empty());
        if let Some((_, cancel)) = self.cancel_at.as_ref().filter(|(at, _)| *at == self.pieces) {
            cancel.cancel();
        }
        Ok(())
    }
}

fn question(text: &str) -> Question {
    Question { chat: "a chat".to_owned(), turns: vec![Turn::new(Speaker::User, text.to_owned(), Vec::new(), 0)] }
}

fn run(command: &str, text: &str, timeout: Duration) -> (Result<(), BackendError>, Kept) {
    let mut kept = Kept::default();
    let exec = Exec::new(command.to_owned(), timeout);
    let result = exec.answer(&question(text), &mut kept, &Cancel::default());
    (result, kept)
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_text_goes_in_and_what_is_printed_comes_out() {
    let (result, kept) = run("cat; printf %s \" in $CORALMUX_CHAT_ID\"", "h\u{e4}llo", LONG);
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(kept.text, "h\u{e4}llo in a chat");
}

#[test]
fn output_comes_as_it_is_printed_and_characters_are_whole() {
    // The second half of the character comes only after the first piece was taken.
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let command =
        format!("printf 'a\\303'; while [ ! -e {go} ]; do sleep 0.01; done; printf '\\244b'", go = go.display());
    struct Going(String, std::path::PathBuf);
    impl Output for Going {
        fn push(&mut self, text: &str) -> Result<(), BackendError> {
            self.0.push_str(text);
            std::fs::write(&self.1, "").unwrap();
            Ok(())
        }
    }
    let mut going = Going(String::new(), go);
    Exec::new(command, LONG).answer(&question(""), &mut going, &Cancel::default()).unwrap();
    assert_eq!(going.0, "a\u{e4}b");
}

#[test]
fn a_failing_program_is_an_error_and_its_output_is_kept() {
    let (result, kept) = run("printf partly; exit 3", "x", LONG);
    assert_eq!(result.unwrap_err().to_string(), "the agent's program failed (exit status: 3)");
    assert_eq!(kept.text, "partly");
    let (result, _) = run("/nowhere/at/all", "x", LONG);
    assert!(result.unwrap_err().to_string().contains("exit status: 127"));
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_all_that_it_started() {
    for command in ["sleep 1000 & sleep 1000", "exec >&-; sleep 1000"] {
        let started = Instant::now();
        let (result, _) = run(command, "x", Duration::from_secs(1));
        assert_eq!(result.unwrap_err().to_string(), "the agent's program took longer than 1 s");
        assert!(started.elapsed() < Duration::from_secs(30), "{command}");
    }
}

#[test]
fn a_cancelled_answer_kills_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let cancel = Cancel::default();
    let mut kept = Kept { cancel_at: Some((1, cancel.clone())), ..Kept::default() };
    let command = format!("echo $$ > {}; echo begun; sleep 1000 & wait", pid_file.display());
    let result = Exec::new(command, LONG).answer(&question("x"), &mut kept, &cancel);
    assert!(matches!(result, Err(BackendError::Cancelled)), "{result:?}");
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let status = std::path::PathBuf::from(format!("/proc/{}", pid.trim()));
    let deadline = Instant::now() + LONG;
    while status.exists() {
        assert!(Instant::now() < deadline, "it still runs");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_program_that_reads_nothing_gets_no_one_stuck() {
    let (result, kept) = run("printf done", &"x".repeat(1 << 20), LONG);
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(kept.text, "done");
}
