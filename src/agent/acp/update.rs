//! What an agent says while it answers (`session/update`), as text and activity.

use crate::activity::{Activity, Doing};
use crate::backend::{BackendError, Output};
use crate::files::File;
use crate::paragraphs::Paragraphs;
use serde_json::Value;
use std::collections::HashMap;

/// Tool calls of an answer whose names are remembered.
const CALLS_MAX: usize = 256;
/// The longest text of a diff, in bytes.
const DIFF_BYTES_MAX: usize = 16 << 10;

/// What is known of a tool call. Of a later update only what changes has to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Call {
    kind: String,
    title: String,
    doing: Doing,
}

/// An answer while it is made.
#[derive(Debug, Default)]
pub(super) struct Telling {
    calls: HashMap<String, Call>,
    text: Paragraphs,
    has_files: bool,
}

impl Telling {
    /// Whether the person was given any.
    pub(super) fn has_files(&self) -> bool {
        self.has_files
    }

    /// Its text.
    pub(super) fn text(&self) -> &Paragraphs {
        &self.text
    }

    /// Takes an update. Gives the call that is over by it, if one is.
    ///
    /// # Errors
    /// The answer is not wanted any more.
    pub(super) fn take(&mut self, update: &Value, output: &mut dyn Output) -> Result<Option<String>, BackendError> {
        match update["sessionUpdate"].as_str().unwrap_or_default() {
            "agent_message_chunk" => match file(&update["content"]) {
                Some(file) => {
                    self.text.act();
                    self.has_files = true;
                    output.file(file)?;
                }
                None => self.text.push(&content(&update["content"]), output)?,
            },
            "agent_thought_chunk" => output.thinking(&content(&update["content"])),
            "tool_call" | "tool_call_update" => return Ok(self.take_call(update, output)),
            "plan" => {
                self.text.act();
                output.activity(&plan(&update["entries"]));
            }
            // The person's own words, modes, commands, what was used up: nothing to a phone.
            _ => {}
        }
        Ok(None)
    }

    fn take_call(&mut self, update: &Value, output: &mut dyn Output) -> Option<String> {
        let id = update["toolCallId"].as_str()?;
        let call = self.call(id);
        let before = call.clone();
        call.take(update);
        let doing = call.doing;
        let (tool, message) = (call.tool().to_owned(), call.title.clone());
        let detail = details(&update["content"]);
        if *call != before || !detail.is_empty() {
            self.text.act();
            output.activity(&Activity { doing, tool, message, detail, call: id.to_owned() });
        }
        (doing != Doing::Running).then(|| id.to_owned())
    }

    fn call(&mut self, id: &str) -> &mut Call {
        if self.calls.len() >= CALLS_MAX && !self.calls.contains_key(id) {
            self.calls.clear();
        }
        self.calls.entry(id.to_owned()).or_default()
    }

    /// What the person is asked about a tool call. Some agents tell of it here alone.
    pub(super) fn question(&mut self, tool_call: &Value) -> String {
        self.text.act();
        let call = self.call(tool_call["toolCallId"].as_str().unwrap_or_default());
        call.take(tool_call);
        let title = if call.title.trim().is_empty() { call.tool() } else { call.title.trim() };
        let command = match &tool_call["rawInput"]["command"] {
            Value::String(command) => command.clone(),
            Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            _ => String::new(),
        };
        let mut text = format!("The agent asks for your permission: {title}");
        for more in [command, details(&tool_call["content"])] {
            if !more.trim().is_empty() && !title.contains(more.trim()) {
                text += "\n\n";
                text += more.trim_end();
            }
        }
        text
    }
}

impl Call {
    fn take(&mut self, update: &Value) {
        for (field, name) in [(&mut self.kind, "kind"), (&mut self.title, "title")] {
            if let Some(text) = update[name].as_str() {
                text.clone_into(field);
            }
        }
        match update["status"].as_str() {
            Some("completed") => self.doing = Doing::Done,
            Some("failed" | "cancelled") => self.doing = Doing::Failed,
            Some(_) => self.doing = Doing::Running,
            None => {}
        }
    }

    fn tool(&self) -> &str {
        match self.kind.as_str() {
            "" | "other" => "tool",
            kind => kind,
        }
    }
}

/// A block of content, as a file. `None`: it is none, or not readable as one.
fn file(block: &Value) -> Option<File> {
    let (of, data) = match block["type"].as_str()? {
        "image" | "audio" => (block, &block["data"]),
        "resource" => (&block["resource"], &block["resource"]["blob"]),
        _ => return None,
    };
    let text = |name: &str| of[name].as_str().unwrap_or_default();
    let (_, name) = text("uri").rsplit_once('/').unwrap_or_default();
    File::of_base64(name, text("mimeType"), data.as_str()?)
}

/// A block of content, as text.
fn content(block: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match block["type"].as_str().unwrap_or_default() {
        "resource_link" => format!("[{}]({})", text(&block["name"]), text(&block["uri"])),
        "resource" => text(&block["resource"]["text"]),
        "image" => "(an image)".to_owned(),
        "audio" => "(a sound)".to_owned(),
        _ => text(&block["text"]),
    }
}

/// What a tool call has to show: its output, and diffs.
fn details(contents: &Value) -> String {
    let shown = contents.as_array().into_iter().flatten().map(|item| match item["type"].as_str() {
        Some("diff") => diff(item),
        Some("content") => content(&item["content"]),
        _ => String::new(),
    });
    shown.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n")
}

