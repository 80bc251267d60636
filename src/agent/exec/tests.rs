use super::*;
use crate::history::{Speaker, Turn};
use std::thread;

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

    fn amend(&mut self, text: String) -> Result<(), BackendError> {
        self.text = text;
        Ok(())
    }
}

fn question(text: &str) -> Question {
    Question { chat: "a chat".to_owned(), turns: vec![Turn::new(Speaker::User, text.to_owned(), Vec::new(), 0)] }
}

fn run(command: &str, text: &str, timeout: Duration) -> (Result<Outcome, BackendError>, Kept) {
    let mut kept = Kept::default();
    let exec = Exec::new(command.to_owned(), timeout, &[], &[]);
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
            if !text.is_empty() {
                std::fs::write(&self.1, "").unwrap();
            }
            Ok(())
        }

        fn amend(&mut self, _: String) -> Result<(), BackendError> {
            unreachable!("nothing is written over")
        }
    }
    let mut going = Going(String::new(), go);
    Exec::new(command, LONG, &[], &[]).answer(&question(""), &mut going, &Cancel::default()).unwrap();
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
    let result = Exec::new(command, LONG, &[], &[]).answer(&question("x"), &mut kept, &cancel);
    assert!(matches!(result, Err(BackendError::Cancelled)), "{result:?}");
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let status = std::path::PathBuf::from(format!("/proc/{}", pid.trim()));
    let deadline = Instant::now() + LONG;
    while status.exists() {
        assert!(Instant::now() < deadline, "it still runs");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until this process is gone, or only waits to be reaped by whoever has inherited it.
fn wait_for_end_of(pid_file: &std::path::Path) {
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let deadline = Instant::now() + LONG;
    let runs = || {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    };
    while runs() {
        assert!(Instant::now() < deadline, "it still runs");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_a_program_leaves_behind_holds_the_answer_up_for_a_moment_only_and_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let command = format!("sleep 1000 & echo $! > {}; echo done", pid_file.display());
    let (result, kept) = run(&command, "x", LONG);
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(kept.text, "done\n");
    wait_for_end_of(&pid_file);
}

#[test]
fn the_end_of_the_agent_kills_what_runs_and_starts_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    struct Ends<'a>(&'a Exec);
    impl Output for Ends<'_> {
        fn push(&mut self, text: &str) -> Result<(), BackendError> {
            if !text.is_empty() {
                self.0.end();
            }
            Ok(())
        }

        fn amend(&mut self, _: String) -> Result<(), BackendError> {
            unreachable!("nothing is written over")
        }
    }
    let exec = Exec::new(format!("sleep 1000 & echo $! > {}; echo begun; wait", pid_file.display()), LONG, &[], &[]);
    assert!(exec.answer(&question("x"), &mut Ends(&exec), &Cancel::default()).is_err());
    wait_for_end_of(&pid_file);
    let again = exec.answer(&question("x"), &mut Kept::default(), &Cancel::default());
    assert_eq!(again.unwrap_err().to_string(), "the agent's program cannot be started");
}

#[test]
fn a_program_that_reads_nothing_gets_no_one_stuck() {
    let (result, kept) = run("printf done", &"x".repeat(1 << 20), LONG);
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(kept.text, "done");
}

#[test]
fn the_last_state_of_a_line_is_shown_without_escapes() {
    let (result, kept) = run("printf '\\033[32mok\\033[0m\\n10%%\\r50%%\\n'", "", LONG);
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(kept.text, "ok\n50%\n");
    let (_, kept) = run("printf 10%%; sleep 0.5; printf '\\r50%%'; sleep 0.5; printf '\\r99%%'; exit 1", "", LONG);
    assert_eq!(kept.text, "99%");
}

#[test]
fn a_program_gets_no_secrets_but_those_that_it_is_given() {
    let given = |passed: &[String]| {
        let exec = Exec::new("env".to_owned(), LONG, &["PATH", "HOME"], passed);
        let mut kept = Kept::default();
        exec.answer(&question(""), &mut kept, &Cancel::default()).unwrap();
        (kept.text.lines().any(|line| line.starts_with("PATH=")), kept.text.contains("\nHOME="))
    };
    // Of the environment of the tests, for one cannot change that safely.
    assert_eq!(given(&[]), (false, false));
    assert!(given(&["PATH".to_owned()]).0);
}

#[cfg(target_os = "linux")]
#[test]
fn what_leaves_the_process_group_is_killed_too() {
    let folder = tempfile::tempdir().unwrap();
    for (number, started) in [
        "setsid sh -c 'echo $$ > {}; exec sleep 1000' &",
        "setsid sh -c '(setsid sh -c \"echo \\$\\$ > {}; exec sleep 1000\" &)' &",
        "setsid env -i /bin/sh -c 'echo $$ > {}; exec sleep 1000' &",
        "sleep 1000 & echo $! > {}",
    ]
    .iter()
    .enumerate()
    {
        let pid_file = folder.path().join(number.to_string());
        let started = started.replace("{}", &pid_file.display().to_string());
        let command = format!("{started}\nwhile [ ! -s {} ]; do sleep 0.01; done; echo done", pid_file.display());
        for ending in ["", "; sleep 1000"] {
            let (_, kept) = run(&format!("{command}{ending}"), "x", Duration::from_secs(2));
            assert_eq!(kept.text, "done\n");
            wait_for_end_of(&pid_file);
            let pid = std::fs::read_to_string(&pid_file).unwrap();
            let process = std::path::PathBuf::from(format!("/proc/{}", pid.trim()));
            let deadline = Instant::now() + LONG;
            while process.exists() {
                // Reaped with the next answer at the latest.
                run("true", "", LONG).0.unwrap();
                assert!(Instant::now() < deadline, "it is left as a zombie: {command}");
            }
            std::fs::remove_file(&pid_file).unwrap();
        }
    }
}
