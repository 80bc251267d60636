//! What was said, for the model's context and for `chat.history`. In memory, within bounds; where there are devices,
//! the texts of the newest turns are kept in a file, too.

use super::backend::{Ending, Image};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Conversations; the one that was quiet for the longest goes first.
const CHATS_MAX: usize = 64;
/// Turns of a conversation; the oldest go first.
const TURNS_MAX: usize = 200;
/// Bytes of a conversation, images too; the oldest turns go first.
const BYTES_MAX: usize = 16 << 20;
/// Bytes of all conversations; the one that was quiet for the longest goes first.
const ALL_BYTES_MAX: usize = 64 << 20;
const _: () = assert!(BYTES_MAX <= ALL_BYTES_MAX);
/// A question that has been on its way for this long comes late: its agent was away. What it asks for may be wanted no more.
const LATE: Duration = Duration::from_secs(3600);
/// Turns, counted from the end, whose images are kept.
const TURNS_WITH_IMAGES: usize = 6;

/// Bytes of the texts that are kept in the file: of the newest turns, in the conversations that were last spoken in.
const FILE_TEXTS_MAX: usize = 4 << 20;
/// The longest file that is read.
pub const FILE_BYTES_MAX: u64 = 32 << 20;

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// The person.
    User,
    /// The backend.
    Assistant,
}

impl Speaker {
    /// As chat APIs name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One thing that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// By whom.
    pub speaker: Speaker,
    /// The text.
    pub text: String,
    /// The images; those of old turns are forgotten.
    pub images: Vec<Image>,
    /// How many images there were.
    pub image_count: usize,
    /// How many files of the agent's there were; they are not kept.
    pub file_count: usize,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// An answer: why it is not whole.
    pub ending: Option<Ending>,
    /// A question: how long it had been on its way when it came, if that was `LATE` or longer.
    pub late: Option<Duration>,
}

impl Turn {
    /// Something that is said now.
    #[must_use]
    pub fn new(speaker: Speaker, text: String, images: Vec<Image>, at_ms: u64) -> Self {
        Self { speaker, text, image_count: images.len(), images, file_count: 0, at_ms, ending: None, late: None }
    }

    /// A question that comes now, and was asked when its sender says, if it says so and that is not in the future.
    #[must_use]
    pub fn asked(text: String, images: Vec<Image>, now_ms: u64, sent_at_ms: Option<u64>) -> Self {
        let at_ms = sent_at_ms.map_or(now_ms, |at| at.min(now_ms));
        let late = Some(Duration::from_millis(now_ms - at_ms)).filter(|late| *late >= LATE);
        Self { late, ..Self::new(Speaker::User, text, images, at_ms) }
    }

    /// The text for who understands words: behind a question that comes late is said that it does.
    #[must_use]
    pub fn text_with_age(&self) -> Cow<'_, str> {
        let Some(late) = self.late else { return Cow::Borrowed(&self.text) };
        let hours = late.as_secs() / 3600;
        let (count, unit) = if hours < 48 { (hours, "hour") } else { (hours / 24, "day") };
        let plural = if count == 1 { "" } else { "s" };
        let gap = if self.text.is_empty() { "" } else { "\n\n" };
        Cow::Owned(format!("{}{gap}(This was asked {count} {unit}{plural} ago, and has only arrived now.)", self.text))
    }

    fn bytes(&self) -> usize {
        let said = self.ending.as_ref().map_or(0, |ending| ending.notice.len());
        64 + said + self.text.len() + self.images.iter().map(|image| image.data.len() + image.mime.len()).sum::<usize>()
    }
}

#[derive(Debug, Default)]
struct Chat {
    turns: VecDeque<Turn>,
    /// When it was last spoken in, by `History::clock`.
    touched: u64,
    /// Of its turns and its name: at most [`BYTES_MAX`], but for a single turn.
    bytes: usize,
}

/// A conversation in the file.
#[derive(Serialize, Deserialize)]
struct KeptChat {
    chat: String,
    turns: Vec<KeptTurn>,
}

/// A turn in the file.
#[derive(Serialize, Deserialize)]
struct KeptTurn {
    role: Speaker,
    text: String,
    ts: u64,
    #[serde(default)]
    images: usize,
    #[serde(default)]
    files: usize,
    #[serde(default)]
    finish: Option<String>,
    #[serde(default)]
    notice: String,
}

/// Why an answer was not whole, by the word that was kept.
const FINISHES: [&str; 7] = ["length", "content_filter", "tool_calls", "refusal", "other", "cancelled", "error"];

