//! Why a model stopped, in the words that servers have for it, and in words for the person.

use crate::backend::Ending;
use crate::http::body::words;

/// Why a model stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// It had said all.
    Stop,
    /// It was not allowed to say more.
    Length,
    /// What it said, or was about to, was filtered.
    Filter,
    /// It waits for a tool's result.
    Tools,
    /// The server failed.
    Failed(String),
    /// What the agent does not know, in the server's word.
    Other(String),
}

impl Finish {
    /// Reads a `finish_reason`. Servers that have none yet say null, or an empty text.
    pub(super) fn read(reason: &str) -> Option<Self> {
        let reason = reason.trim();
        Some(match reason.to_ascii_lowercase().as_str() {
            "" | "null" | "none" | "in_progress" => return None,
            "stop" | "end_turn" | "eos" | "eos_token" | "stop_sequence" | "stop_token" | "complete" | "completed" => {
                Self::Stop
            }
            "length" | "max_tokens" | "max_output_tokens" | "max_length" | "model_length" => Self::Length,
            "content_filter" | "content-filter" | "safety" | "recitation" | "prohibited_content" | "blocklist"
            | "sensitive" => Self::Filter,
            "tool_calls" | "tool_call" | "tool_use" | "function_call" => Self::Tools,
            "error"
            | "abort"
            | "aborted"
            | "cancelled"
            | "canceled"
            | "network_error"
            | "insufficient_system_resource" => Self::Failed(words(reason)),
            _ => Self::Other(words(reason)),
        })
    }

    /// What an answer of which there is some text lacks. `None`: nothing.
    pub(super) fn ending(&self) -> Option<Ending> {
        let (finish, notice) = match self {
            Self::Stop | Self::Failed(_) => return None,
            Self::Length => ("length", "The answer was cut off: the model's length limit was reached.".to_owned()),
            Self::Filter => ("content_filter", "The answer was cut off by the AI server's content filter.".to_owned()),
            Self::Tools => ("tool_calls", "The model wanted to use a tool, and this agent has none.".to_owned()),
            Self::Other(reason) => ("other", format!("The AI server ended the answer for another reason: {reason}.")),
        };
        Some(Ending { finish, notice })
    }

    /// Why there is no text at all.
    pub(super) fn emptiness(finish: Option<&Self>, has_thought: bool) -> String {
        match finish {
            None | Some(Self::Stop | Self::Failed(_)) if has_thought => {
                "the model thought and then gave no answer".to_owned()
            }
            None | Some(Self::Stop | Self::Failed(_)) => "the AI server's answer is empty".to_owned(),
            Some(Self::Length) if has_thought => {
                "the model's length limit was reached while it was thinking: there is no answer".to_owned()
            }
            Some(Self::Length) => "the model's length limit was reached before its first word".to_owned(),
            Some(Self::Filter) => "the AI server's content filter withheld the answer".to_owned(),
            Some(Self::Tools) => "the model wanted to use a tool, and this agent has none".to_owned(),
            Some(Self::Other(reason)) => format!("the AI server gave no answer, for another reason: {reason}"),
        }
    }
}

/// The ending of an answer that is a refusal.
pub(super) fn refused() -> Ending {
    Ending { finish: "refusal", notice: "The model refused to answer.".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_whatever_its_case_and_nothing_is_none() {
        assert_eq!((Finish::read(""), Finish::read(" null ")), (None, None));
        assert_eq!((Finish::read("STOP"), Finish::read("MAX_TOKENS")), (Some(Finish::Stop), Some(Finish::Length)));
        assert_eq!(Finish::read("new\nthing"), Some(Finish::Other("new thing".to_owned())));
        assert_eq!(Finish::Stop.ending(), None);
        assert!(Finish::read("x").unwrap().ending().unwrap().notice.ends_with(": x."));
    }
}