/// A change of a file: the lines that are not the same, with those that go before those that come.
fn diff(item: &Value) -> String {
    let lines = |name: &str| item[name].as_str().unwrap_or_default().lines().collect::<Vec<_>>();
    let (old, new) = (lines("oldText"), lines("newText"));
    let same = old.iter().zip(&new).take_while(|(one, other)| one == other).count();
    let (old, new) = (&old[same..], &new[same..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(one, other)| one == other).count();
    let mut text = item["path"].as_str().unwrap_or_default().to_owned();
    let gone = old[..old.len() - tail].iter().map(|line| ('-', line));
    for (sign, line) in gone.chain(new[..new.len() - tail].iter().map(|line| ('+', line))) {
        if text.len() > DIFF_BYTES_MAX {
            break;
        }
        text.push('\n');
        text.push(sign);
        text += line;
    }
    text
}

/// The agent's plan: what it does now, and all of it beside.
fn plan(entries: &Value) -> Activity {
    let (mut now, mut detail, mut is_done) = (String::new(), String::new(), true);
    for entry in entries.as_array().into_iter().flatten().take(CALLS_MAX) {
        let text = entry["content"].as_str().unwrap_or_default();
        let mark = match entry["status"].as_str() {
            Some("completed") => "[x]",
            Some("in_progress") => "[>]",
            _ => "[ ]",
        };
        is_done &= mark == "[x]";
        if now.is_empty() && mark == "[>]" {
            text.clone_into(&mut now);
        }
        detail += if detail.is_empty() { "" } else { "\n" };
        detail += &format!("{mark} {text}");
    }
    let message = if now.is_empty() { "Plan".to_owned() } else { now };
    let doing = if is_done { Doing::Done } else { Doing::Running };
    Activity { doing, tool: "plan".to_owned(), message, detail, call: "plan".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Default)]
    struct Kept(String, Vec<Activity>);

    impl Output for Kept {
        fn push(&mut self, text: &str) -> Result<(), BackendError> {
            self.0 += text;
            Ok(())
        }

        fn amend(&mut self, _: String) -> Result<(), BackendError> {
            unreachable!("nothing is written over")
        }

        fn activity(&mut self, activity: &Activity) {
            self.1.push(activity.clone());
        }
    }

    fn tell(updates: &[Value]) -> (Kept, Telling) {
        let (mut kept, mut telling) = (Kept::default(), Telling::default());
        for update in updates {
            telling.take(update, &mut kept).unwrap();
        }
        (kept, telling)
    }

    fn said(text: &str) -> Value {
        json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}})
    }

    #[test]
    fn what_is_said_after_a_tool_is_a_paragraph_of_its_own() {
        let call = json!({"sessionUpdate": "tool_call", "toolCallId": "a", "title": "ls", "kind": "execute"});
        let done = json!({"sessionUpdate": "tool_call_update", "toolCallId": "a", "status": "completed",
            "content": [{"type": "content", "content": {"type": "text", "text": "x y"}}]});
        let (kept, _) = tell(&[
            call.clone(),
            said("Let me "),
            said("look."),
            call,
            done.clone(),
            done,
            said("Two."),
            said(" Bye."),
        ]);
        assert_eq!(kept.0, "Let me look.\n\nTwo. Bye.");
        let told: Vec<_> =
            kept.1.iter().map(|a| (a.doing, a.tool.as_str(), a.message.as_str(), a.detail.as_str())).collect();
        let done = (Doing::Done, "execute", "ls", "x y");
        assert_eq!(told, [(Doing::Running, "execute", "ls", ""), done, done]);
    }

    #[test]
    fn a_change_shows_the_lines_that_are_not_the_same() {
        let item = json!({"type": "diff", "path": "/a.txt", "oldText": "1\n2\n3\n4", "newText": "1\n2\nthree\n3.5\n4"});
        assert_eq!(diff(&item), "/a.txt\n-3\n+three\n+3.5");
        assert_eq!(diff(&json!({"path": "/b", "oldText": null, "newText": "x\n"})), "/b\n+x");
        assert_eq!(diff(&json!({"path": "/b", "oldText": "a\na", "newText": "a"})), "/b\n-a");
        assert_eq!(diff(&json!({})), "");
    }

    #[test]
    fn a_plan_shows_what_is_done_now() {
        let entries = json!([{"content": "one", "status": "completed"}, {"content": "two", "status": "in_progress"},
            {"content": "three", "status": "pending"}]);
        let plan = plan(&entries);
        assert_eq!((plan.doing, plan.message.as_str()), (Doing::Running, "two"));
        assert_eq!(plan.detail, "[x] one\n[>] two\n[ ] three");
    }

    #[test]
    fn a_question_says_what_would_be_done() {
        let start = json!({"sessionUpdate": "tool_call", "toolCallId": "a", "title": "bash", "kind": "execute"});
        let (_, mut telling) = tell(&[start]);
        let asked = telling.question(&json!({"toolCallId": "a", "rawInput": {"command": "rm -r build"}}));
        assert_eq!(asked, "The agent asks for your permission: bash\n\nrm -r build");
        assert!(telling.question(&json!({})).ends_with(": tool"));
    }

    #[test]
    fn what_is_odd_is_no_reason_to_stop() {
        for update in [
            json!(null),
            json!([]),
            json!({"sessionUpdate": "new_kind"}),
            json!({"sessionUpdate": "tool_call"}),
            json!({"sessionUpdate": "agent_message_chunk", "content": "text"}),
            json!({"sessionUpdate": "plan", "entries": 7}),
            json!({"sessionUpdate": "tool_call", "toolCallId": "a", "content": [7, {"type": "diff"}], "title": 7}),
        ] {
            assert_eq!(tell(std::slice::from_ref(&update)).0.0, "", "{update}");
        }
    }
}