impl KeptTurn {
    fn of(turn: &Turn) -> Self {
        let (finish, notice) = turn
            .ending
            .as_ref()
            .map_or((None, String::new()), |ending| (Some(ending.finish.to_owned()), ending.notice.clone()));
        Self {
            role: turn.speaker,
            text: turn.text.clone(),
            ts: turn.at_ms,
            images: turn.image_count,
            files: turn.file_count,
            finish,
            notice,
        }
    }

    fn read(self) -> Turn {
        let ending = self.finish.map(|word| {
            let finish = FINISHES.into_iter().find(|finish| *finish == word).unwrap_or("other");
            Ending { finish, notice: self.notice }
        });
        let turn = Turn::new(self.role, self.text, Vec::new(), self.ts);
        Turn { image_count: self.images, file_count: self.files, ending, ..turn }
    }
}

/// All conversations of a pairing.
#[derive(Debug, Default)]
pub struct History {
    chats: HashMap<String, Chat>,
    clock: u64,
    changes: u64,
    /// Of all conversations: at most [`ALL_BYTES_MAX`], but for a single one.
    bytes: usize,
}

impl History {
    /// What was kept. `None`: it is not what [`to_file`](Self::to_file) writes.
    #[must_use]
    pub fn of_file(text: &str) -> Option<Self> {
        let chats: Vec<KeptChat> = serde_json::from_str(text).ok()?;
        let mut history = Self::default();
        for KeptChat { chat, turns } in chats {
            turns.into_iter().for_each(|turn| history.push(&chat, turn.read()));
        }
        history.changes = 0;
        Some(history)
    }

    /// What is kept of it: texts, and no images.
    #[must_use]
    pub fn to_file(&self) -> String {
        let mut newest_first: Vec<_> = self.chats.iter().collect();
        newest_first.sort_by_key(|(_, chat)| std::cmp::Reverse(chat.touched));
        let mut left = FILE_TEXTS_MAX;
        let mut kept = Vec::new();
        for (name, chat) in newest_first {
            let turns = chat.turns.iter().rev().map_while(|turn| {
                left = left.checked_sub(turn.text.len())?;
                Some(KeptTurn::of(turn))
            });
            let mut turns: Vec<_> = turns.collect();
            turns.reverse();
            kept.push(KeptChat { chat: name.clone(), turns });
        }
        kept.reverse();
        // Structs of strings and numbers: there is nothing in them that cannot be written.
        serde_json::to_string(&kept).unwrap_or_default()
    }

    /// How often it was changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Adds what was said.
    pub fn push(&mut self, chat: &str, turn: Turn) {
        (self.clock, self.changes) = (self.clock + 1, self.changes + 1);
        if !self.chats.contains_key(chat) && self.chats.len() >= CHATS_MAX {
            self.forget_quietest(chat);
        }
        let kept = self.chats.entry(chat.to_owned()).or_default();
        kept.touched = self.clock;
        kept.turns.push_back(turn);
        let with_images = kept.turns.len().saturating_sub(TURNS_WITH_IMAGES);
        kept.turns.iter_mut().take(with_images).for_each(|turn| turn.images.clear());
        let mut bytes: usize = chat.len() + kept.turns.iter().map(Turn::bytes).sum::<usize>();
        while kept.turns.len() > TURNS_MAX || bytes > BYTES_MAX && kept.turns.len() > 1 {
            bytes -= kept.turns.pop_front().map_or(0, |turn| turn.bytes());
        }
        self.bytes = self.bytes - std::mem::replace(&mut kept.bytes, bytes) + bytes;
        while self.bytes > ALL_BYTES_MAX && self.chats.len() > 1 {
            self.forget_quietest(chat);
        }
    }

    /// Forgets the conversation that was quiet for the longest, but for this one.
    fn forget_quietest(&mut self, spared: &str) {
        let others = self.chats.iter().filter(|(name, _)| *name != spared);
        let quietest = others.min_by_key(|(_, chat)| chat.touched).map(|(name, _)| name.clone());
        let forgotten = quietest.and_then(|name| self.chats.remove(&name));
        self.bytes -= forgotten.map_or(0, |chat| chat.bytes);
    }

