//! What a backend does beside its text, on its way to the phone as `chat.tool_status` (PROTOCOL.md, Activity): cut to its
//! bounds, and no more of it than the agent's rate has room for.

use coralmux_proto::bucket::{Bucket, Rate};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// The longest texts, in characters.
const TOOL_MAX: usize = 100;
const MESSAGE_MAX: usize = 200;
const DETAIL_MAX: usize = 4000;
const CALL_MAX: usize = 128;
/// One a second, of an agent's 120 messages a minute, and as many at once.
const ACTIVITIES_PER_MINUTE: u64 = 60;
const ACTIVITIES_BURST: u64 = 20;
/// Between two messages that say that the model thinks, without and with what it thinks.
const THINKING_INTERVAL: Duration = Duration::from_secs(30);
const THOUGHTS_INTERVAL: Duration = Duration::from_secs(2);

/// How far something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doing {
    /// It goes on.
    #[default]
    Running,
    /// It is done.
    Done,
    /// It failed, and the answer goes on.
    Failed,
}

/// Something that a backend does while it answers. Texts that are empty are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// How far it is.
    pub doing: Doing,
    /// The tool's name.
    pub tool: String,
    /// What is done, for people.
    pub message: String,
    /// More about it, for people.
    pub detail: String,
    /// Which call it is.
    pub call: String,
}

impl Activity {
    /// As fields of a payload.
    #[must_use]
    fn fields(&self) -> Map<String, Value> {
        let status = match self.doing {
            Doing::Running => "running",
            Doing::Done => "done",
            Doing::Failed => "error",
        };
        let mut fields = Map::from_iter([("status".to_owned(), json!(status))]);
        for (name, text, max) in [
            ("tool", &self.tool, TOOL_MAX),
            ("message", &self.message, MESSAGE_MAX),
            ("detail", &self.detail, DETAIL_MAX),
            ("call_id", &self.call, CALL_MAX),
        ] {
            if !text.is_empty() {
                fields.insert(name.to_owned(), json!(cut(text, max)));
            }
        }
        fields
    }
}

/// The text, no longer than so many characters.
#[must_use]
pub fn cut(text: &str, characters_max: usize) -> &str {
    text.char_indices().nth(characters_max).map_or(text, |(at, _)| &text[..at])
}

/// How much of it is sent, for one answer.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    bucket: Bucket,
    /// When the phone was last told that the model thinks.
    thinking: Option<Instant>,
    /// What it has thought since: at most [`DETAIL_MAX`] characters.
    thoughts: String,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, bucket: Bucket::default(), thinking: None, thoughts: String::new() }
    }

    /// What of it is sent now. `None`: there was too much of it lately.
    pub(super) fn pass(&mut self, now: Instant, activity: &Activity) -> Option<Map<String, Value>> {
        let rate = Rate::per(ACTIVITIES_PER_MINUTE, Duration::from_secs(60), ACTIVITIES_BURST)?;
        // Kept away from zero, as that of a full bucket is.
        let now = now.saturating_duration_since(self.began) + Duration::from_secs(3600);
        self.bucket.try_take(now, &rate).ok().map(|()| activity.fields())
    }

    /// The model thinks, and this is a piece of what: empty where it does not say. What is sent of it now.
    pub(super) fn pass_thought(&mut self, now: Instant, thought: &str) -> Option<Map<String, Value>> {
        let left = DETAIL_MAX.saturating_sub(self.thoughts.chars().count());
        self.thoughts.push_str(cut(thought, left));
        let interval = if self.thoughts.is_empty() { THINKING_INTERVAL } else { THOUGHTS_INTERVAL };
        if self.thinking.is_some_and(|at| now < at + interval) {
            return None;
        }
        self.thinking = Some(now);
        let mut fields = Map::new();
        fields.insert("status".to_owned(), json!("thinking"));
        fields.insert("message".to_owned(), json!("The model is thinking"));
        let thoughts = std::mem::take(&mut self.thoughts);
        if !thoughts.is_empty() {
            fields.insert("detail".to_owned(), json!(thoughts));
        }
        Some(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_to_their_bounds_and_empty_ones_are_left_out() {
        let activity = Activity { tool: "\u{fc}".repeat(101), doing: Doing::Failed, ..Activity::default() };
        let fields = Value::Object(activity.fields());
        assert_eq!(fields, json!({"status": "error", "tool": "\u{fc}".repeat(100)}));
    }

    #[test]
    fn a_flood_of_activities_leaves_room_for_other_messages() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let sent = (0..60_000).filter(|ms| {
            let now = start + Duration::from_millis(*ms);
            pace.pass(now, &Activity::default()).is_some()
        });
        assert_eq!(sent.count(), 79, "the burst, and one a second");
    }

    #[test]
    fn thoughts_are_put_together() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut think = |ms: u64, thought: &str| {
            let fields = pace.pass_thought(start + Duration::from_millis(ms), thought)?;
            Some(fields.get("detail").map(|detail| detail.as_str().unwrap_or_default().to_owned()))
        };
        assert_eq!(think(0, "one "), Some(Some("one ".to_owned())));
        assert_eq!((think(10, "two "), think(1999, "")), (None, None));
        assert_eq!(think(2000, "three"), Some(Some("two three".to_owned())));
        assert_eq!((think(4000, ""), think(31_999, "")), (None, None));
        assert_eq!(think(32_000, ""), Some(None));
        assert_eq!(think(33_000, &"x".repeat(5000)), None);
        assert_eq!(think(34_000, "y").flatten().map(|text| text.len()), Some(DETAIL_MAX));
    }
}
