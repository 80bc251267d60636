//! `coralmux-relay doctor`: looks at everything that the relay needs, with the same settings as the relay, and says for
//! each thing whether it is well or what to do. It starts nothing and changes nothing.

mod machine;
mod outside;

use crate::config::{self, Config};
use crate::console;
use serde::Serialize;
use std::ffi::OsString;

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Well.
    Ok,
    /// The relay runs, and something is worth a look.
    Warn,
    /// The relay does not start, or not do what it should.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    name: String,
    state: State,
    /// What was found.
    text: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    to_do: Option<String>,
}

impl Finding {
    fn ok(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Ok, text: text.into(), to_do: None }
    }

    fn warn(name: impl Into<String>, text: impl Into<String>, to_do: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Warn, text: text.into(), to_do: Some(to_do.into()) }
    }

    /// The relay runs all the same.
    fn soften(&mut self) {
        if self.state == State::Fail {
            self.state = State::Warn;
        }
    }

    fn fail(name: impl Into<String>, text: impl Into<String>, to_do: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Fail, text: text.into(), to_do: Some(to_do.into()) }
    }
}

const HELP: &str = "\
Looks at all that the relay needs: kernel, io_uring, limits, ports, store, clock, certificates and the
names of domains. Give it the flags that the relay is started with (see `coralmux-relay --help`), and
run it as the relay's user.

Usage: coralmux-relay doctor [--json] [OPTIONS OF THE RELAY]

      --json  The findings as JSON

Exit code: 0 where nothing fails, 1 where something does, 2 where the configuration is wrong.
";

/// Looks, and prints what was found; the exit code is 0 where nothing fails, 1 where something does, 2 where the
/// configuration is wrong.
pub(super) fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let mut args: Vec<OsString> = args.collect();
    if super::asks_for_help(&args) {
        console::print(HELP);
        return 0;
    }
    let flags = args.len();
    args.retain(|arg| arg != "--json" && arg != "-json");
    let as_json = args.len() < flags;
    let (findings, wrong) = match config::resolve(args, |name| std::env::var(name).ok()) {
        Ok(config) => (look(&config), false),
        Err(error) => {
            let to_do = "see `coralmux-relay --help` and docs/OPERATIONS.md";
            (vec![Finding::fail("configuration", error.to_string(), to_do)], true)
        }
    };
    let failed = findings.iter().any(|finding| finding.state == State::Fail);
    let text = if as_json { json(&findings, failed) } else { lines(&findings) };
    console::print(text);
    if wrong { 2 } else { u8::from(failed) }
}

fn look(config: &Config) -> Vec<Finding> {
    let file =
        config.config_file.as_ref().map_or("flags and environment".to_owned(), |path| path.display().to_string());
    let mut findings = vec![Finding::ok("configuration", file)];
    findings.extend(config.cautions.iter().map(|caution| {
        let (what, to_do) = caution.split_once(": ").unwrap_or((caution, ""));
        Finding::warn("configuration", what, to_do)
    }));
    findings.extend(machine::look(config));
    findings.extend(outside::look(config));
    findings
}

fn json(findings: &[Finding], failed: bool) -> String {
    format!("{}\n", serde_json::json!({ "ok": !failed, "findings": findings }))
}

/// A line for each finding, and what to do indented under it.
fn lines(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { name, state, text: found, to_do } in findings {
        let state = match state {
            State::Ok => "ok  ",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        text.push_str(&format!("{state}  {name:<width$}  {found}\n"));
        for line in to_do.iter().flat_map(|to_do| to_do.lines()) {
            text.push_str(&format!("        {}\n", line.trim_start()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_read_as_lines_and_as_json() {
        let findings =
            [Finding::ok("kernel", "6.1"), Finding::fail("store", "no such directory", "  make it\n  or another")];
        assert_eq!(
            lines(&findings),
            "ok    kernel  6.1\nFAIL  store   no such directory\n        make it\n        or another\n"
        );
        let json: serde_json::Value = serde_json::from_str(&json(&findings, true)).unwrap();
        assert_eq!((&json["ok"], &json["findings"][1]["state"]), (&false.into(), &"fail".into()));
        assert_eq!(json["findings"][0].get("to_do"), None);
    }
}