    /// Takes the last turn back where it was the person's: it was not answered.
    pub fn forget_question(&mut self, chat: &str) {
        if let Some(chat) = self.chats.get_mut(chat)
            && chat.turns.back().is_some_and(|turn| turn.speaker == Speaker::User)
            && let Some(turn) = chat.turns.pop_back()
        {
            self.changes += 1;
            chat.bytes -= turn.bytes();
            self.bytes -= turn.bytes();
        }
    }

    /// The last turns of a conversation, at most `turns_max`, oldest first; they begin with the person's.
    #[must_use]
    pub fn context(&self, chat: &str, turns_max: usize) -> Vec<Turn> {
        let Some(chat) = self.chats.get(chat) else { return Vec::new() };
        let skip = chat.turns.len().saturating_sub(turns_max.max(1));
        chat.turns.iter().skip(skip).skip_while(|turn| turn.speaker == Speaker::Assistant).cloned().collect()
    }

    /// The last turns as `chat.history.result` has them, oldest first: at most `limit`, and as many as `bytes_max` of
    /// JSON take. Whether there are older ones that are not among them is said beside.
    #[must_use]
    pub fn to_json(&self, chat: &str, limit: usize, bytes_max: usize) -> (Value, bool) {
        let Some(Chat { turns, .. }) = self.chats.get(chat) else { return (json!([]), false) };
        let mut left = bytes_max;
        let newest_first = turns.iter().rev().take(limit).map_while(|turn| {
            let mut message = json!({"role": turn.speaker.name(), "text": turn.text, "ts": turn.at_ms});
            if turn.image_count != 0 {
                message["images"] = json!(turn.image_count);
            }
            if turn.file_count != 0 {
                message["files"] = json!(turn.file_count);
            }
            if let Some(ending) = &turn.ending {
                message["finish"] = json!(ending.finish);
                if !ending.notice.is_empty() {
                    message["notice"] = json!(ending.notice);
                }
            }
            // Written, for escapes make a text longer. One byte more is the comma.
            left = left.checked_sub(message.to_string().len() + 1)?;
            Some(message)
        });
        let mut messages: Vec<Value> = newest_first.collect();
        messages.reverse();
        let more = messages.len() < turns.len();
        (Value::Array(messages), more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(speaker: Speaker, text: &str) -> Turn {
        let images = if text.contains("image") {
            vec![Image { mime: "image/png".to_owned(), data: "AAAA".to_owned() }]
        } else {
            Vec::new()
        };
        Turn::new(speaker, text.to_owned(), images, 1)
    }

    #[test]
    fn a_conversation_keeps_its_last_turns_and_the_images_of_the_newest() {
        let mut history = History::default();
        for number in 0..TURNS_MAX + 10 {
            history.push("a", turn(Speaker::User, &format!("image {number}")));
        }
        let turns = history.context("a", usize::MAX);
        assert_eq!((turns.len(), turns[0].text.as_str()), (TURNS_MAX, "image 10"));
        assert_eq!(turns.iter().filter(|turn| !turn.images.is_empty()).count(), TURNS_WITH_IMAGES);
        assert!(turns.iter().all(|turn| turn.image_count == 1));
        assert_eq!(history.to_json("a", 1, usize::MAX).0[0]["images"], 1);
        assert_eq!(history.to_json("b", 1, usize::MAX), (json!([]), false));
    }

    #[test]
    fn a_question_that_comes_late_says_so_and_keeps_its_time() {
        const HOUR: u64 = 3_600_000;
        let text = |hours, sent_at| {
            let turn = Turn::asked("on?".to_owned(), Vec::new(), hours * HOUR, sent_at);
            (turn.at_ms / HOUR, turn.text_with_age().into_owned())
        };
        let note = |age| format!("on?\n\n(This was asked {age} ago, and has only arrived now.)");
        assert_eq!(text(100, Some(99 * HOUR)), (99, note("1 hour")));
        assert_eq!(text(100, Some(53 * HOUR)), (53, note("47 hours")));
        assert_eq!(text(100, Some(1)), (0, note("4 days")));
        // What came at once, by whatever clock.
        for (sent_at, at) in [(None, 100), (Some(99 * HOUR + 1), 99), (Some(u64::MAX), 100)] {
            assert_eq!(text(100, sent_at), (at, "on?".to_owned()), "{sent_at:?}");
        }
        let empty = Turn::asked(String::new(), Vec::new(), 2 * HOUR, Some(0));
        assert!(empty.text_with_age().starts_with('('));
    }

    #[test]
    fn a_history_has_the_newest_turns_that_fit() {
        let mut history = History::default();
        for text in ["one", "\u{1}\u{1}", "three"] {
            history.push("a", turn(Speaker::User, text));
        }
        let written = |limit, bytes_max| {
            let (messages, more) = history.to_json("a", limit, bytes_max);
            (messages.as_array().unwrap().len(), messages.to_string().len(), more)
        };
        let (_, last, _) = written(1, usize::MAX);
        let (_, last_two, _) = written(2, usize::MAX);
        assert!(last_two > 2 * last, "escapes count");
        assert_eq!(written(9, last_two), (2, last_two, true));
        assert_eq!(written(9, last_two - 2), (1, last, true));
        assert_eq!(written(9, 0).0, 0);
        let all = written(3, usize::MAX);
        assert_eq!((all.0, all.2), (3, false));
    }

    #[test]
    fn what_is_kept_reads_back_without_images_and_within_its_bound() {
        let mut history = History::default();
        history.push("a", turn(Speaker::User, "image"));
        let ending = Some(Ending { finish: "length", notice: "why".to_owned() });
        history.push("a", Turn { ending, file_count: 2, ..turn(Speaker::Assistant, "\u{1}\"") });
        history.push("", turn(Speaker::User, "b"));
        let read = History::of_file(&history.to_file()).unwrap();
        assert_eq!((read.changes(), history.changes()), (0, 3));
        assert_eq!(read.to_json("a", 1, usize::MAX).0[0]["files"], 2);
        assert_eq!(read.to_json("a", 9, usize::MAX), history.to_json("a", 9, usize::MAX));
        assert!(read.context("a", 9)[0].images.is_empty() && read.context("", 9)[0].text == "b");
        for number in 0..9 {
            history.push(&number.to_string(), turn(Speaker::User, &"x".repeat(1 << 20)));
        }
        let text = history.to_file();
        assert!(text.len() < FILE_TEXTS_MAX + 4096, "{}", text.len());
        let read = History::of_file(&text).unwrap();
        assert!(read.context("8", 1).len() == 1 && read.context("0", 1).is_empty());
        for damaged in ["", "{}", "[{}]"] {
            assert!(History::of_file(damaged).is_none());
        }
    }

    #[test]
    fn a_conversation_is_bounded_in_bytes() {
        let mut history = History::default();
        for _ in 0..20 {
            history.push("a", turn(Speaker::User, &"x".repeat(1 << 20)));
        }
        assert_eq!(history.context("a", usize::MAX).len(), 15);
        history.push("a", turn(Speaker::User, &"x".repeat(BYTES_MAX + 1)));
        assert_eq!(history.context("a", usize::MAX).len(), 1);
    }

    #[test]
    fn all_conversations_together_are_bounded_in_bytes() {
        let mut history = History::default();
        for number in 0..CHATS_MAX {
            for _ in 0..5 {
                history.push(&number.to_string(), turn(Speaker::User, &"x".repeat(3 << 20)));
            }
            history.forget_question(&number.to_string());
            let bytes = |chat: &Chat| chat.turns.iter().map(Turn::bytes).sum::<usize>();
            let kept: usize = history.chats.iter().map(|(name, chat)| name.len() + bytes(chat)).sum();
            assert_eq!(kept, history.bytes);
            assert!(kept <= ALL_BYTES_MAX && !history.context(&number.to_string(), 9).is_empty());
        }
        assert!(history.chats.len() >= 4 && history.context("0", 9).is_empty());
    }

    #[test]
    fn the_conversation_that_was_quiet_for_the_longest_is_forgotten() {
        let mut history = History::default();
        for number in 0..CHATS_MAX {
            history.push(&number.to_string(), turn(Speaker::User, "x"));
        }
        history.push("0", turn(Speaker::Assistant, "y"));
        history.push("new", turn(Speaker::User, "z"));
        assert_eq!(history.chats.len(), CHATS_MAX);
        assert!(history.context("1", 9).is_empty() && history.context("0", 9).len() == 2);
    }

    #[test]
    fn a_context_begins_with_the_person() {
        let mut history = History::default();
        for (speaker, text) in [(Speaker::User, "1"), (Speaker::Assistant, "2"), (Speaker::User, "3")] {
            history.push("", turn(speaker, text));
        }
        let texts = |turns: Vec<Turn>| turns.into_iter().map(|turn| turn.text).collect::<Vec<_>>().join(" ");
        assert_eq!(texts(history.context("", 2)), "3");
        history.forget_question("");
        history.forget_question("");
        assert_eq!(texts(history.context("", 9)), "1 2");
    }
}
